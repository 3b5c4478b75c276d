//! The question for the rows, and why it may be refused.

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::config::endpoints_from::ENDPOINTS_MAX;
use crate::config::endpoints_from::EndpointsFrom;
use crate::config::settings::Settings;
use crate::replication::diagnostic::SetupDiagnostic;
use crate::store::error::ServerError;
use crate::preflight::grants;
use crate::store::error::StoreError;
use crate::store::error::is_transient_state;

/// Rows that are read: enough to say how many are too many.
const ROWS_MAX: usize = 20 * ENDPOINTS_MAX;

pub(super) fn question(from: &EndpointsFrom) -> String {
    let quoted = |column: &String| format!("\"{}\"", column.replace('"', "\"\""));
    let columns: Vec<String> = from.columns().iter().map(quoted).collect();
    let mut order: Vec<String> =
        from.name_columns().iter().map(|name| quoted(name) + "::text COLLATE \"C\"").collect();
    // Of rows with one name it is always the same one that counts.
    order.push(String::from("r::text COLLATE \"C\""));
    format!(
        "SELECT pg_catalog.to_jsonb(r)::pg_catalog.text FROM (SELECT {} FROM {}) r ORDER BY {} LIMIT {ROWS_MAX}",
        columns.join(", "),
        from.table.quoted(),
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
    let explain = format!("EXPLAIN {}", question(from));
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
        let seen = format!("BEGIN; SET LOCAL row_security = on; EXPLAIN {}", question(from));
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
