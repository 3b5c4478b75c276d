//! Writes the attempts of a flush into the push log, by COPY.

use std::borrow::Cow;
use std::pin::Pin;
use std::sync::Arc;

use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::ToSql;
use tokio_postgres::types::Type;

use crate::flow::headers::HeaderLines;
use crate::flow::verdict::HttpExchange;
use crate::store::ownership::StateOwnership;
use crate::store::push_log::LoggedAttempt;
use crate::store::push_log::LoggedBatch;
use crate::store::replay_orders;
use crate::store::session::prepared_statements::StateTransaction;
use crate::store::sql::clean;
use crate::store::sql::int;
use crate::store::state_error::StateError;
use crate::store::stored_event;

const EVENTS: &str = "COPY walhook.push_log_events (created_at, slot, endpoint, event_id, \
                      event_type, table_schema, table_name, row_key, retry_count, outcome, \
                      http_status, failure_class, error_message, request_headers, request_body, \
                      response_headers, response_body, duration_ms, replay, first_key, second_key, \
                      expires_at, shape_headers, body_whole) FROM STDIN (FORMAT binary)";

const EVENT_TYPES: [Type; 24] = [
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
    Type::TEXT,
    Type::TEXT,
    Type::TEXT,
    Type::TEXT,
    Type::FLOAT8,
    Type::BOOL,
    Type::INT8,
    Type::INT8,
    Type::TIMESTAMPTZ,
    Type::JSON,
    Type::BOOL,
];

const BATCHES: &str = "COPY walhook.push_log_batches (created_at, slot, endpoint, event_type, \
                       table_schema, table_name, retry_count, http_status, request_headers, \
                       response_headers, duration_ms, replay, events, event_ids, row_keys) \
                       FROM STDIN (FORMAT binary)";

const BATCH_TYPES: [Type; 15] = [
    Type::TIMESTAMPTZ,
    Type::TEXT,
    Type::TEXT,
    Type::TEXT,
    Type::TEXT,
    Type::TEXT,
    Type::INT4,
    Type::INT4,
    Type::TEXT,
    Type::TEXT,
    Type::FLOAT8,
    Type::BOOL,
    Type::INT4,
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
];

/// Sends the rows. The last COPY is left open, to be ended together with what comes next.
pub(crate) async fn copy(
    tx: &StateTransaction<'_>,
    ownership: &StateOwnership,
    attempts: &[LoggedAttempt],
    batches: &[LoggedBatch],
) -> Result<Option<OpenCopy>, StateError> {
    let events = copy_events(tx, ownership, attempts).await?;
    if batches.is_empty() {
        return Ok(events);
    }
    if let Some(events) = events {
        events.finish().await?;
    }
    copy_batches(tx, ownership, batches).await.map(Some)
}

/// A COPY whose rows are sent, and of which the server has not been told that these are all.
pub(crate) struct OpenCopy(Pin<Box<BinaryCopyInWriter>>);

impl OpenCopy {
    /// # Errors
    /// That rows could not be written: then none of the transaction's are.
    pub(crate) async fn finish(mut self) -> Result<(), StateError> {
        self.0.as_mut().finish().await?;
        Ok(())
    }
}

async fn copy_events(
    tx: &StateTransaction<'_>,
    ownership: &StateOwnership,
    attempts: &[LoggedAttempt],
) -> Result<Option<OpenCopy>, StateError> {
    if attempts.is_empty() {
        return Ok(None);
    }
    let sink = tx.copy_in(EVENTS).await?;
    let mut writer = Box::pin(BinaryCopyInWriter::new(sink, &EVENT_TYPES));
    let mut last: Option<(&Arc<HttpExchange>, HeaderObjects<'_>)> = None;
    for attempt in attempts {
        // The rows of a batch come together, and have one exchange.
        let known = last.take().filter(|(exchange, _)| Arc::ptr_eq(exchange, &attempt.exchange));
        let headers = match known {
            Some((_, headers)) => headers,
            None => HeaderObjects::of(&attempt.exchange, ownership.unicode),
        };
        write_event(writer.as_mut(), ownership, attempt, &headers).await?;
        last = Some((&attempt.exchange, headers));
    }
    Ok(Some(OpenCopy(writer)))
}

async fn write_event(
    writer: Pin<&mut BinaryCopyInWriter>,
    ownership: &StateOwnership,
    attempt: &LoggedAttempt,
    headers: &HeaderObjects<'_>,
) -> Result<(), StateError> {
    let unicode = ownership.unicode;
    let LoggedAttempt { event, exchange, .. } = attempt;
    let failure = exchange.failure.as_ref();
    let request_body = attempt.request_body.as_ref().map(|body| shown(body, unicode));
    let response_body = attempt.response_body.as_ref().map(|body| shown(body, unicode));
    // What is not kept as it was cannot be sent again.
    let is_exact = matches!(request_body, Some(Cow::Borrowed(_)));
    let is_whole = attempt.body_whole && is_exact;
    let shape = if is_whole { replay_orders::kept_headers(&event.body, unicode) } else { None };
    let values: [&(dyn ToSql + Sync); EVENT_TYPES.len()] = [
        &attempt.created_at,
        &ownership.slot.as_ref(),
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
        &millis(exchange),
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

async fn copy_batches(
    tx: &StateTransaction<'_>,
    ownership: &StateOwnership,
    batches: &[LoggedBatch],
) -> Result<OpenCopy, StateError> {
    let sink = tx.copy_in(BATCHES).await?;
    let mut writer = Box::pin(BinaryCopyInWriter::new(sink, &BATCH_TYPES));
    for batch in batches {
        write_batch(writer.as_mut(), ownership, batch).await?;
    }
    Ok(OpenCopy(writer))
}

async fn write_batch(
    writer: Pin<&mut BinaryCopyInWriter>,
    ownership: &StateOwnership,
    batch: &LoggedBatch,
) -> Result<(), StateError> {
    let LoggedBatch { events, exchange, .. } = batch;
    let Some(first) = events.first() else { return Ok(()) };
    let headers = HeaderObjects::of(exchange, ownership.unicode);
    let key = |facts| stored_event::row_key(facts).map(|key| clean(key, ownership.unicode));
    let ids: Vec<String> = events.iter().map(|event| event.id.to_string()).collect();
    let keys: Vec<Option<Cow<'_, str>>> = events.iter().map(|event| key(&event.facts)).collect();
    let values: [&(dyn ToSql + Sync); BATCH_TYPES.len()] = [
        &batch.created_at,
        &ownership.slot.as_ref(),
        &batch.endpoint.as_ref(),
        &first.event_type.as_ref(),
        &first.table.schema,
        &first.table.name,
        &int(batch.retry_count),
        &exchange.status.map(i32::from),
        &headers.request,
        &headers.response,
        &millis(exchange),
        &batch.replay,
        &int(u32::try_from(events.len()).unwrap_or(u32::MAX)),
        &ids,
        &keys,
    ];
    writer.write(&values).await?;
    Ok(())
}

fn millis(exchange: &HttpExchange) -> f64 {
    exchange.took.as_secs_f64() * 1000.0
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
    request: Option<Cow<'a, str>>,
    response: Option<Cow<'a, str>>,
}

impl<'a> HeaderObjects<'a> {
    fn of(exchange: &'a HttpExchange, unicode: bool) -> Self {
        let object = |headers: &'a HeaderLines| Some(clean(headers.json()?, unicode));
        Self {
            request: object(&exchange.request_headers),
            response: object(&exchange.response_headers),
        }
    }
}
