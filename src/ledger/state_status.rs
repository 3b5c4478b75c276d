//! Whether the state can be written, for readiness, status and metrics.
//!
//! ```text
//! writer ─ begun, failed, committed ─▶ [StateStatus] ─▶ /ready, status, metrics
//! state_probe ─ answered, silent ─────▶   │
//! ```
//!
//! A flush that hangs says nothing by itself, and while nothing is to be written there is none: so the
//! time that a flush takes counts, and the state probe asks now and then.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::Instant;

/// A flush takes milliseconds: one that takes longer than this is in trouble.
const FLUSH_LATE: Duration = Duration::from_secs(5);

/// Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct StateStatus(Arc<Mutex<StateView>>);

#[derive(Debug, Default)]
struct StateView {
    /// When the flush under way was begun.
    begun: Option<Instant>,
    /// Why the last try to write failed; `None` once one was committed.
    failed: Option<String>,
    /// Why the last question was not answered; `None` once one was.
    silent: Option<String>,
}

impl StateStatus {
    /// A flush is under way.
    pub(crate) fn begun(&self) {
        self.locked().begun.get_or_insert_with(Instant::now);
    }

    /// A try to write it failed; it is tried again. `reason` holds no secret.
    pub(crate) fn failed(&self, reason: String) {
        self.locked().failed = Some(reason);
    }

    /// It was committed, or given up.
    pub(crate) fn ended(&self) {
        let mut view = self.locked();
        (view.begun, view.failed) = (None, None);
    }

    /// What became of a question; `silent` says why there was no answer.
    pub(crate) fn asked(&self, silent: Option<String>) {
        self.locked().silent = silent;
    }

    /// # Errors
    /// Why the state cannot be written at the moment.
    pub(crate) fn readiness(&self, now: Instant) -> Result<(), String> {
        let view = self.locked();
        let late = view.begun.map(|begun| now.saturating_duration_since(begun));
        let late = late.filter(|late| *late >= FLUSH_LATE).map(|late| {
            let seconds = late.as_secs();
            format!("a flush was not committed within {seconds} s: the database is slow, locked or frozen")
        });
        let reason = [view.failed.clone(), view.silent.clone(), late].into_iter().flatten().next();
        reason.map_or(Ok(()), |reason| {
            Err(format!("walhook's state (schema walhook) cannot be written: {reason}"))
        })
    }

    fn locked(&self) -> MutexGuard<'_, StateView> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_state_is_named_while_it_cannot_be_written() {
        let status = StateStatus::default();
        assert_eq!(status.readiness(Instant::now()), Ok(()));
        status.begun();
        tokio::time::advance(Duration::from_secs(4)).await;
        assert_eq!(status.readiness(Instant::now()), Ok(()), "flushes may take a while");
        tokio::time::advance(Duration::from_secs(2)).await;
        let late = status.readiness(Instant::now()).unwrap_err();
        assert!(late.contains("schema walhook") && late.contains("6 s"), "{late}");
        status.failed(String::from("disk full"));
        assert!(status.readiness(Instant::now()).unwrap_err().contains("disk full"));
        status.ended();
        assert_eq!(status.readiness(Instant::now()), Ok(()));
        status.asked(Some(String::from("no answer")));
        assert!(status.readiness(Instant::now()).unwrap_err().contains("no answer"));
        status.asked(None);
        assert_eq!(status.readiness(Instant::now()), Ok(()));
    }
}
