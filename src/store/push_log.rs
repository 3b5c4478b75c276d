//! The push log: every attempt, as it went over the wire.
//!
//! Written in batches by COPY with the flush that settles them, and read by event, key, endpoint,
//! status, class and time. Its partitions are in [`crate::store::partitions`].

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::pin::Pin;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;
use tokio_postgres::Client;
use tokio_postgres::Row;
use tokio_postgres::Transaction;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::ToSql;
use tokio_postgres::types::Type;

use crate::flow::event::Event;
use crate::flow::event::EventId;
use crate::flow::headers::Headers;
use crate::flow::relation::TableName;
use crate::flow::time::Timestamp;
use crate::flow::verdict::Exchange;
use crate::store::partitions::Day;
use crate::store::progress::Holding;
use crate::store::replays;
use crate::store::sql::JsonText;
use crate::store::sql::Params;
use crate::store::sql::clean;
use crate::store::sql::int;
use crate::store::sql::read;
use crate::store::sql::unsigned_int;
use crate::store::state_error::StateError;
use crate::store::stored_event;

const COPY: &str = "COPY walhook.push_log (created_at, slot, endpoint, event_id, event_type, \
                    table_schema, table_name, row_key, retry_count, outcome, http_status, \
                    failure_class, error_message, request_headers, request_body, \
                    response_headers, response_body, duration_ms, replay, first_key, second_key, \
                    expires_at, shape_headers, body_whole) FROM STDIN (FORMAT binary)";

const COPY_TYPES: [Type; 24] = [
    Type::TIMESTAMPTZ,
    Type::TEXT,
    Type::TEXT,
    Type::TEXT,
    Type::TEXT,
    Type::TEXT,
    Type::TEXT,
    Type::TEXT,
    Type::INT4,
    Type::TEXT,
    Type::INT4,
    Type::TEXT,
    Type::TEXT,
    Type::JSON,
    Type::TEXT,
    Type::JSON,
    Type::TEXT,
    Type::FLOAT8,
    Type::BOOL,
    Type::INT8,
    Type::INT8,
    Type::TIMESTAMPTZ,
    Type::JSON,
    Type::BOOL,
];

/// What an attempt meant for its delivery.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum AttemptOutcome {
    Delivered,
    /// Another attempt follows.
    Retry,
    /// Given up.
    Dead,
}

impl AttemptOutcome {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Retry => "retry",
            Self::Dead => "dead",
        }
    }
}

/// One attempt for one event, to write.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// When the attempt began.
    pub created_at: Timestamp,
    pub event: Arc<Event>,
    pub endpoint: Arc<str>,
    /// 0 for the first attempt.
    pub retry_count: u32,
    pub outcome: AttemptOutcome,
    /// Status, failure, duration and headers; its response body is not looked at.
    pub exchange: Arc<Exchange>,
    /// What is to be kept of the bodies, cut to size by the caller.
    pub request_body: Option<Bytes>,
    pub response_body: Option<Bytes>,
    /// Whether `request_body` is all of it.
    pub body_whole: bool,
    pub replay: bool,
}

/// A place in the push log, for paging.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Cursor {
    pub created_at: Timestamp,
    pub id: i64,
}

/// One attempt, read back.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub id: i64,
    pub created_at: Timestamp,
    pub event: EventId,
    pub event_type: String,
    pub table: TableName,
    pub endpoint: String,
    pub row_key: Option<String>,
    pub retry_count: u32,
    /// See [`AttemptOutcome::as_str`].
    pub outcome: String,
    pub status: Option<u16>,
    pub failure_class: Option<String>,
    pub error_message: Option<String>,
    /// An object; a header that came several times has its values joined by commas.
    pub request_headers: Option<Value>,
    pub request_body: Option<String>,
    pub response_headers: Option<Value>,
    pub response_body: Option<String>,
    pub duration_ms: f64,
    pub replay: bool,
}

impl Entry {
    /// Where to go on after this entry.
    pub fn cursor(&self) -> Cursor {
        Cursor { created_at: self.created_at, id: self.id }
    }
}

