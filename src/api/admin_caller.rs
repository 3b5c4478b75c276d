//! Asks the administration of endpoints, on behalf of a request, and waits for the answer.
//!
//! ```text
//! request ─▶ endpoints, source, webhook_api ─ AdminCall ─▶ [admin_caller] ─▶ the administration
//!     answer ◀──────────────── its type ◀── AdminAnswer ◀──┘
//! ```

use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::ConnectInfo;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::response::Response;
use tokio::sync::oneshot;

use crate::api::answers::admin_answer::AdminAnswer;
use crate::api::answers::problem::KeyError;
use crate::api::answers::problem::ProblemResponse;
use crate::api::answers::shared_refusal::SharedRefusal;
use crate::api::openapi::described_types::DescribedInput;
use crate::api::openapi::described_types::OperationDescription;
use crate::api::requests::endpoint_calls::AdminCall;
use crate::api::requests::endpoint_calls::AdminRefusal;
use crate::api::requests::endpoint_calls::AdminRequest;
use crate::api::surface::HttpSurface;

/// How long a call may take. What it does is done, whether the client waits for it or not.
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

impl DescribedInput for AdminCaller {
    fn describe(description: &mut OperationDescription) {
        description.refuses(SharedRefusal::NotNow);
    }
}

impl AdminCaller {
    /// # Errors
    /// Why it was not done, or is not known to be.
    pub(crate) async fn ask<T: TryFrom<AdminAnswer>>(
        self,
        call: AdminCall,
    ) -> Result<T, AdminRefusal> {
        let unavailable = |detail: &str| AdminRefusal::new(503, detail);
        let outcome = async {
            let admin = self.surface.admin.get();
            let admin = admin.ok_or_else(|| {
                unavailable(
                    "walhook waits for its slot, or has just begun: ask the one that holds the slot, \
                     or, where several share a source (run --role), one that delivers",
                )
            })?;
            let (outcome_in, outcome) = oneshot::channel();
            let request = AdminRequest { call, who: self.who, outcome: outcome_in };
            let stopping = || unavailable("walhook is shutting down: ask again when it runs");
            admin.send(request).await.map_err(|_ended| stopping())?;
            outcome.await.map_err(|_ended| stopping())?
        };
        let late = || Err(unavailable("this takes long, and goes on: look again in a moment"));
        let outcome = tokio::time::timeout(PATIENCE, outcome).await;
        let answer = outcome.unwrap_or_else(|_late| late())?;
        let other = |_| AdminRefusal::new(500, "the call was answered as another one");
        T::try_from(answer).map_err(other)
    }
}

impl IntoResponse for AdminRefusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status);
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let problem = ProblemResponse::new(status, self.detail);
        let errors = self.errors.into_iter().map(|(key, detail)| KeyError { key, detail });
        let errors: Vec<KeyError> = errors.collect();
        problem.with_errors(errors).into_response()
    }
}
