//! Schema `walhook`: made, and brought up to date, by numbered migrations in the binary.
//!
//! Each migration is one transaction under an advisory lock, and walhooks that start together wait
//! for one another. A schema that is up to date costs one read. Tables that are newer than this
//! walhook are refused: it could write what the newer one does not expect.

pub(crate) mod schema_check;
pub(crate) mod versions;

use tokio_postgres::Client;
use tokio_postgres::IsolationLevel;
use tokio_postgres::types::Type;

use crate::store::migrate::schema_check::FoundSchema;
use crate::store::migrate::schema_check::explain;
use crate::store::migrate::schema_check::find;
use crate::store::migrate::schema_check::surroundings;
use crate::store::migrate::schema_check::wrong_owner;
use crate::store::migrate::versions::MIGRATIONS;
use crate::store::migrate::versions::Migration;
use crate::store::sql::SqlParams;
use crate::store::sql::read;
use crate::store::state_error::StateError;

/// Held while the schema is changed: also by the makers of partitions. An arbitrary number.
pub(crate) const SCHEMA_LOCK: i64 = 0x7761_6c68_6f6f_6b01;

/// Brings the schema to the version that this walhook knows.
///
/// # Errors
/// [`StateError::NewerSchema`], [`StateError::NoPrivilege`] with the SQL that mends it, or that a
/// statement failed; what was done by then stays done, and the next start goes on from there.
pub async fn migrate(client: &mut Client) -> Result<(), StateError> {
    apply(client, MIGRATIONS).await
}

/// What [`migrate`] would be refused for, as far as can be told without trying. Changes nothing.
///
/// # Errors
/// The database could not be asked.
pub async fn lacking(client: &Client) -> Result<Option<StateError>, StateError> {
    let known = MIGRATIONS.last().map_or(0, |last| last.version);
    match find(client).await {
        Ok(FoundSchema::OwnedBy(owner)) => wrong_owner(client, &owner).await.map(Some),
        Ok(FoundSchema::Version(version)) if version > known => {
            Ok(Some(StateError::NewerSchema { found: version, known }))
        }
        Ok(FoundSchema::Version(_)) => Ok(None),
        Err(lacks @ (StateError::NoPrivilege { .. } | StateError::LacksTables { .. })) => {
            Ok(Some(lacks))
        }
        Err(error) => Err(error),
        Ok(FoundSchema::Nothing) => {
            let question = "SELECT CASE WHEN to_regnamespace('walhook') IS NULL
                     THEN has_database_privilege(current_database(), 'CREATE')
                     ELSE has_schema_privilege('walhook', 'CREATE') END AS may";
            let row = client.query_typed_one(question, &[]).await?;
            if read(&row, "may")? { Ok(None) } else { surroundings(client, None).await.map(Some) }
        }
    }
}

/// As [`migrate`], for a given list.
///
/// # Errors
/// As [`migrate`].
pub async fn apply(client: &mut Client, migrations: &[Migration]) -> Result<(), StateError> {
    let known = migrations.last().map_or(0, |last| last.version);
    loop {
        let version = match find(client).await? {
            FoundSchema::Nothing => 0,
            FoundSchema::Version(version) => version,
            FoundSchema::OwnedBy(owner) => return Err(wrong_owner(client, &owner).await?),
        };
        if version > known {
            return Err(StateError::NewerSchema { found: version, known });
        }
        let Some(next) = migrations.iter().find(|step| step.version > version) else {
            return Ok(());
        };
        if let Err(error) = step(client, next).await {
            return Err(explain(client, error).await);
        }
    }
}

/// Applies `next`, unless another walhook was quicker.
async fn step(client: &mut Client, next: &Migration) -> Result<(), StateError> {
    let tx =
        client.build_transaction().isolation_level(IsolationLevel::ReadCommitted).start().await?;
    let mut lock = SqlParams::default();
    lock.put(Type::INT8, SCHEMA_LOCK);
    tx.execute_typed("SELECT pg_advisory_xact_lock($1)", &lock.list()).await?;
    // `CREATE SCHEMA IF NOT EXISTS` would ask for a right on the database even where the
    // administrator has made the schema.
    let exists =
        tx.query_typed_one("SELECT to_regnamespace('walhook') IS NOT NULL AS exists", &[]).await?;
    if !read::<bool>(&exists, "exists")? {
        tx.batch_execute("CREATE SCHEMA walhook").await?;
    }
    tx.batch_execute(
        "CREATE TABLE IF NOT EXISTS walhook.schema_version (
            version    integer PRIMARY KEY,
            name       text NOT NULL,
            applied_at timestamptz NOT NULL DEFAULT now(),
            applied_by text NOT NULL
        )",
    )
    .await?;
    let mut applied = SqlParams::default();
    applied.put(Type::INT4, next.version);
    applied.put(Type::TEXT, next.name);
    applied.put(Type::TEXT, concat!("walhook ", env!("CARGO_PKG_VERSION")));
    let is_ours = tx
        .execute_typed(
            "INSERT INTO walhook.schema_version (version, name, applied_by)
             SELECT $1, $2, $3
              WHERE $1 > (SELECT coalesce(max(version), 0) FROM walhook.schema_version)",
            &applied.list(),
        )
        .await?
        == 1;
    if is_ours {
        tx.batch_execute(next.sql).await?;
        tracing::info!(version = next.version, name = next.name, "migrated schema walhook");
    }
    tx.commit().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_counted_without_a_gap() {
        for (expected, step) in (1..).zip(MIGRATIONS) {
            assert_eq!(step.version, expected, "case: {}", step.name);
        }
    }
}
