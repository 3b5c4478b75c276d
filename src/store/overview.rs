//! What the state says of endpoints that are not well, and of what was given up: for the status.

use std::sync::Arc;

use tokio_postgres::Client;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::flow::time::Timestamp;
use crate::store::sql::SqlParams;
use crate::store::sql::read;
use crate::store::sql::unsigned;
use crate::store::state_error::StateError;

/// What waits in the backlog of one endpoint. Each value is found by an index, however much there is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct WaitingCounts {
    pub endpoint: Arc<str>,
    /// When the first of it was parked.
    pub since: Option<Timestamp>,
    /// When its oldest event was committed.
    pub oldest: Option<Timestamp>,
    pub next_attempt: Option<Timestamp>,
    /// What came of the oldest event's last attempt.
    pub failure: Option<String>,
}

/// What waits for these endpoints; those without a backlog are left out.
///
/// # Errors
/// That the rows could not be read.
pub(crate) async fn waiting(
    client: &Client,
    slot: &str,
    endpoints: &[&str],
) -> Result<Vec<WaitingCounts>, StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    params.column(Type::TEXT_ARRAY, endpoints.iter().copied());
    let rows = client
        .query_typed(
            "SELECT e.name AS endpoint, first.committed,
                    concat_ws(': ', first.failure_class, first.failure_detail) AS failure,
                    (SELECT min(b.parked_at) FROM walhook.backlog b
                      WHERE b.slot = $1 AND b.endpoint = e.name) AS since,
                    (SELECT min(b.next_attempt_at) FROM walhook.backlog b
                      WHERE b.slot = $1 AND b.endpoint = e.name
                        AND b.next_attempt_at IS NOT NULL) AS next_attempt
               FROM unnest($2::text[]) AS e (name)
              CROSS JOIN LATERAL (
                    SELECT b.committed, b.failure_class, b.failure_detail
                      FROM walhook.backlog b
                     WHERE b.slot = $1 AND b.endpoint = e.name
                     ORDER BY b.commit_lsn, b.ordinal, b.id LIMIT 1) first",
            &params.list(),
        )
        .await?;
    let waiting = |row: &Row| {
        let failure = read::<&str>(row, "failure")?;
        Ok(WaitingCounts {
            endpoint: read::<&str>(row, "endpoint")?.into(),
            since: read(row, "since")?,
            oldest: read(row, "committed")?,
            next_attempt: read(row, "next_attempt")?,
            failure: (!failure.is_empty()).then(|| failure.to_owned()),
        })
    };
    rows.iter().map(waiting).collect()
}

/// Dead letters that nobody has dealt with, by endpoint and class, the most first.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct LetterCounts {
    pub endpoint: Arc<str>,
    pub class: String,
    pub letters: u64,
}

/// All of them, in groups.
///
/// # Errors
/// That the rows could not be counted.
pub(crate) async fn letters(client: &Client, slot: &str) -> Result<Vec<LetterCounts>, StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    let rows = client
        .query_typed(
            "SELECT endpoint, failure_class, count(*) AS letters FROM walhook.dead_letters
              WHERE slot = $1 AND state IN ('dead', 'requested', 'resending')
              GROUP BY endpoint, failure_class ORDER BY count(*) DESC, endpoint, failure_class
              LIMIT 1000",
            &params.list(),
        )
        .await?;
    let letters = |row: &Row| {
        Ok(LetterCounts {
            endpoint: read::<&str>(row, "endpoint")?.into(),
            class: read::<&str>(row, "failure_class")?.to_owned(),
            letters: unsigned(row, "letters")?,
        })
    };
    rows.iter().map(letters).collect()
}
