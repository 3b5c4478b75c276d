//! Dead letters: deliveries that were given up, until an operator has dealt with them.
//!
//! ```text
//! dead ─ request ─▶ requested ─ claim ─▶ resending ─┬─▶ delivered, expired
//!   │                   │                           └─▶ dead again
//!   └──── discard ──────┴─▶ discarded
//! ```
//!
//! A letter is never removed by what happens to it: it is closed, and purged when its time is over.
//! Sending letters again is in [`crate::store::resend`].

use std::sync::Arc;

use bytes::Bytes;
use tokio_postgres::Client;
use tokio_postgres::Row;
use tokio_postgres::Transaction;
use tokio_postgres::types::Type;

use crate::flow::event::Event;
use crate::flow::event::EventId;
use crate::flow::time::Timestamp;
use crate::flow::verdict::FailureClass;
use crate::store::body_codec;
use crate::store::body_codec::STORED_BYTES_MAX;
use crate::store::large_body;
use crate::store::ownership::StateOwnership;
use crate::store::sql::SqlParams;
use crate::store::sql::bigint;
use crate::store::sql::chunks;
use crate::store::sql::clean;
use crate::store::sql::int;
use crate::store::sql::read;
use crate::store::sql::unsigned;
use crate::store::sql::unsigned_int;
use crate::store::state_error::StateError;
use crate::store::stored_event;
pub use crate::store::stored_event::DeadLetterId;
use crate::store::stored_event::StoredSubject;

/// Why a delivery died, in a word to filter by.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum DeathClass {
    /// The last attempt failed, and this is how.
    Failure(FailureClass),
    /// The endpoint said that it is gone for good (410).
    Gone,
    /// The endpoint was removed while it waited.
    Deleted,
    /// It was one too many in the backlog.
    BacklogRows,
    /// It waited in the backlog for too long.
    BacklogAge,
    /// It cannot be rendered, or walhook crashed over it again and again.
    Poison,
}

impl DeathClass {
    /// What [`DeathClass::as_str`] can give.
    pub const NAMES: [&str; 14] = [
        "status",
        "timeout",
        "dns",
        "connect",
        "tls",
        "protocol",
        "refused",
        "request",
        "local",
        "gone",
        "deleted",
        "backlog_rows",
        "backlog_age",
        "poison",
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Failure(class) => class.as_str(),
            Self::Gone => "gone",
            Self::Deleted => "deleted",
            Self::BacklogRows => "backlog_rows",
            Self::BacklogAge => "backlog_age",
            Self::Poison => "poison",
        }
    }
}

/// A delivery that was given up. One that was given up before, and was sent again, joins its letter.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    pub event: Arc<Event>,
    pub endpoint: Arc<str>,
    pub row_key: Option<String>,
    /// For the operator. It holds no URL, secret or row data.
    pub reason: String,
    pub class: DeathClass,
    pub status: Option<u16>,
    /// Attempts since it was captured or sent again.
    pub attempts: u32,
    pub first_attempt: Option<Timestamp>,
    pub last_attempt: Option<Timestamp>,
    pub died_at: Timestamp,
}

/// Where a letter stands; see the picture of the module.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum LetterState {
    Dead,
    Requested,
    Resending,
    Delivered,
    Expired,
    Discarded,
}

impl LetterState {
    pub const ALL: [Self; 6] = [
        Self::Dead,
        Self::Requested,
        Self::Resending,
        Self::Delivered,
        Self::Expired,
        Self::Discarded,
    ];

    /// What is in the queue: not closed.
    pub const OPEN: [Self; 3] = [Self::Dead, Self::Requested, Self::Resending];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dead => "dead",
            Self::Requested => "requested",
            Self::Resending => "resending",
            Self::Delivered => "delivered",
            Self::Expired => "expired",
            Self::Discarded => "discarded",
        }
    }
}

/// What [`discard`] may close.
pub(crate) const DISCARDABLE: [LetterState; 2] = [LetterState::Dead, LetterState::Requested];

/// Which letters are meant; a field that is `None` does not matter.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct LetterFilter {
    pub ids: Option<Vec<DeadLetterId>>,
    pub endpoint: Option<String>,
    pub event_type: Option<String>,
    /// See [`DeathClass::as_str`].
    pub class: Option<String>,
    /// A time range of death: from this on, and before that.
    pub from: Option<Timestamp>,
    pub before: Option<Timestamp>,
    pub row_key: Option<String>,
    pub event: Option<EventId>,
    /// `None` means those in the queue, [`LetterState::OPEN`].
    pub states: Option<Vec<LetterState>>,
}

