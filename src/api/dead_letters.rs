//! `/api/v1/dead-letters`: what was given up, looked at, sent again, discarded.

use axum::Json;
use axum::body::Bytes;
use axum::extract::RawQuery;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::response::Response;
use serde::Serialize;
use serde_json::Value;
use serde_json::json;
use serde_json::value::RawValue;

use crate::api::fields::RequestFields;
use crate::api::fields::bad;
use crate::api::problem::ProblemResponse;
use crate::api::request::NamedParts;
use crate::api::request::SentBody;
use crate::api::surface::HttpSurface;
use crate::flow::raw_json::raw_json;
use crate::flow::time::Timestamp;
use crate::store::dead_letters;
use crate::store::dead_letters::DISCARDABLE;
use crate::store::dead_letters::DeadLetterId;
use crate::store::dead_letters::DeathClass;
use crate::store::dead_letters::LetterFilter;
use crate::store::dead_letters::LetterState;
use crate::store::dead_letters::LetterSummary;
use crate::store::dead_letters::Share;
use crate::store::letter_groups;
use crate::store::letter_groups::CopiedLetters;
use crate::store::resend;

const PAGE: u32 = 100;
const PAGE_MAX: u32 = 1000;

/// Letters a second that one resend may ask for.
const RATE_MAX: u32 = 100_000;

/// A larger body is not shown: an answer is made in memory.
const SHOWN_BYTES: u32 = 4 << 20;

/// Ids that a message names.
const SHOWN_IDS_MAX: usize = 10;

/// What says which letters are meant.
pub(crate) const FILTER: [&str; 9] = [
    "endpoint",
    "webhook_id",
    "event_type",
    "class",
    "from",
    "before",
    "key",
    "task_id",
    "event_id",
];

pub(crate) async fn list(
    State(surface): State<HttpSurface>,
    RawQuery(query): RawQuery,
) -> Result<Response, ProblemResponse> {
    let known = [FILTER.as_slice(), &["state", "limit", "cursor"]].concat();
    let fields = RequestFields::of_query(query.as_deref(), &known)?;
    let filter = LetterFilter { states: states(&fields)?, ..filter(&fields)? };
    let limit = fields.number("limit", &(1..=PAGE_MAX))?.unwrap_or(PAGE);
    let below = match fields.text("cursor")? {
        Some(cursor) => Some(DeadLetterId(cursor.parse().map_err(|_| {
            bad(format!("{cursor:?} is no cursor: give next_cursor of the page before"))
        })?)),
        None => None,
    };
    let mut session = surface.queries.session().await?;
    let slot = surface.queries.slot();
    let letters = dead_letters::list(session.client(), slot, &filter, below, limit).await?;
    if letters.is_empty() {
        refuse_strangers(&surface, &filter)?;
    }
    let is_full = u32::try_from(letters.len()).is_ok_and(|len| len == limit);
    let next = letters.last().filter(|_| is_full).map(|letter| letter.id.to_string());
    let shown: Vec<Value> = letters.iter().map(shown).collect();
    Ok(Json(json!({ "dead_letters": shown, "next_cursor": next })).into_response())
}

/// One letter with its body as it would be sent now.
pub(crate) async fn show(
    State(surface): State<HttpSurface>,
    NamedParts(id): NamedParts,
) -> Result<Response, ProblemResponse> {
    let letter = find(&surface, &id).await?;
    let body = if (1..=SHOWN_BYTES).contains(&letter.body_bytes) {
        let mut session = surface.queries.session().await?;
        let slot = surface.queries.slot();
        let read = dead_letters::whole(session.client(), slot, letter.id).await?;
        let now = surface.clock.now();
        read.and_then(|letter| raw_json(&letter.event.body.complete(now)))
    } else {
        None
    };
    let whole = Whole { letter: shown(&letter), body };
    Ok(Json(whole).into_response())
}

/// Asks for letters to be sent again, all of those that the body means.
pub(crate) async fn resend(
    State(surface): State<HttpSurface>,
    SentBody(body): SentBody,
) -> Result<Response, ProblemResponse> {
    let wish = wish(&body, "send again", &["rate", "to"])?;
    match &wish.to {
        Some(to) => copy(&surface, &wish, to).await,
        None => request(&surface, &wish).await,
    }
}

