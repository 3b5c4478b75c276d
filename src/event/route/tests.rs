//! `event::route`, by cases.

use std::num::NonZeroUsize;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value as Json;
use serde_json::json;

use super::*;
use crate::config::secret::Secret;
use crate::config::sections::endpoint_connection::ConnectionLink;
use crate::config::settings::AddressPolicy;
use crate::config::settings::AnswerRule;
use crate::config::settings::BatchSettings;
use crate::config::settings::EventFilter;
use crate::config::settings::EventGlob;
use crate::config::settings::ExpiryRule;
use crate::config::settings::JsonForm;
use crate::config::settings::KeyOrdering;
use crate::config::settings::Operations;
use crate::config::settings::ParkingSettings;
use crate::config::settings::PayloadSettings;
use crate::config::settings::RequestTemplate;
use crate::config::settings::RetryDelays;
use crate::config::settings::RetrySettings;
use crate::config::settings::SourcePlaces;
use crate::config::settings::TraceSource;
use crate::expression::Expression;
use crate::flow::change::ColumnField;
use crate::flow::change::OldRow;
use crate::flow::change::RowTuple;
use crate::flow::event::Event;
use crate::flow::key::KeyHash;
use crate::flow::lsn::Lsn;
use crate::flow::lsn::Position;
use crate::flow::relation::Column;
use crate::flow::relation::Relation;
use crate::flow::relation::ReplicaIdentity;
use crate::flow::relation::SqlType;
use crate::flow::relation::TableName;

pub(crate) const COMMITTED: Timestamp = Timestamp::from_micros(1_703_123_440_250_000);

pub(crate) fn relation(name: &str, columns: &[(&str, SqlType)]) -> Arc<Relation> {
    let column = |(index, (name, sql_type)): (usize, &(&str, SqlType))| Column {
        name: (*name).to_owned(),
        type_oid: 0,
        identity: index == 0,
        sql_type: Arc::new(sql_type.clone()),
    };
    Arc::new(Relation {
        oid: 16_384,
        table: TableName::new("public", name),
        identity: ReplicaIdentity::Default,
        columns: columns.iter().enumerate().map(column).collect(),
        key: vec![0],
        row_key: vec![0],
    })
}

/// `None` is null; `"\0"` stands for a value that PostgreSQL did not send.
pub(crate) fn row(values: &[Option<&str>]) -> RowTuple {
    let mut raw = Vec::new();
    let mut fields = Vec::new();
    for value in values {
        fields.push(match value {
            None => ColumnField::Null,
            Some("\0") => ColumnField::Unchanged,
            Some(text) => {
                let start = raw.len();
                raw.extend_from_slice(text.as_bytes());
                ColumnField::Text(start..raw.len())
            }
        });
    }
    RowTuple::new(Bytes::from(raw), fields.into()).unwrap()
}

pub(crate) fn change(relation: &Arc<Relation>, op: ChangeOp) -> CommittedChange {
    CommittedChange {
        position: Position { commit: Lsn::from_raw(0x1A2B), ordinal: 3 },
        committed: COMMITTED,
        relation: Arc::clone(relation),
        op,
        xid: 0,
        metadata: None,
        trace: None,
        held: None,
    }
}

pub(crate) fn rule(table: &str, payload: PayloadSettings) -> EventRule {
    EventRule {
        event_type: Arc::from("thing.changed"),
        table: TableName::new("public", table),
        on: Operations {
            insert: true,
            update: true,
            delete: true,
            truncate: true,
            ..Operations::default()
        },
        backfill: false,
        filter: None,
        expiry: None,
        order_by: Vec::new(),
        payload,
        write_back: None,
        dedupe: None,
        json: JsonForm::Stored,
        trace: TraceSource::default(),
        places: SourcePlaces::default(),
    }
}

