//! `/api/v1/dead-letters`: what was given up, looked at, sent again, discarded.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::answers::handler_answers::AcceptedJson;
use crate::api::answers::handler_answers::TriedOrAccepted;
use crate::api::answers::problem::ProblemResponse;
use crate::api::openapi::request_shape::BodyFields;
use crate::api::openapi::request_shape::BothShapes;
use crate::api::openapi::request_shape::QueryFields;
use crate::api::requests::fields::bad;
use crate::api::requests::letter_fields;
use crate::api::requests::letter_fields::LetterChoice;
use crate::api::requests::letter_fields::LetterNumbers;
use crate::api::requests::letter_fields::PageChoice;
use crate::api::requests::letter_fields::ResendFields;
use crate::api::requests::letter_fields::ShownLetter;
use crate::api::requests::letter_fields::StateChoice;
use crate::api::requests::letter_fields::WholeLetter;
use crate::api::requests::path_parts::LetterPart;
use crate::api::requests::request::NamedParts;
use crate::api::surface::HttpSurface;
use crate::flow::raw_json::raw_json;
use crate::store::dead_letters;
use crate::store::dead_letters::DeadLetterId;
use crate::store::dead_letters::LetterSummary;
use crate::store::dead_letters::Share;
use crate::store::dead_letters::selection::DISCARDABLE;
use crate::store::dead_letters::selection::LetterFilter;
use crate::store::dead_letters::selection::LetterState;
use crate::store::letter_groups;
use crate::store::letter_groups::CopiedLetters;
use crate::store::resend;

/// A larger body is not shown: an answer is made in memory.
const SHOWN_BYTES: u32 = 4 << 20;

/// Ids that a message names.
const SHOWN_IDS_MAX: usize = 10;

/// A page of letters.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LetterPage {
    dead_letters: Vec<ShownLetter>,
    next_cursor: Option<String>,
}

/// What a resend of letters would come to.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ResendTrial {
    dry_run: bool,
    letters: u64,
    without_body: u64,
    /// What is left alone because its endpoint is not configured
    not_configured: Vec<UnreachedLetters>,
}

/// What a resend of letters comes to.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ResendOutcome {
    requested: u64,
    without_body: u64,
    /// What is left alone because its endpoint is not configured
    not_configured: Vec<UnreachedLetters>,
}

/// Letters of an endpoint that is not configured.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UnreachedLetters {
    endpoint: String,
    letters: u64,
}

/// How many letters were closed, or would be.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum DiscardOutcome {
    Discarded { discarded: u64 },
    DryRun { dry_run: bool, letters: u64 },
}

/// How many letters were closed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DiscardedLetters {
    discarded: u64,
}

type ResendResult = Result<TriedOrAccepted<ResendTrial, ResendOutcome>, ProblemResponse>;

type ListQuery = BothShapes<LetterChoice, BothShapes<StateChoice, PageChoice>>;

type LetterBody = BothShapes<LetterChoice, LetterNumbers>;

