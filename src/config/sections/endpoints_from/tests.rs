//! `config::sections::endpoints_from`, by cases.

use serde_json::json;

use super::*;
use crate::config::sections::ocr_wallet;

fn from(template: Json) -> EndpointsFrom {
    EndpointsFrom {
        table: TableName::new("public", "webhooks"),
        watch: vec![TableName::new("public", "webhooks")],
        template,
        id: None,
        matching: Some(("rule_id".to_owned(), "rules".to_owned())),
        defaults: EndpointDefaults::new(EndpointTerms::defaults("test"), AddressPolicy::Public),
        rules: vec![ocr_wallet::event(None)],
    }
}

fn read(template: Json, row: Json) -> Result<Endpoint, (String, String)> {
    from(template).endpoint(row.as_object().unwrap())
}

fn plain(more: Json) -> Json {
    let mut template = json!({ "name": "wh-{{ id }}", "url": "{{ url }}" });
    template.as_object_mut().unwrap().append(&mut more.as_object().unwrap().clone());
    template
}

#[test]
fn a_row_fills_its_columns_with_their_types_and_null_is_left_out() {
    let template = plain(json!({
        "enabled": "{{ on }}", "timeout": "{{ seconds }}s", "user_agent": "{{ agent }}",
        "auth": "{{ auth }}", "headers": { "X-Team": "team {{ team }}" },
    }));
    let row = json!({
        "id": 7, "url": "https://example.com/a?b=${HOME}", "on": false, "seconds": 12,
        "agent": null, "auth": { "bearer": "to\"ken" }, "team": "x", "rules": [1, "b", true],
    });
    let endpoint = read(template, row).unwrap();
    assert_eq!((&*endpoint.name, endpoint.enabled), ("wh-7", false));
    assert_eq!(endpoint.url.reveal().as_str(), "https://example.com/a?b=${HOME}");
    assert_eq!(endpoint.timeout.as_secs(), 12);
    assert_eq!(endpoint.user_agent, "test");
    assert!(endpoint.auth.is_some());
    assert_eq!(endpoint.headers.get("x-team").unwrap(), "team x");
    assert_eq!(endpoint.addresses, AddressPolicy::Public);
    let only = endpoint.only.unwrap();
    assert_eq!((only.column.as_str(), only.values.join(",")), ("rule_id", "1,b,t".to_owned()));
}

#[test]
fn a_bad_row_is_refused_with_its_name_and_without_its_secrets() {
    let cases = [
        (json!({}), json!({ "id": 1, "url": "nonsense" }), "is not a URL"),
        (json!({}), json!({ "id": "A B", "url": "https://h/" }), "is not a name"),
        (json!({}), json!({ "id": "张三", "url": "https://h/" }), "is not a name"),
        (json!({}), json!({ "id": 1, "url": null }), "url: is missing"),
        (
            json!({ "secret": "{{ s }}" }),
            json!({ "id": 1, "url": "https://h/", "s": "opensesame" }),
            "too short",
        ),
        (
            json!({ "auth": "{{ auth }}" }),
            json!({ "id": 1, "url": "https://h/", "auth": { "bearer": { "file": "/etc/passwd" } } }),
            "must be a string that is the secret itself",
        ),
    ];
    for (more, row, expected) in cases {
        let (name, why) = read(plain(more), row.clone()).unwrap_err();
        assert!(why.contains(expected), "case: {row}: {why}");
        assert!(name.starts_with("wh-") && !why.contains("opensesame"), "{name}: {why}");
    }
}

