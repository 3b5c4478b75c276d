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

mod copy;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use tokio_postgres::Client;
use tokio_postgres::Row;
use tokio_postgres::Transaction;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use crate::flow::event::Event;
use crate::flow::event::EventId;
use crate::flow::lsn::Position;
use crate::flow::park_reason::ParkReason;
use crate::flow::time::Timestamp;
use crate::flow::verdict::AttemptFailure;
use crate::store::body_codec;
use crate::store::body_codec::STORED_BYTES_MAX;
use crate::store::large_body;
use crate::store::ownership::StateOwnership;
use crate::store::sql::SqlParams;
use crate::store::sql::bigint;
use crate::store::sql::chunks;
use crate::store::sql::clean;
use crate::store::sql::int;
use crate::store::sql::looked_up;
use crate::store::sql::read;
use crate::store::sql::unsigned;
use crate::store::sql::unsigned_int;
use crate::store::state_error::StateError;
use crate::store::stored_event;
use crate::store::stored_event::ReplayRow;
use crate::store::stored_event::StoredHistory;
use crate::store::stored_event::StoredSubject;

/// The row `b` of a delivery `r` to the slot $1. Only the index that begins with the event can be used: before
/// the table is analyzed the planner takes those of slot and endpoint for as good, and reads all rows of the
/// endpoint for each delivery.
const OF_EVENT: &str = "b.event_id = r.event_id AND b.endpoint || '' = r.endpoint
            AND b.slot || '' = $1 AND NOT b.replay";

/// Nor may it read all rows of the table, of which it believes that there are few.
const BY_INDEX: &str = "SET LOCAL enable_seqscan = off";

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

/// What one endpoint has in the backlog.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BacklogSize {
    pub endpoint: Arc<str>,
    pub rows: u64,
    pub bytes: u64,
    /// When its oldest row was parked.
    pub oldest: Timestamp,
    /// The last change of which it has a row.
    pub newest: Position,
    /// Whether a row was parked because the endpoint was out of order.
    pub is_out: bool,
}

/// The columns beside slot and event.
const OWN_COLUMNS: &str = "endpoint, attempts, next_attempt_at, parked_at, reason, first_attempt_at, last_attempt_at, \
     http_status, failure_class, failure_detail, replay, resend_of";

pub(crate) async fn park(
    tx: &mut Transaction<'_>,
    holding: &StateOwnership,
    parked: &[ParkedDelivery],
) -> Result<(), StateError> {
    if parked.is_empty() {
        return Ok(());
    }
    let is_large =
        |row: &ParkedDelivery| large_body::is_large(body_codec::encoded_len(&row.event.body));
    if parked.iter().any(is_large) {
        return insert(tx, holding, parked).await; // COPY takes a row in one piece
    }
    let attempt = tx.savepoint("park").await?;
    match copy::copy(&attempt, holding, parked).await {
        Ok(()) => Ok(attempt.commit().await?),
        // COPY has no ON CONFLICT, and next to never a conflict.
        Err(error) if error.sqlstate() == Some(&SqlState::UNIQUE_VIOLATION) => {
            attempt.rollback().await?;
            insert(tx, holding, parked).await
        }
        Err(error) => Err(error),
    }
}

