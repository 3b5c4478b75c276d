//! Endpoints that were made at run time, in `walhook.endpoints`.
//!
//! Few rows, seldom changed. Each change is one statement that also checks that the slot is still
//! ours: a walhook that was replaced meanwhile changes nothing.

use serde_json::Value as Json;
use tokio_postgres::Client;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::flow::time::Timestamp;
use crate::store::sql::SqlParams;
use crate::store::sql::read;
use crate::store::state_error::StateError;

/// One endpoint as it is stored; what `settings` and `sealed` hold is whose who made it.
#[derive(Clone, Debug)]
pub struct StoredEndpoint {
    pub name: String,
    pub settings: Json,
    pub sealed: Option<Vec<u8>>,
    pub enabled: bool,
    /// Filled in by the database.
    pub created_at: Timestamp,
    pub created_by: String,
    pub updated_at: Timestamp,
    pub updated_by: String,
}

pub(super) const COLUMNS: &str = "name, settings, sealed_secrets, enabled, created_at, created_by, \
                       updated_at, updated_by";

/// All endpoints of a slot, by name.
///
/// # Errors
/// That the rows could not be read.
pub(crate) async fn load(client: &Client, slot: &str) -> Result<Vec<StoredEndpoint>, StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    let query = format!("SELECT {COLUMNS} FROM walhook.endpoints WHERE slot = $1 ORDER BY name");
    let rows = client.query_typed(&query, &params.list()).await?;
    rows.iter().map(endpoint).collect()
}

/// As [`load`]; none where there is no state yet.
///
/// # Errors
/// That the rows could not be read.
pub(crate) async fn load_if_any(
    client: &Client,
    slot: &str,
) -> Result<Vec<StoredEndpoint>, StateError> {
    let there = "SELECT to_regclass('walhook.endpoints') IS NOT NULL AS there";
    match read(&client.query_one(there, &[]).await?, "there")? {
        true => load(client, slot).await,
        false => Ok(Vec::new()),
    }
}

/// Writes an endpoint, new or not; returns it with the times that the database gave it.
///
/// # Errors
/// [`StateError::Fenced`], or that the statement failed.
pub(crate) async fn save(
    client: &Client,
    slot: &str,
    epoch: i64,
    endpoint: &StoredEndpoint,
) -> Result<StoredEndpoint, StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    params.put(Type::INT8, epoch);
    params.put(Type::TEXT, endpoint.name.as_str());
    params.put(Type::JSONB, &endpoint.settings);
    params.put(Type::BYTEA, endpoint.sealed.as_deref());
    params.put(Type::BOOL, endpoint.enabled);
    params.put(Type::TEXT, endpoint.updated_by.as_str());
    let query = format!(
        "INSERT INTO walhook.endpoints AS e (slot, name, settings, sealed_secrets, enabled,
                                             created_by, updated_by)
         SELECT slot, $3, $4, $5, $6, $7, $7 FROM walhook.progress
          WHERE slot = $1 AND partition = 0 AND epoch = $2
         ON CONFLICT (slot, name) DO UPDATE
            SET settings = excluded.settings, sealed_secrets = excluded.sealed_secrets,
                enabled = excluded.enabled, updated_at = now(), updated_by = excluded.updated_by
         RETURNING {COLUMNS}"
    );
    let row = client.query_typed_opt(&query, &params.list()).await?;
    row.as_ref().map(self::endpoint).transpose()?.ok_or_else(|| fenced(slot))
}

/// Forgets an endpoint; one that is not there is no error.
///
/// # Errors
/// That the statement failed.
pub(crate) async fn remove(
    client: &Client,
    slot: &str,
    epoch: i64,
    name: &str,
) -> Result<(), StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    params.put(Type::INT8, epoch);
    params.put(Type::TEXT, name);
    let query = "DELETE FROM walhook.endpoints e USING walhook.progress p
                  WHERE e.slot = $1 AND e.name = $3 AND p.slot = e.slot
                    AND p.partition = 0 AND p.epoch = $2";
    client.execute_typed(query, &params.list()).await?;
    Ok(())
}

pub(crate) fn fenced(slot: &str) -> StateError {
    StateError::Fenced { slot: slot.to_owned(), holder: "another walhook".to_owned() }
}

pub(super) fn endpoint(row: &Row) -> Result<StoredEndpoint, StateError> {
    Ok(StoredEndpoint {
        name: read(row, "name")?,
        settings: read(row, "settings")?,
        sealed: read(row, "sealed_secrets")?,
        enabled: read(row, "enabled")?,
        created_at: read(row, "created_at")?,
        created_by: read(row, "created_by")?,
        updated_at: read(row, "updated_at")?,
        updated_by: read(row, "updated_by")?,
    })
}
