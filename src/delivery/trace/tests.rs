//! `delivery::trace`, by cases.

use super::*;

use prometheus::IntCounter;

use crate::config::settings::TraceSampling;
use crate::delivery::request::headers;
use crate::flow::body::EventBody;
use crate::flow::event::Event;
use crate::flow::event::EventFacts;
use crate::flow::event::EventId;
use crate::flow::event::IdOrigin;
use crate::flow::key::EventKeys;
use crate::flow::lease::LeaseId;
use crate::flow::lsn::Lsn;
use crate::flow::lsn::Position;
use crate::flow::relation::TableName;

const NOW: Timestamp = Timestamp::from_seconds(1_763_812_800);
const WRITER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-";

fn event(ordinal: u32, writer: Option<&str>) -> Arc<Event> {
    let position = Position { commit: Lsn::from_raw(7), ordinal };
    let given = writer.map(|flags| format!("{WRITER}{flags}"));
    let given = given.map(|text| (TRACEPARENT, text.parse().unwrap()));
    Arc::new(Event {
        id: EventId::new(position, IdOrigin::new(1, "t")),
        sequence: 0,
        position,
        event_type: "t".into(),
        table: Arc::new(TableName::new("public", "t")),
        committed: NOW,
        keys: EventKeys::NONE,
        expiry: None,
        body: EventBody::default().with_headers(given.into_iter().collect()),
        facts: EventFacts::default(),
        write_back: None,
        held: None,
    })
}

fn lease(events: Vec<Arc<Event>>) -> Lease {
    Lease { id: LeaseId(1), attempt: 1, replay: false, events }
}

/// Records this share of events; none at all without one.
fn tracing(share: Option<f64>) -> EndpointTracing {
    let settings = TelemetrySettings { traceparent: true, collector: None };
    let tracer = share.map(|share| {
        let sampling = TraceSampling { share, follows_writer: true };
        EventTracer::new(sampling, IntCounter::new("dropped", "dropped").unwrap()).0
    });
    let tracing = RequestTracing::of(&settings, tracer).unwrap();
    let (scheme, host) = (String::from("https"), String::from("h"));
    EndpointTracing { tracing, endpoint: "crm".into(), scheme, host, port: Some(443) }
}

fn told(tracing: &EndpointTracing, own: &HeaderMap, lease: &Lease, now: Timestamp) -> String {
    let mut headers = own.clone();
    headers::shape(&mut headers, own, lease, false);
    tracing.tell(&mut headers, own, lease, now);
    headers.get(TRACEPARENT).map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default()
}

#[test]
fn nobody_is_told_unless_somebody_asks() {
    let settings = TelemetrySettings::default();
    assert!(RequestTracing::of(&settings, None).is_none());
    let mut headers = HeaderMap::new();
    headers::shape(&mut headers, &HeaderMap::new(), &lease(vec![event(1, Some("01"))]), false);
    assert!(headers.is_empty(), "what the body keeps goes nowhere by itself");
}

#[test]
fn an_attempt_that_is_recorded_is_the_receivers_parent_and_else_the_writer_is() {
    let none = HeaderMap::new();
    let cases = [
        ("recorded by the writer's word", Some(0.0), Some("01"), None, "01"),
        (
            "not recorded by the writer's word",
            Some(1.0),
            Some("00"),
            Some("00f067aa0ba902b7"),
            "00",
        ),
        ("recorded by the share", Some(1.0), None, None, "01"),
        ("not recorded by the share", Some(0.0), None, None, "00"),
        ("no collector", None, Some("01"), Some("00f067aa0ba902b7"), "01"),
        ("no collector, no writer", None, None, None, "00"),
    ];
    for (name, share, writer, span, flags) in cases {
        let (tracing, lease) = (tracing(share), lease(vec![event(1, writer)]));
        let first = told(&tracing, &none, &lease, NOW);
        let later = told(&tracing, &none, &lease, NOW.shifted(1));
        let [first, later] = [&first, &later].map(|text| text.split('-').collect::<Vec<_>>());
        assert_eq!(first[1], later[1], "case: {name}: one trace");
        assert_eq!(first[3], flags, "case: {name}");
        assert_eq!(first[1].contains("4bf92f35"), writer.is_some(), "case: {name}");
        match span {
            Some(span) => assert_eq!((first[2], later[2]), (span, span), "case: {name}"),
            None => assert_eq!(first[2] == later[2], flags == "00", "case: {name}"),
        }
    }
}

#[test]
fn a_header_of_the_endpoints_own_is_left_alone() {
    let own: HeaderMap = [(TRACEPARENT, "mine".parse().unwrap())].into_iter().collect();
    assert_eq!(told(&tracing(Some(1.0)), &own, &lease(vec![event(1, Some("01"))]), NOW), "mine");
}

#[test]
fn a_batch_is_told_of_the_first_event_that_is_recorded() {
    let events = vec![event(1, Some("00")), event(2, Some("01")), event(3, Some("00"))];
    let lease = lease(events);
    let (recorded, _) = tracing(Some(1.0)).recorded(&lease, NOW).unwrap();
    assert_eq!(recorded.event, SpanId::of_event(lease.events[1].id, "event"));
    assert!(tracing(None).recorded(&lease, NOW).is_none());
}
