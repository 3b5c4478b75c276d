//! Graceful shutdown: how the grace period (`grace`) is divided, stage by stage.
//!
//! ```text
//! asked to stop                                                                     the grace is over
//! │ the source reads no more; lanes send what they have                                             │
//! ├──────────────────────────────────┬────────────────────────┬────────────────────────┬────────────┤
//!                               2.5 s before             1.2 s before             0.6 s before
//!                               stop_intake:             abort_requests:          abort_writes:
//!                               no request begins        those in flight          what is not committed
//!                                                        are dropped              comes again
//! ```
//!
//! A grace period of less than 5 s is divided in the same proportions: what is in flight gets half of it to end.
//! `finished` ends it at any point: all is settled, and nothing is left to wait for.

use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::sync::DropGuard;

/// What is left of the grace period when the lanes stop making requests, and when those that are
/// still in flight are aborted: enough for the last confirmation to reach PostgreSQL.
const LAST_REQUESTS: Duration = Duration::from_millis(2500);
const LAST_WORDS: Duration = Duration::from_millis(1200);

/// In a grace period of so long or longer these are what they are.
const WHOLE_GRACE: Duration = Duration::from_secs(5);

/// How long a shutdown waits for a database that is away.
pub(crate) const AWAY_MAX: Duration = Duration::from_secs(2);

/// The same for the ledger's last flush: the database may be away.
const LAST_FLUSH: Duration = Duration::from_millis(600);

/// How long whatever has ended may take to say why.
const REASON_MAX: Duration = Duration::from_secs(1);

/// The stages of a shutdown; see the picture of the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct ShutdownStages {
    /// The lanes make no more requests.
    pub(crate) stop_intake: CancellationToken,
    /// Requests in flight are dropped.
    pub(crate) abort_requests: CancellationToken,
    /// What is not committed by now comes again.
    pub(crate) abort_writes: CancellationToken,
    /// All is settled.
    pub(crate) finished: CancellationToken,
}

impl ShutdownStages {
    /// Ends all requests, and lets none begin.
    pub(crate) fn end_requests(&self) {
        self.stop_intake.cancel();
        self.abort_requests.cancel();
    }

    /// The same when the guards are dropped.
    pub(crate) fn end_requests_when_dropped(&self) -> [DropGuard; 2] {
        [self.stop_intake.clone().drop_guard(), self.abort_requests.clone().drop_guard()]
    }

    /// Runs a task without which nothing may be sent any more: if it fails, requests end.
    ///
    /// # Errors
    /// The task's.
    pub(crate) async fn unless_failed(
        self,
        task: impl Future<Output = anyhow::Result<()>>,
    ) -> anyhow::Result<()> {
        let ended = task.await;
        if ended.is_err() {
            self.end_requests();
        }
        ended
    }

    /// Ends when it makes no sense any more to wait for the ledger's last flush: at the very end,
    /// or soon when the database is away. What is not committed comes again.
    pub(crate) async fn last_flush_deadline(
        self,
        stop: CancellationToken,
        mut writable: watch::Receiver<bool>,
    ) {
        stop.cancelled().await;
        let away = async {
            loop {
                if writable.wait_for(|writable| !writable).await.is_err() {
                    return std::future::pending().await; // the ledger has ended by itself
                }
                let back = writable.wait_for(|writable| *writable);
                if tokio::time::timeout(AWAY_MAX, back).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = self.abort_writes.cancelled() => {}
            () = away => {}
        }
    }

    /// Cancels them in turn when `stop` is cancelled.
    pub(crate) async fn follow(
        self,
        stop: CancellationToken,
        grace: Duration,
    ) -> anyhow::Result<()> {
        stop.cancelled().await;
        let share = grace.div_duration_f64(WHOLE_GRACE).min(1.0);
        let [requests, words, flush] =
            [LAST_REQUESTS, LAST_WORDS, LAST_FLUSH].map(|last| last.mul_f64(share));
        let cut = async {
            tokio::time::sleep(grace.saturating_sub(requests)).await;
            self.stop_intake.cancel();
            tokio::time::sleep(requests.saturating_sub(words)).await;
            self.abort_requests.cancel();
            tokio::time::sleep(words.saturating_sub(flush)).await;
            self.abort_writes.cancel();
        };
        tokio::select! {
            () = self.finished.cancelled() => {}
            () = cut => {}
        }
        Ok(())
    }
}

/// Whether walhook stops, now that a channel is closed. Who has ended at its other end has a reason, which is the
/// one to be told, and gets the time to tell it.
pub(crate) async fn is_stopped_soon(stop: &CancellationToken) -> bool {
    tokio::time::timeout(REASON_MAX, stop.cancelled()).await.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn what_is_in_flight_gets_half_of_a_grace_period_however_short() {
        for (grace, begin, end, write) in [
            (25_000, 22_500, 23_800, 24_400),
            (5000, 2500, 3800, 4400),
            (1000, 500, 760, 880),
            (0, 0, 0, 0),
        ] {
            let (stages, stop, begun) =
                (ShutdownStages::default(), CancellationToken::new(), Instant::now());
            stop.cancel();
            let after = |stage: CancellationToken| async move {
                stage.cancelled().await;
                begun.elapsed().as_millis()
            };
            let cut = stages.clone().follow(stop, Duration::from_millis(grace));
            let ShutdownStages { stop_intake, abort_requests, abort_writes, .. } = stages;
            let (ended, at_begin, at_end, at_write) =
                tokio::join!(cut, after(stop_intake), after(abort_requests), after(abort_writes));
            ended.unwrap();
            assert_eq!((at_begin, at_end, at_write), (begin, end, write), "grace {grace} ms");
        }
    }

    #[test]
    fn requests_end_with_who_holds_the_guards() {
        let stages = ShutdownStages::default();
        let guards = stages.end_requests_when_dropped();
        assert!(!stages.stop_intake.is_cancelled() && !stages.abort_requests.is_cancelled());
        drop(guards);
        assert!(stages.stop_intake.is_cancelled() && stages.abort_requests.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_ended_gets_the_time_to_say_why_and_no_more() {
        let (stop, begun) = (CancellationToken::new(), Instant::now());
        let says = async {
            tokio::time::sleep(REASON_MAX / 2).await;
            stop.cancel();
        };
        let (is_stopped, ()) = tokio::join!(is_stopped_soon(&stop), says);
        assert!(is_stopped && begun.elapsed() == REASON_MAX / 2);
        assert!(!is_stopped_soon(&CancellationToken::new()).await, "nobody has anything to say");
        assert_eq!(begun.elapsed(), REASON_MAX + REASON_MAX / 2);
    }
}
