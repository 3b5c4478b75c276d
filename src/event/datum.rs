//! PostgreSQL's text of a value as JSON, by type: numbers, timestamps, bytea, arrays, ranges.
//!
//! ```text
//! Change ─ column's text ─▶ [datum] ─ JSON ─▶ payload
//! ```
//!
//! The JSON equals the server's own `to_jsonb(value)`, with these exceptions, each because text in
//! the stream says more or is easier to read back: `timestamptz` is in UTC and ends with `Z`;
//! `bytea` is base64; numbers keep exactly their digits; of `json` and `jsonb` only the white space
//! between tokens is left out, and numbers and strings are passed through byte for byte. What
//! `JSON.stringify` would write instead is `javascript`'s.
//!
//! The text is what a session with these settings gets, which the source pins: DateStyle ISO,
//! TimeZone UTC, bytea_output hex, extra_float_digits 1 or more.
//!
//! Promises: whatever the text is, also one that is not of its type or not UTF-8, what is appended
//! is one valid JSON value, and nothing panics: a value that cannot be read as its type is a JSON
//! string of its text. Scalars are written without allocating.

use crate::flow::body::escape_into;
use crate::flow::compact::compact_into;
use crate::flow::hex::hex_to_base64;
use crate::flow::relation::SqlType;
use crate::flow::time::Timestamp;

pub(crate) mod javascript;
mod nested;
mod time;

/// Appends the JSON of a value that is not null.
pub fn write_json(out: &mut Vec<u8>, sql_type: &SqlType, text: &[u8]) {
    let _fits = write_value(out, sql_type, text);
}

/// The same; false where a row type in it, at any depth, does not fit and so is a string of its text.
pub(crate) fn write_value(out: &mut Vec<u8>, sql_type: &SqlType, text: &[u8]) -> bool {
    let start = out.len();
    let nested = match sql_type {
        SqlType::Array { element, delimiter } => {
            nested::write_array(out, element, *delimiter, text)
        }
        SqlType::Composite { fields } => nested::write_composite(out, fields, text),
        other => write_scalar(out, other, text).map(|()| true),
    };
    nested.unwrap_or_else(|| {
        out.truncate(start);
        write_string(out, text);
        !sql_type.has_composite()
    })
}

fn write_scalar(out: &mut Vec<u8>, sql_type: &SqlType, text: &[u8]) -> Option<()> {
    match sql_type {
        SqlType::Bool => write_bool(out, text),
        SqlType::Integer | SqlType::Float | SqlType::Numeric => write_number(out, text),
        SqlType::Json => write_raw_json(out, text),
        SqlType::Timestamp => time::write_timestamp(out, text),
        SqlType::TimestampTz => time::write_timestamptz(out, text),
        SqlType::Bytea => write_base64(out, text),
        SqlType::Hstore => nested::write_hstore(out, text),
        SqlType::Vector { element } => nested::write_vector(out, element, text),
        SqlType::Date | SqlType::Text => {
            write_string(out, text);
            Some(())
        }
        // Made of others.
        SqlType::Array { .. } | SqlType::Composite { .. } => None,
    }
}

/// Appends a JSON string. Bytes that are not UTF-8 become U+FFFD.
pub(crate) fn write_string(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    escape_into(out, text);
    out.push(b'"');
}

/// Whether a text may stand in a body as it is. PostgreSQL checks its json, but a SQL_ASCII
/// database may have bytes in it that are not UTF-8. Lone surrogate escapes, repeated keys and
/// numbers of any size are sound JSON text.
pub(crate) fn is_json(text: &[u8]) -> bool {
    std::str::from_utf8(text)
        .is_ok_and(|text| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok())
}

/// The point in time that a value stands for: a `timestamptz`, a `timestamp` or `date` in UTC, or a
/// number of seconds since the Unix epoch.
///
/// What is outside of [`Timestamp`]'s range, as the infinities are, becomes the end of the range:
/// something born at `-infinity` is as old as can be, at `infinity` it never ages. `None` for other
/// types and for text that is not of its type.
pub fn timestamp(sql_type: &SqlType, text: &[u8]) -> Option<Timestamp> {
    let micros = match text {
        b"infinity" if time::is_time(sql_type) => i64::MAX,
        b"-infinity" if time::is_time(sql_type) => i64::MIN,
        _ => time::CalendarMoment::read(sql_type, text)?.micros(),
    };
    Some(Timestamp::from_micros(micros))
}

/// The same in whole seconds since the Unix epoch, rounded down; `None` also for the infinities.
pub fn epoch_seconds(sql_type: &SqlType, text: &[u8]) -> Option<i64> {
    time::CalendarMoment::read(sql_type, text).map(|moment| moment.seconds)
}

fn write_bool(out: &mut Vec<u8>, text: &[u8]) -> Option<()> {
    let json: &[u8] = match text {
        b"t" => b"true",
        b"f" => b"false",
        _ => return None,
    };
    out.extend_from_slice(json);
    Some(())
}

fn write_number(out: &mut Vec<u8>, text: &[u8]) -> Option<()> {
    is_number(text).then(|| out.extend_from_slice(text))
}

fn write_raw_json(out: &mut Vec<u8>, text: &[u8]) -> Option<()> {
    // Of a SQL_ASCII database; between the tokens of JSON there are no such bytes.
    if std::str::from_utf8(text).is_err() {
        let mended = String::from_utf8_lossy(text);
        return is_json(mended.as_bytes()).then(|| compact_into(out, mended.as_bytes()));
    }
    is_json(text).then(|| compact_into(out, text))
}

/// Whether a text is a number by JSON's grammar (RFC 8259, section 6).
fn is_number(text: &[u8]) -> bool {
    let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mut rest = text.strip_prefix(b"-").unwrap_or(text);
    let whole = digits(rest);
    if whole == 0 || (whole > 1 && rest.starts_with(b"0")) {
        return false;
    }
    rest = rest.get(whole..).unwrap_or_default();
    if let Some(fraction) = rest.strip_prefix(b".") {
        let len = digits(fraction);
        if len == 0 {
            return false;
        }
        rest = fraction.get(len..).unwrap_or_default();
    }
    if let [b'e' | b'E', exponent @ ..] = rest {
        let exponent = match exponent {
            [b'+' | b'-', digits @ ..] => digits,
            unsigned => unsigned,
        };
        let len = digits(exponent);
        if len == 0 {
            return false;
        }
        rest = exponent.get(len..).unwrap_or_default();
    }
    rest.is_empty()
}

fn write_base64(out: &mut Vec<u8>, text: &[u8]) -> Option<()> {
    let hex = hex_of_bytea(text)?;
    out.reserve(hex.len().div_ceil(6) * 4 + 2);
    out.push(b'"');
    hex_to_base64(out, hex)?;
    out.push(b'"');
    Some(())
}

/// The digits of a bytea's text, which begins with `\x`.
pub(crate) fn hex_of_bytea(text: &[u8]) -> Option<&[u8]> {
    text.strip_prefix(b"\\x").filter(|hex| hex.len().is_multiple_of(2))
}

#[cfg(test)]
mod tests;
