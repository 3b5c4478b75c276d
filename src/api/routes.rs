//! Every path of the surface: who answers there, and what stands before it.
//!
//! ```text
//! request ─▶ a place? a known host? ─▶ another site's page? ─▶ token? ─▶ [routes] ─▶ its handler
//! ```
//!
//! What is not in these tables is not served, and `openapi.json` describes all of it; a test holds
//! the two together.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::extract::Request;
use axum::handler::Handler;
use axum::http::StatusCode;
use axum::middleware;
use axum::routing::MethodRouter;
use axum::routing::delete;
use axum::routing::get;
use axum::routing::patch;
use axum::routing::post;
use axum::routing::put;

use crate::api::backfills;
use crate::api::connections;
use crate::api::dead_letters;
use crate::api::endpoints;
use crate::api::events;
use crate::api::guard;
use crate::api::letter_bulk;
use crate::api::live;
use crate::api::message_history;
use crate::api::openapi;
use crate::api::overview;
use crate::api::page;
use crate::api::problem::ProblemResponse;
use crate::api::push_logs;
use crate::api::replay;
use crate::api::request;
use crate::api::request::BODY_BYTES_MAX;
use crate::api::source;
use crate::api::stats;
use crate::api::status;
use crate::api::surface::HttpSurface;
use crate::api::webhook_api;

/// A method of a path, and who answers it.
pub(crate) struct RouteOperation {
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    answer: MethodRouter<HttpSurface>,
}

impl RouteOperation {
    fn get<H: Handler<T, HttpSurface>, T: 'static>(path: &'static str, handler: H) -> Self {
        Self { method: "get", path, answer: get(handler) }
    }

    fn post<H: Handler<T, HttpSurface>, T: 'static>(path: &'static str, handler: H) -> Self {
        Self { method: "post", path, answer: post(handler) }
    }

    fn put<H: Handler<T, HttpSurface>, T: 'static>(path: &'static str, handler: H) -> Self {
        Self { method: "put", path, answer: put(handler) }
    }

    fn patch<H: Handler<T, HttpSurface>, T: 'static>(path: &'static str, handler: H) -> Self {
        Self { method: "patch", path, answer: patch(handler) }
    }

    fn delete<H: Handler<T, HttpSurface>, T: 'static>(path: &'static str, handler: H) -> Self {
        Self { method: "delete", path, answer: delete(handler) }
    }
}

/// What everybody may ask.
pub(crate) fn open() -> Vec<RouteOperation> {
    vec![
        RouteOperation::get("/health", status::health),
        RouteOperation::get("/ready", status::ready),
        RouteOperation::get("/metrics", status::metrics),
        RouteOperation::get("/", page::index),
        RouteOperation::get("/ui/{file}", page::file),
        RouteOperation::post("/login", page::login),
        RouteOperation::post("/logout", page::logout),
    ]
}

/// Paths whose calls have parameters in the query. The others refuse one, so that a parameter in the wrong
/// place is not taken for one that was heard.
const WITH_QUERY: [&str; 5] = [
    "/api/v1/dead-letters",
    "/api/v1/dead-letters/groups",
    "/api/v1/live",
    "/api/v1/push-logs",
    "/v1/webhook/Test",
];

