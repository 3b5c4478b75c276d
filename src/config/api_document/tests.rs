//! `config::api_document`, by cases.

use crate::config::settings::AddressPolicy;
use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::config;
use crate::config::configuration::Settings;
use crate::config::settings::RetryDelays;

fn settings() -> Settings {
    let text = "[postgres]\nurl = \"postgres://u@h/d\"\n[endpoints]\nallow = [\"10.1.0.0/16\"]\n\
                [[event]]\ntype = \"order.created\"\ntable = \"orders\"\n";
    config::parse(text, "walhook.toml", &|name| {
        (name == "SECRET").then(|| "a secret of this host".to_owned())
    })
    .unwrap()
}

fn read_one(document: &Json) -> Result<Endpoint, Vec<String>> {
    let settings = settings();
    read(document, &settings.run_time.defaults, Some(&settings.events)).map_err(|problems| {
        problems.iter().map(|problem| format!("{}: {}", problem.key, problem.message)).collect()
    })
}

#[test]
fn a_document_has_the_keys_of_an_endpoint() {
    let endpoint = read_one(&json!({
        "name": "crm", "url": "https://crm.example.com/hooks", "events": ["order.*"],
        "when": "total > 5", "timeout": "3s", "retry": { "delays": ["1s", "2s"] },
        "rate_limit": 2.5, "concurrency": 2, "enabled": false, "auth": null,
        "headers": { "X-Note": "a \"quoted\" \\ \u{7f}".trim_end_matches('\u{7f}') },
    }))
    .unwrap();
    assert_eq!(&*endpoint.name, "crm");
    assert_eq!((endpoint.rate_limit, endpoint.concurrency.get()), (Some(2.5), 2));
    assert!(!endpoint.enabled);
    assert!(matches!(&endpoint.retry.delays, RetryDelays::List(delays) if delays.len() == 2));
    assert_eq!(endpoint.headers["x-note"], "a \"quoted\" \\ ");
    assert!(matches!(endpoint.addresses, AddressPolicy::Listed(_)));
    assert_eq!(endpoint.name, Arc::from("crm"));
}

#[test]
fn every_problem_is_told_at_once_with_its_key() {
    let long = "a".repeat(1025);
    let deep = (0..40).fold(json!(1), |inner, _| json!({ "a": inner }));
    let headers: Map<String, Json> = (0..33).map(|n| (format!("x-{n}"), json!("v"))).collect();
    let url = "https://h/";
    let cases = [
        (json!([]), vec![": must be an object"]),
        (json!({}), vec!["name: is missing", "url: is missing"]),
        (json!({"name": "Bad Name", "url": "ftp://x"}), vec!["name: \"Bad Name\"", "url: is not"]),
        (json!({"name": "a", "url": url, "tiemout": "1s"}), vec!["tiemout: unknown key: did you"]),
        (json!({"name": "a", "url": url, "retry": {"max": 1000}}), vec!["retry.max: 1000 is out"]),
        (json!({"name": "a", "url": url, "events": ["x.*"]}), vec!["events: \"x.*\" matches no"]),
        (json!({"name": "a", "url": url, "timeout": 5}), vec!["timeout: 5 has no unit"]),
        (json!({"name": "a", "url": url, "when": long}), vec!["when: is longer than 1024"]),
        (
            json!({"name": "a", "url": url, "when": "v == '\0'"}),
            vec!["when: holds the character U+0000"],
        ),
        (
            json!({"name": "a", "url": url, "test": {"a": ["\0"]}}),
            vec!["test: holds the character"],
        ),
        (json!({"name": "a", "url": url, "test": {"\0": 1}}), vec!["test: has U+0000 in a key"]),
        (json!({"name": "a", "url": url, "test": deep}), vec!["test: is nested deeper than 32"]),
        (
            json!({"name": "a", "url": url, "when": "[1].exists(x, x == 1)"}),
            vec!["when: goes through a list"],
        ),
        (json!({"name": "a", "url": url, "headers": headers}), vec!["headers: are more than 32"]),
        (json!({"name": "a", "url": url, "payload": {"a": 1}}), vec!["payload: is left to"]),
        (
            json!({"name": "a", "url": url, "payload_file": "/etc/passwd"}),
            vec!["payload_file: is left to"],
        ),
        (
            json!({"name": "a", "url": url, "proxy": "http://10.0.0.1:3128"}),
            vec!["proxy: is left to"],
        ),
        (
            json!({"name": "a", "url": url, "secret": {"env": "SECRET"}}),
            vec!["secret: must be a string that is the secret itself"],
        ),
        (
            json!({"name": "a", "url": {"file": "/etc/hostname"}}),
            vec!["url: must be a string that is the secret itself"],
        ),
        (json!({"name": "a", "url": url, "headers": {"x": "a\nb"}}), vec!["headers.x: holds a"]),
        (
            json!({"name": "a", "url": url, "concurrency": u64::MAX}),
            vec!["concurrency: 18446744073709551615 is out"],
        ),
    ];
    for (document, expected) in cases {
        let problems = read_one(&document).map(|e| e.name).unwrap_err();
        for start in expected {
            let found = problems.iter().any(|problem| problem.starts_with(start));
            assert!(found, "case: {document}: {start}: {problems:?}");
        }
    }
}

