//! Dead letters that are sent again, in the state: asked for, claimed, closed.
//!
//! [`request`] marks letters durably, so that a large resend goes on where it stopped, also after a
//! crash. [`claim`] takes them in bounded portions, at the pace of the caller, and counts them as
//! pending again. The outcome comes with a flush: closed here, or a [`DeadLetter`] once more.
//!
//! [`DeadLetter`]: crate::store::dead_letters::DeadLetter

use std::sync::Arc;

use tokio_postgres::Client;
use tokio_postgres::Row;
use tokio_postgres::Transaction;
use tokio_postgres::types::Type;

use crate::flow::time::Timestamp;
use crate::store::dead_letters::DeadLetterId;
use crate::store::dead_letters::LISTED;
use crate::store::dead_letters::LetterSummary;
use crate::store::dead_letters::SMALL_BODY;
use crate::store::dead_letters::read_whole;
use crate::store::dead_letters::selection::LetterFilter;
use crate::store::dead_letters::selection::LetterState;
use crate::store::dead_letters::selection::MATCHES;
use crate::store::dead_letters::selection::filter_params;
use crate::store::ownership::StateOwnership;
use crate::store::progress::begin;
use crate::store::progress::guard;
use crate::store::sql::SqlParams;
use crate::store::sql::bigint;
use crate::store::sql::chunks;
use crate::store::sql::int;
use crate::store::sql::looked_up;
use crate::store::sql::read;
use crate::store::sql::unsigned;
use crate::store::state_error::StateError;

/// A letter to deliver again, with [`crate::store::stored_event::ReplayRow::DeadLetter`].
#[derive(Clone, Debug)]
pub struct ClaimedLetter {
    pub letter: LetterSummary,
    /// Whether the books counted it as dead until now: `dead` was lowered by one with this claim.
    /// Not so for a letter that was claimed before and got lost.
    pub unbooked: bool,
    /// How many a second the operator wants sent; `None`: as the configuration says.
    pub rate: Option<u32>,
}

/// How a resend ended, other than by dying again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EndedLetter {
    Delivered,
    Expired,
}

/// The outcome of one resend.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ResentLetter {
    pub letter: DeadLetterId,
    pub ended: EndedLetter,
    pub at: Timestamp,
}

/// Asks for dead letters to be sent again, and says how many. Letters that wait for it already, or
/// are being sent, are left alone: asking twice sends once. A letter whose body was too large to be
/// kept stays dead. They go at `rate` a second, if that is said.
///
/// # Errors
/// That the statement failed.
pub async fn request(
    client: &Client,
    slot: &str,
    filter: &LetterFilter,
    rate: Option<u32>,
) -> Result<u64, StateError> {
    let mut params = filter_params(slot, filter, &[LetterState::Dead]);
    params.put(Type::INT4, rate.map(int));
    let update = format!(
        "UPDATE walhook.dead_letters SET state = 'requested', resend_rate = $11
          WHERE {MATCHES} AND body IS NOT NULL"
    );
    Ok(client.execute_typed(&update, &params.list()).await?)
}

/// The endpoints for which letters wait to be sent again; see [`claim`].
///
/// # Errors
/// That the rows could not be read.
pub async fn waiting(client: &Client, slot: &str) -> Result<Vec<Arc<str>>, StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    let rows = client
        .query_typed(
            "SELECT DISTINCT endpoint FROM walhook.dead_letters d
              WHERE slot = $1 AND state IN ('requested', 'resending')
                AND (state = 'requested' OR NOT EXISTS
                     (SELECT FROM walhook.backlog b WHERE b.resend_of = d.id))",
            &params.list(),
        )
        .await?;
    rows.iter().map(|row| Ok(read::<&str>(row, "endpoint")?.into())).collect()
}

/// What [`claim`] takes at once.
#[derive(Clone, Copy, Debug)]
pub struct ClaimPortion<'a> {
    /// `None` means letters of any endpoint.
    pub endpoint: Option<&'a str>,
    /// The letters that were claimed and whose outcome, or parking, is not committed yet.
    pub in_memory: &'a [DeadLetterId],
    pub rows: usize,
    /// Of bodies; a single letter comes whatever its size.
    pub bytes: usize,
}

