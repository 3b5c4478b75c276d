//! One backfill, chunk by chunk: read, wait for the stream, wait for the ledger, read on.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::backfill::admit;
use crate::backfill::context::BackfillContext;
use crate::backfill::cursor::BackfillCursor;
use crate::backfill::cursor::LeafCursor;
use crate::backfill::cursor::LeafPlace;
use crate::backfill::orders::BackfillOrder;
use crate::backfill::orders::ChunkFate;
use crate::backfill::pace::ChunkReach;
use crate::backfill::query::LeafQuery;
use crate::backfill::reader;
use crate::backfill::reader::ChunkRead;
use crate::backfill::reader::ChunkRows;
use crate::backfill::reader::ChunkWish;
use crate::backfill::run_error::RunError;
use crate::backfill::table;
use crate::backfill::table::TableError;
use crate::backfill::table::TableFacts;
use crate::backfill::window::ReadChunk;
use crate::flow::backfill::BackfillStep;
use crate::flow::backfill::BackfillTarget;
use crate::store;
use crate::store::SqlSession;
use crate::store::backfills;
use crate::store::backfills::BackfillState;
use crate::store::backfills::ReadOrder;
use crate::store::backfills::StoredBackfill;

/// How often a backfill that waits looks whether somebody has paused or cancelled it.
const LOOK: Duration = Duration::from_secs(1);

/// How old what is known of the table may be: partitions come and go, and columns.
const FACTS_MAX_AGE: Duration = Duration::from_secs(1);

/// Waits before a chunk is read again whose snapshot does not see a change of which too little is known.
const AGAIN_FIRST: Duration = Duration::from_millis(10);
const AGAIN_MAX: Duration = Duration::from_secs(2);

/// How a run ended.
#[derive(Debug)]
pub(crate) enum RunEnd {
    Done,
    /// Somebody has paused or cancelled it.
    Stopped,
    /// walhook ends.
    Closed,
}

pub(crate) struct BackfillRun<'s> {
    service: &'s BackfillContext,
    stored: StoredBackfill,
    session: SqlSession,
    facts: TableFacts,
    described: Instant,
    cursor: BackfillCursor,
    reach: ChunkReach,
    target: Arc<BackfillTarget>,
    /// What the row in the state says that it waits for.
    said: Option<String>,
}

impl<'s> BackfillRun<'s> {
    /// Runs it to its end, or until somebody wants otherwise.
    pub(crate) async fn run(
        service: &'s BackfillContext,
        stored: StoredBackfill,
    ) -> Result<RunEnd, RunError> {
        let table = &stored.wish.table;
        let event_type = stored.wish.event_type.as_ref();
        let settings = service.current.borrow().clone();
        admit::takers(&settings, table, event_type).map_err(RunError::NoEvent)?;
        let session = store::connect(&service.source).await?;
        let facts = table::describe(&session.client, table, &service.publication).await?;
        if stored.wish.read_by == ReadOrder::Key && facts.key.is_empty() {
            return Err(TableError::NoKey { table: table.clone() }.into());
        }
        let target = BackfillTarget {
            event_type: stored.wish.event_type.clone(),
            endpoints: stored.wish.endpoints.clone(),
        };
        let (cursor, reach) =
            (BackfillCursor::parse(&stored.cursor), ChunkReach::new(stored.wish.per_second));
        let mut run = Self {
            service,
            session,
            facts,
            described: Instant::now(),
            cursor,
            reach,
            target: Arc::new(target),
            said: stored.reason.clone(),
            stored,
        };
        let id = run.stored.id;
        let ended = run.go().await;
        service.orders.send(BackfillOrder::Forget { id }).await.ok(); // or the pump has ended
        ended
    }