/// A letter without its body, as a list shows it.
#[derive(Clone, Debug)]
pub struct LetterSummary {
    pub id: DeadLetterId,
    /// Its body is empty; see [`whole`]. Its `sequence` is 0.
    pub event: Arc<Event>,
    pub endpoint: Arc<str>,
    pub row_key: Option<String>,
    pub reason: String,
    pub class: String,
    pub status: Option<u16>,
    /// All attempts, also those of resends.
    pub attempts: u32,
    pub first_attempt: Option<Timestamp>,
    pub last_attempt: Option<Timestamp>,
    pub died_at: Timestamp,
    pub state: LetterState,
    /// How often it was sent again.
    pub resends: u32,
    /// When it was delivered, expired or discarded.
    pub closed_at: Option<Timestamp>,
    /// Length of the stored body in bytes; 0 if it was too large to be kept.
    pub body_bytes: u32,
}

/// The parameters `$1` to `$10` of [`MATCHES`]; of the states that the filter asks for, only those
/// in `allowed`.
pub(crate) fn filter_params<'a>(
    slot: &'a str,
    filter: &'a LetterFilter,
    allowed: &[LetterState],
) -> SqlParams<'a> {
    let text = |text: &'a Option<String>| text.as_deref().map(|text| clean(text, true));
    let wanted = filter.states.as_deref().unwrap_or(&LetterState::OPEN);
    let states = wanted.iter().filter(|state| allowed.contains(state));
    let states: Vec<&str> = states.map(|state| state.as_str()).collect();
    let ids = filter.ids.as_ref().map(|ids| ids.iter().map(|id| id.0).collect::<Vec<_>>());
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    params.put(Type::INT8_ARRAY, ids);
    params.put(Type::TEXT, text(&filter.endpoint));
    params.put(Type::TEXT, text(&filter.event_type));
    params.put(Type::TEXT, text(&filter.class));
    params.put(Type::TIMESTAMPTZ, filter.from);
    params.put(Type::TIMESTAMPTZ, filter.before);
    params.put(Type::TEXT, text(&filter.row_key));
    params.put(Type::TEXT, filter.event.map(|event| event.to_string()));
    params.put(Type::TEXT_ARRAY, states);
    params
}

/// The rows that a [`LetterFilter`] means. The planner sees the values and drops what is null.
pub(crate) const MATCHES: &str = "slot = $1 AND ($2::bigint[] IS NULL OR id = ANY ($2))
     AND ($3::text IS NULL OR endpoint = $3) AND ($4::text IS NULL OR event_type = $4)
     AND ($5::text IS NULL OR failure_class = $5) AND ($6::timestamptz IS NULL OR died_at >= $6)
     AND ($7::timestamptz IS NULL OR died_at < $7) AND ($8::text IS NULL OR row_key = $8)
     AND ($9::text IS NULL OR event_id = $9) AND state = ANY ($10)";

/// All columns but the body.
pub(crate) const LISTED: &str = "id, endpoint, event_id, commit_lsn, ordinal, event_type, table_schema, table_name, \
                      row_key, first_key, second_key, committed, born, expires_at, facts, reason, \
                      failure_class, http_status, attempts, first_attempt_at, last_attempt_at, \
                      died_at, state, resends, closed_at, body_bytes";

/// The body, unless it is a large one: see [`LetterSummary::fetch_body`].
pub(crate) const SMALL_BODY: &str = "CASE WHEN body_bytes <= 8388608 THEN body END AS body";

impl LetterSummary {
    /// Fetches a large body, which claims leave out; others are there. `false` if the letter is gone.
    ///
    /// # Errors
    /// That it could not be read, or not be understood.
    pub async fn fetch_body(&mut self, client: &Client) -> Result<bool, StateError> {
        let bytes = usize::try_from(self.body_bytes).unwrap_or(usize::MAX);
        if !self.is_large() {
            return Ok(true);
        }
        let body = large_body::fetch(client, "walhook.dead_letters", self.id.0, bytes).await?;
        let is_there = body.is_some();
        self.event = Arc::new(self.event.shaped(body.unwrap_or_default(), None));
        Ok(is_there)
    }

    /// Whether its body is still to be fetched.
    pub fn is_large(&self) -> bool {
        let bytes = usize::try_from(self.body_bytes).unwrap_or(usize::MAX);
        large_body::is_large(bytes) && self.event.body.parts().is_empty()
    }
}

