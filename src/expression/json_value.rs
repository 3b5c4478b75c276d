//! JSON as an expression sees it: numbers without a fraction that fit are `int`, all others `double`.
//!
//! PostgreSQL's json and jsonb hold more than most parsers take: numbers of any size, single
//! surrogates, any depth. Here nothing of that keeps an expression from the rest of a document: a
//! number becomes the nearest `double` there is, a surrogate without its partner U+FFFD, and what is
//! nested deeper than [`DEPTH_MAX`] the text that stands there.
//!
//! Recursion is bounded by that depth, and nothing panics; what is no JSON at all is `None`.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use cel::Value;
use cel::objects::Key;
use cel::objects::Map;

/// Far more than people nest, and little enough for a thread's stack, also when it is dropped.
const DEPTH_MAX: usize = 256;

/// Reads one JSON value. Bytes that are not UTF-8 are read as U+FFFD.
pub(crate) fn read(text: &[u8]) -> Option<Value> {
    let text = String::from_utf8_lossy(text);
    let mut reader = JsonReader { rest: &text };
    let value = reader.value(0)?;
    reader.skip_space();
    reader.rest.is_empty().then_some(value)
}

struct JsonReader<'t> {
    rest: &'t str,
}

impl<'t> JsonReader<'t> {
    fn value(&mut self, depth: usize) -> Option<Value> {
        self.skip_space();
        match self.rest.as_bytes().first()? {
            b'{' | b'[' if depth >= DEPTH_MAX => {
                Some(Value::String(Arc::new(self.nested_text()?.to_owned())))
            }
            b'{' => self.object(depth),
            b'[' => self.array(depth),
            b'"' => Some(Value::String(Arc::new(self.string()?))),
            b't' => self.word("true", Value::Bool(true)),
            b'f' => self.word("false", Value::Bool(false)),
            b'n' => self.word("null", Value::Null),
            b'-' | b'0'..=b'9' => self.number(),
            _ => None,
        }
    }

    fn object(&mut self, depth: usize) -> Option<Value> {
        let mut members = HashMap::new();
        self.expect('{')?;
        if self.expect('}').is_none() {
            loop {
                self.skip_space();
                let name = self.string()?;
                self.expect(':')?;
                let value = self.value(depth + 1)?;
                members.insert(Key::from(name), value);
                if self.expect('}').is_some() {
                    break;
                }
                self.expect(',')?;
            }
        }
        Some(Value::Map(Map { map: Arc::new(members) }))
    }

    fn array(&mut self, depth: usize) -> Option<Value> {
        let mut items = Vec::new();
        self.expect('[')?;
        if self.expect(']').is_none() {
            loop {
                items.push(self.value(depth + 1)?);
                if self.expect(']').is_some() {
                    break;
                }
                self.expect(',')?;
            }
        }
        Some(Value::List(Arc::new(items)))
    }

    fn string(&mut self) -> Option<String> {
        let text = self.quoted()?;
        match unescaped(text)? {
            Cow::Borrowed(text) => Some(text.to_owned()),
            Cow::Owned(text) => Some(text),
        }
    }

    /// What stands between two quotes.
    fn quoted(&mut self) -> Option<&'t str> {
        let inside = self.rest.strip_prefix('"')?;
        let mut from = 0;
        loop {
            let at = from + memchr::memchr2(b'"', b'\\', inside.as_bytes().get(from..)?)?;
            if inside.as_bytes().get(at) == Some(&b'"') {
                self.rest = inside.get(at + 1..)?;
                return inside.get(..at);
            }
            from = at + 2; // an escape's second byte is never looked at
        }
    }

    fn number(&mut self) -> Option<Value> {
        let is_of_number = |c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | 'e' | 'E');
        let end = self.rest.find(|c| !is_of_number(c)).unwrap_or(self.rest.len());
        let (text, rest) = self.rest.split_at_checked(end)?;
        self.rest = rest;
        let whole = || text.parse().ok().map(Value::Int);
        whole().or_else(|| text.parse().ok().map(Value::Float))
    }

    fn word(&mut self, word: &str, value: Value) -> Option<Value> {
        self.rest = self.rest.strip_prefix(word)?;
        Some(value)
    }

    /// Takes an object or array as it stands.
    fn nested_text(&mut self) -> Option<&'t str> {
        let start = self.rest;
        let mut open = 0_usize;
        loop {
            let next = self.rest.find(['{', '}', '[', ']', '"'])?;
            self.rest = self.rest.get(next..)?;
            match self.rest.as_bytes().first()? {
                b'"' => {
                    self.quoted()?;
                    continue;
                }
                b'{' | b'[' => open += 1,
                _ => open = open.checked_sub(1)?,
            }
            self.rest = self.rest.get(1..)?;
            if open == 0 {
                return start.get(..start.len() - self.rest.len());
            }
        }
    }

    fn expect(&mut self, expected: char) -> Option<()> {
        self.skip_space();
        self.rest = self.rest.strip_prefix(expected)?;
        Some(())
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
    }
}

