//! `/api/v1/backfills`: rows that were there before, sent as events between the changes.
//!
//! ```text
//! request ─▶ [backfills] ─ BackfillRequest ─▶ the service: looks at the table ─▶ walhook.backfills
//! ```
//!
//! An order is looked at by whoever reads the rows; all else is a row of the state, which the service looks
//! at before each chunk.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::response::Response;
use serde_json::Value;
use serde_json::json;
use tokio::sync::oneshot;

use crate::api::backfill_calls::BackfillOffer;
use crate::api::backfill_calls::BackfillRequest;
use crate::api::backfill_calls::TableWish;
use crate::api::fields::RequestFields;
use crate::api::fields::bad;
use crate::api::orders;
use crate::api::problem::ProblemResponse;
use crate::api::request::NamedParts;
use crate::api::request::SentBody;
use crate::api::surface::HttpSurface;
use crate::config::identifiers::table_name;
use crate::flow::relation::TableName;
use crate::flow::time::Timestamp;
use crate::store::backfills;
use crate::store::backfills::BackfillState;
use crate::store::backfills::BackfillWish;
use crate::store::backfills::ReadOrder;
use crate::store::backfills::StoredBackfill;

/// Backfills that a list shows.
const LISTED: u32 = 100;

/// Tables of one order.
const TABLES_MAX: usize = 100;

/// Rows a second, at most.
const RATE_MAX: u32 = 1_000_000;

/// How long an order may be looked at, rows counted included.
const PATIENCE: Duration = Duration::from_secs(60);

/// Characters of a condition.
const FILTER_CHARS_MAX: usize = 10_000;

const KNOWN: [&str; 8] = ["tables", "where", "endpoints", "rate", "by", "as", "dry_run", "count"];

pub(crate) async fn order(
    State(surface): State<HttpSurface>,
    SentBody(body): SentBody,
) -> Result<Response, ProblemResponse> {
    let fields = RequestFields::of_body(&body, &KNOWN)?;
    let wishes = wishes(&fields)?;
    for endpoint in wishes.iter().flat_map(|wish| &wish.endpoints) {
        surface.require_endpoint(endpoint)?;
    }
    let (dry_run, count) = (fields.flag("dry_run")?, fields.flag("count")?);
    let (outcome_in, outcome) = oneshot::channel();
    let request = BackfillRequest::Order { wishes, dry_run, count, outcome: outcome_in };
    let away = |why: &str| ProblemResponse::new(StatusCode::SERVICE_UNAVAILABLE, why);
    let service = surface.backfills.get();
    let service =
        service.ok_or_else(|| away("walhook waits for its slot: ask the one that holds it"))?;
    let stopping = || away("walhook is shutting down: ask again when it runs");
    service.send(request).await.map_err(|_ended| stopping())?;
    let answered = tokio::time::timeout(PATIENCE, outcome).await;
    let answered =
        answered.map_err(|_late| away("this takes long: look at the list in a moment"))?;
    let offers = answered.map_err(|_ended| stopping())??;
    if dry_run {
        let offers: Vec<Value> = offers.iter().map(offered).collect();
        return Ok(Json(json!({ "dry_run": true, "backfills": offers })).into_response());
    }
    let stored: Vec<Value> =
        offers.iter().filter_map(|one| one.stored.as_ref()).map(shown).collect();
    Ok((StatusCode::ACCEPTED, Json(json!({ "backfills": stored }))).into_response())
}

pub(crate) async fn list(
    State(surface): State<HttpSurface>,
) -> Result<Json<Value>, ProblemResponse> {
    let mut session = surface.queries.session().await?;
    let found = backfills::list(session.client(), surface.queries.slot(), None, LISTED).await?;
    Ok(Json(json!({ "backfills": found.iter().map(shown).collect::<Vec<_>>() })))
}

pub(crate) async fn show(
    State(surface): State<HttpSurface>,
    NamedParts(id): NamedParts,
) -> Result<Json<Value>, ProblemResponse> {
    Ok(Json(shown(&find(&surface, &id).await?)))
}

/// Reads nothing more until it is resumed. What was read is still sent.
pub(crate) async fn pause(
    state: State<HttpSurface>,
    id: NamedParts,
) -> Result<Json<Value>, ProblemResponse> {
    switch(state, id, (&[BackfillState::Running], BackfillState::Paused)).await
}

pub(crate) async fn resume(
    state: State<HttpSurface>,
    id: NamedParts,
) -> Result<Json<Value>, ProblemResponse> {
    let from = [BackfillState::Paused, BackfillState::Failed];
    switch(state, id, (&from, BackfillState::Running)).await
}