pub(crate) async fn insert(
    tx: &Transaction<'_>,
    holding: &StateOwnership,
    letters: &[DeadLetter],
) -> Result<(), StateError> {
    let rest = "endpoint, reason, failure_class, http_status, attempts, first_attempt_at, \
                last_attempt_at, died_at";
    let event = stored_event::COLUMNS;
    // A letter twice in one statement: the last one counts, and one statement may not change a row
    // twice. Then in the order in which they died.
    let insert = |selected: &str| {
        format!(
            "INSERT INTO walhook.dead_letters AS d (slot, {event}, {rest})
         SELECT $1, {selected}, {rest} FROM (
             SELECT DISTINCT ON (event_id, endpoint) *
               FROM unnest({arrays}, $16::text[], $17::text[], $18::text[], $19::int[],
                           $20::int[], $21::timestamptz[], $22::timestamptz[],
                           $23::timestamptz[])
                    WITH ORDINALITY AS rows ({event}, {rest}, number)
              ORDER BY event_id, endpoint, number DESC
         ) AS letters ORDER BY number
         ON CONFLICT (slot, endpoint, event_id) DO UPDATE
            SET reason = excluded.reason, failure_class = excluded.failure_class,
                http_status = excluded.http_status, attempts = d.attempts + excluded.attempts,
                first_attempt_at = least(d.first_attempt_at, excluded.first_attempt_at),
                last_attempt_at = coalesce(excluded.last_attempt_at, d.last_attempt_at),
                died_at = excluded.died_at, state = 'dead', closed_at = NULL",
            arrays = stored_event::ARRAYS,
        )
    };
    for chunk in chunks(letters, |row| body_codec::encoded_len(&row.event.body)) {
        // One that could not be rendered has no body to send again.
        let kept = |row: &DeadLetter| match row.event.body.parts() {
            [] => None,
            _ if large_body::is_large(body_codec::encoded_len(&row.event.body)) => None,
            _ => body_codec::encode(&row.event.body),
        };
        let bodies = chunk.iter().map(kept).collect();
        let length = |row: &DeadLetter| body_codec::encoded_len(&row.event.body);
        let large = match chunk {
            [row] if large_body::is_large(length(row)) && length(row) <= STORED_BYTES_MAX => {
                Some(&row.event.body)
            }
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
        let reasons = chunk.iter().map(|row| clean(&row.reason, holding.unicode));
        params.column(Type::TEXT_ARRAY, reasons);
        params.column(Type::TEXT_ARRAY, chunk.iter().map(|row| row.class.as_str()));
        params.column(Type::INT4_ARRAY, chunk.iter().map(|row| row.status.map(i32::from)));
        params.column(Type::INT4_ARRAY, chunk.iter().map(|row| int(row.attempts)));
        params.column(Type::TIMESTAMPTZ_ARRAY, chunk.iter().map(|row| row.first_attempt));
        params.column(Type::TIMESTAMPTZ_ARRAY, chunk.iter().map(|row| row.last_attempt));
        params.column(Type::TIMESTAMPTZ_ARRAY, chunk.iter().map(|row| row.died_at));
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

/// Letters, the newest first, at most `limit`; `below` is the last id of the page before.
///
/// # Errors
/// That the rows could not be read.
pub async fn list(
    client: &Client,
    slot: &str,
    filter: &LetterFilter,
    below: Option<DeadLetterId>,
    limit: u32,
) -> Result<Vec<LetterSummary>, StateError> {
    let mut params = filter_params(slot, filter, &LetterState::ALL);
    params.put(Type::INT8, below.map(|id| id.0));
    params.put(Type::INT8, i64::from(limit));
    let query = format!(
        "SELECT {LISTED} FROM walhook.dead_letters
          WHERE {MATCHES} AND ($11::bigint IS NULL OR id < $11) ORDER BY id DESC LIMIT $12"
    );
    let rows = client.query_typed(&query, &params.list()).await?;
    rows.iter().map(|row| read_summary(row, None)).collect()
}

/// How many letters a filter means: a dry run.
///
/// # Errors
/// That the rows could not be counted.
pub async fn count(client: &Client, slot: &str, filter: &LetterFilter) -> Result<u64, StateError> {
    let params = filter_params(slot, filter, &LetterState::ALL);
    let query = format!("SELECT count(*) AS rows FROM walhook.dead_letters WHERE {MATCHES}");
    let row = client.query_typed_one(&query, &params.list()).await?;
    unsigned(&row, "rows")
}

/// How many letters are in the queue, by endpoint; endpoints with none are left out.
///
/// # Errors
/// That the rows could not be counted.
pub async fn sizes(client: &Client, slot: &str) -> Result<Vec<(Arc<str>, u64)>, StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    let rows = client
        .query_typed(
            "SELECT endpoint, count(*) AS rows FROM walhook.dead_letters
              WHERE slot = $1 AND state IN ('dead', 'requested', 'resending')
              GROUP BY endpoint ORDER BY endpoint",
            &params.list(),
        )
        .await?;
    rows.iter().map(read_size).collect()
}

fn read_size(row: &Row) -> Result<(Arc<str>, u64), StateError> {
    Ok((read::<&str>(row, "endpoint")?.into(), unsigned(row, "rows")?))
}

/// What a filter means at one endpoint.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Share {
    pub endpoint: Arc<str>,
    pub letters: u64,
    /// Those of them whose body was too large to be kept: they cannot be sent again.
    pub without_body: u64,
}

/// How many letters a filter means, by endpoint: of the states that it asks for, only those in
/// `allowed`.
///
/// # Errors
/// That the rows could not be counted.
pub async fn survey(
    client: &Client,
    slot: &str,
    filter: &LetterFilter,
    allowed: &[LetterState],
) -> Result<Vec<Share>, StateError> {
    let params = filter_params(slot, filter, allowed);
    let query = format!(
        "SELECT endpoint, count(*) AS letters, count(*) FILTER (WHERE body IS NULL) AS bare
           FROM walhook.dead_letters WHERE {MATCHES} GROUP BY endpoint ORDER BY endpoint"
    );
    let rows = client.query_typed(&query, &params.list()).await?;
    let share = |row: &Row| {
        Ok(Share {
            endpoint: read::<&str>(row, "endpoint")?.into(),
            letters: unsigned(row, "letters")?,
            without_body: unsigned(row, "bare")?,
        })
    };
    rows.iter().map(share).collect()
}

/// One letter with its body; `None` if there is no such letter.
///
/// # Errors
/// That the row could not be read, or not be understood.
pub async fn whole(
    client: &Client,
    slot: &str,
    id: DeadLetterId,
) -> Result<Option<LetterSummary>, StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    params.put(Type::INT8, id.0);
    let query = format!(
        "SELECT {LISTED}, {SMALL_BODY} FROM walhook.dead_letters WHERE slot = $1 AND id = $2"
    );
    let row = client.query_typed_opt(&query, &params.list()).await?;
    let Some(mut letter) = row.as_ref().map(read_whole).transpose()? else { return Ok(None) };
    Ok(letter.fetch_body(client).await?.then_some(letter))
}

