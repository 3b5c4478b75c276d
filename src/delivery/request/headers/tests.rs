//! `delivery::request::headers`, by cases.

use super::*;
use std::num::NonZeroUsize;
use std::time::Duration;

use url::Url;

use crate::config::secret::Secret;
use crate::config::sections::endpoint_connection::ConnectionLink;
use crate::config::settings::AddressPolicy;
use crate::config::settings::AnswerRule;
use crate::config::settings::Auth;
use crate::config::settings::BatchSettings;
use crate::config::settings::KeyOrdering;
use crate::config::settings::ParkingSettings;
use crate::config::settings::RequestTemplate;
use crate::config::settings::RetryDelays;
use crate::config::settings::RetrySettings;
use crate::config::settings::SourcePlaces;
use crate::flow::body::EventBody;
use crate::flow::event::Event;
use crate::flow::event::EventFacts;
use crate::flow::event::IdOrigin;
use crate::flow::key::EventKeys;
use crate::flow::lease::LeaseId;
use crate::flow::lsn::Lsn;
use crate::flow::lsn::Position;
use crate::flow::relation::TableName;
use crate::flow::time::Timestamp;

fn endpoint() -> Endpoint {
    Endpoint {
        name: "crm".into(),
        enabled: true,
        url: Secret::new(Url::parse("https://crm.example.com/hooks").unwrap()),
        events: Vec::new(),
        only: None,
        filter: None,
        payload: None,
        signing: None,
        auth: None,
        channel: None,
        headers: HeaderMap::new(),
        user_agent: String::from("wx-msg-chat-webhook/1.0"),
        timeout: Duration::from_secs(10),
        retry: RetrySettings {
            delays: RetryDelays::List(Vec::new()),
            cap: Duration::from_secs(60),
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
        response_limit: 1024,
        test: None,
        renamed_from: None,
        unusable: None,
        request: RequestTemplate::default(),
        places: SourcePlaces::default(),
    }
}

fn lease(ordinals: &[u32]) -> Lease {
    let event = |&ordinal: &u32| {
        let position = Position { commit: Lsn::from_raw(7), ordinal };
        Arc::new(Event {
            id: EventId::new(position, IdOrigin::new(1, "t")),
            sequence: 0,
            position,
            event_type: "t".into(),
            table: Arc::new(TableName::new("public", "t")),
            committed: Timestamp::default(),
            keys: EventKeys::NONE,
            expiry: None,
            body: EventBody::default(),
            facts: EventFacts::default(),
            write_back: None,
            held: None,
        })
    };
    let events = ordinals.iter().map(event).collect();
    Lease { id: LeaseId(1), attempt: 1, replay: false, events }
}

fn value<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).unwrap().to_str().unwrap()
}

#[test]
fn a_request_carries_its_type_its_agent_its_id_and_its_time() {
    let mut headers = fixed(&endpoint()).unwrap();
    let lease = lease(&[3]);
    complete(&mut headers, EventIds::of(&lease, false), "1700000000", Vec::new());
    assert_eq!(value(&headers, "content-type"), "application/json");
    assert_eq!(value(&headers, "user-agent"), "wx-msg-chat-webhook/1.0");
    assert_eq!(value(&headers, "webhook-id"), lease.events[0].id.to_string());
    assert_eq!(value(&headers, "webhook-timestamp"), "1700000000");
    assert!(!headers.contains_key("webhook-signature"));
    assert!(!headers.contains_key("walhook-event-ids"));
    assert!(!headers.contains_key("webhook-replay"));
}

#[test]
fn what_is_sent_again_says_so_and_keeps_its_id() {
    for batched in [false, true] {
        let mut headers = HeaderMap::new();
        let replay = Lease { replay: true, ..lease(&[3]) };
        complete(&mut headers, EventIds::of(&replay, batched), "1700000000", Vec::new());
        assert_eq!(value(&headers, "webhook-replay"), "true");
        assert_eq!(value(&headers, "webhook-id"), EventIds::of(&lease(&[3]), batched).id);
    }
}

#[test]
fn a_batchs_id_depends_on_the_set_of_its_events_alone() {
    let ids = |ordinals: &[u32]| EventIds::of(&lease(ordinals), true);
    assert_eq!(ids(&[1, 2, 3]).id, ids(&[1, 2, 3]).id);
    assert_eq!(ids(&[1, 2, 3]).id, ids(&[3, 1, 2]).id);
    assert_ne!(ids(&[1, 2, 3]).id, ids(&[1, 2]).id);
    assert_ne!(ids(&[1]).id, ids(&[2]).id);
    let EventIds { id, elements, .. } = ids(&[2, 1]);
    assert_eq!(id.len(), "batch_".len() + 32);
    assert!(!id.contains('.'));
    let lease = lease(&[2, 1]);
    let expected = format!("{},{}", lease.events[0].id, lease.events[1].id);
    assert_eq!(elements.as_deref(), Some(expected.as_str()), "in the body's order");
}

