//! Who holds a replication slot, as PostgreSQL shows it.

use tokio_postgres::Client;
use tokio_postgres::SimpleQueryMessage;

use crate::flow::quote;
use crate::store::error::StoreError;

/// The session that streams from a slot.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct SlotHolderSession {
    /// Its server process.
    pub pid: i32,
    /// What it calls itself; `walhook` unless its connection URL says otherwise.
    pub application: Option<String>,
    /// `None` over a Unix socket, or if our role may not know.
    pub address: Option<String>,
    /// ISO 8601; `None` if our role may not know.
    pub since: Option<String>,
}

/// The server process that streams from `slot`; `None` if none does.
///
/// # Errors
/// The server cannot be asked.
pub(crate) async fn server_pid(client: &Client, slot: &str) -> Result<Option<i32>, StoreError> {
    let question = format!(
        "SELECT active_pid FROM pg_catalog.pg_replication_slots WHERE slot_name = {}",
        quote::literal(slot)
    );
    let answer = client.simple_query(&question).await?;
    Ok(answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok(),
        _ => None,
    }))
}

/// Who holds `slot`; `None` if nobody does, or if there is no such slot.
///
/// # Errors
/// The server cannot be asked.
pub(crate) async fn look(
    client: &Client,
    slot: &str,
) -> Result<Option<SlotHolderSession>, StoreError> {
    // `pg_stat_activity` shows other roles' names to everybody, and the rest of it only to some.
    let question = format!(
        "SELECT s.active_pid, a.application_name, host(a.client_addr), \
         to_char(a.backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') \
         FROM pg_catalog.pg_replication_slots s \
         LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = s.active_pid \
         WHERE s.slot_name = {}",
        quote::literal(slot)
    );
    let answer = client.simple_query(&question).await?;
    Ok(answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => {
            let text = |column| row.get(column).map(ToOwned::to_owned);
            let pid = row.get(0)?.parse().ok()?;
            Some(SlotHolderSession { pid, application: text(1), address: text(2), since: text(3) })
        }
        _ => None,
    }))
}

/// The first half of the key of the lock that those who stand by have: "walh".
const STANDS_BY: i32 = 0x7761_6c68;

/// Shows in [`standbys`] that this session waits for `slot`, until it ends. Nothing depends on it:
/// all of them have the lock at once.
///
/// # Errors
/// The server cannot be asked.
pub(crate) async fn stand_by(client: &Client, slot: &str) -> Result<(), StoreError> {
    let slot = quote::literal(slot);
    let lock = format!(
        "SELECT pg_catalog.pg_try_advisory_lock_shared({STANDS_BY}, pg_catalog.hashtext({slot}))"
    );
    client.simple_query(&lock).await?;
    Ok(())
}

/// Who waits for `slot`, the oldest first.
///
/// # Errors
/// The server cannot be asked.
pub(crate) async fn standbys(
    client: &Client,
    slot: &str,
) -> Result<Vec<SlotHolderSession>, StoreError> {
    let question = format!(
        "SELECT l.pid, a.application_name, host(a.client_addr), \
         to_char(a.backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') \
         FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid \
         WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2 AND l.classid = {STANDS_BY} \
         AND l.objid::bigint = pg_catalog.hashtext({})::bigint & 4294967295 \
         AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()) \
         ORDER BY a.backend_start, l.pid",
        quote::literal(slot)
    );
    let answer = client.simple_query(&question).await?;
    let seen = answer.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => {
            let text = |column| row.get(column).map(ToOwned::to_owned);
            let pid = row.get(0)?.parse().ok()?;
            Some(SlotHolderSession { pid, application: text(1), address: text(2), since: text(3) })
        }
        _ => None,
    });
    Ok(seen.collect())
}
