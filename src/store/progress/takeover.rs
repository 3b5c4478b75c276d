//! Takes the slot's row, or a partition's, under the next epoch.

use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::Transaction;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use crate::flow::partition::PartitionNumber;
use crate::store::ownership::StateOwnership;
use crate::store::progress::COLUMNS;
use crate::store::progress::StoredProgress;
use crate::store::progress::begin;
use crate::store::progress::lock;
use crate::store::progress::lock_key;
use crate::store::progress::progress;
use crate::store::sql::SqlParams;
use crate::store::sql::clean_ascii;
use crate::store::sql::read;
use crate::store::state_error::StateError;

/// How long a taker waits for a transaction of the former holder before it ends the holder's
/// session: such a transaction takes milliseconds, unless the holder is frozen in the middle of it.
const HOLDER_WAIT_MAX: Duration = Duration::from_millis(500);

/// How often a taker ends such a session before it gives up.
const TAKE_TRIES: u32 = 4;

/// Takes the slot: from here on every other walhook is fenced off. To be called when the
/// replication slot is ours. `holder` says who we are, in words for the operator.
///
/// Waits for a flush of the former holder that is under way. If that takes too long, because the
/// holder is frozen, its session is ended (a role may end its own sessions).
///
/// # Errors
/// That the former holder's transaction could not be ended (transient), or that a statement failed.
pub async fn take(
    client: &mut Client,
    slot: &str,
    holder: &str,
) -> Result<(StateOwnership, StoredProgress), StateError> {
    take_partition(client, slot, PartitionNumber::SOURCE, holder).await
}

/// As [`take`], for one partition of the source: the owners of others write on.
///
/// # Errors
/// As [`take`].
pub async fn take_partition(
    client: &mut Client,
    slot: &str,
    partition: PartitionNumber,
    holder: &str,
) -> Result<(StateOwnership, StoredProgress), StateError> {
    for _ in 1..TAKE_TRIES {
        match try_take(client, slot, partition, holder).await {
            Err(error) if is_held(&error) => end_holders(client, slot, &[partition]).await?,
            outcome => return outcome,
        }
    }
    try_take(client, slot, partition, holder).await
}

/// Changes rows of partitions with one statement, which returns how many. A transaction of a holder that has them is
/// waited for, and ended as in [`take`].
///
/// # Errors
/// As [`take`].
pub(crate) async fn change_rows(
    client: &mut Client,
    slot: &str,
    partitions: &[PartitionNumber],
    statement: &str,
    params: &SqlParams<'_>,
) -> Result<u64, StateError> {
    for _ in 1..TAKE_TRIES {
        match try_change(client, statement, params).await {
            Err(error) if is_held(&error) => end_holders(client, slot, partitions).await?,
            outcome => return outcome,
        }
    }
    try_change(client, statement, params).await
}

async fn try_change(
    client: &mut Client,
    statement: &str,
    params: &SqlParams<'_>,
) -> Result<u64, StateError> {
    let tx = begin(client).await?;
    bound(&tx).await?;
    let changed = tx.execute_typed(statement, &params.list()).await?;
    tx.commit().await?;
    Ok(changed)
}

/// Waits for no lock for longer than [`HOLDER_WAIT_MAX`].
async fn bound(tx: &Transaction<'_>) -> Result<(), StateError> {
    let wait_max = HOLDER_WAIT_MAX.as_millis();
    Ok(tx.batch_execute(&format!("SET LOCAL lock_timeout = {wait_max}")).await?)
}

/// Whether somebody had a lock for too long.
fn is_held(error: &StateError) -> bool {
    error.sqlstate() == Some(&SqlState::LOCK_NOT_AVAILABLE)
}

async fn try_take(
    client: &mut Client,
    slot: &str,
    partition: PartitionNumber,
    holder: &str,
) -> Result<(StateOwnership, StoredProgress), StateError> {
    let tx = begin(client).await?;
    bound(&tx).await?;
    lock(&tx, slot, partition).await?;
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    params.put(Type::TEXT, clean_ascii(holder));
    params.put(Type::INT4, partition.raw());
    let query = format!(
        "INSERT INTO walhook.progress AS p (slot, partition, epoch, holder) VALUES ($1, $3, 1, $2)
         ON CONFLICT (slot, partition) DO UPDATE
            SET epoch = p.epoch + 1, holder = $2, held_since = now()
         RETURNING {COLUMNS}"
    );
    let row = tx.query_typed_one(&query, &params.list()).await?;
    let progress = progress(&row)?;
    let encoding: String = read(&row, "encoding")?;
    let ownership = StateOwnership {
        slot: slot.into(),
        partition,
        epoch: progress.epoch,
        flushed: read(&row, "flush")?,
        passed: None,
        // SQL_ASCII takes any bytes as they come.
        unicode: matches!(encoding.as_str(), "UTF8" | "SQL_ASCII"),
    };
    tx.commit().await?;
    Ok((ownership, progress))
}

/// Ends the sessions that are in a transaction for these partitions.
async fn end_holders(
    client: &Client,
    slot: &str,
    partitions: &[PartitionNumber],
) -> Result<(), StateError> {
    let mut params = SqlParams::default();
    let keys = partitions.iter().map(|&partition| lock_key(slot, partition));
    params.column(Type::INT8_ARRAY, keys);
    // How pg_locks shows a 64-bit advisory lock: its halves, and 1 as the third number.
    let ended = client
        .query_typed(
            "SELECT pg_terminate_backend(pid) FROM (SELECT DISTINCT pid FROM pg_locks
               JOIN unnest($1::bigint[]) AS own (key)
                 ON classid::bigint = (key >> 32) & 4294967295
                AND objid::bigint = key & 4294967295 AND objsubid = 1
              WHERE locktype = 'advisory' AND granted AND pid <> pg_backend_pid()
                AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
              ) AS holders",
            &params.list(),
        )
        .await?;
    tracing::warn!(slot, sessions = ended.len(), "ended sessions of the last holder");
    Ok(())
}
