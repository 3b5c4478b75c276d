//! What a request brings: a part of its path, and its body, each refused in words.

use std::marker::PhantomData;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::FromRequest;
use axum::extract::FromRequestParts;
use axum::extract::Path;
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::StatusCode;
use axum::http::header;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::IntoResponse;
use axum::response::Response;
use serde_json::Value;
use serde_json::json;
use tokio::time::timeout;

use crate::api::answers::problem::ProblemResponse;
use crate::api::answers::shared_refusal::SharedRefusal;
use crate::api::openapi::described_types::DescribedInput;
use crate::api::openapi::described_types::OperationDescription;
use crate::api::openapi::document_shape::DocumentShape;
use crate::api::openapi::schemas;
use crate::api::requests::fields::bad;
use crate::api::surface::HttpSurface;
use crate::flow::unique_json;

/// The largest body.
pub(crate) const BODY_BYTES_MAX: usize = 64 * 1024;

/// For a body to come. It holds one of a few connections.
const BODY_TIME: Duration = Duration::from_secs(10);

/// For a call without parameters in the query.
pub(crate) async fn refuse_query(request: Request, next: Next) -> Response {
    match request.uri().query() {
        None | Some("") => next.run(request).await,
        Some(_) => {
            let detail = "this call has no parameters in the query: put them into the body, or leave \
                          them out";
            bad(detail).into_response()
        }
    }
}

/// A part of a path, as the document shows it.
pub(crate) trait PathPart {
    const NAME: &'static str;
    /// Its kind in JSON Schema.
    const KIND: &'static str;
    const MEANING: &'static str;
}

/// The part of the path that names something.
pub(crate) struct NamedParts<P>(pub(crate) String, pub(crate) PhantomData<P>);

impl<P> NamedParts<P> {
    /// One that another path has.
    pub(crate) fn of(text: String) -> Self {
        Self(text, PhantomData)
    }
}

impl<P: PathPart> FromRequestParts<HttpSurface> for NamedParts<P> {
    type Rejection = ProblemResponse;

    async fn from_request_parts(
        parts: &mut Parts,
        surface: &HttpSurface,
    ) -> Result<Self, ProblemResponse> {
        match Path::from_request_parts(parts, surface).await {
            Ok(Path(name)) => Ok(Self::of(name)),
            Err(_) => Err(bad("the path is not UTF-8: write it in percent encoding")),
        }
    }
}

impl<P: PathPart> DescribedInput for NamedParts<P> {
    fn describe(description: &mut OperationDescription) {
        description.parameters.push(json!({
            "name": P::NAME, "in": "path", "required": true, "description": P::MEANING,
            "schema": { "type": P::KIND },
        }));
        description.refuses(SharedRefusal::WrongQuestion);
    }
}

/// The body, whatever it is.
pub(crate) struct SentBody(pub(crate) Bytes);

impl FromRequest<HttpSurface> for SentBody {
    type Rejection = ProblemResponse;

    async fn from_request(
        request: Request,
        surface: &HttpSurface,
    ) -> Result<Self, ProblemResponse> {
        let Ok(read) = timeout(BODY_TIME, Bytes::from_request(request, surface)).await else {
            surface.refusals.note_of("slow", None);
            let detail = format!("the body did not come within {} s", BODY_TIME.as_secs());
            return Err(ProblemResponse::new(StatusCode::REQUEST_TIMEOUT, detail));
        };
        match read {
            Ok(body) => Ok(Self(body)),
            Err(refused) if refused.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                let detail = format!("the body is larger than {BODY_BYTES_MAX} bytes: send less");
                Err(ProblemResponse::new(StatusCode::PAYLOAD_TOO_LARGE, detail))
            }
            Err(_) => Err(bad("the body ends early: send as much as Content-Length says")),
        }
    }
}

/// A body of JSON that another part reads, such as the reader of the configuration; nothing at all is an
/// empty object.
pub(crate) struct JsonDocument<T>(pub(crate) Value, pub(crate) PhantomData<T>);

impl<T: DocumentShape> FromRequest<HttpSurface> for JsonDocument<T> {
    type Rejection = ProblemResponse;

    async fn from_request(
        request: Request,
        surface: &HttpSurface,
    ) -> Result<Self, ProblemResponse> {
        let is_json = is_json(request.headers());
        let SentBody(body) = SentBody::from_request(request, surface).await?;
        if body.is_empty() {
            return Ok(Self(json!({}), PhantomData));
        }
        if !is_json {
            let detail = "the body must be JSON: send Content-Type: application/json";
            return Err(ProblemResponse::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
        }
        let read = unique_json::parse(&body);
        let read = read.map_err(|error| bad(format!("the body {error}")))?;
        Ok(Self(read, PhantomData))
    }
}

impl<T: DocumentShape> DescribedInput for JsonDocument<T> {
    fn describe(description: &mut OperationDescription) {
        let schema = schemas::of::<T::Schema>(&mut description.schemas);
        description.takes(T::KINDS, &schema, T::IS_NEEDED);
        description.refuses(SharedRefusal::NotJson);
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    // Types have no case (RFC 9110, 8.3.1).
    let kind = kind.map(str::to_ascii_lowercase);
    kind.is_some_and(|kind| kind.starts_with("application/") && kind.contains("json"))
}
