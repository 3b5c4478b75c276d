//! The way of a chunk through the pump, the lanes and the ledger.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::backfill::cursor::BackfillCursor;
use crate::backfill::orders::BackfillOrder;
use crate::backfill::orders::ChunkFate;
use crate::backfill::reader::ChunkRows;
use crate::backfill::run::BackfillRun;
use crate::backfill::run::LOOK;
use crate::backfill::run::SendEnd;
use crate::backfill::run_error::RunError;
use crate::backfill::window::ReadChunk;
use crate::flow::backfill::BackfillStep;

impl BackfillRun<'_> {
    /// Hands the rows to the pump, and waits until they are with the lanes.
    pub(super) async fn send(
        &mut self,
        chunk: ChunkRows,
        cursor: &BackfillCursor,
    ) -> Result<SendEnd, RunError> {
        let number = self.service.next_chunk();
        let step = BackfillStep {
            id: self.stored.id,
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
        let (fate_in, mut fate) = oneshot::channel();
        let order = BackfillOrder::Chunk { chunk: Box::new(chunk), fate: fate_in };
        if self.service.orders.send(order).await.is_err() {
            return Ok(SendEnd::Closed);
        }
        match self.fate(&mut fate).await {
            Ok(FateSeen::Told(ChunkFate::Released { sent })) => {
                Ok(SendEnd::Released { number, sent })
            }
            Ok(FateSeen::Told(ChunkFate::ReadAgain)) => Ok(SendEnd::ReadAgain),
            Ok(FateSeen::Told(ChunkFate::EndpointGone)) => {
                let names = self.target.endpoints.join(", ");
                Err(RunError::EndpointGone { names })
            }
            Ok(FateSeen::Closed) => Ok(SendEnd::Closed),
            stopped => {
                self.take_back(fate, number).await;
                stopped.map(|_| SendEnd::Stopped)
            }
        }
    }

    /// Waits for what becomes of the chunk, and looks meanwhile whether somebody has stopped it.
    async fn fate(&self, fate: &mut oneshot::Receiver<ChunkFate>) -> Result<FateSeen, RunError> {
        loop {
            tokio::select! {
                biased;
                fate = &mut *fate => return Ok(fate.map_or(FateSeen::Closed, FateSeen::Told)),
                () = tokio::time::sleep(LOOK) => {
                    if !self.is_running().await? {
                        return Ok(FateSeen::Stopped);
                    }
                }
            }
        }
    }

    /// Takes back a chunk that nobody wants any more. Should it have been released just now, its rows are
    /// waited for: they must not be read again while they are on their way.
    async fn take_back(&self, fate: oneshot::Receiver<ChunkFate>, number: u64) {
        let id = self.stored.id;
        self.service.orders.send(BackfillOrder::Forget { id, is_over: false }).await.ok(); // or the pump has ended
        if let Ok(ChunkFate::Released { .. }) = fate.await {
            self.service.progress.is_done(id, number).await;
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
