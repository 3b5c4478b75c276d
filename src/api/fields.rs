//! Parameters of a request, from its query or its JSON body: named, checked, refused in words.

use std::ops::RangeInclusive;

use axum::http::StatusCode;
use chrono::DateTime;
use chrono::NaiveDate;
use serde_json::Map;
use serde_json::Value;

use crate::api::problem::ProblemResponse;
use crate::flow::event::EventId;
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

    fn knowing(self, known: &[&str], what: &str) -> Result<Self, ProblemResponse> {
        let Some(stranger) = self.fields.keys().find(|name| !known.contains(&name.as_str())) else {
            return Ok(self);
        };
        Err(bad(match nearest(stranger, known) {
            Some(name) => format!("unknown {what} {stranger:?}: did you mean {name}?"),
            None => format!("unknown {what} {stranger:?}: known here are {}", known.join(", ")),
        }))
    }

    pub(crate) fn text(&self, name: &str) -> Result<Option<String>, ProblemResponse> {
        match self.fields.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(other) => Err(bad(format!("{name} must be a text in quotes, not {other}"))),
        }
    }

    /// An object, of a body.
    pub(crate) fn object(&self, name: &str) -> Result<Option<Value>, ProblemResponse> {
        match self.fields.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Object(members)) => Ok(Some(Value::Object(members.clone()))),
            Some(other) => Err(bad(format!("{name} must be an object, not {other}"))),
        }
    }

    /// A parameter that has two names.
    pub(crate) fn either(
        &self,
        name: &str,
        alias: &str,
    ) -> Result<Option<String>, ProblemResponse> {
        match (self.text(name)?, self.text(alias)?) {
            (Some(one), Some(other)) if one != other => {
                Err(bad(format!("{name} and {alias} are one parameter: give one of them")))
            }
            (one, other) => Ok(one.or(other)),
        }
    }

    pub(crate) fn number(
        &self,
        name: &str,
        range: &RangeInclusive<u32>,
    ) -> Result<Option<u32>, ProblemResponse> {
        let text = match (self.fields.get(name), self.is_body) {
            (None | Some(Value::Null), _) => return Ok(None),
            (Some(Value::String(text)), false) => text.clone(),
            // What is no number is not read as one: with its quotes a text is none.
            (Some(other), _) => other.to_string(),
        };
        match text.parse().ok().filter(|number| range.contains(number)) {
            Some(number) => Ok(Some(number)),
            None => Err(bad(format!(
                "{name} must be a number from {} to {}, not {text:?}",
                range.start(),
                range.end()
            ))),
        }
    }

    pub(crate) fn flag(&self, name: &str) -> Result<bool, ProblemResponse> {
        match self.fields.get(name) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(Value::String(text)) if text == "true" && !self.is_body => Ok(true),
            Some(Value::String(text)) if text == "false" && !self.is_body => Ok(false),
            Some(_) => Err(bad(format!("{name} must be true or false"))),
        }
    }

    pub(crate) fn time(&self, name: &str) -> Result<Option<Timestamp>, ProblemResponse> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        parse_time(&text).map(Some).ok_or_else(|| {
            bad(format!(
                "{name} must be a time in ISO 8601 with an offset, such as 2026-11-22T03:00:00Z, \
                 or a day, not {text:?}"
            ))
        })
    }

    pub(crate) fn event(&self, name: &str) -> Result<Option<EventId>, ProblemResponse> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        text.parse().map(Some).map_err(|error| bad(format!("{name}: {error}")))
    }

    /// One of a few words.
    pub(crate) fn one_of<T: Clone>(
        &self,
        name: &str,
        words: &[(&str, T)],
    ) -> Result<Option<T>, ProblemResponse> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        match words.iter().find(|(word, _)| *word == text) {
            Some((_, value)) => Ok(Some(value.clone())),
            None => {
                let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
                let hint = nearest(&text, &words).map(|near| format!(": did you mean {near}?"));
                let (words, hint) = (words.join(", "), hint.unwrap_or_default());
                Err(bad(format!("{name} must be one of {words}, not {text:?}{hint}")))
            }
        }
    }

    /// One of these words, as it is.
    pub(crate) fn known(
        &self,
        name: &str,
        words: &[&str],
    ) -> Result<Option<String>, ProblemResponse> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        if words.contains(&text.as_str()) {
            return Ok(Some(text));
        }
        Err(unknown(name, &text, words))
    }

    /// A list of texts; empty where there is none.
    ///
    /// # Errors
    /// It is something else.
    pub(crate) fn texts(&self, name: &str) -> Result<Vec<String>, ProblemResponse> {
        let wrong = || bad(format!("{name} must be a list of texts, such as [\"a\", \"b\"]"));
        match self.fields.get(name) {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::Array(items)) => {
                let text = |item: &Value| item.as_str().map(ToOwned::to_owned);
                items.iter().map(text).collect::<Option<_>>().ok_or_else(wrong)
            }
            Some(_) => Err(wrong()),
        }
    }

    /// A list of numbers: an array, or in a query separated by commas.
    pub(crate) fn ids(&self, name: &str) -> Result<Option<Vec<i64>>, ProblemResponse> {
        let wrong = || bad(format!("{name} must be a list of numbers, such as [17, 18]"));
        let ids: Option<Vec<i64>> = match self.fields.get(name) {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::Array(items)) => items.iter().map(Value::as_i64).collect(),
            Some(Value::String(text)) if !self.is_body => {
                text.split(',').map(|id| id.trim().parse().ok()).collect()
            }
            Some(_) => None,
        };
        ids.filter(|ids| !ids.is_empty()).map(Some).ok_or_else(wrong)
    }
}

