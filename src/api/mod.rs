//! The HTTP surface: health, readiness, metrics, stats, status; dead letters,
//! push log, replay.
//!
//! Reads copies through handles; it never holds up the flow of events. With a token set, everything
//! but `/health`, `/ready` and `/metrics` needs `Authorization: Bearer`.

mod dead_letters;
pub mod endpoints;
mod fields;
pub mod office;
mod openapi;
mod problem;
mod push_logs;
mod replay;
mod stats;
mod status;
mod webhook_api;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use axum::Router;
use axum::extract::Request;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header;
use axum::middleware;
use axum::middleware::Next;
use axum::response::IntoResponse;
use axum::response::Response;
use axum::routing::MethodRouter;
use axum::routing::get;
use axum::routing::post;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::api::endpoints::Desk;
use crate::api::office::Office;
use crate::api::problem::Problem;
use crate::clock::DatabaseClock;
use crate::config::secret::Secret;
use crate::ledger::stats::Stats;
use crate::ledger::write_back::WriteBackStatus;
use crate::source::status::StatusHandle;
use crate::telemetry::metrics::CONTENT_TYPE;
use crate::telemetry::metrics::Metrics;

/// Rows that were to be endpoints and are none: their names, and why. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Refused(Arc<Mutex<Vec<(String, String)>>>);

impl Refused {
    pub fn set(&self, refused: Vec<(String, String)>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = refused;
    }

    pub(crate) fn list(&self) -> Vec<(String, String)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What the surface shows, by handles to those who know it.
#[derive(Clone)]
pub struct Surface {
    pub metrics: Metrics,
    pub stats: Arc<Stats>,
    pub source: StatusHandle,
    pub clock: DatabaseClock,
    pub write_backs: WriteBackStatus,
    pub refused: Refused,
    /// Brings the gauges up to date; called before they are read.
    pub refresh: Arc<dyn Fn() + Send + Sync>,
    /// The endpoints as they are now.
    pub endpoints: Arc<dyn Fn() -> Vec<EndpointView> + Send + Sync>,
    /// Makes and changes endpoints.
    pub desk: Desk,
    pub token: Option<Secret<String>>,
    pub office: Arc<Office>,
}

impl Surface {
    /// Whether there is such an endpoint.
    pub(crate) fn knows(&self, endpoint: &str) -> bool {
        (self.endpoints)().iter().any(|view| &*view.name == endpoint)
    }

    /// # Errors
    /// 409, if there is no such endpoint: nothing can be sent to it.
    pub(crate) fn require_endpoint(&self, endpoint: &str) -> Result<(), Problem> {
        if self.knows(endpoint) {
            return Ok(());
        }
        let endpoints = (self.endpoints)();
        let names: Vec<&str> = endpoints.iter().map(|view| &*view.name).collect();
        let detail = format!(
            "endpoint {endpoint:?} is not configured, so nothing can be sent to it; there are: {}",
            names.join(", ")
        );
        Err(Problem::new(StatusCode::CONFLICT, detail))
    }
}

/// An endpoint as the status shows it.
#[derive(Clone, Debug)]
pub struct EndpointView {
    pub name: Arc<str>,
    /// Without what could be a secret.
    pub url: String,
    /// `enabled`, `disabled`, `gone` (it said 410) or `removing`.
    pub state: &'static str,
    /// Where it was made.
    pub source: &'static str,
}

/// Serves until `stop` is cancelled.
///
/// # Errors
/// When the listener fails for good.
pub async fn serve(
    listener: TcpListener,
    surface: Surface,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let stopped = async move { stop.cancelled().await };
    let service = router(surface).into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service).with_graceful_shutdown(stopped).await
}

/// A path and who answers there.
type Route = (&'static str, fn() -> MethodRouter<Surface>);

/// What everybody may ask.
const OPEN: [Route; 3] = [
    ("/health", || get(status::health)),
    ("/ready", || get(status::ready)),
    ("/metrics", || get(metrics)),
];

/// What needs the token, if there is one. `openapi.json` describes all of it.
const GUARDED: &[Route] = &[
    ("/api/v1/webhook/stats", || get(stats::stats)),
    ("/api/v1/status", || get(status::status)),
    ("/api/v1/openapi.json", || get(openapi::document)),
    ("/api/v1/dead-letters", || get(dead_letters::list)),
    ("/api/v1/dead-letters/resend", || post(dead_letters::resend)),
    ("/api/v1/dead-letters/discard", || post(dead_letters::discard)),
    ("/api/v1/dead-letters/{id}", || get(dead_letters::show).delete(dead_letters::discard_one)),
    ("/api/v1/dead-letters/{id}/resend", || post(dead_letters::resend_one)),
    ("/api/v1/dead-letters/{id}/discard", || post(dead_letters::discard_one)),
    ("/api/v1/push-logs", || get(push_logs::list)),
    ("/api/v1/replay", || get(replay::list).post(replay::order)),
    ("/api/v1/replay/{id}", || get(replay::show).delete(replay::cancel)),
];

fn router(surface: Surface) -> Router {
    let routes = |routes: &[Route]| {
        routes.iter().fold(Router::new(), |router, (path, answer)| router.route(path, answer()))
    };
    let require = middleware::from_fn_with_state(surface.clone(), require_token);
    routes(&OPEN)
        .merge(routes(GUARDED).merge(endpoints::routes()).layer(require))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .with_state(surface)
}

async fn metrics(State(surface): State<Surface>) -> impl IntoResponse {
    (surface.refresh)();
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], surface.metrics.render())
}

async fn require_token(State(surface): State<Surface>, request: Request, next: Next) -> Response {
    let Some(token) = &surface.token else { return next.run(request).await };
    let given = request.headers().get(header::AUTHORIZATION);
    let given = given.and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    if given.is_some_and(|given| same(given, token.reveal().as_bytes())) {
        return next.run(request).await;
    }
    let problem = Problem::new(
        StatusCode::UNAUTHORIZED,
        "this path needs the header Authorization: Bearer with the token of [http] token",
    );
    ([(header::WWW_AUTHENTICATE, "Bearer")], problem).into_response()
}

/// Compares in a time that does not tell how much of the token is right.
fn same(given: &[u8], token: &[u8]) -> bool {
    let digest = |text| ring::digest::digest(&ring::digest::SHA256, text);
    let (given, token) = (digest(given), digest(token));
    given.as_ref().iter().zip(token.as_ref()).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

async fn no_such_path(request: Request) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, format!("there is nothing at {}", request.uri().path()))
}

async fn no_such_method(request: Request) -> Problem {
    let (method, path) = (request.method(), request.uri().path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, format!("{path} does not take {method}"))
}