#[test]
fn a_variable_is_plain_text_and_never_filled_in() {
    let endpoint = read_one(&json!({
        "name": "a", "url": "https://h/", "headers": { "x-env": "${SECRET}" },
        "user_agent": "${SECRET}",
    }))
    .unwrap();
    assert_eq!(endpoint.headers["x-env"], "${SECRET}");
    assert_eq!(endpoint.user_agent, "${SECRET}");
}

#[test]
fn secrets_are_taken_out_and_put_back() {
    let whole = json!({
        "name": "crm", "url": "https://h/x?token=t", "secret": ["one", "two"],
        "auth": { "basic": { "username": "u", "password": "p" } },
        "headers": { "X-Api-Key": "k", "X-Note": "n" },
    });
    let mut shown = whole.clone();
    let secrets = take_secrets(&mut shown);
    assert_eq!(
        shown,
        json!({
            "name": "crm", "url": MASK, "secret": [MASK, MASK],
            "auth": { "basic": { "username": "u", "password": MASK } },
            "headers": { "X-Api-Key": MASK, "X-Note": "n" },
        })
    );
    assert!(is_masked(&shown));
    put_secrets(&mut shown, &secrets);
    assert_eq!(shown, whole);
    for auth in [json!({"bearer": "t"}), json!({"api_key": {"name": "X-Key", "value": "v"}})] {
        let mut document = json!({ "auth": auth });
        assert_eq!(take_secrets(&mut document).len(), 1, "case: {document}");
    }
}

#[test]
fn what_is_shown_of_a_url_is_its_origin_and_giving_it_back_changes_nothing() {
    let token_url = "https://id.example.com/oauth/hunter2?tenant=hunter3";
    let whole = json!({
        "name": "robot", "url": "https://h:8443/robot/hunter1", "secret": "hunter4",
        "auth": { "oauth2": { "token_url": token_url, "client_id": "me", "client_secret": "hunter5" } },
    });
    let shown = masked(&whole);
    assert!(!shown.to_string().contains("hunter"), "{shown}");
    assert_eq!(shown["url"], "https://h:8443/[secret]");
    assert_eq!(shown["auth"]["oauth2"]["token_url"], "https://id.example.com/[secret]");
    assert!(is_masked(&shown), "it is no endpoint by itself");
    let mut back = shown;
    unmask(&mut back, &whole);
    assert_eq!(back, whole);
    let mut moved = json!({ "url": "https://h:8443/" });
    unmask(&mut moved, &whole);
    assert_eq!(moved["url"], "https://h:8443/", "that is another URL");
    let mut sealed = whole.clone();
    take_secrets(&mut sealed);
    assert_eq!(sealed["auth"]["oauth2"]["token_url"], MASK, "a query is sealed at rest");
    for (url, expected) in [
        ("https://h/", "https://h/"),
        ("https://h", "https://h/"),
        ("https://h/?k=1", "https://h/[secret]"),
        ("hunter2", MASK),
    ] {
        assert_eq!(masked_url(url), expected, "case: {url}");
    }
}
