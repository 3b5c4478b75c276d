//! The JSON Schema of an event's body, of the table, its types and the payload.
//!
//! Pure. What the configuration and the types tell is said, and nothing more: where an expression has
//! to be evaluated to know, anything may stand. Schemas allow members that they do not name, so that a
//! receiver that checks them does not break when a column is added.

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::config::settings::CloudEventsMode;
use crate::config::settings::EventRule;
use crate::config::settings::Operations;
use crate::config::settings::PayloadSettings;
use crate::config::settings::ocr_wallet;
use crate::event::type_check;
use crate::expression::Expression;
use crate::expression::named_columns::BuiltInName;
use crate::expression::named_columns::ColumnReference;
use crate::expression::named_columns::ExpressionForm;
use crate::expression::template::TemplateNode;
use crate::flow::relation::Relation;
use crate::flow::relation::SqlType;

const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// The schema of the bodies of a rule's events, in the shape of `payload`.
pub(crate) fn of_body(rule: &EventRule, payload: &PayloadSettings, relation: &Relation) -> Value {
    let schema = match payload {
        PayloadSettings::Standard => standard(rule, relation),
        PayloadSettings::OcrWallet => ocr_wallet(rule, relation),
        PayloadSettings::CloudEvents(CloudEventsMode::Structured) => cloud_events(rule, relation),
        PayloadSettings::CloudEvents(CloudEventsMode::Binary) => row(relation),
        PayloadSettings::Debezium => debezium(relation),
        PayloadSettings::Template { root, .. } => of_node(root, rule, relation),
        PayloadSettings::Text { .. } => json!({ "type": "string" }),
    };
    let has_rows = Operations { schema: false, ..rule.on } != Operations::default();
    let mut schema = match (rule.on.schema, has_rows) {
        (false, _) => schema,
        (true, false) => table_shape(rule, payload),
        // The row comes first: it is the one that changes.
        (true, true) => json!({ "anyOf": [schema, table_shape(rule, payload)] }),
    };
    if let Value::Object(members) = &mut schema {
        let mut all = Map::new();
        all.insert(String::from("$schema"), json!(DIALECT));
        all.insert(String::from("title"), json!(&*rule.event_type));
        all.append(members);
        *members = all;
    }
    schema
}

fn object(properties: Vec<(&str, Value)>, required: &[&str]) -> Value {
    let properties: Map<String, Value> =
        properties.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect();
    json!({ "type": "object", "properties": properties, "required": required })
}

fn moment() -> Value {
    json!({ "type": "string", "format": "date-time" })
}

fn operation() -> Value {
    json!({ "enum": ["insert", "update", "delete", "truncate", "read", "schema"] })
}

fn standard(rule: &EventRule, relation: &Relation) -> Value {
    let mut data = row(relation);
    if let (true, Value::Object(members)) = (rule.on.truncate, &mut data) {
        members.insert(String::from("type"), json!(["object", "null"]));
    }
    let properties = vec![
        ("type", json!({ "const": &*rule.event_type })),
        ("timestamp", moment()),
        ("operation", operation()),
        ("data", data),
        ("old", previous(relation)),
        ("unchanged", json!({ "type": "array", "items": { "type": "string" } })),
        ("metadata", json!({})),
    ];
    object(properties, &["type", "timestamp", "operation", "data"])
}

/// An event that tells of the table's shape, in whichever payload.
fn table_shape(rule: &EventRule, payload: &PayloadSettings) -> Value {
    let text = || json!({ "type": "string" });
    let column = object(
        vec![("name", text()), ("type", text()), ("key", json!({ "type": "boolean" }))],
        &["name", "type", "key"],
    );
    let columns = json!({ "type": "array", "items": column });
    let data = object(vec![("table", text()), ("columns", columns)], &["table", "columns"]);
    let operation = json!({ "const": "schema" });
    match payload {
        PayloadSettings::CloudEvents(CloudEventsMode::Binary) => data,
        PayloadSettings::CloudEvents(CloudEventsMode::Structured) => {
            let properties = vec![
                ("specversion", json!({ "const": "1.0" })),
                ("id", text()),
                ("source", text()),
                ("type", json!({ "const": &*rule.event_type })),
                ("time", moment()),
                ("operation", operation),
                ("datacontenttype", text()),
                ("data", data),
            ];
            object(properties, &["specversion", "id", "source", "type", "time", "data"])
        }
        _ => {
            let properties = vec![
                ("type", json!({ "const": &*rule.event_type })),
                ("timestamp", moment()),
                ("operation", operation),
                ("data", data),
                ("metadata", json!({})),
            ];
            object(properties, &["type", "timestamp", "operation", "data"])
        }
    }
}