    async fn go(&mut self) -> Result<RunEnd, RunError> {
        let (tracked_in, tracked) = oneshot::channel();
        let (id, table) = (self.stored.id, self.stored.wish.table.clone());
        let order = BackfillOrder::Track { id, table, tracked: tracked_in };
        if self.service.orders.send(order).await.is_err() || tracked.await.is_err() {
            return Ok(RunEnd::Closed);
        }
        if !self.wait_for_writers().await? {
            return Ok(RunEnd::Stopped);
        }
        let mut again = AGAIN_FIRST;
        let mut due = Instant::now();
        loop {
            while let Some(wait) =
                due.checked_duration_since(Instant::now()).filter(|wait| !wait.is_zero())
            {
                tokio::time::sleep(wait.min(LOOK)).await;
                if !self.is_running().await? {
                    return Ok(RunEnd::Stopped);
                }
            }
            if !self.is_running().await? {
                return Ok(RunEnd::Stopped);
            }
            self.describe_again().await?;
            let Some(leaf) = self.next_leaf() else { return Ok(RunEnd::Done) };
            let began = Instant::now();
            let Some(chunk) = self.read(&leaf).await? else { continue };
            let (read, cursor) = (chunk.read, self.cursor_after(&leaf, &chunk));
            match self.send(*chunk, &cursor).await? {
                SendEnd::Settled => {
                    self.cursor = cursor;
                    self.say(None).await?;
                    self.reach = self.reach.after(began.elapsed());
                    again = AGAIN_FIRST;
                    let rows = usize::try_from(read).unwrap_or(usize::MAX);
                    due = began + self.reach.wait(rows);
                }
                SendEnd::ReadAgain => {
                    self.say(Some(
                        "waits for transactions that are committed and not visible yet, as while \
                         a synchronous standby does not answer",
                    ))
                    .await?;
                    due = Instant::now() + again;
                    again = (again * 2).min(AGAIN_MAX);
                }
                SendEnd::Stopped => return Ok(RunEnd::Stopped),
                SendEnd::Closed => return Ok(RunEnd::Closed),
            }
        }
    }

    /// Waits until the transactions are over that may have changed the table before its changes were
    /// remembered: what they did is visible then. `false`: somebody has stopped it.
    async fn wait_for_writers(&mut self) -> Result<bool, RunError> {
        let mut waited = Instant::now();
        let before = reader::writers(&self.session.client, &self.facts).await?;
        let mut left = before.len();
        loop {
            if left == 0 {
                self.say(None).await?;
                return Ok(true);
            }
            tokio::time::sleep(reader::WRITERS_POLL).await;
            if waited.elapsed() > LOOK {
                waited = Instant::now();
                if !self.is_running().await? {
                    return Ok(false);
                }
                let reason = format!(
                    "waits for {left} transactions that may have written to the table before it began \
                     and are not over"
                );
                self.say(Some(&reason)).await?;
            }
            let now = reader::writers(&self.session.client, &self.facts).await?;
            left = before.iter().filter(|writer| now.contains(writer)).count();
        }
    }

    async fn describe_again(&mut self) -> Result<(), RunError> {
        if self.described.elapsed() < FACTS_MAX_AGE {
            return Ok(());
        }
        let (table, publication) = (&self.stored.wish.table, &self.service.publication);
        let facts = table::describe(&self.session.client, table, publication).await?;
        // The router compiles anew for another relation: the same one stays.
        let relation = match *facts.relation == *self.facts.relation {
            true => Arc::clone(&self.facts.relation),
            false => Arc::clone(&facts.relation),
        };
        self.facts = TableFacts { relation, ..facts };
        self.described = Instant::now();
        Ok(())
    }

    /// The leaf that is to be read, from where on; `None` if all are done.
    fn next_leaf(&mut self) -> Option<LeafCursor> {
        if let Some(leaf) = &self.cursor.leaf {
            if self.facts.leaves.iter().any(|known| known.oid == leaf.oid) {
                return Some(leaf.clone());
            }
            let (id, oid) = (self.stored.id, leaf.oid);
            tracing::warn!(backfill = %id, leaf = oid, "a partition is not there any more, going on");
            self.cursor.leaf = None;
        }
        let next = self.facts.leaves.iter().find(|leaf| !self.cursor.done.contains(&leaf.oid))?;
        let (oid, filenode) = (next.oid, next.filenode);
        Some(LeafCursor { oid, filenode, pass: 0, at: LeafPlace::Start })
    }

