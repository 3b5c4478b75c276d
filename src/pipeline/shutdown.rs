//! The end of patience during a shutdown.

use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What is left of the grace period when the lanes stop making requests, and when those that are
/// still in flight are cut off: enough for the last confirmation to reach PostgreSQL.
const LAST_REQUESTS: Duration = Duration::from_millis(2500);
const LAST_WORDS: Duration = Duration::from_millis(1200);

/// How long a shutdown waits for a database that is away.
pub(crate) const AWAY_MAX: Duration = Duration::from_secs(2);

/// The same for the ledger's last flush: the database may be away.
const LAST_FLUSH: Duration = Duration::from_millis(600);

/// The end of patience during a shutdown, step by step.
#[derive(Clone, Debug, Default)]
pub(crate) struct ShutdownStages {
    /// The lanes make no more requests.
    pub(crate) no_more: CancellationToken,
    /// Requests in flight are dropped.
    pub(crate) now: CancellationToken,
    /// What is not committed by now comes again.
    pub(crate) last: CancellationToken,
    /// All is settled: patience is not needed.
    pub(crate) done: CancellationToken,
}

impl ShutdownStages {
    /// Ends all requests, and lets none begin.
    pub(crate) fn requests(&self) {
        self.no_more.cancel();
        self.now.cancel();
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
            self.requests();
        }
        ended
    }

    /// Ends when it makes no sense any more to wait for the ledger's last flush: at the very end,
    /// or soon when the database is away. What is not committed comes again.
    pub(crate) async fn patience(
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
            () = self.last.cancelled() => {}
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
        let cut = async {
            tokio::time::sleep(grace.saturating_sub(LAST_REQUESTS)).await;
            self.no_more.cancel();
            tokio::time::sleep(LAST_REQUESTS.min(grace).saturating_sub(LAST_WORDS)).await;
            self.now.cancel();
            tokio::time::sleep(LAST_WORDS.min(grace).saturating_sub(LAST_FLUSH)).await;
            self.last.cancel();
        };
        tokio::select! {
            () = self.done.cancelled() => {}
            () = cut => {}
        }
        Ok(())
    }
}
