//! Calls of `wechat-messages`, at the paths and with the field names that its clients have.

use axum::Json;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::api::admin_caller::AdminCaller;
use crate::api::answers::endpoint_answers::WebhookReports;
use crate::api::answers::problem::ProblemResponse;
use crate::api::answers::success_answer::SuccessAnswer;
use crate::api::answers::success_answer::SuccessList;
use crate::api::openapi::request_shape::QueryFields;
use crate::api::requests::endpoint_calls::AdminCall;
use crate::api::requests::endpoint_calls::AdminRefusal;
use crate::api::requests::fields::either;
use crate::api::requests::request::JsonDocument;
use crate::api::requests::webhook_fields::AskedWebhook;
use crate::api::requests::webhook_fields::WebhookFields;

type WebhookResult<T> = Result<Json<SuccessAnswer<T>>, AdminRefusal>;

/// Which webhook is meant.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct WebhookChoice {
    /// URL of the webhook; without URL and Name all are tested
    #[serde(rename = "URL")]
    url: Option<String>,
    /// Same as URL
    #[serde(rename = "url")]
    lower_url: Option<String>,
    /// Name of the webhook
    #[serde(rename = "Name")]
    name: Option<String>,
    /// Same as Name
    #[serde(rename = "name")]
    lower_name: Option<String>,
}

pub(crate) async fn config(
    caller: AdminCaller,
    JsonDocument(document, ..): JsonDocument<AskedWebhook>,
) -> WebhookResult<WebhookFields> {
    let webhook = caller.ask(AdminCall::WebhookConfig { document }).await?;
    Ok(Json(SuccessAnswer::of(webhook)))
}

pub(crate) async fn list(
    caller: AdminCaller,
) -> Result<Json<SuccessList<WebhookFields>>, AdminRefusal> {
    Ok(Json(SuccessList::of(caller.ask(AdminCall::WebhookList).await?)))
}

/// Sends a test message to one endpoint, by its URL or its name; without either to all of them.
pub(crate) async fn test(
    caller: AdminCaller,
    QueryFields(choice): QueryFields<WebhookChoice>,
) -> Result<WebhookResult<WebhookReports>, ProblemResponse> {
    let name = either(("Name", choice.name), ("name", choice.lower_name))?;
    let url = either(("URL", choice.url), ("url", choice.lower_url))?;
    let tested = caller.ask(AdminCall::WebhookTest { which: name.or(url) }).await;
    Ok(tested.map(|reports| Json(SuccessAnswer::of(reports))))
}

pub(crate) async fn update(
    caller: AdminCaller,
    JsonDocument(document, ..): JsonDocument<AskedWebhook>,
) -> WebhookResult<WebhookFields> {
    let webhook = caller.ask(AdminCall::WebhookUpdate { document }).await?;
    Ok(Json(SuccessAnswer::of(webhook)))
}
