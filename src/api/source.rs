//! `GET /api/v1/source`, `/findings` and `POST /api/v1/try`: the database behind the events.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use serde_json::Value;
use serde_json::json;

use crate::api::endpoint_calls::AdminCall;
use crate::api::endpoint_calls::RowTrial;
use crate::api::endpoints::AdminCaller;
use crate::api::fields::RequestFields;
use crate::api::fields::bad;
use crate::api::problem::ProblemResponse;
use crate::api::request::SentBody;
use crate::api::surface::HttpSurface;
use crate::flow::time::Timestamp;
use crate::store::gaps;
use crate::store::gaps::SkippedTransaction;

const KNOWN: [&str; 6] = ["table", "event_type", "key", "row", "old", "op"];

/// The slot, who holds it, the tables that events are of, and what was left out.
pub(crate) async fn source(
    State(surface): State<HttpSurface>,
) -> Result<Json<Value>, ProblemResponse> {
    (surface.refresh)();
    let mut session = surface.queries.session().await?;
    let skipped = gaps::load(session.client(), surface.queries.slot()).await?;
    let settings = surface.current.borrow().clone();
    let mut tables: Vec<Value> = Vec::new();
    for rule in &settings.events {
        let operations = [
            ("insert", rule.on.insert),
            ("update", rule.on.update),
            ("delete", rule.on.delete),
            ("truncate", rule.on.truncate),
            ("read", rule.on.read),
            ("schema", rule.on.schema),
        ];
        let on = operations.into_iter().filter(|(_, is_on)| *is_on).map(|(name, _)| name);
        tables.push(json!({
            "table": rule.table.to_string(),
            "quoted": rule.table.quoted(),
            "event_type": &*rule.event_type,
            "on": on.collect::<Vec<&str>>(),
            "captured": surface.metrics.table(&rule.table).captured.get(),
        }));
    }
    Ok(Json(json!({
        "source": surface.source.view(),
        "lag_seconds": surface.stats.lag(surface.clock.now()).as_secs_f64(),
        "last_commit_at": surface.stats.last_commit().map(Timestamp::iso_millis),
        "tables": tables,
        "skipped": skipped.iter().map(left_out).collect::<Vec<Value>>(),
    })))
}

fn left_out(skipped: &SkippedTransaction) -> Value {
    json!({
        "commit_lsn": skipped.commit.to_string(),
        "sent": skipped.sent,
        "reason": skipped.reason,
        "skipped_at": skipped.skipped_at.map(Timestamp::iso_millis),
    })
}

/// Each event type with the JSON Schema of its bodies.
pub(crate) async fn event_types(caller: AdminCaller) -> Response {
    caller.ask(AdminCall::EventTypes).await
}

/// What `walhook check` finds.
pub(crate) async fn findings(caller: AdminCaller) -> Response {
    caller.ask(AdminCall::Check).await
}

/// What events a row would raise, and what each endpoint would get.
pub(crate) async fn try_row(
    caller: AdminCaller,
    SentBody(body): SentBody,
) -> Result<Response, ProblemResponse> {
    let fields = RequestFields::of_body(&body, &KNOWN)?;
    let trial = RowTrial {
        table: fields.text("table")?,
        event_type: fields.text("event_type")?,
        key: fields.text("key")?,
        row: fields.object("row")?,
        old: fields.object("old")?,
        op: fields.text("op")?,
    };
    if trial.old.is_some() && trial.row.is_none() {
        return Err(bad("old is what a row was before: give row as well"));
    }
    Ok(caller.ask(AdminCall::Try { trial }).await)
}
