//! How far the deliveries of an endpoint have come into the lane's memory.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::flow::backlog::BacklogPosition;
use crate::flow::event::Event;
use crate::flow::event::EventId;
use crate::flow::lsn::Position;
use crate::lane::core::retry_queue::ResumedDelivery;

/// The newest delivery that was in memory: what is in the backlog only comes after it.
///
/// One change can raise several events, and memory may have some of them and the backlog others.
#[derive(Debug, Default)]
pub(super) struct LaneCursor {
    newest: Option<Position>,
    /// The row of the newest, if it came from the backlog.
    row: Option<i64>,
    /// The events of the newest position that have passed.
    passed: Vec<EventId>,
    /// Older ones that have left memory again, and what is left of their attempts: their rows may not
    /// know of the last one yet.
    evicted: BTreeMap<(Position, EventId), Option<ResumedDelivery>>,
}

impl LaneCursor {
    /// An event comes into memory, from the backlog's row with this number or from the source.
    pub(super) fn pass(&mut self, event: &Event, row: Option<i64>) {
        if self.newest != Some(event.position) {
            self.newest = Some(event.position);
            self.passed.clear();
            self.row = None;
        }
        self.row = row.or(self.row);
        self.passed.push(event.id);
    }

    /// What has left memory is due now, as if it had not been tried.
    pub(super) fn restart(&mut self, now: Instant) {
        for resume in self.evicted.values_mut().flatten() {
            resume.due = now;
            resume.tries.restart();
        }
    }

    /// An event has left memory, and its row is to come in again.
    pub(super) fn evict(&mut self, event: &Event, resume: Option<ResumedDelivery>) {
        self.evicted.insert((event.position, event.id), resume);
    }

    /// A row comes in. Returns what is left of its attempts, if it was in memory before.
    pub(super) fn come_in(&mut self, event: &Event, row: i64) -> Option<ResumedDelivery> {
        match self.evicted.remove(&(event.position, event.id)) {
            Some(resume) => resume,
            None => {
                self.pass(event, Some(row));
                None
            }
        }
    }

    /// Whether nothing is to come in again.
    pub(super) fn is_complete(&self) -> bool {
        self.evicted.is_empty()
    }

    /// Whether an event that comes before this one has to come in again, and is not there yet.
    pub(super) fn is_ahead_of_evicted(&self, event: &Event) -> bool {
        let first = self.evicted.first_key_value();
        first.is_some_and(|((first, _), _)| *first < event.position)
    }

    /// Whether the event has been in memory, and has not left it unsettled.
    pub(super) fn has_passed(&self, event: &Event) -> bool {
        if self.evicted.contains_key(&(event.position, event.id)) {
            return false;
        }
        self.newest.is_some_and(|newest| event.position < newest)
            || self.passed.contains(&event.id) && self.newest == Some(event.position)
    }

    /// Where to read on in the backlog, and how many rows from there on may have been in memory.
    pub(super) fn read_on(&self) -> (Option<BacklogPosition>, usize) {
        if let Some(((first, _), _)) = self.evicted.first_key_value() {
            let after = BacklogPosition { position: *first, row: 0 };
            return (Some(after), self.passed.len());
        }
        let after = |position| BacklogPosition { position, row: self.row.unwrap_or(0) };
        (self.newest.map(after), self.passed.len())
    }
}
