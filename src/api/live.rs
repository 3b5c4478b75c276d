//! `GET /api/v1/live`: what happens, as server-sent events.
//!
//! ```text
//! ledger ─▶ AttemptFeed ─ a few times a second ─▶ [live] ─ event: attempts, numbers, dropped ─▶ a page
//! ```
//!
//! Nothing waits for a reader, and a reader costs the same however much is delivered: it is shown the
//! newest attempts and told how many there were besides. Whoever does not read is dropped, and told so
//! by an event of its own.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::RawQuery;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::response::Response;
use axum::response::Sse;
use axum::response::sse::Event as SentEvent;
use axum::response::sse::KeepAlive;
use serde_json::Value;
use serde_json::json;
use tokio::time::Instant;
use tokio::time::sleep_until;

use crate::api::fields::RequestFields;
use crate::api::live_readers::READERS_MAX;
use crate::api::live_readers::ReaderPlace;
use crate::api::live_readers::SLOW;
use crate::api::overview;
use crate::api::problem::ProblemResponse;
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

const KNOWN: [&str; 7] =
    ["endpoint", "event_type", "key", "event_id", "status", "class", "outcome"];

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
    RawQuery(query): RawQuery,
) -> Result<Response, ProblemResponse> {
    let fields = RequestFields::of_query(query.as_deref(), &KNOWN)?;
    let outcomes = [AttemptOutcome::Delivered, AttemptOutcome::Retry, AttemptOutcome::Dead];
    let filter = LiveFilter {
        endpoint: fields.text("endpoint")?,
        event_type: fields.text("event_type")?,
        key: fields.text("key")?,
        event: fields.event("event_id")?,
        status: fields.number("status", &(100..=999))?,
        class: fields.known("class", &crate::flow::verdict::FailureClass::NAMES)?,
        outcome: fields.one_of("outcome", &outcomes.map(|outcome| (outcome.as_str(), outcome)))?,
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
    Ok(Sse::new(events).keep_alive(keep_alive).into_response())
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
                return Some(sent("dropped", &json!({ "reason": why })));
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
                let shown: Vec<Value> = attempts.iter().map(|seen| shown(seen)).collect();
                return Some(sent("attempts", &json!({ "attempts": shown, "more": more })));
            }
        }
    }
}

fn sent(name: &str, data: &Value) -> SentEvent {
    SentEvent::default().event(name).data(data.to_string())
}

/// With the names of `GET /api/v1/push-logs`.
fn shown(seen: &SeenAttempt) -> Value {
    json!({
        "created_at": seen.at.iso_millis(),
        "endpoint": &*seen.endpoint,
        "event_id": seen.event.to_string(),
        "event_type": &*seen.event_type,
        "key": seen.row_key,
        "events": seen.events,
        "retry_count": seen.retry_count,
        "outcome": seen.outcome.as_str(),
        "http_status": seen.status,
        "failure_class": seen.class,
        "duration_ms": seen.duration_ms,
        "replay": seen.replay,
    })
}
