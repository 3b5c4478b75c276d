//! Attempts of the push log read back: by event, key, endpoint, status, class and time.

use tokio_postgres::GenericClient;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::flow::event::EventId;
use crate::flow::time::Timestamp;
use crate::store::push_log::AttemptOutcome;
use crate::store::push_log::PushLogCursor;
use crate::store::push_log::PushLogEntry;
use crate::store::sql::SqlParams;
use crate::store::sql::clean_unicode;
use crate::store::sql::read;
use crate::store::sql::unsigned_int;
use crate::store::state_error::StateError;
use crate::store::stored_event;

/// Which attempts are meant; a field that is `None` does not matter.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PushLogFilter {
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

/// Not by the view: a batch is found by what its arrays hold before it is taken apart. Each of the
/// batches has an event to show, but for that of the last page's last entry.
const LIST: &str = "
    SELECT * FROM (
        (SELECT id, 0::bigint AS place, created_at, endpoint, event_id, event_type, table_schema,
                table_name, row_key, retry_count, outcome, http_status, failure_class, error_message,
                request_headers::json, request_body, response_headers::json, response_body,
                duration_ms, replay
           FROM walhook.push_log_events
          WHERE slot = $1 AND ($2::text IS NULL OR event_id = $2)
            AND ($3::text IS NULL OR event_type = $3) AND ($4::text IS NULL OR row_key = $4)
            AND ($5::text IS NULL OR endpoint = $5) AND ($6::int IS NULL OR http_status = $6)
            AND ($7::text IS NULL OR (failure_class = $7 AND outcome <> 'delivered'))
            AND ($8::text IS NULL OR outcome = $8)
            AND ($9::timestamptz IS NULL OR created_at >= $9)
            AND ($10::timestamptz IS NULL OR created_at < $10)
            AND ($11::timestamptz IS NULL OR created_at <= $11)
            AND ($11::timestamptz IS NULL OR (created_at, id) < ($11, $12))
          ORDER BY created_at DESC, id DESC LIMIT $14)
        UNION ALL
        (SELECT b.id, e.place, b.created_at, b.endpoint, e.event_id, b.event_type, b.table_schema,
                b.table_name, e.row_key, b.retry_count, 'delivered', b.http_status, NULL, NULL,
                b.request_headers::json, NULL, b.response_headers::json, NULL, b.duration_ms,
                b.replay
           FROM (SELECT * FROM walhook.push_log_batches
                  WHERE slot = $1 AND ($2::text IS NULL OR event_ids @> ARRAY[$2])
                    AND ($3::text IS NULL OR event_type = $3)
                    AND ($4::text IS NULL OR row_keys @> ARRAY[$4])
                    AND ($5::text IS NULL OR endpoint = $5)
                    AND ($6::int IS NULL OR http_status = $6)
                    AND $7::text IS NULL AND ($8::text IS NULL OR $8 = 'delivered')
                    AND ($9::timestamptz IS NULL OR created_at >= $9)
                    AND ($10::timestamptz IS NULL OR created_at < $10)
                    AND ($11::timestamptz IS NULL OR created_at <= $11)
                    AND ($11::timestamptz IS NULL OR (created_at, id) <= ($11, $12))
                  ORDER BY created_at DESC, id DESC LIMIT $14 + 1) AS b,
                unnest(b.event_ids, b.row_keys) WITH ORDINALITY AS e (event_id, row_key, place)
          WHERE ($2::text IS NULL OR e.event_id = $2) AND ($4::text IS NULL OR e.row_key = $4)
            AND ($11::timestamptz IS NULL OR (b.created_at, b.id, e.place) < ($11, $12, $13)))
    ) AS entries
    ORDER BY created_at DESC, id DESC, place DESC LIMIT $14";

/// Attempts, the newest first, at most `limit`; `below` is the last entry of the page before.
///
/// # Errors
/// That the rows could not be read.
pub async fn list(
    client: &(impl GenericClient + Sync),
    slot: &str,
    filter: &PushLogFilter,
    below: Option<PushLogCursor>,
    limit: u32,
) -> Result<Vec<PushLogEntry>, StateError> {
    let text = |text: &Option<String>| text.as_deref().map(|t| clean_unicode(t).into_owned());
    let mut params = SqlParams::default();
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
    params.put(Type::INT8, below.map(|cursor| cursor.place));
    params.put(Type::INT8, i64::from(limit));
    // The planner sees the values: it drops what is null, and days outside of the range.
    let rows = client.query_typed(LIST, &params.list()).await?;
    rows.iter().map(read_entry).collect()
}

fn read_entry(row: &Row) -> Result<PushLogEntry, StateError> {
    Ok(PushLogEntry {
        id: read(row, "id")?,
        place: read(row, "place")?,
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