/// What needs the token, if there is one.
pub(crate) fn guarded() -> Vec<RouteOperation> {
    vec![
        RouteOperation::get("/api/v1/webhook/stats", stats::stats),
        RouteOperation::get("/api/v1/status", status::status),
        RouteOperation::get("/api/v1/openapi.json", openapi::document),
        RouteOperation::get("/api/v1/overview", overview::overview),
        RouteOperation::get("/api/v1/live", live::live),
        RouteOperation::get("/api/v1/source", source::source),
        RouteOperation::get("/api/v1/source/findings", source::findings),
        RouteOperation::get("/api/v1/event-types", source::event_types),
        RouteOperation::post("/api/v1/try", source::try_row),
        RouteOperation::get("/api/v1/events/{event_id}", events::show),
        RouteOperation::get("/api/v1/endpoints", endpoints::list),
        RouteOperation::post("/api/v1/endpoints", endpoints::create),
        RouteOperation::get("/api/v1/endpoints/{name}", endpoints::show),
        RouteOperation::put("/api/v1/endpoints/{name}", endpoints::replace),
        RouteOperation::patch("/api/v1/endpoints/{name}", endpoints::patch),
        RouteOperation::delete("/api/v1/endpoints/{name}", endpoints::delete),
        RouteOperation::get("/api/v1/endpoints/{name}/samples", overview::of_endpoint),
        RouteOperation::post("/api/v1/endpoints/{name}/enable", endpoints::enable),
        RouteOperation::post("/api/v1/endpoints/{name}/disable", endpoints::disable),
        RouteOperation::post("/api/v1/endpoints/{name}/pause", endpoints::pause),
        RouteOperation::post("/api/v1/endpoints/{name}/resume", endpoints::resume),
        RouteOperation::post("/api/v1/endpoints/{name}/try-now", endpoints::try_now),
        RouteOperation::post("/api/v1/endpoints/{name}/rename", endpoints::rename),
        RouteOperation::post("/api/v1/endpoints/{name}/rotate-secret", endpoints::rotate),
        RouteOperation::post("/api/v1/endpoints/{name}/test", endpoints::test),
        RouteOperation::get("/api/v1/dead-letters", dead_letters::list),
        RouteOperation::post("/api/v1/dead-letters/resend", dead_letters::resend),
        RouteOperation::post("/api/v1/dead-letters/discard", dead_letters::discard),
        RouteOperation::get("/api/v1/dead-letters/groups", letter_bulk::groups),
        RouteOperation::post("/api/v1/dead-letters/cancel", letter_bulk::cancel),
        RouteOperation::get("/api/v1/dead-letters/{id}", dead_letters::show),
        RouteOperation::delete("/api/v1/dead-letters/{id}", dead_letters::discard_one),
        RouteOperation::post("/api/v1/dead-letters/{id}/resend", dead_letters::resend_one),
        RouteOperation::post("/api/v1/dead-letters/{id}/discard", dead_letters::discard_one),
        RouteOperation::get("/api/v1/push-logs", push_logs::list),
        RouteOperation::get("/api/v1/messages/{message_id}/status", message_history::status),
        RouteOperation::get("/api/v1/messages/{message_id}/history", message_history::history),
        RouteOperation::get("/api/v1/replay", replay::list),
        RouteOperation::post("/api/v1/replay", replay::order),
        RouteOperation::get("/api/v1/replay/{id}", replay::show),
        RouteOperation::delete("/api/v1/replay/{id}", replay::cancel),
        RouteOperation::post("/api/v1/replay/{id}/pause", replay::pause),
        RouteOperation::post("/api/v1/replay/{id}/resume", replay::resume),
        RouteOperation::get("/api/v1/backfills", backfills::list),
        RouteOperation::post("/api/v1/backfills", backfills::order),
        RouteOperation::get("/api/v1/backfills/{id}", backfills::show),
        RouteOperation::delete("/api/v1/backfills/{id}", backfills::cancel),
        RouteOperation::post("/api/v1/backfills/{id}/pause", backfills::pause),
        RouteOperation::post("/api/v1/backfills/{id}/resume", backfills::resume),
        RouteOperation::post("/api/v1/backfills/{id}/cancel", backfills::cancel),
        RouteOperation::post("/v1/webhook/Config", webhook_api::config),
        RouteOperation::get("/v1/webhook/List", webhook_api::list),
        RouteOperation::get("/v1/webhook/Test", webhook_api::test),
        RouteOperation::put("/v1/webhook/Update", webhook_api::update),
    ]
}

/// All of it.
pub(crate) fn router(surface: HttpSurface) -> Router {
    let routes = |operations: Vec<RouteOperation>| {
        let add =
            |router: Router<_>, RouteOperation { path, answer, .. }| router.route(path, answer);
        operations.into_iter().fold(Router::new(), add)
    };
    let is_asked = |operation: &RouteOperation| WITH_QUERY.contains(&operation.path);
    let (asked, plain) = guarded().into_iter().partition(is_asked);
    let plain = routes(plain).layer(middleware::from_fn(request::refuse_query));
    let guarded = routes(asked)
        .merge(plain)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(surface.clone(), guard::require_token))
        .layer(middleware::from_fn_with_state(surface.clone(), guard::refuse_other_sites));
    // A page of another site may look at what is open, and change nothing.
    let (changing, open) = open().into_iter().partition(|operation| operation.method == "post");
    let changing = routes(changing)
        .layer(middleware::from_fn_with_state(surface.clone(), guard::refuse_other_sites));
    let known_host = middleware::from_fn_with_state(surface.clone(), guard::require_known_host);
    routes(open)
        .merge(changing)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .merge(guarded)
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(known_host)
        .layer(middleware::from_fn(connections::keep_reserve))
        .with_state(surface)
}

async fn no_such_path(request: Request) -> ProblemResponse {
    ProblemResponse::new(
        StatusCode::NOT_FOUND,
        format!("there is nothing at {}", request.uri().path()),
    )
}

async fn no_such_method(request: Request) -> ProblemResponse {
    let (method, path) = (request.method(), request.uri().path());
    ProblemResponse::new(StatusCode::METHOD_NOT_ALLOWED, format!("{path} does not take {method}"))
}
