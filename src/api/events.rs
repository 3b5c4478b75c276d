//! `GET /api/v1/events/{event_id}`: one event wherever it is: its attempts, what comes next, and what its
//! row did before and after.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::Value;
use serde_json::json;

use crate::api::dead_letters;
use crate::api::fields::bad;
use crate::api::problem::ProblemResponse;
use crate::api::push_logs;
use crate::api::request::NamedParts;
use crate::api::surface::HttpSurface;
use crate::flow::event::EventId;
use crate::flow::time::Timestamp;
use crate::store::dead_letters as letters;
use crate::store::dead_letters::LetterFilter;
use crate::store::dead_letters::LetterState;
use crate::store::event_history;
use crate::store::event_history::NeighbourEvent;
use crate::store::event_history::WaitingDelivery;
use crate::store::push_log;
use crate::store::push_log::PushLogFilter;

/// Attempts that are told, the newest.
const ATTEMPTS_MAX: u32 = 200;
const LETTERS_MAX: u32 = 200;

pub(crate) async fn show(
    State(surface): State<HttpSurface>,
    NamedParts(id): NamedParts,
) -> Result<Json<Value>, ProblemResponse> {
    let event: EventId = id
        .parse()
        .map_err(|error: crate::flow::event::ParseEventIdError| bad(error.to_string()))?;
    let mut session = surface.queries.session().await?;
    let slot = surface.queries.slot();
    let filter = PushLogFilter { event: Some(event), ..PushLogFilter::default() };
    let attempts = push_log::list(session.client(), slot, &filter, None, ATTEMPTS_MAX).await?;
    let views = (surface.endpoints)();
    let names: Vec<&str> = views.iter().map(|view| &*view.name).collect();
    let waiting = event_history::waiting(session.client(), slot, &names, event).await?;
    let filter = LetterFilter {
        event: Some(event),
        states: Some(LetterState::ALL.to_vec()),
        ..LetterFilter::default()
    };
    let dead = letters::list(session.client(), slot, &filter, None, LETTERS_MAX).await?;
    let (earlier, later) = match attempts.first() {
        Some(attempt) => event_history::neighbours(session.client(), slot, attempt).await?,
        None => (Vec::new(), Vec::new()),
    };
    if attempts.is_empty() && waiting.is_empty() && dead.is_empty() {
        let detail = format!(
            "nothing is known of {event}: it was not tried yet, or the push log of its day is gone"
        );
        return Err(ProblemResponse::new(StatusCode::NOT_FOUND, detail));
    }
    let newest = attempts.first();
    let letter = dead.first();
    Ok(Json(json!({
        "event_id": event.to_string(),
        "event_type": newest.map(|one| one.event_type.clone())
            .or_else(|| letter.map(|one| one.event.event_type.to_string())),
        "table": newest.map(|one| one.table.to_string())
            .or_else(|| letter.map(|one| one.event.table.to_string())),
        "key": newest.and_then(|one| one.row_key.clone())
            .or_else(|| letter.and_then(|one| one.row_key.clone())),
        "attempts": attempts.iter().map(push_logs::shown).collect::<Vec<Value>>(),
        "waiting": waiting.iter().map(awaited).collect::<Vec<Value>>(),
        "dead_letters": dead.iter().map(dead_letters::shown).collect::<Vec<Value>>(),
        "earlier": earlier.iter().map(neighbour).collect::<Vec<Value>>(),
        "later": later.iter().map(neighbour).collect::<Vec<Value>>(),
    })))
}

fn awaited(waiting: &WaitingDelivery) -> Value {
    json!({
        "endpoint": waiting.endpoint,
        "attempts": waiting.attempts,
        "next_attempt_at": waiting.next_attempt.map(Timestamp::iso_millis),
        "parked_at": waiting.parked_at.iso_millis(),
        "committed_at": waiting.committed.iso_millis(),
        "reason": waiting.reason,
        "last_failure": waiting.failure,
        "replay": waiting.replay,
    })
}

fn neighbour(other: &NeighbourEvent) -> Value {
    json!({
        "event_id": other.event,
        "event_type": other.event_type,
        "created_at": other.at.iso_millis(),
        "outcome": other.outcome,
    })
}
