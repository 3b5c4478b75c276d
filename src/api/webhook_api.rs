//! Contract 4's calls, at the paths and with the field names that its clients have.

use axum::extract::RawQuery;
use axum::response::IntoResponse;
use axum::response::Response;

use crate::api::endpoint_calls::AdminCall;
use crate::api::endpoints::AdminCaller;
use crate::api::fields::RequestFields;
use crate::api::request::JsonDocument;

pub(crate) async fn config(caller: AdminCaller, JsonDocument(document): JsonDocument) -> Response {
    caller.ask(AdminCall::WebhookConfig { document }).await
}

pub(crate) async fn list(caller: AdminCaller) -> Response {
    caller.ask(AdminCall::WebhookList).await
}

/// Sends a test message to one endpoint, by its URL or its name; without either to all of them.
pub(crate) async fn test(caller: AdminCaller, RawQuery(query): RawQuery) -> Response {
    let which = RequestFields::of_query(query.as_deref(), &["URL", "url", "Name", "name"])
        .and_then(|fields| Ok((fields.either("Name", "name")?, fields.either("URL", "url")?)));
    match which {
        Ok((name, url)) => caller.ask(AdminCall::WebhookTest { which: name.or(url) }).await,
        Err(problem) => problem.into_response(),
    }
}

pub(crate) async fn update(caller: AdminCaller, JsonDocument(document): JsonDocument) -> Response {
    caller.ask(AdminCall::WebhookUpdate { document }).await
}