pub(crate) fn endpoint(events: &str) -> Endpoint {
    Endpoint {
        name: Arc::from("e"),
        enabled: true,
        url: Secret::new("http://127.0.0.1/".parse().unwrap()),
        events: vec![EventGlob::new(events)],
        only: None,
        filter: None,
        payload: None,
        signing: None,
        auth: None,
        channel: None,
        headers: http::HeaderMap::new(),
        user_agent: String::from("test"),
        timeout: Duration::from_secs(1),
        retry: RetrySettings {
            delays: RetryDelays::Exponential { max: 0, interval: Duration::from_secs(1) },
            cap: Duration::from_secs(1),
        },
        concurrency: NonZeroUsize::MIN,
        batch: BatchSettings { size: NonZeroUsize::MIN, linger: Duration::ZERO },
        ordering: KeyOrdering::Key,
        capacity: NonZeroUsize::MIN,
        rate_limit: None,
        parking: ParkingSettings::default(),
        answers: AnswerRule::default(),
        addresses: AddressPolicy::Operator,
        link: ConnectionLink::default(),
        response_limit: 0,
        test: None,
        renamed_from: None,
        unusable: None,
        request: RequestTemplate::default(),
        places: SourcePlaces::default(),
    }
}

fn route(rule: &EventRule, change: &CommittedChange, now: Timestamp) -> Vec<RoutedEvent> {
    let mut router = EventRouter::new(7, std::slice::from_ref(rule), &[endpoint("*")]);
    let mut routed = Vec::new();
    router.route(change, now, |_, outcome| routed.push(outcome));
    routed
}

pub(crate) fn event(rule: &EventRule, change: &CommittedChange) -> Box<Event> {
    match route(rule, change, COMMITTED).pop() {
        Some(RoutedEvent::Event(event)) => event,
        other => panic!("no event but {other:?}"),
    }
}

pub(crate) fn body(event: &Event, now: Timestamp) -> Json {
    serde_json::from_slice(&event.body.complete(now)).unwrap()
}

fn things() -> Arc<Relation> {
    let columns = [("id", SqlType::Integer), ("name", SqlType::Text), ("doc", SqlType::Json)];
    relation("things", &columns)
}

fn wallets() -> Arc<Relation> {
    let text = SqlType::Text;
    relation(
        "ocr_wallet_info",
        &[
            ("id", SqlType::Integer),
            ("source_ip", text.clone()),
            ("msg_id", text.clone()),
            ("group_id", text.clone()),
            ("wallet_code", text.clone()),
            ("serial_no", text.clone()),
            ("wx_id", text.clone()),
            ("wx_nick_name", text.clone()),
            ("pic_url", text),
            ("create_time", SqlType::TimestampTz),
        ],
    )
}

fn wallet(code: Option<&str>, pic_url: Option<&str>) -> CommittedChange {
    let values = [
        Some("123"),
        Some("192.168.1.100"),
        Some("123456789"),
        Some("group123@chatroom"),
        code,
        Some("SN789012345"),
        Some("user123"),
        Some("张三"),
        pic_url,
        Some("2023-12-21 01:50:00+00"),
    ];
    change(&wallets(), ChangeOp::Insert { new: row(&values) })
}

fn wallet_rule() -> EventRule {
    EventRule {
        event_type: Arc::from("ocr_wallet_data"),
        on: Operations { insert: true, ..Operations::default() },
        filter: Some(EventFilter::NotBlank { column: String::from("wallet_code") }),
        expiry: Some(ExpiryRule {
            column: Some(String::from("create_time")),
            max_age: Duration::from_secs(300),
        }),
        ..rule("ocr_wallet_info", PayloadSettings::OcrWallet)
    }
}