/// Rows of which some are there already: those stay as they are.
async fn insert(
    tx: &Transaction<'_>,
    holding: &StateOwnership,
    parked: &[ParkedDelivery],
) -> Result<(), StateError> {
    let (event, rest) = (stored_event::COLUMNS, OWN_COLUMNS);
    let insert = |selected: &str| {
        format!(
            "INSERT INTO walhook.backlog (slot, {event}, {rest})
         SELECT $1, {selected}, {rest}
           FROM unnest({arrays}, $16::text[], $17::int[], $18::timestamptz[], $19::timestamptz[],
                       $20::text[], $21::timestamptz[], $22::timestamptz[], $23::int[],
                       $24::text[], $25::text[], $26::bool[], $27::bigint[])
                WITH ORDINALITY AS rows ({event}, {rest}, number)
          ORDER BY number
         ON CONFLICT DO NOTHING",
            arrays = stored_event::ARRAYS,
        )
    };
    for chunk in chunks(parked, |row| body_codec::encoded_len(&row.event.body)) {
        let body = |row: &ParkedDelivery| {
            let bytes = body_codec::encoded_len(&row.event.body);
            match bytes > STORED_BYTES_MAX {
                false if large_body::is_large(bytes) => Ok(None),
                false => Ok(body_codec::encode(&row.event.body)),
                true => Err(StateError::BodyTooLarge { event: row.event.id.to_string(), bytes }),
            }
        };
        let bodies = chunk.iter().map(body).collect::<Result<Vec<_>, StateError>>()?;
        let large = match (chunk, bodies.as_slice()) {
            ([row], [None]) => Some(&row.event.body),
            _ => None,
        };
        let subjects: Vec<StoredSubject<'_>> = chunk
            .iter()
            .map(|row| StoredSubject { event: &row.event, row_key: row.row_key.as_deref() })
            .collect();
        let mut params = SqlParams::default();
        params.put(Type::TEXT, holding.slot.as_ref());
        stored_event::put_events(&mut params, &subjects, bodies, holding.unicode);
        params.column(Type::TEXT_ARRAY, chunk.iter().map(|row| &*row.endpoint));
        params.column(Type::INT4_ARRAY, chunk.iter().map(|row| int(row.history.attempts)));
        params.column(Type::TIMESTAMPTZ_ARRAY, chunk.iter().map(|row| row.next_attempt));
        params.column(Type::TIMESTAMPTZ_ARRAY, chunk.iter().map(|row| row.parked_at));
        params.column(Type::TEXT_ARRAY, chunk.iter().map(|row| row.reason.as_str()));
        let histories: Vec<&StoredHistory> = chunk.iter().map(|row| &row.history).collect();
        put_histories(&mut params, &histories, holding.unicode);
        params.column(Type::BOOL_ARRAY, chunk.iter().map(|row| row.replay.is_replay()));
        params.column(Type::INT8_ARRAY, chunk.iter().map(|row| row.replay.dead_letter()));
        if let Some(body) = large {
            large_body::gather(tx, &holding.slot, body).await?;
        }
        let insert = insert(&large_body::selected(large.is_some()));
        tx.execute_typed(&insert, &params.list()).await?;
        if large.is_some() {
            large_body::clear(tx, &holding.slot).await?;
        }
    }
    Ok(())
}

/// Adds first and last attempt, status, class and detail of the last failure.
fn put_histories<'a>(params: &mut SqlParams<'a>, rows: &[&'a StoredHistory], unicode: bool) {
    params.column(Type::TIMESTAMPTZ_ARRAY, rows.iter().map(|row| row.first_attempt));
    params.column(Type::TIMESTAMPTZ_ARRAY, rows.iter().map(|row| row.last_attempt));
    params.column(Type::INT4_ARRAY, rows.iter().map(|row| row.status.map(i32::from)));
    let failures = || rows.iter().map(|row| row.failure.as_ref());
    params.column(Type::TEXT_ARRAY, failures().map(|failure| failure.map(|f| f.class.as_str())));
    let detail = |failure: &'a AttemptFailure| clean(&failure.detail, unicode);
    params.column(Type::TEXT_ARRAY, failures().map(|failure| failure.map(detail)));
}

pub(crate) async fn repark(
    tx: &Transaction<'_>,
    holding: &StateOwnership,
    reparked: &[ReparkedDelivery],
) -> Result<(), StateError> {
    let update = format!(
        "UPDATE walhook.backlog b
            SET attempts = r.attempts, next_attempt_at = r.next_attempt_at, reason = r.reason,
                first_attempt_at = r.first_attempt_at, last_attempt_at = r.last_attempt_at,
                http_status = r.http_status, failure_class = r.failure_class,
                failure_detail = r.failure_detail
           FROM {rows} AS r (endpoint, event_id, attempts, next_attempt_at, reason,
                             first_attempt_at, last_attempt_at, http_status, failure_class,
                             failure_detail)
          WHERE {OF_EVENT}",
        rows = looked_up(&[
            "text",
            "text",
            "int",
            "timestamptz",
            "text",
            "timestamptz",
            "timestamptz",
            "int",
            "text",
            "text",
        ]),
    );
    if !reparked.is_empty() {
        tx.batch_execute(BY_INDEX).await?;
    }
    for chunk in chunks(reparked, |_| 0) {
        let mut params = SqlParams::default();
        params.put(Type::TEXT, holding.slot.as_ref());
        params.column(Type::TEXT_ARRAY, chunk.iter().map(|row| &*row.delivery.endpoint));
        params.column(Type::TEXT_ARRAY, chunk.iter().map(|row| row.delivery.event.to_string()));
        params.column(Type::INT4_ARRAY, chunk.iter().map(|row| int(row.history.attempts)));
        params.column(Type::TIMESTAMPTZ_ARRAY, chunk.iter().map(|row| row.next_attempt));
        params.column(Type::TEXT_ARRAY, chunk.iter().map(|row| row.reason.as_str()));
        let histories: Vec<&StoredHistory> = chunk.iter().map(|row| &row.history).collect();
        put_histories(&mut params, &histories, holding.unicode);
        tx.execute_typed(&update, &params.list()).await?;
    }
    Ok(())
}

