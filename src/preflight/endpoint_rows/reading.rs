//! The question for the rows, and why it may be refused.

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::types::Type;

use crate::config::configuration::Settings;
use crate::config::sections::endpoints_from::EndpointsFrom;
use crate::flow::quote::identifier;
use crate::pipeline::endpoint_row_changes::KeyColumn;
use crate::preflight::grants;
use crate::replication::diagnostic::SetupDiagnostic;
use crate::store::error::StoreError;
use crate::store::error::is_transient_state;
use crate::store::error::server_error::ServerError;

/// Rows that are read: enough to say how many are too many.
const ROWS_MAX: usize = 2_000_000;

/// The type of the column $3 of $1.$2, under its domains.
const BASE_TYPE: &str = "
    WITH RECURSIVE base (oid) AS (
        SELECT a.atttypid FROM pg_catalog.pg_attribute a
          JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
          JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE n.nspname = $1 AND c.relname = $2 AND a.attname = $3 AND NOT a.attisdropped
        UNION
        SELECT t.typbasetype FROM base b JOIN pg_catalog.pg_type t ON t.oid = b.oid
         WHERE t.typtype = 'd')
    SELECT t.oid FROM base b JOIN pg_catalog.pg_type t ON t.oid = b.oid WHERE t.typtype <> 'd'";

/// Which rows are asked for, and whether with their keys.
#[derive(Clone, Copy, Debug)]
pub(super) enum KeyedQuestion<'k> {
    Unkeyed,
    All(&'k KeyColumn),
    /// Those whose keys are in $1.
    Some(&'k KeyColumn),
}

/// Asks for the rows as JSON, each with the text of its key.
///
/// # Errors
/// The server cannot be asked.
pub(super) async fn question(
    client: &Client,
    from: &EndpointsFrom,
    keyed: &KeyedQuestion<'_>,
) -> Result<String, StoreError> {
    let matched = match from.values_column() {
        Some(column) => {
            let of = [&from.table.schema as &(dyn ToSql + Sync), &from.table.name, &column];
            let found = client.query_opt(BASE_TYPE, &of).await?;
            let oid: Option<u32> = found.map(|row| row.try_get(0)).transpose()?;
            oid.and_then(as_text).map(|cast| (column, cast))
        }
        None => None,
    };
    Ok(question_of(from, matched, keyed))
}

/// What a type is to be cast to so that its text is all that counts of a value: `char(n)` without its
/// blanks, and numbers with all digits, which JSON would not keep. Of arrays of them each element.
fn as_text(oid: u32) -> Option<&'static str> {
    match Type::from_oid(oid)? {
        Type::BPCHAR | Type::NUMERIC | Type::FLOAT4 | Type::FLOAT8 => Some("text"),
        Type::BPCHAR_ARRAY | Type::NUMERIC_ARRAY | Type::FLOAT4_ARRAY | Type::FLOAT8_ARRAY => {
            Some("text[]")
        }
        _ => None,
    }
}

fn question_of(
    from: &EndpointsFrom,
    matched: Option<(&str, &str)>,
    keyed: &KeyedQuestion<'_>,
) -> String {
    let selected = |column: &String| match matched {
        Some((name, cast)) if column == name => {
            format!("w.{0}::pg_catalog.{cast} AS {0}", identifier(column))
        }
        _ => format!("w.{0} AS {0}", identifier(column)),
    };
    let columns: Vec<String> = from.columns().iter().map(selected).collect();
    let by_name = |name: &String| format!("r.{}::text COLLATE \"C\"", identifier(name));
    let mut order: Vec<String> = from.name_columns().iter().map(by_name).collect();
    // Of rows with one name it is always the same one that counts.
    order.push(String::from("r::text COLLATE \"C\""));
    let (key, chosen) = match keyed {
        KeyedQuestion::Unkeyed => (String::from("NULL"), String::new()),
        KeyedQuestion::All(KeyColumn { name, .. }) => {
            (format!("w.{}", identifier(name)), String::new())
        }
        KeyedQuestion::Some(KeyColumn { name, type_name }) => {
            let key = format!("w.{}", identifier(name));
            let chosen = format!("WHERE {key} = ANY ($1::text[]::pg_catalog.{type_name}[])");
            (key, chosen)
        }
    };
    format!(
        "SELECT pg_catalog.to_jsonb(r)::pg_catalog.text, {key}::text \
           FROM {} w CROSS JOIN LATERAL (SELECT {}) r {chosen} ORDER BY {} LIMIT {ROWS_MAX}",
        from.table.quoted(),
        columns.join(", "),
        order.join(", ")
    )
}

/// Why the rows may not be read at the moment, without reading them.
///
/// # Errors
/// The server cannot be asked.
pub(crate) async fn refused(
    settings: &Settings,
    client: &Client,
) -> Result<Option<SetupDiagnostic>, StoreError> {
    let Some(from) = &settings.endpoints_from else { return Ok(None) };
    let explain = format!("EXPLAIN {}", question(client, from, &KeyedQuestion::Unkeyed).await?);
    match client.simple_query(&explain).await.map_err(StoreError::from) {
        Ok(_) => Ok(None),
        Err(StoreError::Refused(cause)) if is_transient_state(&cause.sqlstate) => Ok(None),
        Err(StoreError::Refused(cause)) => unreadable(from, client, &cause).await.map(Some),
        Err(other) => Err(other),
    }
}

/// What stands in the way of reading the rows: that some would be hidden, or what the server said.
///
/// # Errors
/// The server cannot be asked.
pub(crate) async fn unreadable(
    from: &EndpointsFrom,
    client: &Client,
    cause: &ServerError,
) -> Result<SetupDiagnostic, StoreError> {
    let (table, what) = (from.table.to_string(), cause.to_string());
    if cause.sqlstate == SqlState::INSUFFICIENT_PRIVILEGE {
        // Both have one code: whether the rows that are seen may be read tells them apart.
        let seen = format!(
            "BEGIN; SET LOCAL row_security = on; EXPLAIN {}",
            question_of(from, None, &KeyedQuestion::Unkeyed)
        );
        let is_hidden = client.simple_query(&seen).await.is_ok();
        client.simple_query("ROLLBACK").await?;
        if is_hidden {
            let row = client.query_one("SELECT current_user::text", &[]).await?;
            let whose = format!("[endpoints_from], table {table},");
            return Ok(SetupDiagnostic::RowSecurity { whose, what, role: row.try_get(0)? });
        }
    }
    let lacks = grants::for_rows(client, &from.table).await?;
    let fix = grants::fix(&lacks, || {
        format!("correct [endpoints_from], or grant SELECT on {table} to walhook's role")
    });
    Ok(SetupDiagnostic::EndpointsTable { table, what, fix })
}
