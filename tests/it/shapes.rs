//! Contracts 2, 3 and 4 from a change to the request on the wire: exact bodies and headers, under
//! the configuration files as they are.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]

mod golden;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;
use serde_json::json;
use walhook::testing::config;
use walhook::testing::config::configuration::Settings;
use walhook::testing::config::settings::AddressPolicy;
use walhook::testing::config::settings::Endpoint;
use walhook::testing::delivery::http::EndpointClient;
use walhook::testing::delivery::network::DeliveryNetwork;
use walhook::testing::event::plan::RoutedEvent;
use walhook::testing::event::route::EventRouter;
use walhook::testing::flow::change::ChangeOp;
use walhook::testing::flow::change::ColumnField;
use walhook::testing::flow::change::CommittedChange;
use walhook::testing::flow::change::OldRow;
use walhook::testing::flow::change::RowTuple;
use walhook::testing::flow::event::Event;
use walhook::testing::flow::lease::Lease;
use walhook::testing::flow::lease::LeaseId;
use walhook::testing::flow::lsn::Lsn;
use walhook::testing::flow::lsn::Position;
use walhook::testing::flow::relation::Column;
use walhook::testing::flow::relation::Relation;
use walhook::testing::flow::relation::ReplicaIdentity;
use walhook::testing::flow::relation::SqlType;
use walhook::testing::flow::relation::TableName;
use walhook::testing::flow::settlement::EndpointIndex;
use walhook::testing::flow::time::Timestamp;
use walhook::testing::flow::verdict::AttemptVerdict;

use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::Request;
use crate::support::receiver::always;

/// 2025-10-17T10:30:00.000Z, customer-events's example.
const COMMITTED: Timestamp = Timestamp::from_seconds(1_760_697_000);
const SENT: Timestamp = Timestamp::from_seconds(1_760_697_002);

const SECRET: &str = "your-secret-key";

fn settings(name: &str) -> Settings {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name);
    let mut text = std::fs::read_to_string(&path).unwrap();
    // Of the chat file the endpoint that stands there as an example is tried as well.
    if let Some((before, example)) = text.split_once("#   [[endpoint]]") {
        let is_chat = name == "wechat-messages.toml";
        let shown = |line: &str| line.strip_prefix("#   ").unwrap_or(line).to_owned() + "\n";
        let example: String = example.lines().map(shown).collect();
        text = if is_chat { format!("{before}[[endpoint]]{example}") } else { text };
    }
    let env = |name: &str| {
        if name == "WALHOOK_KEY" {
            return Some(format!("{}=", "A".repeat(43)));
        }
        let is_secret =
            ["SECRET", "PASSWORD", "TOKEN", "KEY"].iter().any(|end| name.ends_with(end));
        // Those of libpq, such as PGSSLKEY, are nobody's secret here.
        (is_secret && !name.starts_with("PG")).then(|| SECRET.to_owned())
    };
    config::parse(&text, &path.display().to_string(), &env).unwrap()
}

fn relation(name: &str, columns: &[(&str, SqlType)]) -> Arc<Relation> {
    let column = |(name, sql_type): &(&str, SqlType)| Column {
        name: (*name).to_owned(),
        type_oid: 0,
        identity: true,
        sql_type: Arc::new(sql_type.clone()),
    };
    Arc::new(Relation {
        oid: 16_384,
        table: TableName::new("public", name),
        identity: ReplicaIdentity::Full,
        columns: columns.iter().map(column).collect(),
        key: vec![0],
        row_key: vec![0],
    })
}

fn row(values: &[Option<&str>]) -> RowTuple {
    let mut raw = Vec::new();
    let mut fields = Vec::new();
    for value in values {
        let start = raw.len();
        raw.extend_from_slice(value.unwrap_or_default().as_bytes());
        fields.push(value.map_or(ColumnField::Null, |_| ColumnField::Text(start..raw.len())));
    }
    RowTuple::new(Bytes::from(raw), fields.into()).unwrap()
}

