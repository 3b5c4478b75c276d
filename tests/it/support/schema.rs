//! Checks a value against a schema of `openapi.json`: the subset of JSON Schema that the document uses. What
//! is not described is a difference, too, unless `additionalProperties` allows it.

use serde_json::Value;

/// What differs, each with its place.
pub(crate) fn differences(document: &Value, schema: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    check(document, schema, value, "$", true, &mut found);
    found
}

/// The part of the document that a `$ref` names.
pub(crate) fn resolved<'d>(document: &'d Value, schema: &'d Value) -> &'d Value {
    match schema["$ref"].as_str().and_then(|place| place.strip_prefix('#')) {
        Some(place) => document.pointer(place).unwrap_or(&Value::Null),
        None => schema,
    }
}

fn check(
    document: &Value,
    schema: &Value,
    value: &Value,
    place: &str,
    is_whole: bool,
    found: &mut Vec<String>,
) {
    let schema = resolved(document, schema);
    if let Some(parts) = schema["allOf"].as_array() {
        parts.iter().for_each(|part| check(document, part, value, place, false, found));
        return;
    }
    if let Some(parts) = schema["oneOf"].as_array() {
        let fits = |part: &&Value| {
            let mut wrong = Vec::new();
            check(document, part, value, place, is_whole, &mut wrong);
            wrong.is_empty()
        };
        if parts.iter().filter(fits).count() != 1 {
            found.push(format!("{place}: fits not one of oneOf: {value}"));
        }
        return;
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
        Value::String(name) => vec![name.as_str()],
        _ => Vec::new(),
    };
    if !types.is_empty() && !types.iter().any(|name| is_of(name, value)) {
        found.push(format!("{place}: {value} is not {types:?}"));
        return;
    }
    if schema["enum"].as_array().is_some_and(|words| !words.contains(value)) {
        found.push(format!("{place}: {value} is not among {}", schema["enum"]));
    }
    if schema.get("const").is_some_and(|only| only != value) {
        found.push(format!("{place}: {value} is not {}", schema["const"]));
    }
    let is_late = schema["format"] == "date-time"
        && value.as_str().is_some_and(|text| chrono::DateTime::parse_from_rfc3339(text).is_err());
    if is_late {
        found.push(format!("{place}: {value} is no date-time"));
    }
    match value {
        Value::Object(members) => {
            for name in schema["required"].as_array().into_iter().flatten() {
                if !members.contains_key(name.as_str().unwrap_or_default()) {
                    found.push(format!("{place}: {name} is missing"));
                }
            }
            let described = schema["properties"].as_object();
            let others = &schema["additionalProperties"];
            for (name, member) in members {
                let place = format!("{place}.{name}");
                match described.and_then(|described| described.get(name)) {
                    Some(schema) => check(document, schema, member, &place, true, found),
                    None if is_whole && described.is_some() && *others != true => {
                        found.push(format!("{place}: is not described"));
                    }
                    None => {}
                }
            }
        }
        Value::Array(items) => {
            for (number, item) in items.iter().enumerate() {
                check(document, &schema["items"], item, &format!("{place}[{number}]"), true, found);
            }
        }
        _ => {}
    }
}

fn is_of(name: &str, value: &Value) -> bool {
    match name {
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "object" => value.is_object(),
        "array" => value.is_array(),
        "null" => value.is_null(),
        _ => false,
    }
}

#[test]
fn differences_are_found() {
    let document = serde_json::json!({ "s": { "type": "object", "required": ["a"],
        "properties": { "a": { "type": ["integer", "null"] }, "b": { "enum": ["x"] } } } });
    let schema = serde_json::json!({ "$ref": "#/s" });
    let of = |value: Value| differences(&document, &schema, &value).len();
    assert_eq!(of(serde_json::json!({ "a": null, "b": "x" })), 0);
    assert_eq!(of(serde_json::json!({ "a": "1", "b": "y", "c": 1 })), 3);
    assert_eq!(of(serde_json::json!({})), 1);
    assert_eq!(of(serde_json::json!([])), 1);
}
