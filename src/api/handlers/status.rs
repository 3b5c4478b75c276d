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
use crate::api::answers::status_report::PartitionReport;
use crate::api::answers::status_report::ShownCount;
use crate::api::answers::status_report::ShownObstacle;
use crate::api::answers::status_report::ShownProblem;
use crate::api::answers::status_report::StateReport;
use crate::api::answers::status_report::StatusReport;
use crate::api::answers::status_report::WriteBackReport;
use crate::api::openapi::described_types::DescribedInput;
use crate::api::openapi::described_types::OperationDescription;
use crate::api::openapi::request_shape::QueryFields;
use crate::api::requests::endpoint_pages::EndpointChoice;
use crate::api::requests::endpoint_pages::EndpointsShown;
use crate::api::requests::fields::bad;
use crate::api::surface::EndpointView;
use crate::api::surface::HttpSurface;
use crate::store::overview;
use crate::store::overview::LetterCounts;
use crate::store::overview::WaitingCounts;
use crate::store::source_members;
use crate::telemetry::metrics::CONTENT_TYPE;
use crate::telemetry::obstacles::NamedObstacle;

/// The status comes also while the state does not answer.
const STATE_TIME: Duration = Duration::from_secs(2);

/// Endpoints of which the state is asked: an outage of all of them is no reason for a long query.
const ASKED_MAX: usize = 200;

/// So many endpoints, and rows that are none, are problems by their names.
const NAMED_MAX: usize = 100;

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

