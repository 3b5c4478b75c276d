//! The deliveries that an order means, as far as the push log knows them.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderName;
use http::HeaderValue;
use serde_json::Map;
use serde_json::Value;
use tokio_postgres::Client;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::flow::body::BodyPart;
use crate::flow::body::EventBody;
use crate::flow::body::RequestValue;
use crate::flow::event::Event;
use crate::flow::event::EventExpiry;
use crate::flow::event::EventFacts;
use crate::flow::event::EventId;
use crate::flow::time::Timestamp;
use crate::store::replay_orders::ReplayCursor;
use crate::store::replay_orders::ReplayFilter;
use crate::store::replay_orders::ReplayOrder;
use crate::store::replay_orders::filter_params;
use crate::store::sql::bigint;
use crate::store::sql::clean;
use crate::store::sql::read;
use crate::store::sql::unsigned;
use crate::store::state_error::StateError;
use crate::store::stored_event;

/// Around an expression whose value is kept.
const VALUE_OPEN: &str = "{{";
const VALUE_CLOSE: &str = "}}";

/// What a filter means at one endpoint.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct ReplayShare {
    pub endpoint: Arc<str>,
    pub events: u64,
    /// Of these, no body was kept.
    pub without_body: u64,
    /// Of these, a part of the body was kept, or what is not text.
    pub body_cut: u64,
    /// These can be sent, but are too old to be.
    pub expired: u64,
}

/// A delivery of the push log, to be made again.
#[derive(Debug)]
pub(crate) struct LoggedDelivery {
    pub at: ReplayCursor,
    /// `None` if its body was not kept, or not all of it.
    pub event: Option<Event>,
}

/// The rows of events that a [`ReplayFilter`] means, with the parameters `$1` to `$7` of [`filter_params`]:
/// of each event, the first delivery in the range.
const MATCHES: &str = "l.slot = $1 AND l.outcome = 'delivered'
     AND ($2::text IS NULL OR l.endpoint = $2) AND ($3::text IS NULL OR l.event_id = $3)
     AND ($4::text IS NULL OR l.event_type = $4) AND ($5::text IS NULL OR l.row_key = $5)
     AND ($6::timestamptz IS NULL OR l.created_at >= $6) AND l.created_at < $7
     AND NOT EXISTS (SELECT FROM walhook.push_log_events e
          WHERE e.event_id = l.event_id AND e.endpoint = l.endpoint AND e.slot = l.slot
            AND e.outcome = 'delivered' AND ($6::timestamptz IS NULL OR e.created_at >= $6)
            AND e.created_at <= l.created_at AND (e.created_at, e.id) < (l.created_at, l.id))";

/// The batches that hold such events. None of these has a body to be sent again, so that orders pass
/// them over; here each delivery counts, also a second one of the same event.
const BATCH_MATCHES: &str = "l.slot = $1
     AND ($2::text IS NULL OR l.endpoint = $2)
     AND ($3::text IS NULL OR l.event_ids @> ARRAY[$3])
     AND ($4::text IS NULL OR l.event_type = $4)
     AND ($5::text IS NULL OR l.row_keys @> ARRAY[$5])
     AND ($6::timestamptz IS NULL OR l.created_at >= $6) AND l.created_at < $7";

/// How many such events a batch holds.
const IN_BATCH: &str = "CASE WHEN $3::text IS NULL AND $5::text IS NULL THEN l.events ELSE (
     SELECT count(*)::int FROM unnest(l.event_ids, l.row_keys) AS e (event_id, row_key)
      WHERE ($3::text IS NULL OR e.event_id = $3) AND ($5::text IS NULL OR e.row_key = $5)) END";

/// What a filter means, by endpoint: a dry run.
///
/// # Errors
/// That the rows could not be counted.
pub(crate) async fn survey(
    client: &Client,
    slot: &str,
    filter: &ReplayFilter,
    now: Timestamp,
) -> Result<Vec<ReplayShare>, StateError> {
    let mut params = filter_params(slot, filter);
    params.put(Type::TIMESTAMPTZ, now);
    let query = format!(
        "SELECT endpoint, sum(events)::bigint AS events, sum(bare)::bigint AS bare,
                sum(cut)::bigint AS cut, sum(old)::bigint AS old
           FROM (SELECT endpoint, 1 AS events, (request_body IS NULL)::int AS bare,
                        (request_body IS NOT NULL AND NOT body_whole)::int AS cut,
                        (body_whole AND coalesce(expires_at < $8, false))::int AS old
                   FROM walhook.push_log_events l WHERE {MATCHES}
                 UNION ALL
                 SELECT endpoint, {IN_BATCH}, {IN_BATCH}, 0, 0
                   FROM walhook.push_log_batches l WHERE {BATCH_MATCHES}) AS found
          WHERE events > 0 GROUP BY endpoint ORDER BY endpoint"
    );
    let rows = client.query_typed(&query, &params.list()).await?;
    let share = |row: &Row| {
        Ok(ReplayShare {
            endpoint: read::<&str>(row, "endpoint")?.into(),
            events: unsigned(row, "events")?,
            without_body: unsigned(row, "bare")?,
            body_cut: unsigned(row, "cut")?,
            expired: unsigned(row, "old")?,
        })
    };
    rows.iter().map(share).collect()
}

