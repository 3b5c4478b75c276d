//! The lineage of positions: system identifier and timeline of the server that they are of.

use tokio_postgres::Client;
use tokio_postgres::Transaction;
use tokio_postgres::types::Type;

use crate::flow::backfill::FIRST_READ_ID;
use crate::flow::lsn::Lsn;
use crate::store::ownership::StateOwnership;
use crate::store::progress::ServerLineage;
use crate::store::progress::begin;
use crate::store::progress::guard;
use crate::store::sql::SqlParams;
use crate::store::state_error::StateError;

/// Notes which stream the positions belong to, before the first change of it is read.
///
/// # Errors
/// [`StateError::Fenced`], or that a statement failed.
pub async fn set_lineage(
    client: &mut Client,
    ownership: &StateOwnership,
    lineage: &ServerLineage,
) -> Result<(), StateError> {
    let tx = begin(client).await?;
    guard(&tx, ownership).await?;
    write_lineage(&tx, ownership, lineage, "").await?;
    tx.commit().await?;
    Ok(())
}

/// Notes that the stream goes on on another timeline, if the slot is still that of `epoch`.
///
/// # Errors
/// That the statement failed.
pub(crate) async fn follow(
    client: &Client,
    slot: &str,
    epoch: i64,
    timeline: u32,
) -> Result<(), StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    params.put(Type::INT8, epoch);
    params.put(Type::INT4, timeline.cast_signed());
    let update = "UPDATE walhook.progress SET timeline = $3
                   WHERE slot = $1 AND partition = 0 AND epoch = $2";
    client.execute_typed(update, &params.list()).await?;
    Ok(())
}

/// At the first start, or to accept a gap: forgets what was settled, so that the positions of
/// another stream count from `confirmed` on. Backlog, dead letters and books stay.
///
/// # Errors
/// [`StateError::Fenced`], or that a statement failed.
pub async fn begin_anew(
    client: &mut Client,
    ownership: &StateOwnership,
    lineage: &ServerLineage,
    confirmed: Option<Lsn>,
) -> Result<(), StateError> {
    let tx = begin(client).await?;
    guard(&tx, ownership).await?;
    forget(&tx, ownership, lineage, confirmed).await?;
    tx.commit().await?;
    Ok(())
}

/// What [`begin_anew`] does, in a transaction that is the holder's.
pub(crate) async fn forget(
    tx: &Transaction<'_>,
    ownership: &StateOwnership,
    lineage: &ServerLineage,
    confirmed: Option<Lsn>,
) -> Result<(), StateError> {
    let forgotten = ", settled_lsn = NULL, settled_ordinal = NULL, confirmed_lsn = NULL, \
                     confirmed_at = NULL";
    write_lineage(tx, ownership, lineage, forgotten).await?;
    let mut params = SqlParams::default();
    params.put(Type::TEXT, ownership.slot.as_ref());
    params.put(Type::PG_LSN, confirmed);
    params.put(Type::INT4, ownership.partition.raw());
    let begin = "UPDATE walhook.progress SET confirmed_lsn = $2 WHERE slot = $1 AND partition = $3";
    tx.execute_typed(begin, &params.list()).await?;
    let mut params = SqlParams::default();
    params.put(Type::TEXT, ownership.slot.as_ref());
    // What a backfill has read belongs to no stream.
    let partitions = "WITH locked AS (
            SELECT partition FROM walhook.progress WHERE slot = $1 AND partition > 0
             ORDER BY partition FOR NO KEY UPDATE)
         UPDATE walhook.progress p
            SET settled_lsn = NULL, settled_ordinal = NULL, at_source = true
           FROM locked WHERE p.slot = $1 AND p.partition = locked.partition";
    tx.execute_typed(partitions, &params.list()).await?;
    for table in ["settled_ahead", "fronts"] {
        let delete = match table {
            "settled_ahead" => format!(
                "DELETE FROM walhook.settled_ahead WHERE slot = $1 AND event_id < '{FIRST_READ_ID}'"
            ),
            _ => format!("DELETE FROM walhook.{table} WHERE slot = $1"),
        };
        tx.execute_typed(&delete, &params.list()).await?;
    }
    Ok(())
}

async fn write_lineage(
    tx: &Transaction<'_>,
    ownership: &StateOwnership,
    lineage: &ServerLineage,
    also: &str,
) -> Result<(), StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, ownership.slot.as_ref());
    params.put(Type::INT8, lineage.system.cast_signed());
    params.put(Type::INT4, lineage.timeline.cast_signed());
    params.put(Type::OID_ARRAY, lineage.publications.as_slice());
    params.put(Type::INT4, ownership.partition.raw());
    let update = format!(
        "UPDATE walhook.progress
            SET system_identifier = $2, timeline = $3, publication_oids = $4, updated_at = now()
                {also}
          WHERE slot = $1 AND partition = $5"
    );
    tx.execute_typed(&update, &params.list()).await?;
    Ok(())
}
