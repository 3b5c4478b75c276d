//! `/api/v1/endpoints`: endpoints that are made, changed and removed while walhook runs.
//!
//! ```text
//! request ─▶ [endpoints] ─ Call ─▶ the administration, given by app ─▶ registry
//!     answer ◀────────────── Outcome ◀──┘
//! ```
//!
//! The calls are answered one after the other, so that nobody changes what somebody else has just
//! read; only tests of endpoints run beside them.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Json;
use axum::extract::ConnectInfo;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::response::Response;
use serde_json::Value;
use serde_json::json;
use tokio::sync::oneshot;

use crate::api::endpoint_calls::AdminAnswer;
use crate::api::endpoint_calls::AdminCall;
use crate::api::endpoint_calls::AdminRefusal;
use crate::api::endpoint_calls::AdminRequest;
use crate::api::endpoint_calls::TestWish;
use crate::api::fields::RequestFields;
use crate::api::problem::ProblemResponse;
use crate::api::request::JsonDocument;
use crate::api::request::NamedParts;
use crate::api::request::SentBody;
use crate::api::surface::HttpSurface;

/// How long a call may take. What it does is done, whether somebody waits for it or not.
const PATIENCE: Duration = Duration::from_secs(40);

/// Who asks: the address, and whether a token was shown. The token itself is in no book.
pub(crate) struct AdminCaller {
    surface: HttpSurface,
    who: String,
}

impl axum::extract::FromRequestParts<HttpSurface> for AdminCaller {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(
        parts: &mut axum::http::request::Parts,
        surface: &HttpSurface,
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

impl AdminCaller {
    pub(crate) async fn ask(self, call: AdminCall) -> Response {
        let unavailable = |detail: &str| AdminRefusal::new(503, detail);
        let outcome = async {
            let admin = self.surface.admin.get();
            let admin = admin.ok_or_else(|| {
                unavailable("walhook waits for its slot: ask the one that holds it")
            })?;
            let (outcome_in, outcome) = oneshot::channel();
            let request = AdminRequest { call, who: self.who, outcome: outcome_in };
            let stopping = || unavailable("walhook is shutting down: ask again when it runs");
            admin.send(request).await.map_err(|_ended| stopping())?;
            outcome.await.map_err(|_ended| stopping())?
        };
        let late = || Err(unavailable("this takes long, and goes on: look again in a moment"));
        let outcome = tokio::time::timeout(PATIENCE, outcome).await;
        match outcome.unwrap_or_else(|_late| late()) {
            Ok(AdminAnswer { status, body }) => (status_of(status), Json(body)).into_response(),
            Err(refused) => refused.into_response(),
        }
    }
}

impl IntoResponse for AdminRefusal {
    fn into_response(self) -> Response {
        let error = |(key, detail): (String, String)| json!({ "key": key, "detail": detail });
        let errors: Vec<Value> = self.errors.into_iter().map(error).collect();
        let problem = ProblemResponse::new(status_of(self.status), self.detail);
        match errors.is_empty() {
            true => problem.into_response(),
            false => problem.with("errors", Value::Array(errors)).into_response(),
        }
    }
}

fn status_of(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

pub(crate) async fn list(caller: AdminCaller) -> Response {
    caller.ask(AdminCall::List).await
}

pub(crate) async fn show(caller: AdminCaller, NamedParts(name): NamedParts) -> Response {
    caller.ask(AdminCall::Show { name }).await
}

pub(crate) async fn create(caller: AdminCaller, JsonDocument(document): JsonDocument) -> Response {
    caller.ask(AdminCall::Create { document }).await
}

pub(crate) async fn replace(
    caller: AdminCaller,
    NamedParts(name): NamedParts,
    JsonDocument(document): JsonDocument,
) -> Response {
    caller.ask(AdminCall::Replace { name, document }).await
}

pub(crate) async fn patch(
    caller: AdminCaller,
    NamedParts(name): NamedParts,
    JsonDocument(patch): JsonDocument,
) -> Response {
    caller.ask(AdminCall::Patch { name, patch }).await
}

pub(crate) async fn delete(caller: AdminCaller, NamedParts(name): NamedParts) -> Response {
    caller.ask(AdminCall::Delete { name }).await
}

pub(crate) async fn enable(caller: AdminCaller, NamedParts(name): NamedParts) -> Response {
    caller.ask(AdminCall::Switch { name, enabled: true }).await
}

pub(crate) async fn disable(caller: AdminCaller, NamedParts(name): NamedParts) -> Response {
    caller.ask(AdminCall::Switch { name, enabled: false }).await
}

pub(crate) async fn pause(caller: AdminCaller, NamedParts(name): NamedParts) -> Response {
    caller.ask(AdminCall::Pause { name, paused: true }).await
}

pub(crate) async fn resume(caller: AdminCaller, NamedParts(name): NamedParts) -> Response {
    caller.ask(AdminCall::Pause { name, paused: false }).await
}

pub(crate) async fn try_now(caller: AdminCaller, NamedParts(name): NamedParts) -> Response {
    caller.ask(AdminCall::TryNow { name }).await
}

pub(crate) async fn rename(
    caller: AdminCaller,
    NamedParts(name): NamedParts,
    SentBody(body): SentBody,
) -> Result<Response, ProblemResponse> {
    let fields = RequestFields::of_body(&body, &["name"])?;
    let to = fields.text("name")?.ok_or_else(|| {
        ProblemResponse::new(StatusCode::BAD_REQUEST, "name is missing: give the new name")
    })?;
    Ok(caller.ask(AdminCall::Rename { name, to }).await)
}

pub(crate) async fn rotate(
    caller: AdminCaller,
    NamedParts(name): NamedParts,
    JsonDocument(body): JsonDocument,
) -> Response {
    caller.ask(AdminCall::Rotate { name, body }).await
}

pub(crate) async fn test(
    caller: AdminCaller,
    NamedParts(name): NamedParts,
    SentBody(body): SentBody,
) -> Result<Response, ProblemResponse> {
    let fields = RequestFields::of_body(&body, &["event_type", "key"])?;
    let wish = TestWish { event_type: fields.text("event_type")?, key: fields.text("key")? };
    Ok(caller.ask(AdminCall::Test { name, wish }).await)
}
