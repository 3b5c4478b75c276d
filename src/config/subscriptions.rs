//! An existing file of subscriptions, contract 2's:
//! `{"webhooks": [{"url", "events", "secret", "headers"}]}`.
//!
//! It is read as it is, by the same readers as the TOML: the JSON is turned into a tree of TOML
//! values, so that a URL, a secret or a header means the same in both, and is told the same.

use std::borrow::Cow;

use serde_json::Value as Json;
use toml::Spanned;
use toml::de::DeArray;
use toml::de::DeTable;
use toml::de::DeValue;

use crate::config::endpoint;
use crate::config::field::Field;
use crate::config::headers;
use crate::config::reader::Notes;
use crate::config::reader::Section;
use crate::config::settings::Endpoint;
use crate::config::settings::EventRule;
use crate::config::settings::Glob;
use crate::config::signing;
use crate::config::terms;
use crate::config::terms::Terms;

/// The endpoints are named `subscription-1`, `subscription-2`, ... in the order of the file.
fn name_of(index: usize) -> String {
    format!("subscription-{}", index + 1)
}

/// Reads the file that `field` names. `terms` are what `[webhook]` gives each endpoint.
pub(super) fn read(field: &Field<'_>, terms: &Terms, rules: Option<&[EventRule]>) -> Vec<Endpoint> {
    let Some(text) = field.text_of_file() else { return Vec::new() };
    let path = field.string().unwrap_or_default();
    let document: Json = match serde_json::from_str(&text) {
        Ok(document) => document,
        Err(error) => {
            // The text around the error may be a secret: the error itself holds only its place.
            field.note(format!("{} is not JSON: {error}", field.shown()));
            return Vec::new();
        }
    };
    let file = field.notes().directory().join(path).display().to_string();
    let notes = Notes::new(&file, "", field.notes().env());
    let tree = tree(&document);
    let endpoints = read_document(&notes, &tree, terms, rules);
    field.notes().adopt(notes);
    endpoints
}

fn read_document<'a>(
    notes: &'a Notes<'a>,
    tree: &'a DeValue<'a>,
    terms: &Terms,
    rules: Option<&[EventRule]>,
) -> Vec<Endpoint> {
    let Some(mut root) = Field::new(notes, String::new(), 0, tree).section() else {
        return Vec::new();
    };
    let missing = "is missing: list the subscriptions";
    let items = root.require("webhooks", missing, Field::list).unwrap_or_default();
    root.finish();
    let read_one = |(index, item): (usize, Field<'a>)| {
        let section = item.renamed(format!("webhooks[{index}]")).section()?;
        read_one(section, &name_of(index), terms.clone(), rules)
    };
    items.into_iter().enumerate().filter_map(read_one).collect()
}

fn read_one(
    mut section: Section<'_>,
    name: &str,
    mut terms: Terms,
    rules: Option<&[EventRule]>,
) -> Option<Endpoint> {
    let url = section.require("url", "is missing: give an http(s) address", terms::endpoint_url);
    let events = match section.field("events") {
        Some(field) => endpoint::globs(&field, rules).unwrap_or_default(),
        None => vec![Glob::new("*")],
    };
    signing::read(&mut section, &mut terms);
    if let Some(own) = section.read("headers", headers::read) {
        headers::merge(&mut terms.headers, own);
    }
    signing::check_headers(&section, &terms);
    if let Some(clash) = endpoint::unbatchable(&terms, &events, None, rules) {
        section.note("events", format!("with `batch_size` above 1 the request {clash}"));
    }
    section.finish();
    Some(terms.endpoint(name, url?, events, None))
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
        // No key of the file takes one of these, so any value that is refused will do.
        Json::Bool(_) | Json::Number(_) | Json::Null => {
            DeValue::Boolean(json.as_bool().unwrap_or_default())
        }
    }
}
