//! Delivered events on their way out again: an operator's orders, worked off along the push log.
//!
//! ```text
//! order ─▶ walhook.replays ─ page of the push log ─▶ lane ─ outcomes ─▶ advance ─▶ next page
//! ```
//!
//! An order is one row, however many events it means: it says how far it has come, so that it goes
//! on after a crash and repeats at most the page that was under way. An event goes out once for each
//! order, from its first delivery in the range; what is sent by the order itself is not part of it.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderName;
use http::HeaderValue;
use serde_json::Map;
use serde_json::Value;
use tokio_postgres::Client;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::flow::body::Body;
use crate::flow::body::Part;
use crate::flow::event::Event;
use crate::flow::event::EventId;
use crate::flow::event::Expiry;
use crate::flow::event::Facts;
use crate::flow::time::Timestamp;
use crate::store::progress::Holding;
use crate::store::progress::begin;
use crate::store::progress::guard;
use crate::store::sql::Params;
use crate::store::sql::bigint;
use crate::store::sql::clean;
use crate::store::sql::int;
use crate::store::sql::read;
use crate::store::sql::unsigned;
use crate::store::sql::unsigned_int;
use crate::store::state_error::StateError;
use crate::store::stored_event;

/// Which deliveries are meant; a field that is `None` does not matter.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Filter {
    pub endpoint: Option<String>,
    pub event: Option<EventId>,
    pub event_type: Option<String>,
    pub row_key: Option<String>,
    pub from: Option<Timestamp>,
    /// Never open: what an order sends is delivered as well.
    pub before: Timestamp,
}

/// What a filter means at one endpoint.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Share {
    pub endpoint: Arc<str>,
    pub events: u64,
    /// Of these, no body was kept.
    pub without_body: u64,
    /// Of these, a part of the body was kept, or what is not text.
    pub body_cut: u64,
    /// These can be sent, but are too old to be.
    pub expired: u64,
}

/// How far an order may be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OrderState {
    Running,
    Done,
    Cancelled,
}

impl OrderState {
    const ALL: [Self; 3] = [Self::Running, Self::Done, Self::Cancelled];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What became of an order's events so far.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Tally {
    pub delivered: u64,
    pub expired: u64,
    pub failed: u64,
    pub without_body: u64,
}

/// How far an order has come in the push log.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Cursor {
    pub created_at: Timestamp,
    pub id: i64,
}

/// An order, for one endpoint.
#[derive(Clone, Debug)]
pub struct Order {
    pub id: i64,
    /// Its endpoint is always there.
    pub filter: Filter,
    pub per_second: u32,
    pub state: OrderState,
    pub created_at: Timestamp,
    pub finished_at: Option<Timestamp>,
    /// All attempts up to and including this one are dealt with.
    pub done: Option<Cursor>,
    pub tally: Tally,
}

/// A delivery of the push log, to be made again.
#[derive(Debug)]
pub struct Logged {
    pub at: Cursor,
    /// `None` if its body was not kept, or not all of it.
    pub event: Option<Event>,
}

/// The rows of events that a [`Filter`] means, with the parameters `$1` to `$7` of [`filter_params`]: of each
/// event, the first delivery in the range.
const MATCHES: &str = "l.slot = $1 AND l.outcome = 'delivered'
     AND ($2::text IS NULL OR l.endpoint = $2) AND ($3::text IS NULL OR l.event_id = $3)
     AND ($4::text IS NULL OR l.event_type = $4) AND ($5::text IS NULL OR l.row_key = $5)
     AND ($6::timestamptz IS NULL OR l.created_at >= $6) AND l.created_at < $7
     AND NOT EXISTS (SELECT FROM walhook.push_log_events e
          WHERE e.event_id = l.event_id AND e.endpoint = l.endpoint AND e.slot = l.slot
            AND e.outcome = 'delivered' AND ($6::timestamptz IS NULL OR e.created_at >= $6)
            AND e.created_at <= l.created_at AND (e.created_at, e.id) < (l.created_at, l.id))";

