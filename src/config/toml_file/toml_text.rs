//! Writes JSON as TOML: what comes as JSON is then read by the readers of the configuration file.

use serde_json::Map;
use serde_json::Value as Json;

/// A document with these keys. `null` is left out.
pub(crate) fn of(members: &Map<String, Json>) -> String {
    let mut text = String::new();
    for (name, value) in members.iter().filter(|(_, value)| !value.is_null()) {
        write_key(&mut text, name);
        write_value(&mut text, value);
        text.push('\n');
    }
    text
}

fn write_key(out: &mut String, name: &str) {
    write_string(out, name);
    out.push_str(" = ");
}

/// An inline value. `null` within is left out.
fn write_value(out: &mut String, value: &Json) {
    match value {
        Json::Null => out.push_str("\"\""),
        Json::Bool(_) | Json::Number(_) => out.push_str(&value.to_string()),
        Json::String(text) => write_string(out, text),
        Json::Array(items) => {
            out.push('[');
            for item in items {
                write_value(out, item);
                out.push_str(", ");
            }
            out.push(']');
        }
        Json::Object(members) => {
            out.push('{');
            let there = members.iter().filter(|(_, value)| !value.is_null());
            for (index, (name, value)) in there.enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                write_key(out, name);
                write_value(out, value);
            }
            out.push('}');
        }
    }
}

/// A basic string of TOML.
fn write_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() => out.push_str(&format!("\\U{:08X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    proptest! {
        /// Whatever stands in a string comes out as it is: it cannot end the string and add keys.
        #[test]
        fn a_string_stays_one_string(text in any::<String>(), key in any::<String>()) {
            let document = json!({ &*key: { &*text: [text.as_str()] } });
            let parsed: toml::Table = toml::from_str(&of(document.as_object().unwrap())).unwrap();
            let inner = parsed[&key].as_table().unwrap();
            prop_assert_eq!(inner[&text].as_array().unwrap()[0].as_str().unwrap(), text.as_str());
            prop_assert_eq!((parsed.len(), inner.len()), (1, 1));
        }
    }
}
