//! Who holds a replication slot, as PostgreSQL shows it.

use tokio_postgres::Client;
use tokio_postgres::SimpleQueryMessage;

use crate::replication::wire::quote;
use crate::store::error::StoreError;

/// The session that streams from a slot.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SlotHolderSession {
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
pub async fn server_pid(client: &Client, slot: &str) -> Result<Option<i32>, StoreError> {
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
pub async fn look(client: &Client, slot: &str) -> Result<Option<SlotHolderSession>, StoreError> {
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
