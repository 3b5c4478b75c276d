//! Schema `walhook`: made, and brought up to date, by numbered migrations in the binary.
//!
//! Each migration is one transaction under an advisory lock, and walhooks that start together wait
//! for one another. A schema that is up to date costs one read. Tables that are newer than this
//! walhook are refused: it could write what the newer one does not expect.

use std::collections::BTreeSet;

use tokio_postgres::Client;
use tokio_postgres::IsolationLevel;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use crate::store::error::StoreError;
use crate::store::error::server_error::ServerError;
use crate::store::sql::SqlParams;
use crate::store::sql::read;
use crate::store::state_error::StateError;
use crate::store::state_error::is_gone;

/// Held while the schema is changed: also by the makers of partitions. An arbitrary number.
pub(crate) const SCHEMA_LOCK: i64 = 0x7761_6c68_6f6f_6b01;

/// One step of the schema. A step that was released is never changed again.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// Greater than that of the one before.
    pub version: i32,
    pub name: &'static str,
    pub sql: &'static str,
}

/// All steps, in order.
pub const MIGRATIONS: &[Migration] = &[
    Migration {
        version: 1,
        name: "state",
        sql: include_str!("../../sql/migrations/0001_state.sql"),
    },
    Migration {
        version: 2,
        name: "replays",
        sql: include_str!("../../sql/migrations/0002_replays.sql"),
    },
    Migration {
        version: 3,
        name: "poison",
        sql: include_str!("../../sql/migrations/0003_poison.sql"),
    },
    Migration {
        version: 4,
        name: "write_backs",
        sql: include_str!("../../sql/migrations/0004_write_backs.sql"),
    },
    Migration {
        version: 5,
        name: "seen_values",
        sql: include_str!("../../sql/migrations/0005_seen_values.sql"),
    },
    Migration {
        version: 6,
        name: "fronts",
        sql: include_str!("../../sql/migrations/0006_fronts.sql"),
    },
    Migration {
        version: 7,
        name: "headers",
        sql: include_str!("../../sql/migrations/0007_headers.sql"),
    },
    Migration {
        version: 8,
        name: "push_log_indexes",
        sql: include_str!("../../sql/migrations/0008_push_log_indexes.sql"),
    },
    Migration {
        version: 9,
        name: "push_log_batches",
        sql: include_str!("../../sql/migrations/0009_push_log_batches.sql"),
    },
    Migration {
        version: 10,
        name: "books_common",
        sql: include_str!("../../sql/migrations/0010_books_common.sql"),
    },
    Migration {
        version: 11,
        name: "slot_owner",
        sql: include_str!("../../sql/migrations/0011_slot_owner.sql"),
    },
    Migration {
        version: 12,
        name: "crash_charges",
        sql: include_str!("../../sql/migrations/0012_crash_charges.sql"),
    },
    Migration {
        version: 13,
        name: "gaps",
        sql: include_str!("../../sql/migrations/0013_gaps.sql"),
    },
    Migration {
        version: 14,
        name: "endpoint_states",
        sql: include_str!("../../sql/migrations/0014_endpoint_states.sql"),
    },
    Migration {
        version: 15,
        name: "push_totals",
        sql: include_str!("../../sql/migrations/0015_push_totals.sql"),
    },
    Migration {
        version: 16,
        name: "body_pieces",
        sql: include_str!("../../sql/migrations/0016_body_pieces.sql"),
    },
    Migration {
        version: 17,
        name: "resend_rates",
        sql: include_str!("../../sql/migrations/0017_resend_rates.sql"),
    },
    Migration {
        version: 18,
        name: "renames",
        sql: include_str!("../../sql/migrations/0018_renames.sql"),
    },
    Migration {
        version: 19,
        name: "replay_pauses",
        sql: include_str!("../../sql/migrations/0019_replay_pauses.sql"),
    },
    Migration {
        version: 20,
        name: "backfills",
        sql: include_str!("../../sql/migrations/0020_backfills.sql"),
    },
    Migration {
        version: 21,
        name: "endpoint_rows",
        sql: include_str!("../../sql/migrations/0021_endpoint_rows.sql"),
    },
    Migration {
        version: 22,
        name: "partitions",
        sql: include_str!("../../sql/migrations/0022_partitions.sql"),
    },
    Migration {
        version: 23,
        name: "backfill_moves",
        sql: include_str!("../../sql/migrations/0023_backfill_moves.sql"),
    },
    Migration {
        version: 24,
        name: "backlog_by_event",
        sql: include_str!("../../sql/migrations/0024_backlog_by_event.sql"),
    },
    Migration {
        version: 25,
        name: "relay",
        sql: include_str!("../../sql/migrations/0025_relay.sql"),
    },
];

