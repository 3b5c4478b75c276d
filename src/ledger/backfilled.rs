//! Tells the backfills which of their chunks are settled or parked.
//!
//! Only what is committed is told: from then on `walhook.backfills` says the same.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use tokio::sync::watch;

use crate::flow::backfill::BackfillId;
use crate::flow::backfill::BackfillStep;

/// The last chunk of each backfill that is done. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct BackfillProgress {
    done: Arc<Mutex<HashMap<BackfillId, u64>>>,
    changed: watch::Sender<()>,
}

impl Default for BackfillProgress {
    fn default() -> Self {
        Self { done: Arc::default(), changed: watch::Sender::new(()) }
    }
}

impl BackfillProgress {
    pub(crate) fn note(&self, steps: &[BackfillStep]) {
        if steps.is_empty() {
            return;
        }
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        done.extend(steps.iter().map(|step| (step.id, step.chunk)));
        drop(done);
        self.changed.send_replace(());
    }

    /// Waits until this chunk is done.
    pub(crate) async fn is_done(&self, id: BackfillId, chunk: u64) {
        let mut changed = self.changed.subscribe();
        loop {
            changed.mark_unchanged();
            let done = self.done.lock().unwrap_or_else(PoisonError::into_inner).get(&id).copied();
            if done.is_some_and(|done| done >= chunk) {
                return;
            }
            // The sender is our own, so that it cannot be gone.
            changed.changed().await.ok();
        }
    }

    /// Nothing more comes of this backfill.
    pub(crate) fn forget(&self, id: BackfillId) {
        self.done.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinSet;

    use super::*;

    #[tokio::test]
    async fn a_chunk_is_done_when_it_or_a_later_one_is() {
        let progress = BackfillProgress::default();
        let step = |chunk| BackfillStep {
            id: BackfillId(1),
            chunk,
            cursor: "{}".into(),
            read: 1,
            sent: 1,
            moved: None,
        };
        let waiting = progress.clone();
        let mut waits = JoinSet::new();
        waits.spawn(async move { waiting.is_done(BackfillId(1), 2).await });
        progress.note(&[step(1)]);
        tokio::task::yield_now().await;
        assert!(waits.try_join_next().is_none());
        progress.note(&[step(2)]);
        waits.join_next().await.expect("it was spawned").expect("it does not panic");
        progress.is_done(BackfillId(1), 1).await;
    }
}
