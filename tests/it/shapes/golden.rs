//! Whole requests against files: every header and the body, to the byte. In them `<version>` stands for
//! walhook's.

use super::*;

/// What depends on the test's own receiver.
const PASSING: [&str; 1] = ["host"];

/// What depends on walhook's version, where the body holds it.
const OF_THE_VERSION: [&str; 2] = ["content-length", "webhook-signature"];

fn assert_golden(request: &Request, file: &str) {
    let body = std::str::from_utf8(&request.body).unwrap();
    let version = concat!("\"version\":\"", env!("CARGO_PKG_VERSION"), "\"");
    let left_out = |name: &str| {
        PASSING.contains(&name) || body.contains(version) && OF_THE_VERSION.contains(&name)
    };
    let mut lines: Vec<String> = request
        .headers
        .iter()
        .filter(|(name, _)| !left_out(name.as_str()))
        .map(|(name, value)| format!("{name}: {}\n", value.to_str().unwrap()))
        .collect();
    lines.sort();
    let sent = format!("{} {}\n{}\n{body}\n", request.method, request.path, lines.concat());
    let sent = sent.replace(concat!("walhook/", env!("CARGO_PKG_VERSION")), "walhook/<version>");
    let sent = sent.replace(version, "\"version\":\"<version>\"");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file);
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(sent, expected, "tests/golden/{file}");
}

async fn assert_request(endpoint: &Endpoint, event: &Arc<Event>, file: &str) -> Request {
    let (request, _) = request(endpoint, event, Answer::status(200)).await;
    assert_golden(&request, file);
    request
}

