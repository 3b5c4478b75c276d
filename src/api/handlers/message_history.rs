//! `GET /api/v1/messages/{message_id}/status` and `/history`: what became of a message.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::ObjectBuilder;
use utoipa::openapi::schema::Schema;
use utoipa::openapi::schema::SchemaType;

use crate::api::answers::problem::ProblemResponse;
use crate::api::answers::success_answer::SuccessAnswer;
use crate::api::answers::success_answer::SuccessList;
use crate::api::requests::field_kinds::IsoTime;
use crate::api::requests::path_parts::MessagePart;
use crate::api::requests::request::NamedParts;
use crate::api::surface::HttpSurface;

/// Where a message stands.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MessageStatus {
    message_id: String,
    /// The receiver's id
    msgid: Option<String>,
    status: Option<String>,
    updated_at: Option<IsoTime>,
    users: Vec<UserStatus>,
}

/// Where it stands with one of its users.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UserStatus {
    user: String,
    status: String,
    updated_at: IsoTime,
}

/// A step of a message.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MessageStep {
    state: String,
    user: Option<String>,
    at: IsoTime,
    #[schema(schema_with = any_json)]
    detail: Option<Value>,
}

fn any_json() -> RefOr<Schema> {
    let any = ObjectBuilder::new().schema_type(SchemaType::AnyValue);
    any.description(Some("What came with it, any JSON")).into()
}

/// Where it stands, and where with each of its users.
pub(crate) async fn status(
    State(surface): State<HttpSurface>,
    NamedParts(id, ..): NamedParts<MessagePart>,
) -> Result<Json<SuccessAnswer<MessageStatus>>, ProblemResponse> {
    let message = surface.messages.find(&id).await?;
    let users = message.users().into_iter().map(|(user, step)| UserStatus {
        user: user.to_owned(),
        status: step.state.clone(),
        updated_at: IsoTime(step.at),
    });
    let users = users.collect();
    let status = message.status().map(|step| (step.state.clone(), IsoTime(step.at)));
    let (status, updated_at) = status.unzip();
    Ok(Json(SuccessAnswer::of(MessageStatus {
        message_id: message.message_id,
        msgid: message.msgid,
        status,
        updated_at,
        users,
    })))
}

/// Its steps, in their order.
pub(crate) async fn history(
    State(surface): State<HttpSurface>,
    NamedParts(id, ..): NamedParts<MessagePart>,
) -> Result<Json<SuccessList<MessageStep>>, ProblemResponse> {
    let message = surface.messages.find(&id).await?;
    let steps = message.steps.into_iter().map(|step| MessageStep {
        state: step.state,
        user: step.user,
        at: IsoTime(step.at),
        detail: step.detail,
    });
    Ok(Json(SuccessList::of(steps.collect())))
}
