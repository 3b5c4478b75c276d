//! Reads chunks of a table, each in a transaction of its own that writes nothing and is over at once.

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use tokio_postgres::Client;
use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::SimpleQueryRow;
use tokio_postgres::error::SqlState;

use crate::backfill::cursor::LeafPlace;
use crate::backfill::pace::AIM;
use crate::backfill::pace::BYTES_MAX;
use crate::backfill::pace::next_fetch;
use crate::backfill::query;
use crate::backfill::query::LeafQuery;
use crate::backfill::read_error::ReadError;
use crate::backfill::row_buffer::BufferedRow;
use crate::backfill::row_buffer::RowBuffer;
use crate::backfill::snapshot::SnapshotView;
use crate::backfill::table;
use crate::backfill::table::TableFacts;
use crate::backfill::text_answers::lsn;
use crate::backfill::text_answers::one;
use crate::backfill::text_answers::place;
use crate::backfill::text_answers::row_of;
use crate::backfill::text_answers::text;
use crate::backfill::text_answers::tuple;
use crate::backfill::wal_end::WalEnd;
use crate::backfill::wal_end::position;
use crate::flow::backfill::BackfillId;
use crate::flow::backfill::ReadId;
use crate::flow::lsn::Lsn;
use crate::flow::lsn::Position;
use crate::flow::time::Timestamp;
use crate::store::backfills::ReadOrder;
use crate::store::error::StoreError;

/// Which part of a leaf is wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChunkWish<'w> {
    pub backfill: BackfillId,
    pub query: LeafQuery<'w>,
    /// The file that the leaf should have.
    pub filenode: u32,
    pub pass: u32,
    pub after: &'w LeafPlace,
    /// Whether the session is on a standby.
    pub is_on_standby: bool,
    /// When it is, on the source's clock.
    pub now: Timestamp,
    /// Keys, or blocks.
    pub reach: u32,
    pub rows_max: usize,
}

/// What came of it.
#[derive(Debug)]
pub(crate) enum ChunkRead {
    Rows(Box<ChunkRows>),
    /// The standby has cancelled it: replay needed what its snapshot held.
    Cancelled,
    /// The rows lie in another file: by key that does not matter, by place all have to be read again.
    Moved {
        filenode: u32,
    },
    /// The table is not there any more, or has other columns.
    Altered,
}

#[derive(Debug)]
pub(crate) struct ChunkRows {
    pub snapshot: SnapshotView,
    pub lsn: Lsn,
    pub read_at: Timestamp,
    pub rows: RowBuffer,
    pub read: u64,
    /// Where to go on; `None` at the leaf's end.
    pub next: Option<LeafPlace>,
    /// The last of the rows with another key that were looked for.
    pub moved: Option<Position>,
}

/// Reads one chunk.
///
/// # Errors
/// The rows could not be read. The session's transaction is over in any case, or the session is.
pub(crate) async fn read(client: &Client, wish: ChunkWish<'_>) -> Result<ChunkRead, ReadError> {
    let reading = in_transaction(client, wish);
    in_one_transaction(client, (wish.query.facts, wish.is_on_standby), reading).await
}

/// Ends the transaction that `reading` has begun, whatever came of it.
pub(super) async fn in_one_transaction(
    client: &Client,
    (facts, is_on_standby): (&TableFacts, bool),
    reading: impl Future<Output = Result<ChunkRead, ReadError>>,
) -> Result<ChunkRead, ReadError> {
    let outcome = reading.await;
    // Also where something failed: a transaction that is left open holds back vacuum.
    let ended = client.batch_execute("ROLLBACK").await;
    match outcome {
        Err(ReadError::Store(StoreError::Refused(said))) if is_about_shape(&said.sqlstate) => {
            ended?;
            Ok(ChunkRead::Altered)
        }
        // It may have ended the session, too: the next question finds that.
        Err(ReadError::Store(StoreError::Refused(said)))
            if is_on_standby && is_of_recovery(&said.sqlstate) =>
        {
            Ok(ChunkRead::Cancelled)
        }
        Ok(ChunkRead::Rows(rows)) => {
            ended?;
            // Columns may have come, and types may be others, before the rows were read.
            let is_same = table::shape(client, facts.relation.oid).await? == facts.shape;
            Ok(if is_same { ChunkRead::Rows(rows) } else { ChunkRead::Altered })
        }
        outcome => {
            ended?;
            outcome
        }
    }
}

