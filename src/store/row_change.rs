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
use tokio_postgres::types::Kind;
use tokio_postgres::types::ToSql;
use tokio_postgres::types::Type;
use tokio_postgres::types::to_sql_checked;

use crate::config::settings::RowChangeSql;
use crate::config::settings::SqlPiece;
use crate::config::settings::WriteBackSettings;
use crate::flow::event::EventId;
use crate::flow::quote::identifier;
use crate::flow::relation::TableName;
use crate::flow::write_back::MARK;
use crate::flow::write_back::TargetRow;
use crate::store::SEARCH_PATH;
use crate::store::endpoint_answers::Answered;
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

/// A row of which nothing is known but the columns that a write-back needs of it.
pub(crate) fn any_row(terms: &WriteBackSettings, key: &[String]) -> TargetRow {
    let columns = key.iter().chain(terms.columns());
    TargetRow {
        key: key.iter().map(|column| column.as_str().into()).collect(),
        values: columns.map(|column| (column.as_str().into(), None)).collect(),
        owed: 1,
    }
}

/// A statement with nothing in its places: what it names.
pub(crate) fn text(pieces: &[SqlPiece]) -> String {
    let literals = pieces.iter().map(|piece| match piece {
        SqlPiece::Literal(text) => text.as_str(),
        _ => " ",
    });
    literals.collect()
}

/// Whether it calls a procedure, of which PostgreSQL says beforehand only that it is there.
pub(crate) fn is_call(terms: &WriteBackSettings) -> bool {
    let RowChangeSql::Statement(pieces) = &terms.change else { return false };
    let first = text(pieces);
    first.split_whitespace().next().is_some_and(|word| word.eq_ignore_ascii_case("call"))
}

/// The first place of the statement that has no type of its own, so that no value can be put there: where
/// a row of any type may stand.
///
/// # Errors
/// PostgreSQL does not understand the statement.
pub(crate) async fn untyped_place(
    client: &Client,
    terms: &WriteBackSettings,
    table: &TableName,
    row: &TargetRow,
) -> Result<Option<String>, StateError> {
    let RowChangeSql::Statement(pieces) = &terms.change else { return Ok(None) };
    let answered = Answered::default();
    let statement = statement(terms, table, row, ("", &answered), "evt_");
    let unknown = vec![Type::UNKNOWN; statement.values.len()];
    let prepared = client.prepare_typed(&statement.sql, &unknown).await?;
    let places = pieces.iter().filter_map(SqlPiece::place).zip(prepared.params());
    let mut untyped = places.filter(|(_, sql_type)| *sql_type.kind() == Kind::Pseudo);
    Ok(untyped.next().map(|(place, _)| place))
}

/// Asks PostgreSQL to plan both outcomes for this row: finds what is missing, rights included, and
/// changes nothing. With `hidden`, row-level security may hide rows; without, it is an error.
///
/// # Errors
/// What would be wrong with the write-back: of [`any_row`], with every one.
pub(crate) async fn explain(
    client: &mut Client,
    terms: &WriteBackSettings,
    table: &TableName,
    row: &TargetRow,
    hidden: bool,
) -> Result<(), StateError> {
    let security = if hidden { "on" } else { "off" };
    for outcome in [&terms.delivered, &terms.failed] {
        let tx = client.transaction().await?;
        tx.batch_execute(&format!(
            "SET LOCAL statement_timeout = 2000; SET LOCAL lock_timeout = 1000; \
             SET LOCAL row_security = {security}"
        ))
        .await?;
        let said = (outcome.as_str(), &Answered::default());
        let statement = statement(terms, table, row, said, "evt_");
        if is_call(terms) {
            // Which has no plan.
            tx.prepare_typed(&statement.sql, &vec![Type::UNKNOWN; statement.values.len()]).await?;
        } else {
            tx.execute_typed(&format!("EXPLAIN {}", statement.sql), &statement.params()).await?;
        }
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
            let name = identifier(column);
            let mut sql = format!("UPDATE {} SET {name} = $1 WHERE ", table.quoted());
            let mut values = vec![text(Some(outcome))];
            for key in &target.key {
                values.push(text(target.value(key).flatten()));
                // A String takes everything.
                let key = identifier(key);
                let _infallible = write!(sql, "{key} = {} AND ", typed(&key, values.len()));
            }
            values.push(text(target.value(column).flatten()));
            values.extend([text(Some(&terms.delivered)), text(Some(&terms.failed))]);
            let (seen, last) = (values.len() - 2, values.len());
            let _infallible = write!(
                sql,
                "({name} IS NOT DISTINCT FROM {} OR {name} IN ({}, {}))",
                typed(&name, seen),
                typed(&name, seen + 1),
                typed(&name, last)
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

/// A parameter of the column's own type. Beside an operator alone it would get the type that the operator
/// has: `record` for a row type, whose values cannot be read, and a number for `regclass`. The branches of a
/// CASE have one type, and it is gone before the statement is planned.
fn typed(column: &str, place: usize) -> String {
    format!("CASE WHEN false THEN {column} ELSE ${place} END")
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
            "UPDATE \"s\".\"t\" SET \"status\" = $1 WHERE \
             \"a\"\"b\" = CASE WHEN false THEN \"a\"\"b\" ELSE $2 END AND \
             \"n\" = CASE WHEN false THEN \"n\" ELSE $3 END AND \
             (\"status\" IS NOT DISTINCT FROM CASE WHEN false THEN \"status\" ELSE $4 END OR \"status\" IN \
             (CASE WHEN false THEN \"status\" ELSE $5 END, CASE WHEN false THEN \"status\" ELSE $6 END))"
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
