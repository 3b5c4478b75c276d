//! `/api/v1/backfills`: rows that were there before, sent as events between the changes.
//!
//! ```text
//! request ─▶ [backfills] ─ BackfillRequest ─▶ the service: looks at the table ─▶ walhook.backfills
//! ```
//!
//! An order is looked at by the service that reads the rows; all else is a row of the state, which it looks
//! at before each chunk.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde::Serialize;
use tokio::sync::oneshot;
use utoipa::ToSchema;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;

use crate::api::answers::handler_answers::TriedOrAccepted;
use crate::api::answers::problem::ProblemResponse;
use crate::api::openapi::request_shape::BodyFields;
use crate::api::requests::backfill_calls::BackfillOffer;
use crate::api::requests::backfill_calls::BackfillRequest;
use crate::api::requests::backfill_calls::TableWish;
use crate::api::requests::field_kinds::BoundedNumber;
use crate::api::requests::field_kinds::FieldWords;
use crate::api::requests::field_kinds::IsoTime;
use crate::api::requests::field_kinds::OneWord;
use crate::api::requests::field_kinds::TextList;
use crate::api::requests::field_kinds::words_schema;
use crate::api::requests::fields::bad;
use crate::api::requests::operator_orders;
use crate::api::requests::path_parts::BackfillPart;
use crate::api::requests::request::NamedParts;
use crate::api::surface::HttpSurface;
use crate::config::identifiers::table_name;
use crate::flow::relation::TableName;
use crate::store::backfills;
use crate::store::backfills::BackfillState;
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

/// How the rows of a table are read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadWords;

impl FieldWords for ReadWords {
    type Meaning = ReadOrder;

    fn words() -> Vec<(&'static str, ReadOrder)> {
        [ReadOrder::Key, ReadOrder::Ctid].map(|order| (order.as_str(), order)).to_vec()
    }
}

type ReadWord = OneWord<ReadWords>;

type RowRate = BoundedNumber<1, RATE_MAX>;

fn read_orders() -> RefOr<Schema> {
    words_schema(ReadWords::words().into_iter().map(|(word, _)| word))
}

fn backfill_states() -> RefOr<Schema> {
    words_schema(BackfillState::ALL.map(BackfillState::as_str))
}

/// Which rows are to be sent, and how.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct BackfillFields {
    /// Tables with their schemas, such as public.orders; one backfill for each
    #[serde(default)]
    #[schema(value_type = Vec<String>, required, min_items = 1, max_items = 100)]
    tables: TextList,
    /// Condition in SQL that rows have to meet
    #[serde(rename = "where")]
    condition: Option<String>,
    /// Names of endpoints; without, all that take the events
    #[serde(default)]
    endpoints: TextList,
    /// Rows a second; without, as fast as they are taken
    rate: Option<RowRate>,
    /// Along the key, or as the rows lie in the file
    by: Option<ReadWord>,
    /// Event type whose rule takes the rows; without, all that have read among their operations
    #[serde(rename = "as")]
    event_type: Option<String>,
    /// Only looks at it
    #[serde(default)]
    dry_run: bool,
    /// Counts the rows
    #[serde(default)]
    count: bool,
}

/// What backfills would come to.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BackfillTrial {
    dry_run: bool,
    backfills: Vec<OfferedBackfill>,
}

/// Backfills, the newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BackfillList {
    backfills: Vec<ShownBackfill>,
}

/// What the backfill of a table would come to.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BackfillOffer)]
pub(crate) struct OfferedBackfill {
    table: String,
    #[serde(rename = "where")]
    condition: Option<String>,
    endpoints: Vec<String>,
    #[serde(rename = "as")]
    event_type: Option<String>,
    rate: Option<u32>,
    #[schema(schema_with = read_orders)]
    by: &'static str,
    event_types: Vec<String>,
    /// The planner's guess
    estimated_rows: Option<u64>,
    counted_rows: Option<u64>,
}

