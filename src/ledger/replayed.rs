//! Tells the resender which of the deliveries that it sent again have come to their end.
//!
//! Only what is committed is told: from then on the dead letter, or the push log, says the same. The
//! lock is taken once for a flush in which a replay ended, never for other deliveries.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use tokio::sync::watch;

use crate::flow::settlement::ReplayId;

/// How a replay ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ReplayEnd {
    Delivered,
    /// It was too old to be sent.
    Expired,
    /// Given up, after all retries.
    Failed,
}

/// The ends that nobody has taken yet: no more than there are replays in memory. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct ReplayProgress {
    ended: Arc<Mutex<HashMap<ReplayId, ReplayEnd>>>,
    changed: watch::Sender<()>,
}

impl Default for ReplayProgress {
    fn default() -> Self {
        Self { ended: Arc::default(), changed: watch::Sender::new(()) }
    }
}

impl ReplayProgress {
    pub(crate) fn note(&self, ended: Vec<(ReplayId, ReplayEnd)>) {
        if !ended.is_empty() {
            self.lock().extend(ended);
            self.changed.send_replace(());
        }
    }

    /// Changes whenever more have ended.
    pub(crate) fn watch(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// How this one ended, if it has; it is forgotten here.
    pub(crate) fn take(&self, id: ReplayId) -> Option<ReplayEnd> {
        self.lock().remove(&id)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ReplayId, ReplayEnd>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_end_is_told_once_to_whoever_asks_for_it() {
        let replayed = ReplayProgress::default();
        let mut watch = replayed.watch();
        let (letter, logged) = (ReplayId::Letter(1), ReplayId::Logged(1));
        replayed.note(vec![(letter, ReplayEnd::Failed)]);
        watch.changed().await.expect("somebody holds the sender");
        assert_eq!(replayed.take(logged), None);
        assert_eq!(replayed.take(letter), Some(ReplayEnd::Failed));
        assert_eq!(replayed.take(letter), None);
    }
}
