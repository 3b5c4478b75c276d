//! What the administration answers, each answer with its type: the same that the document shows.

use serde::Serialize;
use serde_json::Map;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::AdditionalProperties;
use utoipa::openapi::schema::ObjectBuilder;
use utoipa::openapi::schema::Schema;
use utoipa::openapi::schema::SchemaType;
use utoipa::openapi::schema::Type;

use crate::api::requests::endpoint_document::EndpointDocument;
use crate::api::requests::field_kinds::IsoTime;
use crate::api::requests::field_kinds::described_words;
use crate::api::requests::field_kinds::words_schema;

/// A page of the endpoints, in the order in which they were added.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EndpointList {
    pub(crate) endpoints: Vec<ShownEndpoint>,
    /// All that are meant, on all pages
    pub(crate) total: usize,
    pub(crate) next_cursor: Option<String>,
}

/// An endpoint as the API shows it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Endpoint)]
pub(crate) struct ShownEndpoint {
    pub(crate) name: String,
    #[schema(schema_with = shown_sources)]
    pub(crate) source: &'static str,
    #[schema(schema_with = shown_states)]
    pub(crate) state: &'static str,
    /// Scheme, host and port; the rest can be a secret
    pub(crate) url: String,
    /// As it was written, secrets as `[secret]`; a summary for one of the file
    pub(crate) endpoint: DocumentOrSummary,
    pub(crate) waiting: WaitingEvents,
    pub(crate) in_flight: usize,
    /// Only while it is paused, as the next one
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) paused_since: Option<IsoTime>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) paused_by: Option<String>,
    /// Of one that was made over the API, as those below
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) created_at: Option<IsoTime>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) created_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) updated_at: Option<IsoTime>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) updated_by: Option<String>,
    /// How long secrets from before go on signing
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) previous_secrets_until: Option<Vec<IsoTime>>,
}

fn shown_sources() -> RefOr<Schema> {
    let meaning = "Those of the file are changed there only, those of a table there";
    described_words(meaning, ["file", "api", "table"])
}

const ENDPOINT_STATES: [&str; 6] = ["enabled", "disabled", "paused", "gone", "refused", "removing"];

fn shown_states() -> RefOr<Schema> {
    let meaning = "gone: it answered 410; refused: it is a row that is no endpoint, and its events become dead \
                   letters";
    described_words(meaning, ENDPOINT_STATES)
}

/// What an endpoint does at the moment.
pub(crate) fn endpoint_states() -> RefOr<Schema> {
    words_schema(ENDPOINT_STATES)
}

/// What an endpoint is like.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum DocumentOrSummary {
    #[schema(value_type = EndpointDocument)]
    Document(Value),
    Summary(EndpointSummary),
}

/// Of an endpoint of the file
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EndpointSummary {
    pub(crate) name: String,
    pub(crate) enabled: bool,
    pub(crate) events: Vec<String>,
    pub(crate) when: Option<String>,
    pub(crate) concurrency: usize,
    pub(crate) timeout_seconds: f64,
}

/// What waits for an endpoint.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WaitingEvents {
    pub(crate) memory: usize,
    pub(crate) backlog: usize,
}

/// An endpoint that is being removed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EndpointRemoval {
    pub(crate) name: String,
    #[schema(schema_with = removing)]
    pub(crate) state: &'static str,
}

fn removing() -> RefOr<Schema> {
    words_schema(["removing"])
}

/// An endpoint's other secret.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RotatedSecret {
    pub(crate) name: String,
    /// The new secret if walhook made it; it is shown only here
    pub(crate) secret: Option<String>,
    /// How long the one before goes on signing
    pub(crate) previous_until: Option<IsoTime>,
}

/// What came of a test.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TestReport {
    pub(crate) delivered: bool,
    pub(crate) status: Option<u16>,
    pub(crate) duration_ms: u64,
    pub(crate) error: Option<TestFailure>,
    /// Its first 1024 bytes
    pub(crate) response: String,
}