pub(crate) async fn list(
    State(surface): State<HttpSurface>,
    QueryFields(BothShapes(choice, BothShapes(state, page))): QueryFields<ListQuery>,
) -> Result<Json<LetterPage>, ProblemResponse> {
    let filter = LetterFilter { states: state.state.map(|states| states.0), ..choice.filter()? };
    let limit = page.limit.map_or(letter_fields::PAGE, |limit| limit.0);
    let below = match page.cursor {
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
    let shown = letters.iter().map(ShownLetter::of).collect();
    Ok(Json(LetterPage { dead_letters: shown, next_cursor: next }))
}

/// One letter with its body as it would be sent now.
pub(crate) async fn show(
    State(surface): State<HttpSurface>,
    NamedParts(id, ..): NamedParts<LetterPart>,
) -> Result<Json<WholeLetter>, ProblemResponse> {
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
    Ok(Json(WholeLetter { letter: ShownLetter::of(&letter), body }))
}

/// Asks for letters to be sent again, all of those that the body means.
pub(crate) async fn resend(
    State(surface): State<HttpSurface>,
    BodyFields(BothShapes(BothShapes(choice, numbers), how)): BodyFields<
        BothShapes<LetterBody, ResendFields>,
    >,
) -> ResendResult {
    let filter = letter_fields::meant(choice, &numbers, "send again")?;
    let rate = how.rate.map(|rate| rate.0);
    let wish = ResendRequest { filter, dry_run: numbers.dry_run, rate };
    match &how.to {
        Some(to) => copy(&surface, &wish, to).await,
        None => request(&surface, &wish).await,
    }
}

pub(crate) async fn resend_one(
    State(surface): State<HttpSurface>,
    NamedParts(id, ..): NamedParts<LetterPart>,
) -> Result<AcceptedJson<ResendOutcome>, ProblemResponse> {
    let letter = find(&surface, &id).await?;
    let refused = match letter.state {
        LetterState::Dead if letter.body_bytes == 0 => {
            "its body was too large to be kept, so it cannot be sent again"
        }
        LetterState::Dead => {
            let filter = only(letter.id);
            let wish = ResendRequest { filter, dry_run: false, rate: None };
            let shares = survey(&surface, &wish.filter).await?;
            return send_again(&surface, &wish, shares).await.map(AcceptedJson);
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
    BodyFields(BothShapes(choice, numbers)): BodyFields<LetterBody>,
) -> Result<Json<DiscardOutcome>, ProblemResponse> {
    let filter = letter_fields::meant(choice, &numbers, "discard")?;
    let mut session = surface.queries.session().await?;
    let slot = surface.queries.slot();
    let letters = dead_letters::count(session.client(), slot, &discardable(&filter)).await?;
    drop(session);
    if letters == 0 {
        refuse_strangers(&surface, &filter)?;
    }
    Ok(Json(match numbers.dry_run {
        true => DiscardOutcome::DryRun { dry_run: true, letters },
        false => DiscardOutcome::Discarded { discarded: close(&surface, &filter).await? },
    }))
}

/// Closes them; tells how many there were.
async fn close(surface: &HttpSurface, filter: &LetterFilter) -> Result<u64, ProblemResponse> {
    let mut session = surface.queries.session().await?;
    let (slot, now) = (surface.queries.slot(), surface.clock.now());
    let discarded = dead_letters::discard(session.client(), slot, filter, now).await?;
    let mut sum = 0;
    for (endpoint, letters) in discarded {
        sum += letters;
        if surface.knows(&endpoint) {
            let metrics = surface.metrics.endpoint(&endpoint);
            let gauge = &metrics.dead_letters;
            // While this process stands by, the gauge knows of none.
            let left = gauge.get().saturating_sub_unsigned(letters);
            gauge.set(left.max(0));
        }
    }
    tracing::info!(letters = sum, "discarded dead letters");
    Ok(sum)
}

pub(crate) async fn discard_one(
    State(surface): State<HttpSurface>,
    NamedParts(id, ..): NamedParts<LetterPart>,
) -> Result<Json<DiscardedLetters>, ProblemResponse> {
    let letter = find(&surface, &id).await?;
    if !DISCARDABLE.contains(&letter.state) {
        let state = letter.state.as_str();
        let detail = format!("dead letter {id} is {state}: only one that is dead can be discarded");
        return Err(ProblemResponse::new(StatusCode::CONFLICT, detail));
    }
    Ok(Json(DiscardedLetters { discarded: close(&surface, &only(letter.id)).await? }))
}

/// Which letters are to be sent again, and how.
struct ResendRequest {
    filter: LetterFilter,
    /// Whether only to count them.
    dry_run: bool,
    /// A second.
    rate: Option<u32>,
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
    ResendRequest { filter, dry_run, rate }: &ResendRequest,
    to: &str,
) -> ResendResult {
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
        return Ok(TriedOrAccepted::DryRun(ResendTrial {
            dry_run: true,
            letters,
            without_body: bare,
            not_configured: Vec::new(),
        }));
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
    Ok(TriedOrAccepted::Accepted(ResendOutcome {
        requested: sum,
        without_body: bare,
        not_configured: Vec::new(),
    }))
}

/// Letters by their endpoints: of those that are there, and of those that are not.
type LetterShares = (Vec<Share>, Vec<Share>);

/// What there is of the letters that are meant.
///
/// # Errors
/// There is none, and a name that was asked for is unknown; or only of endpoints that are not configured.
async fn survey(
    surface: &HttpSurface,
    filter: &LetterFilter,
) -> Result<LetterShares, ProblemResponse> {
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
    let (here, gone): LetterShares =
        shares.into_iter().partition(|share| surface.knows(&share.endpoint));
    if sendable(&here) == 0
        && let Some(first) = gone.first()
    {
        surface.require_endpoint(&first.endpoint)?;
    }
    Ok((here, gone))
}

fn sendable(shares: &[Share]) -> u64 {
    shares.iter().map(|share| share.letters - share.without_body).sum()
}

fn bare(shares: &[Share]) -> u64 {
    shares.iter().map(|share| share.without_body).sum()
}

fn unreached(shares: Vec<Share>) -> Vec<UnreachedLetters> {
    let of = |share: Share| UnreachedLetters {
        endpoint: share.endpoint.to_string(),
        letters: share.letters,
    };
    shares.into_iter().map(of).collect()
}

/// Marks letters to be sent again, for endpoints that are there.
async fn request(surface: &HttpSurface, wish: &ResendRequest) -> ResendResult {
    let shares = survey(surface, &wish.filter).await?;
    if wish.dry_run {
        let (here, gone) = shares;
        return Ok(TriedOrAccepted::DryRun(ResendTrial {
            dry_run: true,
            letters: sendable(&here),
            without_body: bare(&here),
            not_configured: unreached(gone),
        }));
    }
    send_again(surface, wish, shares).await.map(TriedOrAccepted::Accepted)
}

async fn send_again(
    surface: &HttpSurface,
    ResendRequest { filter, rate, .. }: &ResendRequest,
    (here, gone): LetterShares,
) -> Result<ResendOutcome, ProblemResponse> {
    let mut session = surface.queries.session().await?;
    let slot = surface.queries.slot();
    let mut requested = 0;
    for share in &here {
        let filter = LetterFilter { endpoint: Some(share.endpoint.to_string()), ..filter.clone() };
        requested += resend::request(session.client(), slot, &filter, *rate).await?;
    }
    surface.queries.asked();
    tracing::info!(letters = requested, "dead letters are to be sent again");
    Ok(ResendOutcome { requested, without_body: bare(&here), not_configured: unreached(gone) })
}
