//! Endpoints that several members of a source change: a version that each change raises, and what follows from it.
//!
//! ```text
//! member ─ save, pause (raises the version) ─▶ rows ◀─ look (has it been raised?) ─ every member
//!                                               └─ routed ◀─ the tail
//! ```
//!
//! A change that depends on what its member knows names the version that it knows, and is not made where another
//! was quicker. Where nobody shares the source nothing is changed here: then the slot's holder does it alone.

use std::sync::Arc;

use tokio_postgres::Client;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::store::endpoint_states;
use crate::store::endpoint_states::EndpointPause;
use crate::store::endpoint_states::EndpointState;
use crate::store::endpoints;
use crate::store::endpoints::StoredEndpoint;
use crate::store::ownership::StateOwnership;
use crate::store::sql::SqlParams;
use crate::store::sql::read;
use crate::store::state_error::StateError;

/// How far the changes have come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct SharedVersion {
    pub(crate) version: i64,
    /// That of the last change of the table of `[endpoints_from]`.
    pub(crate) of_table: i64,
    /// Of the source: under another one everything is looked at anew.
    pub(crate) epoch: i64,
    /// The version by which the tail chooses who gets an event.
    pub(crate) routed: i64,
    /// Whether an operator wants something of an endpoint at once.
    pub(crate) has_orders: bool,
}

/// What an operator wants of an endpoint at once.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum EndpointOrder {
    /// It takes events again after a 410.
    Enable,
    /// What waits is tried.
    TryNow,
}

/// Why a change is not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SharedChangeError {
    /// Nothing was written: it depended on what is not so any more.
    #[error("other members change endpoints at the same moment: try again")]
    VersionConflict,
    #[error(
        "nobody shares slot {slot} with this member: start `walhook run --role tail`, or ask the walhook that has the slot"
    )]
    NotShared { slot: String },
    #[error(transparent)]
    State(Box<StateError>),
}

impl From<StateError> for SharedChangeError {
    fn from(error: StateError) -> Self {
        Self::State(Box::new(error))
    }
}

impl From<tokio_postgres::Error> for SharedChangeError {
    fn from(error: tokio_postgres::Error) -> Self {
        StateError::from(error).into()
    }
}

impl EndpointOrder {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Enable => "enable",
            Self::TryNow => "try_now",
        }
    }
}

/// How far the changes have come; `None` where nobody shares the source.
///
/// # Errors
/// That the row could not be read.
pub(crate) async fn look(client: &Client, slot: &str) -> Result<Option<SharedVersion>, StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    let query = "SELECT version, of_table, epoch, routed,
                        EXISTS (SELECT FROM walhook.endpoint_orders WHERE slot = $1) AS has_orders
                   FROM walhook.shared_endpoints WHERE slot = $1 AND is_shared";
    let Some(row) = client.query_typed_opt(query, &params.list()).await? else { return Ok(None) };
    Ok(Some(SharedVersion {
        version: read(&row, "version")?,
        of_table: read(&row, "of_table")?,
        epoch: read(&row, "epoch")?,
        routed: read(&row, "routed")?,
        has_orders: read(&row, "has_orders")?,
    }))
}

/// Says whether the slot's holder shares the source. What is known of earlier versions does not count any more.
///
/// # Errors
/// That the statement failed. A walhook that has lost the slot writes nothing.
pub(crate) async fn begin(
    client: &Client,
    source: &StateOwnership,
    is_shared: bool,
) -> Result<(), StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, source.slot.as_ref());
    params.put(Type::INT8, source.epoch);
    params.put(Type::BOOL, is_shared);
    let upsert =
        "INSERT INTO walhook.shared_endpoints AS s (slot, is_shared, epoch, version, routed)
         SELECT slot, true, $2, 1, 0 FROM walhook.progress
          WHERE slot = $1 AND partition = 0 AND epoch = $2 AND $3
         ON CONFLICT (slot) DO UPDATE SET is_shared = true, epoch = $2, version = s.version + 1";
    let end = "UPDATE walhook.shared_endpoints s SET is_shared = false FROM walhook.progress p
          WHERE s.slot = $1 AND NOT $3 AND p.slot = s.slot AND p.partition = 0 AND p.epoch = $2";
    client.execute_typed(if is_shared { upsert } else { end }, &params.list()).await?;
    Ok(())
}

