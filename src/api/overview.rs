//! `GET /api/v1/overview` and `GET /api/v1/endpoints/{name}/samples`: the last hour and day in numbers.

use axum::Json;
use axum::extract::State;
use serde_json::Value;
use serde_json::json;

use crate::api::problem::ProblemResponse;
use crate::api::request::NamedParts;
use crate::api::surface::HttpSurface;
use crate::flow::time::Timestamp;

/// What there is now, whether the books are balanced, and samples for charts.
pub(crate) async fn overview(State(surface): State<HttpSurface>) -> Json<Value> {
    let mut answer = numbers(&surface);
    let books = surface.metrics.books();
    let samples = json!({ "hour": surface.samples.hour(), "day": surface.samples.day() });
    if let Value::Object(members) = &mut answer {
        let balance = json!({
            "balanced": books.are_balanced(),
            "captured": books.captured,
            "delivered": books.delivered,
            "filtered": books.filtered,
            "expired": books.expired,
            "dead": books.dead,
            "pending": books.pending,
        });
        members.insert(String::from("books"), balance);
        members.insert(String::from("samples"), samples);
    }
    Json(answer)
}

/// What is counted, and what there is at the moment.
pub(crate) fn numbers(surface: &HttpSurface) -> Value {
    (surface.refresh)();
    surface.metrics.look();
    let totals = surface.metrics.totals();
    let now = surface.clock.now();
    let lag = surface.stats.lag(now);
    json!({
        "at": now.iso_millis(),
        "captured": totals.captured,
        "delivered": totals.delivered,
        "failed_attempts": totals.failed,
        "waiting_memory": totals.waiting_memory,
        "waiting_backlog": totals.waiting_backlog,
        "dead_letters": totals.dead_letters,
        "retained_wal_bytes": totals.retained_wal_bytes,
        "safe_wal_bytes": totals.safe_wal_bytes,
        "lag_seconds": lag.as_secs_f64(),
        "last_commit_at": surface.stats.last_commit().map(Timestamp::iso_millis),
    })
}

/// The last hour of one endpoint.
pub(crate) async fn of_endpoint(
    State(surface): State<HttpSurface>,
    NamedParts(name): NamedParts,
) -> Result<Json<Value>, ProblemResponse> {
    if !surface.knows(&name) {
        let detail = format!(
            "there is no endpoint {name}: `walhook endpoints list` and /api/v1/endpoints show those that there are"
        );
        return Err(ProblemResponse::new(axum::http::StatusCode::NOT_FOUND, detail));
    }
    Ok(Json(json!({ "name": name, "hour": surface.samples.endpoint(&name) })))
}