#[test]
fn the_list_of_ids_is_left_out_where_it_would_be_too_long_for_receivers() {
    let ids = |count: u32| EventIds::of(&lease(&(0..count).collect::<Vec<_>>()), true);
    assert!(ids(136).elements.is_some_and(|list| list.len() <= EVENT_IDS_MAX_BYTES));
    assert_eq!(ids(137).elements, None);
}

#[test]
fn extra_headers_replace_defaults_and_may_repeat() {
    let mut endpoint = endpoint();
    endpoint.headers.insert("content-type", HeaderValue::from_static("text/plain"));
    endpoint.headers.append("x-a", HeaderValue::from_static("1"));
    endpoint.headers.append("x-a", HeaderValue::from_static("2"));
    let headers = fixed(&endpoint).unwrap();
    assert_eq!(headers.get_all("content-type").iter().collect::<Vec<_>>(), ["text/plain"]);
    assert_eq!(headers.get_all("x-a").iter().collect::<Vec<_>>(), ["1", "2"]);
}

#[test]
fn headers_of_walhook_and_of_http_itself_cannot_be_set() {
    for name in &RESERVED {
        let mut extra = endpoint();
        extra.headers.insert(name.clone(), HeaderValue::from_static("1"));
        let mut key = endpoint();
        key.auth = Some(Auth::ApiKey { header: name.clone(), value: Secret::new("1".into()) });
        for endpoint in [extra, key] {
            let error = fixed(&endpoint).unwrap_err();
            assert!(matches!(error, DeliveryError::ReservedHeader { .. }), "case: {name}");
        }
    }
}

#[test]
fn secret_values_are_masked_by_name_or_by_mark() {
    let mut headers = HeaderMap::new();
    let cases = [
        ("authorization", true),
        ("proxy-authorization", true),
        ("cookie", true),
        ("set-cookie", true),
        ("x-api-key", true),
        ("x-auth-token", true),
        ("x-client-secret", true),
        ("x-hub-signature-256", true),
        ("webhook-signature", true),
        ("x-password", true),
        ("content-type", false),
        ("webhook-id", false),
        ("x-tenant", false),
    ];
    for (name, _) in cases {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static("hunter2"));
    }
    let mut marked = HeaderValue::from_static("hunter2");
    marked.set_sensitive(true);
    headers.insert("x-plain", marked);
    let shown = shown(&headers, 10_000).by_name();
    let of = |name: &str| shown.get(name).and_then(serde_json::Value::as_str);
    for (name, secret) in cases {
        assert_eq!(of(name), Some(if secret { MASK } else { "hunter2" }), "case: {name}");
    }
    assert_eq!(of("x-plain"), Some(MASK));
}

#[test]
fn what_is_kept_of_headers_is_bounded() {
    let mut headers = HeaderMap::new();
    headers.insert("a", HeaderValue::from_static("1"));
    headers.insert("b", HeaderValue::try_from("x".repeat(100_000)).unwrap());
    assert_eq!(shown(&headers, 1000).json(), Some(r#"{"a":"1"}"#));
}

#[test]
fn what_every_request_carries_is_shown_once_for_all() {
    let map = |headers: &[(&'static str, &'static str)]| {
        let header =
            |&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
        headers.iter().map(header).collect::<HeaderMap>()
    };
    let fixed = map(&[("content-type", "text/plain"), ("authorization", "hunter22")]);
    let cases = [
        ("nothing more", map(&[])),
        ("more", map(&[("webhook-id", "1"), ("webhook-signature", "hunter2")])),
        ("one is replaced", map(&[("content-type", "application/json"), ("webhook-id", "1")])),
    ];
    for (name, more) in cases {
        let mut headers = fixed.clone();
        for (name, value) in &more {
            headers.insert(name, value.clone());
        }
        for limit in [0, 40, 60, 80, 10_000] {
            let found = shown_after(&fixed, &shown(&fixed, limit), &headers, limit);
            assert_eq!(found, shown(&headers, limit), "case: {name}, {limit} bytes");
            assert!(!found.json().unwrap_or_default().contains("hunter2"), "case: {name}");
        }
    }
}

#[test]
fn the_bodys_shape_says_its_type_unless_the_operator_does() {
    let structured = "application/cloudevents+json; charset=utf-8";
    let shaped = |value: &'static str| {
        let mut lease = lease(&[1]);
        let event = Arc::get_mut(&mut lease.events[0]).unwrap();
        let name = http::header::CONTENT_TYPE;
        let headers = vec![(name, HeaderValue::from_static(value))];
        event.body = EventBody::default().with_headers(headers);
        lease
    };
    let cases = [
        ("text/plain", false, None, "text/plain"),
        ("text/plain", false, Some("text/html"), "text/html"),
        (structured, false, None, structured),
        (structured, true, None, CLOUDEVENTS_BATCH),
        ("application/vnd.acme+json", true, None, "application/json"),
    ];
    for (value, batched, own, expected) in cases {
        let mut endpoint = endpoint();
        if let Some(own) = own {
            endpoint.headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static(own));
        }
        let mut headers = fixed(&endpoint).unwrap();
        shape(&mut headers, &endpoint.headers, &shaped(value), batched);
        let name = format!("{value} batched: {batched}");
        assert_eq!(headers["content-type"], expected, "case: {name}");
    }
}