#[test]
fn a_recognised_wallet_has_the_body_of_contract_1_byte_for_byte() {
    let url = "https://minio.example.com/images/wallet_123.jpg";
    let event = event(&wallet_rule(), &wallet(Some("ABC123DEF456"), Some(url)));
    let expected = concat!(
        r#"{"event_type":"ocr_wallet_data","timestamp":1703123456,"version":"1.0","#,
        r#""source":"ocr_wallet_service","data":{"id":123,"source_ip":"192.168.1.100","#,
        r#""msg_id":"123456789","group_id":"group123@chatroom","wallet_code":"ABC123DEF456","#,
        r#""serial_no":"SN789012345","wx_id":"user123","wx_nick_name":"张三","#,
        r#""pic_url":"https://minio.example.com/images/wallet_123.jpg","create_time":1703123400},"#,
        r#""metadata":{"data_age_seconds":56.500,"push_source":"wx-msg-chat"}}"#,
    );
    let at = Timestamp::from_micros(1_703_123_456_500_000);
    assert_eq!(std::str::from_utf8(&event.body.complete(at)).unwrap(), expected);
    assert_eq!(event.facts.find("id"), Some("123"));
    assert_eq!(event.facts.find("wallet_code"), Some("ABC123DEF456"));
}

#[test]
fn pic_url_is_left_out_when_null() {
    let event = event(&wallet_rule(), &wallet(Some("ABC"), None));
    assert!(body(&event, COMMITTED)["data"].get("pic_url").is_none());
}

#[test]
fn a_wallet_without_a_code_is_not_recognised() {
    let cases = [(None, true), (Some(""), true), (Some(" \t\u{3000}"), true), (Some("x"), false)];
    for (code, filtered) in cases {
        let routed = route(&wallet_rule(), &wallet(code, None), COMMITTED);
        assert_eq!(matches!(routed[..], [RoutedEvent::Filtered]), filtered, "case: {code:?}");
    }
}

#[test]
fn a_row_is_expired_by_its_own_age_column() {
    let change = wallet(Some("ABC"), None);
    let born = Timestamp::from_seconds(1_703_123_400);
    let at = |seconds: i64| born.shifted(seconds * 1_000_000);
    assert!(matches!(route(&wallet_rule(), &change, at(300))[..], [RoutedEvent::Event(_)]));
    assert!(matches!(route(&wallet_rule(), &change, at(301))[..], [RoutedEvent::Expired { .. }]));
}

#[test]
fn a_row_that_does_not_say_when_it_was_born_counts_from_its_commit() {
    let mut values = vec![None; 10];
    values[4] = Some("ABC");
    let change = change(&wallets(), ChangeOp::Insert { new: row(&values) });
    let late = COMMITTED.shifted(301_000_000);
    assert!(matches!(route(&wallet_rule(), &change, COMMITTED)[..], [RoutedEvent::Event(_)]));
    assert!(matches!(route(&wallet_rule(), &change, late)[..], [RoutedEvent::Expired { .. }]));
}

#[test]
fn the_standard_body_shows_the_row_and_what_is_known_of_the_old_one() {
    let new = || row(&[Some("1"), Some("\0"), Some("{\"a\": 1}")]);
    let insert = ChangeOp::Insert { new: row(&[Some("1"), Some("n"), None]) };
    let keyed =
        ChangeOp::Update { old: Some(OldRow::Key(row(&[Some("9"), None, None]))), new: new() };
    let full = ChangeOp::Update {
        old: Some(OldRow::Full(row(&[Some("1"), Some("big"), None]))),
        new: new(),
    };
    let delete = ChangeOp::Delete { old: OldRow::Key(row(&[Some("1"), None, None])) };
    let cases = [
        ("insert", insert, json!({"data": {"id": 1, "name": "n", "doc": null}})),
        (
            "update of the key",
            keyed,
            json!({"data": {"id": 1, "doc": {"a": 1}}, "old": {"id": 9}, "unchanged": ["name"]}),
        ),
        (
            "update with the whole old row",
            full,
            json!({
                "data": {"id": 1, "name": "big", "doc": {"a": 1}},
                "old": {"id": 1, "name": "big", "doc": null},
            }),
        ),
        ("delete", delete, json!({"data": {"id": 1}})),
        ("truncate", ChangeOp::Truncate, json!({"data": null})),
    ];
    for (name, op, expected) in cases {
        let event = event(&rule("things", PayloadSettings::Standard), &change(&things(), op));
        let mut actual = body(&event, COMMITTED);
        let envelope = actual.as_object_mut().unwrap();
        assert_eq!(envelope.remove("type").unwrap(), "thing.changed", "case: {name}");
        assert_eq!(envelope.remove("timestamp").unwrap(), "2023-12-21T01:50:40.250Z");
        let operation = envelope.remove("operation").unwrap();
        assert!(operation.as_str().is_some_and(|told| name.starts_with(told)), "case: {name}");
        assert_eq!(actual, expected, "case: {name}");
    }
}

