//! `GET /api/v1/members`: who delivers for the source. Every member answers, from the state.

use axum::Json;
use axum::extract::State;

use crate::api::answers::member_list::MemberList;
use crate::api::answers::problem::ProblemResponse;
use crate::api::surface::HttpSurface;
use crate::store::source_members;

/// The workers, and which partitions each has.
pub(crate) async fn list(
    State(surface): State<HttpSurface>,
) -> Result<Json<MemberList>, ProblemResponse> {
    let mut session = surface.queries.session().await?;
    let view = source_members::load(session.client(), surface.queries.slot()).await?;
    Ok(Json(view.into()))
}
