//! `event::template`, by cases and properties.

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::Value as Json;

use super::*;
use crate::config::settings::CloudEventsMode;
use crate::config::settings::PayloadSettings;
use crate::event::route::tests::COMMITTED;
use crate::event::route::tests::change;
use crate::event::route::tests::event;
use crate::event::route::tests::relation;
use crate::event::route::tests::row;
use crate::event::route::tests::rule;
use crate::expression::Expression;
use crate::flow::change::ChangeOp;
use crate::flow::change::CommittedChange;
use crate::flow::change::OldRow;
use crate::flow::change::RowTuple;
use crate::flow::relation::SqlType;
use crate::flow::time::Timestamp;

fn value(source: &str) -> TemplateNode {
    TemplateNode::Value(Expression::parse(source).unwrap())
}

fn piece(source: &str) -> TemplatePiece {
    TemplatePiece::Value(Expression::parse(source).unwrap())
}

fn object(members: &[(&str, TemplateNode)]) -> TemplateNode {
    let member =
        |(name, value): &(&str, TemplateNode)| crate::expression::template::TemplateMember {
            name: name.trim_end_matches('?').to_owned(),
            optional: name.ends_with('?'),
            value: value.clone(),
        };
    TemplateNode::Object(members.iter().map(member).collect())
}

fn payload(root: TemplateNode) -> PayloadSettings {
    PayloadSettings::Template { root: Arc::new(root), content_type: None }
}

fn table() -> Arc<Relation> {
    relation(
        "things",
        &[
            ("id", SqlType::Integer),
            ("name", SqlType::Text),
            ("price", SqlType::Numeric),
            ("doc", SqlType::Json),
            ("at", SqlType::TimestampTz),
            ("flag", SqlType::Bool),
        ],
    )
}

