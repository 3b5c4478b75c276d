//! `/api/v1/dead-letters/groups` and `/cancel`: dead letters by the filter rather than by the page.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::answers::problem::ProblemResponse;
use crate::api::openapi::request_shape::BodyFields;
use crate::api::openapi::request_shape::BothShapes;
use crate::api::openapi::request_shape::QueryFields;
use crate::api::requests::field_kinds::IsoTime;
use crate::api::requests::letter_fields;
use crate::api::requests::letter_fields::LetterChoice;
use crate::api::requests::letter_fields::LetterNumbers;
use crate::api::requests::letter_fields::StateChoice;
use crate::api::surface::HttpSurface;
use crate::store::dead_letters;
use crate::store::dead_letters::selection::LetterFilter;
use crate::store::dead_letters::selection::LetterState;
use crate::store::letter_groups;
use crate::store::letter_groups::LetterGroup;

/// Groups that are shown, the largest; the sums are of all.
const GROUPS_MAX: usize = 10_000;

/// What there is of what a filter means.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LetterGroups {
    letters: u64,
    without_body: u64,
    /// Of endpoints that are not configured
    not_configured: u64,
    groups: Vec<ShownGroup>,
    /// How many of the smallest groups are not listed; the sums count them
    groups_left_out: usize,
}

/// Letters of one endpoint, class and state.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ShownGroup {
    endpoint: String,
    class: String,
    state: String,
    letters: u64,
    without_body: u64,
    first_died_at: Option<IsoTime>,
    last_died_at: Option<IsoTime>,
}

/// How many were taken back, or would be.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum CancelOutcome {
    Cancelled { cancelled: u64 },
    DryRun { dry_run: bool, letters: u64 },
}

/// How many there are of what the filter means, by endpoint, class and state: what a bulk action would
/// touch, and how far one has come.
pub(crate) async fn groups(
    State(surface): State<HttpSurface>,
    QueryFields(BothShapes(choice, state)): QueryFields<BothShapes<LetterChoice, StateChoice>>,
) -> Result<Json<LetterGroups>, ProblemResponse> {
    let filter = LetterFilter { states: state.state.map(|states| states.0), ..choice.filter()? };
    let mut session = surface.queries.session().await?;
    let groups = letter_groups::groups(session.client(), surface.queries.slot(), &filter).await?;
    let sum = |of: &dyn Fn(&LetterGroup) -> u64| groups.iter().map(of).sum::<u64>();
    let unknown = |group: &LetterGroup| match surface.knows(&group.endpoint) {
        true => 0,
        false => group.letters,
    };
    Ok(Json(LetterGroups {
        letters: sum(&|group| group.letters),
        without_body: sum(&|group| group.without_body),
        not_configured: sum(&unknown),
        groups_left_out: groups.len().saturating_sub(GROUPS_MAX),
        groups: groups.into_iter().take(GROUPS_MAX).map(ShownGroup::of).collect(),
    }))
}

/// Takes back what was asked for and is not on its way yet.
pub(crate) async fn cancel(
    State(surface): State<HttpSurface>,
    BodyFields(BothShapes(choice, numbers)): BodyFields<BothShapes<LetterChoice, LetterNumbers>>,
) -> Result<Json<CancelOutcome>, ProblemResponse> {
    let filter = letter_fields::meant(choice, &numbers, "take back")?;
    let mut session = surface.queries.session().await?;
    let slot = surface.queries.slot();
    if numbers.dry_run {
        let filter = LetterFilter { states: Some(vec![LetterState::Requested]), ..filter };
        let letters = dead_letters::count(session.client(), slot, &filter).await?;
        return Ok(Json(CancelOutcome::DryRun { dry_run: true, letters }));
    }
    let cancelled = letter_groups::cancel(session.client(), slot, &filter).await?;
    tracing::info!(letters = cancelled, "dead letters are not to be sent again after all");
    Ok(Json(CancelOutcome::Cancelled { cancelled }))
}

impl ShownGroup {
    fn of(group: LetterGroup) -> Self {
        Self {
            endpoint: group.endpoint.to_string(),
            class: group.class,
            state: group.state,
            letters: group.letters,
            without_body: group.without_body,
            first_died_at: group.first.map(IsoTime),
            last_died_at: group.last.map(IsoTime),
        }
    }
}
