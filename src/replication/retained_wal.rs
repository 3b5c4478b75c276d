//! How much WAL the server keeps for the slot, and how much more can be written before the slot may be lost.

use serde::Serialize;
use tokio_postgres::Client;

use crate::flow::time::Timestamp;
use crate::store::error::StoreError;

/// On a standby the WAL ends where it has been replayed.
const QUESTION: &str = "
    SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint,
           e.lsn::text,
           coalesce(pg_catalog.pg_wal_lsn_diff(e.lsn, s.confirmed_flush_lsn), 0)::bigint,
           coalesce(pg_catalog.pg_wal_lsn_diff(e.lsn, s.restart_lsn), 0)::bigint,
           s.safe_wal_size,
           nullif(pg_catalog.pg_size_bytes(pg_catalog.current_setting('max_slot_wal_keep_size')), -1)
    FROM (SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
                      ELSE pg_catalog.pg_current_wal_lsn() END AS lsn) e
    LEFT JOIN pg_catalog.pg_replication_slots s ON s.slot_name = $1";

/// The slot as the server sees it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct WalView {
    /// The end of the server's WAL.
    pub current: String,
    /// Bytes from the confirmed position to the end.
    pub lag_bytes: u64,
    /// Bytes that the server keeps for the slot.
    pub retained_bytes: u64,
    /// Bytes that can be written before the slot may be lost; `None` without a limit.
    pub safe_bytes: Option<u64>,
    /// What the server keeps for a slot at most (`max_slot_wal_keep_size`).
    pub limit_bytes: Option<u64>,
}

impl WalView {
    /// Whether more is kept than can still be written.
    pub(crate) fn is_halfway(&self) -> bool {
        self.safe_bytes.is_some_and(|safe| safe <= self.retained_bytes)
    }
}

/// Asks the server: what time it is there, and how far the slot is behind.
///
/// # Errors
/// It does not answer.
pub(crate) async fn ask(client: &Client, slot: &str) -> Result<(Timestamp, WalView), StoreError> {
    let row = client.query_one(QUESTION, &[&slot]).await?;
    let (lag, retained): (i64, i64) = (row.try_get(2)?, row.try_get(3)?);
    let safe: Option<i64> = row.try_get(4)?;
    let limit: Option<i64> = row.try_get(5)?;
    let view = WalView {
        current: row.try_get(1)?,
        lag_bytes: lag.unsigned_abs(),
        retained_bytes: retained.unsigned_abs(),
        safe_bytes: safe.map(|safe| u64::try_from(safe).unwrap_or(0)),
        limit_bytes: limit.and_then(|limit| u64::try_from(limit).ok()),
    };
    Ok((Timestamp::from_micros(row.try_get(0)?), view))
}
