//! `/api/v1/replay`: delivered events, sent again as far as the push log kept their bodies.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::response::Response;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::api::fields::RequestFields;
use crate::api::fields::bad;
use crate::api::orders;
use crate::api::problem::ProblemResponse;
use crate::api::request::NamedParts;
use crate::api::request::SentBody;
use crate::api::surface::HttpSurface;
use crate::config::settings::LoggedBodies;
use crate::flow::time::Timestamp;
use crate::store::replays;
use crate::store::replays::ReplayFilter;
use crate::store::replays::ReplayOrder;
use crate::store::replays::ReplayShare;

/// Orders that a list shows.
const LISTED: u32 = 100;

/// Events a second: slow for a receiver that does not expect them, unless the order says otherwise.
const RATE: u32 = 100;
const RATE_MAX: u32 = 100_000;

const BODIES_NOTE: &str =
    "bodies of delivered events are only kept with [push_log] bodies = \"all\"";

const KNOWN: [&str; 11] = [
    "from",
    "before",
    "event_type",
    "key",
    "task_id",
    "event_id",
    "endpoint",
    "webhook_id",
    "rate",
    "all",
    "dry_run",
];

/// Places an order for each endpoint that got some of the events.
pub(crate) async fn order(
    State(surface): State<HttpSurface>,
    SentBody(body): SentBody,
) -> Result<Response, ProblemResponse> {
    let fields = RequestFields::of_body(&body, &KNOWN)?;
    let rate = fields.number("rate", &(1..=RATE_MAX))?.unwrap_or(RATE);
    let now = surface.clock.now();
    let filter = filter(&fields, now)?;
    if let Some(endpoint) = &filter.endpoint {
        surface.require_endpoint(endpoint)?;
    }
    let mut session = surface.queries.session().await?;
    let slot = surface.queries.slot();
    let shares = replays::survey(session.client(), slot, &filter, now).await?;
    if shares.is_empty() {
        surface.refuse_strangers(filter.endpoint.as_deref(), filter.event_type.as_deref())?;
    }
    let (here, gone): (Vec<ReplayShare>, Vec<ReplayShare>) =
        shares.into_iter().partition(|share| surface.knows(&share.endpoint));
    let sum = |of: fn(&ReplayShare) -> u64| here.iter().map(of).sum::<u64>();
    let sendable = sum(sendable);
    let gone = gone.iter().map(|s| json!({ "endpoint": &*s.endpoint, "events": s.events }));
    let mut answer = Map::new();
    let mut say = |name: &str, value: Value| answer.insert(name.to_owned(), value);
    say("events", sendable.into());
    say("without_body", sum(|share| share.without_body).into());
    say("body_cut", sum(|share| share.body_cut).into());
    say("expired", sum(|share| share.expired).into());
    say("not_configured", gone.collect());
    let has_bare = sum(|share| share.without_body) > 0;
    if has_bare && surface.queries.bodies() != LoggedBodies::All {
        say("note", BODIES_NOTE.into());
    }
    if fields.flag("dry_run")? {
        say("dry_run", true.into());
        return Ok(Json(answer).into_response());
    }
    if sendable == 0 {
        return Err(orders::conflict(why_nothing(&answer)));
    }
    let mut placed = Vec::new();
    for share in here.iter().filter(|share| self::sendable(share) > 0) {
        let filter = ReplayFilter { endpoint: Some(share.endpoint.to_string()), ..filter.clone() };
        let order = replays::order(session.client(), slot, &filter, rate, now).await?;
        tracing::info!(endpoint = %share.endpoint, replay = order.id, "replay is ordered");
        placed.push(shown(&order));
    }
    surface.queries.asked();
    answer.insert("replays".to_owned(), Value::Array(placed));
    Ok((StatusCode::ACCEPTED, Json(answer)).into_response())
}

pub(crate) async fn list(
    State(surface): State<HttpSurface>,
) -> Result<Json<Value>, ProblemResponse> {
    let mut session = surface.queries.session().await?;
    let orders = replays::list(session.client(), surface.queries.slot(), None, LISTED).await?;
    Ok(Json(json!({ "replays": orders.iter().map(shown).collect::<Vec<_>>() })))
}

pub(crate) async fn show(
    State(surface): State<HttpSurface>,
    NamedParts(id): NamedParts,
) -> Result<Json<Value>, ProblemResponse> {
    Ok(Json(shown(&find(&surface, &id).await?)))
}

/// Stops an order; what is in a lane already is still sent.
pub(crate) async fn cancel(
    State(surface): State<HttpSurface>,
    NamedParts(id): NamedParts,
) -> Result<Json<Value>, ProblemResponse> {
    let order = find(&surface, &id).await?;
    let mut session = surface.queries.session().await?;
    let (slot, now) = (surface.queries.slot(), surface.clock.now());
    if !replays::cancel(session.client(), slot, order.id, now).await? {
        let detail = format!("replay {id} is {} already", order.state.as_str());
        return Err(orders::conflict(detail));
    }
    drop(session);
    show(State(surface), NamedParts(id)).await
}

