//! JSON whose objects have each key once: where a key stands twice, nobody can say which one is meant.

use std::fmt;

use serde::Deserializer;
use serde::de;
use serde::de::DeserializeSeed;
use serde::de::MapAccess;
use serde::de::SeqAccess;
use serde::de::Visitor;
use serde_json::Map;
use serde_json::Value;

/// Why a text is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UniqueJsonError {
    #[error("is not JSON: {0}")]
    NotJson(#[source] serde_json::Error),
    /// With the key, and where it stands for the second time.
    #[error("has {0}")]
    Twice(#[source] serde_json::Error),
}

/// Reads a JSON text.
///
/// # Errors
/// It is no JSON, or an object in it has a key twice, at any depth.
pub(crate) fn parse(text: &[u8]) -> Result<Value, UniqueJsonError> {
    let mut json = serde_json::Deserializer::from_slice(text);
    let read = UniqueKeys.deserialize(&mut json).and_then(|value| json.end().map(|()| value));
    read.map_err(|error| match error.is_data() {
        true => UniqueJsonError::Twice(error),
        false => UniqueJsonError::NotJson(error),
    })
}

struct UniqueKeys;

impl<'de> DeserializeSeed<'de> for UniqueKeys {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for UniqueKeys {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(UniqueKeys)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = members.next_key::<String>()? {
            if map.contains_key(&key) {
                let what = format!("key {key:?} twice: give it once");
                return Err(de::Error::custom(what));
            }
            let value = members.next_value_seed(UniqueKeys)?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sound_is_what_serde_json_reads() {
        for text in [
            "null",
            " [1, -2, 18446744073709551615, 1.5, 1e3, \"a\\u0000\\n\", true, {}] ",
            r#"{"b": {"a": 1}, "a": [{"a": 1}, {"a": 2}], "": null, "A": 2}"#,
        ] {
            let plain: Value = serde_json::from_str(text).unwrap();
            let read = parse(text.as_bytes()).unwrap();
            assert_eq!(read, plain);
            assert_eq!(read.to_string(), plain.to_string(), "in the same order");
        }
    }

    #[test]
    fn a_key_that_stands_twice_is_named_with_its_place() {
        for (text, expected) in [
            (r#"{"a": 1, "a": 1}"#, r#"has key "a" twice: give it once at line 1 column 12"#),
            (r#"[{"x": {"url": 1, "b": [], "u\u0072l": 2}}]"#, r#"has key "url" twice"#),
        ] {
            let refused = parse(text.as_bytes()).unwrap_err().to_string();
            assert!(refused.starts_with(expected), "{refused}");
        }
    }

    #[test]
    fn what_is_no_json_is_refused_as_such() {
        let deep = "[".repeat(1000);
        for text in ["", "{", "{} x", "{\"a\": 1,}", "nul", "1e999", deep.as_str()] {
            let refused = parse(text.as_bytes()).unwrap_err().to_string();
            assert!(refused.starts_with("is not JSON: "), "{text:.20}: {refused}");
        }
        assert!(parse(b"\"\xff\"").is_err());
    }
}