#[test]
fn metadata_joins_the_standard_body_and_cannot_break_it() {
    let cases = [
        (r#"{"user_id":"admin"}"#, json!({"user_id": "admin"})),
        (r#"{"user_id""#, json!(r#"{"user_id""#)),
    ];
    for (given, expected) in cases {
        let mut change = change(&things(), ChangeOp::Insert { new: row(&[Some("1"), None, None]) });
        change.metadata = Some(Bytes::from_static(given.as_bytes()));
        let event = event(&rule("things", PayloadSettings::Standard), &change);
        assert_eq!(body(&event, COMMITTED)["metadata"], expected, "case: {given}");
    }
}

#[test]
fn a_large_text_is_not_copied() {
    let text = "é\"".repeat(300_000);
    let new = row(&[Some("1"), Some(&text), None]);
    let change = change(&things(), ChangeOp::Insert { new });
    let event = event(&rule("things", PayloadSettings::Standard), &change);
    let is_slice = |part: &crate::flow::body::BodyPart| matches!(part, crate::flow::body::BodyPart::Escaped(slice) if slice.len() == text.len());
    assert!(event.body.parts().iter().any(is_slice));
    assert_eq!(body(&event, COMMITTED)["data"]["name"], Json::String(text));
}

#[test]
fn a_changed_key_keeps_the_order_of_both() {
    let inserted = |id| {
        event(
            &rule("things", PayloadSettings::Standard),
            &change(&things(), ChangeOp::Insert { new: row(&[Some(id), None, None]) }),
        )
    };
    let old = Some(OldRow::Key(row(&[Some("1"), None, None])));
    let moved = ChangeOp::Update { old, new: row(&[Some("2"), None, None]) };
    let moved = event(&rule("things", PayloadSettings::Standard), &change(&things(), moved));
    let keys: Vec<KeyHash> = moved.keys.iter().collect();
    let (one, two) = (inserted("1"), inserted("2"));
    assert_eq!(keys.len(), 2);
    assert!(one.keys.iter().chain(two.keys.iter()).all(|key| keys.contains(&key)));
}

#[test]
fn order_columns_that_the_old_row_does_not_carry_count_as_unchanged() {
    let rule = EventRule {
        order_by: vec![String::from("name")],
        ..rule("things", PayloadSettings::Standard)
    };
    let inserted = ChangeOp::Insert { new: row(&[Some("1"), Some("n"), None]) };
    let updated = ChangeOp::Update { old: None, new: row(&[Some("1"), Some("n"), None]) };
    let inserted = event(&rule, &change(&things(), inserted));
    let updated = event(&rule, &change(&things(), updated));
    assert_eq!(inserted.keys, updated.keys);
    // With another row as well, it would need more than two keys.
    let old = Some(OldRow::Key(row(&[Some("1"), None, None])));
    let moved = ChangeOp::Update { old, new: row(&[Some("2"), Some("n"), None]) };
    assert!(event(&rule, &change(&things(), moved)).keys.is_barrier());
}

#[test]
fn facts_cannot_forge_a_log_line() {
    let mut change = wallet(Some("A\nB\u{1b}[2J"), None);
    let forged = event(&wallet_rule(), &change);
    assert_eq!(forged.facts.find("wallet_code"), Some("A\u{FFFD}B\u{FFFD}[2J"));
    change = wallet(Some(&"长".repeat(5_000)), None);
    let long = event(&wallet_rule(), &change);
    assert_eq!(long.facts.find("wallet_code").unwrap().chars().count(), 128);
}

#[test]
fn an_id_depends_on_the_change_and_not_on_the_rules_around_it() {
    let insert = || change(&things(), ChangeOp::Insert { new: row(&[Some("1"), None, None]) });
    let mine = rule("things", PayloadSettings::Standard);
    let other = EventRule { event_type: Arc::from("other"), ..mine.clone() };
    let mut router = EventRouter::new(7, &[other, mine.clone()], &[endpoint("thing.*")]);
    let mut ids = Vec::new();
    router.route(&insert(), COMMITTED, |rule, outcome| {
        if let RoutedEvent::Event(event) = outcome {
            ids.push((rule, event.id));
        }
    });
    assert_eq!(ids[1].1, event(&mine, &insert()).id);
    assert_ne!(ids[0].1, ids[1].1);
    assert_eq!(*router.everybody(RuleIndex(0)), []);
    assert_eq!(*router.everybody(RuleIndex(1)), [EndpointIndex(0)]);
}

fn when(source: &str) -> Option<EventFilter> {
    Some(EventFilter::When(Expression::parse(source).unwrap()))
}

pub(crate) fn orders(identity: ReplicaIdentity) -> Arc<Relation> {
    let columns = [
        ("id", SqlType::Integer),
        ("status", SqlType::Text),
        ("total", SqlType::Numeric),
        ("doc", SqlType::Json),
        ("tags", SqlType::Array { element: Arc::new(SqlType::Text), delimiter: b',' }),
        ("paid_at", SqlType::TimestampTz),
        ("event", SqlType::Text),
    ];
    let mut relation = Relation::clone(&relation("orders", &columns));
    relation.identity = identity;
    Arc::new(relation)
}

pub(crate) const ORDER: [Option<&str>; 7] = [
    Some("9007199254740993"),
    Some("paid"),
    Some("12.50"),
    Some(r#"{"kind": "b2b", "lines": [1, 2]}"#),
    Some("{red,blue}"),
    Some("2023-12-21 01:50:00.5+00"),
    None,
];

#[test]
fn a_filter_sees_columns_by_their_types() {
    let cases = [
        ("id == 9007199254740993", true),
        ("id == 9007199254740992", false),
        ("status == 'paid' && total > 12", true),
        ("total == 12.5", true),
        ("doc.kind == 'b2b' && size(doc.lines) == 2", true),
        ("'red' in tags && tags.exists(tag, tag.startsWith('bl'))", true),
        ("int(paid_at) == 1703123400", true),
        ("paid_at < committed && now - committed == duration('0s')", true),
        ("age == duration('0s')", true),
        ("row.event == null && event == 'thing.changed'", true),
        ("op == 'insert' && table == 'public.orders'", true),
        ("old == null && old.status == null", true),
        ("has(metadata.user_id)", false),
        ("size(row) == 7", true),
    ];
    let change = change(&orders(ReplicaIdentity::Default), ChangeOp::Insert { new: row(&ORDER) });
    for (source, expected) in cases {
        let rule = EventRule { filter: when(source), ..rule("orders", PayloadSettings::Standard) };
        let routed = route(&rule, &change, COMMITTED);
        assert_eq!(matches!(routed[..], [RoutedEvent::Event(_)]), expected, "case: {source}");
    }
}

#[test]
fn a_filter_without_a_value_lets_nothing_through_and_stops_nothing() {
    let sources = [
        "nothing == 1",
        "row.event > 5",
        "doc.missing == 1",
        "status",
        "id / 0 == 1",
        "doc.lines[9] == 1",
        "status + 1 == 2",
        "json(status).x == 1",
        "id + 9223372036854775807 > 0",
        "old.status == 'x'",
    ];
    let full = orders(ReplicaIdentity::Default);
    for source in sources {
        let rule = EventRule { filter: when(source), ..rule("orders", PayloadSettings::Standard) };
        let update = ChangeOp::Update { old: None, new: row(&ORDER) };
        let routed = route(&rule, &change(&full, update), COMMITTED);
        assert!(matches!(routed[..], [RoutedEvent::Filtered]), "case: {source}: {routed:?}");
    }
}

#[test]
fn a_filter_sees_what_the_row_was() {
    let with = |status: Option<&'static str>| {
        let mut values = ORDER;
        values[1] = status;
        row(&values)
    };
    let source = "status == 'paid' && old.status != 'paid'";
    let full = |old, new| ChangeOp::Update { old: Some(OldRow::Full(with(old))), new: with(new) };
    let cases = [
        ("becomes", full(Some("new"), Some("paid")), true),
        ("was null", full(None, Some("paid")), true),
        ("stays", full(Some("paid"), Some("paid")), false),
        ("leaves", full(Some("paid"), Some("sent")), false),
        ("inserted", ChangeOp::Insert { new: with(Some("paid")) }, true),
        ("deleted", ChangeOp::Delete { old: OldRow::Full(with(Some("paid"))) }, false),
    ];
    let rule = EventRule { filter: when(source), ..rule("orders", PayloadSettings::Standard) };
    for (name, op, expected) in cases {
        let routed = route(&rule, &change(&orders(ReplicaIdentity::Full), op), COMMITTED);
        assert_eq!(matches!(routed[..], [RoutedEvent::Event(_)]), expected, "case: {name}");
    }
}

#[test]
fn an_identity_column_that_came_with_no_old_row_was_what_it_is() {
    let rule =
        EventRule { filter: when("id == old.id"), ..rule("orders", PayloadSettings::Standard) };
    let moved = |old| ChangeOp::Update { old, new: row(&ORDER) };
    let key = OldRow::Key(row(&[Some("1"), None, None, None, None, None, None]));
    let relation = orders(ReplicaIdentity::Default);
    let same = route(&rule, &change(&relation, moved(None)), COMMITTED);
    let other = route(&rule, &change(&relation, moved(Some(key))), COMMITTED);
    let missing = change(&orders(ReplicaIdentity::Full), moved(None));
    assert!(matches!(same[..], [RoutedEvent::Event(_)]));
    assert!(matches!(other[..], [RoutedEvent::Filtered]));
    assert!(
        matches!(route(&rule, &missing, COMMITTED)[..], [RoutedEvent::Filtered]),
        "nothing is known"
    );
}

#[test]
fn one_change_raises_several_events_in_the_order_of_the_settings() {
    let named = |name: &str, source| EventRule {
        event_type: Arc::from(name),
        filter: when(source),
        ..rule("orders", PayloadSettings::Standard)
    };
    let rules = [named("a", "true"), named("b", "total > 99"), named("c", "total > 1")];
    let mut router = EventRouter::new(7, &rules, &[endpoint("*")]);
    let mut seen = Vec::new();
    let insert = ChangeOp::Insert { new: row(&ORDER) };
    let change = change(&orders(ReplicaIdentity::Default), insert);
    router.route(&change, COMMITTED, |rule, outcome| {
        seen.push((rule.0, matches!(outcome, RoutedEvent::Event(_))));
    });
    assert_eq!(seen, [(0, true), (1, false), (2, true)]);
}

#[test]
fn an_endpoint_gets_what_its_filter_is_true_for() {
    let filtered = |source: &str| Endpoint {
        filter: Some(Expression::parse(source).unwrap()),
        ..endpoint("*")
    };
    let endpoints = [filtered("total < 1"), endpoint("*"), filtered("total > 1"), endpoint("no")];
    let rule = rule("orders", PayloadSettings::Standard);
    let mut router = EventRouter::new(7, std::slice::from_ref(&rule), &endpoints);
    let mut to = Vec::new();
    let insert = ChangeOp::Insert { new: row(&ORDER) };
    let change = change(&orders(ReplicaIdentity::Default), insert);
    router.route(&change, COMMITTED, |_, outcome| match outcome {
        RoutedEvent::Partly { endpoints, .. } => to = endpoints,
        other => panic!("{other:?}"),
    });
    assert_eq!(to, [EndpointIndex(1), EndpointIndex(2)]);
    assert_eq!(*router.everybody(RuleIndex(0)), [EndpointIndex(1)]);
    let all = [EndpointIndex(1), EndpointIndex(0), EndpointIndex(2)];
    assert_eq!(*router.of_unknown(RuleIndex(0)), all);
}
