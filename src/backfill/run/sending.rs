//! The way of a chunk through the pump, the lanes and the ledger.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::backfill::cursor::BackfillCursor;
use crate::backfill::handed_chunk::HandedChunk;
use crate::backfill::pump_orders::BackfillOrder;
use crate::backfill::reader::ChunkRows;
use crate::backfill::run::BackfillRun;
use crate::backfill::window::ReadChunk;
use crate::flow::backfill::BackfillStep;

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
        let (outcome_in, outcome) = oneshot::channel();
        let order = BackfillOrder::Chunk { chunk: Box::new(chunk), outcome: outcome_in };
        service.orders.send(order).await.ok()?;
        Some(HandedChunk { service, id, number, since: Instant::now(), outcome })
    }
}
