//! `/health`, `/ready`, `/metrics` and `GET /api/v1/status`.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header;
use axum::response::IntoResponse;
use axum::response::Response;
use serde_json::Value;
use serde_json::json;
use tokio::time::Instant;

use crate::api::EndpointView;
use crate::api::Surface;
use crate::api::problem::Problem;
use crate::telemetry::metrics::CONTENT_TYPE;

/// The process lives.
pub(crate) async fn health() -> Json<Value> {
    Json(json!({ "status": "ok", "version": env!("CARGO_PKG_VERSION") }))
}

/// Changes flow.
pub(crate) async fn ready(State(surface): State<Surface>) -> Response {
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
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, in_the_way.join("; ")).into_response()
}

/// All metrics, as Prometheus reads them.
pub(crate) async fn metrics(State(surface): State<Surface>) -> impl IntoResponse {
    (surface.refresh)();
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], surface.metrics.render())
}

pub(crate) async fn status(State(surface): State<Surface>) -> Json<Value> {
    (surface.refresh)();
    let endpoint = |EndpointView { name, url, state, source }: EndpointView| {
        let gauges = surface.metrics.endpoint(&name);
        json!({
            "name": &*name,
            "url": url,
            "state": state,
            "source": source,
            "queued": gauges.pending_memory.get(),
            "backlog": gauges.pending_backlog.get(),
            "dead_letters": gauges.dead_letters.get(),
            "breaker": if gauges.breaker_open.get() == 0 { "closed" } else { "open" },
        })
    };
    let endpoints: Vec<Value> = (surface.endpoints)().into_iter().map(endpoint).collect();
    let named = |list: Vec<(String, String)>| -> Vec<Value> {
        list.into_iter().map(|(name, error)| json!({ "name": name, "error": error })).collect()
    };
    let write_backs = surface.write_backs.view();
    let state = surface.state.readiness(Instant::now()).err();
    let others = surface.obstacles.list().into_iter();
    let obstacles: Vec<Value> =
        others.map(|(what, error)| json!({ "what": what.name(), "error": error })).collect();
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "clock_ahead_seconds": surface.clock.ahead_seconds(),
        "source": surface.source.view(),
        "state": { "writable": state.is_none(), "reason": state },
        "obstacles": obstacles,
        "endpoints": endpoints,
        "endpoints_refused": named(surface.refused.list()),
        "endpoints_missing": named(surface.missing.list()),
        "write_backs": {
            "failing": write_backs.failing,
            "error": write_backs.error,
            "unchanged": write_backs.unchanged,
        },
    }))
}
