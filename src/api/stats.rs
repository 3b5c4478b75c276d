//! `GET /api/v1/webhook/stats`, contract 1.

use axum::Json;
use axum::extract::State;
use serde_json::Value;
use serde_json::json;

use crate::api::Surface;

pub(crate) async fn stats(State(surface): State<Surface>) -> Json<Value> {
    Json(json!({ "success": true, "data": surface.stats.view() }))
}
