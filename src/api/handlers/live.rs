//! `GET /api/v1/live`: what happens, as server-sent events.
//!
//! ```text
//! ledger ─▶ AttemptFeed ─ a few times a second ─▶ [live] ─ event: attempts, numbers, dropped ─▶ a page
//! ```
//!
//! Nothing waits for a reader, and a reader costs the same however much is delivered: it is shown the
//! newest attempts and told how many there were besides. One that does not read is dropped, and told so
//! by an event of its own.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::response::Sse;
use axum::response::sse::Event as SentEvent;
use axum::response::sse::KeepAlive;
use serde::Deserialize;
use serde::Serialize;
use tokio::time::Instant;
use tokio::time::sleep_until;
use utoipa::ToSchema;

use crate::api::answers::handler_answers::TextAnswer;
use crate::api::answers::handler_answers::TextKinds;
use crate::api::answers::problem::ProblemResponse;
use crate::api::handlers::overview;
use crate::api::handlers::push_logs::FailureWord;
use crate::api::handlers::push_logs::HttpStatus;
use crate::api::handlers::push_logs::OutcomeWord;
use crate::api::live_readers::READERS_MAX;
use crate::api::live_readers::ReaderPlace;
use crate::api::live_readers::SLOW;
use crate::api::openapi::request_shape::QueryFields;
use crate::api::requests::field_kinds::AskedEvent;
use crate::api::requests::field_kinds::IsoTime;
use crate::api::surface::HttpSurface;
use crate::ledger::live_feed::FeedWatch;
use crate::ledger::live_feed::SeenAttempt;
use crate::store::push_log::AttemptOutcome;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Numbers come with every so many looks.
const NUMBERS_EVERY: u32 = 4;
/// Attempts that one look shows: more than an eye can follow.
const SHOWN_MAX: usize = 50;
/// A comment, so that what stands in between does not take the connection for a dead one.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Which attempts a reader asks for.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct LiveQuery {
    /// Name of an endpoint
    endpoint: Option<String>,
    /// Event type
    event_type: Option<String>,
    /// Value that names the row
    key: Option<String>,
    /// Event id
    event_id: Option<AskedEvent>,
    /// HTTP status
    status: Option<HttpStatus>,
    /// Failure class
    class: Option<FailureWord>,
    /// What the attempt meant for its delivery
    outcome: Option<OutcomeWord>,
}

/// A stream of events.
pub(crate) struct EventStream;

impl TextKinds for EventStream {
    const KINDS: &'static [&'static str] = &["text/event-stream"];
}

/// Which attempts a reader wants; a field that is `None` does not matter.
#[derive(Debug)]
struct LiveFilter {
    endpoint: Option<String>,
    event_type: Option<String>,
    key: Option<String>,
    event: Option<crate::flow::event::EventId>,
    status: Option<u32>,
    class: Option<String>,
    outcome: Option<AttemptOutcome>,
}

impl LiveFilter {
    fn is_meant(&self, seen: &SeenAttempt) -> bool {
        let is = |wanted: &Option<String>, found: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| found == Some(wanted))
        };
        is(&self.endpoint, Some(&seen.endpoint))
            && is(&self.event_type, Some(&seen.event_type))
            && is(&self.key, seen.row_key.as_deref())
            && is(&self.class, seen.class)
            && self.event.is_none_or(|event| event == seen.event)
            && self.status.is_none_or(|status| seen.status.map(u32::from) == Some(status))
            && self.outcome.is_none_or(|outcome| outcome == seen.outcome)
    }
}

/// What is sent to one reader.
struct LiveStream {
    surface: HttpSurface,
    filter: LiveFilter,
    watch: FeedWatch,
    place: Arc<ReaderPlace>,
    looks: u32,
    next: Instant,
    /// What is sent before the next look.
    ready: Option<SentEvent>,
    is_over: bool,
}

impl Drop for LiveStream {
    fn drop(&mut self) {
        self.surface.live.leave(&self.place);
    }
}

