//! `GET /api/v1/webhook/stats`, contract 1.

use axum::Json;
use axum::extract::State;
use serde_json::Value;
use serde_json::json;

use crate::api::surface::HttpSurface;

pub(crate) async fn stats(State(surface): State<HttpSurface>) -> Json<Value> {
    Json(json!({ "success": true, "data": surface.stats.view() }))
}