/// How often it is looked what there is of the schema: those that start together make it once.
const FINDS_MAX: usize = 5;

/// What PostgreSQL says where a table is other than the migrations have made it.
const ALTERED: [SqlState; 4] = [
    SqlState::UNDEFINED_COLUMN,
    SqlState::UNDEFINED_FUNCTION,
    SqlState::DATATYPE_MISMATCH,
    SqlState::WRONG_OBJECT_TYPE,
];

/// The tables that the migrations make, which somebody may have dropped. Of a view nothing is lost.
pub fn tables() -> BTreeSet<&'static str> {
    let mut tables = BTreeSet::new();
    for line in MIGRATIONS.iter().flat_map(|step| step.sql.lines()) {
        let Some((verb, rest)) = line.split_once(" TABLE walhook.") else { continue };
        let mut words = rest.split([' ', ';']);
        let name = words.next().unwrap_or_default();
        match (verb, words.next(), words.next(), words.next()) {
            ("CREATE" | "CREATE UNLOGGED", ..) => {
                tables.insert(name);
            }
            ("DROP", ..) => {
                tables.remove(name);
            }
            ("ALTER", Some("RENAME"), Some("TO"), Some(new)) => {
                tables.remove(name);
                tables.insert(new);
            }
            _ => {}
        }
    }
    tables
}

/// What one read says of the schema.
#[derive(Debug, Eq, PartialEq)]
enum FoundSchema {
    /// There is no version table.
    Nothing,
    Version(i32),
    /// The version is right, but the role lacks rights on a table that this role owns.
    OwnedBy(String),
}

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

async fn find(client: &Client) -> Result<FoundSchema, StateError> {
    for _ in 0..FINDS_MAX {
        if let Some(found) = look(client).await? {
            return Ok(found);
        }
    }
    Err(StateError::unreadable("schema_version", "it comes and goes"))
}

/// Looks once; `None` where another walhook has made the schema between two questions.
async fn look(client: &Client) -> Result<Option<FoundSchema>, StateError> {
    // Owning matters, and not only the right to write: the push log gets a partition each day, and
    // the next version changes the tables.
    let mut params = SqlParams::default();
    params.put(Type::TEXT_ARRAY, Vec::from_iter(tables()));
    let found = client
        .query_typed(
            "SELECT coalesce(max(version), 0) AS version,
                    (SELECT pg_get_userbyid(min(relowner::bigint)::oid)::text FROM pg_class
                      WHERE relnamespace = 'walhook'::regnamespace AND relkind IN ('r', 'p')
                        AND NOT pg_has_role(relowner, 'USAGE')) AS other_owner,
                    EXISTS (SELECT FROM pg_class WHERE relnamespace = 'walhook'::regnamespace
                        AND relrowsecurity AND row_security_active(oid)) AS hidden,
                    (SELECT string_agg(name, ', ' ORDER BY name) FROM unnest($1) name
                      WHERE to_regclass('walhook.' || name) IS NULL) AS missing
               FROM walhook.schema_version",
            &params.list(),
        )
        .await
        .map_err(StateError::from);
    match found {
        Ok(rows) => {
            let row = rows.first().ok_or(StateError::unreadable("schema_version", "no row"))?;
            // Somebody has put them under row-level security, by force.
            if read(row, "hidden")? {
                return Err(surroundings(client, None).await?);
            }
            let version: i32 = read(row, "version")?;
            let newest = MIGRATIONS.last().map_or(0, |last| last.version);
            if let Some(tables) =
                read::<Option<String>>(row, "missing")?.filter(|_| version == newest)
            {
                return Err(StateError::LacksTables { tables });
            }
            Ok(Some(match read::<Option<String>>(row, "other_owner")? {
                Some(owner) => FoundSchema::OwnedBy(owner),
                None => FoundSchema::Version(version),
            }))
        }
        Err(error) => match error.sqlstate() {
            Some(state) if is_gone(state) => {
                let mut params = SqlParams::default();
                params.put(Type::TEXT_ARRAY, Vec::from_iter(tables()));
                let question =
                    "SELECT to_regclass('walhook.schema_version') IS NOT NULL AS is_made,
                     EXISTS (SELECT FROM unnest($1) name
                        WHERE to_regclass('walhook.' || name) IS NOT NULL) AS others";
                let row = client.query_typed_one(question, &params.list()).await?;
                if read(&row, "is_made")? {
                    return Ok(None);
                }
                if read(&row, "others")? {
                    return Err(StateError::LacksTables { tables: String::from("schema_version") });
                }
                Ok(Some(FoundSchema::Nothing))
            }
            _ => Err(explain(client, error).await),
        },
    }
}