#[test]
fn what_stands_for_a_bad_row_takes_what_the_row_would_take() {
    let template = json!({
        "name": "{{ id }}", "url": "{{ url }}", "enabled": "{{ on }}", "auth": "{{ auth }}",
        "events": "{{ events }}", "payload": "cloudevents",
    });
    let row = |id: Json, on: Json, events: Json| {
        let row = json!({
            "id": id, "url": "nonsense", "on": on, "events": events, "rules": [7],
            "auth": { "bearer": 5 },
        });
        row.as_object().unwrap().clone()
    };
    let from = from(template);
    let stands_for = |id: Json, on: Json, events: Json| {
        from.unusable(&row(id, on, events), false, "a reason").unwrap()
    };
    let all = || json!(["ocr_*"]);
    let one = stands_for("WH_001".into(), true.into(), all());
    assert_eq!((&*one.name, one.enabled, one.events[0].as_str()), ("WH_001", true, "ocr_*"));
    assert_eq!(one.only.unwrap().values, ["7"]);
    assert_eq!((one.unusable.as_deref(), one.payload.is_some()), (Some("a reason"), true));
    assert!(!stands_for(7.into(), false.into(), all()).enabled);
    let odd = stands_for("A B/张".into(), "perhaps".into(), json!(["nothing.*"]));
    assert!(odd.name.starts_with("A-B---") && odd.enabled, "{}", odd.name);
    assert_eq!(odd.events[0].as_str(), "*");
    let taken = from.unusable(&row("WH_001".into(), true.into(), all()), true, "").unwrap();
    assert!(taken.name.starts_with("WH_001-"), "{}", taken.name);
    // A hash alone: nothing begins with a hyphen.
    let name = stands_for(Json::Null, true.into(), all()).name;
    assert!(name.len() == 10 && name.bytes().all(|byte| byte.is_ascii_hexdigit()), "{name}");
}

#[test]
fn an_id_is_a_name_of_whatever_type_it_is() {
    let template = json!({ "name": "{{ id }}", "url": "{{ url }}" });
    for (id, expected) in [(json!(7), "7"), (json!("WH_001"), "WH_001"), (json!("a.B-c"), "a.B-c")]
    {
        let row = json!({ "id": id, "url": "https://h/", "rules": [] });
        assert_eq!(&*read(template.clone(), row).unwrap().name, expected);
    }
    let (_, why) =
        read(template, json!({ "id": "", "url": "https://h/", "rules": [] })).unwrap_err();
    assert!(why.contains("is not a name"), "{why}");
}

#[test]
fn what_is_put_together_of_columns_and_is_no_name_gets_a_likeness() {
    let template = json!({ "name": "{{ schema }}.{{ table }}.{{ url }}", "url": "{{ url }}" });
    let long = "x".repeat(80);
    let named = |table: &str, url: &str| {
        let row = json!({ "schema": "public", "table": table, "url": url, "rules": [] });
        read(template.clone(), row).unwrap().name.to_string()
    };
    let name = named("a", "https://h/");
    assert!(name.starts_with("public.a.https---h--"), "{name}");
    assert_eq!(name, named("a", "https://h/"), "the same through restarts");
    for (table, url) in
        [("a", "https://h/2"), ("a b", "https://h/"), ("张三", "https://h/"), (&long, "https://h/")]
    {
        let other = named(table, url);
        assert!(other != name && other.len() <= 64, "{other}");
    }
}

#[test]
fn url_and_headers_may_have_expressions_over_the_event_and_a_row_none() {
    let template = json!({
        "name": "wh-{{ id }}", "url": "{{ url }}/{{ row.id }}?{{ 'a' }}={{ id }}",
        "headers": { "X-Event": "{{ event_id }}", "X-Token": "{{ token }}" },
    });
    let from = from(template.clone());
    assert_eq!(from.columns().into_iter().collect::<Vec<_>>(), ["id", "rules", "token", "url"]);
    let row = |url: &str| json!({ "id": 7, "url": url, "token": "t", "rules": [1] });
    let endpoint = read(template.clone(), row("https://h/x")).unwrap();
    let found: Vec<_> = endpoint
        .request
        .expressions()
        .map(|(key, one)| format!("{key} {}", one.source()))
        .collect();
    assert_eq!(found, ["url row.id", "url 'a'", "headers event_id"]);
    let (_, why) = read(template, row("https://h/{{ wallet_code }}")).unwrap_err();
    assert!(why.contains("url: column url of the row holds {{"), "{why}");
    let broken = json!({ "name": "a", "url": "{{ url }}/{{ row.id + }}" });
    assert!(check(&broken).unwrap().contains("is not an expression"));
}

#[test]
fn what_is_evaluated_never_comes_from_a_row() {
    let cases = [
        (plain(json!({ "when": "rule_id == {{ id }}" })), "write `match`"),
        (plain(json!({ "user_agent": "{{ a.b }}" })), "only columns"),
        (plain(json!({ "user_agent": "{{ a" })), "without `}}`"),
        (json!({ "name": "{{ id }}" }), "lacks `url`"),
    ];
    for (template, expected) in cases {
        let problem = check(&template).unwrap();
        assert!(problem.contains(expected), "case: {template}: {problem}");
    }
    assert_eq!(check(&plain(json!({ "when": "rule_id == 7" }))), None);
}
