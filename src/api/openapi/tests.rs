//! `api::openapi`, by cases.

use std::collections::BTreeSet;

use serde_json::Value;
use serde_json::json;

use super::*;
use crate::config;
use crate::config::api_document;

fn document() -> Value {
    serde_json::from_str(&DOCUMENT).expect("the document is JSON")
}

fn there() -> impl Iterator<Item = RouteOperation> {
    operations::open().into_iter().chain(guarded())
}

fn operations(document: &Value) -> impl Iterator<Item = (&str, &str, &Value)> {
    let paths = document["paths"].as_object().expect("paths");
    paths.iter().flat_map(|(path, methods)| {
        let methods = methods.as_object().expect("methods");
        methods.iter().map(|(method, operation)| (method.as_str(), path.as_str(), operation))
    })
}

#[test]
fn each_operation_is_described_and_nothing_else() {
    let document = document();
    let described: BTreeSet<_> =
        operations(&document).map(|(method, path, _)| (method, path)).collect();
    assert_eq!(described, there().map(|operation| (operation.method, operation.path)).collect());
}

#[test]
fn what_needs_the_token_says_so_and_each_part_of_a_path_is_described() {
    let document = document();
    let open: BTreeSet<_> = operations::open().iter().map(|operation| operation.path).collect();
    for (method, path, operation) in operations(&document) {
        let about = format!("{method} {path}");
        let answers = operation["responses"].as_object().expect("answers");
        let silent = answers.values().any(|answer| answer["description"] == "");
        assert!(!silent && operation["summary"] != "", "{about}: what does an answer mean?");
        assert_eq!(answers.contains_key("401"), !open.contains(path), "{about}");
        assert_eq!(operation.get("security").is_some(), open.contains(path), "{about}");
        for (status, answer) in answers.iter().filter(|(status, _)| *status >= &"400".to_owned()) {
            let shared = answer["$ref"].as_str().and_then(|place| place.strip_prefix('#'));
            let answer = shared.and_then(|place| document.pointer(place)).unwrap_or(answer);
            let schema = &answer["content"]["application/problem+json"]["schema"]["$ref"];
            let schema = schema.as_str().unwrap_or_default();
            assert!(
                schema.ends_with("Problem") || schema.ends_with("Refusal"),
                "{about}: {status}"
            );
        }
        let named = path.split('{').skip(1).filter_map(|rest| rest.split('}').next());
        let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
        let described = parameters.iter().filter(|parameter| parameter["in"] == "path");
        let described: Vec<_> = described.filter_map(|p| p["name"].as_str()).collect();
        assert_eq!(named.collect::<Vec<_>>(), described, "{about}");
    }
}

#[test]
fn each_key_of_an_endpoint_that_is_described_is_known() {
    let document = document();
    let schemas = &document["components"]["schemas"];
    let keys = schemas["EndpointDocument"]["properties"].as_object().expect("keys");
    let text = "[postgres]\nurl = \"postgres://u@h/d\"\n[endpoints]\n";
    let settings = config::parse(text, "walhook.toml", &|_| None).expect("sound");
    for key in keys.keys().map(String::as_str).chain(["nonsense"]) {
        let mut endpoint = json!({ "name": "a", "url": "https://h/" });
        endpoint[key] = json!("?");
        let read = api_document::read(&endpoint, &settings.run_time.defaults, None);
        let told = read.err().map(|problems| problems.to_string()).unwrap_or_default();
        assert_eq!(told.contains("unknown key"), key == "nonsense", "{key}: {told}");
    }
}

#[test]
fn each_reference_leads_somewhere() {
    fn follow(whole: &Value, part: &Value) {
        match part {
            Value::Object(fields) => {
                if let Some(Value::String(target)) = fields.get("$ref") {
                    let pointer = target.strip_prefix('#').expect("a place in this document");
                    assert!(whole.pointer(pointer).is_some(), "{target}");
                }
                fields.values().for_each(|value| follow(whole, value));
            }
            Value::Array(items) => items.iter().for_each(|item| follow(whole, item)),
            _ => {}
        }
    }
    let document = document();
    follow(&document, &document);
}
