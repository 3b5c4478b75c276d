//! `GET /api/v1/webhook/stats`, as `ocr-wallet` reads it.

use axum::Json;
use axum::extract::State;

use crate::api::answers::success_answer::SuccessAnswer;
use crate::api::surface::HttpSurface;
use crate::ledger::stats::StatsView;

pub(crate) async fn stats(State(surface): State<HttpSurface>) -> Json<SuccessAnswer<StatsView>> {
    Json(SuccessAnswer::of(surface.stats.view()))
}
