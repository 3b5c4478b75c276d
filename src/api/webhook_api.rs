//! Contract 4's calls, at the paths and with the field names that its clients have.

use axum::Router;
use axum::body::Bytes;
use axum::extract::Query;
use axum::http::HeaderMap;
use axum::response::IntoResponse;
use axum::response::Response;
use axum::routing::get;
use axum::routing::post;
use axum::routing::put;
use serde::Deserialize;

use crate::api::Surface;
use crate::api::endpoints::Call;
use crate::api::endpoints::Caller;
use crate::api::endpoints::document;

pub(crate) fn routes() -> Router<Surface> {
    Router::new()
        .route("/v1/webhook/Config", post(config))
        .route("/v1/webhook/List", get(list))
        .route("/v1/webhook/Test", get(test))
        .route("/v1/webhook/Update", put(update))
}

/// Which endpoint to test: by its URL or its name; without either the only one.
#[derive(Debug, Deserialize)]
struct Which {
    #[serde(rename = "URL", alias = "url")]
    url: Option<String>,
    #[serde(rename = "Name", alias = "name")]
    name: Option<String>,
}

async fn config(caller: Caller, headers: HeaderMap, body: Bytes) -> Response {
    match document(&headers, &body) {
        Ok(document) => caller.ask(Call::WebhookConfig { document }).await,
        Err(refused) => refused.into_response(),
    }
}

async fn list(caller: Caller) -> Response {
    caller.ask(Call::WebhookList).await
}

async fn test(caller: Caller, Query(Which { url, name }): Query<Which>) -> Response {
    caller.ask(Call::WebhookTest { which: name.or(url) }).await
}

async fn update(caller: Caller, headers: HeaderMap, body: Bytes) -> Response {
    match document(&headers, &body) {
        Ok(document) => caller.ask(Call::WebhookUpdate { document }).await,
        Err(refused) => refused.into_response(),
    }
}
