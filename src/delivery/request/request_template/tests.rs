//! `delivery::request::request_template`, by cases.

use super::*;
use std::sync::Arc;
use std::time::Duration;

use crate::config;
use crate::flow::body::EventBody;
use crate::flow::event::EventExpiry;
use crate::flow::event::EventFacts;
use crate::flow::event::EventId;
use crate::flow::event::IdOrigin;
use crate::flow::key::EventKeys;
use crate::flow::lsn::Lsn;
use crate::flow::lsn::Position;
use crate::flow::relation::TableName;

const NOW: Timestamp = Timestamp::from_micros(1_700_000_012_345_678);

fn event(values: &[(&str, RequestValue)]) -> Event {
    let position = Position { commit: Lsn::from_raw(7), ordinal: 1 };
    let values = values.iter().map(|(source, value)| (Arc::from(*source), value.clone()));
    Event {
        id: EventId::new(position, IdOrigin::new(1, "t")),
        sequence: 0,
        position,
        event_type: "order.paid".into(),
        table: Arc::new(TableName::new("public", "orders")),
        committed: Timestamp::from_seconds(1_700_000_000),
        keys: EventKeys::NONE,
        expiry: Some(EventExpiry {
            born: Timestamp::from_seconds(1_700_000_010),
            max_age: Duration::from_secs(60),
        }),
        body: EventBody::default().with_values(values.collect()),
        facts: EventFacts::new(vec![("id".into(), "42".into()), ("name".into(), "a b".into())]),
        write_back: None,
        held: None,
    }
}

fn text(text: &str) -> RequestValue {
    RequestValue::Text(text.into())
}

fn filler(rest: &str) -> TemplateFiller {
    let text = format!(
        "postgres.url = 'postgres://u@h/d'\n[[event]]\ntype = 'a'\ntable = 'public.t'\n\
         [[endpoint]]\nname = 'crm'\n{rest}\n"
    );
    let endpoint = config::parse(&text, "walhook.toml", &|_| None).unwrap().endpoints.remove(0);
    TemplateFiller::new(&endpoint.request, &Uri::from_static("/")).unwrap()
}

fn target(url: &str, values: &[(&str, RequestValue)]) -> Result<String, String> {
    let filled = filler(&format!("url = '''{url}'''")).fill(&[Arc::new(event(values))], NOW);
    let filled = filled.map_err(|failure| failure.detail)?;
    Ok(filled.target.unwrap().to_string())
}

fn header(value: &str, values: &[(&str, RequestValue)]) -> Result<(String, String), String> {
    let filler = filler(&format!("url = 'https://h/'\nheaders = {{ X-A = '''{value}''' }}"));
    let filled = filler.fill(&[Arc::new(event(values))], NOW).map_err(|failure| failure.detail)?;
    let (mut headers, mut shown) = (HeaderMap::new(), HeaderMap::new());
    for headers in [&mut headers, &mut shown] {
        headers.insert("x-a", HeaderValue::from_static("{{ }}"));
    }
    filled.put(&mut headers);
    filled.put_shown(&mut shown);
    let value = |headers: &HeaderMap| {
        let value = headers.get("x-a").map_or(&b"(none)"[..], HeaderValue::as_bytes);
        String::from_utf8(value.to_vec()).unwrap()
    };
    Ok((value(&headers), value(&shown)))
}

#[test]
fn a_value_is_one_segment_or_one_value_of_the_query() {
    let built_in = format!("/{}/order.paid?t=public.orders", event(&[]).id);
    let cases = [
        ("https://h/o/{{ id }}/x", vec![("id", text("7"))], "/o/7/x"),
        (
            "https://h/o/{{ n }}",
            vec![("n", text("a/../b?c#d&e%2f 张\r\n"))],
            "/o/a%2F..%2Fb%3Fc%23d%26e%252f%20%E5%BC%A0%0D%0A",
        ),
        ("https://h/o?n={{ n }}&m=1", vec![("n", text("a&m=2+ü"))], "/o?n=a%26m%3D2%2B%C3%BC&m=1"),
        ("https://h/o?n={{ n }}&m=1", vec![("n", RequestValue::Null)], "/o?n=&m=1"),
        ("https://h/o?n={{ n }}", vec![("n", text(".."))], "/o?n=.."),
        ("https://h/o.{{ n }}", vec![("n", text(""))], "/o."),
        ("https://h//{{ n }}/", vec![("n", text("x"))], "//x/"),
        ("https://h/{{ event_id }}/{{ event }}?t={{ table }}", vec![], built_in.as_str()),
        (
            "https://h/{{ int(now) }}?c={{ committed }}&a={{ age }}",
            vec![],
            "/1700000012?c=2023-11-14T22%3A13%3A20.000Z&a=2.345",
        ),
    ];
    for (url, values, expected) in cases {
        assert_eq!(target(url, &values).as_deref(), Ok(expected), "case: {url}");
    }
}

