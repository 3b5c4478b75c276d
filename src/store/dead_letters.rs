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

pub(crate) mod letter_rows;
pub(crate) mod selection;

use std::sync::Arc;

use bytes::Bytes;
use tokio_postgres::Client;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::flow::event::Event;
use crate::flow::time::Timestamp;
use crate::flow::verdict::FailureClass;
use crate::store::dead_letters::selection::DISCARDABLE;
use crate::store::dead_letters::selection::LetterFilter;
use crate::store::dead_letters::selection::LetterState;
use crate::store::dead_letters::selection::MATCHES;
use crate::store::dead_letters::selection::filter_params;
use crate::store::large_body;
use crate::store::sql::SqlParams;
use crate::store::sql::bigint;
use crate::store::sql::read;
use crate::store::sql::unsigned;
use crate::store::sql::unsigned_int;
use crate::store::state_error::StateError;
use crate::store::stored_event;
pub use crate::store::stored_event::DeadLetterId;

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
