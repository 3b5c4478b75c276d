//! `event::schema`, by cases.

use std::sync::Arc;

use super::*;
use crate::event::route::tests::relation;
use crate::event::route::tests::rule;

fn orders() -> Arc<Relation> {
    let array = SqlType::Array { element: Arc::new(SqlType::Integer), delimiter: b',' };
    relation(
        "orders",
        &[
            ("id", SqlType::Integer),
            ("total", SqlType::Numeric),
            ("tags", array),
            ("doc", SqlType::Json),
        ],
    )
}

#[test]
fn the_usual_body_has_the_row_with_its_types() {
    let rule = rule("orders", PayloadSettings::Standard);
    let schema = of_body(&rule, &rule.payload, &orders());
    assert_eq!(schema["properties"]["type"]["const"], json!(&*rule.event_type));
    let data = &schema["properties"]["data"]["properties"];
    assert_eq!(data["id"], json!({ "type": ["integer", "null"] }));
    assert_eq!(data["total"], json!({ "type": ["number", "string", "null"] }));
    assert_eq!(data["tags"]["type"], json!(["array", "null"]));
    assert_eq!(data["doc"], json!({}), "anything");
    assert_eq!(schema["required"], json!(["type", "timestamp", "operation", "data"]));
}

#[test]
fn a_payload_of_ones_own_has_what_its_places_name() {
    let expression = |source: &str| TemplateNode::Value(Expression::parse(source).unwrap());
    let member = |name: &str, value, optional| crate::expression::template::TemplateMember {
        name: name.to_owned(),
        optional,
        value,
    };
    let root = TemplateNode::Object(vec![
        member("id", expression("string(id)"), false),
        member("total", expression("total"), true),
        member("large", expression("total > 5.0"), false),
        member("version", TemplateNode::Literal(String::from("\"1\"")), false),
        member("row", expression("row"), false),
    ]);
    let payload = PayloadSettings::Template { root: Arc::new(root), content_type: None };
    let rule = rule("orders", payload);
    let schema = of_body(&rule, &rule.payload, &orders());
    let of = |name: &str| schema["properties"][name].clone();
    assert_eq!(of("id"), json!({ "type": ["string", "null"] }));
    assert_eq!(of("large"), json!({ "type": ["boolean", "null"] }));
    assert_eq!(of("version"), json!({ "const": "1" }));
    assert_eq!(of("row")["properties"]["id"]["type"], json!(["integer", "null"]));
    assert_eq!(schema["required"], json!(["id", "large", "version", "row"]));
}

#[test]
fn what_a_table_has_become_is_told_by_member() {
    let rule = rule("orders", PayloadSettings::Standard);
    let before = of_body(&rule, &rule.payload, &orders());
    let altered = relation(
        "orders",
        &[("id", SqlType::Text), ("total", SqlType::Numeric), ("note", SqlType::Text)],
    );
    let now = of_body(&rule, &rule.payload, &altered);
    let told = changes(&before, &now);
    for expected in [
        "data.id was integer or null and is string or null",
        "data.tags is gone",
        "data.note is new: string or null",
    ] {
        assert!(told.iter().any(|one| one == expected), "{expected:?} is not in {told:?}");
    }
    assert_eq!(changes(&now, &now), Vec::<String>::new());
}