/// The batches that may hold such events, and how many of them: none has a body to be sent again, so
/// orders pass them over.
const BATCH_MATCHES: &str = "l.slot = $1
     AND ($2::text IS NULL OR l.endpoint = $2)
     AND ($3::text IS NULL OR l.event_ids @> ARRAY[$3])
     AND ($4::text IS NULL OR l.event_type = $4)
     AND ($5::text IS NULL OR l.row_keys @> ARRAY[$5])
     AND ($6::timestamptz IS NULL OR l.created_at >= $6) AND l.created_at < $7";

const IN_BATCH: &str = "CASE WHEN $3::text IS NULL AND $5::text IS NULL THEN l.events ELSE (
     SELECT count(*)::int FROM unnest(l.event_ids, l.row_keys) AS e (event_id, row_key)
      WHERE ($3::text IS NULL OR e.event_id = $3) AND ($5::text IS NULL OR e.row_key = $5)) END";

const COLUMNS: &str = "id, endpoint, event_id, event_type, row_key, from_time, before_time, \
                       per_second, state, created_at, finished_at, done_time, done_id, delivered, \
                       expired, failed, without_body";

fn filter_params<'a>(slot: &'a str, filter: &Filter) -> Params<'a> {
    let text = |text: &Option<String>| text.as_deref().map(|text| clean(text, true).into_owned());
    let mut params = Params::default();
    params.put(Type::TEXT, slot);
    params.put(Type::TEXT, text(&filter.endpoint));
    params.put(Type::TEXT, filter.event.map(|event| event.to_string()));
    params.put(Type::TEXT, text(&filter.event_type));
    params.put(Type::TEXT, text(&filter.row_key));
    params.put(Type::TIMESTAMPTZ, filter.from);
    params.put(Type::TIMESTAMPTZ, filter.before);
    params
}

/// What a filter means, by endpoint: a dry run.
///
/// # Errors
/// That the rows could not be counted.
pub async fn survey(
    client: &Client,
    slot: &str,
    filter: &Filter,
    now: Timestamp,
) -> Result<Vec<Share>, StateError> {
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
        Ok(Share {
            endpoint: read::<&str>(row, "endpoint")?.into(),
            events: unsigned(row, "events")?,
            without_body: unsigned(row, "bare")?,
            body_cut: unsigned(row, "cut")?,
            expired: unsigned(row, "old")?,
        })
    };
    rows.iter().map(share).collect()
}

/// Places an order for the endpoint of the filter, which has to be there.
///
/// # Errors
/// That the statement failed.
pub async fn order(
    client: &Client,
    slot: &str,
    filter: &Filter,
    per_second: u32,
    now: Timestamp,
) -> Result<Order, StateError> {
    let mut params = filter_params(slot, filter);
    params.put(Type::INT4, int(per_second));
    params.put(Type::TIMESTAMPTZ, now);
    let insert = format!(
        "INSERT INTO walhook.replays (slot, endpoint, event_id, event_type, row_key, from_time,
                before_time, per_second, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING {COLUMNS}"
    );
    read_order(&client.query_typed_one(&insert, &params.list()).await?)
}

/// Orders, the newest first, at most `limit`; with an `id`, that one.
///
/// # Errors
/// That the rows could not be read.
pub async fn list(
    client: &Client,
    slot: &str,
    id: Option<i64>,
    limit: u32,
) -> Result<Vec<Order>, StateError> {
    let mut params = Params::default();
    params.put(Type::TEXT, slot);
    params.put(Type::INT8, id);
    params.put(Type::INT8, i64::from(limit));
    let query = format!(
        "SELECT {COLUMNS} FROM walhook.replays
          WHERE slot = $1 AND ($2::bigint IS NULL OR id = $2) ORDER BY id DESC LIMIT $3"
    );
    let rows = client.query_typed(&query, &params.list()).await?;
    rows.iter().map(read_order).collect()
}

