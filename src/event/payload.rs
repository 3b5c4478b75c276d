//! Payloads, compiled once per relation into labels and column references; the two built-in ones
//! that are walhook's own.

use std::sync::Arc;

use http::HeaderName;
use http::HeaderValue;

use crate::config::settings::Endpoint;
use crate::config::settings::EventRule;
use crate::config::settings::PayloadSettings;
use crate::config::settings::ocr_wallet as preset;
use crate::event::envelope;
use crate::event::envelope::CloudEvents;
use crate::event::expression_fault::RenderFaults;
use crate::event::ocr_wallet;
use crate::event::request_values::RequestValues;
use crate::event::row_object;
use crate::event::scope::EvaluationScope;
use crate::event::template::CompiledTemplate;
use crate::event::writer::JsonWriter;
use crate::event::writer::NamedColumn;
use crate::expression::Expression;
use crate::flow::body::RequestValue;
use crate::flow::change::ChangeOp;
use crate::flow::change::ColumnValue;
use crate::flow::change::CommittedChange;
use crate::flow::change::OldRow;
use crate::flow::change::RowTuple;
use crate::flow::event::EventFacts;
use crate::flow::relation::Relation;
use crate::flow::relation::ReplicaIdentity;

/// Longest value of a fact, in characters: enough to recognise a row in a log by.
const FACT_CHARS_MAX: usize = 128;

/// What is made of a change for some endpoints.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct EndpointShape {
    pub(crate) payload: PayloadSettings,
    /// What their URLs and headers need of the change.
    pub(crate) values: Vec<Expression>,
}

impl EndpointShape {
    /// That of an event, for all who ask for nothing else.
    pub(crate) fn of_rule(rule: &EventRule) -> Self {
        Self { payload: rule.payload.clone(), values: Vec::new() }
    }

    /// That of an endpoint, if it is another one than the event's.
    pub(crate) fn other(rule: &EventRule, endpoint: &Endpoint) -> Option<Self> {
        let payload = endpoint.payload.as_ref().unwrap_or(&rule.payload);
        let values = endpoint.request.of_change();
        let is_other = *payload != rule.payload || !values.is_empty();
        is_other.then(|| Self { payload: payload.clone(), values })
    }
}

/// An [`EndpointShape`] against one relation.
#[derive(Debug)]
pub(crate) struct PayloadShape {
    kind: PayloadKind,
    /// Beside the body, for an endpoint whose URL or headers differ from event to event.
    values: RequestValues,
    facts: Vec<NamedColumn>,
    /// How many of the facts are told, of those that have a value.
    facts_max: usize,
}

#[derive(Debug)]
enum PayloadKind {
    /// `opening` is everything before the commit time.
    Standard {
        opening: Vec<u8>,
        columns: Vec<NamedColumn>,
    },
    /// `opening` is everything before the attempt's time.
    OcrWallet {
        opening: Vec<u8>,
        columns: Vec<NamedColumn>,
    },
    CloudEvents {
        attributes: CloudEvents,
        columns: Vec<NamedColumn>,
    },
    Debezium {
        columns: Vec<NamedColumn>,
    },
    Template {
        template: CompiledTemplate,
        content_type: Option<HeaderValue>,
    },
}

impl PayloadShape {
    pub(crate) fn compile(
        EndpointShape { payload, values }: &EndpointShape,
        event_type: &str,
        relation: &Relation,
    ) -> Self {
        let quoted = envelope::quoted(event_type);
        let all = || named(relation, 0..relation.columns.len());
        let values = RequestValues::compile(values, relation, all);
        let of_key = || named(relation, relation.row_key.iter().copied());
        // Where all columns together tell a row from others, one is enough to find it by.
        let is_whole_row = relation.identity == ReplicaIdentity::Full && relation.key.is_empty();
        let facts_max = if is_whole_row { 1 } else { usize::MAX };
        let opening = |before: &str, after: &str| {
            [before.as_bytes(), quoted.as_slice(), after.as_bytes()].concat()
        };
        match payload {
            PayloadSettings::Standard => Self {
                kind: PayloadKind::Standard {
                    opening: opening("{\"type\":", ",\"timestamp\":\""),
                    columns: all(),
                },
                values,
                facts: of_key(),
                facts_max,
            },
            PayloadSettings::OcrWallet => {
                let find = |names: &[&str]| {
                    let found: Vec<_> = names.iter().filter_map(|n| relation.column(n)).collect();
                    named(relation, found)
                };
                Self {
                    kind: PayloadKind::OcrWallet {
                        opening: ocr_wallet::opening(&quoted),
                        columns: find(&preset::COLUMNS),
                    },
                    values,
                    facts: find(&preset::FACTS),
                    facts_max: usize::MAX,
                }
            }
            PayloadSettings::CloudEvents(mode) => {
                let attributes = CloudEvents::new(*mode, &relation.table, event_type);
                Self {
                    kind: PayloadKind::CloudEvents { attributes, columns: all() },
                    values,
                    facts: of_key(),
                    facts_max,
                }
            }
            PayloadSettings::Debezium => Self {
                kind: PayloadKind::Debezium { columns: all() },
                values,
                facts: of_key(),
                facts_max,
            },
            PayloadSettings::Template { root, content_type } => {
                let template = CompiledTemplate::json(root, relation, all());
                let content_type = content_type.clone();
                Self {
                    kind: PayloadKind::Template { template, content_type },
                    values,
                    facts: of_key(),
                    facts_max,
                }
            }
            PayloadSettings::Text { pieces, content_type } => {
                let template = CompiledTemplate::text(pieces, relation, all());
                let content_type = Some(content_type.clone());
                Self {
                    kind: PayloadKind::Template { template, content_type },
                    values,
                    facts: of_key(),
                    facts_max,
                }
            }
        }
    }

