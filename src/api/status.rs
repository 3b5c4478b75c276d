//! `/health`, `/ready`, `/metrics` and `GET /api/v1/status`.

use std::time::Duration;

use axum::Json;
use axum::extract::RawQuery;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header;
use axum::response::IntoResponse;
use axum::response::Response;
use serde_json::Value;
use serde_json::json;
use tokio::time::Instant;
use tokio::time::timeout;

use crate::api::condition::ConditionNumbers;
use crate::api::condition::HealthCondition;
use crate::api::fields::bad;
use crate::api::problem::ProblemResponse;
use crate::api::surface::EndpointView;
use crate::api::surface::HttpSurface;
use crate::flow::time::Timestamp;
use crate::store::overview;
use crate::store::overview::LetterCounts;
use crate::store::overview::WaitingCounts;
use crate::telemetry::metrics::CONTENT_TYPE;
use crate::telemetry::samples::EndpointHour;

/// The status comes also while the state does not answer.
const STATE_TIME: Duration = Duration::from_secs(2);

/// Endpoints of which the state is asked: an outage of all of them is no reason for a long query.
const ASKED_MAX: usize = 200;

const WRITE_BACK_FIX: &str = "`walhook check` and the log say what is in the way; how to see these rows and \
                              to give one up: docs/troubleshooting.md, \"Rows are not told\"";

/// The process lives.
pub(crate) async fn health() -> Json<Value> {
    Json(json!({ "status": "ok", "version": env!("CARGO_PKG_VERSION") }))
}

/// Changes flow; with `?standby=ok` also: this one stands by for the one that has them flow. For whoever
/// replaces one walhook after the other and waits until the next one is ready: it cannot be, before the
/// one that has the slot is gone.
pub(crate) async fn ready(
    State(surface): State<HttpSurface>,
    RawQuery(query): RawQuery,
) -> Response {
    let standby_will_do = match query.as_deref() {
        None | Some("") => false,
        Some("standby=ok") => true,
        Some(_) => return bad("/ready takes no parameter but standby=ok").into_response(),
    };
    if standby_will_do && surface.source.is_standby() {
        return Json(json!({ "status": "standby" })).into_response();
    }
    let in_the_way = surface.in_the_way();
    if in_the_way.is_empty() {
        let mut answer = json!({ "status": "ready" });
        // The others are served; whoever watches this is to hear of these all the same.
        let refused = surface.refused.list().into_iter().map(|(name, _)| Value::from(name));
        let refused: Vec<Value> = refused.collect();
        if let (false, Value::Object(members)) = (refused.is_empty(), &mut answer) {
            members.insert("endpoints_refused".to_owned(), refused.into());
        }
        return Json(answer).into_response();
    }
    ProblemResponse::new(StatusCode::SERVICE_UNAVAILABLE, in_the_way.join("; ")).into_response()
}

/// All metrics, as Prometheus reads them.
pub(crate) async fn metrics(State(surface): State<HttpSurface>) -> impl IntoResponse {
    (surface.refresh)();
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], surface.metrics.render())
}

/// All that an operator asks first: what is not well, since when, why, and what to do.
pub(crate) async fn status(State(surface): State<HttpSurface>) -> Json<Value> {
    (surface.refresh)();
    let conditions = conditions(&surface);
    let behind: Vec<&str> = conditions
        .iter()
        .filter(|(_, numbers, condition)| numbers.backlog > 0 || condition.fix.is_some())
        .map(|(view, _, _)| &*view.name)
        .take(ASKED_MAX)
        .collect();
    let (waiting, letters, unread) = match timeout(STATE_TIME, ask(&surface, &behind)).await {
        Ok(Ok((waiting, letters))) => (waiting, letters, None),
        Ok(Err(problem)) => (Vec::new(), Vec::new(), Some(problem.detail().to_owned())),
        Err(_late) => (Vec::new(), Vec::new(), Some(String::from("it does not answer in time"))),
    };
    let hours = surface.samples.endpoint_hours();
    let endpoints = conditions.iter().map(|(view, numbers, condition)| {
        let found = waiting.iter().find(|waiting| waiting.endpoint == view.name);
        let hour = hours.get(&view.name).copied().unwrap_or_default();
        endpoint(&surface, view, (*numbers, hour), condition, found)
    });
    let endpoints: Vec<Value> = endpoints.collect();
    let refused = surface.refused.list();
    let write_backs = surface.write_backs.view();
    let source = surface.source.view();
    let state = surface.state.readiness(Instant::now()).err();
    let obstacles = surface.obstacles.list();
    let missing = surface.missing.list();
    let mut problems = problems(&surface, &conditions, &waiting, &refused, unread);
    problems.extend(obstacles.iter().map(
        |(what, error)| json!({ "about": what.name(), "what": error, "do": "see `walhook check`" }),
    ));
    problems.extend(missing.iter().map(|(name, error)| {
        json!({ "about": format!("endpoint {name}"), "what": error, "do": "correct it" })
    }));
    let letter = |group: &LetterCounts| json!({ "endpoint": &*group.endpoint, "class": group.class, "letters": group.letters });
    let named = |list: &[(String, String)]| -> Vec<Value> {
        list.iter().map(|(name, error)| json!({ "name": name, "error": error })).collect()
    };
    let obstacles: Vec<Value> = obstacles
        .iter()
        .map(|(what, error)| json!({ "what": what.name(), "error": error }))
        .collect();
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "healthy": problems.is_empty(),
        "problems": problems,
        "clock_ahead_seconds": surface.clock.ahead_seconds(),
        "source": source,
        "state": { "writable": state.is_none(), "reason": state },
        "obstacles": obstacles,
        "endpoints": endpoints,
        "endpoints_refused": named(&refused),
        "endpoints_missing": named(&missing),
        "dead_letters": letters.iter().map(letter).collect::<Vec<Value>>(),
        "write_backs": {
            "failing": write_backs.failing,
            "error": write_backs.error,
            "unchanged": write_backs.unchanged,
        },
    }))
}

