//! The backlog: deliveries that wait for their endpoint outside of memory.
//!
//! ```text
//! lane ─ parked ─▶ flush ─▶ [backlog] ─ page, in order ─▶ lane ─▶ ... ─ finished ─▶ flush
//! ```
//!
//! A row stays while its delivery is in memory again, and goes with the flush that settles it: a
//! crash in between repeats it and loses nothing. Rows are ordered by the position of their change,
//! however late they were parked: an event that was parked after a later one of the same key still
//! comes first. What is in memory already is the lane's to know; it names those rows where they
//! must be left alone.

pub(crate) mod backlog_sizes;
mod copy;
pub(crate) mod parked_rows;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use tokio_postgres::Client;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::flow::event::Event;
use crate::flow::event::EventId;
use crate::flow::lsn::Position;
use crate::flow::park_reason::ParkReason;
use crate::flow::time::Timestamp;
use crate::flow::verdict::AttemptFailure;
use crate::store::large_body;
use crate::store::sql::SqlParams;
use crate::store::sql::bigint;
use crate::store::sql::read;
use crate::store::sql::unsigned_int;
use crate::store::state_error::StateError;
use crate::store::stored_event;
use crate::store::stored_event::ReplayRow;
use crate::store::stored_event::StoredHistory;

/// The columns beside slot and event.
const OWN_COLUMNS: &str = "endpoint, attempts, next_attempt_at, parked_at, reason, first_attempt_at, last_attempt_at, \
     http_status, failure_class, failure_detail, replay, resend_of";

/// Names a row of the backlog.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct BacklogId(pub i64);

impl fmt::Display for BacklogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A delivery to park. Parked again under the same event and endpoint, the first one stays.
#[derive(Clone, Debug)]
pub struct ParkedDelivery {
    pub event: Arc<Event>,
    pub endpoint: Arc<str>,
    pub row_key: Option<String>,
    pub history: StoredHistory,
    /// `None`: as soon as there is room.
    pub next_attempt: Option<Timestamp>,
    pub parked_at: Timestamp,
    pub reason: ParkReason,
    pub replay: ReplayRow,
}

/// A delivery of the backlog, by what it is. Its row may be on its way there still, so that nobody
/// knows its number yet.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct BacklogDelivery {
    pub endpoint: Arc<str>,
    pub event: EventId,
}

/// A delivery of the backlog that stays there after another attempt.
#[derive(Clone, Debug)]
pub struct ReparkedDelivery {
    pub delivery: BacklogDelivery,
    pub history: StoredHistory,
    pub next_attempt: Option<Timestamp>,
    pub reason: ParkReason,
}

/// A row, read back.
#[derive(Debug)]
pub struct WaitingRow {
    pub id: BacklogId,
    /// Its `sequence` is 0 and it holds no share of the memory budget. A large body is left out: see
    /// [`WaitingRow::fetch_body`].
    pub event: Event,
    pub endpoint: Arc<str>,
    pub row_key: Option<String>,
    pub history: StoredHistory,
    pub next_attempt: Option<Timestamp>,
    pub parked_at: Timestamp,
    pub reason: ParkReason,
    pub replay: ReplayRow,
    /// Length of the stored body in bytes.
    pub body_bytes: usize,
}

impl WaitingRow {
    /// Whether its body is still to be fetched.
    pub fn is_large(&self) -> bool {
        large_body::is_large(self.body_bytes) && self.event.body.parts().is_empty()
    }

    /// Fetches a body that a page leaves out; `false` if the row is gone.
    ///
    /// # Errors
    /// That it could not be read, or not be understood.
    pub async fn fetch_body(&mut self, client: &Client) -> Result<bool, StateError> {
        let table = "walhook.backlog";
        let body = large_body::fetch(client, table, self.id.0, self.body_bytes).await?;
        let is_there = body.is_some();
        self.event.body = body.unwrap_or_default();
        Ok(is_there)
    }

    /// Where to go on after this row.
    pub fn cursor(&self) -> BacklogCursor {
        BacklogCursor { position: self.event.position, id: self.id }
    }
}

/// A place in the order of an endpoint's backlog.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct BacklogCursor {
    pub position: Position,
    pub id: BacklogId,
}

/// Which part of an endpoint's backlog to read.
#[derive(Clone, Copy, Debug)]
pub struct PageLimits {
    /// Rows after this one; `None` from the start.
    pub after: Option<BacklogCursor>,
    pub rows: usize,
    /// Bytes of bodies; the first row comes in any case, or it never could.
    pub bytes: usize,
}

