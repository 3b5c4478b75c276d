//! What a backfill waits for before it begins, and what its row in the state says of that.

use tokio::time::Instant;

use crate::backfill::pause_or_cancel;
use crate::backfill::pause_or_cancel::LOOK_EVERY;
use crate::backfill::reader;
use crate::backfill::run::BackfillRun;
use crate::backfill::run_error::RunError;
use crate::store::backfills;
use crate::telemetry::metrics::RereadReason;

impl BackfillRun<'_> {
    /// Waits until the transactions are over that may have changed the table before its changes were
    /// remembered: what they did is visible then. `false`: an operator has stopped it.
    pub(super) async fn wait_for_writers(&mut self) -> Result<bool, RunError> {
        let mut said = Instant::now();
        let before = reader::writers(self.source.rows(), &self.facts).await?;
        let mut left = before.len();
        while left > 0 {
            let reason = || {
                format!(
                    "waits for {left} transactions that may have written to the table before it began \
                     and are not over"
                )
            };
            if !self.wait_on(&mut said, reason).await? {
                return Ok(false);
            }
            let now = reader::writers(self.source.rows(), &self.facts).await?;
            left = before.iter().filter(|writer| now.contains(writer)).count();
        }
        self.say(None).await?;
        Ok(true)
    }

    /// Waits until the standby has replayed all that was streamed before changes were remembered. `false`:
    /// an operator has stopped it.
    pub(super) async fn wait_for_replay(&mut self) -> Result<bool, RunError> {
        let end = self.source.end().await?;
        let mut said = Instant::now();
        let mut replayed = self.source.replayed().await?;
        while replayed < end {
            let reason = || {
                format!(
                    "waits for the standby that rows are read on, which has replayed the WAL up to {replayed} \
                     of {end}"
                )
            };
            if !self.wait_on(&mut said, reason).await? {
                return Ok(false);
            }
            replayed = self.source.replayed().await?;
        }
        self.say(None).await?;
        Ok(true)
    }

    /// A moment of a longer wait, which has the status say now and then what it is for. `false`: an
    /// operator has stopped it.
    async fn wait_on(
        &mut self,
        said: &mut Instant,
        reason: impl Fn() -> String,
    ) -> Result<bool, RunError> {
        tokio::time::sleep(reader::WRITERS_POLL).await;
        if said.elapsed() <= LOOK_EVERY {
            return Ok(true);
        }
        *said = Instant::now();
        if !self.is_running().await? {
            return Ok(false);
        }
        self.say(Some(&reason())).await?;
        Ok(true)
    }

    /// Counts a chunk that the standby has cancelled.
    pub(super) async fn say_cancelled(&mut self) -> Result<(), RunError> {
        let table = &self.stored.wish.table;
        self.service.metrics.backfill().read_again(table, RereadReason::Conflict);
        self.cancelled += 1;
        let reason = format!(
            "reads a chunk again: the standby has cancelled it {} times, since replay needs what it reads \
             (hot_standby_feedback, max_standby_streaming_delay)",
            self.cancelled
        );
        self.say(Some(&reason)).await
    }

    /// Waits until it is time for the next chunk. `false`: an operator has stopped it.
    pub(super) async fn rest_until(&self, due: Instant) -> Result<bool, RunError> {
        while let Some(wait) =
            due.checked_duration_since(Instant::now()).filter(|wait| !wait.is_zero())
        {
            tokio::time::sleep(wait.min(LOOK_EVERY)).await;
            if !self.is_running().await? {
                return Ok(false);
            }
        }
        self.is_running().await
    }

    /// Counts a chunk that has to be read again since its snapshot is behind the stream.
    pub(super) async fn say_behind(&mut self) -> Result<(), RunError> {
        let table = &self.stored.wish.table;
        self.service.metrics.backfill().read_again(table, RereadReason::Invisible);
        self.say(Some(match self.source.is_standby() {
            true => "waits for the standby that rows are read on, which is behind the stream",
            false => {
                "waits for transactions that are committed and not visible yet, as while a synchronous \
                 standby does not answer"
            }
        }))
        .await
    }

    async fn is_running(&self) -> Result<bool, RunError> {
        pause_or_cancel::is_running(self.service, self.stored.id).await
    }

    /// Has the status say what it waits for.
    pub(super) async fn say(&mut self, reason: Option<&str>) -> Result<(), RunError> {
        if self.said.as_deref() == reason {
            return Ok(());
        }
        let mut session = self.service.pool.session().await?;
        let (slot, id) = (self.service.slot(), self.stored.id);
        backfills::explain(session.client(), slot, id, reason).await?;
        self.said = reason.map(ToOwned::to_owned);
        Ok(())
    }
}
