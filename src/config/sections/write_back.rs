//! `write_back` of an `[[event]]`: what the source database is told of an event's end.

use std::sync::Arc;

use crate::config::identifiers;
use crate::config::settings::EventRule;
use crate::config::settings::LoggedAttempts;
use crate::config::settings::LoggedBodies;
use crate::config::settings::PushLogSettings;
use crate::config::settings::RowChangeSql;
use crate::config::settings::SqlPiece;
use crate::config::settings::WriteBackSettings;
use crate::config::toml_file::toml_field::FieldReader;

/// A longer word is a mistake.
const OUTCOME_CHARS_MAX: usize = 200;

/// A longer statement belongs into a function of the database.
const SQL_BYTES_MAX: usize = 4096;

/// Reads `{ column, delivered, failed }` or `{ sql, delivered, failed }`.
pub(crate) fn read(field: &FieldReader<'_>) -> Option<WriteBackSettings> {
    let mut section = field.section()?;
    let column = section.read("column", identifiers::column).map(RowChangeSql::Column);
    let sql = section.read("sql", statement).map(RowChangeSql::Statement);
    let missing = "is missing: give the word for an event that every endpoint took";
    let delivered = section.require("delivered", missing, outcome);
    let missing = "is missing: give the word for an event that an endpoint did not take";
    let failed = section.require("failed", missing, outcome);
    if section.has("column") == section.has("sql") {
        field.note("must hold exactly one of `column` and `sql`");
    }
    section.finish();
    Some(WriteBackSettings { delivered: delivered?, failed: failed?, change: column.or(sql)? })
}

/// What the push log would have to keep for it, if it does not.
pub(crate) fn unkept(rule: &EventRule, push_log: PushLogSettings) -> Option<String> {
    let terms = rule.write_back.as_ref()?;
    let has_bodies = push_log.bodies == LoggedBodies::All;
    let has_errors = push_log.attempts != LoggedAttempts::Off;
    let is_kept = (has_bodies || !terms.says_bodies()) && (has_errors || !terms.says_answers());
    (!is_kept).then(|| {
        let bodies = if terms.says_bodies() { " and `bodies = \"all\"`" } else { "" };
        format!(
            "does not keep what endpoints answer, which the write_back of {} says: set \
             `attempts = \"all\"`{bodies}",
            rule.event_type
        )
    })
}

fn outcome(field: &FieldReader<'_>) -> Option<String> {
    let text = field.string()?;
    if text.chars().count() <= OUTCOME_CHARS_MAX && !text.contains('\0') {
        return Some(text);
    }
    field.refuse(format!("is no word for a column: give up to {OUTCOME_CHARS_MAX} characters"))
}

fn statement(field: &FieldReader<'_>) -> Option<Arc<[SqlPiece]>> {
    let text = field.string()?;
    if text.len() > SQL_BYTES_MAX {
        return field.refuse(format!(
            "is longer than {SQL_BYTES_MAX} bytes: call a function of the database"
        ));
    }
    pieces(&text).map_or_else(|message| field.refuse(message), |pieces| Some(pieces.into()))
}

/// Splits a statement at its `{{ }}`.
fn pieces(text: &str) -> Result<Vec<SqlPiece>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) =
            after.split_once("}}").ok_or("has `{{` without `}}`: close it".to_owned())?;
        pieces.push(literal(before)?);
        pieces.push(place(name.trim())?);
        rest = after;
    }
    pieces.push(literal(rest)?);
    pieces.retain(|piece| !matches!(piece, SqlPiece::Literal(text) if text.is_empty()));
    if pieces.iter().all(|piece| matches!(piece, SqlPiece::Literal(_))) {
        return Err("names no row: write {{ outcome }} and the columns that find it, such as \
                    {{ id }}"
            .to_owned());
    }
    Ok(pieces)
}

/// Places become parameters, so the text must have none of its own.
fn literal(text: &str) -> Result<SqlPiece, String> {
    let numbered =
        |(_, after): (usize, &str)| after.as_bytes().get(1).is_some_and(u8::is_ascii_digit);
    let mut dollars = text.match_indices('$').filter_map(|(at, _)| Some((at, text.get(at..)?)));
    if dollars.any(numbered) {
        return Err("has a numbered parameter: write {{ outcome }}, {{ event_id }} or \
                    {{ column }} in its place"
            .to_owned());
    }
    Ok(SqlPiece::Literal(text.to_owned()))
}