/// Which attempts are meant; a field that is `None` does not matter.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Filter {
    pub event: Option<EventId>,
    pub event_type: Option<String>,
    pub row_key: Option<String>,
    pub endpoint: Option<String>,
    pub status: Option<u16>,
    /// See [`crate::flow::verdict::FailureClass::as_str`].
    pub class: Option<String>,
    pub outcome: Option<AttemptOutcome>,
    /// A time range: from this on, and before that.
    pub from: Option<Timestamp>,
    pub before: Option<Timestamp>,
}

/// The days that these attempts fall on.
pub(crate) fn days(attempts: &[Attempt]) -> BTreeSet<Day> {
    attempts.iter().map(|attempt| Day::of(attempt.created_at)).collect()
}

pub(crate) async fn copy(
    tx: &Transaction<'_>,
    holding: &Holding,
    attempts: &[Attempt],
) -> Result<(), StateError> {
    if attempts.is_empty() {
        return Ok(());
    }
    let sink = tx.copy_in::<_, Bytes>(COPY).await?;
    let mut writer = pin!(BinaryCopyInWriter::new(sink, &COPY_TYPES));
    let mut last: Option<(&Arc<Exchange>, HeaderObjects<'_>)> = None;
    for attempt in attempts {
        // The rows of a batch come together, and have one exchange.
        let known = last.take().filter(|(exchange, _)| Arc::ptr_eq(exchange, &attempt.exchange));
        let headers = match known {
            Some((_, headers)) => headers,
            None => HeaderObjects::of(&attempt.exchange, holding.unicode),
        };
        write(writer.as_mut(), holding, attempt, &headers).await?;
        last = Some((&attempt.exchange, headers));
    }
    writer.finish().await?;
    Ok(())
}

async fn write(
    writer: Pin<&mut BinaryCopyInWriter>,
    holding: &Holding,
    attempt: &Attempt,
    headers: &HeaderObjects<'_>,
) -> Result<(), StateError> {
    let unicode = holding.unicode;
    let Attempt { event, exchange, .. } = attempt;
    let failure = exchange.failure.as_ref();
    let request_body = attempt.request_body.as_ref().map(|body| shown(body, unicode));
    let response_body = attempt.response_body.as_ref().map(|body| shown(body, unicode));
    // What is not kept as it was cannot be sent again.
    let is_exact = matches!(request_body, Some(Cow::Borrowed(_)));
    let is_whole = attempt.body_whole && is_exact;
    let shape = if is_whole { replays::kept_headers(&event.body, unicode) } else { None };
    let values: [&(dyn ToSql + Sync); COPY_TYPES.len()] = [
        &attempt.created_at,
        &holding.slot.as_ref(),
        &attempt.endpoint.as_ref(),
        &event.id.to_string(),
        &event.event_type.as_ref(),
        &event.table.schema,
        &event.table.name,
        &stored_event::row_key(&event.facts).map(|key| clean(key, unicode)),
        &int(attempt.retry_count),
        &attempt.outcome.as_str(),
        &exchange.status.map(i32::from),
        &failure.map(|failure| failure.class.as_str()),
        &failure.map(|failure| clean(&failure.detail, unicode)),
        &headers.request,
        &request_body.as_deref(),
        &headers.response,
        &response_body.as_deref(),
        &(exchange.took.as_secs_f64() * 1000.0),
        &attempt.replay,
        &stored_event::stored_key(event.keys, 0),
        &stored_event::stored_key(event.keys, 1),
        &event.expiry.map(stored_event::expires_at),
        &shape,
        &is_whole,
    ];
    writer.write(&values).await?;
    Ok(())
}

/// A body as text for people; bytes that are not UTF-8 are shown as U+FFFD. Borrowed if it is shown
/// as it is.
fn shown(bytes: &[u8], unicode: bool) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => clean(text, unicode),
        Err(_) => Cow::Owned(clean(&String::from_utf8_lossy(bytes), unicode).into_owned()),
    }
}

