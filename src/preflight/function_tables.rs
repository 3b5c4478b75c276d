//! Functions and triggers of write-backs that name tables whose rows are hidden from the role that they run as.
//!
//! What they do with a table shows only when they run: then PostgreSQL refuses the statement, or, where a
//! function switches row security on for itself, writes nothing. Their text says beforehand which tables
//! they may mean; it is no proof, so it is a warning.

use tokio_postgres::Client;

use crate::config::settings::EventRule;
use crate::config::settings::RowChangeSql;
use crate::config::settings::WriteBackSettings;
use crate::flow::quote::identifier;
use crate::preflight::grants;
use crate::replication::catalog::CheckFinding;
use crate::store::error::StoreError;
use crate::store::row_change;

/// Functions by the names in $1, and triggers of the table $2.$3, with each table that their text names
/// and that hides rows from whom they run as.
const HIDDEN: &str = r"
    SELECT DISTINCT pg_catalog.format('%I.%I', fn.nspname, p.proname),
           pg_catalog.format('%I.%I', tn.nspname, t.relname), r.rolname::text,
           pg_catalog.pg_has_role(r.oid, t.relowner, 'USAGE')
      FROM pg_catalog.pg_proc p
      JOIN pg_catalog.pg_namespace fn ON fn.oid = p.pronamespace
       AND fn.nspname NOT IN ('pg_catalog', 'information_schema')
      JOIN pg_catalog.pg_roles r ON CASE WHEN p.prosecdef THEN r.oid = p.proowner
                                         ELSE r.rolname = current_user END
       AND NOT r.rolsuper AND NOT r.rolbypassrls
      JOIN pg_catalog.pg_class t ON t.relrowsecurity AND t.relkind IN ('r', 'p')
       AND (t.relforcerowsecurity OR NOT pg_catalog.pg_has_role(r.oid, t.relowner, 'USAGE'))
      JOIN pg_catalog.pg_namespace tn ON tn.oid = t.relnamespace
     WHERE (p.proname::text = ANY ($1)
            AND (fn.nspname::text = ANY ($1) OR pg_catalog.pg_function_is_visible(p.oid))
         OR p.oid IN (SELECT g.tgfoid FROM pg_catalog.pg_trigger g
                      JOIN pg_catalog.pg_class c ON c.oid = g.tgrelid
                      JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                      WHERE n.nspname = $2 AND c.relname = $3 AND g.tgenabled <> 'D'
                        AND NOT g.tgisinternal))
       AND coalesce(pg_catalog.pg_get_function_sqlbody(p.oid), p.prosrc) ~* ('\m'
           || pg_catalog.regexp_replace(t.relname::text, '([^[:alnum:]_])', '\\\1', 'g') || '\M')
     ORDER BY 1, 2";

/// A warning for each function and table.
///
/// # Errors
/// The server cannot be asked.
pub(crate) async fn findings(
    client: &Client,
    rule: &EventRule,
    terms: &WriteBackSettings,
) -> Result<Vec<CheckFinding>, StoreError> {
    let names: Vec<String> = match &terms.change {
        RowChangeSql::Column(_) => Vec::new(),
        RowChangeSql::Statement(pieces) => {
            grants::names(&row_change::text(pieces)).into_iter().collect()
        }
    };
    let (table, event) = (&rule.table, &rule.event_type);
    let rows = client.query(HIDDEN, &[&names, &table.schema, &table.name]).await?;
    let mut findings = Vec::new();
    for row in &rows {
        let (function, hidden, role): (String, String, String) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let quoted = identifier(&role);
        let owns: bool = row.try_get(3)?;
        let otherwise = match owns {
            true => format!(", or `ALTER TABLE {hidden} NO FORCE ROW LEVEL SECURITY;`"),
            false => String::new(),
        };
        findings.push(CheckFinding::warning(
            format!(
                "the write-back of event {event} runs {function}, which names {hidden}: row-level security \
                 hides rows of it from role {role}, so the outcome is refused, or not written"
            ),
            format!("run `ALTER ROLE {quoted} BYPASSRLS;` as a superuser{otherwise}"),
        ));
    }
    Ok(findings)
}