/// Stops an order that is running, and says whether it was. What is in a lane is still sent.
///
/// # Errors
/// That the statement failed.
pub async fn cancel(
    client: &Client,
    slot: &str,
    id: i64,
    now: Timestamp,
) -> Result<bool, StateError> {
    let mut params = Params::default();
    params.put(Type::TEXT, slot);
    params.put(Type::INT8, id);
    params.put(Type::TIMESTAMPTZ, now);
    let update = "UPDATE walhook.replays SET state = 'cancelled', finished_at = $3
                   WHERE slot = $1 AND id = $2 AND state = 'running'";
    Ok(client.execute_typed(update, &params.list()).await? == 1)
}

/// The endpoints with an order that is running.
///
/// # Errors
/// That the rows could not be read.
pub async fn waiting(client: &Client, slot: &str) -> Result<Vec<Arc<str>>, StateError> {
    let mut params = Params::default();
    params.put(Type::TEXT, slot);
    let query = "SELECT DISTINCT endpoint FROM walhook.replays
                  WHERE slot = $1 AND state = 'running'";
    let rows = client.query_typed(query, &params.list()).await?;
    rows.iter().map(|row| Ok(read::<&str>(row, "endpoint")?.into())).collect()
}

/// The oldest running order of an endpoint.
///
/// # Errors
/// That the row could not be read.
pub async fn next(
    client: &Client,
    slot: &str,
    endpoint: &str,
) -> Result<Option<Order>, StateError> {
    let mut params = Params::default();
    params.put(Type::TEXT, slot);
    params.put(Type::TEXT, endpoint);
    let query = format!(
        "SELECT {COLUMNS} FROM walhook.replays
          WHERE slot = $1 AND endpoint = $2 AND state = 'running' ORDER BY id LIMIT 1"
    );
    let row = client.query_typed_opt(&query, &params.list()).await?;
    row.as_ref().map(read_order).transpose()
}