fn place(name: &str) -> Result<SqlPiece, String> {
    let column = name.strip_prefix("row.");
    match (name, column) {
        ("outcome", _) => Ok(SqlPiece::Outcome),
        ("event_id", _) => Ok(SqlPiece::EventId),
        ("error", _) => Ok(SqlPiece::Error),
        (_, None) if name.starts_with("response.") => response(name),
        (_, column) => {
            let column = column.unwrap_or(name);
            let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '$');
            if column.is_empty() || !column.chars().all(plain) {
                return Err(format!(
                    "has {{{{ {name} }}}}: only outcome, event_id, error, response.NAME and columns stand here, \
                     without any computation"
                ));
            }
            Ok(SqlPiece::Column(column.to_owned()))
        }
    }
}

/// `response.msgid`: a place in the JSON of an answer.
fn response(name: &str) -> Result<SqlPiece, String> {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '$' | '-');
    let is_plain = |part: &str| !part.is_empty() && part.chars().all(plain);
    let parts: Vec<&str> = name.split('.').skip(1).collect();
    if parts.iter().all(|part| is_plain(part)) {
        return Ok(SqlPiece::Response(format!("/{}", parts.join("/"))));
    }
    Err(format!("has {{{{ {name} }}}}: write names of the answer's JSON, such as response.msgid"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_become_parameters_and_the_rest_stays_as_it_is() {
        let sql = "UPDATE t SET s = {{ outcome }} WHERE id = {{id}} AND o = {{ row.outcome }}";
        let text = |text: &str| SqlPiece::Literal(text.to_owned());
        let column = |name: &str| SqlPiece::Column(name.to_owned());
        let expected = [
            text("UPDATE t SET s = "),
            SqlPiece::Outcome,
            text(" WHERE id = "),
            column("id"),
            text(" AND o = "),
            column("outcome"),
        ];
        assert_eq!(pieces(sql).unwrap(), expected);
        let of = |sql: &str| pieces(sql).unwrap().get(1).cloned().unwrap();
        let response = |pointer: &str| SqlPiece::Response(pointer.to_owned());
        assert_eq!(of("CALL f({{ response.msgid }})"), response("/msgid"));
        assert_eq!(of("CALL f({{ response.data.0.id }})"), response("/data/0/id"));
        assert_eq!(of("CALL f({{ error }})"), SqlPiece::Error);
        assert_eq!(of("CALL f({{ row.error }})"), column("error"));
        assert_eq!(pieces("CALL f({{ event_id }})").unwrap().get(1), Some(&SqlPiece::EventId));
    }

    #[test]
    fn what_it_says_must_be_kept() {
        let said = |place: &str, log: &str| {
            let text = format!(
                "[postgres]\nurl = 'postgres://u@db/app'\n[push_log]\n{log}\n\
                 [[event]]\ntype = 'm'\ntable = 'public.m'\n\
                 write_back = {{ sql = 'SELECT f({{{{ id }}}}, {{{{ {place} }}}})', delivered = 'y', \
                 failed = 'n' }}\n\
                 [[endpoint]]\nname = 'e'\nurl = 'http://h.test/'\n"
            );
            let read = crate::config::parse(&text, "walhook.toml", &|_| None);
            read.map_or_else(|problems| problems.to_string(), |_| String::new())
        };
        for (place, log) in [
            ("response.msgid", ""),
            ("response.msgid", "bodies = 'failures'"),
            ("error", "attempts = 'off'"),
        ] {
            let told = said(place, log);
            assert!(told.contains("does not keep what endpoints answer"), "{place} {log}: {told}");
        }
        for (place, log) in [
            ("response.msgid", "bodies = 'all'"),
            ("error", ""),
            ("error", "attempts = 'failures'"),
            ("outcome", "attempts = 'off'"),
        ] {
            assert_eq!(said(place, log), "", "{place} {log}");
        }
    }

    #[test]
    fn what_could_not_be_filled_in_is_refused() {
        let cases = [
            ("UPDATE t SET s = 1", "names no row"),
            ("UPDATE t SET s = $1 WHERE id = {{ id }}", "numbered parameter"),
            ("SELECT '$5', {{ id }}", "numbered parameter"),
            ("SELECT {{ id", "without `}}`"),
            ("SELECT {{ id + 1 }}", "{{ id + 1 }}"),
            ("SELECT {{ }}", "without any computation"),
            ("SELECT {{ response. }}", "response.msgid"),
            ("SELECT {{ response.a b }}", "response.msgid"),
        ];
        for (sql, expected) in cases {
            let message = pieces(sql).unwrap_err();
            assert!(message.contains(expected), "case: {sql}: {message}");
        }
        assert!(pieces("SELECT $$quoted$$ || {{ id }}").is_ok());
    }
}
