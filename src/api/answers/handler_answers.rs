//! Answers of handlers: with a status of their own, of a dry run, of texts that are no JSON.

use std::marker::PhantomData;

use axum::Json;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::response::IntoResponseParts;
use axum::response::Response;
use serde::Serialize;
use serde_json::Value;
use serde_json::json;
use utoipa::ToSchema;

use crate::api::openapi::described_types::DescribedAnswer;
use crate::api::openapi::described_types::OperationDescription;
use crate::api::openapi::document_shape::JSON;

/// What was made.
pub(crate) struct CreatedJson<T>(pub(crate) T);

impl<T: ToSchema> DescribedAnswer for CreatedJson<T> {
    fn describe(description: &mut OperationDescription) {
        description.answers::<T>(201, JSON);
    }
}

impl<T: Serialize> IntoResponse for CreatedJson<T> {
    fn into_response(self) -> Response {
        (StatusCode::CREATED, Json(self.0)).into_response()
    }
}

/// What is going to be done.
pub(crate) struct AcceptedJson<T>(pub(crate) T);

impl<T: ToSchema> DescribedAnswer for AcceptedJson<T> {
    fn describe(description: &mut OperationDescription) {
        description.answers::<T>(202, JSON);
    }
}

impl<T: Serialize> IntoResponse for AcceptedJson<T> {
    fn into_response(self) -> Response {
        (StatusCode::ACCEPTED, Json(self.0)).into_response()
    }
}

/// What a dry run found, or what is going to be done.
pub(crate) enum TriedOrAccepted<D, A> {
    DryRun(D),
    Accepted(A),
}

impl<D: ToSchema, A: ToSchema> DescribedAnswer for TriedOrAccepted<D, A> {
    fn describe(description: &mut OperationDescription) {
        description.answers::<D>(200, JSON);
        description.answers::<A>(202, JSON);
    }
}

impl<D: Serialize, A: Serialize> IntoResponse for TriedOrAccepted<D, A> {
    fn into_response(self) -> Response {
        match self {
            Self::DryRun(found) => Json(found).into_response(),
            Self::Accepted(accepted) => AcceptedJson(accepted).into_response(),
        }
    }
}

/// The kinds of text that an answer may be.
pub(crate) trait TextKinds {
    const KINDS: &'static [&'static str];
}

/// A text that is no JSON, of one of some kinds.
pub(crate) struct TextAnswer<K> {
    response: Response,
    kinds: PhantomData<K>,
}

impl<K> TextAnswer<K> {
    pub(crate) fn new(response: Response) -> Self {
        Self { response, kinds: PhantomData }
    }
}

impl<K: TextKinds> DescribedAnswer for TextAnswer<K> {
    fn describe(description: &mut OperationDescription) {
        let text = || json!({ "schema": { "type": "string" } });
        let content = K::KINDS.iter().map(|kind| ((*kind).to_owned(), text()));
        description.answers_with(200, Value::Object(content.collect()));
    }
}

impl<K> IntoResponse for TextAnswer<K> {
    fn into_response(self) -> Response {
        self.response
    }
}

/// That it is done, and headers.
pub(crate) struct EmptyAnswer<H>(pub(crate) H);

impl<H> DescribedAnswer for EmptyAnswer<H> {
    fn describe(description: &mut OperationDescription) {
        description.answers_with(204, Value::Null);
    }
}

impl<H: IntoResponseParts> IntoResponse for EmptyAnswer<H> {
    fn into_response(self) -> Response {
        (StatusCode::NO_CONTENT, self.0, ()).into_response()
    }
}
