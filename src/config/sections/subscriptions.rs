//! An existing file of subscriptions, `customer-events`'s:
//! `{"webhooks": [{"url", "events", "secret", "headers"}]}`.
//!
//! It is read as it is, by the same readers as the TOML: the JSON is turned into a tree of TOML
//! values, so that a URL, a secret or a header means the same in both, and is told the same.
//!
//! A subscription is named by its URL, never by its place, so the file may be edited in any way while
//! events wait. Several of one URL are one endpoint, which takes the events of all of them; where they
//! differ in secret or headers, all but one need a `name`.

use std::borrow::Cow;

use serde_json::Value as Json;
use toml::Spanned;
use toml::de::DeArray;
use toml::de::DeFloat;
use toml::de::DeInteger;
use toml::de::DeTable;
use toml::de::DeValue;

use crate::config::endpoint_name;
use crate::config::sections::delivery_terms::EndpointTerms;
use crate::config::sections::endpoint;
use crate::config::sections::headers;
use crate::config::sections::signing;
use crate::config::settings::Endpoint;
use crate::config::settings::EventGlob;
use crate::config::settings::EventRule;
use crate::config::toml_file::problem_notes::ProblemNotes;
use crate::config::toml_file::toml_field::FieldReader;
use crate::config::toml_file::toml_reader::TomlSection;
use crate::config::url_template;
use crate::flow::unique_json;

/// Reads the file that `field` names. `terms` are what `[webhook]` gives each endpoint, `taken` the names
/// of the endpoints before them.
pub(crate) fn read(
    field: &FieldReader<'_>,
    terms: &EndpointTerms,
    rules: Option<&[EventRule]>,
    taken: &mut Vec<String>,
) -> Vec<Endpoint> {
    let Some(text) = field.text_of_file() else { return Vec::new() };
    let path = field.string().unwrap_or_default();
    let document = match unique_json::parse(text.as_bytes()) {
        Ok(document) => document,
        Err(error) => {
            // The text around the error may be a secret: the error itself holds only its place, and a key that
            // is there twice.
            field.note(format!("{} {error}", field.shown()));
            return Vec::new();
        }
    };
    let file = field.notes().directory().join(path).display().to_string();
    let notes = ProblemNotes::new(&file, "", field.notes().env());
    let tree = tree(&document);
    let endpoints = read_document(&notes, &tree, terms, rules, taken);
    taken.extend(endpoints.iter().map(|endpoint| endpoint.name.to_string()));
    field.notes().adopt(notes);
    endpoints
}

fn read_document<'a>(
    notes: &'a ProblemNotes<'a>,
    tree: &'a DeValue<'a>,
    terms: &EndpointTerms,
    rules: Option<&[EventRule]>,
    taken: &[String],
) -> Vec<Endpoint> {
    let Some(mut root) = FieldReader::new(notes, String::new(), 0, tree).section() else {
        return Vec::new();
    };
    let missing = "is missing: list the subscriptions";
    let items = root.require("webhooks", missing, FieldReader::list).unwrap_or_default();
    root.finish();
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for (index, item) in items.into_iter().enumerate() {
        let item = item.renamed(format!("webhooks[{index}]"));
        let names = taken.iter().cloned();
        let names: Vec<String> =
            names.chain(endpoints.iter().map(|endpoint| endpoint.name.to_string())).collect();
        let read = item.section().and_then(|section| read_one(section, terms, rules, &names));
        let Some((endpoint, is_named)) = read else { continue };
        let before = endpoints.iter_mut().find(|before| before.name == endpoint.name);
        match before {
            Some(before) if is_like(before, &endpoint) => add_events(before, endpoint.events),
            Some(_) => item.note(
                "is the same URL again, with another secret or other headers: give one of them a \
                 `name` of its own",
            ),
            None if !is_named && taken.iter().any(|name| **name == *endpoint.name) => item.note(
                "is one of `[webhook] urls` as well and would get its events twice: remove it from \
                 one of the two, or give this one a `name`",
            ),
            None => endpoints.push(endpoint),
        }
    }
    endpoints
}

/// Whether they differ in their events at most.
fn is_like(one: &Endpoint, other: &Endpoint) -> bool {
    Endpoint { events: one.events.clone(), ..other.clone() } == *one
}

fn add_events(endpoint: &mut Endpoint, events: Vec<EventGlob>) {
    for glob in events {
        if !endpoint.events.contains(&glob) {
            endpoint.events.push(glob);
        }
    }
}

