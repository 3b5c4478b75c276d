//! `GET /api/v1/openapi.json`: what the surface offers, for people and for generators of clients.
//!
//! It is put together of the tables of operations and of the types that their handlers take and give; none of it
//! is written by hand.
//!
//! | file | holds |
//! | --- | --- |
//! | `described_types` | What the types of a handler say of its operation |
//! | `document_shape` | The shape of a document that another room reads |
//! | `operation` | An operation of the surface: its path, who answers it, and what the document says of it |
//! | `operations` | Every operation of the surface |
//! | `request_shape` | What a request may say, as a type |
//! | `schemas` | Schemas of the document, made of types |

pub(crate) mod described_types;
pub(crate) mod document_shape;
pub(crate) mod operation;
pub(crate) mod operations;
pub(crate) mod request_shape;
pub(crate) mod schemas;

use std::sync::LazyLock;

use axum::http::header;
use axum::response::IntoResponse;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::api::answers::problem::ProblemBody;
use crate::api::answers::problem::RefusalBody;
use crate::api::answers::shared_refusal::SharedRefusal;
use crate::api::openapi::described_types::DescribedAnswer;
use crate::api::openapi::described_types::OperationDescription;
use crate::api::openapi::operation::RouteOperation;
use crate::api::openapi::schemas::SchemaSet;

/// Schemas that clients know by a name; the others stand where they are used.
const NAMED: [&str; 22] = [
    "Attempt",
    "Backfill",
    "BackfillOffer",
    "DeadLetter",
    "Endpoint",
    "EndpointDocument",
    "EndpointStatus",
    "EndpointSummary",
    "Named",
    "Neighbour",
    "Problem",
    "Refusal",
    "Replay",
    "ReplayAnswer",
    "Sample",
    "Source",
    "Stats",
    "Status",
    "TestReport",
    "Webhook",
    "WebhookReport",
    "WholeDeadLetter",
];

static DOCUMENT: LazyLock<String> = LazyLock::new(|| whole().to_string());

/// The document as it is served.
pub fn document_text() -> &'static str {
    &DOCUMENT
}

/// The document.
pub(crate) struct OpenApiDocument;

impl IntoResponse for OpenApiDocument {
    fn into_response(self) -> axum::response::Response {
        ([(header::CONTENT_TYPE, "application/json")], document_text()).into_response()
    }
}

impl DescribedAnswer for OpenApiDocument {
    fn describe(description: &mut OperationDescription) {
        let any = json!({ "type": "object", "additionalProperties": true });
        description.answers_with(200, json!({ "application/json": { "schema": any } }));
    }
}

async fn document() -> OpenApiDocument {
    OpenApiDocument
}

/// Every operation that needs the token, this one among them.
pub(crate) fn guarded() -> Vec<RouteOperation> {
    let path = "/api/v1/openapi.json";
    let own = RouteOperation::get(path, "This document", document).says(200, "The document");
    operations::guarded().into_iter().chain([operations::guard(own)]).collect()
}

fn whole() -> Value {
    let mut set = SchemaSet::new();
    schemas::of::<ProblemBody>(&mut set);
    schemas::of::<RefusalBody>(&mut set);
    let mut paths = Map::new();
    for (operation, is_open) in operations::open()
        .into_iter()
        .map(|operation| (operation, true))
        .chain(guarded().into_iter().map(|operation| (operation, false)))
    {
        let RouteOperation { method, path, description, .. } = operation;
        set.extend(description.schemas.clone());
        let methods = paths.entry(path).or_insert_with(|| json!({}));
        if let Value::Object(methods) = methods {
            methods.insert(method.to_owned(), shown(description, is_open));
        }
    }
    let shared = SharedRefusal::ALL.map(|refusal| (refusal.name().to_owned(), refusal.response()));
    let mut paths = Value::Object(paths);
    schemas::inline(&mut paths, &set, &NAMED);
    let named = NAMED.iter().filter_map(|name| {
        let mut schema = set.get(*name)?.clone();
        schemas::inline(&mut schema, &set, &NAMED);
        Some(((*name).to_owned(), schema))
    });
    let named: Map<String, Value> = named.collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "walhook",
            "version": "1",
            "description": "Endpoints, dead letters, push log and replay of a running walhook. Times are ISO 8601 \
                            in UTC. Errors are application/problem+json.",
        },
        "security": [{ "token": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": { "token": {
                "type": "http",
                "scheme": "bearer",
                "description": "Needed if [http] token is set; a browser that was at /login sends a cookie in its \
                                place, and then X-Walhook: page with whatever changes something",
            } },
            "responses": shared.into_iter().collect::<Map<String, Value>>(),
            "schemas": named,
        },
    })
}

/// An operation as the document has it.
fn shown(description: OperationDescription, is_open: bool) -> Value {
    let mut operation = Map::new();
    let mut say = |name: &str, value: Value| operation.insert(name.to_owned(), value);
    say("summary", description.summary.into());
    if let Some(remark) = description.remark {
        say("description", remark.into());
    }
    if is_open {
        say("security", json!([]));
    }
    if !description.parameters.is_empty() {
        say("parameters", description.parameters.into());
    }
    if let Some(body) = description.body {
        say("requestBody", body);
    }
    let answers = description.answers.into_iter();
    let answers: Map<String, Value> =
        answers.map(|(status, answer)| (status.to_string(), answer)).collect();
    say("responses", Value::Object(answers));
    Value::Object(operation)
}

#[cfg(test)]
mod tests;