/// The known word that a stranger is most like, if it is much like one.
fn nearest<'w>(stranger: &str, known: &[&'w str]) -> Option<&'w str> {
    let alike = |name: &&str| strsim::jaro_winkler(stranger, name);
    let nearest = known.iter().copied().max_by(|a, b| alike(a).total_cmp(&alike(b)));
    nearest.filter(|name| alike(name) >= ALIKE)
}

/// A refusal of a word that is none of those that there are.
pub(crate) fn unknown(name: &str, text: &str, words: &[&str]) -> ProblemResponse {
    let shown = words.get(..words.len().min(SHOWN_MAX)).unwrap_or_default().join(", ");
    let more = words.len().saturating_sub(SHOWN_MAX);
    bad(match nearest(text, words) {
        Some(near) => format!("{name} {text:?} is unknown: did you mean {near}?"),
        None if words.is_empty() => format!("{name} {text:?} is unknown: there is none"),
        None if more > 0 => {
            format!("{name} {text:?} is unknown: known are {shown} and {more} more")
        }
        None => format!("{name} {text:?} is unknown: known are {shown}"),
    })
}

/// A refusal of what was asked.
pub(crate) fn bad(detail: impl Into<String>) -> ProblemResponse {
    ProblemResponse::new(StatusCode::BAD_REQUEST, detail)
}

fn parse_time(text: &str) -> Option<Timestamp> {
    let micros = match text.parse::<NaiveDate>() {
        Ok(day) => day.and_hms_opt(0, 0, 0)?.and_utc().timestamp_micros(),
        // A `+` that was not escaped in a query has become a blank.
        Err(_) => DateTime::parse_from_rfc3339(&text.replace(' ', "+")).ok()?.timestamp_micros(),
    };
    Some(Timestamp::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 4] = ["endpoint", "webhook_id", "from", "limit"];

    fn query(text: &str) -> Result<RequestFields, ProblemResponse> {
        RequestFields::of_query(Some(text), &KNOWN)
    }

    #[test]
    fn what_is_wrong_is_said_in_words() {
        let cases = [
            ("endpiont=crm", "unknown parameter \"endpiont\": did you mean endpoint?"),
            ("x=1", "unknown parameter \"x\": known here are endpoint, webhook_id, from, limit"),
            ("limit=1&limit=2", "parameter limit is there twice: give it once"),
        ];
        for (text, expected) in cases {
            assert_eq!(query(text).expect_err(text).detail(), expected, "case: {text}");
        }
        let limit = query("limit=0").and_then(|f| f.number("limit", &(1..=9)));
        let expected = "limit must be a number from 1 to 9, not \"0\"";
        assert_eq!(limit.expect_err("0 is not in the range").detail(), expected);
        let names =
            query("endpoint=a&webhook_id=b").and_then(|f| f.either("endpoint", "webhook_id"));
        assert!(names.is_err());
        let body = RequestFields::of_body(b"[1]", &KNOWN).expect_err("a list");
        assert!(body.detail().starts_with("the body must be a JSON object"));
    }

    #[test]
    fn a_word_that_is_not_known_is_named_with_the_nearest() {
        let words = ["timeout", "poison", "status"];
        let of = |text: &str| query(&format!("endpoint={text}"))?.known("endpoint", &words);
        assert_eq!(of("poison").expect("known"), Some(String::from("poison")));
        let told = of("poisn").expect_err("misspelt");
        assert_eq!(told.detail(), "endpoint \"poisn\" is unknown: did you mean poison?");
        let told = of("zzz").expect_err("nothing like it");
        assert!(told.detail().ends_with("known are timeout, poison, status"));
    }

    #[test]
    fn times_are_iso_8601() {
        let from = |text: &str| query(&format!("from={text}")).and_then(|f| f.time("from"));
        let second = |text: &str| from(text).ok().flatten().map(Timestamp::seconds);
        let cases = [
            ("2025-10-17T10:30:00Z", Some(1_760_697_000)),
            ("2025-10-17T10:30:00.5Z", Some(1_760_697_000)),
            ("2025-10-17T18:30:00+08:00", Some(1_760_697_000)),
            ("2025-10-17T18:30:00%2B08:00", Some(1_760_697_000)),
            ("2025-10-17", Some(1_760_659_200)),
            ("2025-10-17T10:30:00", None),
            ("yesterday", None),
        ];
        for (text, expected) in cases {
            assert_eq!(second(text), expected, "case: {text}");
        }
    }

    #[test]
    fn a_body_and_a_query_say_the_same() {
        let known = ["ids", "all"];
        let body =
            RequestFields::of_body(br#"{"ids": [1, 2], "all": true}"#, &known).expect("sound");
        let query = RequestFields::of_query(Some("ids=1,2&all=true"), &known).expect("sound");
        for fields in [body, query] {
            assert_eq!(fields.ids("ids").expect("numbers"), Some(vec![1, 2]));
            assert!(fields.flag("all").expect("a flag"));
        }
        let wrong =
            RequestFields::of_body(br#"{"ids": ["a"], "all": 1}"#, &known).expect("known names");
        assert!(wrong.ids("ids").is_err() && wrong.flag("all").is_err());
    }
}
