//! What operators have ordered, named by a number: replays and backfills.

use axum::http::StatusCode;

use crate::api::answers::problem::ProblemResponse;
use crate::api::requests::fields::bad;

/// The number in a path. `kind` is what it should be of.
///
/// # Errors
/// That it is none.
pub(crate) fn number(kind: &str, id: &str) -> Result<i64, ProblemResponse> {
    let wrong = |_| bad(format!("{id:?} is no {kind}: their ids are numbers, such as 3"));
    id.parse().map_err(wrong)
}

/// The one that was looked for.
///
/// # Errors
/// That there is none.
pub(crate) fn found<T>(kind: &str, id: &str, found: Vec<T>) -> Result<T, ProblemResponse> {
    let none = || ProblemResponse::new(StatusCode::NOT_FOUND, format!("there is no {kind} {id}"));
    found.into_iter().next().ok_or_else(none)
}

/// That it is not in a state in which this can be done.
pub(crate) fn conflict(detail: String) -> ProblemResponse {
    ProblemResponse::new(StatusCode::CONFLICT, detail)
}