/// The next deliveries of an order, in the order in which they were made, at most `rows` and `bytes`
/// of bodies (but one in any case).
///
/// # Errors
/// That the rows could not be read.
pub(crate) async fn page(
    client: &Client,
    slot: &str,
    order: &ReplayOrder,
    rows: usize,
    bytes: usize,
) -> Result<Vec<LoggedDelivery>, StateError> {
    let mut params = filter_params(slot, &order.filter);
    params.put(Type::TIMESTAMPTZ, order.done.map(|done| done.created_at));
    params.put(Type::INT8, order.done.map(|done| done.id));
    params.put(Type::INT8, bigint(rows as u64));
    params.put(Type::INT8, bigint(bytes as u64));
    let query = format!(
        "WITH next AS MATERIALIZED (
             SELECT * FROM walhook.push_log_events l
              WHERE {MATCHES} AND ($8::timestamptz IS NULL OR l.created_at >= $8)
                AND ($8::timestamptz IS NULL OR (l.created_at, l.id) > ($8, $9))
              ORDER BY created_at, id LIMIT $10
         )
         SELECT * FROM (
             SELECT *, sum(coalesce(octet_length(request_body), 0)::bigint)
                           OVER (ORDER BY created_at, id) AS total,
                    row_number() OVER (ORDER BY created_at, id) AS number FROM next) AS portion
          WHERE total <= $11 OR number = 1 ORDER BY created_at, id"
    );
    let found = client.query_typed(&query, &params.list()).await?;
    found.iter().map(read_logged).collect()
}

fn read_logged(row: &Row) -> Result<LoggedDelivery, StateError> {
    let at = ReplayCursor { created_at: read(row, "created_at")?, id: read(row, "id")? };
    let body: Option<String> = read(row, "request_body")?;
    let is_whole: bool = read(row, "body_whole")?;
    let event = body.filter(|_| is_whole).map(|body| read_event(row, at, body)).transpose()?;
    Ok(LoggedDelivery { at, event })
}

/// The event as far as the push log knows it. It holds no share of the memory budget.
fn read_event(row: &Row, at: ReplayCursor, body: String) -> Result<Event, StateError> {
    let id: EventId = read::<&str>(row, "event_id")?
        .parse()
        .map_err(|cause| StateError::unreadable("an event id", cause))?;
    let headers = read::<Option<Value>>(row, "shape_headers")?;
    let expires: Option<Timestamp> = read(row, "expires_at")?;
    let row_key: Option<String> = read(row, "row_key")?;
    Ok(Event {
        id,
        sequence: 0,
        // A row that was read: the push log does not say where it stood. It is the past in any case.
        position: id.position().unwrap_or_default(),
        event_type: read::<&str>(row, "event_type")?.into(),
        table: Arc::new(stored_event::read_table(row)?),
        committed: at.created_at,
        keys: stored_event::read_keys(row)?,
        // When it is over is all that counts.
        expiry: expires.map(|born| EventExpiry { born, max_age: std::time::Duration::ZERO }),
        body: EventBody::new(vec![BodyPart::Bytes(Bytes::from(body))])
            .with_headers(read_headers(headers.as_ref())?)
            .with_values(read_values(headers.as_ref())),
        facts: EventFacts::new(row_key.into_iter().map(|key| ("key".into(), key)).collect()),
        write_back: None,
        held: None,
    })
}

/// What a body's shape, and its endpoint's URL and headers, ask of the request, to be kept: names and values
/// of headers, and values by their expression in braces, which no header's name holds.
pub(crate) fn kept_headers(body: &EventBody, unicode: bool) -> Option<Value> {
    let header = |(name, value): &(HeaderName, HeaderValue)| {
        let value = clean(value.to_str().ok()?, unicode).into_owned();
        Some((name.as_str().to_owned(), Value::String(value)))
    };
    let value = |(source, value): &(Arc<str>, RequestValue)| {
        let value = match value {
            RequestValue::Text(text) => Value::String(clean(text, unicode).into_owned()),
            RequestValue::Null => Value::Null,
            RequestValue::Failed(_) => return None, // nothing was delivered with it
        };
        Some((format!("{VALUE_OPEN}{source}{VALUE_CLOSE}"), value))
    };
    let values = body.values().iter().filter_map(value);
    let headers: Map<String, Value> =
        body.headers().iter().filter_map(header).chain(values).collect();
    (!headers.is_empty()).then_some(Value::Object(headers))
}

fn read_headers(kept: Option<&Value>) -> Result<Vec<(HeaderName, HeaderValue)>, StateError> {
    let wrong = || StateError::unreadable("the headers of an event", "they are no headers");
    let Some(kept) = kept else { return Ok(Vec::new()) };
    let header = |(name, value): (&String, &Value)| {
        let name = HeaderName::try_from(name).ok()?;
        Some((name, HeaderValue::from_str(value.as_str()?).ok()?))
    };
    let headers = kept.as_object().ok_or_else(wrong)?.iter();
    let headers = headers.filter(|(name, _)| !name.starts_with(VALUE_OPEN));
    headers.map(|pair| header(pair).ok_or_else(wrong)).collect()
}

fn read_values(kept: Option<&Value>) -> Vec<(Arc<str>, RequestValue)> {
    let value = |(name, value): (&String, &Value)| {
        let source = name.strip_prefix(VALUE_OPEN)?.strip_suffix(VALUE_CLOSE)?;
        let value =
            value.as_str().map_or(RequestValue::Null, |text| RequestValue::Text(text.into()));
        Some((Arc::from(source), value))
    };
    kept.and_then(Value::as_object).into_iter().flatten().filter_map(value).collect()
}