/// Why a test was not delivered.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TestFailure {
    pub(crate) class: &'static str,
    pub(crate) detail: String,
}

impl TestReport {
    /// There was no answer in time.
    pub(crate) fn late(detail: String, waited_ms: u64) -> Self {
        let error = Some(TestFailure { class: "timeout", detail });
        Self {
            delivered: false,
            status: None,
            duration_ms: waited_ms,
            error,
            response: String::new(),
        }
    }
}

/// What `walhook check` finds.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FindingList {
    pub(crate) findings: Vec<ShownFinding>,
}

/// One thing that it finds.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ShownFinding {
    #[schema(schema_with = finding_levels)]
    pub(crate) level: &'static str,
    pub(crate) what: String,
    pub(crate) fix: Option<String>,
}

fn finding_levels() -> RefOr<Schema> {
    words_schema(["ok", "warning", "problem"])
}

/// Each event type with the schema of its bodies.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EventTypeList {
    pub(crate) event_types: Vec<ShownEventType>,
}

/// One of them.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ShownEventType {
    #[serde(rename = "type")]
    pub(crate) event_type: String,
    pub(crate) table: String,
    pub(crate) on: Vec<&'static str>,
    #[schema(schema_with = body_schema)]
    pub(crate) schema: Option<Value>,
    #[schema(schema_with = own_schemas)]
    pub(crate) own_schemas: Map<String, Value>,
}

fn body_schema() -> RefOr<Schema> {
    let kinds = SchemaType::Array(vec![Type::Object, Type::Null]);
    free_object(kinds, "null while there is no such table")
}

fn own_schemas() -> RefOr<Schema> {
    free_object(Type::Object.into(), "By endpoint, for those with a payload of their own")
}

/// An object with members that are not ours to name.
fn free_object(kind: SchemaType, meaning: &str) -> RefOr<Schema> {
    let any = AdditionalProperties::<Schema>::FreeForm(true);
    let object = ObjectBuilder::new().schema_type(kind).additional_properties(Some(any));
    object.description(Some(meaning)).into()
}

/// What would come of a row.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TrialReport {
    pub(crate) table: String,
    pub(crate) key: Vec<String>,
    #[schema(value_type = Vec<Object>)]
    pub(crate) rows: Vec<Map<String, Value>>,
    pub(crate) results: Vec<TriedEvent>,
}

/// What would come of it as one event type.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TriedEvent {
    pub(crate) op: &'static str,
    pub(crate) event_type: String,
    #[schema(schema_with = trial_verdicts)]
    pub(crate) verdict: &'static str,
    pub(crate) endpoints: Vec<TriedRequest>,
    /// Endpoints that are not shown
    pub(crate) more: usize,
    /// Expressions that have no value on the row; with the first event only
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(crate) faults: Vec<TrialFault>,
}

fn trial_verdicts() -> RefOr<Schema> {
    words_schema(["raised", "filtered", "expired", "unrenderable", "costly"])
}

/// What one endpoint would get.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct TriedRequest {
    pub(crate) endpoint: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>, nullable = false)]
    pub(crate) headers: Option<Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) body: Option<String>,
    /// Why there is no request
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) error: Option<String>,
}

/// An expression that has no value on a row.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TrialFault {
    pub(crate) event_type: String,
    pub(crate) place: String,
    pub(crate) expression: String,
    pub(crate) what: String,
}

/// A TestReport with the webhook's Name and URL
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WebhookReport {
    #[serde(flatten)]
    pub(crate) report: TestReport,
    #[serde(rename = "Name")]
    pub(crate) name: String,
    #[serde(rename = "URL")]
    #[schema(value_type = String)]
    pub(crate) url: Option<String>,
}

/// Tests of the webhook that was meant, or of all.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum WebhookReports {
    One(WebhookReport),
    All(Vec<WebhookReport>),
}