/// The tail has seen the table of `[endpoints_from]` change, and chooses by it: the others have to read
/// it anew. Returns the version that this makes; `None` if the slot is another walhook's.
///
/// # Errors
/// That the statement failed.
pub(crate) async fn table_changed(
    client: &Client,
    source: &StateOwnership,
) -> Result<Option<i64>, StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, source.slot.as_ref());
    params.put(Type::INT8, source.epoch);
    let update = "UPDATE walhook.shared_endpoints SET version = version + 1, of_table = version + 1
                   WHERE slot = $1 AND epoch = $2 RETURNING version";
    let row = client.query_typed_opt(update, &params.list()).await?;
    row.as_ref().map(|row| read(row, "version")).transpose()
}

/// The tail chooses by this version from here on.
///
/// # Errors
/// That the statement failed.
pub(crate) async fn routed(
    client: &Client,
    source: &StateOwnership,
    version: i64,
) -> Result<(), StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, source.slot.as_ref());
    params.put(Type::INT8, source.epoch);
    params.put(Type::INT8, version);
    let update = "UPDATE walhook.shared_endpoints SET routed = $3 WHERE slot = $1 AND epoch = $2";
    client.execute_typed(update, &params.list()).await?;
    Ok(())
}

/// Writes an endpoint, new or not, if nothing has changed since the version `known`. Gives it with the times of the
/// database, and the version that it has made.
///
/// # Errors
/// [`SharedChangeError::VersionConflict`], [`SharedChangeError::NotShared`], or that a statement failed.
pub(crate) async fn save(
    client: &Client,
    (slot, known): (&str, i64),
    endpoint: &StoredEndpoint,
) -> Result<(StoredEndpoint, i64), SharedChangeError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    params.put(Type::INT8, known);
    params.put(Type::TEXT, endpoint.name.as_str());
    params.put(Type::JSONB, &endpoint.settings);
    params.put(Type::BYTEA, endpoint.sealed.as_deref());
    params.put(Type::BOOL, endpoint.enabled);
    params.put(Type::TEXT, endpoint.updated_by.as_str());
    let columns = endpoints::COLUMNS;
    let query = format!(
        "WITH raised AS (
             UPDATE walhook.shared_endpoints SET version = version + 1
              WHERE slot = $1 AND is_shared AND version = $2 RETURNING slot, version
         )
         INSERT INTO walhook.endpoints AS e (slot, name, settings, sealed_secrets, enabled,
                                             created_by, updated_by, version)
         SELECT slot, $3, $4, $5, $6, $7, $7, version FROM raised
         ON CONFLICT (slot, name) DO UPDATE
            SET settings = excluded.settings, sealed_secrets = excluded.sealed_secrets,
                enabled = excluded.enabled, updated_at = now(), updated_by = excluded.updated_by,
                version = excluded.version
         RETURNING {columns}, version"
    );
    match client.query_typed_opt(&query, &params.list()).await? {
        Some(row) => Ok((endpoints::endpoint(&row)?, read(&row, "version")?)),
        None => match look(client, slot).await? {
            Some(_) => Err(SharedChangeError::VersionConflict),
            None => Err(SharedChangeError::NotShared { slot: slot.to_owned() }),
        },
    }
}

