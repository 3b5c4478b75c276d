//! Dead letters by the filter rather than by the page: how many there are of each kind and state,
//! what is taken back of a resend, and letters for another endpoint than their own.

use std::sync::Arc;

use tokio_postgres::Client;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::flow::relation::TableName;
use crate::flow::time::Timestamp;
use crate::store::dead_letters::selection::LetterFilter;
use crate::store::dead_letters::selection::LetterState;
use crate::store::dead_letters::selection::MATCHES;
use crate::store::dead_letters::selection::filter_params;
use crate::store::sql::SqlParams;
use crate::store::sql::int;
use crate::store::sql::read;
use crate::store::sql::unsigned;
use crate::store::state_error::StateError;
use crate::store::stored_event;

/// Letters that have all of this in common.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct LetterGroup {
    pub endpoint: Arc<str>,
    pub class: String,
    /// See [`LetterState::as_str`].
    pub state: String,
    pub letters: u64,
    pub without_body: u64,
    /// When the first and the last of them died.
    pub first: Option<Timestamp>,
    pub last: Option<Timestamp>,
}

/// What a filter means, in groups, the largest first.
///
/// # Errors
/// That the rows could not be counted.
pub(crate) async fn groups(
    client: &Client,
    slot: &str,
    filter: &LetterFilter,
) -> Result<Vec<LetterGroup>, StateError> {
    let params = filter_params(slot, filter, &LetterState::ALL);
    let query = format!(
        "SELECT endpoint, failure_class, state, count(*) AS letters,
                count(*) FILTER (WHERE body IS NULL) AS bare, min(died_at) AS first,
                max(died_at) AS last
           FROM walhook.dead_letters WHERE {MATCHES} GROUP BY endpoint, failure_class, state
          ORDER BY count(*) DESC, endpoint, failure_class, state"
    );
    let rows = client.query_typed(&query, &params.list()).await?;
    let group = |row: &Row| {
        Ok(LetterGroup {
            endpoint: read::<&str>(row, "endpoint")?.into(),
            class: read(row, "failure_class")?,
            state: read(row, "state")?,
            letters: unsigned(row, "letters")?,
            without_body: unsigned(row, "bare")?,
            first: read(row, "first")?,
            last: read(row, "last")?,
        })
    };
    rows.iter().map(group).collect()
}

/// Takes back what was asked for and is not on its way yet: those letters are dead again. Says how many.
///
/// # Errors
/// That the statement failed.
pub(crate) async fn cancel(
    client: &Client,
    slot: &str,
    filter: &LetterFilter,
) -> Result<u64, StateError> {
    let params = filter_params(slot, filter, &[LetterState::Requested]);
    let update = format!(
        "UPDATE walhook.dead_letters SET state = 'dead', resend_rate = NULL WHERE {MATCHES}"
    );
    Ok(client.execute_typed(&update, &params.list()).await?)
}

/// Copies of letters of one table, for another endpoint.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct CopiedLetters {
    pub table: TableName,
    pub letters: u64,
    /// So many of them count no more as filtered for that endpoint. It had the others itself, or came
    /// later: they count as captured once more.
    pub spared: u64,
}

/// Asks for dead letters to be sent to the endpoint `to`, as letters of its own: in its books they are
/// dead, and no more among what was not for it, as far as anything was. The letters that were copied stay as they are. One that
/// `to` has already, or whose body was too large to be kept, is left out.
///
/// # Errors
/// That the statement failed: nothing is copied then.
pub(crate) async fn copy_to(
    client: &Client,
    slot: &str,
    filter: &LetterFilter,
    to: &str,
    rate: Option<u32>,
) -> Result<Vec<CopiedLetters>, StateError> {
    let mut params: SqlParams<'_> = filter_params(slot, filter, &[LetterState::Dead]);
    params.put(Type::TEXT, to);
    params.put(Type::INT4, rate.map(int));
    let event = stored_event::COLUMNS;
    let copy = format!(
        "WITH copied AS (
             INSERT INTO walhook.dead_letters (slot, {event}, endpoint, reason, failure_class,
                    http_status, attempts, died_at, state, resend_rate)
             SELECT slot, {event}, $11, 'sent to this endpoint on an operator''s word, from '
                    || endpoint || ': ' || reason, failure_class, NULL, 0, died_at, 'requested', $12
               FROM (SELECT DISTINCT ON (event_id) * FROM walhook.dead_letters
                      WHERE {MATCHES} AND body IS NOT NULL AND endpoint <> $11
                      ORDER BY event_id, id) AS letters
              ORDER BY id
             ON CONFLICT (slot, endpoint, event_id) DO NOTHING
             RETURNING table_schema, table_name
         ), sums AS (
             SELECT table_schema, table_name, count(*) AS letters FROM copied GROUP BY 1, 2
         ), own AS (
             SELECT table_schema, table_name, filtered FROM walhook.books
              WHERE slot = $1 AND endpoint = $11 FOR UPDATE
         ), common AS (
             SELECT table_schema, table_name, filtered FROM walhook.books_common
              WHERE slot = $1
                AND EXISTS (SELECT FROM walhook.counted WHERE slot = $1 AND endpoint = $11)
         ), shares AS MATERIALIZED (
             SELECT table_schema, table_name, letters,
                    least(letters, greatest(0, coalesce(own.filtered, 0)
                                               + coalesce(common.filtered, 0))) AS spared
               FROM sums LEFT JOIN own USING (table_schema, table_name)
                    LEFT JOIN common USING (table_schema, table_name)
         ), books AS (
             INSERT INTO walhook.books AS b (slot, endpoint, table_schema, table_name, captured,
                                             filtered, dead)
             SELECT $1, $11, table_schema, table_name, letters - spared, -spared, letters FROM shares
             ON CONFLICT (slot, endpoint, table_schema, table_name) DO UPDATE
                SET captured = b.captured + excluded.captured,
                    filtered = b.filtered + excluded.filtered, dead = b.dead + excluded.dead
         )
         SELECT table_schema, table_name, letters, spared FROM shares ORDER BY 1, 2"
    );
    let rows = client.query_typed(&copy, &params.list()).await?;
    let copied = |row: &Row| {
        Ok(CopiedLetters {
            table: stored_event::read_table(row)?,
            letters: unsigned(row, "letters")?,
            spared: unsigned(row, "spared")?,
        })
    };
    rows.iter().map(copied).collect()
}