/// The text that a JSON string stands for.
fn unescaped(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('\\') {
        return Some(Cow::Borrowed(text));
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((plain, escaped)) = rest.split_once('\\') {
        out.push_str(plain);
        let mut chars = escaped.chars();
        let plain = match chars.next()? {
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            'b' => '\u{8}',
            'f' => '\u{C}',
            'u' => {
                let (c, after) = unicode(escaped.get(1..)?)?;
                out.push(c);
                rest = after;
                continue;
            }
            other => other, // a quote, a slash or a backslash
        };
        out.push(plain);
        rest = chars.as_str();
    }
    out.push_str(rest);
    Some(Cow::Owned(out))
}

/// The character of four hex digits, or of eight that make a pair; U+FFFD for half of a pair.
fn unicode(text: &str) -> Option<(char, &str)> {
    let unit = |text: &str| u32::from_str_radix(text.get(..4)?, 16).ok();
    let first = unit(text)?;
    let after = text.get(4..)?;
    if let (0xD800..0xDC00, Some(low)) = (first, after.strip_prefix("\\u"))
        && let Some(second @ 0xDC00..0xE000) = unit(low)
    {
        let pair = 0x1_0000 + ((first - 0xD800) << 10) + (second - 0xDC00);
        return Some((char::from_u32(pair)?, low.get(4..)?));
    }
    Some((char::from_u32(first).unwrap_or('\u{FFFD}'), after))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(value: &str) -> Value {
        Value::String(Arc::new(value.to_owned()))
    }

    fn member(document: &str, name: &str) -> Value {
        let Some(Value::Map(map)) = read(document.as_bytes()) else { panic!("{document}") };
        map.map[&Key::from(name)].clone()
    }

    #[test]
    fn what_other_parsers_refuse_keeps_nothing_from_the_rest() {
        let deep = format!("{}1{}", "[".repeat(5_000), "]".repeat(5_000));
        let odd = [
            "1e400",
            "-1e400",
            "123456789012345678901234567890",
            r#""\ud800""#,
            r#""\udc00\ud800x""#,
            deep.as_str(),
        ];
        for odd in odd {
            let document = format!(r#"{{"odd": {odd}, "kind": "a"}}"#);
            assert_eq!(member(&document, "kind"), text("a"), "{document:.40}");
        }
        assert_eq!(member(r#"{"n": 1e400}"#, "n"), Value::Float(f64::INFINITY));
        assert_eq!(member(r#"{"s": "a\ud800b"}"#, "s"), text("a\u{FFFD}b"));
        assert_eq!(member(r#"{"s": "\ud83e\udd80 \"\\\/\n"}"#, "s"), text("🦀 \"\\/\n"));
        assert_eq!(read(b"{\"s\": \"caf\xE9\"}").map(|_| ()), Some(()));
    }

    #[test]
    fn what_is_nested_too_deep_is_its_text() {
        let mut document =
            format!("{}[\"]\", {{}}]{}", "[".repeat(DEPTH_MAX), "]".repeat(DEPTH_MAX));
        document.insert(0, ' ');
        let mut value = read(document.as_bytes()).unwrap();
        for _ in 0..DEPTH_MAX {
            let Value::List(items) = value else { panic!("a list is expected") };
            value = items[0].clone();
        }
        assert_eq!(value, text("[\"]\", {}]"));
    }

    #[test]
    fn what_is_no_json_is_nothing() {
        for none in ["", "{", "[1,]", "{\"a\" 1}", "nul", "\"a", "1 2", "{1: 2}", "\"\\u12\"", "-"]
        {
            assert!(read(none.as_bytes()).is_none(), "{none:?}");
        }
    }

    /// JSON as a value: numbers without a fraction that fit are `int`, all others `double`.
    fn value_of_json(json: &serde_json::Value) -> cel::Value {
        match json {
            serde_json::Value::Null => cel::Value::Null,
            serde_json::Value::Bool(bool) => cel::Value::Bool(*bool),
            serde_json::Value::Number(number) => match number.as_i64() {
                Some(whole) => cel::Value::Int(whole),
                None => cel::Value::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            serde_json::Value::String(text) => cel::Value::from(text.as_str()),
            serde_json::Value::Array(items) => {
                cel::Value::List(Arc::new(items.iter().map(value_of_json).collect()))
            }
            serde_json::Value::Object(members) => {
                let members = members.iter().map(|(name, value)| {
                    (cel::objects::Key::from(name.as_str()), value_of_json(value))
                });
                cel::Value::Map(cel::objects::Map { map: Arc::new(members.collect()) })
            }
        }
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(serde_json::Value::from),
            any::<i64>().prop_map(serde_json::Value::from),
            // Exact: the other parser rounds the last digit now and then.
            any::<i32>().prop_map(|number| serde_json::Value::from(f64::from(number) / 8.0)),
            any::<String>().prop_map(serde_json::Value::from),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(serde_json::Value::from),
                prop::collection::hash_map(any::<String>(), inner, 0..5)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn it_reads_what_another_parser_reads(json in json()) {
            let compact = json.to_string();
            // Read back: digits of a double may be rounded on the way.
            let again: serde_json::Value = serde_json::from_str(&compact).unwrap();
            prop_assert_eq!(read(compact.as_bytes()), Some(value_of_json(&again)));
            let pretty = serde_json::to_string_pretty(&json).unwrap();
            prop_assert_eq!(read(pretty.as_bytes()), Some(value_of_json(&again)));
        }

        #[test]
        fn any_bytes_are_read_or_not_but_never_panic(text: Vec<u8>, odd in "[\\[\\]{}\",:\\\\u0-9a-f ]{0,40}") {
            let _outcome = (read(&text), read(odd.as_bytes()));
        }
    }
}
