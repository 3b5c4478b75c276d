//! The end of a backfill by key: rows that have got another key meanwhile.

use tokio::time::Instant;

use crate::backfill::moved_rows;
use crate::backfill::moved_rows::MovedWish;
use crate::backfill::reader::ChunkRead;
use crate::backfill::run::AGAIN_FIRST;
use crate::backfill::run::BackfillRun;
use crate::backfill::run::ChunkAhead;
use crate::backfill::run::ChunkPart;
use crate::backfill::run::NextChunk;
use crate::backfill::run_error::RunError;
use crate::flow::backfill::MovedRow;
use crate::flow::lsn::Lsn;
use crate::store::backfill_moves;

/// Rows with another key that are looked for at once, each by a question of its own.
const MOVED_MAX: u32 = 500;

impl BackfillRun<'_> {
    /// Reads rows that have got another key, until none is left that has to be looked for. Whatever moved one that
    /// no chunk has is visible to some snapshot, and was noted by the flush that settled the chunk.
    pub(super) async fn next_moved(&mut self) -> Result<NextChunk, RunError> {
        loop {
            self.describe_again().await?;
            // An earlier run has read all else, and the stream may be behind: a chunk of nothing waits for it.
            let is_first = self.seen == Lsn::ZERO;
            let mut wanted = Vec::new();
            if !is_first {
                self.looked.begin(self.seen);
                let moved = self.moved().await?;
                let Some(last) = moved.last() else { return Ok(NextChunk::End) };
                wanted = self.looked.wanted(&moved, self.begun);
                if wanted.is_empty() {
                    self.looked.pass(last.position);
                    continue;
                }
            }
            let began = Instant::now();
            let wish = MovedWish {
                backfill: self.stored.id,
                facts: &self.facts,
                filter: self.stored.wish.filter.as_deref(),
                moved: &wanted,
                begun: self.begun,
                is_on_standby: self.source.is_standby(),
                now: self.service.clock.now(),
            };
            match moved_rows::read(self.source.rows(), wish).await? {
                ChunkRead::Rows(rows) if rows.moved.is_none() && !is_first => {
                    return Ok(NextChunk::Behind);
                }
                ChunkRead::Rows(rows) => {
                    let (part, took) = (ChunkPart::Moved(wanted), began.elapsed());
                    return Ok(NextChunk::Read(ChunkAhead { part, rows, began, took }));
                }
                ChunkRead::Cancelled => return Ok(NextChunk::Cancelled),
                ChunkRead::Altered | ChunkRead::Moved { .. } => {
                    self.described = None;
                    tokio::time::sleep(AGAIN_FIRST).await;
                }
            }
        }
    }

    async fn moved(&self) -> Result<Vec<MovedRow>, RunError> {
        let limit = u32::try_from(self.reach.rows()).unwrap_or(u32::MAX).min(MOVED_MAX);
        let between = (self.looked.judged(), self.seen);
        let mut session = self.service.pool.session().await?;
        let moved = backfill_moves::first(session.client(), self.stored.id, between, limit).await?;
        Ok(moved)
    }
}
