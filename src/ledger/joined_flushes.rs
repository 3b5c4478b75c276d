//! Commits what is due in several partitions of a process in one transaction.
//!
//! ```text
//! ledger of a partition ─ PartitionFlush ─▶ [FlushJoiner] ─ all that are due ─▶ one transaction
//!          ▲                                    └ committed, or each by itself
//!          └ due on a tick of the process: all of them at once
//! ```
//!
//! A flush costs a transaction whatever is in it, and each partition of a member has a ledger of its own: with eight
//! of them that are quiet, flushes were half of what a member costs.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::settings::ServerSettings;
use crate::ledger::flush_session::FlushSession;
use crate::store;
use crate::store::flush;
use crate::store::flush::JoinedFlush;
use crate::store::flush::PartitionFlush;
use crate::store::state_error::StateError;

/// How long the first waits for the others of its tick, which are as late as this process is busy.
const GATHER: Duration = Duration::from_millis(1);

/// Flushes in one transaction at most: each has a lock of its own in PostgreSQL.
const JOINED_MAX: usize = 64;

/// When the ledgers of a process flush: together, so that it costs one transaction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FlushTicks {
    first: Instant,
}

impl FlushTicks {
    /// Ticks from now on.
    pub(crate) fn new() -> Self {
        Self { first: Instant::now() }
    }

    /// The first tick after `now`, of those that are `every` apart.
    pub(crate) fn after(self, now: Instant, every: Duration) -> Instant {
        let since = now.saturating_duration_since(self.first).as_micros();
        let every = every.as_micros().max(1);
        let wait = every - since % every;
        now + Duration::from_micros(u64::try_from(wait).unwrap_or(u64::MAX))
    }
}

/// A flush, and who waits for it.
struct WaitingFlush {
    part: PartitionFlush,
    /// Told whether it was committed.
    committed: oneshot::Sender<bool>,
}

/// Where ledgers give what may be committed with others.
#[derive(Clone, Debug)]
pub(crate) struct JoinedFlushes {
    queue: mpsc::Sender<WaitingFlush>,
}

/// Commits what it is given.
pub(crate) struct FlushJoiner {
    session: FlushSession,
    queue: mpsc::Receiver<WaitingFlush>,
}

impl JoinedFlushes {
    /// Both ends.
    pub(crate) fn open(server: ServerSettings) -> (Self, FlushJoiner) {
        let (queue_in, queue) = mpsc::channel(JOINED_MAX);
        (Self { queue: queue_in }, FlushJoiner { session: FlushSession::new(server), queue })
    }

    /// Whether the flush is committed. If not, or if nobody knows, its ledger has to do it by itself.
    pub(crate) async fn commit(&self, part: PartitionFlush) -> bool {
        let (committed, answer) = oneshot::channel();
        let waiting = WaitingFlush { part, committed };
        self.queue.send(waiting).await.is_ok() && answer.await.unwrap_or(false)
    }
}

impl FlushJoiner {
    /// Runs until `stop`, or until nobody can give it anything.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        while let Some(Some(first)) = stop.run_until_cancelled(self.queue.recv()).await {
            tokio::time::sleep(GATHER).await;
            let mut waiting = vec![first];
            while waiting.len() < JOINED_MAX
                && let Ok(more) = self.queue.try_recv()
            {
                waiting.push(more);
            }
            let (parts, told): (Vec<_>, Vec<_>) =
                waiting.into_iter().map(|flush| (flush.part, flush.committed)).unzip();
            let outcome = self.commit(&JoinedFlush::of(parts)).await;
            if let Err(error) = &outcome {
                let error = format!("{error:#}");
                tracing::debug!(error, "partitions write their state each by itself");
            }
            for committed in told {
                committed.send(outcome.is_ok()).ok(); // its ledger may have been given up
            }
        }
    }

    /// Tries again where only the session was lost: it may have been dead for long without a word.
    async fn commit(&mut self, joined: &JoinedFlush) -> Result<(), StateError> {
        let was_open = self.session.get().is_some();
        match self.try_commit(joined).await {
            Err(error) if was_open && error.is_transient() => self.try_commit(joined).await,
            outcome => outcome,
        }
    }

    async fn try_commit(&mut self, joined: &JoinedFlush) -> Result<(), StateError> {
        let session = self.session.open(store::ANSWER_SOON).await?;
        let outcome = flush::commit_joined(session, joined).await;
        if outcome.is_err() {
            self.session.close();
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn ledgers_that_ask_between_two_ticks_flush_at_the_second() {
        let every = Duration::from_millis(50);
        let ticks = FlushTicks::new();
        let begun = Instant::now();
        for (asked, due) in [(0, 50), (1, 50), (49, 50), (50, 100), (120, 150)] {
            let at = ticks.after(begun + Duration::from_millis(asked), every);
            assert_eq!(at, begun + Duration::from_millis(due), "asked after {asked} ms");
        }
    }
}