    /// Writes the body of the change that `scope` is about; `false` if it would be longer than one may
    /// be, so that what was written is no body.
    pub(crate) fn write(
        &self,
        out: &mut JsonWriter,
        scope: &EvaluationScope<'_>,
        faults: &mut RenderFaults,
    ) -> bool {
        let change = scope.change;
        match &self.kind {
            // What is for rows says nothing of a table's shape.
            PayloadKind::OcrWallet { .. }
            | PayloadKind::Debezium { .. }
            | PayloadKind::Template { .. }
                if is_schema(change) =>
            {
                let quoted = envelope::quoted(scope.event_type);
                let opening = [b"{\"type\":", quoted.as_slice(), b",\"timestamp\":\""].concat();
                standard(out, &opening, &[], change);
            }
            PayloadKind::Standard { opening, columns } => standard(out, opening, columns, change),
            PayloadKind::OcrWallet { opening, columns } => {
                ocr_wallet::write(out, opening, columns, change, scope.born);
            }
            PayloadKind::CloudEvents { attributes, columns } => {
                attributes.write(out, columns, scope)
            }
            PayloadKind::Debezium { columns } => envelope::debezium(out, columns, scope),
            PayloadKind::Template { template, .. } => return template.write(out, scope, faults),
        }
        true
    }

    /// What the body asks of the request.
    pub(crate) fn headers(&self, scope: &EvaluationScope<'_>) -> Vec<(HeaderName, HeaderValue)> {
        match &self.kind {
            PayloadKind::CloudEvents { attributes, .. } => attributes.headers(scope),
            PayloadKind::Template { content_type: Some(value), .. } if !is_schema(scope.change) => {
                envelope::content_type(value)
            }
            PayloadKind::Standard { .. }
            | PayloadKind::OcrWallet { .. }
            | PayloadKind::Debezium { .. }
            | PayloadKind::Template { .. } => Vec::new(),
        }
    }

    /// What the URL and the headers of its endpoint need.
    pub(crate) fn values(
        &self,
        scope: &EvaluationScope<'_>,
        faults: &mut RenderFaults,
    ) -> Vec<(Arc<str>, RequestValue)> {
        self.values.of(scope, faults)
    }

    /// What logs may say of the row.
    pub(crate) fn facts(&self, row: Option<&RowTuple>) -> EventFacts {
        let Some(row) = row else { return EventFacts::default() };
        let fact = |column: &NamedColumn| match row.value(column.index) {
            ColumnValue::Text(text) => Some((Arc::clone(&column.name), shown(text))),
            ColumnValue::Null | ColumnValue::Unchanged => None,
        };
        EventFacts::new(self.facts.iter().filter_map(fact).take(self.facts_max).collect())
    }
}

fn is_schema(change: &CommittedChange) -> bool {
    matches!(change.op, ChangeOp::Schema)
}

fn named(relation: &Relation, indexes: impl IntoIterator<Item = usize>) -> Vec<NamedColumn> {
    let column = |index| {
        let column = relation.columns.get(index)?;
        Some(NamedColumn::new(index, &column.name, &column.sql_type))
    };
    indexes.into_iter().filter_map(column).collect()
}

/// A value for a log line: short, and without characters that could forge another line.
fn shown(text: &[u8]) -> String {
    // No character is longer than four bytes: what lies beyond is never looked at.
    let head = text.get(..text.len().min(FACT_CHARS_MAX * 4)).unwrap_or_default();
    let clean = |c: char| if c.is_control() { '\u{FFFD}' } else { c };
    String::from_utf8_lossy(head).chars().take(FACT_CHARS_MAX).map(clean).collect()
}

/// `{"type", "timestamp", "operation", "data"}`, then `"old"`, `"unchanged"` and `"metadata"` where there are
/// any. Data is the new row; the old one for a delete; null for a truncate.
fn standard(
    out: &mut JsonWriter,
    opening: &[u8],
    columns: &[NamedColumn],
    change: &CommittedChange,
) {
    out.raw(opening);
    out.raw(change.committed.iso_millis());
    out.raw("\",\"operation\":\"");
    out.raw(row_object::op(&change.op));
    out.raw("\",\"data\":");
    row_object::data(out, columns, change);
    if let ChangeOp::Update { old, new } = &change.op {
        if let Some(old) = old {
            out.raw(",\"old\":");
            row_object::old_object(out, columns, old, change);
        }
        unchanged(out, columns, new, old.as_ref());
    }
    if let Some(given) = &change.metadata {
        out.raw(",\"metadata\":");
        row_object::metadata(out, given);
    }
    out.raw("}");
}

/// Lists the columns that the update did not touch and PostgreSQL did not send.
fn unchanged(out: &mut JsonWriter, columns: &[NamedColumn], new: &RowTuple, old: Option<&OldRow>) {
    let full = matches!(old, Some(OldRow::Full(_)));
    let missing =
        |column: &&NamedColumn| !full && new.value(column.index) == ColumnValue::Unchanged;
    let mut separator = ",\"unchanged\":[";
    for column in columns.iter().filter(missing) {
        out.raw(separator);
        separator = ",";
        out.string(column.name.as_bytes());
    }
    if separator == "," {
        out.raw("]");
    }
}
