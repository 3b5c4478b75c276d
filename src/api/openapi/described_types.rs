//! What the types of a handler say of its operation: arguments of its parameters and its body, the answer of
//! what comes back.
//!
//! ```text
//! async fn list(State<..>, QueryFields<T>) -> Result<Json<A>, ProblemResponse>
//!                              │ parameters          │ the answer with 200
//!                              └──────▶ [described] ◀┘ ─▶ openapi
//! ```

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;
use utoipa::ToSchema;

use crate::api::answers::shared_refusal::SharedRefusal;
use crate::api::openapi::document_shape::JSON;
use crate::api::openapi::schemas;
use crate::api::openapi::schemas::SchemaSet;
use crate::api::surface::HttpSurface;

/// What the document says of an operation.
#[derive(Debug, Default)]
pub(crate) struct OperationDescription {
    pub(crate) summary: &'static str,
    /// What the summary cannot hold.
    pub(crate) remark: Option<&'static str>,
    pub(crate) parameters: Vec<Value>,
    pub(crate) body: Option<Value>,
    /// Whether it has parameters in the query.
    pub(crate) is_asked: bool,
    /// By status.
    pub(crate) answers: BTreeMap<u16, Value>,
    pub(crate) schemas: SchemaSet,
}

impl OperationDescription {
    /// An answer with a body of this type.
    pub(crate) fn answers<T: ToSchema>(&mut self, status: u16, kind: &str) {
        let schema = schemas::of::<T>(&mut self.schemas);
        self.answers_with(status, json!({ kind: { "schema": schema } }));
    }

    /// An answer with this content; null: with none.
    pub(crate) fn answers_with(&mut self, status: u16, content: Value) {
        let mut answer = json!({ "description": "" });
        if let (Value::Object(members), false) = (&mut answer, content.is_null()) {
            members.insert(String::from("content"), content);
        }
        self.answers.insert(status, answer);
    }

    /// A refusal that others have as well, unless there is one with its status already.
    pub(crate) fn refuses(&mut self, refusal: SharedRefusal) {
        self.answers.entry(refusal.status()).or_insert_with(|| refusal.reference());
    }

    /// A body of one of these kinds.
    pub(crate) fn takes(&mut self, kinds: &[&str], schema: &Value, is_needed: bool) {
        let content: Map<String, Value> =
            kinds.iter().map(|kind| ((*kind).to_owned(), json!({ "schema": schema }))).collect();
        self.body = Some(json!({ "required": is_needed, "content": content }));
        for refusal in
            [SharedRefusal::WrongQuestion, SharedRefusal::TooSlow, SharedRefusal::TooLarge]
        {
            self.refuses(refusal);
        }
    }
}

/// What an argument of a handler says of the operation.
pub(crate) trait DescribedInput {
    fn describe(description: &mut OperationDescription);
}

impl DescribedInput for State<HttpSurface> {
    fn describe(_description: &mut OperationDescription) {}
}

impl DescribedInput for HeaderMap {
    fn describe(_description: &mut OperationDescription) {}
}

/// What a handler's answer says of the operation.
pub(crate) trait DescribedAnswer {
    fn describe(description: &mut OperationDescription);
}

impl<A: DescribedAnswer, E> DescribedAnswer for Result<A, E> {
    fn describe(description: &mut OperationDescription) {
        A::describe(description);
    }
}

impl<T: ToSchema> DescribedAnswer for Json<T> {
    fn describe(description: &mut OperationDescription) {
        description.answers::<T>(200, JSON);
    }
}
