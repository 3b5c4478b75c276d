//! Parameters of a request, from its query or its JSON body, by name: unknown names and those that come twice
//! are refused in words.

use axum::http::StatusCode;
use chrono::DateTime;
use chrono::NaiveDate;
use serde_json::Map;
use serde_json::Value;

use crate::api::answers::problem::ProblemResponse;
use crate::flow::nearest_name;
use crate::flow::time::Timestamp;
use crate::flow::unique_json;

/// Names that a refusal lists.
const SHOWN_MAX: usize = 20;

/// Names at least this much alike are offered for a misspelt one.
const ALIKE: f64 = 0.7;

/// Parameters whose names are known.
#[derive(Debug)]
pub(crate) struct RequestFields {
    fields: Map<String, Value>,
    /// Of a body, which has types; a query has texts only.
    is_body: bool,
}

impl RequestFields {
    /// Of a query string.
    ///
    /// # Errors
    /// A parameter that is not known, or is there twice.
    pub(crate) fn of_query(query: Option<&str>, known: &[&str]) -> Result<Self, ProblemResponse> {
        let mut fields = Map::new();
        for (name, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            if fields.insert(name.to_string(), Value::String(value.into_owned())).is_some() {
                return Err(bad(format!("parameter {name} is there twice: give it once")));
            }
        }
        Self { fields, is_body: false }.knowing(known, "parameter")
    }

    /// Of a body, which may be empty.
    ///
    /// # Errors
    /// The body is not a JSON object, or a field is not known.
    pub(crate) fn of_body(body: &[u8], known: &[&str]) -> Result<Self, ProblemResponse> {
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self { fields: Map::new(), is_body: true });
        }
        match unique_json::parse(body) {
            Ok(Value::Object(fields)) => Self { fields, is_body: true }.knowing(known, "field"),
            Ok(_) => Err(bad("the body must be a JSON object, such as {\"dry_run\": true}")),
            Err(error) => Err(bad(format!("the body {error}"))),
        }
    }

    /// Whether its values have types; a query's are texts.
    pub(crate) fn is_body(&self) -> bool {
        self.is_body
    }

    /// A value that is there, and not null.
    pub(crate) fn value(&self, name: &str) -> Option<&Value> {
        self.fields.get(name).filter(|value| !value.is_null())
    }

    fn knowing(self, known: &[&str], what: &str) -> Result<Self, ProblemResponse> {
        let Some(stranger) = self.fields.keys().find(|name| !known.contains(&name.as_str())) else {
            return Ok(self);
        };
        Err(bad(match nearest(stranger, known) {
            Some(name) => format!("unknown {what} {stranger:?}: did you mean {name}?"),
            None => format!("unknown {what} {stranger:?}: known here are {}", known.join(", ")),
        }))
    }
}

/// A parameter that has two names.
///
/// # Errors
/// They say two things.
pub(crate) fn either(
    (name, one): (&str, Option<String>),
    (alias, other): (&str, Option<String>),
) -> Result<Option<String>, ProblemResponse> {
    match (one, other) {
        (Some(one), Some(other)) if one != other => {
            Err(bad(format!("{name} and {alias} are one parameter: give one of them")))
        }
        (one, other) => Ok(one.or(other)),
    }
}

/// The known word that a stranger is most like, if it is much like one.
pub(crate) fn nearest<'w>(stranger: &str, known: &[&'w str]) -> Option<&'w str> {
    nearest_name::nearest(stranger, known.iter().copied(), ALIKE)
}

/// A refusal of a word that is none of those that there are.
pub(crate) fn unknown(name: &str, text: &str, words: &[&str]) -> ProblemResponse {
    bad(format!("{name} {}", unknown_word(text, words)))
}

/// That a word is none of these, with the nearest of them.
pub(crate) fn unknown_word(text: &str, words: &[&str]) -> String {
    let shown = words.get(..words.len().min(SHOWN_MAX)).unwrap_or_default().join(", ");
    let more = words.len().saturating_sub(SHOWN_MAX);
    match nearest(text, words) {
        Some(near) => format!("{text:?} is unknown: did you mean {near}?"),
        None if words.is_empty() => format!("{text:?} is unknown: there is none"),
        None if more > 0 => format!("{text:?} is unknown: known are {shown} and {more} more"),
        None => format!("{text:?} is unknown: known are {shown}"),
    }
}

/// A refusal of what was asked.
pub(crate) fn bad(detail: impl Into<String>) -> ProblemResponse {
    ProblemResponse::new(StatusCode::BAD_REQUEST, detail)
}

/// A time in ISO 8601 with an offset, or a day.
pub(crate) fn parse_time(text: &str) -> Option<Timestamp> {
    let micros = match text.parse::<NaiveDate>() {
        Ok(day) => day.and_hms_opt(0, 0, 0)?.and_utc().timestamp_micros(),
        // A `+` that was not escaped in a query has become a blank.
        Err(_) => DateTime::parse_from_rfc3339(&text.replace(' ', "+")).ok()?.timestamp_micros(),
    };
    Some(Timestamp::from_micros(micros))
}

#[cfg(test)]
mod tests;