pub(crate) async fn live(
    State(surface): State<HttpSurface>,
    QueryFields(query): QueryFields<LiveQuery>,
) -> Result<TextAnswer<EventStream>, ProblemResponse> {
    let filter = LiveFilter {
        endpoint: query.endpoint,
        event_type: query.event_type,
        key: query.key,
        event: query.event_id.map(|event| event.0),
        status: query.status.map(|status| status.0),
        class: query.class.map(|class| class.0),
        outcome: query.outcome.map(|outcome| outcome.0),
    };
    let now = Instant::now();
    let Some(place) = surface.live.enter(now) else {
        let detail = format!(
            "{READERS_MAX} readers look on already: close a page that nobody looks at, or ask \
             /api/v1/push-logs"
        );
        return Err(ProblemResponse::new(StatusCode::SERVICE_UNAVAILABLE, detail));
    };
    let watch = surface.feed.watch();
    let ready = Some(sent("numbers", &overview::numbers(&surface)));
    let stream =
        LiveStream { surface, filter, watch, place, looks: 0, next: now, ready, is_over: false };
    let events = futures_util::stream::unfold(stream, |mut stream| async move {
        let event = stream.next().await?;
        Some((Ok::<_, Infallible>(event), stream))
    });
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    Ok(TextAnswer::new(Sse::new(events).keep_alive(keep_alive).into_response()))
}

impl LiveStream {
    /// The next event; `None` at the end. Called when the one before is on its way.
    async fn next(&mut self) -> Option<SentEvent> {
        if self.is_over {
            return None;
        }
        loop {
            let now = Instant::now();
            let is_slow = now.saturating_duration_since(self.place.last()) > SLOW;
            if is_slow || self.place.lost.is_cancelled() {
                self.is_over = true;
                let why = "this reader took nothing for a while and was dropped: connect again";
                return Some(sent("dropped", &DroppedReader { reason: why }));
            }
            self.place.took(now);
            if let Some(ready) = self.ready.take() {
                return Some(ready);
            }
            let stop = self.surface.live.stop.clone();
            tokio::select! {
                () = stop.cancelled() => return None,
                () = sleep_until(self.next) => {}
            }
            self.next = Instant::now() + LOOK_EVERY;
            self.place.took(Instant::now());
            self.looks += 1;
            if self.looks.is_multiple_of(NUMBERS_EVERY) {
                self.ready = Some(sent("numbers", &overview::numbers(&self.surface)));
            }
            let (attempts, more) = self.watch.take(SHOWN_MAX, |seen| self.filter.is_meant(seen));
            if !attempts.is_empty() || more > 0 {
                let attempts = attempts.iter().map(|seen| LiveAttempt::of(seen)).collect();
                return Some(sent("attempts", &LiveAttempts { attempts, more }));
            }
        }
    }
}

fn sent(name: &str, data: &impl Serialize) -> SentEvent {
    let data = serde_json::to_string(data).unwrap_or_default();
    SentEvent::default().event(name).data(data)
}

/// Why a reader is dropped.
#[derive(Debug, Serialize)]
struct DroppedReader {
    reason: &'static str,
}

/// Attempts since the event before, and how many there were besides.
#[derive(Debug, Serialize)]
struct LiveAttempts {
    attempts: Vec<LiveAttempt>,
    more: u64,
}

/// An attempt, with the names of `GET /api/v1/push-logs`.
#[derive(Debug, Serialize)]
struct LiveAttempt {
    created_at: IsoTime,
    endpoint: String,
    event_id: String,
    event_type: String,
    key: Option<String>,
    events: usize,
    retry_count: u32,
    outcome: &'static str,
    http_status: Option<u16>,
    failure_class: Option<&'static str>,
    duration_ms: f64,
    replay: bool,
}

impl LiveAttempt {
    fn of(seen: &SeenAttempt) -> Self {
        Self {
            created_at: IsoTime(seen.at),
            endpoint: seen.endpoint.to_string(),
            event_id: seen.event.to_string(),
            event_type: seen.event_type.to_string(),
            key: seen.row_key.clone(),
            events: seen.events,
            retry_count: seen.retry_count,
            outcome: seen.outcome.as_str(),
            http_status: seen.status,
            failure_class: seen.class,
            duration_ms: seen.duration_ms,
            replay: seen.replay,
        }
    }
}
