//! Sizes of the backlog by endpoint: rows, bytes, the oldest.

use std::sync::Arc;

use tokio_postgres::Client;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::flow::lsn::Position;
use crate::flow::time::Timestamp;
use crate::store::sql::SqlParams;
use crate::store::sql::read;
use crate::store::sql::unsigned;
use crate::store::state_error::StateError;

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
