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

use crate::api::Surface;
use crate::api::connections;
use crate::api::dead_letters;
use crate::api::endpoints;
use crate::api::guard;
use crate::api::host;
use crate::api::openapi;
use crate::api::problem::Problem;
use crate::api::push_logs;
use crate::api::replay;
use crate::api::request::BODY_BYTES_MAX;
use crate::api::stats;
use crate::api::status;
use crate::api::webhook_api;

/// A method of a path, and who answers it.
pub(crate) struct Operation {
    #[cfg_attr(not(test), expect(dead_code, reason = "for the test of openapi.json"))]
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    answer: MethodRouter<Surface>,
}

impl Operation {
    fn get<H: Handler<T, Surface>, T: 'static>(path: &'static str, handler: H) -> Self {
        Self { method: "get", path, answer: get(handler) }
    }

    fn post<H: Handler<T, Surface>, T: 'static>(path: &'static str, handler: H) -> Self {
        Self { method: "post", path, answer: post(handler) }
    }

    fn put<H: Handler<T, Surface>, T: 'static>(path: &'static str, handler: H) -> Self {
        Self { method: "put", path, answer: put(handler) }
    }

    fn patch<H: Handler<T, Surface>, T: 'static>(path: &'static str, handler: H) -> Self {
        Self { method: "patch", path, answer: patch(handler) }
    }

    fn delete<H: Handler<T, Surface>, T: 'static>(path: &'static str, handler: H) -> Self {
        Self { method: "delete", path, answer: delete(handler) }
    }
}

/// What everybody may ask.
pub(crate) fn open() -> Vec<Operation> {
    vec![
        Operation::get("/health", status::health),
        Operation::get("/ready", status::ready),
        Operation::get("/metrics", status::metrics),
    ]
}

/// What needs the token, if there is one.
pub(crate) fn guarded() -> Vec<Operation> {
    vec![
        Operation::get("/api/v1/webhook/stats", stats::stats),
        Operation::get("/api/v1/status", status::status),
        Operation::get("/api/v1/openapi.json", openapi::document),
        Operation::get("/api/v1/endpoints", endpoints::list),
        Operation::post("/api/v1/endpoints", endpoints::create),
        Operation::get("/api/v1/endpoints/{name}", endpoints::show),
        Operation::put("/api/v1/endpoints/{name}", endpoints::replace),
        Operation::patch("/api/v1/endpoints/{name}", endpoints::patch),
        Operation::delete("/api/v1/endpoints/{name}", endpoints::delete),
        Operation::post("/api/v1/endpoints/{name}/enable", endpoints::enable),
        Operation::post("/api/v1/endpoints/{name}/disable", endpoints::disable),
        Operation::post("/api/v1/endpoints/{name}/pause", endpoints::pause),
        Operation::post("/api/v1/endpoints/{name}/resume", endpoints::resume),
        Operation::post("/api/v1/endpoints/{name}/try-now", endpoints::try_now),
        Operation::post("/api/v1/endpoints/{name}/rotate-secret", endpoints::rotate),
        Operation::post("/api/v1/endpoints/{name}/test", endpoints::test),
        Operation::get("/api/v1/dead-letters", dead_letters::list),
        Operation::post("/api/v1/dead-letters/resend", dead_letters::resend),
        Operation::post("/api/v1/dead-letters/discard", dead_letters::discard),
        Operation::get("/api/v1/dead-letters/{id}", dead_letters::show),
        Operation::delete("/api/v1/dead-letters/{id}", dead_letters::discard_one),
        Operation::post("/api/v1/dead-letters/{id}/resend", dead_letters::resend_one),
        Operation::post("/api/v1/dead-letters/{id}/discard", dead_letters::discard_one),
        Operation::get("/api/v1/push-logs", push_logs::list),
        Operation::get("/api/v1/replay", replay::list),
        Operation::post("/api/v1/replay", replay::order),
        Operation::get("/api/v1/replay/{id}", replay::show),
        Operation::delete("/api/v1/replay/{id}", replay::cancel),
        Operation::post("/v1/webhook/Config", webhook_api::config),
        Operation::get("/v1/webhook/List", webhook_api::list),
        Operation::get("/v1/webhook/Test", webhook_api::test),
        Operation::put("/v1/webhook/Update", webhook_api::update),
    ]
}

/// All of it.
pub(crate) fn router(surface: Surface) -> Router {
    let routes = |operations: Vec<Operation>| {
        let add = |router: Router<_>, Operation { path, answer, .. }| router.route(path, answer);
        operations.into_iter().fold(Router::new(), add)
    };
    let guarded = routes(guarded())
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(surface.clone(), guard::require_token))
        .layer(middleware::from_fn_with_state(surface.clone(), guard::refuse_other_sites));
    let known_host = middleware::from_fn_with_state(surface.clone(), host::require_known_host);
    routes(open())
        .merge(guarded)
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(known_host)
        .layer(middleware::from_fn(connections::keep_reserve))
        .with_state(surface)
}

async fn no_such_path(request: Request) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, format!("there is nothing at {}", request.uri().path()))
}

async fn no_such_method(request: Request) -> Problem {
    let (method, path) = (request.method(), request.uri().path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, format!("{path} does not take {method}"))
}