/// The next rows of an endpoint, in order.
///
/// # Errors
/// That the rows could not be read, or not be understood.
pub async fn page(
    client: &Client,
    slot: &str,
    endpoint: &str,
    limits: PageLimits,
) -> Result<Vec<WaitingRow>, StateError> {
    let BacklogCursor { position, id } =
        limits.after.unwrap_or(BacklogCursor { position: Position::default(), id: BacklogId(-1) });
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    params.put(Type::TEXT, endpoint);
    params.put(Type::PG_LSN, position.commit);
    params.put(Type::INT8, i64::from(position.ordinal));
    params.put(Type::INT8, id.0);
    params.put(Type::INT8, bigint(limits.rows as u64));
    params.put(Type::INT8, bigint(limits.bytes as u64));
    // The window's sum reads no body: the bytes of each are a column.
    params.put(Type::INT8, bigint(large_body::LARGE_BYTES as u64));
    let query = "SELECT id, event_id, commit_lsn, ordinal, event_type, table_schema, table_name, row_key, first_key,
                second_key, committed, born, expires_at, facts, attempts, next_attempt_at, parked_at,
                reason, first_attempt_at, last_attempt_at, http_status, failure_class,
                failure_detail, replay, resend_of, body_bytes,
                CASE WHEN body_bytes <= $8 THEN body END AS body
           FROM (
             SELECT *, sum(body_bytes::bigint) OVER orderly AS total,
                    row_number() OVER orderly AS number
               FROM (SELECT b.* FROM walhook.backlog b
                      WHERE b.slot = $1 AND b.endpoint = $2
                        AND (b.commit_lsn, b.ordinal, b.id) > ($3, $4, $5)
                      ORDER BY b.commit_lsn, b.ordinal, b.id LIMIT $6) AS next
             WINDOW orderly AS (ORDER BY commit_lsn, ordinal, id ROWS UNBOUNDED PRECEDING)
         ) AS page
         WHERE total <= $7 OR number = 1
         ORDER BY commit_lsn, ordinal, id";
    let rows = client.query_typed(query, &params.list()).await?;
    let endpoint: Arc<str> = endpoint.into();
    rows.iter().map(|row| read_waiting(row, &endpoint)).collect()
}

fn read_waiting(row: &Row, endpoint: &Arc<str>) -> Result<WaitingRow, StateError> {
    let reason: &str = read(row, "reason")?;
    Ok(WaitingRow {
        id: BacklogId(read(row, "id")?),
        event: stored_event::read_event(
            row,
            read::<Option<Vec<u8>>>(row, "body")?.map(Bytes::from),
        )?,
        endpoint: Arc::clone(endpoint),
        row_key: read(row, "row_key")?,
        history: read_history(row)?,
        next_attempt: read(row, "next_attempt_at")?,
        parked_at: read(row, "parked_at")?,
        // One that a newer walhook wrote is as good as the plainest.
        reason: ParkReason::ALL
            .into_iter()
            .find(|known| known.as_str() == reason)
            .unwrap_or(ParkReason::Full),
        replay: ReplayRow::from_columns(read(row, "replay")?, read(row, "resend_of")?),
        body_bytes: usize::try_from(unsigned_int(row, "body_bytes")?).unwrap_or(usize::MAX),
    })
}

fn read_history(row: &Row) -> Result<StoredHistory, StateError> {
    let class = read::<Option<&str>>(row, "failure_class")?.and_then(stored_event::failure_class);
    let detail: Option<String> = read(row, "failure_detail")?;
    Ok(StoredHistory {
        attempts: unsigned_int(row, "attempts")?,
        first_attempt: read(row, "first_attempt_at")?,
        last_attempt: read(row, "last_attempt_at")?,
        status: stored_event::read_status(row)?,
        failure: class.zip(detail).map(|(class, detail)| AttemptFailure { class, detail }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::lsn::Lsn;

    #[test]
    fn a_cursor_orders_by_position_first() {
        let at = |ordinal, id| BacklogCursor {
            position: Position { commit: Lsn::from_raw(7), ordinal },
            id: BacklogId(id),
        };
        assert!(at(0, 9) < at(1, 2));
        assert!(at(1, 2) < at(1, 3));
    }
}
