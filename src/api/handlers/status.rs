//! `/health`, `/ready`, `/metrics` and `GET /api/v1/status`.

use std::time::Duration;

use axum::Json;
use axum::extract::FromRequestParts;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header;
use axum::http::request::Parts;
use axum::response::IntoResponse;
use serde::Serialize;
use serde_json::json;
use tokio::time::Instant;
use tokio::time::timeout;
use utoipa::ToSchema;

use crate::api::answers::endpoint_condition::ConditionNumbers;
use crate::api::answers::endpoint_condition::HealthCondition;
use crate::api::answers::handler_answers::TextAnswer;
use crate::api::answers::handler_answers::TextKinds;
use crate::api::answers::problem::ProblemResponse;
use crate::api::answers::shared_refusal::SharedRefusal;
use crate::api::answers::status_report::EndpointStatus;
use crate::api::answers::status_report::NamedError;
use crate::api::answers::status_report::ShownCount;
use crate::api::answers::status_report::ShownObstacle;
use crate::api::answers::status_report::ShownProblem;
use crate::api::answers::status_report::StateReport;
use crate::api::answers::status_report::StatusReport;
use crate::api::answers::status_report::WriteBackReport;
use crate::api::openapi::described_types::DescribedInput;
use crate::api::openapi::described_types::OperationDescription;
use crate::api::requests::fields::bad;
use crate::api::surface::EndpointView;
use crate::api::surface::HttpSurface;
use crate::store::overview;
use crate::store::overview::LetterCounts;
use crate::store::overview::WaitingCounts;
use crate::telemetry::metrics::CONTENT_TYPE;
use crate::telemetry::obstacles::NamedObstacle;

/// The status comes also while the state does not answer.
const STATE_TIME: Duration = Duration::from_secs(2);

/// Endpoints of which the state is asked: an outage of all of them is no reason for a long query.
const ASKED_MAX: usize = 200;

const WRITE_BACK_FIX: &str = "`walhook check` and the log say what is in the way; how to see these rows and \
                              to give one up: docs/troubleshooting.md, \"Rows are not told\"";

/// That the process lives.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LifeSign {
    status: &'static str,
    version: &'static str,
}

/// That changes flow, or that this one stands by.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ReadySign {
    status: &'static str,
    /// Rows of `[endpoints_from]` that are no endpoints; left out if there are none
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    endpoints_refused: Vec<String>,
}

/// What more is to count as ready.
pub(crate) struct ReadyWish {
    standby_will_do: bool,
}

impl FromRequestParts<HttpSurface> for ReadyWish {
    type Rejection = ProblemResponse;

    async fn from_request_parts(
        parts: &mut Parts,
        _surface: &HttpSurface,
    ) -> Result<Self, ProblemResponse> {
        match parts.uri.query() {
            None | Some("") => Ok(Self { standby_will_do: false }),
            Some("standby=ok") => Ok(Self { standby_will_do: true }),
            Some(_) => Err(bad("/ready takes no parameter but standby=ok")),
        }
    }
}

impl DescribedInput for ReadyWish {
    fn describe(description: &mut OperationDescription) {
        let meaning = "`ok`: 200 with status `standby` also while this one stands by for the one that has the \
                       slot; for rolling updates";
        description.is_asked = true;
        description.parameters.push(json!({
            "name": "standby", "in": "query", "description": meaning,
            "schema": { "type": "string", "enum": ["ok"] },
        }));
        description.refuses(SharedRefusal::WrongQuestion);
    }
}

/// Prometheus' text form.
pub(crate) struct MetricsText;

impl TextKinds for MetricsText {
    const KINDS: &'static [&'static str] = &["text/plain"];
}

/// The process lives.
pub(crate) async fn health() -> Json<LifeSign> {
    Json(LifeSign { status: "ok", version: env!("CARGO_PKG_VERSION") })
}

/// Changes flow; with `?standby=ok` also: this one stands by for the one that has them flow. For whoever
/// replaces one walhook after the other and waits until the next one is ready: it cannot be, before the
/// one that has the slot is gone.
pub(crate) async fn ready(
    State(surface): State<HttpSurface>,
    wish: ReadyWish,
) -> Result<Json<ReadySign>, ProblemResponse> {
    if wish.standby_will_do && surface.source.is_standby() {
        return Ok(Json(ReadySign { status: "standby", endpoints_refused: Vec::new() }));
    }
    let in_the_way = surface.in_the_way();
    if !in_the_way.is_empty() {
        return Err(ProblemResponse::new(StatusCode::SERVICE_UNAVAILABLE, in_the_way.join("; ")));
    }
    // The others are served; whoever watches this is to hear of these all the same.
    let refused = surface.refused.list().into_iter().map(|(name, _)| name);
    Ok(Json(ReadySign { status: "ready", endpoints_refused: refused.collect() }))
}

/// All metrics, as Prometheus reads them.
pub(crate) async fn metrics(State(surface): State<HttpSurface>) -> TextAnswer<MetricsText> {
    (surface.refresh)();
    let kind = [(header::CONTENT_TYPE, CONTENT_TYPE)];
    TextAnswer::new((kind, surface.metrics.render()).into_response())
}

/// All that an operator asks first: what is not well, since when, why, and what to do.
pub(crate) async fn status(State(surface): State<HttpSurface>) -> Json<StatusReport> {
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
        EndpointStatus::of(&surface, view, (*numbers, hour), condition, found)
    });
    let endpoints = endpoints.collect();
    let refused = surface.refused.list();
    let write_backs = surface.write_backs.view();
    let source = surface.source.view();
    let state = surface.state.readiness(Instant::now()).err();
    let obstacles = surface.obstacles.list();
    let missing = surface.missing.list();
    let mut problems = problems(&surface, &conditions, &waiting, &refused, unread);
    problems.extend(
        obstacles.iter().map(|(what, error)| {
            ShownProblem::of(what.name(), error.clone(), "see `walhook check`")
        }),
    );
    problems.extend(missing.iter().map(|(name, error)| {
        ShownProblem::of(&format!("endpoint {name}"), error.clone(), "correct it")
    }));
    let letter = |group: LetterCounts| ShownCount {
        endpoint: group.endpoint.to_string(),
        class: group.class,
        letters: group.letters,
    };
    let named = |list: Vec<(String, String)>| {
        list.into_iter().map(|(name, error)| NamedError { name, error }).collect()
    };
    let obstacle =
        |(what, error): (NamedObstacle, String)| ShownObstacle { what: what.name(), error };
    Json(StatusReport {
        version: env!("CARGO_PKG_VERSION"),
        healthy: problems.is_empty(),
        problems,
        clock_ahead_seconds: surface.clock.ahead_seconds(),
        source: source.into(),
        state: StateReport { writable: state.is_none(), reason: state },
        obstacles: obstacles.into_iter().map(obstacle).collect(),
        endpoints,
        endpoints_refused: named(refused),
        endpoints_missing: named(missing),
        dead_letters: letters.into_iter().map(letter).collect(),
        write_backs: WriteBackReport {
            failing: write_backs.failing,
            error: write_backs.error,
            unchanged: write_backs.unchanged,
        },
    })
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
) -> Vec<ShownProblem> {
    let mut problems = Vec::new();
    let mut problem = |about: &str, what: String, fix: &str| {
        problems.push(ShownProblem::of(about, what, fix));
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