    /// Reads a chunk; `None` if it has to be looked anew what there is to read.
    async fn read(&mut self, cursor: &LeafCursor) -> Result<Option<Box<ChunkRows>>, RunError> {
        let leaf = self.facts.leaves.iter().find(|known| known.oid == cursor.oid);
        let Some(leaf) = leaf else { return Ok(None) };
        let wish = &self.stored.wish;
        let filter = wish.filter.as_deref();
        let read = ChunkWish {
            backfill: self.stored.id,
            query: LeafQuery { facts: &self.facts, leaf, order: wish.read_by, filter },
            filenode: cursor.filenode,
            pass: cursor.pass,
            after: &cursor.at,
            reach: self.reach.get(),
            rows_max: self.reach.rows(),
        };
        match reader::read(&self.session.client, read).await? {
            ChunkRead::Rows(rows) => Ok(Some(rows)),
            ChunkRead::Moved { filenode } => {
                let leaf = match wish.read_by {
                    ReadOrder::Key => LeafCursor { filenode, ..cursor.clone() },
                    ReadOrder::Ctid => {
                        let (oid, pass) = (cursor.oid, cursor.pass + 1);
                        LeafCursor { oid, filenode, pass, at: LeafPlace::Start }
                    }
                };
                tracing::warn!(
                    backfill = %self.stored.id,
                    table = %self.stored.wish.table,
                    from_start = wish.read_by == ReadOrder::Ctid,
                    "the table was written anew: its rows lie elsewhere"
                );
                self.cursor.leaf = Some(leaf);
                Ok(None)
            }
            ChunkRead::Altered => {
                self.described =
                    self.described.checked_sub(FACTS_MAX_AGE).unwrap_or(self.described);
                tokio::time::sleep(AGAIN_FIRST).await;
                Ok(None)
            }
        }
    }

    fn cursor_after(&self, leaf: &LeafCursor, chunk: &ChunkRows) -> BackfillCursor {
        let mut cursor = self.cursor.clone();
        match &chunk.next {
            Some(at) => cursor.leaf = Some(LeafCursor { at: at.clone(), ..leaf.clone() }),
            None => {
                cursor.leaf = None;
                cursor.done.push(leaf.oid);
            }
        }
        cursor
    }

    /// Hands the rows to the pump, and waits until they are settled or parked.
    async fn send(
        &mut self,
        chunk: ChunkRows,
        cursor: &BackfillCursor,
    ) -> Result<SendEnd, RunError> {
        let (number, read) = (self.service.next_chunk(), chunk.read);
        let step = BackfillStep {
            id: self.stored.id,
            chunk: number,
            cursor: cursor.text(),
            read: chunk.read,
            sent: 0,
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
        let sent = match self.fate(&mut fate).await {
            Ok(FateSeen::Told(ChunkFate::Released { sent })) => sent,
            Ok(FateSeen::Told(ChunkFate::ReadAgain)) => return Ok(SendEnd::ReadAgain),
            Ok(FateSeen::Told(ChunkFate::EndpointGone)) => {
                let names = self.target.endpoints.join(", ");
                return Err(RunError::EndpointGone { names });
            }
            Ok(FateSeen::Closed) => return Ok(SendEnd::Closed),
            stopped => {
                self.take_back(fate, number).await;
                return stopped.map(|_| SendEnd::Stopped);
            }
        };
        // However long it takes: what was released is settled or parked, or walhook ends.
        self.service.progress.is_done(self.stored.id, number).await;
        self.service.metrics.backfill().rows(&self.stored.wish.table, read, sent);
        Ok(SendEnd::Settled)
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
        self.service.orders.send(BackfillOrder::Forget { id }).await.ok(); // or the pump has ended
        if let Ok(ChunkFate::Released { .. }) = fate.await {
            self.service.progress.is_done(id, number).await;
        }
    }

    async fn is_running(&self) -> Result<bool, RunError> {
        let mut session = self.service.desk.session().await?;
        let (slot, id) = (self.service.slot(), self.stored.id);
        let found = backfills::list(session.client(), slot, Some(id.0), 1).await?;
        Ok(found.first().is_some_and(|found| found.state == BackfillState::Running))
    }

    /// Has the status say what it waits for.
    async fn say(&mut self, reason: Option<&str>) -> Result<(), RunError> {
        if self.said.as_deref() == reason {
            return Ok(());
        }
        let mut session = self.service.desk.session().await?;
        let (slot, id) = (self.service.slot(), self.stored.id);
        backfills::explain(session.client(), slot, id, reason).await?;
        self.said = reason.map(ToOwned::to_owned);
        Ok(())
    }
}

/// What became of a chunk that was sent.
enum SendEnd {
    Settled,
    ReadAgain,
    Stopped,
    Closed,
}

/// What is known of a chunk's fate.
enum FateSeen {
    Told(ChunkFate),
    /// Somebody has paused or cancelled the backfill.
    Stopped,
    /// walhook ends.
    Closed,
}