fn ocr_wallet(rule: &EventRule, relation: &Relation) -> Value {
    let data = ocr_wallet::COLUMNS.iter().filter_map(|name| {
        let column = relation.columns.get(relation.column(name)?)?;
        let schema = match *name {
            "create_time" => json!({ "type": "integer" }),
            _ => of_column(&column.sql_type),
        };
        Some((*name, schema))
    });
    let metadata = object(
        vec![
            ("data_age_seconds", json!({ "type": "number" })),
            ("push_source", json!({ "type": "string" })),
        ],
        &["data_age_seconds", "push_source"],
    );
    let properties = vec![
        ("event_type", json!({ "const": &*rule.event_type })),
        ("timestamp", json!({ "type": "integer" })),
        ("version", json!({ "type": "string" })),
        ("source", json!({ "type": "string" })),
        ("data", object(data.collect(), &["id"])),
        ("metadata", metadata),
    ];
    object(properties, &["event_type", "timestamp", "version", "source", "data", "metadata"])
}

fn cloud_events(rule: &EventRule, relation: &Relation) -> Value {
    let text = || json!({ "type": "string" });
    let properties = vec![
        ("specversion", json!({ "const": "1.0" })),
        ("id", text()),
        ("source", text()),
        ("type", json!({ "const": &*rule.event_type })),
        ("time", moment()),
        ("operation", operation()),
        ("datacontenttype", text()),
        ("data", row(relation)),
    ];
    object(properties, &["specversion", "id", "source", "type", "time", "data"])
}

fn debezium(relation: &Relation) -> Value {
    let or_null = |schema: Value| json!({ "anyOf": [schema, { "type": "null" }] });
    let integer = || json!({ "type": "integer" });
    let source = object(
        vec![
            ("schema", json!({ "const": relation.table.schema })),
            ("table", json!({ "const": relation.table.name })),
            ("ts_ms", integer()),
            ("lsn", integer()),
        ],
        &["schema", "table", "ts_ms", "lsn"],
    );
    let properties = vec![
        ("before", or_null(previous(relation))),
        ("after", or_null(row(relation))),
        ("source", source),
        ("op", json!({ "enum": ["c", "u", "d", "t"] })),
        ("ts_ms", integer()),
    ];
    object(properties, &["before", "after", "source", "op", "ts_ms"])
}

/// A whole row. A value that an update did not touch may be left out where it is large, and so may all but
/// the key of a deleted row: only the key is sure to be there.
fn row(relation: &Relation) -> Value {
    let columns: Vec<(&str, Value)> =
        relation.columns.iter().map(|c| (c.name.as_str(), of_column(&c.sql_type))).collect();
    let key = relation.key.iter().filter_map(|place| relation.columns.get(*place));
    let key: Vec<&str> = key.map(|column| column.name.as_str()).collect();
    object(columns, &key)
}

/// As much of the row before as PostgreSQL sent.
fn previous(relation: &Relation) -> Value {
    let columns = relation.columns.iter();
    object(columns.map(|c| (c.name.as_str(), of_column(&c.sql_type))).collect(), &[])
}

/// A column's value, or null.
fn of_column(sql_type: &SqlType) -> Value {
    match of_type(sql_type) {
        Value::Object(mut members) => {
            match members.remove("type") {
                Some(Value::String(one)) => {
                    drop(members.insert(String::from("type"), json!([one, "null"])))
                }
                Some(Value::Array(mut some)) => {
                    some.push(json!("null"));
                    members.insert(String::from("type"), Value::Array(some));
                }
                _ => {} // anything
            }
            Value::Object(members)
        }
        other => other,
    }
}

/// As [`crate::event::datum`] writes a value of the type.
fn of_type(sql_type: &SqlType) -> Value {
    match sql_type {
        SqlType::Bool => json!({ "type": "boolean" }),
        SqlType::Integer => json!({ "type": "integer" }),
        // NaN and the infinities are texts.
        SqlType::Float | SqlType::Numeric => json!({ "type": ["number", "string"] }),
        SqlType::Json => json!({}),
        SqlType::Date | SqlType::Timestamp | SqlType::Text => json!({ "type": "string" }),
        SqlType::TimestampTz => moment(),
        SqlType::Bytea => json!({ "type": "string", "contentEncoding": "base64" }),
        SqlType::Hstore => {
            json!({ "type": "object", "additionalProperties": { "type": ["string", "null"] } })
        }
        SqlType::Vector { element } => json!({ "type": "array", "items": of_type(element) }),
        SqlType::Array { element, .. } => {
            // Of any number of dimensions.
            let items = json!({ "anyOf": [of_column(element), { "type": "array" }] });
            json!({ "type": "array", "items": items })
        }
        SqlType::Composite { fields } => {
            let fields = fields.iter().map(|(name, of)| (name.as_str(), of_column(of)));
            object(fields.collect(), &[])
        }
    }
}

