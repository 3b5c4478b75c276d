//! The statements that give a role what a statement or a view of the user's needs: to be run as they stand.
//!
//! The server names what it denies without its schema and arguments, and in its own language. So the names
//! that stand in the statement are looked up instead: what they may mean, and what of it the role may not.

use std::collections::BTreeSet;

use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

use crate::flow::relation::TableName;
use crate::store::error::StoreError;

/// What may be meant by the names in $1, found where this session looks or in a schema that is named too,
/// and may not be used; of relations by the rights in $2.
const NAMED: &str = "
    SELECT 1 AS step, pg_catalog.format('GRANT USAGE ON SCHEMA %I TO %I;', n.nspname, current_user) AS sql
      FROM pg_catalog.pg_namespace n
     WHERE n.nspname::text = ANY ($1) AND NOT pg_catalog.has_schema_privilege(n.oid, 'USAGE')
    UNION
    SELECT 2, pg_catalog.format('GRANT EXECUTE ON %s %I.%I(%s) TO %I;',
               CASE p.prokind WHEN 'p' THEN 'PROCEDURE' ELSE 'FUNCTION' END, n.nspname, p.proname,
               pg_catalog.pg_get_function_identity_arguments(p.oid), current_user)
      FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
     WHERE p.proname::text = ANY ($1)
       AND (n.nspname::text = ANY ($1) OR pg_catalog.pg_function_is_visible(p.oid))
       AND NOT pg_catalog.has_function_privilege(p.oid, 'EXECUTE')
    UNION
    SELECT 3, pg_catalog.format('GRANT %s ON %I.%I TO %I;', pg_catalog.string_agg(wanted, ', '), n.nspname,
               c.relname, current_user)
      FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
      CROSS JOIN pg_catalog.unnest($2::text[]) AS wanted
     WHERE c.relname::text = ANY ($1) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
       AND (n.nspname::text = ANY ($1) OR pg_catalog.pg_table_is_visible(c.oid))
       AND NOT pg_catalog.has_table_privilege(c.oid, wanted)
     GROUP BY n.nspname, c.relname
     ORDER BY step, sql";

/// What the table or view $1.$2 itself wants of the role that reads it.
const OF_TABLE: &str = "
    SELECT 1 AS step, pg_catalog.format('GRANT USAGE ON SCHEMA %I TO %I;', n.nspname, current_user) AS sql
      FROM pg_catalog.pg_namespace n
     WHERE n.nspname = $1 AND NOT pg_catalog.has_schema_privilege(n.oid, 'USAGE')
    UNION
    SELECT 2, pg_catalog.format('GRANT SELECT ON %I.%I TO %I;', n.nspname, c.relname, current_user)
      FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = $1 AND c.relname = $2 AND NOT pg_catalog.has_table_privilege(c.oid, 'SELECT')
     ORDER BY step";

/// What the view $1.$2 uses and may not: functions count for the role that asks the view, relations for its owner
/// unless it is a security_invoker.
const OF_VIEW: &str = "
    WITH used AS (
        SELECT d.refclassid, d.refobjid, CASE
                   WHEN c.reloptions && ARRAY['security_invoker=true', 'security_invoker=on',
                                              'security_invoker=1', 'security_invoker=yes']
                   THEN current_user ELSE pg_catalog.pg_get_userbyid(c.relowner) END AS reader
          FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
          JOIN pg_catalog.pg_rewrite r ON r.ev_class = c.oid
          JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND d.objid = r.oid
         WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind = 'v' AND d.refobjid <> c.oid)
    SELECT pg_catalog.format('GRANT EXECUTE ON FUNCTION %I.%I(%s) TO %I;', n.nspname, p.proname,
               pg_catalog.pg_get_function_identity_arguments(p.oid), current_user) AS sql
      FROM used u JOIN pg_catalog.pg_proc p ON p.oid = u.refobjid
      JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
     WHERE u.refclassid = 'pg_catalog.pg_proc'::regclass
       AND NOT pg_catalog.has_function_privilege(p.oid, 'EXECUTE')
    UNION
    SELECT pg_catalog.format('GRANT SELECT ON %I.%I TO %I;', n.nspname, c.relname, u.reader)
      FROM used u JOIN pg_catalog.pg_class c ON c.oid = u.refobjid
      JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE u.refclassid = 'pg_catalog.pg_class'::regclass
       AND NOT pg_catalog.has_table_privilege(u.reader, c.oid, 'SELECT')
     ORDER BY sql";

