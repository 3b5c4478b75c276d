//! Envelopes that others have specified: CloudEvents and Debezium's.

use http::HeaderName;
use http::HeaderValue;
use http::header::CONTENT_TYPE;

use crate::config::settings::CloudEventsMode;
use crate::event::datum;
use crate::event::row_object;
use crate::event::scope::EvaluationScope;
use crate::event::writer::JsonWriter;
use crate::event::writer::NamedColumn;
use crate::flow::change::ChangeOp;
use crate::flow::relation::TableName;

/// CloudEvents 1.0, what is the same for all events of one rule and table.
#[derive(Debug)]
pub(crate) struct CloudEvents {
    pub(crate) mode: CloudEventsMode,
    /// Where the event comes from, a URI reference: `/schema/table`.
    source: String,
    event_type: String,
}

impl CloudEvents {
    pub(crate) fn new(mode: CloudEventsMode, table: &TableName, event_type: &str) -> Self {
        let source =
            format!("/{}/{}", percent_encoded(&table.schema), percent_encoded(&table.name));
        Self { mode, source, event_type: event_type.to_owned() }
    }

    pub(crate) fn write(
        &self,
        out: &mut JsonWriter,
        columns: &[NamedColumn],
        scope: &EvaluationScope<'_>,
    ) {
        let change = scope.change;
        if self.mode == CloudEventsMode::Binary {
            return row_object::data(out, columns, change);
        }
        out.raw("{\"specversion\":\"1.0\",\"id\":\"");
        out.raw(scope.id.to_string());
        out.raw("\",\"source\":");
        out.string(self.source.as_bytes());
        out.raw(",\"type\":");
        out.string(self.event_type.as_bytes());
        out.raw(",\"time\":\"");
        out.raw(change.committed.iso_millis());
        // An extension attribute: one type may stand for several operations.
        out.raw("\",\"operation\":\"");
        out.raw(row_object::op(&change.op));
        out.raw("\",\"datacontenttype\":\"application/json\",\"data\":");
        row_object::data(out, columns, change);
        out.raw("}");
    }

    /// CloudEvents, HTTP protocol binding 1.0: in binary mode each attribute is a header.
    pub(crate) fn headers(&self, scope: &EvaluationScope<'_>) -> Vec<(HeaderName, HeaderValue)> {
        if self.mode == CloudEventsMode::Structured {
            let structured = "application/cloudevents+json; charset=utf-8";
            return vec![(CONTENT_TYPE, HeaderValue::from_static(structured))];
        }
        let attributes = [
            ("ce-specversion", String::from("1.0")),
            ("ce-id", scope.id.to_string()),
            ("ce-source", self.source.clone()),
            ("ce-type", self.event_type.clone()),
            ("ce-time", scope.change.committed.iso_millis()),
            ("ce-operation", row_object::op(&scope.change.op).to_owned()),
        ];
        let header = |(name, value): (&'static str, String)| {
            // Ids and types are visible ASCII, and so is what is percent-encoded.
            let value = HeaderValue::try_from(value).ok()?;
            Some((HeaderName::from_static(name), value))
        };
        attributes.into_iter().filter_map(header).collect()
    }
}

/// All but the unreserved characters of RFC 3986.
fn percent_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// Debezium's change event, without its schema part: `before`, `after`, `source`, `op`, `ts_ms`.
/// Values are JSON as everywhere in walhook, not Debezium's encodings.
pub(crate) fn debezium(out: &mut JsonWriter, columns: &[NamedColumn], scope: &EvaluationScope<'_>) {
    let change = scope.change;
    out.raw("{\"before\":");
    match row_object::old_of(&change.op) {
        Some(old) => row_object::old_object(out, columns, old, change),
        None => out.raw("null"),
    }
    out.raw(",\"after\":");
    match &change.op {
        ChangeOp::Insert { .. } | ChangeOp::Update { .. } | ChangeOp::Read { .. } => {
            row_object::data(out, columns, change);
        }
        ChangeOp::Delete { .. } | ChangeOp::Truncate | ChangeOp::Schema => out.raw("null"),
    }
    let millis = |micros: i64| micros.div_euclid(1000).to_string();
    let table = &change.relation.table;
    out.raw(concat!(
        ",\"source\":{\"version\":\"",
        env!("CARGO_PKG_VERSION"),
        "\",\"connector\":\"postgresql\",\"name\":\"walhook\",\"snapshot\":"
    ));
    out.raw(match &change.op {
        ChangeOp::Read { .. } => "\"true\",\"ts_ms\":",
        _ => "\"false\",\"ts_ms\":",
    });
    out.raw(millis(change.committed.micros()));
    out.raw(",\"schema\":");
    out.string(table.schema.as_bytes());
    out.raw(",\"table\":");
    out.string(table.name.as_bytes());
    out.raw(",\"lsn\":");
    out.raw(change.position.commit.raw().to_string());
    out.raw("},\"op\":\"");
    out.raw(match &change.op {
        ChangeOp::Insert { .. } => "c",
        ChangeOp::Update { .. } => "u",
        ChangeOp::Delete { .. } => "d",
        ChangeOp::Truncate => "t",
        ChangeOp::Schema => "m",
        ChangeOp::Read { .. } => "r",
    });
    out.raw("\",\"ts_ms\":");
    out.raw(millis(scope.now.micros()));
    out.raw("}");
}

/// A content type other than the usual one.
pub(crate) fn content_type(value: &HeaderValue) -> Vec<(HeaderName, HeaderValue)> {
    vec![(CONTENT_TYPE, value.clone())]
}

/// `"event type"` as JSON.
pub(crate) fn quoted(text: &str) -> Vec<u8> {
    let mut quoted = Vec::new();
    datum::write_string(&mut quoted, text.as_bytes());
    quoted
}