pub(crate) async fn resend_one(
    State(surface): State<HttpSurface>,
    NamedParts(id): NamedParts,
) -> Result<Response, ProblemResponse> {
    let letter = find(&surface, &id).await?;
    let refused = match letter.state {
        LetterState::Dead if letter.body_bytes == 0 => {
            "its body was too large to be kept, so it cannot be sent again"
        }
        LetterState::Dead => {
            let filter = only(letter.id);
            let wish = ResendRequest { filter, dry_run: false, rate: None, to: None };
            return request(&surface, &wish).await;
        }
        LetterState::Requested | LetterState::Resending => "it is being sent again already",
        LetterState::Delivered => "it has been delivered; `walhook replay` sends such events again",
        LetterState::Expired => "it is too old to be sent",
        LetterState::Discarded => "it was discarded",
    };
    Err(ProblemResponse::new(StatusCode::CONFLICT, format!("dead letter {id}: {refused}")))
}

/// Closes letters that nobody wants to have sent.
pub(crate) async fn discard(
    State(surface): State<HttpSurface>,
    SentBody(body): SentBody,
) -> Result<Response, ProblemResponse> {
    let ResendRequest { filter, dry_run, .. } = wish(&body, "discard", &[])?;
    let mut session = surface.queries.session().await?;
    let slot = surface.queries.slot();
    if dry_run {
        let letters = dead_letters::count(session.client(), slot, &discardable(&filter)).await?;
        if letters == 0 {
            refuse_strangers(&surface, &filter)?;
        }
        return Ok(Json(json!({ "dry_run": true, "letters": letters })).into_response());
    }
    let now = surface.clock.now();
    if dead_letters::count(session.client(), slot, &discardable(&filter)).await? == 0 {
        refuse_strangers(&surface, &filter)?;
    }
    let discarded = dead_letters::discard(session.client(), slot, &filter, now).await?;
    let mut sum = 0;
    for (endpoint, letters) in discarded {
        sum += letters;
        if surface.knows(&endpoint) {
            let gauge = surface.metrics.endpoint(&endpoint).dead_letters;
            // While this process stands by, the gauge knows of none.
            let left = gauge.get().saturating_sub_unsigned(letters);
            gauge.set(left.max(0));
        }
    }
    tracing::info!(letters = sum, "discarded dead letters");
    Ok(Json(json!({ "discarded": sum })).into_response())
}

pub(crate) async fn discard_one(
    State(surface): State<HttpSurface>,
    NamedParts(id): NamedParts,
) -> Result<Response, ProblemResponse> {
    let letter = find(&surface, &id).await?;
    if !DISCARDABLE.contains(&letter.state) {
        let state = letter.state.as_str();
        let detail = format!("dead letter {id} is {state}: only one that is dead can be discarded");
        return Err(ProblemResponse::new(StatusCode::CONFLICT, detail));
    }
    let body = json!({ "ids": [letter.id.0] }).to_string();
    discard(State(surface), SentBody(Bytes::from(body))).await
}

/// Which letters a body means, whether only to count them, and how they are to be sent.
pub(crate) struct ResendRequest {
    pub(crate) filter: LetterFilter,
    pub(crate) dry_run: bool,
    /// A second.
    rate: Option<u32>,
    /// Another endpoint than their own.
    to: Option<String>,
}

/// Reads it; `what` is to be done to all letters only if the body says so. `more` are fields beside those
/// that say which letters.
pub(crate) fn wish(
    body: &[u8],
    what: &str,
    more: &[&str],
) -> Result<ResendRequest, ProblemResponse> {
    let known = [FILTER.as_slice(), &["ids", "all", "dry_run"], more].concat();
    let fields = RequestFields::of_body(body, &known)?;
    let ids = fields.ids("ids")?.map(|ids| ids.into_iter().map(DeadLetterId).collect());
    let filter = LetterFilter { ids, ..filter(&fields)? };
    if filter == LetterFilter::default() && !fields.flag("all")? {
        return Err(bad(format!(
            "say which letters to {what}, by ids, key, event_id, endpoint, event_type, class, from \
             or before; or all of them with \"all\": true"
        )));
    }
    let (rate, to) = (fields.number("rate", &(1..=RATE_MAX))?, fields.text("to")?);
    Ok(ResendRequest { filter, dry_run: fields.flag("dry_run")?, rate, to })
}