fn of_node(node: &TemplateNode, rule: &EventRule, relation: &Relation) -> Value {
    match node {
        TemplateNode::Literal(text) => match serde_json::from_str::<Value>(text) {
            Ok(value) => json!({ "const": value }),
            Err(_) => json!({}),
        },
        TemplateNode::Object(members) => {
            let properties =
                members.iter().map(|one| (one.name.as_str(), of_node(&one.value, rule, relation)));
            let required = members.iter().filter(|member| !member.optional);
            let required: Vec<&str> = required.map(|member| member.name.as_str()).collect();
            object(properties.collect(), &required)
        }
        TemplateNode::List(items) => {
            let items: Vec<Value> =
                items.iter().map(|item| of_node(item, rule, relation)).collect();
            let count = items.len();
            json!({ "type": "array", "prefixItems": items, "minItems": count, "maxItems": count })
        }
        TemplateNode::Text(_) => json!({ "type": "string" }),
        TemplateNode::Value(expression) => of_expression(expression, rule, relation),
    }
}

fn of_expression(expression: &Expression, rule: &EventRule, relation: &Relation) -> Value {
    let column = |name: &str| relation.column(name).and_then(|place| relation.columns.get(place));
    match expression.plain() {
        Some((_, ExpressionForm::String)) => json!({ "type": ["string", "null"] }),
        Some((_, ExpressionForm::Int)) => json!({ "type": ["integer", "null"] }),
        Some((
            ColumnReference::Column(name) | ColumnReference::Old(name),
            ExpressionForm::AsIs,
        )) => column(name).map_or(json!({}), |column| of_column(&column.sql_type)),
        Some((ColumnReference::BuiltIn(name), ExpressionForm::AsIs)) => match name {
            BuiltInName::Row => row(relation),
            BuiltInName::Changes => previous(relation),
            BuiltInName::Old => json!({ "anyOf": [previous(relation), { "type": "null" }] }),
            BuiltInName::Op => operation(),
            BuiltInName::Event => json!({ "const": &*rule.event_type }),
            BuiltInName::EventId | BuiltInName::Table | BuiltInName::Age => {
                json!({ "type": "string" })
            }
            BuiltInName::Metadata => json!({}),
            BuiltInName::Committed | BuiltInName::Now => moment(),
        },
        // An expression without a value is null in its place.
        None => type_check::json_type(expression, relation)
            .map_or(json!({}), |of| json!({ "type": [of, "null"] })),
    }
}

/// What is other than before, in words: for the log, when a table was altered. `before` and `now` are
/// schemas of the same event type.
pub(crate) fn changes(before: &Value, now: &Value) -> Vec<String> {
    let mut found = Vec::new();
    // Where it may be one of two, the row is the first.
    let of_row = |of: &Value| of.pointer("/anyOf/0").unwrap_or(of).clone();
    compare("", &of_row(before), &of_row(now), &mut found);
    found
}

fn compare(place: &str, before: &Value, now: &Value, found: &mut Vec<String>) {
    if before == now {
        return;
    }
    let members = |of: &Value| of.get("properties").and_then(Value::as_object).cloned();
    let (Some(old), Some(new)) = (members(before), members(now)) else {
        let name = if place.is_empty() { "the body" } else { place };
        found.push(format!("{name} was {} and is {}", kind(before), kind(now)));
        return;
    };
    let inside =
        |name: &str| if place.is_empty() { name.to_owned() } else { format!("{place}.{name}") };
    for (name, schema) in &old {
        match new.get(name) {
            Some(now) => compare(&inside(name), schema, now, found),
            None => found.push(format!("{} is gone", inside(name))),
        }
    }
    for (name, schema) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
        found.push(format!("{} is new: {}", inside(name), kind(schema)));
    }
    let required = |of: &Value| of.get("required").cloned();
    if required(before) != required(now) && found.is_empty() {
        found.push(
            format!("{place}: other members have to be there").trim_start_matches(": ").to_owned(),
        );
    }
}

/// A schema in a word or two.
fn kind(schema: &Value) -> String {
    match schema.get("type") {
        Some(Value::String(one)) => one.clone(),
        Some(Value::Array(some)) => {
            some.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" or ")
        }
        _ => match schema.get("const") {
            Some(only) => only.to_string(),
            None => String::from("anything"),
        },
    }
}

#[cfg(test)]
mod tests;
