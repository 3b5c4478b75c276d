//! One backfill, chunk by chunk: read, wait for the stream and for room; some chunks later, for the ledger.

mod moving;
mod sending;
mod waiting;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::backfill::admit;
use crate::backfill::context::BackfillContext;
use crate::backfill::cursor::BackfillCursor;
use crate::backfill::cursor::LeafCursor;
use crate::backfill::cursor::LeafPlace;
use crate::backfill::handed_chunk::HandedChunk;
use crate::backfill::handed_chunk::SendEnd;
use crate::backfill::looked_keys::LookedKeys;
use crate::backfill::pace::AIM;
use crate::backfill::pace::ChunkReach;
use crate::backfill::pump_orders::BackfillOrder;
use crate::backfill::pump_orders::KeyMoves;
use crate::backfill::query::LeafQuery;
use crate::backfill::reader;
use crate::backfill::reader::ChunkRead;
use crate::backfill::reader::ChunkRows;
use crate::backfill::reader::ChunkWish;
use crate::backfill::run_error::RunError;
use crate::backfill::source::RowSource;
use crate::backfill::table;
use crate::backfill::table::TableError;
use crate::backfill::table::TableFacts;
use crate::flow::backfill::BackfillTarget;
use crate::flow::backfill::MovedRow;
use crate::flow::lsn::Lsn;
use crate::store::backfills::ReadOrder;
use crate::store::backfills::StoredBackfill;

/// How old what is known of the table may be: partitions come and go, and columns.
const FACTS_MAX_AGE: Duration = Duration::from_secs(1);

/// Waits before a chunk is read again whose snapshot does not see a change of which too little is known.
const AGAIN_FIRST: Duration = Duration::from_millis(10);
const AGAIN_MAX: Duration = Duration::from_secs(2);

/// Chunks whose rows are with the lanes and not settled yet, while another goes out.
const UNSETTLED_MAX: usize = 4;

/// A chunk that was read before is read anew after that: what its snapshot does not see is remembered up to a
/// limit.
const AHEAD_MAX_AGE: Duration = Duration::from_secs(2);

/// How a run ended.
#[derive(Debug)]
pub(crate) enum RunEnd {
    Done,
    /// An operator has paused or cancelled it.
    Stopped,
    /// walhook ends.
    Closed,
}

pub(crate) struct BackfillRun<'s> {
    service: &'s BackfillContext,
    stored: StoredBackfill,
    source: RowSource,
    facts: TableFacts,
    /// When it was, where the rows are read.
    described: Option<Instant>,
    cursor: BackfillCursor,
    reach: ChunkReach,
    target: Arc<BackfillTarget>,
    /// What the row in the state says that it waits for.
    said: Option<String>,
    /// How often the standby has cancelled the chunk in hand.
    cancelled: u32,
    /// What was streamed before this is visible to every snapshot from here on.
    begun: Lsn,
    /// What the last snapshot sees was streamed before this, and is settled; zero before the first chunk.
    seen: Lsn,
    looked: LookedKeys,
    /// The oldest first.
    unsettled: VecDeque<UnsettledChunk>,
    /// How long the last chunk waited for the stream and for room.
    waited: Duration,
}

