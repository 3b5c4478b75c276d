//! `walhook.endpoint_rows`: which endpoint each row of the table of `[endpoints_from]` was.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::store::ownership::StateOwnership;
use crate::store::progress::begin;
use crate::store::progress::guard;
use crate::store::sql::SqlParams;
use crate::store::sql::read;
use crate::store::state_error::StateError;

/// Endpoints' names by the ids of their rows.
pub(crate) type NamesByRow = BTreeMap<Arc<str>, Arc<str>>;

/// What is known of the rows of `source`. What is known of any other is forgotten: ids of another column
/// would be taken for ids of this one. Without a `source`, all of it.
///
/// # Errors
/// [`StateError::Fenced`], or that a statement failed.
pub(crate) async fn load(
    client: &mut Client,
    ownership: &StateOwnership,
    source: Option<&str>,
) -> Result<NamesByRow, StateError> {
    let tx = begin(client).await?;
    guard(&tx, ownership).await?;
    let mut params = SqlParams::default();
    params.put(Type::TEXT, ownership.slot.as_ref());
    params.put(Type::TEXT, source);
    let forget = "DELETE FROM walhook.endpoint_rows
                   WHERE slot = $1 AND source IS DISTINCT FROM $2";
    tx.execute_typed(forget, &params.list()).await?;
    let mut params = SqlParams::default();
    params.put(Type::TEXT, ownership.slot.as_ref());
    let query = "SELECT row_id, endpoint FROM walhook.endpoint_rows WHERE slot = $1";
    let rows = tx.query_typed(query, &params.list()).await?;
    let known = rows.iter().map(|row| {
        let text = |column| read::<&str>(row, column).map(Arc::from);
        Ok((text("row_id")?, text("endpoint")?))
    });
    let known = known.collect::<Result<NamesByRow, StateError>>()?;
    tx.commit().await?;
    Ok(known)
}

/// Writes down which endpoint each row is, and forgets `gone`. A name is one row's.
///
/// # Errors
/// As [`load`].
pub(crate) async fn save(
    client: &mut Client,
    ownership: &StateOwnership,
    source: &str,
    names: &NamesByRow,
    gone: &[Arc<str>],
) -> Result<(), StateError> {
    let tx = begin(client).await?;
    guard(&tx, ownership).await?;
    let ids = || names.keys().map(|id| &**id);
    let endpoints = || names.values().map(|name| &**name);
    let mut params = SqlParams::default();
    params.put(Type::TEXT, ownership.slot.as_ref());
    params.column(Type::TEXT_ARRAY, ids().chain(gone.iter().map(|id| &**id)));
    params.column(Type::TEXT_ARRAY, endpoints());
    let forget = "DELETE FROM walhook.endpoint_rows
                   WHERE slot = $1 AND (row_id = ANY ($2) OR endpoint = ANY ($3))";
    tx.execute_typed(forget, &params.list()).await?;
    let mut params = SqlParams::default();
    params.put(Type::TEXT, ownership.slot.as_ref());
    params.put(Type::TEXT, source);
    params.column(Type::TEXT_ARRAY, ids());
    params.column(Type::TEXT_ARRAY, endpoints());
    let insert = "INSERT INTO walhook.endpoint_rows (slot, source, row_id, endpoint)
                  SELECT $1, $2, row_id, endpoint
                    FROM unnest($3::text[], $4::text[]) AS each (row_id, endpoint)";
    tx.execute_typed(insert, &params.list()).await?;
    Ok(tx.commit().await?)
}