/// Holds an order back; what is in a lane already is still sent.
pub(crate) async fn pause(
    State(surface): State<HttpSurface>,
    NamedParts(id): NamedParts,
) -> Result<Json<Value>, ProblemResponse> {
    hold(surface, id, true).await
}

/// Lets an order go on that was held back.
pub(crate) async fn resume(
    State(surface): State<HttpSurface>,
    NamedParts(id): NamedParts,
) -> Result<Json<Value>, ProblemResponse> {
    hold(surface, id, false).await
}

async fn hold(
    surface: HttpSurface,
    id: String,
    paused: bool,
) -> Result<Json<Value>, ProblemResponse> {
    let order = find(&surface, &id).await?;
    let mut session = surface.queries.session().await?;
    if !replays::hold(session.client(), surface.queries.slot(), order.id, paused).await? {
        let state = order.state.as_str();
        let detail = match paused {
            true => format!("replay {id} is {state}: only one that is running can be paused"),
            false => format!("replay {id} is {state}: only one that is paused can be resumed"),
        };
        return Err(orders::conflict(detail));
    }
    drop(session);
    tracing::info!(replay = order.id, paused, "replay is paused, or goes on");
    surface.queries.asked();
    show(State(surface), NamedParts(id)).await
}

async fn find(surface: &HttpSurface, id: &str) -> Result<ReplayOrder, ProblemResponse> {
    let number = orders::number("replay", id)?;
    let mut session = surface.queries.session().await?;
    let slot = surface.queries.slot();
    let found = replays::list(session.client(), slot, Some(number), 1).await?;
    orders::found("replay", id, found)
}

fn filter(fields: &RequestFields, now: Timestamp) -> Result<ReplayFilter, ProblemResponse> {
    let before = fields.time("before")?;
    let filter = ReplayFilter {
        endpoint: fields.either("endpoint", "webhook_id")?,
        event: fields.event("event_id")?,
        event_type: fields.text("event_type")?,
        row_key: fields.either("key", "task_id")?,
        from: fields.time("from")?,
        // What the order itself sends is not part of it.
        before: before.unwrap_or(now).min(now),
    };
    let everything = ReplayFilter {
        endpoint: None,
        event: None,
        event_type: None,
        row_key: None,
        from: None,
        before: filter.before,
    };
    if filter == everything && before.is_none() && !fields.flag("all")? {
        return Err(bad(
            "say which events to send again, by key, event_id, event_type, endpoint, from or \
             before; or all that the push log knows with \"all\": true",
        ));
    }
    Ok(filter)
}

fn sendable(share: &ReplayShare) -> u64 {
    share.events.saturating_sub(share.without_body + share.body_cut + share.expired)
}

fn why_nothing(answer: &Map<String, Value>) -> String {
    let count = |name: &str| answer.get(name).and_then(Value::as_u64).unwrap_or_default();
    let mut why = Vec::new();
    for (name, what) in [
        ("without_body", "have no body in the push log"),
        ("body_cut", "have a part of their body there ([push_log] body_limit)"),
        ("expired", "are too old to be sent"),
    ] {
        if count(name) > 0 {
            why.push(format!("{} {what}", count(name)));
        }
    }
    for share in answer.get("not_configured").and_then(Value::as_array).into_iter().flatten() {
        let of = |name: &str| share.get(name).cloned().unwrap_or_default();
        why.push(format!(
            "{} are of endpoint {}, which is not configured",
            of("events"),
            of("endpoint")
        ));
    }
    if why.is_empty() {
        return String::from("the push log knows no delivered event like that");
    }
    let note = answer.get("note").and_then(Value::as_str);
    let note = note.map(|note| format!("; {note}")).unwrap_or_default();
    format!("none of these events can be sent again: {}{note}", why.join(", "))
}

fn shown(order: &ReplayOrder) -> Value {
    let time = |time: Option<Timestamp>| time.map(Timestamp::iso_millis);
    let ReplayFilter { endpoint, event, event_type, row_key, from, before } = &order.filter;
    json!({
        "id": order.id,
        "state": order.state.as_str(),
        "endpoint": endpoint,
        "event_id": event.map(|event| event.to_string()),
        "event_type": event_type,
        "key": row_key,
        "from": time(*from),
        "before": before.iso_millis(),
        "rate": order.per_second,
        "created_at": order.created_at.iso_millis(),
        "finished_at": time(order.finished_at),
        "done_through": time(order.done.map(|done| done.created_at)),
        "delivered": order.tally.delivered,
        "expired": order.tally.expired,
        "failed": order.tally.failed,
        "without_body": order.tally.without_body,
    })
}