/// Reads one; gives with it whether it was given a name.
fn read_one(
    mut section: TomlSection<'_>,
    terms: &EndpointTerms,
    rules: Option<&[EventRule]>,
    taken: &[String],
) -> Option<(Endpoint, bool)> {
    let mut terms = terms.clone();
    let named = section.read("name", |field| endpoint_name::read(field, taken));
    let url = section.require("url", "is missing: give an http(s) address", url_template::read);
    let events = match section.field("events") {
        Some(field) => endpoint::globs(&field, rules).unwrap_or_default(),
        None => vec![EventGlob::new("*")],
    };
    signing::read(&mut section, &mut terms);
    if let Some(own) = section.read("headers", headers::read) {
        headers::merge(&mut terms, own);
    }
    signing::check_headers(&section, &terms);
    if let Some(clash) = endpoint::unbatchable(&terms, &events, None, rules) {
        section.note("events", format!("with `batch_size` above 1 the request {clash}"));
    }
    if let Some(clash) = url.as_ref().and_then(|url| endpoint::varying(&terms, url)) {
        section.note("url", format!("with `batch_size` above 1 the request {clash}"));
    }
    section.finish();
    let url = url?;
    let is_named = named.is_some();
    let name = named.unwrap_or_else(|| endpoint_name::of_url(url.url.reveal()));
    Some((terms.endpoint(&name, url, events, None), is_named))
}

/// JSON as TOML values without places. Null is a key that is not there.
fn tree(json: &Json) -> DeValue<'_> {
    let spanned = |json| Spanned::new(0..0, tree(json));
    match json {
        Json::String(text) => DeValue::String(Cow::Borrowed(text)),
        Json::Array(items) => DeValue::Array(items.iter().map(spanned).collect::<DeArray<'_>>()),
        Json::Object(members) => {
            let there = members.iter().filter(|(_, value)| !value.is_null());
            let member = |(name, value): (&'_ String, _)| {
                (Spanned::new(0..0, Cow::Owned(name.clone())), spanned(value))
            };
            DeValue::Table(there.map(member).collect::<DeTable<'_>>())
        }
        // No key of the file takes one of these, so any value of the kind will do, to be refused as one.
        Json::Number(number) if number.is_f64() => DeValue::Float(DeFloat::default()),
        Json::Number(_) => DeValue::Integer(DeInteger::default()),
        Json::Bool(_) | Json::Null => DeValue::Boolean(json.as_bool().unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use crate::config;
    use crate::config::configuration::Settings;

    /// What is read with this list of subscriptions, and these `[webhook] urls`.
    fn read(webhooks: &str, urls: &str) -> Result<Settings, String> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("webhooks.json");
        std::fs::write(&file, format!("{{\"webhooks\": [{webhooks}]}}")).unwrap();
        let text = format!(
            "postgres.url = 'postgres://a@b/c'\n[webhook]\nurls = [{urls}]\nsubscriptions = '{}'",
            file.display()
        );
        config::parse(&text, "walhook.toml", &|_| None).map_err(|problems| problems.to_string())
    }

    fn named(webhooks: &str) -> Vec<(String, Vec<String>)> {
        let settings = read(webhooks, "").unwrap();
        let named = settings.endpoints.iter().map(|endpoint| {
            let events = endpoint.events.iter().map(|glob| glob.as_str().to_owned()).collect();
            (endpoint.name.to_string(), events)
        });
        named.collect()
    }

    const CRM: &str = r#"{"url": "https://crm.example.com/a", "events": ["ocr_wallet_data"]}"#;
    const ERP: &str =
        r#"{"url": "https://erp.example.com/b", "secret": "your-secret-key-is-here"}"#;

    #[test]
    fn a_subscription_keeps_its_name_wherever_it_stands() {
        let [crm, erp] = named(&[CRM, ERP].join(",")).try_into().unwrap();
        assert!(crm.0.starts_with("crm.example.com-") && erp.0.starts_with("erp.example.com-"));
        assert_eq!(named(&[ERP, CRM].join(",")), [erp.clone(), crm.clone()]);
        assert_eq!(named(ERP), std::slice::from_ref(&erp));
        let new = r#"{"url": "https://crm.example.com/other"}"#;
        assert_eq!(named(&[new, ERP, CRM].join(","))[1..], [erp, crm]);
    }

    #[test]
    fn several_of_one_url_take_the_events_of_all() {
        let again = r#"{"url": "https://crm.example.com:443/a", "events": ["ocr_*"]}"#;
        let [(_, events)] = named(&[CRM, again, CRM].join(",")).try_into().unwrap();
        assert_eq!(events, ["ocr_wallet_data", "ocr_*"]);
        let other = r#"{"url": "https://crm.example.com/a", "headers": {"X-A": "b"}}"#;
        let told = read(&[CRM, other].join(","), "").unwrap_err();
        assert!(told.contains("webhooks[1]: is the same URL again, with another secret"), "{told}");
        let named_one = other.replacen('{', r#"{"name": "CRM_2", "#, 1);
        assert_eq!(named(&[CRM, &named_one].join(","))[1].0, "CRM_2");
        let told = read(CRM, "'https://crm.example.com/a'").unwrap_err();
        assert!(told.contains("is one of `[webhook] urls` as well"), "{told}");
        for (secret, kind) in
            [("5", "a whole number"), ("1.5", "a decimal number"), ("true", "a boolean")]
        {
            let wrong = format!(r#"{{"url": "https://h/", "secret": {secret}}}"#);
            let told = read(&wrong, "").unwrap_err();
            assert!(
                told.contains("webhooks[0].secret: must be a string") && told.contains(kind),
                "{told}"
            );
        }
    }
}