/// Changes flow; with `?standby=ok` also: this one stands by for the one that has them flow. For an operator
/// who replaces one walhook after the other and waits until the next one is ready: it cannot be, before the
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
    // The others are served; the monitoring is to see these all the same.
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
pub(crate) async fn status(
    State(surface): State<HttpSurface>,
    QueryFields(choice): QueryFields<EndpointChoice>,
) -> Json<StatusReport> {
    (surface.refresh)();
    let conditions = conditions(&surface);
    let behind: Vec<&str> = conditions
        .iter()
        .filter(|(_, numbers, condition)| numbers.backlog > 0 || condition.fix.is_some())
        .map(|(view, _, _)| &*view.name)
        .take(ASKED_MAX)
        .collect();
    let (asked, unread) = match timeout(STATE_TIME, ask(&surface, &behind)).await {
        Ok(Ok(asked)) => (asked, None),
        Ok(Err(problem)) => (AskedState::default(), Some(problem.detail().to_owned())),
        Err(_late) => (AskedState::default(), Some(String::from("it does not answer in time"))),
    };
    let AskedState { waiting, letters, partitions } = asked;
    let hours = surface.samples.endpoint_hours();
    let (shown, endpoints_total) = chosen(&conditions, &choice.into());
    let endpoints = shown.into_iter().map(|(view, numbers, condition)| {
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
    problems.extend(partitions.as_ref().and_then(PartitionReport::problem));
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
        partitions,
        obstacles: obstacles.into_iter().map(obstacle).collect(),
        endpoints,
        endpoints_total,
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

/// An endpoint, and how it does.
type ViewedCondition = (EndpointView, ConditionNumbers, HealthCondition);

/// Those that are shown, in their order, and how many are meant. Where these are too many, what an operator
/// has to see goes before the rest.
fn chosen<'c>(
    conditions: &'c [ViewedCondition],
    choice: &EndpointsShown,
) -> (Vec<&'c ViewedCondition>, usize) {
    let meant = conditions.iter().enumerate().filter(|(_, (view, ..))| choice.has(&view.name));
    let mut meant: Vec<(usize, &ViewedCondition)> = meant.collect();
    let total = meant.len();
    if total > choice.limit {
        meant.sort_by_key(|(place, (view, numbers, condition))| {
            let waiting = numbers.queued.saturating_add(numbers.backlog);
            (condition.fix.is_none(), view.state == "enabled", std::cmp::Reverse(waiting), *place)
        });
        meant.truncate(choice.limit);
        meant.sort_by_key(|(place, _)| *place);
    }
    (meant.into_iter().map(|(_, one)| one).collect(), total)
}

/// Each endpoint, and how it does.
fn conditions(surface: &HttpSurface) -> Vec<ViewedCondition> {
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
    conditions: &[ViewedCondition],
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
    // A standby does what it is there for.
    if let (Err(reason), false) = (&ready, source.state == "standby") {
        problem("source", reason.clone(), "see `walhook check` and the log");
    }
    if let Err(why) = surface.state.readiness(Instant::now()) {
        problem("state", why, "see to the server of [state] url");
    } else if let Some(why) = unread {
        problem("state", format!("the state cannot be read: {why}"), "see to [state] url's server");
    }
    let unwell =
        || conditions.iter().filter_map(|(view, _, one)| Some((view, one, one.fix.as_ref()?)));
    for (view, condition, fix) in unwell().take(NAMED_MAX) {
        let found = waiting.iter().find(|waiting| waiting.endpoint == view.name);
        let why = found.and_then(|waiting| waiting.failure.as_deref());
        let what = match why {
            Some(why) => format!("{}; last failure: {why}", condition.words),
            None => condition.words.clone(),
        };
        problem(&format!("endpoint {}", view.name), what, fix);
    }
    let more = unwell().count().saturating_sub(NAMED_MAX);
    if more > 0 {
        let what = format!("{more} more are not well");
        problem("endpoints", what, "see `walhook endpoints list`, or /api/v1/status?limit=10000");
    }
    for (name, error) in refused.iter().take(NAMED_MAX) {
        problem(&format!("row {name}"), error.clone(), "correct the row: nothing goes to it");
    }
    if let Some(more @ 1..) = refused.len().checked_sub(NAMED_MAX) {
        problem("rows", format!("{more} more are no endpoints"), "`walhook check` names them all");
    }
    let write_backs = surface.write_backs.view();
    if write_backs.failing > 0 {
        let why = write_backs.error.clone().unwrap_or_default();
        problem("write-backs", format!("rows cannot be written back: {why}"), WRITE_BACK_FIX);
    }
    problems
}

/// What the state says.
#[derive(Default)]
struct AskedState {
    waiting: Vec<WaitingCounts>,
    letters: Vec<LetterCounts>,
    partitions: Option<PartitionReport>,
}

/// What waits for these endpoints, what was given up, and which partitions nobody delivers for.
async fn ask(surface: &HttpSurface, endpoints: &[&str]) -> Result<AskedState, ProblemResponse> {
    let is_shareable = surface.current.borrow().relay.is_some();
    let mut session = surface.queries.session().await?;
    let slot = surface.queries.slot();
    let waiting = overview::waiting(session.client(), slot, endpoints).await?;
    let letters = overview::letters(session.client(), slot).await?;
    let partitions = match is_shareable {
        true => source_members::shared_partitions(session.client(), slot).await?,
        false => None,
    };
    Ok(AskedState { waiting, letters, partitions: partitions.map(PartitionReport::from) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `name state backlog`; broken is enabled, and its breaker open.
    fn condition(text: &str) -> ViewedCondition {
        let mut words = text.split(' ');
        let mut word = || words.next().unwrap();
        let (name, state, backlog) = (word(), word(), word().parse().unwrap());
        let breaker_open = state == "broken";
        let state = ["disabled", "paused"].into_iter().find(|known| *known == state);
        let view = EndpointView {
            name: name.into(),
            url: String::new(),
            state: state.unwrap_or("enabled"),
            paused: None,
            is_slowed: false,
            source: "table",
        };
        let numbers = ConditionNumbers { queued: 0, backlog, breaker_open };
        let condition = HealthCondition::of(&view, numbers);
        (view, numbers, condition)
    }

    #[test]
    fn of_too_many_those_are_shown_that_an_operator_has_to_see() {
        let all = ["a well 0", "b paused 3", "c well 9", "d broken 1", "e well 2", "f disabled 0"];
        let all = all.map(condition);
        let cases = [
            (1, "d"),
            (2, "b d"),
            (3, "b d f"),
            (4, "b c d f"),
            (5, "b c d e f"),
            (6, "a b c d e f"),
        ];
        for (limit, expected) in cases {
            let mut choice = EndpointsShown::from(EndpointChoice::default());
            choice.limit = limit;
            let (shown, total) = chosen(&all, &choice);
            let names: Vec<&str> = shown.iter().map(|(view, ..)| &*view.name).collect();
            assert_eq!((names.join(" "), total), (expected.to_owned(), 6), "{limit}");
        }
    }
}
