//! `/api/v1/replay`: delivered events, sent again as far as the push log kept their bodies.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;

use crate::api::answers::handler_answers::TriedOrAccepted;
use crate::api::answers::problem::ProblemResponse;
use crate::api::openapi::request_shape::BodyFields;
use crate::api::requests::field_kinds::AskedEvent;
use crate::api::requests::field_kinds::AskedTime;
use crate::api::requests::field_kinds::BoundedNumber;
use crate::api::requests::field_kinds::IsoTime;
use crate::api::requests::field_kinds::words_schema;
use crate::api::requests::fields::bad;
use crate::api::requests::fields::either;
use crate::api::requests::operator_orders;
use crate::api::requests::path_parts::ReplayPart;
use crate::api::requests::request::NamedParts;
use crate::api::surface::HttpSurface;
use crate::config::settings::LoggedBodies;
use crate::flow::time::Timestamp;
use crate::store::replay_orders;
use crate::store::replay_orders::ReplayFilter;
use crate::store::replay_orders::ReplayOrder;
use crate::store::replay_orders::ReplayShare;
use crate::store::replay_orders::ReplayState;

/// Orders that a list shows.
const LISTED: u32 = 100;

/// Events a second: slow for a receiver that does not expect them, unless the order says otherwise.
const RATE: u32 = 100;
const RATE_MAX: u32 = 100_000;

const BODIES_NOTE: &str =
    "bodies of delivered events are only kept with [push_log] bodies = \"all\"";

type EventRate = BoundedNumber<1, RATE_MAX>;

/// Which delivered events are to be sent again, and how.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct ReplayFields {
    /// From this time on (ISO 8601 with an offset, or a day)
    from: Option<AskedTime>,
    /// Before this time
    before: Option<AskedTime>,
    /// Event type
    event_type: Option<String>,
    /// Value that names the row: that of the first column of its primary key
    key: Option<String>,
    /// Same as key
    task_id: Option<String>,
    /// Event id, evt_ and 40 hex digits
    event_id: Option<AskedEvent>,
    /// Name of an endpoint
    endpoint: Option<String>,
    /// Same as endpoint
    webhook_id: Option<String>,
    /// Events a second and endpoint; the endpoint's own limits hold as well
    #[schema(default = 100)]
    rate: Option<EventRate>,
    /// Needed to mean all that the push log knows
    #[serde(default)]
    all: bool,
    /// Only counts
    #[serde(default)]
    dry_run: bool,
}

/// What a replay comes to.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct ReplayAnswer {
    /// How many can be sent
    events: u64,
    without_body: u64,
    body_cut: u64,
    expired: u64,
    /// What is left alone because its endpoint is not configured
    not_configured: Vec<UnreachedEvents>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    note: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    dry_run: Option<bool>,
    /// One for each endpoint, if it is no dry run
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    replays: Option<Vec<ShownReplay>>,
}

/// Events of an endpoint that is not configured.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UnreachedEvents {
    endpoint: String,
    events: u64,
}

/// Replays, the newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ReplayList {
    replays: Vec<ShownReplay>,
}

/// A replay.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Replay)]
pub(crate) struct ShownReplay {
    id: i64,
    #[schema(schema_with = replay_states)]
    state: &'static str,
    #[schema(value_type = String)]
    endpoint: Option<String>,
    event_id: Option<String>,
    event_type: Option<String>,
    key: Option<String>,
    from: Option<IsoTime>,
    before: IsoTime,
    rate: u32,
    created_at: IsoTime,
    finished_at: Option<IsoTime>,
    done_through: Option<IsoTime>,
    delivered: u64,
    expired: u64,
    failed: u64,
    without_body: u64,
}

fn replay_states() -> RefOr<Schema> {
    words_schema(ReplayState::ALL.map(ReplayState::as_str))
}

type ReplayResult = Result<Json<ShownReplay>, ProblemResponse>;

