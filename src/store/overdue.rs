//! What may not stay in the backlog: rows beyond an endpoint's limits, and events past their expiry.
//!
//! Each call is one transaction: the rows leave the backlog, arrive where they belong, and are
//! booked, or nothing of it happens.

use std::collections::HashMap;
use std::sync::Arc;

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::flow::relation::TableName;
use crate::flow::time::Timestamp;
use crate::store::backlog::BacklogId;
use crate::store::progress::Holding;
use crate::store::progress::begin;
use crate::store::progress::guard;
use crate::store::sql::Params;
use crate::store::sql::bigint;
use crate::store::sql::read;
use crate::store::sql::unsigned;
use crate::store::state_error::StateError;
use crate::store::stored_event;

/// Which rows are too many.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Overdue {
    /// All but this many; the first in order go.
    Rows(u64),
    /// Those parked before this time.
    ParkedBefore(Timestamp),
}

/// Rows that left the backlog by one statement. The books were brought up to date with them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Moved {
    pub endpoint: Arc<str>,
    pub table: TableName,
    pub rows: u64,
    /// How many of them the books count: all but replays of events that were settled before.
    pub booked: u64,
}

/// The dead letters' columns, from a row that was just taken out of the backlog; `$6` is the
/// reason, `$7` its class and `$8` the time.
const BURY: &str = "INSERT INTO walhook.dead_letters AS d
        (slot, endpoint, event_id, commit_lsn, ordinal, event_type, table_schema, table_name,
         row_key, first_key, second_key, committed, born, expires_at, facts, body, reason,
         failure_class, http_status, attempts, first_attempt_at, last_attempt_at, died_at)
     SELECT DISTINCT ON (event_id)
         slot, endpoint, event_id, commit_lsn, ordinal, event_type, table_schema, table_name,
         row_key, first_key, second_key, committed, born, expires_at, facts, body,
         $6 || coalesce(', last ' || failure_class || ': ' || failure_detail, ''),
         $7, http_status, attempts, first_attempt_at, last_attempt_at, $8
       FROM gone ORDER BY event_id, replay
     ON CONFLICT (slot, endpoint, event_id) DO UPDATE
        SET reason = excluded.reason, failure_class = excluded.failure_class,
            http_status = excluded.http_status, attempts = d.attempts + excluded.attempts,
            last_attempt_at = coalesce(excluded.last_attempt_at, d.last_attempt_at),
            died_at = excluded.died_at, state = 'dead', closed_at = NULL";

/// Moves rows of an endpoint that are too many or too old to the dead letters, with that reason, and
/// books them: all in one transaction. Takes the first in order, at most `limit` of them; call it
/// again while it moves that many. `in_memory` are rows that a lane has, which are left alone.
///
/// After an error whose outcome is unknown, load the books anew.
///
/// # Errors
/// [`StateError::Fenced`], or that a statement failed.
pub async fn bury_overdue(
    client: &mut Client,
    holding: &Holding,
    endpoint: &str,
    overdue: Overdue,
    in_memory: &[BacklogId],
    limit: u32,
    now: Timestamp,
) -> Result<Vec<Moved>, StateError> {
    let mut params = Params::default();
    params.put(Type::TEXT, holding.slot.as_ref());
    params.put(Type::TEXT, endpoint);
    params.column(Type::INT8_ARRAY, in_memory.iter().map(|id| id.0));
    params.put(Type::INT8, i64::from(limit));
    let (overdue, limit, reason, class) = match overdue {
        Overdue::Rows(max) => {
            params.put(Type::INT8, bigint(max));
            let excess = "least($4, greatest(0, (SELECT count(*) FROM walhook.backlog \
                          WHERE slot = $1 AND endpoint = $2) - $5))";
            let reason = format!("the backlog of the endpoint is limited to {max} rows");
            ("", excess, reason, "backlog_rows")
        }
        Overdue::ParkedBefore(time) => {
            params.put(Type::TIMESTAMPTZ, time);
            let reason = "it waited in the backlog for longer than the endpoint's limit".to_owned();
            ("AND parked_at < $5", "$4", reason, "backlog_age")
        }
    };
    params.put(Type::TEXT, reason);
    params.put(Type::TEXT, class);
    params.put(Type::TIMESTAMPTZ, now);
    let statement = format!(
        "WITH chosen AS MATERIALIZED (
             SELECT id FROM walhook.backlog
              WHERE slot = $1 AND endpoint = $2 AND id <> ALL ($3) {overdue}
              ORDER BY commit_lsn, ordinal, id LIMIT {limit}
         ), gone AS (
             DELETE FROM walhook.backlog b USING chosen c WHERE b.id = c.id RETURNING b.*
         ), buried AS ({BURY})
         {}",
        booked("dead")
    );
    move_rows(client, holding, &statement, &params).await
}

