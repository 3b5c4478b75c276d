//! `GET /api/v1/overview` and `GET /api/v1/endpoints/{name}/samples`: the last hour and day in numbers.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::answers::problem::ProblemResponse;
use crate::api::requests::field_kinds::IsoTime;
use crate::api::requests::path_parts::EndpointPart;
use crate::api::requests::request::NamedParts;
use crate::api::surface::HttpSurface;
use crate::telemetry::samples::MetricSample;

/// What there is now, whether the books are balanced, and samples for charts.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct NumbersOverview {
    #[serde(flatten)]
    now: CurrentNumbers,
    books: BookBalance,
    samples: SampleCharts,
}

/// What is counted, and what there is at the moment.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CurrentNumbers {
    at: IsoTime,
    captured: u64,
    delivered: u64,
    failed_attempts: u64,
    waiting_memory: i64,
    waiting_backlog: i64,
    dead_letters: i64,
    retained_wal_bytes: Option<u64>,
    safe_wal_bytes: Option<u64>,
    lag_seconds: f64,
    last_commit_at: Option<IsoTime>,
}

/// Whether everything that was captured has come to something, or waits.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BookBalance {
    balanced: bool,
    captured: i64,
    delivered: i64,
    filtered: i64,
    expired: i64,
    dead: i64,
    pending: i64,
}

/// Samples, the oldest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SampleCharts {
    hour: Vec<MetricSample>,
    day: Vec<MetricSample>,
}

/// Samples of one endpoint.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EndpointSamples {
    name: String,
    hour: Vec<MetricSample>,
}

pub(crate) async fn overview(State(surface): State<HttpSurface>) -> Json<NumbersOverview> {
    let now = numbers(&surface);
    let books = surface.metrics.books();
    let books = BookBalance {
        balanced: books.are_balanced(),
        captured: books.captured,
        delivered: books.delivered,
        filtered: books.filtered,
        expired: books.expired,
        dead: books.dead,
        pending: books.pending,
    };
    let samples = SampleCharts { hour: surface.samples.hour(), day: surface.samples.day() };
    Json(NumbersOverview { now, books, samples })
}

pub(crate) fn numbers(surface: &HttpSurface) -> CurrentNumbers {
    (surface.refresh)();
    surface.metrics.look();
    let totals = surface.metrics.totals();
    let now = surface.clock.now();
    CurrentNumbers {
        at: IsoTime(now),
        captured: totals.captured,
        delivered: totals.delivered,
        failed_attempts: totals.failed,
        waiting_memory: totals.waiting_memory,
        waiting_backlog: totals.waiting_backlog,
        dead_letters: totals.dead_letters,
        retained_wal_bytes: totals.retained_wal_bytes,
        safe_wal_bytes: totals.safe_wal_bytes,
        lag_seconds: surface.stats.lag(now).as_secs_f64(),
        last_commit_at: surface.stats.last_commit().map(IsoTime),
    }
}

/// The last hour of one endpoint.
pub(crate) async fn of_endpoint(
    State(surface): State<HttpSurface>,
    NamedParts(name, ..): NamedParts<EndpointPart>,
) -> Result<Json<EndpointSamples>, ProblemResponse> {
    if !surface.knows(&name) {
        let detail = format!(
            "there is no endpoint {name}: `walhook endpoints list` and /api/v1/endpoints show those that there are"
        );
        return Err(ProblemResponse::new(StatusCode::NOT_FOUND, detail));
    }
    let hour = surface.samples.endpoint(&name);
    Ok(Json(EndpointSamples { name, hour }))
}