/// Places an order for each endpoint that got some of the events.
pub(crate) async fn order(
    State(surface): State<HttpSurface>,
    BodyFields(fields): BodyFields<ReplayFields>,
) -> Result<TriedOrAccepted<ReplayAnswer, ReplayAnswer>, ProblemResponse> {
    let rate = fields.rate.map_or(RATE, |rate| rate.0);
    let is_dry_run = fields.dry_run;
    let now = surface.clock.now();
    let filter = filter(fields, now)?;
    if let Some(endpoint) = &filter.endpoint {
        surface.require_endpoint(endpoint)?;
    }
    let mut session = surface.queries.session().await?;
    let slot = surface.queries.slot();
    let shares = replay_orders::survey(session.client(), slot, &filter, now).await?;
    if shares.is_empty() {
        surface.refuse_strangers(filter.endpoint.as_deref(), filter.event_type.as_deref())?;
    }
    let (here, gone): (Vec<ReplayShare>, Vec<ReplayShare>) =
        shares.into_iter().partition(|share| surface.knows(&share.endpoint));
    let mut answer = ReplayAnswer::of(&here, gone);
    if answer.without_body > 0 && surface.queries.bodies() != LoggedBodies::All {
        answer.note = Some(BODIES_NOTE);
    }
    if is_dry_run {
        answer.dry_run = Some(true);
        return Ok(TriedOrAccepted::DryRun(answer));
    }
    if answer.events == 0 {
        return Err(operator_orders::conflict(answer.why_nothing()));
    }
    let mut placed = Vec::new();
    for share in here.iter().filter(|share| sendable(share) > 0) {
        let filter = ReplayFilter { endpoint: Some(share.endpoint.to_string()), ..filter.clone() };
        let order = replay_orders::order(session.client(), slot, &filter, rate, now).await?;
        tracing::info!(endpoint = %share.endpoint, replay = order.id, "replay is ordered");
        placed.push(ShownReplay::of(&order));
    }
    surface.queries.asked();
    answer.replays = Some(placed);
    Ok(TriedOrAccepted::Accepted(answer))
}

pub(crate) async fn list(
    State(surface): State<HttpSurface>,
) -> Result<Json<ReplayList>, ProblemResponse> {
    let mut session = surface.queries.session().await?;
    let orders =
        replay_orders::list(session.client(), surface.queries.slot(), None, LISTED).await?;
    Ok(Json(ReplayList { replays: orders.iter().map(ShownReplay::of).collect() }))
}

pub(crate) async fn show(
    State(surface): State<HttpSurface>,
    NamedParts(id, ..): NamedParts<ReplayPart>,
) -> ReplayResult {
    Ok(Json(ShownReplay::of(&find(&surface, &id).await?)))
}

/// Stops an order; what is in a lane already is still sent.
pub(crate) async fn cancel(
    State(surface): State<HttpSurface>,
    NamedParts(id, ..): NamedParts<ReplayPart>,
) -> ReplayResult {
    let order = find(&surface, &id).await?;
    let mut session = surface.queries.session().await?;
    let (slot, now) = (surface.queries.slot(), surface.clock.now());
    if !replay_orders::cancel(session.client(), slot, order.id, now).await? {
        let detail = format!("replay {id} is {} already", order.state.as_str());
        return Err(operator_orders::conflict(detail));
    }
    drop(session);
    show(State(surface), NamedParts::of(id)).await
}

/// Holds an order back; what is in a lane already is still sent.
pub(crate) async fn pause(
    State(surface): State<HttpSurface>,
    NamedParts(id, ..): NamedParts<ReplayPart>,
) -> ReplayResult {
    change_state(surface, id, ReplayState::Paused).await
}

/// Lets an order go on that was held back.
pub(crate) async fn resume(
    State(surface): State<HttpSurface>,
    NamedParts(id, ..): NamedParts<ReplayPart>,
) -> ReplayResult {
    change_state(surface, id, ReplayState::Running).await
}

