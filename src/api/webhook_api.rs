//! Contract 4's calls, at the paths and with the field names that its clients have.

use axum::extract::RawQuery;
use axum::response::IntoResponse;
use axum::response::Response;

use crate::api::endpoints::Call;
use crate::api::endpoints::Caller;
use crate::api::fields::Fields;
use crate::api::request::Document;

pub(crate) async fn config(caller: Caller, Document(document): Document) -> Response {
    caller.ask(Call::WebhookConfig { document }).await
}

pub(crate) async fn list(caller: Caller) -> Response {
    caller.ask(Call::WebhookList).await
}

/// Sends a test message to one endpoint, by its URL or its name; without either to all of them.
pub(crate) async fn test(caller: Caller, RawQuery(query): RawQuery) -> Response {
    let which = Fields::of_query(query.as_deref(), &["URL", "url", "Name", "name"])
        .and_then(|fields| Ok((fields.either("Name", "name")?, fields.either("URL", "url")?)));
    match which {
        Ok((name, url)) => caller.ask(Call::WebhookTest { which: name.or(url) }).await,
        Err(problem) => problem.into_response(),
    }
}

pub(crate) async fn update(caller: Caller, Document(document): Document) -> Response {
    caller.ask(Call::WebhookUpdate { document }).await
}
