//! `/api/v1/dead-letters/groups` and `/cancel`: dead letters by the filter rather than by the page.

use axum::Json;
use axum::extract::RawQuery;
use axum::extract::State;
use serde_json::Value;
use serde_json::json;

use crate::api::dead_letters;
use crate::api::fields::RequestFields;
use crate::api::problem::ProblemResponse;
use crate::api::request::SentBody;
use crate::api::surface::HttpSurface;
use crate::flow::time::Timestamp;
use crate::store::dead_letters::LetterFilter;
use crate::store::letter_groups;
use crate::store::letter_groups::LetterGroup;

/// Groups that are shown, the largest; the sums are of all.
const GROUPS_MAX: usize = 10_000;

/// How many there are of what the filter means, by endpoint, class and state: what a bulk action would
/// touch, and how far one has come.
pub(crate) async fn groups(
    State(surface): State<HttpSurface>,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, ProblemResponse> {
    let known = [dead_letters::FILTER.as_slice(), &["state"]].concat();
    let fields = RequestFields::of_query(query.as_deref(), &known)?;
    let states = dead_letters::states(&fields)?;
    let filter = LetterFilter { states, ..dead_letters::filter(&fields)? };
    let mut session = surface.queries.session().await?;
    let groups = letter_groups::groups(session.client(), surface.queries.slot(), &filter).await?;
    let sum = |of: &dyn Fn(&LetterGroup) -> u64| groups.iter().map(of).sum::<u64>();
    Ok(Json(json!({
        "letters": sum(&|group| group.letters),
        "without_body": sum(&|group| group.without_body),
        "not_configured":
            sum(&|group| if surface.knows(&group.endpoint) { 0 } else { group.letters }),
        "groups": groups.iter().take(GROUPS_MAX).map(shown).collect::<Vec<Value>>(),
        "groups_left_out": groups.len().saturating_sub(GROUPS_MAX),
    })))
}

/// Takes back what was asked for and is not on its way yet.
pub(crate) async fn cancel(
    State(surface): State<HttpSurface>,
    SentBody(body): SentBody,
) -> Result<Json<Value>, ProblemResponse> {
    let request = dead_letters::wish(&body, "take back", &[])?;
    let mut session = surface.queries.session().await?;
    let slot = surface.queries.slot();
    if request.dry_run {
        let states = Some(vec![crate::store::dead_letters::LetterState::Requested]);
        let filter = LetterFilter { states, ..request.filter };
        let letters = crate::store::dead_letters::count(session.client(), slot, &filter).await?;
        return Ok(Json(json!({ "dry_run": true, "letters": letters })));
    }
    let cancelled = letter_groups::cancel(session.client(), slot, &request.filter).await?;
    tracing::info!(letters = cancelled, "dead letters are not to be sent again after all");
    Ok(Json(json!({ "cancelled": cancelled })))
}

fn shown(group: &LetterGroup) -> Value {
    json!({
        "endpoint": &*group.endpoint,
        "class": group.class,
        "state": group.state,
        "letters": group.letters,
        "without_body": group.without_body,
        "first_died_at": group.first.map(Timestamp::iso_millis),
        "last_died_at": group.last.map(Timestamp::iso_millis),
    })
}
