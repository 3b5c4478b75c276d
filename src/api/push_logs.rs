//! `GET /api/v1/push-logs`: every attempt that was made, the newest first.

use axum::Json;
use axum::extract::RawQuery;
use axum::extract::State;
use serde_json::Value;
use serde_json::json;

use crate::api::fields::RequestFields;
use crate::api::fields::bad;
use crate::api::problem::ProblemResponse;
use crate::api::surface::HttpSurface;
use crate::flow::time::Timestamp;
use crate::flow::verdict::FailureClass;
use crate::store::push_log;
use crate::store::push_log::AttemptOutcome;
use crate::store::push_log::PushLogCursor;
use crate::store::push_log::PushLogEntry;
use crate::store::push_log::PushLogFilter;

const PAGE: u32 = 50;
/// With bodies of up to 1 MiB each, an answer is made in memory.
const PAGE_MAX: u32 = 200;

const KNOWN: [&str; 13] = [
    "event_id",
    "event_type",
    "key",
    "task_id",
    "endpoint",
    "webhook_id",
    "status",
    "class",
    "outcome",
    "from",
    "before",
    "limit",
    "cursor",
];

pub(crate) async fn list(
    State(surface): State<HttpSurface>,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, ProblemResponse> {
    let fields = RequestFields::of_query(query.as_deref(), &KNOWN)?;
    let outcomes = [AttemptOutcome::Delivered, AttemptOutcome::Retry, AttemptOutcome::Dead];
    let status = fields.number("status", &(100..=999))?;
    let filter = PushLogFilter {
        event: fields.event("event_id")?,
        event_type: fields.text("event_type")?,
        row_key: fields.either("key", "task_id")?,
        endpoint: fields.either("endpoint", "webhook_id")?,
        status: status.and_then(|status| u16::try_from(status).ok()),
        class: fields.known("class", &FailureClass::NAMES)?,
        outcome: fields.one_of("outcome", &outcomes.map(|outcome| (outcome.as_str(), outcome)))?,
        from: fields.time("from")?,
        before: fields.time("before")?,
    };
    let limit = fields.number("limit", &(1..=PAGE_MAX))?.unwrap_or(PAGE);
    let below = fields.text("cursor")?.map(|text| cursor(&text)).transpose()?;
    let mut session = surface.queries.session().await?;
    let slot = surface.queries.slot();
    let now = surface.clock.now();
    let found = push_log::search(session.client(), slot, &filter, below, limit, now).await?;
    if found.entries.is_empty() && found.next.is_none() {
        surface.refuse_strangers(filter.endpoint.as_deref(), filter.event_type.as_deref())?;
    }
    let next = found.next.map(|PushLogCursor { created_at, id, place }| {
        format!("{}-{id}-{place}", created_at.micros())
    });
    let shown: Vec<Value> = found.entries.iter().map(shown).collect();
    let searched_from = found.searched_from.map(Timestamp::iso_millis);
    Ok(Json(json!({ "push_logs": shown, "next_cursor": next, "searched_from": searched_from })))
}

/// A cursor as [`list`] gives it: microseconds, the number of the attempt, and the event's in it.
fn cursor(text: &str) -> Result<PushLogCursor, ProblemResponse> {
    let parse = || {
        let (rest, place) = text.rsplit_once('-')?;
        let (micros, id) = rest.rsplit_once('-')?;
        let created_at = Timestamp::from_micros(micros.parse().ok()?);
        Some(PushLogCursor { created_at, id: id.parse().ok()?, place: place.parse().ok()? })
    };
    parse()
        .ok_or_else(|| bad(format!("{text:?} is no cursor: give next_cursor of the page before")))
}

/// The names are those of contract 3, beside walhook's own.
pub(crate) fn shown(entry: &PushLogEntry) -> Value {
    json!({
        "id": entry.id,
        "created_at": entry.created_at.iso_millis(),
        "task_id": entry.row_key,
        "key": entry.row_key,
        "webhook_id": entry.endpoint,
        "endpoint": entry.endpoint,
        "event_id": entry.event.to_string(),
        "event_type": entry.event_type,
        "table": entry.table.to_string(),
        "retry_count": entry.retry_count,
        "outcome": entry.outcome,
        "http_status": entry.status,
        "failure_class": entry.failure_class,
        "error_message": entry.error_message,
        "duration_ms": entry.duration_ms,
        "request_headers": entry.request_headers,
        "request_body": entry.request_body,
        "response_headers": entry.response_headers,
        "response_body": entry.response_body,
        "replay": entry.replay,
    })
}
