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
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;

use axum::Json;
use axum::extract::ConnectInfo;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::response::Response;
use serde_json::Value;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::sync::oneshot;

use crate::api::HttpSurface;
use crate::api::fields::RequestFields;
use crate::api::problem::ProblemResponse;
use crate::api::request::JsonDocument;
use crate::api::request::NamedParts;
use crate::api::request::SentBody;

/// How long a call may take. What it does is done, whether somebody waits for it or not.
const PATIENCE: Duration = Duration::from_secs(40);

/// The way to the administration; empty while the slot is another walhook's.
pub type AdminSender = Arc<OnceLock<mpsc::Sender<AdminRequest>>>;

/// What is to be done, for whom, and where the outcome goes.
#[derive(Debug)]
pub struct AdminRequest {
    pub call: AdminCall,
    /// For the log and the books: where the request came from.
    pub who: String,
    pub outcome: oneshot::Sender<AdminOutcome>,
}

#[derive(Clone, Debug)]
pub enum AdminCall {
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
    /// Nothing is sent and nothing is lost until it is resumed.
    Pause {
        name: String,
        paused: bool,
    },
    /// Another name; what waits goes along.
    Rename {
        name: String,
        to: String,
    },
    /// What waits is tried at once.
    TryNow {
        name: String,
    },
    /// Another secret, given or made; `overlap` is how long the one before goes on signing.
    Rotate {
        name: String,
        body: Value,
    },
    Test {
        name: String,
        wish: TestWish,
    },
    /// What `walhook check` finds, while walhook runs.
    Check,
    /// Each event type with the schema of its bodies.
    EventTypes,
    /// What events a row would raise, and what each endpoint would get.
    Try {
        trial: RowTrial,
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

/// Of which event a test is; without a type, of any that the endpoint takes.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TestWish {
    pub event_type: Option<String>,
    /// Of the row with this value in the first column of its primary key.
    pub key: Option<String>,
}

/// A row to try events on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RowTrial {
    /// The table, such as `public.orders`; without it that of the event type.
    pub table: Option<String>,
    pub event_type: Option<String>,
    /// Of the table's rows, the one with this value in the first column of its primary key.
    pub key: Option<String>,
    /// A row that need not be there.
    pub row: Option<Value>,
    /// What it was before, for an update.
    pub old: Option<Value>,
    /// `insert`, `update` or `delete`; without it, all that the events ask for.
    pub op: Option<String>,
}

pub type AdminOutcome = Result<AdminAnswer, AdminRefusal>;

#[derive(Debug)]
pub struct AdminAnswer {
    pub status: u16,
    pub body: Value,
}

/// Why a call was not answered as it was meant.
#[derive(Debug)]
pub struct AdminRefusal {
    pub status: u16,
    /// What is wrong, then what to do.
    pub detail: String,
    /// Each key that is wrong, with what is.
    pub errors: Vec<(String, String)>,
}

impl AdminRefusal {
    pub fn new(status: u16, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), errors: Vec::new() }
    }
}

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
            let desk = self.surface.desk.get();
            let desk = desk.ok_or_else(|| {
                unavailable("walhook waits for its slot: ask the one that holds it")
            })?;
            let (outcome_in, outcome) = oneshot::channel();
            let errand = AdminRequest { call, who: self.who, outcome: outcome_in };
            let stopping = || unavailable("walhook is shutting down: ask again when it runs");
            desk.send(errand).await.map_err(|_ended| stopping())?;
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
