//! JSON in which numbers are compared by their digits.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use walhook::testing::flow::relation::SqlType;

/// Parses JSON; every number becomes the string `number SIGN DIGITS e EXPONENT`, so that neither
/// `1e400` nor the last digit of 130,000 is lost.
pub(super) fn parse(json: &[u8]) -> Value {
    let mut quoted = Vec::new();
    let mut rest = json;
    while let Some((&byte, after)) = rest.split_first() {
        let len = match byte {
            b'"' => string_len(rest),
            b'-' | b'0'..=b'9' => {
                rest.iter().take_while(|byte| b"+-.eE0123456789".contains(byte)).count()
            }
            _ => {
                quoted.push(byte);
                rest = after;
                continue;
            }
        };
        let (token, after) = rest.split_at(len);
        match byte {
            b'"' => quoted.extend_from_slice(token),
            _ => quoted.extend_from_slice(format!("\"number {}\"", canonical(token)).as_bytes()),
        }
        rest = after;
    }
    match serde_json::from_slice(&quoted) {
        Ok(value) => value,
        Err(error) => panic!("{error}: {}", String::from_utf8_lossy(json)),
    }
}

/// The length of the string at the start, with its quotes.
fn string_len(json: &[u8]) -> usize {
    let mut escaped = false;
    for (at, byte) in json.iter().enumerate().skip(1) {
        match byte {
            b'"' if !escaped => return at + 1,
            b'\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    json.len()
}

/// One text for one value: digits without zeros at either end, and a power of ten.
fn canonical(number: &[u8]) -> String {
    let number = std::str::from_utf8(number).expect("a number is ASCII");
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let (sign, mantissa) = match mantissa.strip_prefix('-') {
        Some(mantissa) => ("-", mantissa),
        None => ("", mantissa),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let trimmed = digits.trim_end_matches('0');
    let zeros = i64::try_from(digits.len() - trimmed.len()).expect("a length fits");
    let scale = i64::try_from(fraction.len()).expect("a length fits");
    let exponent = exponent.parse::<i64>().expect("an exponent is a number") - scale + zeros;
    match trimmed.trim_start_matches('0') {
        "" => String::from("0"),
        significant => format!("{sign}{significant}e{exponent}"),
    }
}

/// What `to_jsonb` gave, with the differences that are ours on purpose: timestamptz ends with `Z`,
/// bytea is base64.
pub(super) fn with_documented_differences(sql_type: &SqlType, value: Value) -> Value {
    match (sql_type, value) {
        (SqlType::TimestampTz, Value::String(text)) => {
            Value::String(text.replacen("+00:00", "Z", 1))
        }
        (SqlType::Bytea, Value::String(text)) => {
            let hex = text.strip_prefix("\\x").expect("bytea_output is hex");
            let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
            let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
            Value::String(STANDARD.encode(bytes))
        }
        (SqlType::Array { element, .. } | SqlType::Vector { element }, Value::Array(values)) => {
            let each = |value: Value| match value {
                // A further dimension of the same array, unless the element is an array itself.
                Value::Array(_) if !matches!(**element, SqlType::Array { .. }) => {
                    with_documented_differences(sql_type, value)
                }
                value => with_documented_differences(element, value),
            };
            Value::Array(values.into_iter().map(each).collect())
        }
        (SqlType::Composite { fields }, Value::Object(object)) => {
            let of =
                |name: &str| &fields.iter().find(|(field, _)| field == name).expect("a field").1;
            Value::Object(
                object
                    .into_iter()
                    .map(|(name, value)| {
                        let value = with_documented_differences(of(&name), value);
                        (name, value)
                    })
                    .collect(),
            )
        }
        (_, value) => value,
    }
}
