//! What is known of endpoints beside their settings, wherever they were made: whether an operator
//! has paused them, and where they pointed.
//!
//! A pause outlives restarts and goes over to the walhook that takes the slot.

use std::sync::Arc;

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::flow::partition::PartitionNumber;
use crate::flow::time::Timestamp;
use crate::store::endpoints::fenced;
use crate::store::sql::SqlParams;
use crate::store::sql::read;
use crate::store::state_error::StateError;

/// Since when and by whom an endpoint is paused.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct EndpointPause {
    pub since: Timestamp,
    pub by: String,
}

/// What is known of one endpoint.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct EndpointState {
    pub endpoint: Arc<str>,
    pub pause: Option<EndpointPause>,
    /// A fingerprint of where its requests went, and of how they were signed.
    pub target: Option<i32>,
}

/// All that is known of a slot's endpoints.
///
/// # Errors
/// That the rows could not be read.
pub(crate) async fn load(client: &Client, slot: &str) -> Result<Vec<EndpointState>, StateError> {
    load_since(client, slot, -1).await
}

/// What has changed since a version of the endpoints.
pub(super) async fn load_since(
    client: &Client,
    slot: &str,
    since: i64,
) -> Result<Vec<EndpointState>, StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    params.put(Type::INT8, since);
    let query = "SELECT endpoint, paused_at, paused_by, target FROM walhook.endpoint_states
                  WHERE slot = $1 AND version > $2";
    let rows = client.query_typed(query, &params.list()).await?;
    rows.iter()
        .map(|row| {
            let since: Option<Timestamp> = read(row, "paused_at")?;
            let by: Option<String> = read(row, "paused_by")?;
            let pause = since.map(|since| EndpointPause { since, by: by.unwrap_or_default() });
            let endpoint = read::<&str>(row, "endpoint")?.into();
            Ok(EndpointState { endpoint, pause, target: read(row, "target")? })
        })
        .collect()
}

/// Pauses an endpoint; one that is paused stays so since when it was.
///
/// # Errors
/// [`StateError::Fenced`], or that the statement failed.
pub(crate) async fn pause(
    client: &Client,
    slot: &str,
    epoch: i64,
    endpoint: &str,
    by: &str,
) -> Result<EndpointPause, StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    params.put(Type::INT8, epoch);
    params.put(Type::TEXT, endpoint);
    params.put(Type::TEXT, by);
    let query = "INSERT INTO walhook.endpoint_states AS e (slot, endpoint, paused_at, paused_by)
         SELECT slot, $3, now(), $4 FROM walhook.progress
          WHERE slot = $1 AND partition = 0 AND epoch = $2
         ON CONFLICT (slot, endpoint) DO UPDATE
            SET paused_at = coalesce(e.paused_at, excluded.paused_at),
                paused_by = CASE WHEN e.paused_at IS NULL THEN excluded.paused_by
                                 ELSE e.paused_by END
         RETURNING paused_at, paused_by";
    let row = client.query_typed_opt(query, &params.list()).await?;
    let row = row.ok_or_else(|| fenced(slot))?;
    Ok(EndpointPause { since: read(&row, "paused_at")?, by: read(&row, "paused_by")? })
}

/// Ends a pause; one that is not paused is no error.
///
/// # Errors
/// [`StateError::Fenced`], or that the statement failed.
pub(crate) async fn resume(
    client: &Client,
    slot: &str,
    epoch: i64,
    endpoint: &str,
) -> Result<(), StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    params.put(Type::INT8, epoch);
    params.put(Type::TEXT, endpoint);
    let query = "WITH ours AS (
             SELECT slot FROM walhook.progress WHERE slot = $1 AND partition = 0 AND epoch = $2
         ), ended AS (
             UPDATE walhook.endpoint_states e SET paused_at = NULL, paused_by = NULL
               FROM ours WHERE e.slot = ours.slot AND e.endpoint = $3
         )
         SELECT count(*) AS ours FROM ours";
    let row = client.query_typed(query, &params.list()).await?;
    let ours: i64 = row.first().map_or(Ok(0), |row| read(row, "ours"))?;
    if ours == 0 { Err(fenced(slot)) } else { Ok(()) }
}

/// Remembers where endpoints point, all of them in one statement.
///
/// # Errors
/// That the statement failed. A walhook that has lost the slot or the partition writes nothing.
pub(crate) async fn remember_targets(
    client: &Client,
    slot: &str,
    (partition, epoch): (PartitionNumber, i64),
    targets: &[(Arc<str>, i32)],
) -> Result<(), StateError> {
    if targets.is_empty() {
        return Ok(());
    }
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    params.put(Type::INT8, epoch);
    params.column(Type::TEXT_ARRAY, targets.iter().map(|(name, _)| &**name));
    params.column(Type::INT4_ARRAY, targets.iter().map(|(_, target)| *target));
    params.put(Type::INT4, partition.raw());
    let query = "INSERT INTO walhook.endpoint_states (slot, endpoint, target)
         SELECT p.slot, t.endpoint, t.target
           FROM walhook.progress p, unnest($3::text[], $4::int[]) AS t (endpoint, target)
          WHERE p.slot = $1 AND p.partition = $5 AND p.epoch = $2
         ON CONFLICT (slot, endpoint) DO UPDATE SET target = excluded.target";
    client.execute_typed(query, &params.list()).await?;
    Ok(())
}

/// Forgets endpoints that are no more.
///
/// # Errors
/// That the statement failed.
pub(crate) async fn forget(
    client: &Client,
    slot: &str,
    epoch: i64,
    endpoint: &str,
) -> Result<(), StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    params.put(Type::INT8, epoch);
    params.put(Type::TEXT, endpoint);
    let query = "DELETE FROM walhook.endpoint_states e USING walhook.progress p
                  WHERE e.slot = $1 AND e.endpoint = $3 AND p.slot = e.slot
                    AND p.partition = 0 AND p.epoch = $2";
    client.execute_typed(query, &params.list()).await?;
    Ok(())
}
