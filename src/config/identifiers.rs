//! Names of tables and columns in the configuration, as SQL writes them.

use crate::config::sections::postgres::NAME_BYTES_MAX;
use crate::config::toml_file::toml_field::FieldReader;
use crate::flow::relation::TableName;

/// Schemas that are never captured: PostgreSQL's own, and walhook's, whose writes would raise
/// events about events.
const CLOSED_SCHEMAS: [&str; 3] = ["information_schema", "pg_catalog", "walhook"];

/// Where a table without a schema is.
const DEFAULT_SCHEMA: &str = "public";

pub(super) fn column(field: &FieldReader<'_>) -> Option<String> {
    let name = field.string()?;
    if (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.contains('\0') {
        return Some(name);
    }
    field.refuse(format!(
        "{} is not the name of a column: give 1 to {NAME_BYTES_MAX} bytes",
        field.shown()
    ))
}

pub(super) fn table(field: &FieldReader<'_>) -> Option<TableName> {
    let text = field.string()?;
    let Some(table) = table_name(&text) else {
        return field.refuse(format!(
            "{} is not the name of a table: write \"table\" or \"schema.table\", \
             and quote a part with other characters: '\"my.schema\".\"my table\"'",
            field.shown()
        ));
    };
    if CLOSED_SCHEMAS.contains(&table.schema.as_str()) {
        return field
            .refuse(format!("schema {} is never captured: remove the event", table.schema));
    }
    Some(table)
}

/// `table` or `schema.table`, as `\dt` shows them; a part with other characters than letters,
/// digits, `_`, `$` and `-` stands in double quotes, as in SQL.
pub(crate) fn table_name(text: &str) -> Option<TableName> {
    let parts = identifiers(text).filter(|parts| {
        parts.iter().all(|part| (1..=NAME_BYTES_MAX).contains(&part.len()) && !part.contains('\0'))
    });
    match parts.as_deref() {
        Some([name]) => Some(TableName::new(DEFAULT_SCHEMA, name)),
        Some([schema, name]) => Some(TableName::new(schema, name)),
        _ => None,
    }
}

/// The parts between dots, without quotes; `None` if the quoting or a character is wrong.
fn identifiers(text: &str) -> Option<Vec<String>> {
    let mut parts = Vec::new();
    let mut rest = text;
    loop {
        let (part, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_identifier(quoted)?,
            None => {
                let (part, after) = rest.split_at(rest.find('.').unwrap_or(rest.len()));
                let allowed = |c: char| c.is_alphanumeric() || matches!(c, '_' | '$' | '-');
                part.chars().all(allowed).then(|| (part.to_owned(), after))?
            }
        };
        parts.push(part);
        if after.is_empty() {
            return Some(parts);
        }
        rest = after.strip_prefix('.')?;
    }
}

/// A part up to its closing quote, and what follows; `""` stands for one quote.
fn quoted_identifier(text: &str) -> Option<(String, &str)> {
    let mut part = String::new();
    let mut rest = text;
    loop {
        let (before, after) = rest.split_once('"')?;
        part.push_str(before);
        match after.strip_prefix('"') {
            Some(after) => {
                part.push('"');
                rest = after;
            }
            None => return Some((part, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_names_are_split_at_dots_outside_of_quotes() {
        let cases: [(&str, Option<&[&str]>); 12] = [
            ("orders", Some(&["orders"])),
            ("public.orders", Some(&["public", "orders"])),
            ("Orders", Some(&["Orders"])),
            ("订单", Some(&["订单"])),
            (r#""a.b""#, Some(&["a.b"])),
            (r#""my schema"."a""b""#, Some(&["my schema", "a\"b"])),
            (r#"public."a b""#, Some(&["public", "a b"])),
            (r#""a"#, None),
            (r#""a"b"#, None),
            (r#"a"b"#, None),
            ("a b", None),
            ("a.b.c", Some(&["a", "b", "c"])),
        ];
        for (text, expected) in cases {
            let parts = identifiers(text);
            let parts: Option<Vec<&str>> =
                parts.as_ref().map(|parts| parts.iter().map(String::as_str).collect());
            assert_eq!(parts.as_deref(), expected, "case: {text}");
        }
    }
}