#[tokio::test]
async fn every_request_of_contracts_2_to_4_is_as_its_file_shows() {
    let customer_events = settings("customer-events.toml");
    let mut insert = change(&customers(), ChangeOp::Insert { new: customer("collecting") });
    insert.metadata =
        Some(Bytes::from_static(br#"{"user_id":"admin","ip_address":"192.168.1.1"}"#));
    let [signed, unsigned] = customer_events.endpoints.as_slice() else { panic!("two") };
    let created = &route(&customer_events, &insert)[0].0;
    assert_request(signed, created, "customer-created.txt").await;
    assert_request(unsigned, created, "customer-created-unsigned.txt").await;
    let old = Some(OldRow::Full(customer("collecting")));
    let update = change(&customers(), ChangeOp::Update { old, new: customer("approved") });
    let events = route(&customer_events, &update);
    assert_request(signed, &events[0].0, "customer-updated.txt").await;
    assert_request(signed, &events[1].0, "customer-status-changed.txt").await;
    let delete = change(&customers(), ChangeOp::Delete { old: OldRow::Full(customer("approved")) });
    assert_request(signed, &route(&customer_events, &delete)[0].0, "customer-deleted.txt").await;

    let idp = idp_push();
    let completed = &route(&idp, &task_becomes("RUNNING", "COMPLETED", "7"))[0].0;
    for (endpoint, name) in idp.endpoints.iter().zip(["basic", "bearer", "api-key"]) {
        assert_request(endpoint, completed, &format!("task-completed-{name}.txt")).await;
    }

    let wechat = settings("wechat-messages.toml");
    let text = &route(&wechat, &message("1", "\"你好，這是一條測試訊息\"", "f"))[0].0;
    assert_request(&wechat.endpoints[0], text, "message-text.txt").await;
    let link = r#"{"title": "x", "url": "https://example.com"}"#;
    let link = &route(&wechat, &message("49", link, "f"))[0].0;
    assert_request(&wechat.endpoints[0], link, "message-link.txt").await;
}

#[tokio::test]
async fn every_event_of_documents_and_products_is_as_its_file_shows() {
    let settings = settings("customer-events.toml");
    let [_, endpoint] = settings.endpoints.as_slice() else { panic!("two") };
    let text = || SqlType::Text;
    let columns =
        [("id", SqlType::Integer), ("name", text()), ("description", text()), ("status", text())];
    let (documents, products) = (documents(), relation("products", &columns));
    let product = |name| row(&[Some("1"), Some(name), None, Some("active")]);
    let insert = |table, new| change(table, ChangeOp::Insert { new });
    let update =
        |table, old, new| change(table, ChangeOp::Update { old: Some(OldRow::Full(old)), new });
    let delete = |table, old| change(table, ChangeOp::Delete { old: OldRow::Full(old) });
    let pending = || document("pending", None);
    let changes = [
        insert(&documents, pending()),
        update(&documents, pending(), document("approved", Some("读了 \"ok\""))),
        update(&documents, pending(), document("rejected", None)),
        delete(&documents, pending()),
        insert(&products, product("loan")),
        update(&products, product("loan"), product("mortgage")),
        delete(&products, product("mortgage")),
    ];
    for change in changes {
        let events = route(&settings, &change);
        let [(event, _)] = events.as_slice() else { panic!("one event: {events:?}") };
        let file = format!("{}.txt", event.event_type.replace('.', "-"));
        assert_request(endpoint, event, &file).await;
    }
    // With those of customers, these are all that the contract has.
    for rule in &settings.events {
        let file = rule.event_type.replace(['.', '_'], "-");
        let path = format!("{}/tests/golden/{file}.txt", env!("CARGO_MANIFEST_DIR"));
        assert!(Path::new(&path).exists(), "{path}");
    }
}

/// An insert into customers in a built-in shape.
async fn built_in(payload: &str) -> Request {
    let text = format!(
        "postgres.url = 'postgres://a@b/c'\n\
         [[event]]\ntype = 'customer.created'\ntable = 'public.customers'\n\
         [[endpoint]]\nname = 'crm'\nurl = 'http://h/'\npayload = '{payload}'\n\
         secret = 'whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8='\n"
    );
    let settings = config::parse(&text, "walhook.toml", &|_| None).unwrap();
    let insert = change(&customers(), ChangeOp::Insert { new: customer("collecting") });
    let mut router = EventRouter::new(7, &settings.events, &settings.endpoints);
    let mut event = None;
    router.route(&insert, COMMITTED, |_, routed| {
        event = match routed {
            RoutedEvent::Event(event) => Some(Arc::from(event)),
            RoutedEvent::Partly { event, mut others, .. } => {
                Some(Arc::new(event.shaped(others.remove(0).body, None)))
            }
            RoutedEvent::Filtered
            | RoutedEvent::Expired { .. }
            | RoutedEvent::Repeat { .. }
            | RoutedEvent::Costly(_)
            | RoutedEvent::Poison(_) => None,
        };
    });
    assert_request(
        settings.endpoints.first().unwrap(),
        &event.unwrap(),
        &format!("built-in-{payload}.txt"),
    )
    .await
}

#[tokio::test]
async fn every_built_in_shape_is_as_its_file_shows() {
    for payload in ["standard", "debezium"] {
        Box::pin(built_in(payload)).await;
    }
    // CloudEvents 1.0.2, "Required Attributes", and the context of each mode of the HTTP binding.
    let structured = Box::pin(built_in("cloudevents")).await;
    assert_eq!(structured.header("content-type"), "application/cloudevents+json; charset=utf-8");
    let event = structured.json();
    let binary = Box::pin(built_in("cloudevents-binary")).await;
    assert_eq!(binary.header("content-type"), "application/json");
    for (name, expected) in [
        ("specversion", "1.0"),
        ("id", structured.header("webhook-id")),
        ("source", "/public/customers"),
        ("type", "customer.created"),
        ("time", "2025-10-17T10:30:00.000Z"),
    ] {
        assert_eq!(event[name], expected, "case: {name}");
        assert_eq!(binary.header(&format!("ce-{name}")), expected, "case: {name}");
    }
    assert_eq!(event["data"], binary.json(), "the data is the same in both modes");
    let lower = |name: &String| name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    assert!(event.as_object().unwrap().keys().all(lower), "names of attributes are lower case");
}
