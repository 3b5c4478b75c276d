//! `/api/v1/endpoints`: endpoints that are made, changed and removed while walhook runs.
//!
//! The calls are answered one after the other, so that no client changes what another has just
//! read; only tests of endpoints run beside them.

use axum::Json;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::api::admin_caller::AdminCaller;
use crate::api::answers::endpoint_answers::EndpointList;
use crate::api::answers::endpoint_answers::EndpointRemoval;
use crate::api::answers::endpoint_answers::RotatedSecret;
use crate::api::answers::endpoint_answers::ShownEndpoint;
use crate::api::answers::endpoint_answers::TestReport;
use crate::api::answers::handler_answers::AcceptedJson;
use crate::api::answers::handler_answers::CreatedJson;
use crate::api::answers::problem::ProblemResponse;
use crate::api::openapi::request_shape::BodyFields;
use crate::api::openapi::request_shape::BothShapes;
use crate::api::openapi::request_shape::QueryFields;
use crate::api::requests::endpoint_calls::AdminCall;
use crate::api::requests::endpoint_calls::AdminRefusal;
use crate::api::requests::endpoint_calls::TestWish;
use crate::api::requests::endpoint_document::EndpointPatch;
use crate::api::requests::endpoint_document::SecretRotation;
use crate::api::requests::endpoint_document::WholeEndpoint;
use crate::api::requests::endpoint_pages::EndpointChoice;
use crate::api::requests::endpoint_pages::EndpointCursor;
use crate::api::requests::endpoint_pages::EndpointPage;
use crate::api::requests::fields::bad;
use crate::api::requests::path_parts::EndpointPart;
use crate::api::requests::request::JsonDocument;
use crate::api::requests::request::NamedParts;

type AdminResult<T> = Result<T, AdminRefusal>;

type EndpointResult = AdminResult<Json<ShownEndpoint>>;

/// Another name for an endpoint.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct RenameFields {
    /// The new name
    #[schema(required)]
    name: Option<String>,
}

pub(crate) async fn list(
    caller: AdminCaller,
    QueryFields(BothShapes(choice, cursor)): QueryFields<
        BothShapes<EndpointChoice, EndpointCursor>,
    >,
) -> Result<AdminResult<Json<EndpointList>>, ProblemResponse> {
    let page = EndpointPage::of(choice, cursor)?;
    Ok(caller.ask(AdminCall::List { page }).await.map(Json))
}

pub(crate) async fn show(
    caller: AdminCaller,
    NamedParts(name, ..): NamedParts<EndpointPart>,
) -> EndpointResult {
    caller.ask(AdminCall::Show { name }).await.map(Json)
}

pub(crate) async fn create(
    caller: AdminCaller,
    JsonDocument(document, ..): JsonDocument<WholeEndpoint>,
) -> AdminResult<CreatedJson<ShownEndpoint>> {
    caller.ask(AdminCall::Create { document }).await.map(CreatedJson)
}

pub(crate) async fn replace(
    caller: AdminCaller,
    NamedParts(name, ..): NamedParts<EndpointPart>,
    JsonDocument(document, ..): JsonDocument<WholeEndpoint>,
) -> EndpointResult {
    caller.ask(AdminCall::Replace { name, document }).await.map(Json)
}

pub(crate) async fn patch(
    caller: AdminCaller,
    NamedParts(name, ..): NamedParts<EndpointPart>,
    JsonDocument(patch, ..): JsonDocument<EndpointPatch>,
) -> EndpointResult {
    caller.ask(AdminCall::Patch { name, patch }).await.map(Json)
}

pub(crate) async fn delete(
    caller: AdminCaller,
    NamedParts(name, ..): NamedParts<EndpointPart>,
) -> AdminResult<AcceptedJson<EndpointRemoval>> {
    caller.ask(AdminCall::Delete { name }).await.map(AcceptedJson)
}

pub(crate) async fn enable(
    caller: AdminCaller,
    NamedParts(name, ..): NamedParts<EndpointPart>,
) -> EndpointResult {
    caller.ask(AdminCall::Switch { name, enabled: true }).await.map(Json)
}

pub(crate) async fn disable(
    caller: AdminCaller,
    NamedParts(name, ..): NamedParts<EndpointPart>,
) -> EndpointResult {
    caller.ask(AdminCall::Switch { name, enabled: false }).await.map(Json)
}

pub(crate) async fn pause(
    caller: AdminCaller,
    NamedParts(name, ..): NamedParts<EndpointPart>,
) -> EndpointResult {
    caller.ask(AdminCall::Pause { name, paused: true }).await.map(Json)
}

pub(crate) async fn resume(
    caller: AdminCaller,
    NamedParts(name, ..): NamedParts<EndpointPart>,
) -> EndpointResult {
    caller.ask(AdminCall::Pause { name, paused: false }).await.map(Json)
}

pub(crate) async fn try_now(
    caller: AdminCaller,
    NamedParts(name, ..): NamedParts<EndpointPart>,
) -> EndpointResult {
    caller.ask(AdminCall::TryNow { name }).await.map(Json)
}

pub(crate) async fn rename(
    caller: AdminCaller,
    NamedParts(name, ..): NamedParts<EndpointPart>,
    BodyFields(fields): BodyFields<RenameFields>,
) -> Result<EndpointResult, ProblemResponse> {
    let to = fields.name.ok_or_else(|| bad("name is missing: give the new name"))?;
    Ok(caller.ask(AdminCall::Rename { name, to }).await.map(Json))
}

pub(crate) async fn rotate(
    caller: AdminCaller,
    NamedParts(name, ..): NamedParts<EndpointPart>,
    JsonDocument(body, ..): JsonDocument<SecretRotation>,
) -> AdminResult<Json<RotatedSecret>> {
    caller.ask(AdminCall::Rotate { name, body }).await.map(Json)
}

pub(crate) async fn test(
    caller: AdminCaller,
    NamedParts(name, ..): NamedParts<EndpointPart>,
    BodyFields(wish): BodyFields<TestWish>,
) -> AdminResult<Json<TestReport>> {
    caller.ask(AdminCall::Test { name, wish }).await.map(Json)
}