/// Closes letters as not worth sending, and says how many of each endpoint. Letters that are being
/// sent again are left alone. In the books they stay dead.
///
/// # Errors
/// That the statement failed.
pub async fn discard(
    client: &Client,
    slot: &str,
    filter: &LetterFilter,
    now: Timestamp,
) -> Result<Vec<(Arc<str>, u64)>, StateError> {
    let mut params = filter_params(slot, filter, &DISCARDABLE);
    params.put(Type::TIMESTAMPTZ, now);
    let update = format!(
        "WITH discarded AS (
             UPDATE walhook.dead_letters SET state = 'discarded', closed_at = $11 WHERE {MATCHES}
             RETURNING endpoint)
         SELECT endpoint, count(*) AS rows FROM discarded GROUP BY endpoint ORDER BY endpoint"
    );
    let rows = client.query_typed(&update, &params.list()).await?;
    rows.iter().map(read_size).collect()
}

/// Removes at most `limit` letters that were closed before a time, and says how many.
///
/// # Errors
/// That the statement failed.
pub async fn purge(
    client: &Client,
    slot: &str,
    closed_before: Timestamp,
    limit: u64,
) -> Result<u64, StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    params.put(Type::TIMESTAMPTZ, closed_before);
    params.put(Type::INT8, bigint(limit));
    Ok(client
        .execute_typed(
            "DELETE FROM walhook.dead_letters WHERE id IN (
                 SELECT id FROM walhook.dead_letters
                  WHERE slot = $1 AND closed_at < $2 ORDER BY closed_at LIMIT $3)",
            &params.list(),
        )
        .await?)
}

pub(crate) fn read_whole(row: &Row) -> Result<LetterSummary, StateError> {
    let body: Option<Vec<u8>> = read(row, "body")?;
    read_summary(row, body.map(Bytes::from))
}

fn read_summary(row: &Row, body: Option<Bytes>) -> Result<LetterSummary, StateError> {
    let state: &str = read(row, "state")?;
    Ok(LetterSummary {
        id: DeadLetterId(read(row, "id")?),
        event: Arc::new(stored_event::read_event(row, body)?),
        endpoint: read::<&str>(row, "endpoint")?.into(),
        row_key: read(row, "row_key")?,
        reason: read(row, "reason")?,
        class: read(row, "failure_class")?,
        status: stored_event::read_status(row)?,
        attempts: unsigned_int(row, "attempts")?,
        first_attempt: read(row, "first_attempt_at")?,
        last_attempt: read(row, "last_attempt_at")?,
        died_at: read(row, "died_at")?,
        state: LetterState::ALL
            .into_iter()
            .find(|known| known.as_str() == state)
            .ok_or_else(|| StateError::unreadable("a dead letter", "its state is unknown"))?,
        resends: unsigned_int(row, "resends")?,
        closed_at: read(row, "closed_at")?,
        body_bytes: unsigned_int(row, "body_bytes")?,
    })
}