#[test]
fn a_url_that_would_lead_elsewhere_is_none() {
    let cases = [
        ("https://h/o/{{ n }}", RequestValue::Null, "needs {{ n }}, which is null"),
        ("https://h/o/{{ n }}", text(""), "an empty segment"),
        ("https://h/o/{{ n }}/x", text(".."), "a segment of dots"),
        ("https://h/o/{{ n }}/x", text("."), "a segment of dots"),
        ("https://h/o/.{{ n }}/x", text("."), "a segment of dots"),
        ("https://h/o/%2e{{ n }}/x", text("."), "a segment of dots"),
        ("https://h//o/{{ n }}", text(""), "an empty segment"),
        (
            "https://h/o/{{ n }}",
            RequestValue::Failed("divides by zero".into()),
            "needs {{ n }}, which divides by zero",
        ),
        (
            "https://h/o?n={{ n }}",
            RequestValue::Failed("divides by zero".into()),
            "needs {{ n }}, which divides by zero",
        ),
    ];
    for (url, value, expected) in cases {
        let told = target(url, &[("n", value)]).unwrap_err();
        assert!(told.contains(expected), "case: {url}: {told}");
    }
    let long = target("https://h/o/{{ n }}", &[("n", text(&"x".repeat(9000)))]).unwrap_err();
    assert!(long.contains("longer than 8 KiB"), "{long}");
}

#[test]
fn an_event_from_before_the_setting_is_known_by_its_key_alone() {
    assert_eq!(target("https://h/o/{{ id }}", &[]).as_deref(), Ok("/o/42"));
    for url in ["https://h/o/{{ name }}", "https://h/o/{{ other }}", "https://h/o/{{ id + 1 }}"] {
        let told = target(url, &[]).unwrap_err();
        assert!(told.contains("was not evaluated for it"), "case: {url}: {told}");
    }
}

#[test]
fn a_header_never_becomes_two() {
    let cases = [
        ("{{ n }}", text("7"), ("7", "7")),
        ("{{ n }}", text("张三"), ("张三", "张三")),
        ("order-{{ n }}", text("7"), ("order-7", "[secret]7")),
        ("{{ n }}/{{ n }}", text("7"), ("7/7", "7/7")),
        ("{{ n }}", RequestValue::Null, ("(none)", "(none)")),
        ("n={{ n }}", RequestValue::Null, ("n=", "[secret]")),
    ];
    for (value, given, expected) in cases {
        let found = header(value, &[("n", given)]).unwrap();
        assert_eq!((found.0.as_str(), found.1.as_str()), expected, "case: {value}");
    }
    for control in ["a\r\nX-Evil: 1", "a\nb", "a\rb", "\0", "\t", "\u{7f}", "\u{1b}[0m"] {
        let told = header("{{ n }}", &[("n", text(control))]).unwrap_err();
        let is_told =
            told.contains("header x-a needs {{ n }}") && told.contains("control character");
        assert!(is_told && !told.contains("Evil"), "case: {control:?}: {told}");
    }
    let failed = header("{{ n }}", &[("n", RequestValue::Failed("divides by zero".into()))]);
    assert_eq!(failed.unwrap_err(), "header x-a needs {{ n }}, which divides by zero");
    let long = header("{{ n }}", &[("n", text(&"x".repeat(9000)))]).unwrap_err();
    assert!(long.contains("longer than 8 KiB"), "{long}");
}

#[test]
fn events_share_a_request_only_where_it_is_the_same_for_all() {
    let two = || [event(&[("n", text("1"))]), event(&[("n", text("2"))])].map(Arc::new);
    let told = filler("url = 'https://h/{{ n }}'").fill(&two(), NOW).unwrap_err().detail;
    assert!(told.contains("`url` has {{ n }}, which each has its own value of"), "{told}");
    let moment = filler("url = 'https://h/{{ int(now) }}'").fill(&two(), NOW).unwrap();
    assert_eq!(moment.target.unwrap(), "/1700000012");
}