/// The headers of one exchange as JSON, `None` where there are none: nothing was sent, or nothing
/// came back.
struct HeaderObjects<'a> {
    request: Option<JsonText<'a>>,
    response: Option<JsonText<'a>>,
}

impl<'a> HeaderObjects<'a> {
    fn of(exchange: &'a Exchange, unicode: bool) -> Self {
        let object = |headers: &'a Headers| Some(JsonText(clean(headers.json()?, unicode)));
        Self {
            request: object(&exchange.request_headers),
            response: object(&exchange.response_headers),
        }
    }
}

/// Attempts, the newest first, at most `limit`; `below` is the last entry of the page before.
///
/// # Errors
/// That the rows could not be read.
pub async fn list(
    client: &Client,
    slot: &str,
    filter: &Filter,
    below: Option<Cursor>,
    limit: u32,
) -> Result<Vec<Entry>, StateError> {
    let text = |text: &Option<String>| text.as_deref().map(|t| clean(t, true).into_owned());
    let mut params = Params::default();
    params.put(Type::TEXT, slot);
    params.put(Type::TEXT, filter.event.map(|event| event.to_string()));
    params.put(Type::TEXT, text(&filter.event_type));
    params.put(Type::TEXT, text(&filter.row_key));
    params.put(Type::TEXT, text(&filter.endpoint));
    params.put(Type::INT4, filter.status.map(i32::from));
    params.put(Type::TEXT, text(&filter.class));
    params.put(Type::TEXT, filter.outcome.map(AttemptOutcome::as_str));
    params.put(Type::TIMESTAMPTZ, filter.from);
    params.put(Type::TIMESTAMPTZ, filter.before);
    params.put(Type::TIMESTAMPTZ, below.map(|cursor| cursor.created_at));
    params.put(Type::INT8, below.map(|cursor| cursor.id));
    params.put(Type::INT8, i64::from(limit));
    // The planner sees the values: it drops what is null, and days outside of the range.
    let rows = client
        .query_typed(
            "SELECT * FROM walhook.push_log
              WHERE slot = $1 AND ($2::text IS NULL OR event_id = $2)
                AND ($3::text IS NULL OR event_type = $3) AND ($4::text IS NULL OR row_key = $4)
                AND ($5::text IS NULL OR endpoint = $5) AND ($6::int IS NULL OR http_status = $6)
                AND ($7::text IS NULL OR failure_class = $7)
                AND ($8::text IS NULL OR outcome = $8)
                AND ($9::timestamptz IS NULL OR created_at >= $9)
                AND ($10::timestamptz IS NULL OR created_at < $10)
                AND ($11::timestamptz IS NULL OR created_at <= $11)
                AND ($11::timestamptz IS NULL OR (created_at, id) < ($11, $12))
              ORDER BY created_at DESC, id DESC LIMIT $13",
            &params.list(),
        )
        .await?;
    rows.iter().map(read_entry).collect()
}

fn read_entry(row: &Row) -> Result<Entry, StateError> {
    Ok(Entry {
        id: read(row, "id")?,
        created_at: read(row, "created_at")?,
        event: read::<&str>(row, "event_id")?
            .parse()
            .map_err(|cause| StateError::unreadable("an event id", cause))?,
        event_type: read(row, "event_type")?,
        table: stored_event::read_table(row)?,
        endpoint: read(row, "endpoint")?,
        row_key: read(row, "row_key")?,
        retry_count: unsigned_int(row, "retry_count")?,
        outcome: read(row, "outcome")?,
        status: stored_event::read_status(row)?,
        failure_class: read(row, "failure_class")?,
        error_message: read(row, "error_message")?,
        request_headers: read(row, "request_headers")?,
        request_body: read(row, "request_body")?,
        response_headers: read(row, "response_headers")?,
        response_body: read(row, "response_body")?,
        duration_ms: read(row, "duration_ms")?,
        replay: read(row, "replay")?,
    })
}