/// The backfill of a table.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Backfill)]
pub(crate) struct ShownBackfill {
    id: i64,
    #[schema(schema_with = backfill_states)]
    state: &'static str,
    /// What it waits for, or why it does not go on
    reason: Option<String>,
    table: String,
    #[serde(rename = "where")]
    condition: Option<String>,
    endpoints: Vec<String>,
    #[serde(rename = "as")]
    event_type: Option<String>,
    rate: Option<u32>,
    #[schema(schema_with = read_orders)]
    by: &'static str,
    estimated_rows: Option<u64>,
    rows_read: u64,
    /// Without those that changes have removed meanwhile
    rows_sent: u64,
    /// From 0 to 1, as far as the estimate is right
    progress: f64,
    created_at: IsoTime,
    started_at: Option<IsoTime>,
    finished_at: Option<IsoTime>,
}

type BackfillResult = Result<Json<ShownBackfill>, ProblemResponse>;

pub(crate) async fn order(
    State(surface): State<HttpSurface>,
    BodyFields(fields): BodyFields<BackfillFields>,
) -> Result<TriedOrAccepted<BackfillTrial, BackfillList>, ProblemResponse> {
    let (dry_run, count) = (fields.dry_run, fields.count);
    let wishes = wishes(fields)?;
    for endpoint in wishes.iter().flat_map(|wish| &wish.endpoints) {
        surface.require_endpoint(endpoint)?;
    }
    let (outcome_in, outcome) = oneshot::channel();
    let request = BackfillRequest::Order { wishes, dry_run, count, outcome: outcome_in };
    let away = |why: &str| ProblemResponse::new(StatusCode::SERVICE_UNAVAILABLE, why);
    let service = surface.backfills.get();
    let service = service.ok_or_else(|| {
        away(
            "walhook waits for its slot, or has just begun: ask the one that holds the slot, \
                 or, where several share a source (run --role), one that delivers",
        )
    })?;
    let stopping = || away("walhook is shutting down: ask again when it runs");
    service.send(request).await.map_err(|_ended| stopping())?;
    let answered = tokio::time::timeout(PATIENCE, outcome).await;
    let answered =
        answered.map_err(|_late| away("this takes long: look at the list in a moment"))?;
    let offers = answered.map_err(|_ended| stopping())??;
    if dry_run {
        let backfills = offers.into_iter().map(OfferedBackfill::of).collect();
        return Ok(TriedOrAccepted::DryRun(BackfillTrial { dry_run: true, backfills }));
    }
    let stored = offers.into_iter().filter_map(|offer| offer.stored);
    let backfills = stored.map(ShownBackfill::of).collect();
    Ok(TriedOrAccepted::Accepted(BackfillList { backfills }))
}

pub(crate) async fn list(
    State(surface): State<HttpSurface>,
) -> Result<Json<BackfillList>, ProblemResponse> {
    let mut session = surface.queries.session().await?;
    let found = backfills::list(session.client(), surface.queries.slot(), None, LISTED).await?;
    Ok(Json(BackfillList { backfills: found.into_iter().map(ShownBackfill::of).collect() }))
}

pub(crate) async fn show(
    State(surface): State<HttpSurface>,
    NamedParts(id, ..): NamedParts<BackfillPart>,
) -> BackfillResult {
    Ok(Json(ShownBackfill::of(find(&surface, &id).await?)))
}

/// Reads nothing more until it is resumed. What was read is still sent.
pub(crate) async fn pause(
    state: State<HttpSurface>,
    id: NamedParts<BackfillPart>,
) -> BackfillResult {
    switch(state, id, (&[BackfillState::Running], BackfillState::Paused)).await
}

pub(crate) async fn resume(
    state: State<HttpSurface>,
    id: NamedParts<BackfillPart>,
) -> BackfillResult {
    let from = [BackfillState::Paused, BackfillState::Failed];
    switch(state, id, (&from, BackfillState::Running)).await
}

