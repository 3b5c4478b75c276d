//! A body within a JSON document, as it is: no number is rounded, no member lost.

use serde_json::value::RawValue;
use serde_json::value::to_raw_value;

/// The body itself where it is JSON, else its text as a JSON string; `None` if not even that can be.
pub(crate) fn raw_json(body: &[u8]) -> Option<Box<RawValue>> {
    let text = String::from_utf8_lossy(body);
    let itself = RawValue::from_string(text.clone().into_owned());
    itself.or_else(|_error| to_raw_value(&text)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_stays_as_it_is_and_everything_else_is_a_string() {
        let cases = [
            (r#"{"a": 12345678901234567890.1234567890, "a": 1.10}"#, None),
            ("[1e400]", None),
            ("123456789012345678901234567890", None),
            ("plain", Some("\"plain\"")),
            ("", Some("\"\"")),
            ("{\"a\": ", Some("\"{\\\"a\\\": \"")),
        ];
        for (body, expected) in cases {
            let shown = raw_json(body.as_bytes()).expect("a text can be a string");
            assert_eq!(shown.get(), expected.unwrap_or(body), "case: {body}");
        }
        assert!(raw_json(b"\xff").is_some());
    }
}