/// Takes rows out of the backlog that are too old to be sent, and books them as expired, in one
/// transaction; a dead letter that was being sent again is closed as expired. At most `limit` rows;
/// call it again while it moves that many. `now` is on the source database's clock. `in_memory` are
/// rows that a lane has, which are left alone.
///
/// After an error whose outcome is unknown, load the books anew.
///
/// # Errors
/// [`StateError::Fenced`], or that a statement failed.
pub async fn drop_expired(
    client: &mut Client,
    holding: &Holding,
    in_memory: &[BacklogId],
    limit: u32,
    now: Timestamp,
) -> Result<Vec<Moved>, StateError> {
    let mut params = Params::default();
    params.put(Type::TEXT, holding.slot.as_ref());
    params.put(Type::TIMESTAMPTZ, now);
    params.column(Type::INT8_ARRAY, in_memory.iter().map(|id| id.0));
    params.put(Type::INT8, i64::from(limit));
    let statement = format!(
        "WITH chosen AS MATERIALIZED (
             SELECT id FROM walhook.backlog
              WHERE slot = $1 AND expires_at < $2 AND id <> ALL ($3)
              ORDER BY expires_at LIMIT $4
         ), gone AS (
             DELETE FROM walhook.backlog b USING chosen c WHERE b.id = c.id RETURNING b.*
         ), closed AS (
             UPDATE walhook.dead_letters d
                SET state = 'expired', closed_at = $2
               FROM gone WHERE d.id = gone.resend_of AND d.state = 'resending'
         )
         {}",
        booked("expired")
    );
    move_rows(client, holding, &statement, &params).await
}

/// The rest of a statement that has rows of the backlog in `gone`: books them, and says how many
/// they were. A replay of an event that was settled before is in no book.
fn booked(column: &str) -> String {
    format!(
        ", counted AS (
             SELECT endpoint, table_schema, table_name, count(*) AS rows,
                    count(*) FILTER (WHERE NOT replay OR resend_of IS NOT NULL) AS booked
               FROM gone GROUP BY endpoint, table_schema, table_name
         ), books AS (
             INSERT INTO walhook.books AS b (slot, endpoint, table_schema, table_name, {column})
             SELECT $1, endpoint, table_schema, table_name, booked FROM counted WHERE booked > 0
             ON CONFLICT (slot, endpoint, table_schema, table_name)
                DO UPDATE SET {column} = b.{column} + excluded.{column}
         )
         SELECT * FROM counted ORDER BY endpoint, table_schema, table_name"
    )
}

async fn move_rows(
    client: &mut Client,
    holding: &Holding,
    statement: &str,
    params: &Params<'_>,
) -> Result<Vec<Moved>, StateError> {
    let tx = begin(client).await?;
    guard(&tx, holding).await?;
    let rows = tx.query_typed(statement, &params.list()).await?;
    tx.commit().await?;
    let mut names: HashMap<&str, Arc<str>> = HashMap::new();
    let mut moved = Vec::with_capacity(rows.len());
    for row in &rows {
        let name: &str = read(row, "endpoint")?;
        moved.push(Moved {
            endpoint: Arc::clone(names.entry(name).or_insert_with(|| name.into())),
            table: stored_event::read_table(row)?,
            rows: unsigned(row, "rows")?,
            booked: unsigned(row, "booked")?,
        });
    }
    Ok(moved)
}