/// Ends it where it is. What was read is still sent.
pub(crate) async fn cancel(
    state: State<HttpSurface>,
    id: NamedParts<BackfillPart>,
) -> BackfillResult {
    let from = [BackfillState::Running, BackfillState::Paused, BackfillState::Failed];
    switch(state, id, (&from, BackfillState::Cancelled)).await
}

async fn switch(
    State(surface): State<HttpSurface>,
    NamedParts(id, ..): NamedParts<BackfillPart>,
    (from, to): (&[BackfillState], BackfillState),
) -> BackfillResult {
    let found = find(&surface, &id).await?;
    let mut session = surface.queries.session().await?;
    let (slot, now) = (surface.queries.slot(), surface.clock.now());
    let is_switched =
        backfills::switch(session.client(), slot, found.id, (from, to), None, now).await?;
    drop(session);
    if !is_switched && found.state != to {
        let detail = format!("backfill {id} is {} already", found.state.as_str());
        return Err(operator_orders::conflict(detail));
    }
    if let Some(service) = surface.backfills.get() {
        service.try_send(BackfillRequest::Look).ok(); // else it is seen a moment later
    }
    Ok(Json(ShownBackfill::of(find(&surface, &id).await?)))
}

async fn find(surface: &HttpSurface, id: &str) -> Result<StoredBackfill, ProblemResponse> {
    let number = operator_orders::number("backfill", id)?;
    let mut session = surface.queries.session().await?;
    let slot = surface.queries.slot();
    let found = backfills::list(session.client(), slot, Some(number), 1).await?;
    operator_orders::found("backfill", id, found)
}

fn wishes(fields: BackfillFields) -> Result<Vec<TableWish>, ProblemResponse> {
    let TextList(tables) = fields.tables;
    if tables.is_empty() || tables.len() > TABLES_MAX {
        return Err(bad(format!(
            "tables must name 1 to {TABLES_MAX} tables, such as [\"public.orders\"]"
        )));
    }
    let filter = fields.condition.filter(|filter| !filter.trim().is_empty());
    if filter.as_ref().is_some_and(|text| text.len() > FILTER_CHARS_MAX || text.contains('\0')) {
        return Err(bad(format!(
            "where must be a condition in SQL of up to {FILTER_CHARS_MAX} bytes"
        )));
    }
    let wish = TableWish {
        table: TableName::new("", ""),
        filter,
        endpoints: fields.endpoints.0.into_iter().map(Arc::from).collect(),
        event_type: fields.event_type.map(Arc::from),
        per_second: fields.rate.map(|rate| rate.0),
        read_by: fields.by.map(|by| by.0),
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

fn texts(names: &[Arc<str>]) -> Vec<String> {
    names.iter().map(|name| name.to_string()).collect()
}

impl OfferedBackfill {
    fn of(BackfillOffer { wish, event_types, estimate, counted, .. }: BackfillOffer) -> Self {
        Self {
            table: wish.table.to_string(),
            condition: wish.filter,
            endpoints: texts(&wish.endpoints),
            event_type: wish.event_type.as_deref().map(str::to_owned),
            rate: wish.per_second,
            by: wish.read_by.as_str(),
            event_types: texts(&event_types),
            estimated_rows: estimate,
            counted_rows: counted,
        }
    }
}

impl ShownBackfill {
    fn of(stored: StoredBackfill) -> Self {
        let progress = stored.progress();
        let wish = stored.wish;
        Self {
            id: stored.id.0,
            state: stored.state.as_str(),
            reason: stored.reason,
            table: wish.table.to_string(),
            condition: wish.filter,
            endpoints: texts(&wish.endpoints),
            event_type: wish.event_type.as_deref().map(str::to_owned),
            rate: wish.per_second,
            by: wish.read_by.as_str(),
            estimated_rows: wish.estimate,
            rows_read: stored.rows_read,
            rows_sent: stored.rows_sent,
            progress,
            created_at: IsoTime(stored.created_at),
            started_at: stored.started_at.map(IsoTime),
            finished_at: stored.finished_at.map(IsoTime),
        }
    }
}
