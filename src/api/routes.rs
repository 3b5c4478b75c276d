//! What stands before every operation of the surface.
//!
//! ```text
//! request ─▶ a place? a known host? ─▶ another site's page? ─▶ token? ─▶ [routes] ─▶ its handler
//! ```

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware;

use crate::api::answers::problem::ProblemResponse;
use crate::api::connections;
use crate::api::guard;
use crate::api::openapi;
use crate::api::openapi::operation::RouteOperation;
use crate::api::openapi::operations;
use crate::api::requests::request;
use crate::api::requests::request::BODY_BYTES_MAX;
use crate::api::surface::HttpSurface;

/// All of it.
pub(crate) fn router(surface: HttpSurface) -> Router {
    let routes = |operations: Vec<RouteOperation>| {
        let add =
            |router: Router<_>, RouteOperation { path, answer, .. }| router.route(path, answer);
        operations.into_iter().fold(Router::new(), add)
    };
    // Calls without parameters in the query refuse one, so that a parameter in the wrong place is not taken for
    // one that was heard.
    let guarded = openapi::guarded().into_iter();
    let (asked, plain) = guarded.partition(|operation| operation.description.is_asked);
    let plain = routes(plain).layer(middleware::from_fn(request::refuse_query));
    let guarded = routes(asked)
        .merge(plain)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(surface.clone(), guard::require_token))
        .layer(middleware::from_fn_with_state(surface.clone(), guard::refuse_other_sites));
    // A page of another site may look at what is open, and change nothing.
    let (changing, open) =
        operations::open().into_iter().partition(|operation| operation.method == "post");
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
