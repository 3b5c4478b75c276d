//! Errors as `application/problem+json` (RFC 9457).

use axum::Json;
use axum::http::StatusCode;
use axum::http::header;
use axum::response::IntoResponse;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

/// An error answer: what is wrong, then what to do.
#[derive(Debug)]
pub(crate) struct ProblemResponse {
    status: StatusCode,
    detail: String,
    errors: Vec<KeyError>,
}

/// Its body.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct ProblemBody {
    title: &'static str,
    status: u16,
    /// What is wrong, then what to do
    detail: String,
}

/// Its body where a document has keys that are wrong.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Refusal)]
pub(crate) struct RefusalBody {
    title: &'static str,
    status: u16,
    /// What is wrong, then what to do
    detail: String,
    /// Each key that is wrong
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    errors: Vec<KeyError>,
}

/// A key of a document that is wrong.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct KeyError {
    pub(crate) key: String,
    pub(crate) detail: String,
}

impl ProblemResponse {
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), errors: Vec::new() }
    }

    /// Names keys that are wrong.
    pub(crate) fn with_errors(self, errors: Vec<KeyError>) -> Self {
        Self { errors, ..self }
    }

    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }
}

impl IntoResponse for ProblemResponse {
    fn into_response(self) -> Response {
        let Self { status, detail, errors } = self;
        let title = status.canonical_reason().unwrap_or("error");
        let kind = [(header::CONTENT_TYPE, "application/problem+json")];
        let code = status.as_u16();
        if errors.is_empty() {
            let body = ProblemBody { title, status: code, detail };
            return (status, kind, Json(body)).into_response();
        }
        let body = RefusalBody { title, status: code, detail, errors };
        (status, kind, Json(body)).into_response()
    }
}
