//! `/api/v1/endpoints`: endpoints that are made, changed and removed while walhook runs.
//!
//! ```text
//! request ─▶ [endpoints] ─ Call ─▶ the desk, given by app ─▶ fleet
//!     answer ◀────────────── Outcome ◀──┘
//! ```
//!
//! The calls are answered one after the other, so that nobody changes what somebody else has just
//! read; only tests of endpoints run beside them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::ConnectInfo;
use axum::extract::DefaultBodyLimit;
use axum::extract::Path;
use axum::extract::Request;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::StatusCode;
use axum::http::header;
use axum::middleware::Next;
use axum::response::IntoResponse;
use axum::response::Response;
use axum::routing::get;
use axum::routing::post;
use serde_json::Value;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::sync::oneshot;

use crate::api::Surface;
use crate::api::problem::Problem;
use crate::api::webhook_api;

/// The largest document.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// How long a call may take. What it does is done, whether somebody waits for it or not.
const PATIENCE: Duration = Duration::from_secs(40);

/// The way to the desk; empty while the slot is another walhook's.
pub type Desk = Arc<OnceLock<mpsc::Sender<Errand>>>;

/// What is to be done, for whom, and where the outcome goes.
#[derive(Debug)]
pub struct Errand {
    pub call: Call,
    /// For the log and the books: where the request came from.
    pub who: String,
    pub outcome: oneshot::Sender<Outcome>,
}

#[derive(Clone, Debug)]
pub enum Call {
    List,
    Show {
        name: String,
    },
    Create {
        document: Value,
    },
    Replace {
        name: String,
        document: Value,
    },
    /// A JSON merge patch (RFC 7396).
    Patch {
        name: String,
        patch: Value,
    },
    Delete {
        name: String,
    },
    Switch {
        name: String,
        enabled: bool,
    },
    /// Another secret, given or made; `overlap` is how long the one before goes on signing.
    Rotate {
        name: String,
        body: Value,
    },
    Test {
        name: String,
    },
    /// Contract 4.
    WebhookConfig {
        document: Value,
    },
    WebhookList,
    WebhookTest {
        which: Option<String>,
    },
    WebhookUpdate {
        document: Value,
    },
}

pub type Outcome = Result<Answer, Refused>;

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Value,
}

/// Why a call was not answered as it was meant.
#[derive(Debug)]
pub struct Refused {
    pub status: u16,
    /// What is wrong, then what to do.
    pub detail: String,
    /// Each key that is wrong, with what is.
    pub errors: Vec<(String, String)>,
}

impl Refused {
    pub fn new(status: u16, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), errors: Vec::new() }
    }
}

pub(crate) fn routes() -> Router<Surface> {
    Router::new()
        .route("/api/v1/endpoints", get(list).post(create))
        .route("/api/v1/endpoints/{name}", get(show).put(replace).patch(patch).delete(delete))
        .route("/api/v1/endpoints/{name}/enable", post(enable))
        .route("/api/v1/endpoints/{name}/disable", post(disable))
        .route("/api/v1/endpoints/{name}/rotate-secret", post(rotate))
        .route("/api/v1/endpoints/{name}/test", post(test))
        .merge(webhook_api::routes())
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(axum::middleware::from_fn(from_elsewhere))
}

/// A page of another site that is open in an operator's browser must not give orders.
async fn from_elsewhere(request: Request, next: Next) -> Response {
    if is_from_elsewhere(request.headers()) {
        let detail = "a page of another site may not use this path";
        return Problem::new(StatusCode::FORBIDDEN, detail).into_response();
    }
    next.run(request).await
}

fn is_from_elsewhere(headers: &HeaderMap) -> bool {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let host = header(header::HOST).unwrap_or_default();
    let origin = header(header::ORIGIN).map(|o| o.split_once("://").map_or(o, |(_, host)| host));
    origin.is_some_and(|origin| origin != host)
}

/// Who asks: the address, and whether a token was shown. The token itself is in no book.
pub(crate) struct Caller {
    surface: Surface,
    who: String,
}

