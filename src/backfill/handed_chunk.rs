//! A chunk on its way through the pump, the lanes and the ledger.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::backfill::context::BackfillContext;
use crate::backfill::pause_or_cancel::LOOK_EVERY;
use crate::backfill::pause_or_cancel::is_running;
use crate::backfill::pump_orders::BackfillOrder;
use crate::backfill::pump_orders::ChunkOutcome;
use crate::backfill::run_error::RunError;
use crate::flow::backfill::BackfillId;
use crate::flow::backfill::BackfillTarget;

/// What became of a chunk that was sent.
pub(super) enum SendEnd {
    /// Its rows are with the lanes; the ledger says under its number what comes of them.
    Released {
        number: u64,
        sent: u64,
        /// From when the pump got it.
        waited: Duration,
    },
    ReadAgain,
    Stopped,
    Closed,
}

/// A chunk that is with the pump.
pub(super) struct HandedChunk<'s> {
    pub(super) service: &'s BackfillContext,
    pub(super) id: BackfillId,
    pub(super) number: u64,
    pub(super) since: Instant,
    pub(super) outcome: oneshot::Receiver<ChunkOutcome>,
}

impl HandedChunk<'_> {
    /// Waits until its rows are with the lanes.
    pub(super) async fn released(mut self, target: &BackfillTarget) -> Result<SendEnd, RunError> {
        match self.seen().await {
            Ok(OutcomeSeen::Told(ChunkOutcome::Released { sent })) => {
                Ok(SendEnd::Released { number: self.number, sent, waited: self.since.elapsed() })
            }
            Ok(OutcomeSeen::Told(ChunkOutcome::ReadAgain)) => Ok(SendEnd::ReadAgain),
            Ok(OutcomeSeen::Told(ChunkOutcome::EndpointGone)) => {
                let names = target.endpoints.join(", ");
                Err(RunError::EndpointGone { names })
            }
            Ok(OutcomeSeen::Closed) => Ok(SendEnd::Closed),
            stopped => {
                self.take_back().await;
                stopped.map(|_| SendEnd::Stopped)
            }
        }
    }

    /// Waits for what becomes of it, and looks meanwhile whether an operator has stopped the backfill.
    async fn seen(&mut self) -> Result<OutcomeSeen, RunError> {
        loop {
            tokio::select! {
                biased;
                outcome = &mut self.outcome => return Ok(outcome.map_or(OutcomeSeen::Closed, OutcomeSeen::Told)),
                () = tokio::time::sleep(LOOK_EVERY) => {
                    if !is_running(self.service, self.id).await? {
                        return Ok(OutcomeSeen::Stopped);
                    }
                }
            }
        }
    }

    /// Takes back what nobody wants any more. Should it have been released just now, its rows are waited for:
    /// they must not be read again while they are on their way.
    async fn take_back(self) {
        let forget = BackfillOrder::Forget { id: self.id, is_over: false };
        self.service.orders.send(forget).await.ok(); // or the pump has ended
        if let Ok(ChunkOutcome::Released { .. }) = self.outcome.await {
            self.service.progress.is_done(self.id, self.number).await;
        }
    }
}

/// What is known of a chunk's fate.
enum OutcomeSeen {
    Told(ChunkOutcome),
    /// An operator has paused or cancelled the backfill.
    Stopped,
    /// walhook ends.
    Closed,
}