/// Each endpoint, and how it does.
fn conditions(surface: &HttpSurface) -> Vec<(EndpointView, ConditionNumbers, HealthCondition)> {
    let views = (surface.endpoints)();
    views
        .into_iter()
        .map(|view| {
            let gauges = surface.metrics.endpoint(&view.name);
            let numbers = ConditionNumbers {
                queued: gauges.pending_memory.get(),
                backlog: gauges.pending_backlog.get(),
                breaker_open: gauges.breaker_open.get() != 0,
            };
            let condition = HealthCondition::of(&view, numbers);
            (view, numbers, condition)
        })
        .collect()
}

/// What is not well, each with what mends it.
fn problems(
    surface: &HttpSurface,
    conditions: &[(EndpointView, ConditionNumbers, HealthCondition)],
    waiting: &[WaitingCounts],
    refused: &[(String, String)],
    unread: Option<String>,
) -> Vec<Value> {
    let mut problems = Vec::new();
    let mut problem = |about: &str, what: String, fix: &str| {
        problems.push(json!({ "about": about, "what": what, "do": fix }));
    };
    let source = surface.source.view();
    let ready = surface.source.readiness(Instant::now());
    // Whoever stands by does what it is there for.
    if let (Err(reason), false) = (&ready, source.state == "standby") {
        problem("source", reason.clone(), "see `walhook check` and the log");
    }
    if let Err(why) = surface.state.readiness(Instant::now()) {
        problem("state", why, "see to the server of [state] url");
    } else if let Some(why) = unread {
        problem("state", format!("the state cannot be read: {why}"), "see to [state] url's server");
    }
    for (view, _, condition) in conditions {
        if let Some(fix) = &condition.fix {
            let found = waiting.iter().find(|waiting| waiting.endpoint == view.name);
            let why = found.and_then(|waiting| waiting.failure.as_deref());
            let what = match why {
                Some(why) => format!("{}; last failure: {why}", condition.words),
                None => condition.words.clone(),
            };
            problem(&format!("endpoint {}", view.name), what, fix);
        }
    }
    for (name, error) in refused {
        problem(&format!("row {name}"), error.clone(), "correct the row: nothing goes to it");
    }
    let write_backs = surface.write_backs.view();
    if write_backs.failing > 0 {
        let why = write_backs.error.clone().unwrap_or_default();
        problem("write-backs", format!("rows cannot be written back: {why}"), WRITE_BACK_FIX);
    }
    problems
}

fn endpoint(
    surface: &HttpSurface,
    view: &EndpointView,
    (numbers, hour): (ConditionNumbers, EndpointHour),
    condition: &HealthCondition,
    waiting: Option<&WaitingCounts>,
) -> Value {
    let time = |at: Option<Timestamp>| at.map(Timestamp::iso_millis);
    json!({
        "name": &*view.name,
        "url": view.url,
        "state": view.state,
        "condition": condition.words,
        "source": view.source,
        "paused_since": view.paused.as_ref().map(|(since, _)| since.iso_millis()),
        "queued": numbers.queued,
        "backlog": numbers.backlog,
        "dead_letters": surface.metrics.endpoint(&view.name).dead_letters.get(),
        "breaker": if numbers.breaker_open { "open" } else { "closed" },
        "since": time(waiting.and_then(|waiting| waiting.since)),
        "oldest": time(waiting.and_then(|waiting| waiting.oldest)),
        "next_attempt": time(waiting.and_then(|waiting| waiting.next_attempt)),
        "success_last_hour": hour.success,
        "p99_seconds": hour.p99,
        "last_failure": waiting.and_then(|waiting| waiting.failure.clone()),
    })
}

/// What waits for these endpoints, and what was given up.
async fn ask(
    surface: &HttpSurface,
    endpoints: &[&str],
) -> Result<(Vec<WaitingCounts>, Vec<LetterCounts>), ProblemResponse> {
    let mut session = surface.queries.session().await?;
    let slot = surface.queries.slot();
    let waiting = overview::waiting(session.client(), slot, endpoints).await?;
    let letters = overview::letters(session.client(), slot).await?;
    Ok((waiting, letters))
}
