//! `GET /api/v1/messages/{message_id}/status` and `/history`: what became of a message.

use axum::Json;
use axum::extract::State;
use serde_json::Value;
use serde_json::json;

use crate::api::problem::ProblemResponse;
use crate::api::request::NamedParts;
use crate::api::surface::HttpSurface;

/// Where it stands, and where with each of its users.
pub(crate) async fn status(
    State(surface): State<HttpSurface>,
    NamedParts(id): NamedParts,
) -> Result<Json<Value>, ProblemResponse> {
    let message = surface.messages.find(&id).await?;
    let users = message.users().into_iter().map(|(user, step)| {
        json!({ "user": user, "status": step.state, "updated_at": step.at.iso_millis() })
    });
    let status = message.status();
    Ok(Json(json!({
        "success": true,
        "data": {
            "message_id": message.message_id,
            "msgid": message.msgid,
            "status": status.map(|step| &step.state),
            "updated_at": status.map(|step| step.at.iso_millis()),
            "users": users.collect::<Vec<_>>(),
        },
    })))
}

/// Its steps, in their order.
pub(crate) async fn history(
    State(surface): State<HttpSurface>,
    NamedParts(id): NamedParts,
) -> Result<Json<Value>, ProblemResponse> {
    let message = surface.messages.find(&id).await?;
    let steps = message.steps.iter().map(|step| {
        json!({
            "state": step.state,
            "user": step.user,
            "at": step.at.iso_millis(),
            "detail": step.detail,
        })
    });
    Ok(Json(json!({ "success": true, "data": steps.collect::<Vec<_>>() })))
}