pub(crate) async fn finish(
    tx: &Transaction<'_>,
    holding: &StateOwnership,
    finished: &[BacklogDelivery],
) -> Result<(), StateError> {
    let delete = format!(
        "DELETE FROM walhook.backlog b
          USING {rows} AS r (endpoint, event_id)
          WHERE {OF_EVENT}",
        rows = looked_up(&["text", "text"]),
    );
    if !finished.is_empty() {
        tx.batch_execute(BY_INDEX).await?;
    }
    for chunk in chunks(finished, |_| 0) {
        let mut params = SqlParams::default();
        params.put(Type::TEXT, holding.slot.as_ref());
        params.column(Type::TEXT_ARRAY, chunk.iter().map(|row| &*row.endpoint));
        params.column(Type::TEXT_ARRAY, chunk.iter().map(|row| row.event.to_string()));
        tx.execute_typed(&delete, &params.list()).await?;
    }
    Ok(())
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

/// What each endpoint has in the backlog; endpoints with nothing are left out. Counts every row:
/// for the start, and then the caller keeps count.
///
/// # Errors
/// That the rows could not be counted.
pub async fn sizes(client: &Client, slot: &str) -> Result<Vec<BacklogSize>, StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    let rows = client
        .query_typed(
            "SELECT endpoint, count(*) AS rows, sum(body_bytes)::bigint AS bytes,
                    min(parked_at) AS oldest, max(commit_lsn) AS newest,
                    bool_or(reason = 'outage') AS is_out,
                    (SELECT max(n.ordinal) FROM walhook.backlog n
                      WHERE n.slot = $1 AND n.endpoint = b.endpoint
                        AND n.commit_lsn = max(b.commit_lsn)) AS newest_ordinal
               FROM walhook.backlog b WHERE slot = $1 GROUP BY endpoint ORDER BY endpoint",
            &params.list(),
        )
        .await?;
    let size = |row: &Row| {
        Ok(BacklogSize {
            endpoint: read::<&str>(row, "endpoint")?.into(),
            rows: unsigned(row, "rows")?,
            bytes: unsigned(row, "bytes")?,
            oldest: read(row, "oldest")?,
            newest: Position {
                commit: read(row, "newest")?,
                ordinal: unsigned(row, "newest_ordinal")?,
            },
            is_out: read(row, "is_out")?,
        })
    };
    rows.iter().map(size).collect()
}

/// As [`sizes`]; none where there is no state yet.
///
/// # Errors
/// That the rows could not be counted.
pub(crate) async fn sizes_if_any(
    client: &Client,
    slot: &str,
) -> Result<Vec<BacklogSize>, StateError> {
    let there = "SELECT to_regclass('walhook.backlog') IS NOT NULL AS there";
    match read(&client.query_one(there, &[]).await?, "there")? {
        true => sizes(client, slot).await,
        false => Ok(Vec::new()),
    }
}

/// Of these endpoints, those that have something in the backlog, with the number of rows.
///
/// # Errors
/// That the rows could not be counted.
pub(crate) async fn left_of(
    client: &Client,
    slot: &str,
    endpoints: &[&str],
) -> Result<Vec<(String, u64)>, StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    params.put(Type::TEXT_ARRAY, endpoints);
    let query = "SELECT endpoint, count(*) AS rows FROM walhook.backlog
                  WHERE slot = $1 AND endpoint = ANY($2) GROUP BY endpoint ORDER BY endpoint";
    let rows = client.query_typed(query, &params.list()).await?;
    rows.iter().map(|row| Ok((read(row, "endpoint")?, unsigned(row, "rows")?))).collect()
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
