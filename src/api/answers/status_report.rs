//! The answer of `GET /api/v1/status`: source, state, endpoints, problems.

use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;

use crate::api::answers::endpoint_answers::endpoint_states;
use crate::api::answers::endpoint_condition::ConditionNumbers;
use crate::api::answers::endpoint_condition::HealthCondition;
use crate::api::answers::source_status::SourceStatus;
use crate::api::requests::field_kinds::IsoTime;
use crate::api::requests::field_kinds::words_schema;
use crate::api::surface::EndpointView;
use crate::api::surface::HttpSurface;
use crate::store::overview::WaitingCounts;
use crate::store::source_members::SharedPartitions;
use crate::telemetry::samples::EndpointHour;

/// All that an operator asks first.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Status)]
pub(crate) struct StatusReport {
    pub(crate) version: &'static str,
    /// Whether there are no problems
    pub(crate) healthy: bool,
    pub(crate) problems: Vec<ShownProblem>,
    /// How far the host's clock is ahead of the database's
    pub(crate) clock_ahead_seconds: f64,
    pub(crate) source: SourceStatus,
    pub(crate) state: StateReport,
    /// Null where the source is not shared by several processes
    pub(crate) partitions: Option<PartitionReport>,
    pub(crate) obstacles: Vec<ShownObstacle>,
    /// Of more than `limit` those that are not well, or that something waits for, go before the others
    pub(crate) endpoints: Vec<EndpointStatus>,
    /// All that are meant, also those that are not shown
    pub(crate) endpoints_total: usize,
    /// Rows of `[endpoints_from]` that are no endpoints
    pub(crate) endpoints_refused: Vec<NamedError>,
    /// Endpoints that deliveries wait for and that there are no more
    pub(crate) endpoints_missing: Vec<NamedError>,
    pub(crate) dead_letters: Vec<ShownCount>,
    pub(crate) write_backs: WriteBackReport,
}

/// What is not well, and what mends it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ShownProblem {
    about: String,
    what: String,
    #[serde(rename = "do")]
    fix: String,
}

impl ShownProblem {
    pub(crate) fn of(about: &str, what: String, fix: &str) -> Self {
        Self { about: about.to_owned(), what, fix: fix.to_owned() }
    }
}

/// Whether the state can be written, and why not.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StateReport {
    pub(crate) writable: bool,
    pub(crate) reason: Option<String>,
}

/// The partitions of a source that several processes share; who has which is told by `/api/v1/members`.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PartitionReport {
    /// How many there are
    count: u16,
    /// Those that nobody delivers for
    unowned: Vec<i32>,
}

impl PartitionReport {
    /// What nobody delivers for, if so.
    pub(crate) fn problem(&self) -> Option<ShownProblem> {
        let unowned: Vec<String> = self.unowned.iter().map(ToString::to_string).collect();
        let what = format!(
            "nobody delivers for partitions {} of {}: their events wait",
            unowned.join(", "),
            self.count
        );
        let fix = "start a worker, `walhook run --role deliver`; `walhook members` and the log of each worker that \
                   runs say why it takes none";
        (!unowned.is_empty()).then(|| ShownProblem::of("partitions", what, fix))
    }
}

impl From<SharedPartitions> for PartitionReport {
    fn from(SharedPartitions { count, unowned }: SharedPartitions) -> Self {
        Self { count, unowned }
    }
}

/// What else is in the way.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ShownObstacle {
    pub(crate) what: &'static str,
    pub(crate) error: String,
}

/// Something by its name, and what is wrong with it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Named)]
pub(crate) struct NamedError {
    pub(crate) name: String,
    pub(crate) error: String,
}

/// How many letters of an endpoint died of the same.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ShownCount {
    pub(crate) endpoint: String,
    pub(crate) class: String,
    pub(crate) letters: u64,
}

/// How write-backs do.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WriteBackReport {
    /// Those whose last try failed
    pub(crate) failing: u64,
    pub(crate) error: Option<String>,
    /// Since the start, those that changed no row
    pub(crate) unchanged: u64,
}

/// How an endpoint does.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EndpointStatus {
    name: String,
    /// Scheme, host and port
    url: String,
    #[schema(schema_with = endpoint_states)]
    state: &'static str,
    /// How it does, in words
    condition: String,
    source: &'static str,
    paused_since: Option<IsoTime>,
    queued: i64,
    backlog: i64,
    dead_letters: i64,
    #[schema(schema_with = breaker_states)]
    breaker: &'static str,
    since: Option<IsoTime>,
    oldest: Option<IsoTime>,
    next_attempt: Option<IsoTime>,
    /// Attempts that delivered, of all, from 0 to 1; null where there were none, or there is no chart of it
    success_last_hour: Option<f64>,
    /// From commit to delivery, when something was delivered last
    p99_seconds: Option<f64>,
    last_failure: Option<String>,
}

fn breaker_states() -> RefOr<Schema> {
    words_schema(["open", "closed"])
}

impl EndpointStatus {
    pub(crate) fn of(
        surface: &HttpSurface,
        view: &EndpointView,
        (numbers, hour): (ConditionNumbers, EndpointHour),
        condition: &HealthCondition,
        waiting: Option<&WaitingCounts>,
    ) -> Self {
        Self {
            name: view.name.to_string(),
            url: view.url.clone(),
            state: view.state,
            condition: condition.words.clone(),
            source: view.source,
            paused_since: view.paused.as_ref().map(|(since, _)| IsoTime(*since)),
            queued: numbers.queued,
            backlog: numbers.backlog,
            dead_letters: surface.metrics.endpoint(&view.name).dead_letters.get(),
            breaker: if numbers.breaker_open { "open" } else { "closed" },
            since: waiting.and_then(|waiting| waiting.since).map(IsoTime),
            oldest: waiting.and_then(|waiting| waiting.oldest).map(IsoTime),
            next_attempt: waiting.and_then(|waiting| waiting.next_attempt).map(IsoTime),
            success_last_hour: hour.success,
            p99_seconds: hour.p99,
            last_failure: waiting.and_then(|waiting| waiting.failure.clone()),
        }
    }
}