pub(crate) fn filter(fields: &RequestFields) -> Result<LetterFilter, ProblemResponse> {
    Ok(LetterFilter {
        ids: None,
        endpoint: fields.either("endpoint", "webhook_id")?,
        event_type: fields.text("event_type")?,
        class: fields.known("class", &DeathClass::NAMES)?,
        from: fields.time("from")?,
        before: fields.time("before")?,
        row_key: fields.either("key", "task_id")?,
        event: fields.event("event_id")?,
        states: None,
    })
}

pub(crate) fn states(fields: &RequestFields) -> Result<Option<Vec<LetterState>>, ProblemResponse> {
    let mut words = vec![("open", LetterState::OPEN.to_vec()), ("all", LetterState::ALL.to_vec())];
    words.extend(LetterState::ALL.iter().map(|state| (state.as_str(), vec![*state])));
    fields.one_of("state", &words)
}

fn discardable(filter: &LetterFilter) -> LetterFilter {
    LetterFilter { states: Some(DISCARDABLE.to_vec()), ..filter.clone() }
}

fn refuse_strangers(surface: &HttpSurface, filter: &LetterFilter) -> Result<(), ProblemResponse> {
    surface.refuse_strangers(filter.endpoint.as_deref(), filter.event_type.as_deref())
}

/// What is said where none of the letters with these ids is there, whatever its state.
fn no_letters(ids: &[DeadLetterId]) -> ProblemResponse {
    let named: Vec<String> = ids.iter().take(SHOWN_IDS_MAX).map(|id| id.0.to_string()).collect();
    let named = named.join(", ");
    ProblemResponse::new(
        StatusCode::CONFLICT,
        format!(
            "there is no dead letter {named}: `walhook dead-letters list --state all` shows those that \
             there are"
        ),
    )
}

fn only(id: DeadLetterId) -> LetterFilter {
    LetterFilter { ids: Some(vec![id]), ..LetterFilter::default() }
}

/// The letter with the id of a path, without its body.
async fn find(surface: &HttpSurface, id: &str) -> Result<LetterSummary, ProblemResponse> {
    let number = id
        .parse()
        .map_err(|_| bad(format!("{id:?} is no dead letter: their ids are numbers, such as 17")))?;
    let filter =
        LetterFilter { states: Some(LetterState::ALL.to_vec()), ..only(DeadLetterId(number)) };
    let mut session = surface.queries.session().await?;
    let slot = surface.queries.slot();
    let found = dead_letters::list(session.client(), slot, &filter, None, 1).await?;
    let none =
        || ProblemResponse::new(StatusCode::NOT_FOUND, format!("there is no dead letter {id}"));
    found.into_iter().next().ok_or_else(none)
}

/// Has copies of letters sent to another endpoint than their own.
async fn copy(
    surface: &HttpSurface,
    ResendRequest { filter, dry_run, rate, .. }: &ResendRequest,
    to: &str,
) -> Result<Response, ProblemResponse> {
    surface.require_endpoint(to)?;
    let mut session = surface.queries.session().await?;
    let slot = surface.queries.slot();
    let dead = [LetterState::Dead];
    let shares = dead_letters::survey(session.client(), slot, filter, &dead).await?;
    let others = shares.iter().filter(|share| &*share.endpoint != to);
    let (letters, bare) = others.fold((0, 0), |(letters, bare), share| {
        (letters + share.letters - share.without_body, bare + share.without_body)
    });
    if *dry_run {
        let answer = json!({
            "dry_run": true, "letters": letters, "without_body": bare, "not_configured": [],
        });
        return Ok(Json(answer).into_response());
    }
    let copied = letter_groups::copy_to(session.client(), slot, filter, to, *rate).await?;
    let mut sum = 0;
    for CopiedLetters { table, letters, spared } in &copied {
        sum += letters;
        let count = i64::try_from(*letters).unwrap_or(i64::MAX);
        let spared = i64::try_from(*spared).unwrap_or(i64::MAX);
        let balance = surface.metrics.balance(to, table);
        balance.filtered.sub(spared);
        balance.captured.add(count - spared);
        balance.dead.add(count);
        surface.metrics.endpoint(to).dead_letters.add(count);
    }
    surface.queries.asked();
    tracing::info!(letters = sum, to, "dead letters are to be sent to another endpoint");
    let answer = json!({ "requested": sum, "without_body": bare, "not_configured": [] });
    Ok((StatusCode::ACCEPTED, Json(answer)).into_response())
}