/// Takes requested letters, the oldest first, as many as the portion allows. Large bodies are left out.
///
/// A letter that is being sent and is not in memory got lost, with a holder that died or with a claim
/// whose answer did not arrive, and comes again, unless it waits in the backlog.
///
/// # Errors
/// [`StateError::Fenced`], or that a statement failed.
pub async fn claim(
    client: &mut Client,
    ownership: &StateOwnership,
    portion: ClaimPortion<'_>,
) -> Result<Vec<ClaimedLetter>, StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, ownership.slot.as_ref());
    params.column(Type::INT8_ARRAY, portion.in_memory.iter().map(|id| id.0));
    params.put(Type::INT8, bigint(portion.rows as u64));
    params.put(Type::INT8, bigint(portion.bytes as u64));
    params.put(Type::TEXT, portion.endpoint);
    let tx = begin(client).await?;
    guard(&tx, ownership).await?;
    let found = tx
        .query_typed(
            &format!(
                "WITH next AS MATERIALIZED (
                 SELECT id, state, body_bytes FROM walhook.dead_letters d
                  WHERE slot = $1 AND ($5::text IS NULL OR endpoint = $5) AND (state = 'requested'
                     OR (state = 'resending' AND id <> ALL ($2) AND NOT EXISTS
                         (SELECT FROM walhook.backlog b WHERE b.resend_of = d.id)))
                  ORDER BY id LIMIT $3 FOR UPDATE
             ), chosen AS (
                 SELECT id, state FROM (
                     SELECT *, sum(body_bytes::bigint) OVER (ORDER BY id) AS total,
                            row_number() OVER (ORDER BY id) AS number
                       FROM next) AS portion
                  WHERE total <= $4 OR number = 1
             ), claimed AS (
                 UPDATE walhook.dead_letters d
                    SET state = 'resending',
                        resends = d.resends + (c.state = 'requested')::int
                   FROM chosen c WHERE d.id = c.id
                 RETURNING d.*, c.state = 'requested' AS unbooked
             ), books AS (
                 INSERT INTO walhook.books AS b (slot, endpoint, table_schema, table_name, dead)
                 SELECT $1, endpoint, table_schema, table_name, -count(*)
                   FROM claimed WHERE unbooked GROUP BY endpoint, table_schema, table_name
                 ON CONFLICT (slot, endpoint, table_schema, table_name)
                    DO UPDATE SET dead = b.dead + excluded.dead
             )
             SELECT {LISTED}, resend_rate, unbooked, {SMALL_BODY} FROM claimed ORDER BY id"
            ),
            &params.list(),
        )
        .await?;
    tx.commit().await?;
    let claimed = |row: &Row| {
        let rate: Option<i32> = read(row, "resend_rate")?;
        Ok(ClaimedLetter {
            letter: read_whole(row)?,
            unbooked: read(row, "unbooked")?,
            rate: rate.and_then(|rate| u32::try_from(rate).ok()),
        })
    };
    found.iter().map(claimed).collect()
}

/// Takes back what was asked for an endpoint that is no more: its letters are dead again, and their reason
/// begins with `why`. Says how many. Also of those that got lost while they were being sent.
///
/// Nothing is written where there is nothing to take back, or another walhook has the slot.
///
/// # Errors
/// That the statement failed.
pub(crate) async fn take_back(
    client: &Client,
    ownership: &StateOwnership,
    endpoint: &str,
    why: &str,
) -> Result<u64, StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, ownership.slot.as_ref());
    params.put(Type::TEXT, endpoint);
    params.put(Type::TEXT, why);
    params.put(Type::INT8, ownership.epoch);
    params.put(Type::INT4, ownership.partition.raw());
    let row = client
        .query_typed_one(
            "WITH asked AS MATERIALIZED (
                 SELECT id, state FROM walhook.dead_letters d
                  WHERE slot = $1 AND endpoint = $2 AND state IN ('requested', 'resending')
                    AND NOT EXISTS (SELECT FROM walhook.backlog b WHERE b.resend_of = d.id)
                    AND EXISTS (SELECT FROM walhook.progress
                                 WHERE slot = $1 AND partition = $5 AND epoch = $4)
                    FOR UPDATE
             ), taken AS (
                 UPDATE walhook.dead_letters d SET state = 'dead', reason = $3 || d.reason
                   FROM asked a WHERE d.id = a.id
                 RETURNING d.table_schema, d.table_name, a.state = 'resending' AS unbooked
             ), books AS (
                 INSERT INTO walhook.books AS b (slot, endpoint, table_schema, table_name, dead)
                 SELECT $1, $2, table_schema, table_name, count(*)
                   FROM taken WHERE unbooked GROUP BY table_schema, table_name
                 ON CONFLICT (slot, endpoint, table_schema, table_name)
                    DO UPDATE SET dead = b.dead + excluded.dead
             )
             SELECT count(*) AS rows FROM taken",
            &params.list(),
        )
        .await?;
    unsigned(&row, "rows")
}

pub(crate) async fn close(
    tx: &Transaction<'_>,
    ownership: &StateOwnership,
    resent: &[ResentLetter],
) -> Result<(), StateError> {
    let update = format!(
        "UPDATE walhook.dead_letters d
            SET state = r.state, closed_at = r.closed_at
           FROM {rows} AS r (id, state, closed_at)
          WHERE d.id = r.id AND d.slot = $1 AND d.state = 'resending'",
        rows = looked_up(&["bigint", "text", "timestamptz"]),
    );
    for chunk in chunks(resent, |_| 0) {
        let mut params = SqlParams::default();
        params.put(Type::TEXT, ownership.slot.as_ref());
        params.column(Type::INT8_ARRAY, chunk.iter().map(|row| row.letter.0));
        let state = |row: &ResentLetter| match row.ended {
            EndedLetter::Delivered => LetterState::Delivered.as_str(),
            EndedLetter::Expired => LetterState::Expired.as_str(),
        };
        params.column(Type::TEXT_ARRAY, chunk.iter().map(state));
        params.column(Type::TIMESTAMPTZ_ARRAY, chunk.iter().map(|row| row.at));
        tx.execute_typed(&update, &params.list()).await?;
    }
    Ok(())
}
