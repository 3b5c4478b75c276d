//! Headers as they are kept for people to read.

use std::fmt;
use std::ops::Range;

use serde_json::Map;
use serde_json::Value;

use crate::flow::body::escape_into;
use crate::flow::body::is_plain;

/// Names and values of headers, as the text of one JSON object: they are written down with each
/// attempt, and read for few. Secret values are masked by `delivery`, which puts them in.
#[derive(Clone, Default, Eq, PartialEq)]
pub struct HeaderLines {
    /// The object; empty if there are none.
    text: String,
    /// Where in it the last name stands.
    last: Range<usize>,
}

impl HeaderLines {
    /// With room for this many bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { text: String::with_capacity(bytes), last: 0..0 }
    }

    /// These, with room for more: this many bytes in all.
    pub fn with_room(&self, bytes: usize) -> Self {
        let mut text = String::with_capacity(bytes.max(self.text.len()));
        text.push_str(&self.text);
        Self { text, last: self.last.clone() }
    }

    /// Appends one. Values of one name that come one after the other are joined by commas, as RFC
    /// 9110, section 5.3, has it. Of a value that is not UTF-8, the wrong bytes become U+FFFD.
    pub fn push(&mut self, name: &str, value: &[u8]) {
        debug_assert!(!name.contains('\0') && !value.contains(&0), "no header holds a NUL");
        let end = self.text.pop(); // the brace, if there is one
        if end.is_some() && self.text.get(self.last.clone()) == Some(name) {
            self.text.pop();
            self.text.push_str(", ");
        } else {
            self.text.push_str(if end.is_none() { "{\"" } else { ",\"" });
            let begin = self.text.len();
            self.escape(name.as_bytes());
            self.last = begin..self.text.len();
            self.text.push_str("\":\"");
        }
        self.escape(value);
        self.text.push_str("\"}");
    }

    fn escape(&mut self, value: &[u8]) {
        match std::str::from_utf8(value) {
            Ok(text) if is_plain(value) => self.text.push_str(text),
            _ => {
                let mut escaped = Vec::new();
                escape_into(&mut escaped, value);
                self.text.push_str(&String::from_utf8_lossy(&escaped));
            }
        }
    }

    /// The object's text; `None` if there are no headers.
    pub fn json(&self) -> Option<&str> {
        Some(self.text.as_str()).filter(|text| !text.is_empty())
    }

    /// Values by name.
    pub fn by_name(&self) -> Map<String, Value> {
        self.json().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    }

    /// Bytes of all names and values, and what the object needs more.
    pub fn len(&self) -> usize {
        self.text.len()
    }

    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }
}

impl fmt::Debug for HeaderLines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.json().unwrap_or("{}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn headers_are_an_object_in_their_order() {
        let mut headers = HeaderLines::default();
        assert_eq!((headers.json(), headers.by_name()), (None, Map::new()));
        let given: [(&str, &[u8]); 6] = [
            ("date", b"Tue: \"today\""),
            ("set-cookie", b"a=1"),
            ("set-cookie", b"b=2"),
            ("x-empty", b""),
            ("x-odd", b"\xFF\\"),
            ("x-odd", b""),
        ];
        given.iter().for_each(|(name, value)| headers.push(name, value));
        let expected = "{\"date\":\"Tue: \\\"today\\\"\",\"set-cookie\":\"a=1, b=2\",\
                        \"x-empty\":\"\",\"x-odd\":\"\u{FFFD}\\\\, \"}";
        assert_eq!(headers.json(), Some(expected));
        assert_eq!(headers.by_name().get("set-cookie"), Some(&json!("a=1, b=2")));
    }

    proptest! {
        #[test]
        fn no_value_breaks_the_object(values in prop::collection::vec("[^\0]*", 0..8)) {
            let mut headers = HeaderLines::default();
            let names: Vec<String> = (0..values.len()).map(|n| format!("x-{n}")).collect();
            for (name, value) in names.iter().zip(&values) {
                headers.push(name, value.as_bytes());
            }
            let expected: Map<String, Value> =
                names.into_iter().zip(values.into_iter().map(Value::from)).collect();
            prop_assert_eq!(headers.by_name(), expected);
        }
    }
}
