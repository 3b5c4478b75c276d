//! The statement of a write-back, and its transaction in the source database.
//!
//! Values go as text whose types PostgreSQL finds out itself, as if they stood in quotes in the
//! statement: a column may be of any type, and no value can change what the statement does.

use std::error::Error;
use std::fmt::Write;
use std::time::Duration;

use bytes::BufMut;
use bytes::BytesMut;
use tokio_postgres::Client;
use tokio_postgres::Transaction;
use tokio_postgres::types::Format;
use tokio_postgres::types::IsNull;
use tokio_postgres::types::ToSql;
use tokio_postgres::types::Type;
use tokio_postgres::types::to_sql_checked;

use crate::config::settings::RowChangeSql;
use crate::config::settings::SqlPiece;
use crate::config::settings::WriteBackSettings;
use crate::flow::event::EventId;
use crate::flow::relation::TableName;
use crate::flow::write_back::MARK;
use crate::flow::write_back::TargetRow;
use crate::store::SEARCH_PATH;
use crate::store::answered::Answered;
use crate::store::sql::SqlParams;
use crate::store::state_error::StateError;

/// A statement with its values.
#[derive(Debug)]
struct ChangeStatement<'a> {
    sql: String,
    values: Vec<AsText<'a>>,
}

/// A parameter of whatever type the statement asks for.
#[derive(Debug)]
struct AsText<'a>(Option<std::borrow::Cow<'a, str>>);

impl ToSql for AsText<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        let Some(text) = &self.0 else { return Ok(IsNull::Yes) };
        out.put_slice(text.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    to_sql_checked!();
}

/// Marks the transaction as a write-back of `slot`, before anything else, and limits how long its
/// statements may take and wait for locks. What they name, and the triggers that they fire, is looked
/// for where the role looks.
pub(crate) async fn begin(
    tx: &Transaction<'_>,
    slot: &str,
    statement: Duration,
    lock: Duration,
) -> Result<(), StateError> {
    let (statement, lock) = (statement.as_millis(), lock.as_millis());
    tx.batch_execute(&format!(
        "SET LOCAL statement_timeout = {statement}; SET LOCAL lock_timeout = {lock}; \
         SET LOCAL row_security = off"
    ))
    .await?;
    user_code(tx).await?;
    let mut params = SqlParams::default();
    params.put(Type::TEXT, MARK);
    params.put(Type::TEXT, slot);
    tx.execute_typed("SELECT pg_catalog.pg_logical_emit_message(true, $1, $2)", &params.list())
        .await?;
    Ok(())
}

/// From here on the transaction's statements are walhook's own.
pub(crate) async fn own_statements(tx: &Transaction<'_>) -> Result<(), StateError> {
    Ok(tx.batch_execute(&format!("SET LOCAL search_path = {SEARCH_PATH}")).await?)
}

/// From here on the transaction's statements may run the user's code, deferred triggers too.
pub(crate) async fn user_code(tx: &Transaction<'_>) -> Result<(), StateError> {
    Ok(tx.batch_execute("SET LOCAL search_path TO DEFAULT").await?)
}

/// Writes one outcome; gives the number of rows that it changed.
pub(crate) async fn apply(
    tx: &Transaction<'_>,
    terms: &WriteBackSettings,
    table: &TableName,
    event: EventId,
    target: &TargetRow,
    (delivered, answered): (bool, &Answered),
) -> Result<u64, StateError> {
    let outcome = if delivered { &terms.delivered } else { &terms.failed };
    let id = event.to_string();
    let statement = statement(terms, table, target, (outcome, answered), &id);
    Ok(tx.execute_typed(&statement.sql, &statement.params()).await?)
}

/// Asks PostgreSQL to plan both outcomes for a row with this key: finds what is missing, rights
/// included, and changes nothing. With `hidden`, row-level security may hide rows; without, it is an
/// error.
///
/// # Errors
/// What would be wrong with every write-back.
pub async fn explain(
    client: &mut Client,
    terms: &WriteBackSettings,
    table: &TableName,
    key: &[String],
    hidden: bool,
) -> Result<(), StateError> {
    let security = if hidden { "on" } else { "off" };
    let columns = key.iter().chain(terms.columns());
    let target = TargetRow {
        key: key.iter().map(|column| column.as_str().into()).collect(),
        values: columns.map(|column| (column.as_str().into(), None)).collect(),
        owed: 1,
    };
    for outcome in [&terms.delivered, &terms.failed] {
        let tx = client.transaction().await?;
        tx.batch_execute(&format!(
            "SET LOCAL statement_timeout = 2000; SET LOCAL lock_timeout = 1000; \
             SET LOCAL row_security = {security}"
        ))
        .await?;
        let said = (outcome.as_str(), &Answered::default());
        let statement = statement(terms, table, &target, said, "evt_");
        tx.execute_typed(&format!("EXPLAIN {}", statement.sql), &statement.params()).await?;
        tx.rollback().await?;
    }
    Ok(())
}

