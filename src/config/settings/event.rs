//! `[[event]]`: what becomes an event, and in which form.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use crate::config::settings::ocr_wallet;
use crate::config::settings::places::SourcePlaces;
use crate::expression::Expression;
use crate::expression::named_columns::NamedColumns;
use crate::expression::template;
use crate::expression::template::TemplateNode;
use crate::expression::template::TemplatePiece;
use crate::flow::relation::TableName;

/// `[[event]]`: which changes of a table become an event of which type.
#[derive(Clone, Debug, PartialEq)]
pub struct EventRule {
    pub event_type: Arc<str>,
    pub table: TableName,
    pub on: Operations,
    /// Whether the rows that are there are sent as events of this type, once, when the slot is made.
    pub backfill: bool,
    pub filter: Option<EventFilter>,
    pub expiry: Option<ExpiryRule>,
    /// Columns whose values order events; empty means the primary key.
    pub order_by: Vec<String>,
    pub payload: PayloadSettings,
    /// How JSON values stand in bodies, also in those that an endpoint's own payload shapes.
    pub json: JsonForm,
    pub write_back: Option<WriteBackSettings>,
    pub dedupe: Option<DedupeSettings>,
    pub trace: TraceSource,
    pub places: SourcePlaces,
}

/// Where events get the trace of their writer from.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TraceSource {
    /// Whether a collector or receivers are told of traces.
    pub is_wanted: bool,
    /// A column that holds it; where it does not, the transaction's message.
    pub column: Option<String>,
}

/// How numbers, and strings of json values, are written.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum JsonForm {
    /// Byte for byte as PostgreSQL has them.
    #[default]
    Stored,
    /// As `JSON.stringify` writes them, where a JavaScript number has the value.
    Javascript,
}

/// Which operations raise an event.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Operations {
    pub insert: bool,
    pub update: bool,
    pub delete: bool,
    pub truncate: bool,
    /// Rows that a backfill finds in the table.
    pub read: bool,
    /// The table has another shape.
    pub schema: bool,
}

impl Operations {
    /// Their names, in the order in which the configuration lists them.
    pub(crate) fn names(self) -> Vec<&'static str> {
        let all = [
            ("insert", self.insert),
            ("update", self.update),
            ("delete", self.delete),
            ("truncate", self.truncate),
            ("read", self.read),
            ("schema", self.schema),
        ];
        all.into_iter().filter(|(_, is_on)| *is_on).map(|(name, _)| name).collect()
    }
}

impl EventRule {
    /// Columns that the table must have, whatever else it has.
    pub fn columns(&self) -> BTreeSet<String> {
        let mut names = self.filter_names();
        names.join(&self.payload_names());
        let age = self.expiry.iter().filter_map(|expiry| expiry.column.as_ref());
        let written = self.write_back.iter().flat_map(WriteBackSettings::columns);
        let written = written.chain(self.dedupe.iter().flat_map(|dedupe| &dedupe.by));
        let written = written.chain(&self.trace.column);
        let own = names.columns.into_iter().chain(names.old);
        own.chain(age.chain(&self.order_by).chain(written).cloned()).collect()
    }

    /// The keys that name a column of the table, each with its place in the file.
    pub fn keys_naming(&self, column: &str) -> Vec<&'static str> {
        let is_in =
            |names: NamedColumns| names.columns.contains(column) || names.old.contains(column);
        let age = self.expiry.as_ref().and_then(|expiry| expiry.column.as_deref());
        let mut written = self.write_back.iter().flat_map(WriteBackSettings::columns);
        let mut dedupe = self.dedupe.iter().flat_map(|dedupe| &dedupe.by);
        let keys = [
            ("when", is_in(self.filter_names())),
            ("payload", is_in(self.payload_names())),
            ("order_by", self.order_by.iter().any(|name| name == column)),
            ("age_column", age == Some(column)),
            ("write_back", written.any(|name| name == column)),
            ("dedupe", dedupe.any(|name| name == column)),
            ("traceparent", self.trace.column.as_deref() == Some(column)),
        ];
        keys.into_iter().filter(|(_, names)| *names).map(|(key, _)| key).collect()
    }

    /// What the filter names.
    pub fn filter_names(&self) -> NamedColumns {
        self.filter.as_ref().map(EventFilter::names).unwrap_or_default()
    }

    /// What the payload names.
    pub fn payload_names(&self) -> NamedColumns {
        self.payload.names()
    }
}

/// Which rows raise an event.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum EventFilter {
    /// The column is neither null nor blank.
    NotBlank {
        column: String,
    },
    /// The expression is true.
    When(Expression),
    Both(Box<EventFilter>, Box<EventFilter>),
}

impl EventFilter {
    pub fn names(&self) -> NamedColumns {
        match self {
            Self::NotBlank { column } => {
                NamedColumns { columns: [column.clone()].into(), ..NamedColumns::default() }
            }
            Self::When(expression) => expression.names().clone(),
            Self::Both(one, other) => {
                let mut names = one.names();
                names.join(&other.names());
                names
            }
        }
    }
}