fn change(relation: &Arc<Relation>, op: ChangeOp) -> CommittedChange {
    CommittedChange {
        position: Position { commit: Lsn::from_raw(0x1A2B), ordinal: 0 },
        committed: COMMITTED,
        relation: Arc::clone(relation),
        op,
        xid: 0,
        metadata: None,
        trace: None,
        held: None,
    }
}

/// The events of a change, each with the endpoints that get it.
fn route(settings: &Settings, change: &CommittedChange) -> Vec<(Arc<Event>, Vec<EndpointIndex>)> {
    let mut router = EventRouter::new(7, &settings.events, &settings.endpoints);
    let mut routed = Vec::new();
    router.route(change, COMMITTED, |rule, outcome| routed.push((rule, outcome)));
    let events = routed.into_iter().filter_map(|(rule, outcome)| match outcome {
        RoutedEvent::Event(event) => Some((Arc::from(event), router.everybody(rule).to_vec())),
        RoutedEvent::Partly { event, endpoints, .. } => Some((Arc::from(event), endpoints)),
        RoutedEvent::Filtered
        | RoutedEvent::Repeat { .. }
        | RoutedEvent::Expired { .. }
        | RoutedEvent::Costly(_)
        | RoutedEvent::Poison(_) => None,
    });
    events.collect()
}

fn bodies(settings: &Settings, change: &CommittedChange) -> Vec<String> {
    let body = |(event, _): &(Arc<Event>, _)| event.body.complete(SENT);
    let events = route(settings, change);
    events.iter().map(|event| String::from_utf8(body(event).to_vec()).unwrap()).collect()
}

/// The request in which an endpoint gets an event.
async fn request(
    endpoint: &Endpoint,
    event: &Arc<Event>,
    answer: Answer,
) -> (Request, AttemptVerdict) {
    let receiver = Receiver::start(always(answer));
    let mut endpoint = endpoint.clone();
    endpoint.url = config::secret::Secret::new(receiver.url().parse().unwrap());
    let client = EndpointClient::new(&endpoint, &DeliveryNetwork::system()).unwrap();
    let lease =
        Lease { id: LeaseId(1), attempt: 1, replay: false, events: vec![Arc::clone(event)] };
    let exchange = client.attempt(&lease, SENT).await;
    (receiver.requests().remove(0), exchange.verdict)
}

fn hmac(content: &[u8]) -> String {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, SECRET.as_bytes());
    let tag = ring::hmac::sign(&key, content);
    tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn customers() -> Arc<Relation> {
    let text = || SqlType::Text;
    let columns = [
        ("id", SqlType::Integer),
        ("customer_no", text()),
        ("name", text()),
        ("phone", text()),
        ("product_id", SqlType::Integer),
        ("status", text()),
    ];
    relation("customers", &columns)
}

fn customer(status: &str) -> RowTuple {
    let values = ["123", "C001", "张三", "13800138000", "1", status];
    row(&values.map(Some))
}