/// What a conflict with recovery is called. Reading alone meets neither anywhere else.
fn is_of_recovery(state: &SqlState) -> bool {
    [SqlState::T_R_SERIALIZATION_FAILURE, SqlState::T_R_DEADLOCK_DETECTED].contains(state)
}

fn is_about_shape(state: &SqlState) -> bool {
    [SqlState::UNDEFINED_TABLE, SqlState::UNDEFINED_COLUMN].contains(state)
}

async fn in_transaction(client: &Client, wish: ChunkWish<'_>) -> Result<ChunkRead, ReadError> {
    let began = Instant::now();
    let (snapshot, end) = snapshot_and_end(client, wish.is_on_standby).await?;
    let after: &[String] = match wish.after {
        LeafPlace::Start => &[],
        LeafPlace::After(place) => place,
    };
    let (up_to, is_last) = bound(client, wish, after).await?;
    let select = wish.query.rows(after, up_to.as_deref());
    client.batch_execute(&format!("DECLARE chunk NO SCROLL CURSOR FOR {select}")).await?;
    let mut chunk = ChunkInHand::new(wish);
    let is_whole = loop {
        let fetch = next_fetch(chunk.read, chunk.bytes, wish.rows_max);
        let fetched = client.simple_query(&format!("FETCH {fetch} FROM chunk")).await?;
        let before = chunk.read;
        for message in &fetched {
            if let SimpleQueryMessage::Row(row) = message {
                chunk.take(row)?;
            }
        }
        if chunk.read - before < fetch {
            break true;
        }
        if chunk.read >= wish.rows_max || chunk.bytes >= BYTES_MAX || began.elapsed() > AIM * 2 {
            break false;
        }
    };
    let end = end.checked_again(client, wish.is_on_standby).await?;
    // The table is locked since its first row was asked for, so that this holds for all of them.
    let found = one(client, &query::filenode(&wish.query.leaf.table)).await?;
    let filenode = text(&found, 0)?.and_then(|text| text.parse().ok()).unwrap_or_default();
    if filenode != wish.filenode {
        return Ok(ChunkRead::Moved { filenode });
    }
    let next = match (is_whole, is_last) {
        (true, true) => None,
        (true, false) => up_to.map(LeafPlace::After),
        (false, _) => chunk.last.map(LeafPlace::After),
    };
    Ok(ChunkRead::Rows(Box::new(ChunkRows {
        snapshot,
        lsn: end.lsn,
        read_at: wish.now,
        rows: chunk.rows,
        read: chunk.read as u64,
        next,
        moved: None,
    })))
}

/// Begins the transaction. Whatever its snapshot sees is before the end.
pub(super) async fn snapshot_and_end(
    client: &Client,
    is_on_standby: bool,
) -> Result<(SnapshotView, WalEnd), ReadError> {
    let snapshot = snapshot(client, is_on_standby).await?;
    // After the snapshot.
    Ok((snapshot, position(client).await?))
}

/// Begins the transaction, and takes its snapshot.
async fn snapshot(client: &Client, is_on_standby: bool) -> Result<SnapshotView, ReadError> {
    let parsed = |row: &SimpleQueryRow| -> Result<SnapshotView, ReadError> {
        let parsed = text(row, 0)?.unwrap_or_default().parse();
        parsed.map_err(|_| ReadError::Answer { what: "no snapshot" })
    };
    if !is_on_standby {
        return parsed(&one(client, query::BEGIN).await?);
    }
    let answer = client.simple_query(query::BEGIN_ON_STANDBY).await?;
    let rows: Vec<SimpleQueryRow> = answer.into_iter().filter_map(row_of).collect();
    let [before, snapshot, after] = rows.as_slice() else {
        return Err(ReadError::Answer { what: "no snapshot between two positions" });
    };
    Ok(parsed(snapshot)?.on_standby(lsn(before)?, lsn(after)?))
}