/// When an event is too old: `column` (timestamptz, timestamp in UTC, or epoch seconds as a
/// number) says when it was born; `None` means when it was committed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ExpiryRule {
    pub column: Option<String>,
    pub max_age: Duration,
}

/// The shape of the body.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PayloadSettings {
    /// `{"type", "timestamp", "data"}`, with `"old"` and `"metadata"` where there are any.
    Standard,
    /// The shape of `ocr-wallet`.
    OcrWallet,
    /// CloudEvents 1.0.
    CloudEvents(CloudEventsMode),
    /// Debezium's envelope: `{"before", "after", "source", "op", "ts_ms"}`.
    Debezium,
    /// JSON in the user's own shape.
    Template { root: Arc<TemplateNode>, content_type: Option<HeaderValue> },
    /// Text with values inserted.
    Text { pieces: Arc<[TemplatePiece]>, content_type: HeaderValue },
}

impl PayloadSettings {
    /// What it names; `standard` and the envelopes take what there is.
    pub fn names(&self) -> NamedColumns {
        let mut names = NamedColumns::default();
        match self {
            Self::Template { root, .. } => names.join(&root.names()),
            Self::Text { pieces, .. } => template::names_of_pieces(pieces, &mut names),
            Self::OcrWallet => {
                names.columns.extend(ocr_wallet::COLUMNS.map(str::to_owned));
            }
            Self::Standard | Self::CloudEvents(_) | Self::Debezium => {}
        }
        names
    }

    /// Why bodies of this shape cannot stand in a JSON array, if they cannot.
    pub fn unbatchable(&self) -> Option<&'static str> {
        match self {
            Self::Text { .. } => Some("a text"),
            Self::CloudEvents(CloudEventsMode::Binary) => Some("one event's attributes as headers"),
            Self::Standard
            | Self::OcrWallet
            | Self::CloudEvents(CloudEventsMode::Structured)
            | Self::Debezium
            | Self::Template { .. } => None,
        }
    }
}

/// Where a CloudEvent's attributes are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CloudEventsMode {
    /// In the body, beside the data.
    Structured,
    /// In `ce-...` headers; the body is the data.
    Binary,
}

/// Which events are repeats of another one, and for how long.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DedupeSettings {
    /// Columns; an event with a null among them is no repeat.
    pub by: Vec<String>,
    /// From the commit of the event that was pushed.
    pub window: Duration,
}

/// What is written into the source database when every endpoint that got an event has an outcome.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WriteBackSettings {
    /// The outcome when every one of them took it.
    pub delivered: String,
    /// The outcome otherwise.
    pub failed: String,
    pub change: RowChangeSql,
}

impl WriteBackSettings {
    /// Whether it says what endpoints answered, which the push log has.
    pub fn says_answers(&self) -> bool {
        let is_answer = |piece: &SqlPiece| matches!(piece, SqlPiece::Response(_) | SqlPiece::Error);
        matches!(&self.change, RowChangeSql::Statement(pieces) if pieces.iter().any(is_answer))
    }

    /// Whether it says what stands in the body of an answer.
    pub fn says_bodies(&self) -> bool {
        let is_body = |piece: &SqlPiece| matches!(piece, SqlPiece::Response(_));
        matches!(&self.change, RowChangeSql::Statement(pieces) if pieces.iter().any(is_body))
    }

    /// Columns that it names.
    pub fn columns(&self) -> impl Iterator<Item = &String> {
        let (one, many) = match &self.change {
            RowChangeSql::Column(column) => (Some(column), [].as_slice()),
            RowChangeSql::Statement(pieces) => (None, &**pieces),
        };
        one.into_iter().chain(many.iter().filter_map(SqlPiece::column))
    }
}

/// How the outcome is written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum RowChangeSql {
    /// Into this column of the event's row, which its primary key names, while the column says what
    /// it said when the event was raised, or an outcome.
    Column(String),
    /// By a statement of the user's own.
    Statement(Arc<[SqlPiece]>),
}

/// A part of a statement. All but literals become parameters.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SqlPiece {
    Literal(String),
    Outcome,
    EventId,
    /// The column of the event's row, as it was when the event was raised.
    Column(String),
    /// What a JSON pointer leads to in the last answer of an endpoint.
    Response(String),
    /// Why an endpoint did not take the event.
    Error,
}

impl SqlPiece {
    /// What stands between the braces; `None` for the text around them.
    pub fn place(&self) -> Option<String> {
        match self {
            Self::Literal(_) => None,
            Self::Outcome => Some(String::from("outcome")),
            Self::EventId => Some(String::from("event_id")),
            Self::Error => Some(String::from("error")),
            Self::Column(column) => Some(column.clone()),
            Self::Response(pointer) => Some(format!("response{}", pointer.replace('/', "."))),
        }
    }

    fn column(&self) -> Option<&String> {
        match self {
            Self::Column(column) => Some(column),
            Self::Literal(_) | Self::Outcome | Self::EventId | Self::Response(_) | Self::Error => {
                None
            }
        }
    }
}
