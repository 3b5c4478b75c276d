//! Schemas of the document, made of the types that requests are read into and answers are written from.
//!
//! `utoipa` derives a schema for each type; here they become JSON, each type under its name, and at the end
//! those that no client knows by a name are put where they are used.

use std::collections::BTreeMap;

use serde_json::Map;
use serde_json::Value;
use serde_json::json;
use utoipa::ToSchema;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;

/// Schemas by their types' names.
pub(crate) type SchemaSet = BTreeMap<String, Value>;

const PLACE: &str = "#/components/schemas/";

/// A reference to the schema of a type, which is put into the set with all that it uses.
pub(crate) fn of<T: ToSchema>(set: &mut SchemaSet) -> Value {
    let name = name_of::<T>();
    put(set, name.clone(), T::schema());
    put_used::<T>(set);
    json!({ "$ref": format!("{PLACE}{name}") })
}

/// Its name; of a generic type with all that it is of, since that is another one each time.
fn name_of<T: ToSchema>() -> String {
    let path = std::any::type_name::<T>();
    match path.contains('<') {
        true => path.replace('/', "_"),
        false => T::name().into_owned(),
    }
}

fn put_used<T: ToSchema>(set: &mut SchemaSet) {
    let mut used = Vec::new();
    T::schemas(&mut used);
    for (name, schema) in used {
        put(set, name, schema);
    }
}

fn put(set: &mut SchemaSet, name: String, schema: RefOr<Schema>) {
    set.entry(name).or_insert_with(|| {
        let mut schema = json_of(schema);
        require_nullable(&mut schema);
        schema
    });
}

fn json_of(schema: RefOr<Schema>) -> Value {
    // A schema of our own types is JSON; the tests would miss one that is not.
    serde_json::to_value(schema).unwrap_or_default()
}

/// What may be null in an answer is there all the same: what is left out is never null.
fn require_nullable(schema: &mut Value) {
    let Value::Object(members) = schema else { return };
    let properties = members.get("properties").and_then(Value::as_object);
    let nullable = properties.into_iter().flatten().filter(|(_, property)| is_nullable(property));
    let mut names: Vec<Value> = nullable.map(|(name, _)| Value::from(name.as_str())).collect();
    if names.is_empty() {
        return;
    }
    if let Value::Array(required) =
        members.entry("required").or_insert_with(|| Value::Array(Vec::new()))
    {
        names.retain(|name| !required.contains(name));
        required.extend(names);
    }
}

fn is_nullable(property: &Value) -> bool {
    let has_null = |name: &str, null: &Value| {
        let items = property.get(name).and_then(Value::as_array);
        items.is_some_and(|items| items.contains(null))
    };
    has_null("type", &json!("null")) || has_null("oneOf", &json!({ "type": "null" }))
}

/// The schema of the fields of a request: nothing else is taken, and null is the same as left out.
pub(crate) fn of_request<T: ToSchema>(set: &mut SchemaSet) -> Value {
    put_used::<T>(set);
    let mut schema = json_of(T::schema());
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(refuse_null);
    }
    if let Value::Object(members) = &mut schema {
        // What the type is, not what the operation says of it.
        members.remove("description");
        members.insert(String::from("additionalProperties"), Value::Bool(false));
    }
    schema
}

fn refuse_null(schema: &mut Value) {
    let Value::Object(members) = schema else { return };
    if let Some(Value::Array(kinds)) = members.get_mut("type") {
        kinds.retain(|kind| kind != "null");
        if let [only] = kinds.as_slice() {
            let only = only.clone();
            members.insert(String::from("type"), only);
        }
    }
    if let Some(Value::Array(parts)) = members.get_mut("oneOf") {
        parts.retain(|part| part != &json!({ "type": "null" }));
        if let [Value::Object(only)] = parts.as_slice() {
            let only = only.clone();
            members.remove("oneOf");
            merge_under(members, only);
        }
    }
}

/// Members that are not there yet.
fn merge_under(members: &mut Map<String, Value>, more: Map<String, Value>) {
    for (name, value) in more {
        members.entry(name).or_insert(value);
    }
}

/// One object with the members of both.
pub(crate) fn joined(mut first: Value, second: Value) -> Value {
    for name in ["properties", "required"] {
        let more = second.get(name).cloned();
        match (first.get_mut(name), more) {
            (Some(Value::Object(members)), Some(Value::Object(more))) => merge_under(members, more),
            (Some(Value::Array(items)), Some(Value::Array(more))) => items.extend(more),
            (None, Some(more)) => {
                if let Value::Object(members) = &mut first {
                    members.insert(name.to_owned(), more);
                }
            }
            _ => {}
        }
    }
    first
}

/// Puts the schemas of types that clients do not know by a name where they are used.
pub(crate) fn inline(value: &mut Value, set: &SchemaSet, named: &[&str]) {
    match value {
        Value::Object(members) => {
            let target = members.get("$ref").and_then(Value::as_str);
            let name = target.and_then(|target| target.strip_prefix(PLACE));
            let unnamed = name.filter(|name| !named.contains(name));
            if let Some(Value::Object(schema)) = unnamed.and_then(|name| set.get(name)) {
                let schema = schema.clone();
                members.remove("$ref");
                merge_under(members, schema);
            }
            members.values_mut().for_each(|member| inline(member, set, named));
            or_null(members);
            one_object(members);
        }
        Value::Array(items) => items.iter_mut().for_each(|item| inline(item, set, named)),
        _ => {}
    }
}

/// Either null or a simple type is that type or null.
fn or_null(members: &mut Map<String, Value>) {
    let Some(Value::Array(parts)) = members.get("oneOf") else { return };
    let null = json!({ "type": "null" });
    let [Value::Object(other)] = parts.iter().filter(|part| **part != null).collect::<Vec<_>>()[..]
    else {
        return;
    };
    let (Some(Value::String(kind)), false) = (other.get("type"), other.contains_key("enum")) else {
        return;
    };
    if parts.len() != 2 {
        return;
    }
    let mut other = other.clone();
    other.insert(String::from("type"), json!([kind.clone(), "null"]));
    members.remove("oneOf");
    merge_under(members, other);
}

/// Objects that are all of one, and have no names, are that one.
fn one_object(members: &mut Map<String, Value>) {
    let Some(Value::Array(parts)) = members.get("allOf") else { return };
    if parts.iter().any(|part| part.get("properties").is_none()) {
        return;
    }
    let whole = parts.clone().into_iter().reduce(joined);
    if let Some(Value::Object(whole)) = whole {
        members.remove("allOf");
        merge_under(members, whole);
    }
}