/// The next deliveries of an order, in the order in which they were made, at most `rows` and `bytes`
/// of bodies (but one in any case).
///
/// # Errors
/// That the rows could not be read.
pub async fn page(
    client: &Client,
    slot: &str,
    order: &Order,
    rows: usize,
    bytes: usize,
) -> Result<Vec<Logged>, StateError> {
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

/// Notes what became of a page, or with `done` = `None` that there was nothing left.
///
/// # Errors
/// [`StateError::Fenced`], or that a statement failed.
pub async fn advance(
    client: &mut Client,
    holding: &Holding,
    id: i64,
    done: Option<Cursor>,
    tally: Tally,
    now: Timestamp,
) -> Result<(), StateError> {
    let mut params = Params::default();
    params.put(Type::TEXT, holding.slot.as_ref());
    params.put(Type::INT8, id);
    params.put(Type::TIMESTAMPTZ, done.map(|done| done.created_at));
    params.put(Type::INT8, done.map(|done| done.id));
    for count in [tally.delivered, tally.expired, tally.failed, tally.without_body] {
        params.put(Type::INT8, bigint(count));
    }
    params.put(Type::TIMESTAMPTZ, now);
    let tx = begin(client).await?;
    guard(&tx, holding).await?;
    tx.execute_typed(
        "UPDATE walhook.replays
            SET done_time = coalesce($3, done_time), done_id = coalesce($4, done_id),
                delivered = delivered + $5, expired = expired + $6, failed = failed + $7,
                without_body = without_body + $8,
                state = CASE WHEN $4::bigint IS NULL AND state = 'running' THEN 'done'
                             ELSE state END,
                finished_at = CASE WHEN $4::bigint IS NULL AND state = 'running' THEN $9
                                   ELSE finished_at END
          WHERE slot = $1 AND id = $2",
        &params.list(),
    )
    .await?;
    tx.commit().await?;
    Ok(())
}

fn read_order(row: &Row) -> Result<Order, StateError> {
    let state: &str = read(row, "state")?;
    let event: Option<&str> = read(row, "event_id")?;
    let event = event.map(str::parse).transpose();
    let done: Option<(Timestamp, i64)> =
        read::<Option<Timestamp>>(row, "done_time")?.zip(read(row, "done_id")?);
    Ok(Order {
        id: read(row, "id")?,
        filter: Filter {
            endpoint: read(row, "endpoint")?,
            event: event.map_err(|cause| StateError::unreadable("an event id", cause))?,
            event_type: read(row, "event_type")?,
            row_key: read(row, "row_key")?,
            from: read(row, "from_time")?,
            before: read(row, "before_time")?,
        },
        per_second: unsigned_int(row, "per_second")?,
        state: OrderState::ALL
            .into_iter()
            .find(|known| known.as_str() == state)
            .ok_or_else(|| StateError::unreadable("a replay", "its state is unknown"))?,
        created_at: read(row, "created_at")?,
        finished_at: read(row, "finished_at")?,
        done: done.map(|(created_at, id)| Cursor { created_at, id }),
        tally: Tally {
            delivered: unsigned(row, "delivered")?,
            expired: unsigned(row, "expired")?,
            failed: unsigned(row, "failed")?,
            without_body: unsigned(row, "without_body")?,
        },
    })
}

fn read_logged(row: &Row) -> Result<Logged, StateError> {
    let at = Cursor { created_at: read(row, "created_at")?, id: read(row, "id")? };
    let body: Option<String> = read(row, "request_body")?;
    let is_whole: bool = read(row, "body_whole")?;
    let event = body.filter(|_| is_whole).map(|body| read_event(row, at, body)).transpose()?;
    Ok(Logged { at, event })
}

/// The event as far as the push log knows it. It holds no share of the memory budget.
fn read_event(row: &Row, at: Cursor, body: String) -> Result<Event, StateError> {
    let id: EventId = read::<&str>(row, "event_id")?
        .parse()
        .map_err(|cause| StateError::unreadable("an event id", cause))?;
    let headers = read::<Option<Value>>(row, "shape_headers")?;
    let expires: Option<Timestamp> = read(row, "expires_at")?;
    let row_key: Option<String> = read(row, "row_key")?;
    Ok(Event {
        id,
        sequence: 0,
        position: id.position(),
        event_type: read::<&str>(row, "event_type")?.into(),
        table: Arc::new(stored_event::read_table(row)?),
        committed: at.created_at,
        keys: stored_event::read_keys(row)?,
        // When it is over is all that counts.
        expiry: expires.map(|born| Expiry { born, max_age: std::time::Duration::ZERO }),
        body: Body::new(vec![Part::Bytes(Bytes::from(body))]).with_headers(read_headers(headers)?),
        facts: Facts::new(row_key.into_iter().map(|key| ("key".into(), key)).collect()),
        write_back: None,
        held: None,
    })
}

/// What a body's shape asks of the request, to be kept.
pub(crate) fn kept_headers(body: &Body, unicode: bool) -> Option<Value> {
    let header = |(name, value): &(HeaderName, HeaderValue)| {
        let value = clean(value.to_str().ok()?, unicode).into_owned();
        Some((name.as_str().to_owned(), Value::String(value)))
    };
    let headers: Map<String, Value> = body.headers().iter().filter_map(header).collect();
    (!headers.is_empty()).then_some(Value::Object(headers))
}

fn read_headers(kept: Option<Value>) -> Result<Vec<(HeaderName, HeaderValue)>, StateError> {
    let wrong = || StateError::unreadable("the headers of an event", "they are no headers");
    let Some(kept) = kept else { return Ok(Vec::new()) };
    let header = |(name, value): (&String, &Value)| {
        let name = HeaderName::try_from(name).ok()?;
        Some((name, HeaderValue::from_str(value.as_str()?).ok()?))
    };
    let headers = kept.as_object().ok_or_else(wrong)?.iter();
    headers.map(|pair| header(pair).ok_or_else(wrong)).collect()
}