async fn change_state(surface: HttpSurface, id: String, wanted: ReplayState) -> ReplayResult {
    let order = find(&surface, &id).await?;
    let (before, can) = match wanted {
        ReplayState::Paused => (ReplayState::Running, "running can be paused"),
        _ => (ReplayState::Paused, "paused can be resumed"),
    };
    let mut session = surface.queries.session().await?;
    let (client, slot) = (session.client(), surface.queries.slot());
    if !replay_orders::change_state(client, slot, order.id, (before, wanted)).await? {
        let state = order.state.as_str();
        let detail = format!("replay {id} is {state}: only one that is {can}");
        return Err(operator_orders::conflict(detail));
    }
    drop(session);
    let paused = wanted == ReplayState::Paused;
    tracing::info!(replay = order.id, paused, "replay is paused, or goes on");
    surface.queries.asked();
    show(State(surface), NamedParts::of(id)).await
}

async fn find(surface: &HttpSurface, id: &str) -> Result<ReplayOrder, ProblemResponse> {
    let number = operator_orders::number("replay", id)?;
    let mut session = surface.queries.session().await?;
    let slot = surface.queries.slot();
    let found = replay_orders::list(session.client(), slot, Some(number), 1).await?;
    operator_orders::found("replay", id, found)
}

fn filter(fields: ReplayFields, now: Timestamp) -> Result<ReplayFilter, ProblemResponse> {
    let before = fields.before.map(|before| before.0);
    let filter = ReplayFilter {
        endpoint: either(("endpoint", fields.endpoint), ("webhook_id", fields.webhook_id))?,
        event: fields.event_id.map(|event| event.0),
        event_type: fields.event_type,
        row_key: either(("key", fields.key), ("task_id", fields.task_id))?,
        from: fields.from.map(|from| from.0),
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
    if filter == everything && before.is_none() && !fields.all {
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

impl ReplayAnswer {
    fn of(here: &[ReplayShare], gone: Vec<ReplayShare>) -> Self {
        let sum = |of: fn(&ReplayShare) -> u64| here.iter().map(of).sum::<u64>();
        let unreached = |share: ReplayShare| UnreachedEvents {
            endpoint: share.endpoint.to_string(),
            events: share.events,
        };
        Self {
            events: sum(sendable),
            without_body: sum(|share| share.without_body),
            body_cut: sum(|share| share.body_cut),
            expired: sum(|share| share.expired),
            not_configured: gone.into_iter().map(unreached).collect(),
            ..Self::default()
        }
    }

    fn why_nothing(&self) -> String {
        let mut why = Vec::new();
        for (count, what) in [
            (self.without_body, "have no body in the push log"),
            (self.body_cut, "have a part of their body there ([push_log] body_limit)"),
            (self.expired, "are too old to be sent"),
        ] {
            if count > 0 {
                why.push(format!("{count} {what}"));
            }
        }
        for UnreachedEvents { endpoint, events } in &self.not_configured {
            why.push(format!("{events} are of endpoint {endpoint:?}, which is not configured"));
        }
        if why.is_empty() {
            return String::from("the push log knows no delivered event like that");
        }
        let note = self.note.map(|note| format!("; {note}")).unwrap_or_default();
        format!("none of these events can be sent again: {}{note}", why.join(", "))
    }
}

impl ShownReplay {
    fn of(order: &ReplayOrder) -> Self {
        let filter = order.filter.clone();
        Self {
            id: order.id,
            state: order.state.as_str(),
            endpoint: filter.endpoint,
            event_id: filter.event.map(|event| event.to_string()),
            event_type: filter.event_type,
            key: filter.row_key,
            from: filter.from.map(IsoTime),
            before: IsoTime(filter.before),
            rate: order.per_second,
            created_at: IsoTime(order.created_at),
            finished_at: order.finished_at.map(IsoTime),
            done_through: order.done.map(|done| IsoTime(done.created_at)),
            delivered: order.tally.delivered,
            expired: order.tally.expired,
            failed: order.tally.failed,
            without_body: order.tally.without_body,
        }
    }
}
