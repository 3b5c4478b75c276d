//! `success`, `retry.on` and `gone`: how the answers of an endpoint are read.

use std::ops::RangeInclusive;

use serde_json::Value as Json;

use crate::config::sections::delivery_terms::set;
use crate::config::settings::AnswerRule;
use crate::config::settings::BodyRule;
use crate::config::settings::GoneMeaning;
use crate::config::settings::RetryOn;
use crate::config::toml_file::toml_field::FieldReader;
use crate::config::toml_file::toml_reader::TomlSection;

/// Statuses that may count as delivered. A redirect is never followed, so it may.
const SUCCESS_CODES: RangeInclusive<u16> = 200..=599;

const RETRIED_CODES: RangeInclusive<u16> = 300..=599;

/// `success = [200, 202]` or `{ codes = [200], pointer = "/errcode", equals = 0 }`.
pub(crate) fn read_success(section: &mut TomlSection<'_>, answers: &mut AnswerRule) {
    let Some(field) = section.field("success") else { return };
    if !field.is_table() {
        set(&mut answers.success, codes(&field));
        return;
    }
    let Some(mut inner) = field.section() else { return };
    set(&mut answers.success, inner.read("codes", codes));
    let pointer = inner.read("pointer", pointer);
    let equals = inner.read("equals", scalar);
    match (inner.has("pointer"), inner.has("equals")) {
        (true, false) => inner.note("pointer", "has no use without `equals`: give the value"),
        (false, true) => inner.note("equals", "has no use without `pointer`: give the place"),
        _ => {}
    }
    if let Some((pointer, equals)) = pointer.zip(equals) {
        answers.body = Some(BodyRule { pointer, equals });
    }
    inner.finish();
}

/// `on = "all"` or `[429, "5xx"]`.
pub(crate) fn retry_on(field: &FieldReader<'_>) -> Option<RetryOn> {
    if field.is_string() {
        return field.one_of(&[("usual", 0), ("all", 1)]).map(|word| match word {
            0 => RetryOn::Usual,
            _ => RetryOn::Everything,
        });
    }
    let statuses = field.list()?;
    let status = |item: &FieldReader<'_>| {
        if !item.is_string() {
            return item.integer(&RETRIED_CODES).map(|code| code..=code);
        }
        item.one_of(&[("3xx", 300), ("4xx", 400), ("5xx", 500)]).map(|first| first..=first + 99)
    };
    Some(RetryOn::Statuses(statuses.iter().filter_map(status).collect()))
}

/// `gone = "disable"` or `"dead"`.
pub(crate) fn gone(field: &FieldReader<'_>) -> Option<GoneMeaning> {
    field.one_of(&[("disable", GoneMeaning::Disable), ("dead", GoneMeaning::Dead)])
}

fn codes(field: &FieldReader<'_>) -> Option<Vec<u16>> {
    let codes = field.list()?;
    if codes.is_empty() {
        return field.refuse("is empty: list status codes, or leave it out for every 2xx");
    }
    Some(codes.iter().filter_map(|code| code.integer(&SUCCESS_CODES)).collect())
}

/// RFC 6901.
fn pointer(field: &FieldReader<'_>) -> Option<String> {
    let text = field.string()?;
    if text.is_empty() || text.starts_with('/') {
        return Some(text);
    }
    field.refuse(format!("{} is no JSON pointer: write it like \"/errcode\"", field.shown()))
}

fn scalar(field: &FieldReader<'_>) -> Option<Json> {
    if field.is_string() {
        return field.string().map(Json::String);
    }
    match field.literal().map(|json| {
        json.and_then(|json| serde_json::from_str(&json).map_err(|error| error.to_string()))
    }) {
        Some(Ok(json)) => Some(json),
        Some(Err(message)) => field.refuse(message),
        None => field.refuse("must be a string, a number or a boolean"),
    }
}
