//! Another name for an endpoint: all that the state holds of it goes along.
//!
//! Where something is kept of an earlier endpoint of the new name, both are put together: books are
//! added up, and of two rows for the same event the new name's stays. The push log is left as it is:
//! it says what happened under the name of that time.

use std::sync::Arc;

use tokio_postgres::Client;
use tokio_postgres::Transaction;
use tokio_postgres::types::Type;

use crate::store::endpoints::StoredEndpoint;
use crate::store::ownership::StateOwnership;
use crate::store::progress::begin;
use crate::store::progress::guard;
use crate::store::sql::SqlParams;
use crate::store::sql::read;
use crate::store::state_error::StateError;

/// From which name to which.
#[derive(Clone, Debug)]
pub struct EndpointRename {
    pub from: Arc<str>,
    pub to: Arc<str>,
    /// Who asked for it.
    pub by: String,
    /// Its row, if it was made at run time: secrets are sealed for a name.
    pub row: Option<Box<StoredEndpoint>>,
}

/// What may stand in the way of a rename while walhook runs.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct RenameObstacles {
    /// What is parked or dead under the new name.
    pub taken: i64,
    /// Dead letters of the endpoint that are being sent again.
    pub resending: i64,
    /// Replays of the endpoint that run, or are held back.
    pub replays: i64,
    /// Rows that would get the new name.
    pub rows: i64,
}

/// Before a row of the old name is given the new one, what the new one has of the same event. Each
/// statement has the slot as $1, the old name as $2 and the new one as $3.
const CARRY_OVER: [&str; 17] = [
    "UPDATE walhook.books b SET captured = b.captured - twice.rows
       FROM (SELECT o.table_schema, o.table_name, count(*) AS rows
               FROM walhook.backlog o JOIN walhook.backlog n
                 ON n.slot = o.slot AND n.endpoint = $3 AND n.event_id = o.event_id
                AND n.replay = o.replay
              WHERE o.slot = $1 AND o.endpoint = $2 GROUP BY 1, 2) AS twice
      WHERE b.slot = $1 AND b.endpoint = $2 AND b.table_schema = twice.table_schema
        AND b.table_name = twice.table_name",
    "DELETE FROM walhook.backlog o USING walhook.backlog n
      WHERE o.slot = $1 AND o.endpoint = $2 AND n.slot = o.slot AND n.endpoint = $3
        AND n.event_id = o.event_id AND n.replay = o.replay",
    "UPDATE walhook.backlog SET endpoint = $3 WHERE slot = $1 AND endpoint = $2",
    "DELETE FROM walhook.dead_letters o USING walhook.dead_letters n
      WHERE o.slot = $1 AND o.endpoint = $2 AND n.slot = o.slot AND n.endpoint = $3
        AND n.event_id = o.event_id",
    "UPDATE walhook.dead_letters SET endpoint = $3 WHERE slot = $1 AND endpoint = $2",
    "WITH gone AS (DELETE FROM walhook.settled_ahead WHERE slot = $1 AND endpoint = $2
                   RETURNING event_id, partition)
     INSERT INTO walhook.settled_ahead (slot, event_id, endpoint, partition)
     SELECT $1, event_id, $3, partition FROM gone ON CONFLICT DO NOTHING",
    "WITH gone AS (DELETE FROM walhook.fronts WHERE slot = $1 AND endpoint = $2
                   RETURNING before_lsn, before_ordinal)
     INSERT INTO walhook.fronts (slot, endpoint, before_lsn, before_ordinal)
     SELECT $1, $3, before_lsn, before_ordinal FROM gone ON CONFLICT DO NOTHING",
    "WITH gone AS (DELETE FROM walhook.books WHERE slot = $1 AND endpoint = $2 RETURNING *)
     INSERT INTO walhook.books AS b (slot, endpoint, table_schema, table_name, captured, delivered,
                                     filtered, expired, dead)
     SELECT slot, $3, table_schema, table_name, captured, delivered, filtered, expired, dead
       FROM gone
     ON CONFLICT (slot, endpoint, table_schema, table_name) DO UPDATE
        SET captured = b.captured + excluded.captured,
            delivered = b.delivered + excluded.delivered,
            filtered = b.filtered + excluded.filtered,
            expired = b.expired + excluded.expired, dead = b.dead + excluded.dead",
    // The common lines count once for a name: those of the old one become its own where both have them.
    "INSERT INTO walhook.books AS b (slot, endpoint, table_schema, table_name, captured, filtered)
     SELECT c.slot, $3, c.table_schema, c.table_name, c.captured, c.filtered
       FROM walhook.books_common c
      WHERE c.slot = $1
        AND EXISTS (SELECT FROM walhook.counted WHERE slot = $1 AND endpoint = $2)
        AND EXISTS (SELECT FROM walhook.counted WHERE slot = $1 AND endpoint = $3)
     ON CONFLICT (slot, endpoint, table_schema, table_name) DO UPDATE
        SET captured = b.captured + excluded.captured, filtered = b.filtered + excluded.filtered",
    "WITH gone AS (DELETE FROM walhook.counted WHERE slot = $1 AND endpoint = $2 RETURNING slot)
     INSERT INTO walhook.counted (slot, endpoint) SELECT slot, $3 FROM gone ON CONFLICT DO NOTHING",
    "UPDATE walhook.replays SET endpoint = $3 WHERE slot = $1 AND endpoint = $2",
    "UPDATE walhook.backfills SET endpoints = array_replace(endpoints, $2::text, $3::text)
      WHERE slot = $1 AND endpoints @> ARRAY[$2::text]",
    // A pause stays; where it points is looked at anew.
    "INSERT INTO walhook.endpoint_states AS e (slot, endpoint, paused_at, paused_by, target)
     SELECT slot, $3, paused_at, paused_by, target FROM walhook.endpoint_states
      WHERE slot = $1 AND endpoint = $2
     ON CONFLICT (slot, endpoint) DO UPDATE
        SET paused_at = coalesce(e.paused_at, excluded.paused_at),
            paused_by = coalesce(e.paused_by, excluded.paused_by)",
    "DELETE FROM walhook.endpoint_states WHERE slot = $1 AND endpoint = $2",
    "DELETE FROM walhook.endpoint_rows WHERE slot = $1 AND endpoint = $3",
    "UPDATE walhook.endpoint_rows SET endpoint = $3 WHERE slot = $1 AND endpoint = $2",
    // There and back again: each of both is to be carried out the next time.
    "DELETE FROM walhook.renames WHERE slot = $1 AND old_name = $3 AND new_name = $2",
];

