//! `GET /api/v1/source`, `/findings` and `POST /api/v1/try`: the database behind the events.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::admin_caller::AdminCaller;
use crate::api::answers::endpoint_answers::EventTypeList;
use crate::api::answers::endpoint_answers::FindingList;
use crate::api::answers::endpoint_answers::TrialReport;
use crate::api::answers::problem::ProblemResponse;
use crate::api::answers::source_status::SourceStatus;
use crate::api::openapi::request_shape::BodyFields;
use crate::api::requests::endpoint_calls::AdminCall;
use crate::api::requests::endpoint_calls::AdminRefusal;
use crate::api::requests::endpoint_calls::RowTrial;
use crate::api::requests::field_kinds::IsoTime;
use crate::api::requests::fields::bad;
use crate::api::surface::HttpSurface;
use crate::store::gaps;
use crate::store::gaps::SkippedTransaction;

/// The database behind the events.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SourceOverview {
    source: SourceStatus,
    lag_seconds: f64,
    last_commit_at: Option<IsoTime>,
    tables: Vec<CapturedTable>,
    skipped: Vec<LeftOut>,
}

/// A table that events are of, by event type.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CapturedTable {
    table: String,
    /// The table as a backfill takes it, whatever its name has
    quoted: String,
    event_type: String,
    on: Vec<&'static str>,
    captured: u64,
}

/// A transaction that was left out.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LeftOut {
    commit_lsn: String,
    sent: i64,
    reason: String,
    skipped_at: Option<IsoTime>,
}

/// The slot, who holds it, the tables that events are of, and what was left out.
pub(crate) async fn source(
    State(surface): State<HttpSurface>,
) -> Result<Json<SourceOverview>, ProblemResponse> {
    (surface.refresh)();
    let mut session = surface.queries.session().await?;
    let skipped = gaps::load(session.client(), surface.queries.slot()).await?;
    let settings = surface.current.borrow().clone();
    let mut tables = Vec::new();
    for rule in &settings.events {
        tables.push(CapturedTable {
            table: rule.table.to_string(),
            quoted: rule.table.quoted(),
            event_type: rule.event_type.to_string(),
            on: rule.on.names(),
            captured: surface.metrics.table(&rule.table).captured.get(),
        });
    }
    Ok(Json(SourceOverview {
        source: surface.source.view().into(),
        lag_seconds: surface.stats.lag(surface.clock.now()).as_secs_f64(),
        last_commit_at: surface.stats.last_commit().map(IsoTime),
        tables,
        skipped: skipped.into_iter().map(LeftOut::of).collect(),
    }))
}

impl LeftOut {
    fn of(skipped: SkippedTransaction) -> Self {
        Self {
            commit_lsn: skipped.commit.to_string(),
            sent: skipped.sent,
            reason: skipped.reason,
            skipped_at: skipped.skipped_at.map(IsoTime),
        }
    }
}

/// Each event type with the JSON Schema of its bodies.
pub(crate) async fn event_types(caller: AdminCaller) -> Result<Json<EventTypeList>, AdminRefusal> {
    caller.ask(AdminCall::EventTypes).await.map(Json)
}

/// What `walhook check` finds.
pub(crate) async fn findings(caller: AdminCaller) -> Result<Json<FindingList>, AdminRefusal> {
    caller.ask(AdminCall::Check).await.map(Json)
}

/// What events a row would raise, and what each endpoint would get.
pub(crate) async fn try_row(
    caller: AdminCaller,
    BodyFields(trial): BodyFields<RowTrial>,
) -> Result<Result<Json<TrialReport>, AdminRefusal>, ProblemResponse> {
    if trial.old.is_some() && trial.row.is_none() {
        return Err(bad("old is what a row was before: give row as well"));
    }
    Ok(caller.ask(AdminCall::Try { trial }).await.map(Json))
}
