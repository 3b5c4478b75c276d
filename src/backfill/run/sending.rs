//! The way of a chunk through the pump, the lanes and the ledger.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::backfill::context::BackfillContext;
use crate::backfill::cursor::BackfillCursor;
use crate::backfill::pump_orders::BackfillOrder;
use crate::backfill::pump_orders::ChunkFate;
use crate::backfill::reader::ChunkRows;
use crate::backfill::run::BackfillRun;
use crate::backfill::run::LOOK;
use crate::backfill::run::SendEnd;
use crate::backfill::run::waiting::is_running;
use crate::backfill::run_error::RunError;
use crate::backfill::window::ReadChunk;
use crate::flow::backfill::BackfillId;
use crate::flow::backfill::BackfillStep;
use crate::flow::backfill::BackfillTarget;

impl<'s> BackfillRun<'s> {
    /// Hands the rows to the pump. `None`: walhook ends.
    pub(super) async fn hand_over(
        &self,
        chunk: ChunkRows,
        cursor: &BackfillCursor,
    ) -> Option<HandedChunk<'s>> {
        let (service, id) = (self.service, self.stored.id);
        let number = service.next_chunk();
        let step = BackfillStep {
            id,
            chunk: number,
            cursor: cursor.text(),
            read: chunk.read,
            sent: 0,
            moved: chunk.moved,
        };
        let chunk = ReadChunk {
            step,
            target: Arc::clone(&self.target),
            snapshot: chunk.snapshot,
            lsn: chunk.lsn,
            read_at: chunk.read_at,
            rows: chunk.rows,
        };
        let (fate_in, fate) = oneshot::channel();
        let order = BackfillOrder::Chunk { chunk: Box::new(chunk), fate: fate_in };
        service.orders.send(order).await.ok()?;
        Some(HandedChunk { service, id, number, since: Instant::now(), fate })
    }
}

/// A chunk that is with the pump.
pub(super) struct HandedChunk<'s> {
    service: &'s BackfillContext,
    id: BackfillId,
    number: u64,
    since: Instant,
    fate: oneshot::Receiver<ChunkFate>,
}

impl HandedChunk<'_> {
    /// Waits until its rows are with the lanes.
    pub(super) async fn released(mut self, target: &BackfillTarget) -> Result<SendEnd, RunError> {
        match self.seen().await {
            Ok(FateSeen::Told(ChunkFate::Released { sent })) => {
                Ok(SendEnd::Released { number: self.number, sent, waited: self.since.elapsed() })
            }
            Ok(FateSeen::Told(ChunkFate::ReadAgain)) => Ok(SendEnd::ReadAgain),
            Ok(FateSeen::Told(ChunkFate::EndpointGone)) => {
                let names = target.endpoints.join(", ");
                Err(RunError::EndpointGone { names })
            }
            Ok(FateSeen::Closed) => Ok(SendEnd::Closed),
            stopped => {
                self.take_back().await;
                stopped.map(|_| SendEnd::Stopped)
            }
        }
    }

    /// Waits for what becomes of it, and looks meanwhile whether somebody has stopped the backfill.
    async fn seen(&mut self) -> Result<FateSeen, RunError> {
        loop {
            tokio::select! {
                biased;
                fate = &mut self.fate => return Ok(fate.map_or(FateSeen::Closed, FateSeen::Told)),
                () = tokio::time::sleep(LOOK) => {
                    if !is_running(self.service, self.id).await? {
                        return Ok(FateSeen::Stopped);
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
        if let Ok(ChunkFate::Released { .. }) = self.fate.await {
            self.service.progress.is_done(self.id, self.number).await;
        }
    }
}

/// What is known of a chunk's fate.
enum FateSeen {
    Told(ChunkFate),
    /// Somebody has paused or cancelled the backfill.
    Stopped,
    /// walhook ends.
    Closed,
}