/// Marks letters to be sent again, for endpoints that are there.
async fn request(
    surface: &HttpSurface,
    ResendRequest { filter, dry_run, rate, .. }: &ResendRequest,
) -> Result<Response, ProblemResponse> {
    if let Some(endpoint) = &filter.endpoint {
        surface.require_endpoint(endpoint)?;
    }
    let mut session = surface.queries.session().await?;
    let slot = surface.queries.slot();
    let dead = [LetterState::Dead];
    let shares = dead_letters::survey(session.client(), slot, filter, &dead).await?;
    if shares.is_empty() {
        refuse_strangers(surface, filter)?;
        if let Some(ids) = &filter.ids {
            let states = Some(LetterState::ALL.to_vec());
            let any = LetterFilter { ids: Some(ids.clone()), states, ..LetterFilter::default() };
            if dead_letters::list(session.client(), slot, &any, None, 1).await?.is_empty() {
                return Err(no_letters(ids));
            }
        }
    }
    let (here, gone): (Vec<Share>, Vec<Share>) =
        shares.into_iter().partition(|share| surface.knows(&share.endpoint));
    let sum = |of: fn(&Share) -> u64| here.iter().map(of).sum::<u64>();
    let (sendable, bare) =
        (sum(|share| share.letters - share.without_body), sum(|s| s.without_body));
    if sendable == 0
        && let Some(first) = gone.first()
    {
        surface.require_endpoint(&first.endpoint)?;
    }
    let gone: Vec<Value> = gone
        .iter()
        .map(|share| json!({ "endpoint": &*share.endpoint, "letters": share.letters }))
        .collect();
    if *dry_run {
        let answer = json!({
            "dry_run": true,
            "letters": sendable,
            "without_body": bare,
            "not_configured": gone,
        });
        return Ok(Json(answer).into_response());
    }
    let mut requested = 0;
    for share in &here {
        let filter = LetterFilter { endpoint: Some(share.endpoint.to_string()), ..filter.clone() };
        requested += resend::request(session.client(), slot, &filter, *rate).await?;
    }
    surface.queries.asked();
    tracing::info!(letters = requested, "dead letters are to be sent again");
    let answer = json!({
        "requested": requested,
        "without_body": bare,
        "not_configured": gone,
    });
    Ok((StatusCode::ACCEPTED, Json(answer)).into_response())
}

pub(crate) fn shown(letter: &LetterSummary) -> Value {
    let time = |time: Option<Timestamp>| time.map(Timestamp::iso_millis);
    json!({
        "id": letter.id.0,
        "state": letter.state.as_str(),
        "endpoint": &*letter.endpoint,
        "webhook_id": &*letter.endpoint,
        "key": letter.row_key,
        "task_id": letter.row_key,
        "event_id": letter.event.id.to_string(),
        "event_type": &*letter.event.event_type,
        "table": letter.event.table.to_string(),
        "class": letter.class,
        "reason": letter.reason,
        "http_status": letter.status,
        "attempts": letter.attempts,
        "retry_count": letter.attempts.saturating_sub(1),
        "committed_at": letter.event.committed.iso_millis(),
        "first_attempt_at": time(letter.first_attempt),
        "last_attempt_at": time(letter.last_attempt),
        "died_at": letter.died_at.iso_millis(),
        "resends": letter.resends,
        "closed_at": time(letter.closed_at),
        "body_bytes": letter.body_bytes,
    })
}

/// A letter with its body, which is as it would be sent.
#[derive(Serialize)]
struct Whole {
    #[serde(flatten)]
    letter: Value,
    body: Option<Box<RawValue>>,
}