/// Pauses an endpoint; one that is paused stays so since when it was.
///
/// # Errors
/// [`SharedChangeError::NotShared`], or that the statement failed.
pub(crate) async fn pause(
    client: &Client,
    slot: &str,
    endpoint: &str,
    by: &str,
) -> Result<EndpointPause, SharedChangeError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    params.put(Type::TEXT, endpoint);
    params.put(Type::TEXT, by);
    let query = "WITH raised AS (
             UPDATE walhook.shared_endpoints SET version = version + 1
              WHERE slot = $1 AND is_shared RETURNING slot, version
         )
         INSERT INTO walhook.endpoint_states AS e (slot, endpoint, paused_at, paused_by, version)
         SELECT slot, $2, now(), $3, version FROM raised
         ON CONFLICT (slot, endpoint) DO UPDATE
            SET paused_at = coalesce(e.paused_at, excluded.paused_at),
                paused_by = CASE WHEN e.paused_at IS NULL THEN excluded.paused_by
                                 ELSE e.paused_by END,
                version = excluded.version
         RETURNING paused_at, paused_by";
    let row = client.query_typed_opt(query, &params.list()).await?;
    let row = row.ok_or_else(|| SharedChangeError::NotShared { slot: slot.to_owned() })?;
    Ok(EndpointPause { since: read(&row, "paused_at")?, by: read(&row, "paused_by")? })
}

/// Ends a pause; one that is not paused is no error.
///
/// # Errors
/// [`SharedChangeError::NotShared`], or that the statement failed.
pub(crate) async fn resume(
    client: &Client,
    slot: &str,
    endpoint: &str,
) -> Result<(), SharedChangeError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    params.put(Type::TEXT, endpoint);
    let query = "WITH raised AS (
             UPDATE walhook.shared_endpoints SET version = version + 1
              WHERE slot = $1 AND is_shared RETURNING slot, version
         ), ended AS (
             UPDATE walhook.endpoint_states e
                SET paused_at = NULL, paused_by = NULL, version = raised.version
               FROM raised WHERE e.slot = raised.slot AND e.endpoint = $2
         )
         SELECT count(*) AS raised FROM raised";
    let row = client.query_typed_one(query, &params.list()).await?;
    is_raised(slot, read(&row, "raised")?)
}

/// Has the owner of the endpoint's partition do something at once.
///
/// # Errors
/// [`SharedChangeError::NotShared`], or that the statement failed.
pub(crate) async fn order(
    client: &Client,
    slot: &str,
    endpoint: &str,
    what: EndpointOrder,
) -> Result<(), SharedChangeError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    params.put(Type::TEXT, endpoint);
    params.put(Type::TEXT, what.as_str());
    let query = "INSERT INTO walhook.endpoint_orders (slot, endpoint, what)
         SELECT slot, $2, $3 FROM walhook.shared_endpoints WHERE slot = $1 AND is_shared
         ON CONFLICT (slot, endpoint, what) DO UPDATE SET ordered_at = clock_timestamp()";
    let written = client.execute_typed(query, &params.list()).await?;
    is_raised(slot, i64::try_from(written).unwrap_or(i64::MAX))
}

/// What is wanted of which endpoints.
///
/// # Errors
/// That the rows could not be read.
pub(crate) async fn orders(
    client: &Client,
    slot: &str,
) -> Result<Vec<(String, EndpointOrder)>, StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    let query = "SELECT endpoint, what FROM walhook.endpoint_orders WHERE slot = $1
                  ORDER BY endpoint, what";
    let rows = client.query_typed(query, &params.list()).await?;
    let order = |row: &Row| {
        let what = match read::<&str>(row, "what")? {
            "enable" => EndpointOrder::Enable,
            _ => EndpointOrder::TryNow, // the table has no others
        };
        Ok((read(row, "endpoint")?, what))
    };
    rows.iter().map(order).collect()
}

