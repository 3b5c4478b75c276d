//! Which schema walhook's is there, and why a step of the migration or a statement failed because of it: rights, owners, alterations.

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use crate::store::error::StoreError;
use crate::store::error::server_error::ServerError;
use crate::store::migrate::versions::MIGRATIONS;
use crate::store::migrate::versions::tables;
use crate::store::sql::SqlParams;
use crate::store::sql::read;
use crate::store::state_error::StateError;
use crate::store::state_error::is_gone;

/// How often it is looked what there is of the schema: those that start together make it once.
const FINDS_MAX: usize = 5;

/// What PostgreSQL says where a table is other than the migrations have made it.
const ALTERED: [SqlState; 4] = [
    SqlState::UNDEFINED_COLUMN,
    SqlState::UNDEFINED_FUNCTION,
    SqlState::DATATYPE_MISMATCH,
    SqlState::WRONG_OBJECT_TYPE,
];

/// What one read says of the schema.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum FoundSchema {
    /// There is no version table.
    Nothing,
    Version(i32),
    /// The version is right, but the role lacks rights on a table that this role owns.
    OwnedBy(String),
}

pub(super) async fn find(client: &Client) -> Result<FoundSchema, StateError> {
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
            // They were put under row-level security, by force.
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

/// Whether an error may be about tables that were dropped or altered.
pub(crate) fn is_of_tables(error: &StateError) -> bool {
    error.sqlstate().is_some_and(|state| is_gone(state) || ALTERED.contains(state))
}

/// What an error of a running walhook's statement over its own tables means: that they were dropped or
/// altered, in the words of a start. Other errors stay what they are.
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

/// Makes a missing privilege into an error that says what an administrator has to run.
pub(super) async fn explain(client: &Client, error: StateError) -> StateError {
    let StateError::Store(StoreError::Refused(cause)) = &error else { return error };
    if cause.sqlstate != SqlState::INSUFFICIENT_PRIVILEGE {
        return error;
    }
    match surroundings(client, Some(cause.clone())).await {
        Ok(explained) => explained,
        Err(_) => error,
    }
}

pub(super) async fn surroundings(
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

pub(super) async fn wrong_owner(client: &Client, owner: &str) -> Result<StateError, StateError> {
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