/// What a statement needs and the role of this session lacks, in the order in which it is to be run.
///
/// # Errors
/// The server cannot be asked.
pub(crate) async fn for_statement(client: &Client, sql: &str) -> Result<Vec<String>, StoreError> {
    let names = names(sql);
    let has = |word: &str| names.contains(word);
    let mut rights = Vec::new();
    let reads = ["update", "delete", "select", "merge", "returning"];
    if reads.into_iter().any(has) {
        rights.push("SELECT");
    }
    for (word, right) in [("insert", "INSERT"), ("update", "UPDATE"), ("delete", "DELETE")] {
        if has(word) {
            rights.push(right);
        }
    }
    let names: Vec<&String> = names.iter().collect();
    let rows = client.query(NAMED, &[&names, &rights]).await?;
    Ok(rows.iter().map(|row| row.try_get(1)).collect::<Result<_, _>>()?)
}

/// What it takes to read the rows of a table or view, as far as the role of this session, or the owner of
/// the view, lacks it.
///
/// # Errors
/// The server cannot be asked.
pub(crate) async fn for_rows(
    client: &Client,
    table: &TableName,
) -> Result<Vec<String>, StoreError> {
    let of = [&table.schema as &(dyn ToSql + Sync), &table.name];
    let itself = client.query(OF_TABLE, &of).await?;
    let used = client.query(OF_VIEW, &of).await?;
    let mut all = Vec::new();
    for row in &itself {
        all.push(row.try_get(1)?);
    }
    for row in &used {
        all.push(row.try_get(0)?);
    }
    Ok(all)
}

/// As a fix; `otherwise` where nothing that lacks can be named.
pub(crate) fn fix(statements: &[String], otherwise: impl FnOnce() -> String) -> String {
    if statements.is_empty() { otherwise() } else { format!("run `{}`", statements.join(" ")) }
}

/// What stands in a statement as a name: folded as the server does, or as it is in quotes. Words of SQL
/// are among them, literals are not.
pub(crate) fn names(sql: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut rest = sql;
    while let Some(first) = rest.chars().next() {
        let ends = |quote: char| rest.get(1..).and_then(|after| after.find(quote));
        let taken = match first {
            '\'' => ends('\'').map_or(rest.len(), |at| at + 2),
            '"' => {
                let end = ends('"').map_or(rest.len(), |at| at + 1);
                names.extend(rest.get(1..end).map(ToOwned::to_owned));
                end + 1
            }
            c if c.is_alphabetic() || c == '_' => {
                let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '$');
                let end = rest.find(|c| !plain(c)).unwrap_or(rest.len());
                names.extend(rest.get(..end).map(str::to_lowercase));
                end
            }
            other => other.len_utf8(),
        };
        rest = rest.get(taken..).unwrap_or_default();
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_folded_unless_they_are_quoted_and_literals_are_none() {
        let of = |sql: &str| Vec::from_iter(names(sql)).join(" ");
        assert_eq!(of("SELECT App.Mark_1($1, 'x y', \"My Table\")"), "My Table app mark_1 select");
        assert_eq!(of("UPDATE \"a"), "a update");
        assert_eq!(of("a = 'it''s' AND \u{e4}b"), "a and \u{e4}b");
        assert_eq!(of(""), "");
    }
}
