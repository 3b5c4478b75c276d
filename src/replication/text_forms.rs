//! What of a database's texts does not arrive as the server shows it: for `check` and the start.

use tokio_postgres::Client;

use crate::flow::relation::TableName;
use crate::replication::catalog::CheckFinding;
use crate::store::error::StoreError;

/// Encodings of which every character has a form in UTF-8, and every byte is one.
const SOUND: [&str; 16] = [
    "UTF8",
    "LATIN1",
    "LATIN2",
    "LATIN3",
    "LATIN4",
    "LATIN5",
    "LATIN6",
    "LATIN7",
    "LATIN8",
    "LATIN9",
    "LATIN10",
    "ISO_8859_5",
    "KOI8R",
    "KOI8U",
    "WIN866",
    "WIN1251",
];

/// Types that have a cast to json, which `to_jsonb` uses, in tables of the schemas `$1` and names
/// `$2`; but for hstore, which is written as the server does.
const CASTS: &str = "
    SELECT DISTINCT format('%s.%s', n.nspname, r.relname), a.attname::text, t.typname::text
    FROM unnest($1::text[], $2::text[]) AS wanted (schema, name)
    JOIN pg_catalog.pg_namespace n ON n.nspname = wanted.schema
    JOIN pg_catalog.pg_class r ON r.relnamespace = n.oid AND r.relname = wanted.name
    JOIN pg_catalog.pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
    JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
    JOIN pg_catalog.pg_cast c ON c.castsource = t.oid
     AND c.casttarget = 'pg_catalog.json'::regtype AND c.castfunc <> 0
    WHERE t.oid >= 16384 AND t.typname <> 'hstore'
    ORDER BY 1, 2";

/// The database's encoding, and columns whose JSON is not the server's.
///
/// # Errors
/// The server cannot be asked.
pub(crate) async fn findings(
    client: &Client,
    tables: &[TableName],
) -> Result<Vec<CheckFinding>, StoreError> {
    let question = "SELECT pg_catalog.current_setting('server_encoding')";
    let row = client.query_one(question, &[]).await?;
    let mut findings = vec![encoding(row.try_get(0)?)];
    let schemas: Vec<&str> = tables.iter().map(|table| table.schema.as_str()).collect();
    let names: Vec<&str> = tables.iter().map(|table| table.name.as_str()).collect();
    for row in client.query(CASTS, &[&schemas, &names]).await? {
        let (table, column, name): (&str, &str, &str) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        findings.push(CheckFinding::warning(
            format!(
                "column {column} of {table} is sent as the text of its type {name}: the type's cast to \
                 json is the server's, and is not in the stream"
            ),
            format!("to send JSON, add a generated column, or one that a trigger fills: {column}::json"),
        ));
    }
    Ok(findings)
}

fn encoding(encoding: &str) -> CheckFinding {
    if encoding == "SQL_ASCII" {
        return CheckFinding::warning(
            String::from(
                "the database's encoding is SQL_ASCII: PostgreSQL does not know what its bytes mean, and \
                 what is no UTF-8 is sent as U+FFFD",
            ),
            String::from("to keep every character, store UTF-8 only, or move to a UTF8 database"),
        );
    }
    if SOUND.contains(&encoding) {
        return CheckFinding::ok(format!("encoding {encoding}: every text can be sent"));
    }
    CheckFinding::warning(
        format!(
            "the database's encoding is {encoding}: PostgreSQL cannot send a row with bytes in it that \
             are no character in UTF-8, and walhook stops there"
        ),
        String::from(
            "keep such bytes out; the message names the transaction, and `walhook run \
             --skip-transaction LSN` goes on without it",
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replication::catalog::FindingLevel;

    #[test]
    fn encodings_that_may_fail_are_named() {
        for (name, level, part) in [
            ("UTF8", FindingLevel::Ok, "UTF8"),
            ("LATIN1", FindingLevel::Ok, "every text"),
            ("SQL_ASCII", FindingLevel::Warning, "U+FFFD"),
            ("WIN1252", FindingLevel::Warning, "WIN1252"),
            ("EUC_JP", FindingLevel::Warning, "EUC_JP"),
        ] {
            let finding = encoding(name);
            assert_eq!(finding.level, level, "case: {name}");
            assert!(finding.what.contains(part), "{}", finding.what);
        }
    }
}