/// An order is about to be carried out: nobody else needs to. One that is given meanwhile is another.
///
/// # Errors
/// That the statement failed.
pub(crate) async fn take_order(
    client: &Client,
    slot: &str,
    (endpoint, what): (&str, EndpointOrder),
) -> Result<bool, StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    params.put(Type::TEXT, endpoint);
    params.put(Type::TEXT, what.as_str());
    let delete =
        "DELETE FROM walhook.endpoint_orders WHERE slot = $1 AND endpoint = $2 AND what = $3";
    Ok(client.execute_typed(delete, &params.list()).await? > 0)
}

/// The endpoints that have changed since a version, all of them where it is negative, and those that are `named`.
///
/// # Errors
/// That the rows could not be read.
pub(crate) async fn changed(
    client: &Client,
    (slot, since): (&str, i64),
    named: &[Arc<str>],
) -> Result<Vec<StoredEndpoint>, StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    params.put(Type::INT8, since);
    params.column(Type::TEXT_ARRAY, named.iter().map(|name| &**name));
    let columns = endpoints::COLUMNS;
    let query = format!(
        "SELECT {columns} FROM walhook.endpoints
          WHERE slot = $1 AND (version > $2 OR name = ANY ($3)) ORDER BY name"
    );
    let rows = client.query_typed(&query, &params.list()).await?;
    rows.iter().map(endpoints::endpoint).collect()
}

/// The names of all endpoints that are stored.
///
/// # Errors
/// That the rows could not be read.
pub(crate) async fn names(client: &Client, slot: &str) -> Result<Vec<String>, StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    let query = "SELECT name FROM walhook.endpoints WHERE slot = $1";
    let rows = client.query_typed(query, &params.list()).await?;
    rows.iter().map(|row| read(row, "name")).collect()
}

/// The pauses that have begun or ended since a version.
///
/// # Errors
/// That the rows could not be read.
pub(crate) async fn changed_pauses(
    client: &Client,
    (slot, since): (&str, i64),
) -> Result<Vec<EndpointState>, StateError> {
    endpoint_states::load_since(client, slot, since).await
}

/// The owner of a partition forgets an endpoint that is no more; `is_stored`: it was made over the API, and removed.
/// Where one of its name was made again, that one's pause and what is wanted of it stay.
///
/// # Errors
/// That the statement failed. An owner that has lost the partition removes nothing.
pub(crate) async fn remove(
    client: &Client,
    ownership: &StateOwnership,
    (endpoint, is_stored): (&str, bool),
) -> Result<(), StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, ownership.slot.as_ref());
    params.put(Type::INT4, ownership.partition.raw());
    params.put(Type::INT8, ownership.epoch);
    params.put(Type::TEXT, endpoint);
    params.put(Type::BOOL, is_stored);
    let query = "WITH raised AS (
             UPDATE walhook.shared_endpoints s SET version = s.version + 1
               FROM walhook.progress p
              WHERE s.slot = $1 AND p.slot = s.slot AND p.partition = $2 AND p.epoch = $3
          RETURNING s.slot
         ), again AS (
             SELECT FROM walhook.endpoints e
              WHERE e.slot = $1 AND e.name = $4
                AND NOT coalesce((e.settings ->> 'is_leaving')::boolean, false)
         ), gone AS (
             DELETE FROM walhook.endpoints e USING raised
              WHERE $5 AND e.slot = raised.slot AND e.name = $4
                AND coalesce((e.settings ->> 'is_leaving')::boolean, false)
         ), ordered AS (
             DELETE FROM walhook.endpoint_orders o USING raised
              WHERE o.slot = raised.slot AND o.endpoint = $4 AND NOT EXISTS (SELECT FROM again)
         )
         DELETE FROM walhook.endpoint_states e USING raised
          WHERE e.slot = raised.slot AND e.endpoint = $4 AND NOT EXISTS (SELECT FROM again)";
    client.execute_typed(query, &params.list()).await?;
    Ok(())
}

fn is_raised(slot: &str, rows: i64) -> Result<(), SharedChangeError> {
    match rows {
        0 => Err(SharedChangeError::NotShared { slot: slot.to_owned() }),
        _ => Ok(()),
    }
}