/// Gives all that the state holds of an endpoint another name.
///
/// # Errors
/// That a statement failed.
pub(crate) async fn carry_over(
    tx: &Transaction<'_>,
    ownership: &StateOwnership,
    rename: &EndpointRename,
) -> Result<(), StateError> {
    // These may read whole tables, which what came before in a flush may not.
    tx.batch_execute("SET LOCAL enable_seqscan = on").await?;
    for statement in CARRY_OVER {
        let mut params = SqlParams::default();
        params.put(Type::TEXT, ownership.slot.as_ref());
        params.put(Type::TEXT, &*rename.from);
        params.put(Type::TEXT, &*rename.to);
        tx.execute_typed(statement, &params.list()).await?;
    }
    if let Some(row) = &rename.row {
        let mut params = SqlParams::default();
        params.put(Type::TEXT, ownership.slot.as_ref());
        params.put(Type::TEXT, &*rename.from);
        params.put(Type::TEXT, &*rename.to);
        params.put(Type::JSONB, &row.settings);
        params.put(Type::BYTEA, row.sealed.as_deref());
        params.put(Type::TEXT, row.updated_by.as_str());
        let update = "UPDATE walhook.endpoints
                SET name = $3, settings = $4, sealed_secrets = $5, updated_at = now(),
                    updated_by = $6
              WHERE slot = $1 AND name = $2";
        tx.execute_typed(update, &params.list()).await?;
    }
    let mut params = SqlParams::default();
    params.put(Type::TEXT, ownership.slot.as_ref());
    params.put(Type::TEXT, &*rename.from);
    params.put(Type::TEXT, &*rename.to);
    params.put(Type::TEXT, rename.by.as_str());
    let note = "INSERT INTO walhook.renames (slot, old_name, new_name, renamed_by)
         VALUES ($1, $2, $3, $4)
         ON CONFLICT (slot, old_name, new_name) DO UPDATE
            SET renamed_at = now(), renamed_by = excluded.renamed_by";
    tx.execute_typed(note, &params.list()).await?;
    Ok(())
}

