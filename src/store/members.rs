//! The workers of a source. A row decides only which of them tries to own what.

use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::flow::time::Timestamp;
use crate::store::sql::SqlParams;
use crate::store::sql::clean_ascii;
use crate::store::sql::read;
use crate::store::state_error::StateError;

/// One who delivers, or did a moment ago.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct MemberRow {
    pub(crate) member: String,
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) started: Timestamp,
    pub(crate) seen: Timestamp,
    /// Whether it was seen within the time that was asked about.
    pub(crate) is_alive: bool,
}

/// Says that this member is alive.
///
/// # Errors
/// That a statement failed.
pub(crate) async fn beat(
    client: &Client,
    slot: &str,
    (member, name, address): (&str, &str, &str),
) -> Result<(), StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    params.put(Type::TEXT, member);
    params.put(Type::TEXT, clean_ascii(name));
    params.put(Type::TEXT, address);
    let upsert = "INSERT INTO walhook.members (slot, member, name, address) VALUES ($1, $2, $3, $4)
                  ON CONFLICT (slot, member) DO UPDATE SET seen_at = now()";
    client.execute_typed(upsert, &params.list()).await?;
    Ok(())
}

/// The members of a source by name; those are alive that were seen within `alive`.
///
/// # Errors
/// That the rows could not be read.
pub(crate) async fn load(
    client: &Client,
    slot: &str,
    alive: Duration,
) -> Result<Vec<MemberRow>, StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    params.put(Type::FLOAT8, alive.as_secs_f64());
    let query = "SELECT member, name, address, started_at, seen_at,
                        seen_at > clock_timestamp() - make_interval(secs => $2) AS is_alive
                   FROM walhook.members WHERE slot = $1 ORDER BY member";
    let rows = client.query_typed(query, &params.list()).await?;
    let member = |row: &Row| {
        Ok(MemberRow {
            member: read(row, "member")?,
            name: read(row, "name")?,
            address: read(row, "address")?,
            started: read(row, "started_at")?,
            seen: read(row, "seen_at")?,
            is_alive: read(row, "is_alive")?,
        })
    };
    rows.iter().map(member).collect()
}

/// Forgets a member that ends, and those that were not seen for an hour.
///
/// # Errors
/// That the statement failed.
pub(crate) async fn leave(client: &Client, slot: &str, member: &str) -> Result<(), StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    params.put(Type::TEXT, member);
    let delete = "DELETE FROM walhook.members
                   WHERE slot = $1 AND (member = $2 OR seen_at < now() - interval '1 hour')";
    client.execute_typed(delete, &params.list()).await?;
    Ok(())
}