/// Whether an error may be about tables that somebody has dropped or altered.
pub(crate) fn is_of_tables(error: &StateError) -> bool {
    error.sqlstate().is_some_and(|state| is_gone(state) || ALTERED.contains(state))
}

/// What an error of a running walhook's statement over its own tables means: that somebody has dropped or
/// altered them, in the words of a start. Other errors stay what they are.
pub(crate) async fn named(client: &Client, error: StateError) -> StateError {
    match error.sqlstate() {
        Some(state) if is_gone(state) => match find(client).await {
            Ok(FoundSchema::Nothing) => {
                StateError::LacksTables { tables: String::from("all of its tables") }
            }
            Err(lacks @ StateError::LacksTables { .. }) => lacks,
            Ok(_) | Err(_) => error,
        },
        Some(state) if ALTERED.contains(state) => StateError::unreadable("the tables", error),
        _ => error,
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

/// Makes a missing privilege into an error that says what an administrator has to run.
async fn explain(client: &Client, error: StateError) -> StateError {
    let StateError::Store(StoreError::Refused(cause)) = &error else { return error };
    if cause.sqlstate != SqlState::INSUFFICIENT_PRIVILEGE {
        return error;
    }
    match surroundings(client, Some(cause.clone())).await {
        Ok(explained) => explained,
        Err(_) => error,
    }
}

async fn surroundings(
    client: &Client,
    cause: Option<ServerError>,
) -> Result<StateError, StateError> {
    let row = client
        .query_typed_one(
            "SELECT current_user::text AS role, quote_ident(current_user) AS quoted,
                    EXISTS (SELECT FROM pg_namespace WHERE nspname = 'walhook') AS has_schema,
                    (SELECT string_agg(format('ALTER TABLE %s DISABLE ROW LEVEL SECURITY, '
                            || 'NO FORCE ROW LEVEL SECURITY;', oid::regclass), ' ' ORDER BY relname)
                       FROM pg_class WHERE relnamespace = to_regnamespace('walhook')
                        AND relrowsecurity AND row_security_active(oid)) AS hidden,
                    (SELECT quote_ident(pg_get_userbyid(relowner)) FROM pg_class
                      WHERE relnamespace = to_regnamespace('walhook')
                        AND relname = 'schema_version') AS owner",
            &[],
        )
        .await?;
    let quoted: String = read(&row, "quoted")?;
    let owner: Option<String> = read(&row, "owner")?;
    let has_schema: bool = read(&row, "has_schema")?;
    if let Some(sql) = read::<Option<String>>(&row, "hidden")? {
        return Ok(StateError::NoPrivilege { role: read(&row, "role")?, sql, cause });
    }
    let sql = match owner.filter(|owner| *owner != quoted) {
        Some(owner) => format!("GRANT {owner} TO {quoted};"),
        None if has_schema => format!("ALTER SCHEMA walhook OWNER TO {quoted};"),
        None => format!("CREATE SCHEMA walhook AUTHORIZATION {quoted};"),
    };
    Ok(StateError::NoPrivilege { role: read(&row, "role")?, sql, cause })
}

async fn wrong_owner(client: &Client, owner: &str) -> Result<StateError, StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, owner);
    let row = client
        .query_typed_one(
            "SELECT current_user::text AS role,
                    format('GRANT %I TO %I;', $1, current_user) AS sql",
            &params.list(),
        )
        .await?;
    Ok(StateError::NoPrivilege { role: read(&row, "role")?, sql: read(&row, "sql")?, cause: None })
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