impl ChangeStatement<'_> {
    fn params(&self) -> Vec<(&(dyn ToSql + Sync), Type)> {
        let mut list: Vec<(&(dyn ToSql + Sync), Type)> = Vec::with_capacity(self.values.len());
        for value in &self.values {
            list.push((value, Type::UNKNOWN));
        }
        list
    }
}

fn statement<'a>(
    terms: &'a WriteBackSettings,
    table: &TableName,
    target: &'a TargetRow,
    (outcome, answered): (&'a str, &'a Answered),
    event: &'a str,
) -> ChangeStatement<'a> {
    let text = |text: Option<&'a str>| AsText(text.map(Into::into));
    match &terms.change {
        RowChangeSql::Column(column) => {
            let name = quoted(column);
            let mut sql = format!("UPDATE {} SET {name} = $1 WHERE ", table.quoted());
            let mut values = vec![text(Some(outcome))];
            for key in &target.key {
                values.push(text(target.value(key).flatten()));
                // A String takes everything.
                let _infallible = write!(sql, "{} = ${} AND ", quoted(key), values.len());
            }
            values.push(text(target.value(column).flatten()));
            values.extend([text(Some(&terms.delivered)), text(Some(&terms.failed))]);
            let (seen, last) = (values.len() - 2, values.len());
            let _infallible = write!(
                sql,
                "({name} IS NOT DISTINCT FROM ${seen} OR {name} IN (${}, ${last}))",
                seen + 1
            );
            ChangeStatement { sql, values }
        }
        RowChangeSql::Statement(pieces) => {
            let (mut sql, mut values) = (String::new(), Vec::new());
            for piece in pieces.iter() {
                values.push(match piece {
                    SqlPiece::Literal(literal) => {
                        sql.push_str(literal);
                        continue;
                    }
                    SqlPiece::Outcome => text(Some(outcome)),
                    SqlPiece::EventId => text(Some(event)),
                    SqlPiece::Column(column) => text(target.value(column).flatten()),
                    SqlPiece::Response(pointer) => AsText(answered.at(pointer).map(Into::into)),
                    SqlPiece::Error => text(answered.error.as_deref()),
                });
                let _infallible = write!(sql, "${}", values.len());
            }
            ChangeStatement { sql, values }
        }
    }
}

fn quoted(column: &str) -> String {
    format!("\"{}\"", column.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> TargetRow {
        let values = [("a\"b", Some("1")), ("n", Some("x")), ("status", None)];
        TargetRow {
            key: vec!["a\"b".into(), "n".into()],
            values: values.map(|(name, value)| (name.into(), value.map(ToOwned::to_owned))).into(),
            owed: 1,
        }
    }

    fn shown(change: RowChangeSql) -> (String, Vec<Option<String>>) {
        let terms =
            WriteBackSettings { delivered: "ok".to_owned(), failed: "bad".to_owned(), change };
        let target = target();
        let table = TableName::new("s", "t");
        let response = Some(serde_json::json!({ "msgid": "m1" }));
        let answered = Answered { response, error: Some("no".to_owned()) };
        let statement = statement(&terms, &table, &target, ("ok", &answered), "evt_1");
        let values = statement.values.iter().map(|v| v.0.as_ref().map(ToString::to_string));
        (statement.sql.clone(), values.collect())
    }

    #[test]
    fn a_column_is_written_by_key_while_it_says_what_it_said() {
        let (sql, values) = shown(RowChangeSql::Column("status".to_owned()));
        assert_eq!(
            sql,
            "UPDATE \"s\".\"t\" SET \"status\" = $1 WHERE \"a\"\"b\" = $2 AND \"n\" = $3 AND \
             (\"status\" IS NOT DISTINCT FROM $4 OR \"status\" IN ($5, $6))"
        );
        let texts = [Some("ok"), Some("1"), Some("x"), None, Some("ok"), Some("bad")];
        assert_eq!(values, texts.map(|text| text.map(ToOwned::to_owned)));
    }

    #[test]
    fn places_of_a_statement_become_parameters() {
        let literal = |text: &str| SqlPiece::Literal(text.to_owned());
        let pieces = [
            literal("SELECT f("),
            SqlPiece::Outcome,
            literal(", "),
            SqlPiece::Column("n".to_owned()),
            literal(", "),
            SqlPiece::EventId,
            literal(", "),
            SqlPiece::Response("/msgid".to_owned()),
            literal(", "),
            SqlPiece::Error,
            literal(")"),
        ];
        let (sql, values) = shown(RowChangeSql::Statement(pieces.into()));
        assert_eq!(sql, "SELECT f($1, $2, $3, $4, $5)");
        assert_eq!(values, ["ok", "x", "evt_1", "m1", "no"].map(|text| Some(text.to_owned())));
    }
}
