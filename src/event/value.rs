//! The value of a CEL expression as JSON.
//!
//! Keys of a map are in the order of their bytes, so that a body is the same whenever it is made.
//! Timestamps are ISO 8601 in UTC, durations decimal seconds, bytes base64; a number that JSON does
//! not know is a string, as PostgreSQL has it.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use cel::Value;
use chrono::SecondsFormat;
use chrono::Utc;

use crate::event::datum::write_string;
use crate::event::expression_fault::EvaluationFault;

/// Appends one JSON value.
pub(crate) fn write_value(out: &mut Vec<u8>, value: &Value) -> Result<(), EvaluationFault> {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(bool) => out.extend_from_slice(if *bool { b"true" } else { b"false" }),
        Value::Int(number) => out.extend_from_slice(number.to_string().as_bytes()),
        Value::UInt(number) => out.extend_from_slice(number.to_string().as_bytes()),
        Value::Float(number) => write_float(out, *number),
        Value::String(text) => write_string(out, text.as_bytes()),
        Value::Bytes(bytes) => write_string(out, BASE64_STANDARD.encode(&**bytes).as_bytes()),
        Value::Timestamp(at) => {
            let text = at.with_timezone(&Utc).to_rfc3339_opts(SecondsFormat::AutoSi, true);
            write_string(out, text.as_bytes());
        }
        Value::Duration(length) => {
            let (seconds, nanos) = (length.num_seconds(), length.subsec_nanos().unsigned_abs());
            let sign = if length < &chrono::Duration::zero() { "-" } else { "" };
            let seconds = seconds.unsigned_abs();
            out.extend_from_slice(format!("{sign}{seconds}.{:03}", nanos / 1_000_000).as_bytes());
        }
        Value::List(items) => {
            out.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_value(out, item)?;
            }
            out.push(b']');
        }
        Value::Map(map) => {
            let mut members: Vec<_> =
                map.map.iter().map(|(key, value)| (key.to_string(), value)).collect();
            members.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
            out.push(b'{');
            for (index, (key, value)) in members.into_iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_string(out, key.as_bytes());
                out.push(b':');
                write_value(out, value)?;
            }
            out.push(b'}');
        }
        Value::Function(..) | Value::Opaque(_) | Value::Struct(_) => {
            return Err(EvaluationFault::Type);
        }
    }
    Ok(())
}

fn write_float(out: &mut Vec<u8>, number: f64) {
    match serde_json::Number::from_f64(number) {
        Some(number) => out.extend_from_slice(number.to_string().as_bytes()),
        None if number.is_nan() => out.extend_from_slice(b"\"NaN\""),
        None if number > 0.0 => out.extend_from_slice(b"\"Infinity\""),
        None => out.extend_from_slice(b"\"-Infinity\""),
    }
}
