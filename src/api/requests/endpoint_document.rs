//! The document that an endpoint is made of, as the API takes and shows it.
//!
//! It is read by the reader of the configuration, which knows more of each key than a schema can say; a test
//! holds the two together.

use std::collections::BTreeMap;

use serde_json::Value;
use utoipa::PartialSchema;
use utoipa::ToSchema;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::AdditionalProperties;
use utoipa::openapi::schema::ArrayBuilder;
use utoipa::openapi::schema::ObjectBuilder;
use utoipa::openapi::schema::Schema;
use utoipa::openapi::schema::SchemaType;
use utoipa::openapi::schema::Type;

use crate::api::openapi::document_shape::DocumentShape;
use crate::api::openapi::document_shape::JSON;

/// The keys of an `[[endpoint]]` of the configuration (config/walhook.example.toml); what is left out is as `[webhook]` says. Strings are taken as they are: no `${VARIABLES}`, no `{ env }`, no `{ file }`. Needed are name and url.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the reader of the configuration takes it; this is its shape")]
pub(crate) struct EndpointDocument {
    #[schema(pattern = "^[A-Za-z0-9_.-]{1,64}$", required = false)]
    name: String,
    /// Dials public addresses only, and those of `[endpoints] allow`
    #[schema(format = "uri", required = false)]
    url: String,
    #[schema(required = false)]
    enabled: bool,
    /// Event types; * stands for any characters
    #[schema(max_items = 100, required = false)]
    events: Vec<String>,
    /// A CEL expression over the change
    #[schema(max_length = 1024, required = false)]
    when: String,
    /// Name of a built-in payload
    #[schema(required = false)]
    payload: String,
    /// Body of a test, any JSON; without it a test is made of a row
    #[schema(required = false)]
    test: Value,
    /// A duration, such as "30s"
    #[schema(required = false)]
    timeout: String,
    #[schema(required = false)]
    retry: RetryKeys,
    #[schema(minimum = 1, maximum = 4096, required = false)]
    concurrency: u32,
    #[schema(required = false)]
    batch: BatchKeys,
    #[schema(minimum = 1, maximum = 1_000_000, required = false)]
    capacity: u32,
    /// A duration
    #[schema(required = false)]
    park_after: String,
    #[schema(required = false)]
    breaker: BreakerKeys,
    #[schema(required = false)]
    backlog: BacklogKeys,
    #[schema(schema_with = orderings, required = false)]
    ordering: String,
    /// Requests a second
    #[schema(minimum = 0.01, maximum = 100_000, required = false)]
    rate_limit: f64,
    /// Status codes, or { codes, pointer, equals }
    #[schema(required = false)]
    success: Value,
    /// A duration
    #[schema(required = false)]
    max_connection_age: String,
    /// A size, such as "16KiB"
    #[schema(required = false)]
    response_limit: String,
    #[schema(required = false)]
    user_agent: String,
    #[schema(schema_with = headers, required = false)]
    headers: BTreeMap<String, String>,
    /// One of basic, bearer, api_key, oauth2
    #[schema(schema_with = auth, required = false)]
    auth: Value,
    #[schema(schema_with = secrets, required = false)]
    secret: Value,
    /// "standard", or a table that describes an HMAC
    #[schema(required = false)]
    signing: Value,
    #[schema(required = false)]
    http2: bool,
}

/// `retry`.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the reader of the configuration takes it; this is its shape")]
struct RetryKeys {
    #[schema(minimum = 0, maximum = 100, required = false)]
    max: u32,
    /// A duration
    #[schema(required = false)]
    interval: String,
    /// A duration
    #[schema(required = false)]
    cap: String,
    /// One retry for each
    #[schema(required = false)]
    delays: Vec<String>,
    /// "usual", "all", or a list of codes and "5xx"
    #[schema(required = false)]
    on: Value,
}

/// `batch`.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the reader of the configuration takes it; this is its shape")]
struct BatchKeys {
    #[schema(minimum = 1, maximum = 100, required = false)]
    size: u32,
    /// A duration
    #[schema(required = false)]
    linger: String,
}

/// `breaker`.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the reader of the configuration takes it; this is its shape")]
struct BreakerKeys {
    #[schema(required = false)]
    failures: u32,
    /// A duration
    #[schema(required = false)]
    cooldown: String,
    /// A duration
    #[schema(required = false)]
    cap: String,
}

/// `backlog`.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the reader of the configuration takes it; this is its shape")]
struct BacklogKeys {
    #[schema(required = false)]
    rows: u64,
    /// A duration
    #[schema(required = false)]
    age: String,
}

fn orderings() -> RefOr<Schema> {
    crate::api::requests::field_kinds::words_schema(["key", "strict", "none"])
}

fn headers() -> RefOr<Schema> {
    let text = AdditionalProperties::from(String::schema());
    let headers = ObjectBuilder::new().schema_type(Type::Object).additional_properties(Some(text));
    headers.max_properties(Some(32)).into()
}

fn auth() -> RefOr<Schema> {
    let object = ObjectBuilder::new().schema_type(Type::Object);
    object.description(Some("One of basic, bearer, api_key, oauth2")).into()
}

fn secrets() -> RefOr<Schema> {
    let kinds = SchemaType::Array(vec![Type::String, Type::Array]);
    let text = ObjectBuilder::new().schema_type(Type::String);
    let secrets = ArrayBuilder::new().schema_type(kinds).items(text).max_items(Some(5));
    let meaning = "Signs every request; [secret] stands for the one that is there";
    secrets.description(Some(meaning)).into()
}

/// A whole endpoint that is asked for.
pub(crate) struct WholeEndpoint;

impl DocumentShape for WholeEndpoint {
    const KINDS: &'static [&'static str] = &[JSON];
    const IS_NEEDED: bool = true;
    type Schema = EndpointDocument;
}

/// What is to be changed of an endpoint (RFC 7396).
pub(crate) struct EndpointPatch;

impl DocumentShape for EndpointPatch {
    const KINDS: &'static [&'static str] = &["application/merge-patch+json", JSON];
    const IS_NEEDED: bool = true;
    type Schema = EndpointDocument;
}

/// Another secret for an endpoint, given or made.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the administration reads it, and names what is wrong")]
pub(crate) struct RotationFields {
    /// Made by walhook if it is left out
    #[schema(required = false)]
    secret: String,
    /// Up to 30d; 24h if it is left out
    #[schema(required = false)]
    overlap: String,
}

/// Another secret that is asked for.
pub(crate) struct SecretRotation;

impl DocumentShape for SecretRotation {
    const KINDS: &'static [&'static str] = &[JSON];
    const IS_NEEDED: bool = false;
    type Schema = RotationFields;
}
