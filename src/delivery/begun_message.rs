//! Messages in several pieces of which some were taken: a further attempt begins with the next one.
//!
//! In memory, and shared by all clients of a process: a reload of the configuration does not make a
//! message begin anew. A new process does not know of them, so it begins with the first piece.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use crate::flow::event::EventId;

/// How many are remembered. With more at once the oldest begin anew.
const BEGUN_MAX: usize = 1000;

/// Clones share them.
#[derive(Clone, Default)]
pub(crate) struct BegunMessages(Arc<Mutex<VecDeque<Begun>>>);

struct Begun {
    endpoint: Arc<str>,
    event: EventId,
    /// Pieces that were taken.
    taken: usize,
}

impl BegunMessages {
    /// How many pieces of a message an endpoint has taken.
    pub(crate) fn taken(&self, endpoint: &str, event: EventId) -> usize {
        let all = self.all();
        let found = all.iter().find(|begun| begun.event == event && *begun.endpoint == *endpoint);
        found.map_or(0, |begun| begun.taken)
    }

    pub(crate) fn note(&self, endpoint: &Arc<str>, event: EventId, taken: usize) {
        self.forget(endpoint, event);
        let mut all = self.all();
        if all.len() >= BEGUN_MAX {
            all.pop_front();
        }
        all.push_back(Begun { endpoint: Arc::clone(endpoint), event, taken });
    }

    /// All of it was taken.
    pub(crate) fn forget(&self, endpoint: &str, event: EventId) {
        self.all().retain(|begun| begun.event != event || *begun.endpoint != *endpoint);
    }

    fn all(&self) -> MutexGuard<'_, VecDeque<Begun>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
