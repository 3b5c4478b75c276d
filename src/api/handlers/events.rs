//! `GET /api/v1/events/{event_id}`: one event wherever it is: its attempts, what comes next, and what its
//! row did before and after.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::answers::problem::ProblemResponse;
use crate::api::handlers::push_logs::ShownAttempt;
use crate::api::requests::field_kinds::IsoTime;
use crate::api::requests::fields::bad;
use crate::api::requests::letter_fields::ShownLetter;
use crate::api::requests::path_parts::EventPart;
use crate::api::requests::request::NamedParts;
use crate::api::surface::HttpSurface;
use crate::flow::event::EventId;
use crate::store::dead_letters as letters;
use crate::store::dead_letters::selection::LetterFilter;
use crate::store::dead_letters::selection::LetterState;
use crate::store::event_history;
use crate::store::event_history::NeighbourEvent;
use crate::store::event_history::WaitingDelivery;
use crate::store::push_log::filter;
use crate::store::push_log::filter::PushLogFilter;

/// Attempts that are told, the newest.
const ATTEMPTS_MAX: u32 = 200;
const LETTERS_MAX: u32 = 200;

/// An event, wherever it is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EventHistory {
    event_id: String,
    event_type: Option<String>,
    table: Option<String>,
    key: Option<String>,
    attempts: Vec<ShownAttempt>,
    waiting: Vec<AwaitedDelivery>,
    dead_letters: Vec<ShownLetter>,
    earlier: Vec<ShownNeighbour>,
    later: Vec<ShownNeighbour>,
}

/// A delivery that waits.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AwaitedDelivery {
    endpoint: String,
    attempts: u32,
    /// null: as soon as the endpoint takes it
    next_attempt_at: Option<IsoTime>,
    parked_at: IsoTime,
    committed_at: IsoTime,
    reason: String,
    last_failure: Option<String>,
    replay: bool,
}

/// Another event of the same row.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Neighbour)]
pub(crate) struct ShownNeighbour {
    event_id: String,
    event_type: String,
    created_at: IsoTime,
    outcome: String,
}

pub(crate) async fn show(
    State(surface): State<HttpSurface>,
    NamedParts(id, ..): NamedParts<EventPart>,
) -> Result<Json<EventHistory>, ProblemResponse> {
    let event: EventId = id
        .parse()
        .map_err(|error: crate::flow::event::ParseEventIdError| bad(error.to_string()))?;
    let mut session = surface.queries.session().await?;
    let slot = surface.queries.slot();
    let filter = PushLogFilter { event: Some(event), ..PushLogFilter::default() };
    let attempts = filter::list(session.client(), slot, &filter, None, ATTEMPTS_MAX).await?;
    let waiting = event_history::waiting(session.client(), slot, event).await?;
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
    Ok(Json(EventHistory {
        event_id: event.to_string(),
        event_type: newest
            .map(|one| one.event_type.clone())
            .or_else(|| letter.map(|one| one.event.event_type.to_string())),
        table: newest
            .map(|one| one.table.to_string())
            .or_else(|| letter.map(|one| one.event.table.to_string())),
        key: newest
            .and_then(|one| one.row_key.clone())
            .or_else(|| letter.and_then(|one| one.row_key.clone())),
        dead_letters: dead.iter().map(ShownLetter::of).collect(),
        attempts: attempts.into_iter().map(ShownAttempt::of).collect(),
        waiting: waiting.into_iter().map(AwaitedDelivery::of).collect(),
        earlier: earlier.into_iter().map(ShownNeighbour::of).collect(),
        later: later.into_iter().map(ShownNeighbour::of).collect(),
    }))
}

impl AwaitedDelivery {
    fn of(waiting: WaitingDelivery) -> Self {
        Self {
            endpoint: waiting.endpoint,
            attempts: waiting.attempts,
            next_attempt_at: waiting.next_attempt.map(IsoTime),
            parked_at: IsoTime(waiting.parked_at),
            committed_at: IsoTime(waiting.committed),
            reason: waiting.reason,
            last_failure: waiting.failure,
            replay: waiting.replay,
        }
    }
}

impl ShownNeighbour {
    fn of(other: NeighbourEvent) -> Self {
        Self {
            event_id: other.event,
            event_type: other.event_type,
            created_at: IsoTime(other.at),
            outcome: other.outcome,
        }
    }
}