/// Whether the file may give the endpoint this name still: that was not done before, and the old name is no API's.
///
/// # Errors
/// That it could not be looked up.
pub(crate) async fn is_open(
    client: &Client,
    slot: &str,
    rename: &EndpointRename,
) -> Result<bool, StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    params.put(Type::TEXT, &*rename.from);
    params.put(Type::TEXT, &*rename.to);
    let query = "SELECT NOT EXISTS (SELECT FROM walhook.renames
                                     WHERE slot = $1 AND old_name = $2 AND new_name = $3)
            AND NOT EXISTS (SELECT FROM walhook.endpoints WHERE slot = $1 AND name = $2) AS is_open";
    let rows = client.query_typed(query, &params.list()).await?;
    rows.first().map_or(Ok(false), |row| read(row, "is_open"))
}

/// Carries out a rename before anything moves, unless it was carried out before. Gives whether
/// anything is known of the old name.
///
/// # Errors
/// [`StateError::Fenced`], or that a statement failed.
pub(crate) async fn at_start(
    client: &mut Client,
    ownership: &StateOwnership,
    rename: &EndpointRename,
) -> Result<bool, StateError> {
    let tx = begin(client).await?;
    guard(&tx, ownership).await?;
    let mut params = SqlParams::default();
    params.put(Type::TEXT, ownership.slot.as_ref());
    params.put(Type::TEXT, &*rename.from);
    params.put(Type::TEXT, &*rename.to);
    let query = "SELECT NOT EXISTS (SELECT FROM walhook.renames
                                     WHERE slot = $1 AND old_name = $2 AND new_name = $3)
            AND NOT EXISTS (SELECT FROM walhook.endpoints WHERE slot = $1 AND name = $2)
            AND (EXISTS (SELECT FROM walhook.backlog WHERE slot = $1 AND endpoint = $2)
              OR EXISTS (SELECT FROM walhook.dead_letters WHERE slot = $1 AND endpoint = $2)
              OR EXISTS (SELECT FROM walhook.books WHERE slot = $1 AND endpoint = $2)
              OR EXISTS (SELECT FROM walhook.counted WHERE slot = $1 AND endpoint = $2)
              OR EXISTS (SELECT FROM walhook.fronts WHERE slot = $1 AND endpoint = $2)
              OR EXISTS (SELECT FROM walhook.settled_ahead WHERE slot = $1 AND endpoint = $2)
              OR EXISTS (SELECT FROM walhook.endpoint_states WHERE slot = $1 AND endpoint = $2))
            AS is_due";
    let rows = tx.query_typed(query, &params.list()).await?;
    let is_due = rows.first().map_or(Ok(false), |row| read(row, "is_due"))?;
    if is_due {
        carry_over(&tx, ownership, rename).await?;
    }
    tx.commit().await?;
    Ok(is_due)
}

/// Carries out a rename before anything moves, whether or not it was carried out before.
///
/// # Errors
/// As [`at_start`].
pub(crate) async fn carry_out(
    client: &mut Client,
    ownership: &StateOwnership,
    rename: &EndpointRename,
) -> Result<(), StateError> {
    let tx = begin(client).await?;
    guard(&tx, ownership).await?;
    carry_over(&tx, ownership, rename).await?;
    Ok(tx.commit().await?)
}

/// What stands in the way of a rename while walhook runs.
///
/// # Errors
/// That it could not be counted.
pub(crate) async fn obstacles(
    client: &Client,
    slot: &str,
    from: &str,
    to: &str,
) -> Result<RenameObstacles, StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    params.put(Type::TEXT, from);
    params.put(Type::TEXT, to);
    let query = "SELECT
           (SELECT count(*) FROM walhook.backlog WHERE slot = $1 AND endpoint = $3)
         + (SELECT count(*) FROM walhook.dead_letters WHERE slot = $1 AND endpoint = $3
               AND state IN ('dead', 'requested', 'resending')) AS taken,
           (SELECT count(*) FROM walhook.dead_letters WHERE slot = $1 AND endpoint = $2
               AND state IN ('requested', 'resending')) AS resending,
           (SELECT count(*) FROM walhook.replays WHERE slot = $1 AND endpoint = $2
               AND state IN ('running', 'paused')) AS replays,
           (SELECT count(*) FROM walhook.backlog WHERE slot = $1 AND endpoint = $2)
         + (SELECT count(*) FROM walhook.dead_letters WHERE slot = $1 AND endpoint = $2) AS rows";
    let rows = client.query_typed(query, &params.list()).await?;
    let Some(row) = rows.first() else { return Ok(RenameObstacles::default()) };
    Ok(RenameObstacles {
        taken: read(row, "taken")?,
        resending: read(row, "resending")?,
        replays: read(row, "replays")?,
        rows: read(row, "rows")?,
    })
}