fn thing() -> RowTuple {
    row(&[
        Some("7654321098765432123"),
        Some("a \"b\"\n"),
        Some("1.10"),
        Some(r#"{"z": 1, "a": [true, 1.50]}"#),
        Some("2023-12-21 01:50:00.25+00"),
        None,
    ])
}

/// The body for a change, as of 16.5 s after its commit.
fn rendered(payload: PayloadSettings, change: &CommittedChange) -> String {
    let event = event(&rule("things", payload), change);
    let body = event.body.complete(COMMITTED.shifted(16_500_000));
    String::from_utf8(body.to_vec()).unwrap()
}

#[test]
fn a_place_that_is_one_expression_keeps_its_type() {
    let cases = [
        ("id", "7654321098765432123"),
        ("string(id)", "\"7654321098765432123\""),
        ("name", r#""a \"b\"\n""#),
        ("price", "1.10"),
        ("string(price)", "\"1.10\""),
        ("price * 2.0", "2.2"),
        ("doc", r#"{"z":1,"a":[true,1.50]}"#),
        ("doc.a", "[true,1.5]"),
        ("string(doc)", r#""{\"z\":1,\"a\":[true,1.50]}""#),
        ("at", "\"2023-12-21T01:50:00.25Z\""),
        ("int(at)", "1703123400"),
        ("at + duration('90s')", "\"2023-12-21T01:51:30.250Z\""),
        ("flag", "null"),
        ("flag == null ? 'none' : 'some'", "\"none\""),
        ("old.name", "null"),
        ("old", "null"),
        ("changes", "null"),
        ("metadata", "null"),
        ("op", "\"insert\""),
        ("event", "\"thing.changed\""),
        ("table", "\"public.things\""),
        ("committed", "\"2023-12-21T01:50:40.250Z\""),
        ("int(committed)", "1703123440"),
        ("now", "\"2023-12-21T01:50:56.750Z\""),
        ("int(now)", "1703123456"),
        ("age", "16.500"),
        ("size(name) > 3 && 'z' in doc", "true"),
        ("{'b': id, 'a': [1u, 2.0, b'x']}", r#"{"a":[1,2.0,"eA=="],"b":7654321098765432123}"#),
        ("committed - at", "40.000"),
        ("nothing", "null"),
        ("doc.missing", "null"),
        ("0.0 / 0.0", "\"NaN\""),
    ];
    let change = change(&table(), ChangeOp::Insert { new: thing() });
    for (source, expected) in cases {
        assert_eq!(rendered(payload(value(source)), &change), expected, "case: {source}");
    }
    let id = rendered(payload(value("event_id")), &change);
    assert_eq!(
        id,
        format!("\"{}\"", event(&rule("things", PayloadSettings::Standard), &change).id)
    );
}

#[test]
fn a_key_that_may_be_left_out_is_left_out_when_null() {
    let root = object(&[
        ("a?", value("flag")),
        ("b?", value("doc.missing")),
        ("c?", value("metadata")),
        ("d?", value("old.name")),
    ]);
    let change = change(&table(), ChangeOp::Insert { new: thing() });
    assert_eq!(rendered(payload(root), &change), "{}");
    let root = object(&[
        ("a?", value("flag")),
        ("b", value("flag")),
        ("c?", value("id")),
        ("d?", value("doc.a[0]")),
        (
            "e",
            TemplateNode::List(vec![
                value("id"),
                TemplateNode::Literal("1".to_owned()),
                object(&[]),
            ]),
        ),
    ]);
    let expected = r#"{"b":null,"c":7654321098765432123,"d":true,"e":[7654321098765432123,1,{}]}"#;
    assert_eq!(rendered(payload(root), &change), expected);
}

#[test]
fn a_text_holds_values_as_people_read_them() {
    let pieces = |around: &[&str]| -> Vec<TemplatePiece> {
        let mut pieces = vec![TemplatePiece::Literal("\"<".to_owned())];
        for source in around {
            pieces.extend([piece(source), TemplatePiece::Literal("|".to_owned())]);
        }
        pieces
    };
    let sources = ["name", "id", "price", "flag", "at", "doc", "now", "int(now)", "age", "op"];
    let change = change(&table(), ChangeOp::Insert { new: thing() });
    let expected = concat!(
        "\"<a \"b\"\n|7654321098765432123|1.10||2023-12-21T01:50:00.25Z|",
        r#"{"z":1,"a":[true,1.50]}"#,
        "|2023-12-21T01:50:56.750Z|1703123456|16.500|insert|",
    );
    let quoted = rendered(payload(TemplateNode::Text(pieces(&sources))), &change);
    assert_eq!(serde_json::from_str::<String>(&quoted).unwrap(), expected);
    let content_type = http::HeaderValue::from_static("text/markdown");
    let text = PayloadSettings::Text { pieces: Arc::from(pieces(&sources)), content_type };
    assert_eq!(rendered(text.clone(), &change), expected);
    let event = event(&rule("things", text), &change);
    assert_eq!(event.body.headers()[0].1, "text/markdown");
}

#[test]
fn an_update_shows_what_it_changed() {
    let old = row(&[Some("1"), Some("x"), Some("1.10"), None, None, None]);
    let new = row(&[Some("1"), Some("y"), Some("1.10"), Some("\0"), Some("\0"), Some("t")]);
    let mut update = change(&table(), ChangeOp::Update { old: Some(OldRow::Full(old)), new });
    update.metadata = Some(Bytes::from_static(br#"{"user_id": "admin"}"#));
    let cases = [
        ("changes", r#"{"name":"x","flag":null}"#),
        ("'name' in changes && !('price' in changes)", "true"),
        ("old.name + name", "\"xy\""),
        ("metadata", r#"{"user_id":"admin"}"#),
        ("metadata.user_id", "\"admin\""),
        ("size(old)", "6"),
    ];
    for (source, expected) in cases {
        assert_eq!(rendered(payload(value(source)), &update), expected, "case: {source}");
    }
}

#[test]
fn cloudevents_are_structured_or_binary() {
    let insert = change(
        &table(),
        ChangeOp::Insert { new: row(&[Some("1"), Some("n"), None, None, None, None]) },
    );
    let id = event(&rule("things", PayloadSettings::Standard), &insert).id;
    let data = r#"{"id":1,"name":"n","price":null,"doc":null,"at":null,"flag":null}"#;
    let structured = PayloadSettings::CloudEvents(CloudEventsMode::Structured);
    assert_eq!(
        rendered(structured.clone(), &insert),
        format!(
            "{{\"specversion\":\"1.0\",\"id\":\"{id}\",\"source\":\"/public/things\",\
             \"type\":\"thing.changed\",\"time\":\"2023-12-21T01:50:40.250Z\",\
             \"operation\":\"insert\",\"datacontenttype\":\"application/json\",\"data\":{data}}}"
        )
    );
    let headers = |payload| {
        let event = event(&rule("things", payload), &insert);
        let shown = event.body.headers().iter();
        shown.map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect::<Vec<_>>()
    };
    let binary = PayloadSettings::CloudEvents(CloudEventsMode::Binary);
    assert_eq!(rendered(binary.clone(), &insert), data);
    assert_eq!(headers(structured), ["content-type: application/cloudevents+json; charset=utf-8"]);
    assert_eq!(
        headers(binary),
        [
            "ce-specversion: 1.0".to_owned(),
            format!("ce-id: {id}"),
            "ce-source: /public/things".to_owned(),
            "ce-type: thing.changed".to_owned(),
            "ce-time: 2023-12-21T01:50:40.250Z".to_owned(),
            "ce-operation: insert".to_owned(),
        ]
    );
}

#[test]
fn debezium_has_its_envelope() {
    let old = || row(&[Some("1"), Some("x"), None, None, None, None]);
    let new = || row(&[Some("1"), Some("y"), None, None, None, None]);
    let json = |name: &str| {
        format!(r#"{{"id":1,"name":"{name}","price":null,"doc":null,"at":null,"flag":null}}"#)
    };
    let null = "null".to_owned();
    let cases = [
        (ChangeOp::Insert { new: new() }, null.clone(), json("y"), "c"),
        (
            ChangeOp::Update { old: Some(OldRow::Full(old())), new: new() },
            json("x"),
            json("y"),
            "u",
        ),
        (ChangeOp::Delete { old: OldRow::Full(old()) }, json("x"), null.clone(), "d"),
        (ChangeOp::Truncate, null.clone(), null, "t"),
    ];
    for (op, before, after, code) in cases {
        let expected = format!(
            "{{\"before\":{before},\"after\":{after},\"source\":{{\"version\":\"{}\",\
             \"connector\":\"postgresql\",\"name\":\"walhook\",\"snapshot\":\"false\",\
             \"ts_ms\":1703123440250,\"schema\":\"public\",\"table\":\"things\",\"lsn\":6699}},\
             \"op\":\"{code}\",\"ts_ms\":1703123440250}}",
            env!("CARGO_PKG_VERSION"),
        );
        assert_eq!(
            rendered(PayloadSettings::Debezium, &change(&table(), op)),
            expected,
            "case: {code}"
        );
    }
}

proptest! {
    /// Whatever a column holds, what is rendered stays one JSON document.
    #[test]
    fn a_value_can_never_break_the_json(name: Vec<u8>, doc: Vec<u8>, at: String, metadata: Vec<u8>) {
        let mut raw = Vec::new();
        let mut fields = vec![crate::flow::change::ColumnField::Null];
        for text in [name.as_slice(), at.as_bytes(), &doc, at.as_bytes(), &name] {
            fields.push(crate::flow::change::ColumnField::Text(raw.len()..raw.len() + text.len()));
            raw.extend_from_slice(text);
        }
        let new = RowTuple::new(Bytes::from(raw), fields.into()).unwrap();
        let mut insert = change(&table(), ChangeOp::Insert { new });
        insert.metadata = Some(Bytes::from(metadata));
        let sources = [
            "name", "string(name)", "price", "string(price)", "doc", "string(doc)", "at",
            "int(at)", "flag", "string(flag)", "row", "metadata", "name + name", "doc.a",
            "{name: doc}",
        ];
        let text = sources.iter().flat_map(|s| [TemplatePiece::Literal("\"\\".to_owned()), piece(s)]);
        let mut members: Vec<(&str, TemplateNode)> = sources.iter().map(|s| (*s, value(s))).collect();
        members.push(("text", TemplateNode::Text(text.collect())));
        members.push(("optional?", value("name")));
        let body = rendered(payload(object(&members)), &insert);
        let read: Json = serde_json::from_str(&body).unwrap();
        prop_assert_eq!(read.as_object().unwrap().len(), sources.len() + 2);
        let lossy = String::from_utf8_lossy(&name).into_owned();
        prop_assert_eq!(&read["name"], &Json::String(lossy));
    }
}

#[test]
fn the_age_counts_from_the_column_of_the_rule() {
    let mut rule = rule("things", payload(value("age")));
    rule.expiry = Some(crate::config::settings::ExpiryRule {
        column: Some("at".to_owned()),
        max_age: std::time::Duration::from_secs(3600),
    });
    let event = event(&rule, &change(&table(), ChangeOp::Insert { new: thing() }));
    let at = Timestamp::from_seconds(1_703_123_402);
    assert_eq!(event.body.complete(at), "1.750");
}