/// Up to which place the chunk goes, and whether it is the leaf's last.
async fn bound(
    client: &Client,
    wish: ChunkWish<'_>,
    after: &[String],
) -> Result<(Option<Vec<String>>, bool), ReadError> {
    match wish.query.order {
        ReadOrder::Key => {
            let found = client.simple_query(&wish.query.bound(after, wish.reach)).await?;
            let Some(row) = found.into_iter().find_map(row_of) else { return Ok((None, true)) };
            Ok((Some(place(&row, wish.query.places().len())?), false))
        }
        ReadOrder::Ctid => {
            let row = one(client, &query::blocks(&wish.query.leaf.table)).await?;
            let blocks: u32 = text(&row, 0)?.and_then(|text| text.parse().ok()).unwrap_or(u32::MAX);
            let begin = after.first().map_or(0, |tid| block_after(tid));
            let end = begin.saturating_add(wish.reach).min(blocks);
            if end == 0 || end <= begin && begin >= blocks {
                return Ok((Some(vec![String::from("(0,0)")]), true));
            }
            Ok((Some(vec![format!("({},{LINE_MAX})", end - 1)]), end >= blocks))
        }
    }
}

/// No line pointer of a block has this number.
const LINE_MAX: u16 = u16::MAX;

/// The block from which a place's next rows are, such as 3 for `(2,65535)` and `(3,7)`.
fn block_after(tid: &str) -> u32 {
    let inside = tid.trim_matches(['(', ')']);
    let (block, line) = inside.split_once(',').unwrap_or(("0", "0"));
    let block: u32 = block.parse().unwrap_or_default();
    if line == LINE_MAX.to_string() { block.saturating_add(1) } else { block }
}

/// What has come of a chunk.
struct ChunkInHand<'w> {
    wish: ChunkWish<'w>,
    facts: &'w TableFacts,
    rows: RowBuffer,
    read: usize,
    bytes: usize,
    last: Option<Vec<String>>,
    places: usize,
}

impl<'w> ChunkInHand<'w> {
    fn new(wish: ChunkWish<'w>) -> Self {
        let facts = wish.query.facts;
        let rows = RowBuffer::new(facts.identity);
        let places = wish.query.places().len();
        Self { wish, facts, rows, read: 0, bytes: 0, last: None, places }
    }

    fn take(&mut self, row: &SimpleQueryRow) -> Result<(), ReadError> {
        let place = place(row, self.places)?;
        let tuple = tuple(row, self.places)?;
        let (leaf, pass) = (self.wish.query.leaf.oid.to_be_bytes(), self.wish.pass.to_be_bytes());
        let parts = [leaf.as_slice(), pass.as_slice()].into_iter();
        let parts = parts.chain(place.iter().map(String::as_bytes)).map(Some);
        let id = ReadId::new(self.wish.backfill, parts);
        self.bytes += tuple.bytes();
        self.read += 1;
        self.rows.push(BufferedRow { relation: Arc::clone(&self.facts.relation), tuple, id });
        self.last = Some(place);
        Ok(())
    }
}

/// The transactions that may have changed rows of the leaves and are not over, by their locks.
///
/// # Errors
/// That the server could not be asked.
pub(crate) async fn writers(client: &Client, facts: &TableFacts) -> Result<Vec<String>, ReadError> {
    let answer = client.simple_query(&query::writers(&facts.leaves)).await?;
    let row = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => row.try_get(0).ok().flatten().map(ToOwned::to_owned),
        _ => None,
    };
    Ok(answer.iter().filter_map(row).collect())
}

/// How often it is looked whether they are over.
pub(crate) const WRITERS_POLL: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_tells_the_block_to_go_on_with() {
        for (tid, block) in [("(0,0)", 0), ("(0,65535)", 1), ("(7,3)", 7), ("(7,65535)", 8)] {
            assert_eq!(block_after(tid), block, "case: {tid}");
        }
    }
}