impl axum::extract::FromRequestParts<Surface> for Caller {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(
        parts: &mut axum::http::request::Parts,
        surface: &Surface,
    ) -> Result<Self, Self::Rejection> {
        let address = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        let address = address.map_or_else(|| "?".to_owned(), |info| info.0.ip().to_string());
        let who = match &surface.token {
            Some(_) => format!("token, {address}"),
            None => address,
        };
        Ok(Self { surface: surface.clone(), who })
    }
}

impl Caller {
    pub(crate) async fn ask(self, call: Call) -> Response {
        let unavailable = |detail: &str| Refused::new(503, detail);
        let outcome = async {
            let desk = self.surface.desk.get();
            let desk = desk.ok_or_else(|| {
                unavailable("walhook waits for its slot: ask the one that holds it")
            })?;
            let (outcome_in, outcome) = oneshot::channel();
            let errand = Errand { call, who: self.who, outcome: outcome_in };
            let stopping = || unavailable("walhook is shutting down: ask again when it runs");
            desk.send(errand).await.map_err(|_ended| stopping())?;
            outcome.await.map_err(|_ended| stopping())?
        };
        let late = || Err(unavailable("this takes long, and goes on: look again in a moment"));
        let outcome = tokio::time::timeout(PATIENCE, outcome).await;
        match outcome.unwrap_or_else(|_late| late()) {
            Ok(Answer { status, body }) => (status_of(status), Json(body)).into_response(),
            Err(refused) => refused.into_response(),
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let error = |(key, detail): (String, String)| json!({ "key": key, "detail": detail });
        let errors: Vec<Value> = self.errors.into_iter().map(error).collect();
        let problem = Problem::new(status_of(self.status), self.detail);
        match errors.is_empty() {
            true => problem.into_response(),
            false => problem.with("errors", Value::Array(errors)).into_response(),
        }
    }
}

fn status_of(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// A body of JSON; nothing at all is an empty object.
pub(crate) fn document(headers: &HeaderMap, body: &Bytes) -> Result<Value, Refused> {
    if body.is_empty() {
        return Ok(json!({}));
    }
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if !kind.is_some_and(|kind| kind.starts_with("application/") && kind.contains("json")) {
        return Err(Refused::new(
            415,
            "the body must be JSON: send Content-Type: application/json",
        ));
    }
    serde_json::from_slice(body)
        .map_err(|error| Refused::new(400, format!("the body is not JSON: {error}")))
}

async fn list(caller: Caller) -> Response {
    caller.ask(Call::List).await
}

async fn show(caller: Caller, Path(name): Path<String>) -> Response {
    caller.ask(Call::Show { name }).await
}

async fn create(caller: Caller, headers: HeaderMap, body: Bytes) -> Response {
    match document(&headers, &body) {
        Ok(document) => caller.ask(Call::Create { document }).await,
        Err(refused) => refused.into_response(),
    }
}

async fn replace(
    caller: Caller,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    match document(&headers, &body) {
        Ok(document) => caller.ask(Call::Replace { name, document }).await,
        Err(refused) => refused.into_response(),
    }
}

async fn patch(
    caller: Caller,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    match document(&headers, &body) {
        Ok(patch) => caller.ask(Call::Patch { name, patch }).await,
        Err(refused) => refused.into_response(),
    }
}

async fn delete(caller: Caller, Path(name): Path<String>) -> Response {
    caller.ask(Call::Delete { name }).await
}

async fn enable(caller: Caller, Path(name): Path<String>) -> Response {
    caller.ask(Call::Switch { name, enabled: true }).await
}

async fn disable(caller: Caller, Path(name): Path<String>) -> Response {
    caller.ask(Call::Switch { name, enabled: false }).await
}

async fn rotate(
    caller: Caller,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    match document(&headers, &body) {
        Ok(body) => caller.ask(Call::Rotate { name, body }).await,
        Err(refused) => refused.into_response(),
    }
}

async fn test(State(_): State<Surface>, caller: Caller, Path(name): Path<String>) -> Response {
    caller.ask(Call::Test { name }).await
}
