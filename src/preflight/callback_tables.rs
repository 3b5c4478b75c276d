//! Whether the tables that keep callbacks are there and may be written to.

use tokio_postgres::Client;

use crate::config::configuration::Settings;
use crate::flow::quote::identifier;
use crate::flow::relation::TableName;
use crate::preflight::message_tables;
use crate::replication::catalog::CheckFinding;
use crate::replication::diagnostic::SetupDiagnostic;
use crate::store::error::StoreError;

/// What `sql/wecom-callbacks.sql` gives a table of callbacks.
const CALLBACK_COLUMNS: [&str; 10] = [
    "source",
    "kind",
    "event",
    "message_id",
    "user_id",
    "agent_id",
    "occurred_at",
    "content",
    "fields",
    "dedupe_key",
];
const NONCE_COLUMNS: [&str; 3] = ["source", "nonce", "seen_at"];

/// What keeps callbacks from being kept: a table or column that is not there, a right that is not given.
///
/// # Errors
/// The server cannot be asked.
pub(crate) async fn findings(
    settings: &Settings,
    client: &Client,
) -> Result<Vec<CheckFinding>, StoreError> {
    let mut findings = Vec::new();
    for source in settings.inbound.iter().flat_map(|inbound| &inbound.sources) {
        let before = findings.len();
        let tables =
            [(&source.table, CALLBACK_COLUMNS.as_slice()), (&source.nonces, &NONCE_COLUMNS)];
        for (table, columns) in tables {
            let lacks = lacking(client, table, columns).await?;
            findings.extend(lacks.into_iter().map(|(what, fix)| {
                CheckFinding::from(SetupDiagnostic::CallbackTable {
                    source: source.name.clone(),
                    what,
                    fix,
                })
            }));
        }
        if findings.len() == before {
            findings.push(CheckFinding::ok(format!(
                "source {}: callbacks at {} are kept in {}",
                source.name, source.path, source.table
            )));
        }
    }
    findings.extend(message_tables::findings(settings, client).await?);
    Ok(findings)
}

/// What one table lacks, and the fix.
async fn lacking(
    client: &Client,
    table: &TableName,
    columns: &[&str],
) -> Result<Vec<(String, String)>, StoreError> {
    let (schema, name) = (&table.schema, &table.name);
    let found = client
        .query_opt(
            "SELECT c.oid FROM pg_catalog.pg_class c \
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p', 'v')",
            &[schema, name],
        )
        .await?;
    let make = "run sql/wecom-callbacks.sql, or make it as that file does";
    let Some(oid) = found.map(|row| row.try_get::<_, u32>(0)).transpose()? else {
        return Ok(vec![(format!("table {table} does not exist"), make.to_owned())]);
    };
    let there: Vec<String> = client
        .query(
            "SELECT attname::text FROM pg_catalog.pg_attribute \
             WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped",
            &[&oid],
        )
        .await?
        .iter()
        .map(|row| row.try_get(0))
        .collect::<Result<_, _>>()?;
    let mut lacks = Vec::new();
    for column in columns.iter().filter(|column| !there.iter().any(|one| one == *column)) {
        lacks.push((format!("table {table} has no column {column}"), make.to_owned()));
    }
    let rights = client
        .query_one(
            "SELECT pg_catalog.has_table_privilege($1::oid, 'INSERT') \
               AND pg_catalog.has_table_privilege($1::oid, 'SELECT'), \
             pg_catalog.has_schema_privilege($2::text, 'USAGE'), current_user::text",
            &[&oid, schema],
        )
        .await?;
    let (may_insert, may_use, role): (bool, bool, String) =
        (rights.try_get(0)?, rights.try_get(1)?, rights.try_get(2)?);
    if !may_use {
        let fix = format!("GRANT USAGE ON SCHEMA {} TO {};", identifier(schema), identifier(&role));
        lacks.push((format!("role {role} may not use schema {schema}"), fix));
    }
    if !may_insert {
        let table_sql = table.quoted();
        let fix = format!("GRANT SELECT, INSERT ON {table_sql} TO {};", identifier(&role));
        lacks.push((format!("role {role} may not write to table {table}"), fix));
    }
    Ok(lacks)
}