/// Ends it where it is. What was read is still sent.
pub(crate) async fn cancel(
    state: State<HttpSurface>,
    id: NamedParts,
) -> Result<Json<Value>, ProblemResponse> {
    let from = [BackfillState::Running, BackfillState::Paused, BackfillState::Failed];
    switch(state, id, (&from, BackfillState::Cancelled)).await
}

async fn switch(
    State(surface): State<HttpSurface>,
    NamedParts(id): NamedParts,
    (from, to): (&[BackfillState], BackfillState),
) -> Result<Json<Value>, ProblemResponse> {
    let found = find(&surface, &id).await?;
    let mut session = surface.queries.session().await?;
    let (slot, now) = (surface.queries.slot(), surface.clock.now());
    let is_switched =
        backfills::switch(session.client(), slot, found.id, (from, to), None, now).await?;
    drop(session);
    if !is_switched && found.state != to {
        let detail = format!("backfill {id} is {} already", found.state.as_str());
        return Err(orders::conflict(detail));
    }
    if let Some(service) = surface.backfills.get() {
        service.try_send(BackfillRequest::Look).ok(); // else it is seen a moment later
    }
    Ok(Json(shown(&find(&surface, &id).await?)))
}

async fn find(surface: &HttpSurface, id: &str) -> Result<StoredBackfill, ProblemResponse> {
    let number = orders::number("backfill", id)?;
    let mut session = surface.queries.session().await?;
    let slot = surface.queries.slot();
    let found = backfills::list(session.client(), slot, Some(number), 1).await?;
    orders::found("backfill", id, found)
}

fn wishes(fields: &RequestFields) -> Result<Vec<TableWish>, ProblemResponse> {
    let tables = fields.texts("tables")?;
    if tables.is_empty() || tables.len() > TABLES_MAX {
        return Err(bad(format!(
            "tables must name 1 to {TABLES_MAX} tables, such as [\"public.orders\"]"
        )));
    }
    let filter = fields.text("where")?.filter(|filter| !filter.trim().is_empty());
    if filter.as_ref().is_some_and(|text| text.len() > FILTER_CHARS_MAX || text.contains('\0')) {
        return Err(bad(format!(
            "where must be a condition in SQL of up to {FILTER_CHARS_MAX} bytes"
        )));
    }
    let orders = [("key", ReadOrder::Key), ("ctid", ReadOrder::Ctid)];
    let wish = TableWish {
        table: TableName::new("", ""),
        filter,
        endpoints: fields.texts("endpoints")?.into_iter().map(Arc::from).collect(),
        event_type: fields.text("as")?.map(Arc::from),
        per_second: fields.number("rate", &(1..=RATE_MAX))?,
        read_by: fields.one_of("by", &orders)?,
    };
    let of = |name: &String| {
        let wrong = || {
            let quoted = "quote a part with other characters: \"my.schema\".\"my table\"";
            bad(format!(
                "{name:?} is not the name of a table: write table or schema.table, and {quoted}"
            ))
        };
        Ok(TableWish { table: table_name(name).ok_or_else(wrong)?, ..wish.clone() })
    };
    tables.iter().map(of).collect()
}

fn offered(offer: &BackfillOffer) -> Value {
    let BackfillOffer { wish, event_types, estimate, counted, .. } = offer;
    json!({
        "table": wish.table.to_string(),
        "where": wish.filter,
        "endpoints": names(wish),
        "as": wish.event_type.as_deref(),
        "rate": wish.per_second,
        "by": wish.read_by.as_str(),
        "event_types": event_types.iter().map(|name| &**name).collect::<Vec<&str>>(),
        "estimated_rows": estimate,
        "counted_rows": counted,
    })
}

fn shown(stored: &StoredBackfill) -> Value {
    let time = |time: Option<Timestamp>| time.map(Timestamp::iso_millis);
    let wish = &stored.wish;
    json!({
        "id": stored.id.0,
        "state": stored.state.as_str(),
        "reason": stored.reason,
        "table": wish.table.to_string(),
        "where": wish.filter,
        "endpoints": names(wish),
        "as": wish.event_type.as_deref(),
        "rate": wish.per_second,
        "by": wish.read_by.as_str(),
        "estimated_rows": wish.estimate,
        "rows_read": stored.rows_read,
        "rows_sent": stored.rows_sent,
        "progress": stored.progress(),
        "created_at": stored.created_at.iso_millis(),
        "started_at": time(stored.started_at),
        "finished_at": time(stored.finished_at),
    })
}

fn names(wish: &BackfillWish) -> Vec<&str> {
    wish.endpoints.iter().map(|name| &**name).collect()
}
