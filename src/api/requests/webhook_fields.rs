//! A webhook as clients of `wechat-messages` write and see it.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::ArrayBuilder;
use utoipa::openapi::schema::ObjectBuilder;
use utoipa::openapi::schema::Schema;
use utoipa::openapi::schema::SchemaType;
use utoipa::openapi::schema::Type;

use crate::api::openapi::document_shape::DocumentShape;
use crate::api::openapi::document_shape::JSON;

/// So many message types keep the filter within its limit.
pub(crate) const TYPES_MAX: usize = 32;

/// A webhook. What is asked for is read by the administration, which names every field that is wrong.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Webhook)]
pub(crate) struct WebhookFields {
    /// Made of the URL if it is left out
    #[serde(rename = "Name")]
    #[schema(required = false)]
    pub(crate) name: String,
    #[serde(rename = "URL")]
    #[schema(format = "uri", nullable = false)]
    pub(crate) url: Option<String>,
    /// Shown as `[secret]`
    #[serde(rename = "Secret")]
    #[schema(required = false)]
    pub(crate) secret: &'static str,
    #[serde(rename = "Enabled")]
    #[schema(required = false)]
    pub(crate) enabled: bool,
    /// Seconds
    #[serde(rename = "Timeout")]
    #[schema(required = false, minimum = 1)]
    pub(crate) timeout: u64,
    /// Up to 100; shown as `[webhook_api.endpoint]` has it where it is left out
    #[serde(rename = "RetryCount")]
    #[schema(required = false)]
    pub(crate) retry_count: u64,
    #[serde(rename = "MessageTypes")]
    #[schema(schema_with = message_types, required = false)]
    pub(crate) message_types: Value,
    #[serde(rename = "IncludeSelfMessage")]
    #[schema(value_type = bool, required = false)]
    pub(crate) include_own: Value,
}

fn message_types() -> RefOr<Schema> {
    let kinds = SchemaType::Array(vec![Type::String, Type::Integer]);
    let item = ObjectBuilder::new().schema_type(kinds).description(Some("Shown as a string"));
    let list = ArrayBuilder::new().items(item).max_items(Some(TYPES_MAX));
    list.description(Some("None: all")).into()
}

/// A webhook that is asked for.
pub(crate) struct AskedWebhook;

impl DocumentShape for AskedWebhook {
    const KINDS: &'static [&'static str] = &[JSON];
    const IS_NEEDED: bool = true;
    type Schema = WebhookFields;
}