#[tokio::test]
async fn customer_created_is_contract_2_byte_for_byte() {
    let settings = settings("customer-events.toml");
    let mut insert = change(&customers(), ChangeOp::Insert { new: customer("collecting") });
    insert.metadata =
        Some(Bytes::from_static(br#"{"user_id":"admin","ip_address":"192.168.1.1"}"#));
    let events = route(&settings, &insert);
    let [(event, takers)] = events.as_slice() else { panic!("one event: {events:?}") };
    assert_eq!(*takers, [EndpointIndex(0)]);

    let (request, _) = request(&settings.endpoints[0], event, Answer::status(200)).await;
    let expected = concat!(
        r#"{"event":"customer.created","data":{"id":"123","customer_no":"C001","name":"张三","#,
        r#""phone":"13800138000","product_id":"1","status":"collecting"},"#,
        r#""timestamp":"2025-10-17T10:30:00.000Z","#,
        r#""metadata":{"user_id":"admin","ip_address":"192.168.1.1"}}"#,
    );
    assert_eq!(std::str::from_utf8(&request.body).unwrap(), expected);
    let signature = format!("sha256={}", hmac(expected.as_bytes()));
    assert_eq!(request.header("x-webhook-signature"), signature);
    assert_eq!(request.header("authorization"), "Bearer token");
    assert_eq!(request.header("content-type"), "application/json");
    assert_eq!(request.header("webhook-id"), event.id.to_string());
    assert_eq!(request.header("webhook-signature"), "", "one scheme at a time");
}

#[test]
fn a_change_of_status_raises_two_events_in_a_stable_order() {
    let settings = settings("customer-events.toml");
    let old = Some(OldRow::Full(customer("collecting")));
    let update = change(&customers(), ChangeOp::Update { old, new: customer("approved") });
    let [updated, changed] = bodies(&settings, &update).try_into().unwrap();
    assert!(updated.starts_with(r#"{"event":"customer.updated","data":{"id":"123","#), "{updated}");
    assert_eq!(
        changed,
        concat!(
            r#"{"event":"customer.status_changed","data":{"id":"123","customer_no":"C001","#,
            r#""old_status":"collecting","new_status":"approved"},"#,
            r#""timestamp":"2025-10-17T10:30:00.000Z"}"#,
        )
    );
    let old = Some(OldRow::Full(customer("approved")));
    let update = change(&customers(), ChangeOp::Update { old, new: customer("approved") });
    assert_eq!(bodies(&settings, &update).len(), 1, "the status is what it was");
    let delete = change(&customers(), ChangeOp::Delete { old: OldRow::Full(customer("approved")) });
    let [deleted] = bodies(&settings, &delete).try_into().unwrap();
    assert!(deleted.starts_with(r#"{"event":"customer.deleted","data":{"id":"123","#), "{deleted}");
}

fn documents() -> Arc<Relation> {
    let text = || SqlType::Text;
    let columns = [
        ("id", SqlType::Integer),
        ("customer_id", SqlType::Integer),
        ("file_name", text()),
        ("file_type", text()),
        ("status", text()),
        ("review_note", text()),
    ];
    relation("documents", &columns)
}

fn document(status: &str, note: Option<&str>) -> RowTuple {
    row(&[Some("5"), Some("123"), Some("id.pdf"), Some("pdf"), Some(status), note])
}

#[test]
fn a_review_of_a_document_is_told_with_its_note() {
    let settings = settings("customer-events.toml");
    let documents = documents();
    let review = |from, to, note| {
        let old = Some(OldRow::Full(document(from, None)));
        bodies(&settings, &change(&documents, ChangeOp::Update { old, new: document(to, note) }))
    };
    let expected = concat!(
        r#"{"event":"document.approved","data":{"id":"5","customer_id":"123","#,
        r#""file_name":"id.pdf","file_type":"pdf","status":"approved","review_note":"ok"},"#,
        r#""timestamp":"2025-10-17T10:30:00.000Z"}"#,
    );
    assert_eq!(review("pending", "approved", Some("ok")), [expected]);
    let rejected = review("approved", "rejected", None);
    assert!(rejected[0].starts_with(r#"{"event":"document.rejected""#), "{rejected:?}");
    assert!(rejected[0].contains(r#""review_note":null"#), "{rejected:?}");
    assert_eq!(review("approved", "approved", Some("again")), [""; 0]);
    assert_eq!(review("approved", "pending", None), [""; 0]);
}

fn tasks() -> Arc<Relation> {
    let columns = [
        ("id", SqlType::Text),
        ("rule_id", SqlType::Integer),
        ("status", SqlType::Text),
        ("result", SqlType::Json),
        ("file_url", SqlType::Text),
        ("meta", SqlType::Json),
    ];
    relation("tasks", &columns)
}

fn task(rule: &str, status: &str) -> RowTuple {
    row(&[
        Some("T_20251214_0001"),
        Some(rule),
        Some(status),
        Some(r#"{"total": 12.50, "items": [{"name": "发票"}]}"#),
        Some("https://files.example.com/1.pdf"),
        Some(r#"{"pages": 2}"#),
    ])
}

fn task_becomes(from: &str, to: &str, rule: &str) -> CommittedChange {
    let old = Some(OldRow::Full(task(rule, from)));
    change(&tasks(), ChangeOp::Update { old, new: task(rule, to) })
}

/// The webhooks of `idp-push` as rows: two have rule 7, one rule 9.
fn idp_push() -> Settings {
    let mut settings = settings("idp-push.toml");
    let from = settings.endpoints_from.take().unwrap();
    let basic = json!({ "basic": { "username": "walhook", "password": SECRET } });
    let key = json!({ "api_key": { "name": "X-Api-Key", "value": SECRET } });
    let rows = [(1, "[7]", basic), (2, "[7, 8]", json!({ "bearer": SECRET })), (3, "[9]", key)];
    settings.endpoints = rows
        .iter()
        .map(|(id, rules, auth)| {
            let rules: Value = serde_json::from_str(rules).unwrap();
            let url = "http://h/hooks";
            let row =
                json!({ "id": id, "url": url, "enabled": true, "auth": auth, "rules": rules });
            let endpoint = from.endpoint(row.as_object().unwrap()).unwrap();
            Endpoint { addresses: AddressPolicy::Operator, ..endpoint }
        })
        .collect();
    settings
}

#[tokio::test]
async fn a_completed_task_is_contract_3_byte_for_byte() {
    let settings = idp_push();
    let events = route(&settings, &task_becomes("RUNNING", "COMPLETED", "7"));
    let [(event, takers)] = events.as_slice() else { panic!("one event: {events:?}") };
    assert_eq!(*takers, [EndpointIndex(0), EndpointIndex(1)], "the webhooks of rule 7");

    let expected = concat!(
        r#"{"task_id":"T_20251214_0001","#,
        r#""result_json":{"total":12.50,"items":[{"name":"发票"}]},"#,
        r#""file_url":"https://files.example.com/1.pdf","meta_info":{"pages":2}}"#,
    );
    let signature = format!("sha256={}", hmac(expected.as_bytes()));
    let basic = "Basic d2FsaG9vazp5b3VyLXNlY3JldC1rZXk=";
    let cases = [
        (0, "authorization", basic.to_owned()),
        (1, "authorization", format!("Bearer {SECRET}")),
        (2, "x-api-key", SECRET.to_owned()),
    ];
    for (index, name, value) in cases {
        let endpoint = &settings.endpoints[index];
        let (request, _) = request(endpoint, event, Answer::status(200)).await;
        assert_eq!(std::str::from_utf8(&request.body).unwrap(), expected);
        assert_eq!(request.header(name), value);
        assert_eq!(request.header("user-agent"), "IDP-Webhook/1.0");
        assert_eq!(request.header("x-idp-timestamp"), "1760697002");
        assert_eq!(request.header("x-idp-signature"), signature);
    }
}

#[test]
fn only_becoming_completed_raises_a_push() {
    let settings = idp_push();
    let inserted = change(&tasks(), ChangeOp::Insert { new: task("9", "COMPLETED") });
    let cases = [
        ("completed", task_becomes("RUNNING", "COMPLETED", "9"), 1),
        ("inserted so", inserted, 1),
        ("touched", task_becomes("COMPLETED", "COMPLETED", "9"), 0),
        ("written back", task_becomes("COMPLETED", "PUSH_SUCCESS", "9"), 0),
        ("failed", task_becomes("RUNNING", "FAILED", "9"), 0),
    ];
    for (name, change, expected) in cases {
        assert_eq!(route(&settings, &change).len(), expected, "case: {name}");
    }
    let nobodys = route(&settings, &task_becomes("RUNNING", "COMPLETED", "1"));
    assert_eq!(nobodys[0].1, [], "no webhook has rule 1");
}

#[tokio::test]
async fn the_answers_of_contract_3_are_read_as_it_says() {
    let settings = idp_push();
    let events = route(&settings, &task_becomes("RUNNING", "COMPLETED", "7"));
    let retry = AttemptVerdict::Retry { at_least: None };
    let cases = [
        (204, AttemptVerdict::Delivered),
        (429, retry.clone()),
        (502, retry),
        (408, AttemptVerdict::Dead),
    ];
    for (status, expected) in cases {
        let answer = Answer::status(status);
        let (_, verdict) = request(&settings.endpoints[0], &events[0].0, answer).await;
        assert_eq!(verdict, expected, "case: {status}");
    }
}

fn message(kind: &str, content: &str, own: &str) -> CommittedChange {
    let columns = [
        ("id", SqlType::Integer),
        ("key", SqlType::Text),
        ("msg_id", SqlType::Integer),
        ("from_user", SqlType::Text),
        ("to_user", SqlType::Text),
        ("msg_type", SqlType::Integer),
        ("content", SqlType::Json),
        ("is_self_msg", SqlType::Bool),
        ("is_history", SqlType::Bool),
        ("create_time", SqlType::TimestampTz),
    ];
    let values = [
        "1",
        "wxid_abcdefg123456",
        "7654321098765432123",
        "wxid_sender12345",
        "wxid_receiver12345",
        kind,
        content,
        own,
        "f",
        "2021-07-01 07:10:50+00",
    ];
    change(&relation("messages", &columns), ChangeOp::Insert { new: row(&values.map(Some)) })
}

#[tokio::test]
async fn a_message_is_contract_4_byte_for_byte() {
    let settings = settings("wechat-messages.toml");
    let events = route(&settings, &message("1", "\"你好，這是一條測試訊息\"", "f"));
    let [(event, takers)] = events.as_slice() else { panic!("one event: {events:?}") };
    assert_eq!(*takers, [EndpointIndex(0)]);
    let (request, verdict) = request(&settings.endpoints[0], event, Answer::status(201)).await;
    let expected = concat!(
        r#"{"key":"wxid_abcdefg123456","msgId":"7654321098765432123","timestamp":1760697002,"#,
        r#""fromUser":"wxid_sender12345","toUser":"wxid_receiver12345","msgType":1,"#,
        r#""content":"你好，這是一條測試訊息","isSelfMsg":false,"createTime":1625123450,"#,
        r#""isHistory":false}"#,
    );
    assert_eq!(std::str::from_utf8(&request.body).unwrap(), expected);
    assert_eq!(request.header("x-webhook-timestamp"), "1760697002");
    let signature = hmac(format!("1760697002:{expected}").as_bytes());
    assert_eq!(request.header("x-webhook-signature"), signature);
    assert_eq!(verdict, AttemptVerdict::Retry { at_least: None }, "only 200 counts");
}

#[test]
fn messages_are_filtered_by_type_and_sender() {
    let settings = settings("wechat-messages.toml");
    let link = r#"{"title": "x", "url": "https://example.com"}"#;
    let cases = [
        ("text", message("1", "\"a\"", "f"), true),
        ("link", message("49", link, "f"), true),
        ("voice", message("34", "\"a\"", "f"), false),
        ("recall", message("10002", "\"a\"", "f"), false),
        ("own", message("1", "\"a\"", "t"), false),
    ];
    for (name, change, taken) in cases {
        let events = route(&settings, &change);
        assert_eq!(!events[0].1.is_empty(), taken, "case: {name}");
    }
    let body: serde_json::Value =
        serde_json::from_str(&bodies(&settings, &message("49", link, "f"))[0]).unwrap();
    assert_eq!(body["content"]["title"], "x", "an object stays one");
}