impl<'s> BackfillRun<'s> {
    /// Runs it to its end, or until an operator pauses or cancels it.
    pub(crate) async fn run(
        service: &'s BackfillContext,
        stored: StoredBackfill,
    ) -> Result<RunEnd, RunError> {
        let table = &stored.wish.table;
        let event_type = stored.wish.event_type.as_ref();
        let settings = service.current.borrow().clone();
        admit::takers(&settings, table, event_type).map_err(RunError::NoEvent)?;
        let source = RowSource::open(service).await?;
        // A standby may not know of the publication yet.
        let facts = table::describe(source.source(), table, &service.publication).await?;
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
            source,
            facts,
            described: None,
            cursor,
            reach,
            target: Arc::new(target),
            said: stored.reason.clone(),
            cancelled: 0,
            begun: Lsn::ZERO,
            seen: Lsn::ZERO,
            looked: LookedKeys::default(),
            unsettled: VecDeque::new(),
            waited: Duration::ZERO,
            stored,
        };
        let id = run.stored.id;
        let ended = run.go().await;
        if !matches!(ended, Ok(RunEnd::Closed)) {
            // They must not be read again while they are on their way.
            run.settle(0).await;
        }
        let is_over = matches!(ended, Ok(RunEnd::Done));
        let forget = BackfillOrder::Forget { id, is_over };
        service.orders.send(forget).await.ok(); // or the pump has ended
        ended
    }

    /// Has changes remembered, and waits until snapshots see what was streamed before. `Some`: it ends here.
    async fn begin(&mut self) -> Result<Option<RunEnd>, RunError> {
        let (tracked_in, tracked) = oneshot::channel();
        let (id, table) = (self.stored.id, self.stored.wish.table.clone());
        let has_partitions = self.facts.has_partitions();
        let moves =
            (self.stored.wish.read_by == ReadOrder::Key).then_some(KeyMoves { has_partitions });
        let order = BackfillOrder::Track { id, table, moves, tracked: tracked_in };
        if self.service.orders.send(order).await.is_err() || tracked.await.is_err() {
            return Ok(Some(RunEnd::Closed));
        }
        self.begun = self.source.end().await?;
        let may_begin = match self.source.is_standby() {
            true => self.wait_for_replay().await?,
            false => self.wait_for_writers().await?,
        };
        Ok((!may_begin).then_some(RunEnd::Stopped))
    }

    async fn go(&mut self) -> Result<RunEnd, RunError> {
        if let Some(ended) = self.begin().await? {
            return Ok(ended);
        }
        let mut again = AGAIN_FIRST;
        let mut due = Instant::now();
        let mut ahead = None;
        loop {
            if !self.rest_until(due).await? {
                return Ok(RunEnd::Stopped);
            }
            let next = match ahead.take().filter(NextChunk::is_fresh) {
                Some(next) => next,
                None => self.next().await?,
            };
            let chunk = match next {
                NextChunk::Read(chunk) => chunk,
                NextChunk::End => return Ok(RunEnd::Done),
                NextChunk::Behind => {
                    self.say_behind().await?;
                    due = Instant::now() + again;
                    again = (again * 2).min(AGAIN_MAX);
                    continue;
                }
                NextChunk::Cancelled => {
                    self.say_cancelled().await?;
                    // Fewer rows hold their snapshot for a shorter time.
                    self.reach = self.reach.after(AIM * 3, Duration::ZERO);
                    due = Instant::now() + again;
                    again = (again * 2).min(AGAIN_MAX);
                    continue;
                }
            };
            let ChunkAhead { part, rows, began, took } = chunk;
            let cursor = match &part {
                ChunkPart::Leaf(leaf) => self.cursor_after(leaf, &rows),
                ChunkPart::Moved(_) => self.cursor.clone(),
            };
            let (read, lsn) = (rows.read, rows.lsn);
            let looked = rows.moved.map(|last| (last, rows.snapshot.clone()));
            let Some(handed) = self.hand_over(*rows, &cursor).await else {
                return Ok(RunEnd::Closed);
            };
            let before = std::mem::replace(&mut self.cursor, cursor);
            let (end, next) = self.release(handed, &part).await;
            match end? {
                SendEnd::Released { number, sent, waited } => {
                    self.unsettled.push_back(UnsettledChunk { number, read, sent });
                    ahead = next?;
                    self.seen = self.seen.max(lsn);
                    let is_leaf = matches!(part, ChunkPart::Leaf(_));
                    if let (ChunkPart::Moved(wanted), Some((last, view))) = (part, looked) {
                        self.looked.note(&wanted, last, (view, lsn));
                    }
                    self.cancelled = 0;
                    again = AGAIN_FIRST;
                    let has_rate = self.stored.wish.per_second.is_some();
                    self.settle(if is_leaf && !has_rate { UNSETTLED_MAX } else { 0 }).await;
                    self.say(None).await?;
                    self.reach = self.reach.after(took, waited);
                    self.waited = waited;
                    due = began + self.reach.wait(usize::try_from(read).unwrap_or(usize::MAX));
                }
                SendEnd::ReadAgain => {
                    self.cursor = before;
                    self.say_behind().await?;
                    due = Instant::now() + again;
                    again = (again * 2).min(AGAIN_MAX);
                }
                SendEnd::Stopped => return Ok(RunEnd::Stopped),
                SendEnd::Closed => return Ok(RunEnd::Closed),
            }
        }
    }

    /// What to send next. The rows that have got another key come when all others are settled.
    async fn next(&mut self) -> Result<NextChunk, RunError> {
        match self.next_chunk().await? {
            NextChunk::End => {
                self.settle(0).await;
                self.next_moved().await
            }
            next => Ok(next),
        }
    }

    /// Waits until the rows of a chunk are with the lanes, and reads the next one meanwhile, unless that would be
    /// too old by then, or a rate makes it wait.
    async fn release(
        &mut self,
        handed: HandedChunk<'_>,
        part: &ChunkPart,
    ) -> (Result<SendEnd, RunError>, Result<Option<NextChunk>, RunError>) {
        let is_slow = self.stored.wish.per_second.is_some() || self.waited >= AHEAD_MAX_AGE;
        if is_slow || matches!(part, ChunkPart::Moved(_)) {
            return (handed.released(&self.target).await, Ok(None));
        }
        let target = Arc::clone(&self.target);
        let (end, next) = tokio::join!(handed.released(&target), self.next_chunk());
        // What comes after the last one is known when all is settled.
        (end, next.map(|next| Some(next).filter(|next| !matches!(next, NextChunk::End))))
    }

    /// Waits until no more than so many chunks are left that are neither settled nor parked, however long that
    /// takes.
    async fn settle(&mut self, left: usize) {
        while self.unsettled.len() > left
            && let Some(oldest) = self.unsettled.front()
        {
            self.service.progress.is_done(self.stored.id, oldest.number).await;
            let metrics = self.service.metrics.backfill();
            metrics.rows(&self.stored.wish.table, oldest.read, oldest.sent);
            self.unsettled.pop_front();
        }
    }

    async fn next_chunk(&mut self) -> Result<NextChunk, RunError> {
        loop {
            self.describe_again().await?;
            let Some(leaf) = self.next_leaf() else { return Ok(NextChunk::End) };
            let began = Instant::now();
            match self.read(&leaf).await? {
                ReadEnd::Rows(rows) => {
                    let took = began.elapsed();
                    return Ok(NextChunk::Read(ChunkAhead {
                        part: ChunkPart::Leaf(leaf),
                        rows,
                        began,
                        took,
                    }));
                }
                ReadEnd::LookAnew => {}
                ReadEnd::Cancelled => return Ok(NextChunk::Cancelled),
            }
        }
    }

    async fn describe_again(&mut self) -> Result<(), RunError> {
        if self.described.is_some_and(|described| described.elapsed() < FACTS_MAX_AGE) {
            return Ok(());
        }
        let (table, publication) = (&self.stored.wish.table, &self.service.publication);
        let facts = table::describe(self.source.rows(), table, publication).await?;
        // The router compiles anew for another relation: the same one stays.
        let relation = match *facts.relation == *self.facts.relation {
            true => Arc::clone(&self.facts.relation),
            false => Arc::clone(&facts.relation),
        };
        self.facts = TableFacts { relation, ..facts };
        self.described = Some(Instant::now());
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

    /// Reads a chunk.
    async fn read(&mut self, cursor: &LeafCursor) -> Result<ReadEnd, RunError> {
        let leaf = self.facts.leaves.iter().find(|known| known.oid == cursor.oid);
        let Some(leaf) = leaf else { return Ok(ReadEnd::LookAnew) };
        let wish = &self.stored.wish;
        let filter = wish.filter.as_deref();
        let read = ChunkWish {
            backfill: self.stored.id,
            query: LeafQuery { facts: &self.facts, leaf, order: wish.read_by, filter },
            filenode: cursor.filenode,
            pass: cursor.pass,
            after: &cursor.at,
            is_on_standby: self.source.is_standby(),
            now: self.service.clock.now(),
            reach: self.reach.get(),
            rows_max: self.reach.rows(),
        };
        match reader::read(self.source.rows(), read).await? {
            ChunkRead::Rows(rows) => Ok(ReadEnd::Rows(rows)),
            ChunkRead::Cancelled => Ok(ReadEnd::Cancelled),
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
                Ok(ReadEnd::LookAnew)
            }
            ChunkRead::Altered => {
                self.described = None;
                tokio::time::sleep(AGAIN_FIRST).await;
                Ok(ReadEnd::LookAnew)
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
}

/// A chunk that is read and not sent yet.
struct ChunkAhead {
    part: ChunkPart,
    rows: Box<ChunkRows>,
    began: Instant,
    took: Duration,
}

/// Of which rows a chunk is.
enum ChunkPart {
    Leaf(LeafCursor),
    /// Rows that have got another key.
    Moved(Vec<MovedRow>),
}

/// What there is to send next.
enum NextChunk {
    Read(ChunkAhead),
    /// The standby has cancelled it.
    Cancelled,
    /// The snapshot does not see what it has to.
    Behind,
    /// Nothing more.
    End,
}

impl NextChunk {
    /// Whether it still pays to send what was read.
    fn is_fresh(&self) -> bool {
        match self {
            NextChunk::Read(chunk) => chunk.began.elapsed() < AHEAD_MAX_AGE,
            _ => true,
        }
    }
}

/// A chunk whose rows are with the lanes.
struct UnsettledChunk {
    number: u64,
    read: u64,
    sent: u64,
}

/// What came of reading a chunk.
enum ReadEnd {
    Rows(Box<ChunkRows>),
    /// It has to be looked anew what there is to read.
    LookAnew,
    /// The standby has cancelled it.
    Cancelled,
}
