//! Reads rows that have got another key, where they are by now. A chunk like others, but that it is no range.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use tokio_postgres::Client;

use crate::backfill::pace::AIM;
use crate::backfill::pace::BYTES_MAX;
use crate::backfill::query;
use crate::backfill::read_error::ReadError;
use crate::backfill::reader::ChunkRead;
use crate::backfill::reader::ChunkRows;
use crate::backfill::reader::in_one_transaction;
use crate::backfill::reader::snapshot_and_end;
use crate::backfill::row_buffer::BufferedRow;
use crate::backfill::row_buffer::RowBuffer;
use crate::backfill::table::TableFacts;
use crate::backfill::text_answers::row_of;
use crate::backfill::text_answers::tuple;
use crate::flow::backfill::BackfillId;
use crate::flow::backfill::MovedRow;
use crate::flow::backfill::ReadId;
use crate::flow::lsn::Lsn;
use crate::flow::lsn::Position;
use crate::flow::time::Timestamp;

/// Which rows are wanted.
#[derive(Clone, Copy, Debug)]
pub(super) struct MovedWish<'w> {
    pub(super) backfill: BackfillId,
    pub(super) facts: &'w TableFacts,
    /// The user's condition.
    pub(super) filter: Option<&'w str>,
    /// In the order of the stream.
    pub(super) moved: &'w [MovedRow],
    /// What was streamed before this is visible to everybody.
    pub(super) begun: Lsn,
    pub(super) is_on_standby: bool,
    pub(super) now: Timestamp,
}

/// Reads as many of them as a chunk may have. Its `moved` is the last one that was looked for; `None` if the
/// snapshot does not see the first one: it has to be looked for again.
///
/// # Errors
/// The rows could not be read. The session's transaction is over in any case, or the session is.
pub(super) async fn read(client: &Client, wish: MovedWish<'_>) -> Result<ChunkRead, ReadError> {
    in_one_transaction(client, (wish.facts, wish.is_on_standby), in_transaction(client, wish)).await
}

async fn in_transaction(client: &Client, wish: MovedWish<'_>) -> Result<ChunkRead, ReadError> {
    let began = Instant::now();
    let (snapshot, mut end) = snapshot_and_end(client, wish.is_on_standby).await?;
    let is_seen = |row: &&MovedRow| {
        let commit = row.position.commit;
        commit < wish.begun || snapshot.sees(row.xid, commit)
    };
    let moved: Vec<&MovedRow> = wish.moved.iter().take_while(is_seen).collect();
    let mut rows = RowBuffer::new(wish.facts.identity);
    let (mut read, mut bytes, mut last) = (0, 0, None);
    let mut later: HashSet<&[String]> = HashSet::new();
    // Of a key that several rows have had one after the other, the last change counts.
    let only_once = moved.iter().rev().map(|row| later.insert(&row.key)).collect::<Vec<_>>();
    for (row, is_last) in moved.iter().zip(only_once.into_iter().rev()) {
        if bytes >= BYTES_MAX || began.elapsed() > AIM * 2 {
            break;
        }
        last = Some(row.position);
        let select = query::by_key(wish.facts, wish.filter, &row.key).filter(|_| is_last);
        let Some(select) = select else { continue };
        for found in client.simple_query(&select).await?.into_iter().filter_map(row_of) {
            let tuple = tuple(&found, 0)?;
            (read, bytes) = (read + 1, bytes + tuple.bytes());
            let (relation, id) =
                (Arc::clone(&wish.facts.relation), id(wish.backfill, row.position));
            rows.push(BufferedRow { relation, tuple, id });
        }
    }
    end = end.checked_again(client, wish.is_on_standby).await?;
    Ok(ChunkRead::Rows(Box::new(ChunkRows {
        snapshot,
        lsn: end.lsn,
        read_at: wish.now,
        rows,
        read,
        next: None,
        moved: last,
    })))
}

/// Not that of a row which had the key before: the change that moved this one there tells them apart.
fn id(backfill: BackfillId, Position { commit, ordinal }: Position) -> ReadId {
    let (commit, ordinal) = (commit.raw().to_be_bytes(), ordinal.to_be_bytes());
    let parts: [&[u8]; 3] = [b"moved", &commit, &ordinal];
    ReadId::new(backfill, parts.into_iter().map(Some))
}
