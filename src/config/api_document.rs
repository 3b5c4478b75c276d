//! Endpoints that come over the API: JSON documents with the keys of `[[endpoint]]`.
//!
//! ```text
//! JSON ─▶ TOML text ─ tree ─▶ [endpoint], as for the file ─▶ Endpoint, or every problem at once
//! ```
//!
//! A client of the API is not the operator of this host: its document names no environment
//! variables and no files, dials public addresses only unless the configuration lists others, and
//! its filter is short and does not loop. What is secret in it can be taken out, to be sealed.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Map;
use serde_json::Value as Json;
use toml::de::DeTable;
use url::Position;
use url::Url;

use crate::config::problem::ConfigProblems;
use crate::config::sections::delivery_terms::EndpointDefaults;
use crate::config::sections::endpoint;
use crate::config::settings::Endpoint;
use crate::config::settings::EventRule;
use crate::config::toml_file::problem_notes::ProblemNotes;
use crate::config::toml_file::toml_reader::TomlSection;
use crate::config::toml_file::toml_text;
use crate::config::toml_file::units::parse_duration;
use crate::flow::secret_header::is_secret_header;

/// What stands for a secret in a document that is shown. Given back, it means what was there.
pub(crate) const MASK: &str = "[secret]";

/// The longest filter, and the most headers and bytes of them. An operator has more room.
const FILTER_BYTES_MAX: usize = 1024;
const HEADERS_MAX: usize = 32;
const HEADER_BYTES_MAX: usize = 8 * 1024;
const EVENTS_MAX: usize = 100;

/// Deeper than what anybody needs, and less than what the reader of TOML bears.
const DEPTH_MAX: usize = 32;

/// Keys whose strings are secrets, wherever they stand.
const SECRET_KEYS: [&str; 8] =
    ["password", "client_secret", "corp_secret", "private_key", "token", "bearer", "value", "key"];

/// Where the address stands from which access tokens are fetched.
const TOKEN_URL: &str = "/auth/oauth2/token_url";

/// Reads a document. `rules` are the events that exist; without them what the endpoint asks for is
/// not held against them, as for one that was saved when they were others.
///
/// # Errors
/// Everything that is wrong with it, by key.
pub(crate) fn read(
    document: &Json,
    defaults: &EndpointDefaults,
    rules: Option<&[EventRule]>,
) -> Result<Endpoint, ConfigProblems> {
    let notes = ProblemNotes::foreign("the document");
    let endpoint = read_noting(&notes, document, defaults, rules);
    notes.conclude(endpoint)
}

fn read_noting(
    notes: &ProblemNotes<'_>,
    document: &Json,
    defaults: &EndpointDefaults,
    rules: Option<&[EventRule]>,
) -> Option<Endpoint> {
    let Json::Object(members) = document else {
        notes.note(None, "", "must be an object with the keys of an [[endpoint]]".to_owned());
        return None;
    };
    check_bounds(notes, members);
    for (key, value) in members {
        if let Some(what) = unkeepable(value, DEPTH_MAX) {
            notes.note(None, key, what);
            return None;
        }
    }
    let endpoint = read_members(notes, members, defaults, rules)?;
    if endpoint.renamed_from.is_some() {
        let what = "is for the configuration file: POST /api/v1/endpoints/{name}/rename";
        notes.note(None, "renamed_from", what.to_owned());
    }
    let filter = endpoint.filter.iter().map(|filter| ("when", filter));
    for (key, expression) in filter.chain(endpoint.request.expressions()) {
        if expression.names().loops {
            let what = "goes through a list, which is left to the configuration file: compare values instead";
            notes.note(None, key, what.to_owned());
        }
    }
    Some(endpoint)
}

/// Reads the keys of an `[[endpoint]]`, of the API and of rows alike.
pub(super) fn read_members(
    notes: &ProblemNotes<'_>,
    members: &Map<String, Json>,
    defaults: &EndpointDefaults,
    rules: Option<&[EventRule]>,
) -> Option<Endpoint> {
    let text = toml_text::of(members);
    let (table, errors) = DeTable::parse_recoverable(&text);
    if let Some(error) = errors.first() {
        notes.note(None, "", format!("cannot be read: {}", error.message()));
        return None;
    }
    // Notes and tree have one lifetime, and the tree's is this function's.
    let inner = ProblemNotes::foreign("the document");
    let section = TomlSection::root(&inner, table.get_ref());
    let endpoint = endpoint::read(section, defaults.terms.clone(), rules, &mut Vec::new());
    notes.adopt(inner);
    Some(Endpoint { addresses: defaults.addresses, ..endpoint? })
}

/// Why a value cannot be kept in a column of type jsonb, or read as a table.
fn unkeepable(value: &Json, depth: usize) -> Option<String> {
    let inside: Vec<&Json> = match value {
        Json::String(text) if text.contains('\0') => {
            return Some(
                "holds the character U+0000, which PostgreSQL cannot keep: remove it".to_owned(),
            );
        }
        Json::Array(items) => items.iter().collect(),
        Json::Object(members) if members.keys().any(|key| key.contains('\0')) => {
            return Some("has U+0000 in a key, which PostgreSQL cannot keep: remove it".to_owned());
        }
        Json::Object(members) => members.values().collect(),
        _ => return None,
    };
    if depth == 0 {
        return Some(format!("is nested deeper than {DEPTH_MAX} levels: give something flatter"));
    }
    inside.into_iter().find_map(|value| unkeepable(value, depth - 1))
}

fn check_bounds(notes: &ProblemNotes<'_>, members: &Map<String, Json>) {
    let note = |key: &str, message: String| notes.note(None, key, message);
    let filter = members.get("when").and_then(Json::as_str).map_or(0, str::len);
    if filter > FILTER_BYTES_MAX {
        note("when", format!("is longer than {FILTER_BYTES_MAX} bytes: shorten it"));
    }
    let events = members.get("events").and_then(Json::as_array).map_or(0, Vec::len);
    if events > EVENTS_MAX {
        note("events", format!("has {events} entries: give up to {EVENTS_MAX}, or use `*`"));
    }
    if let Some(Json::Object(headers)) = members.get("headers") {
        let bytes: usize = headers
            .iter()
            .map(|(name, value)| name.len() + value.as_str().map_or(0, str::len))
            .sum();
        if headers.len() > HEADERS_MAX || bytes > HEADER_BYTES_MAX {
            let most = format!("{HEADERS_MAX} headers and {HEADER_BYTES_MAX} bytes");
            note("headers", format!("are more than {most}: remove some"));
        }
    }
    // What goes around the judgement of addresses, or needs files of this host.
    for name in ["proxy", "tls"] {
        if members.get(name).is_some_and(|value| !value.is_null()) {
            note(name, "is left to the configuration file: leave it out".to_owned());
        }
    }
    for name in ["payload", "payload_file", "content_type"] {
        let is_named = members.get(name).and_then(Json::as_str);
        if members.contains_key(name)
            && !(name == "payload" && is_named.is_some_and(|text| !text.contains("{{")))
        {
            note(
                name,
                "is left to the configuration file: give the name of a built-in payload, \
                        or leave it out"
                    .to_owned(),
            );
        }
    }
}

/// Reads a duration as the configuration has it: `24h`.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    parse_duration(text)
}

/// The secrets of a document by the place that each has in it (a JSON pointer).
pub(crate) type SecretFiles = BTreeMap<String, String>;

/// Takes the secrets out of a document, to be sealed; each leaves [`MASK`] behind.
pub(crate) fn take_secrets(document: &mut Json) -> SecretFiles {
    let mut secrets = SecretFiles::new();
    visit(document, String::new(), &mut |pointer, text| {
        if is_secret(pointer, text) {
            secrets.insert(pointer.to_owned(), std::mem::replace(text, MASK.to_owned()));
        }
    });
    secrets
}

/// Puts secrets in the place of each [`MASK`]. One that is not known stays, and is refused as too
/// short or not sent: it is no secret of anybody.
pub(crate) fn put_secrets(document: &mut Json, secrets: &SecretFiles) {
    visit(document, String::new(), &mut |pointer, text| {
        if let (MASK, Some(secret)) = (text.as_str(), secrets.get(pointer)) {
            secret.clone_into(text);
        }
    });
}

/// A document as it may be seen: with masks for its secrets, and of each URL no more than what people
/// recognise it by.
pub(crate) fn masked(document: &Json) -> Json {
    let mut shown = document.clone();
    visit(&mut shown, String::new(), &mut |pointer, text| {
        if is_url(pointer) {
            *text = masked_url(text);
        }
    });
    take_secrets(&mut shown);
    shown
}

/// Scheme, host and port of a URL, and [`MASK`] for the rest if there is more.
pub(crate) fn masked_url(text: &str) -> String {
    match Url::parse(text.trim()) {
        Ok(url) if url.has_host() => {
            let origin = url.origin().ascii_serialization();
            match &url[Position::BeforePath..] {
                "" | "/" => format!("{origin}/"),
                _ => format!("{origin}/{MASK}"),
            }
        }
        // Such a one is refused when it is written, so there is none to recognise.
        Ok(_) | Err(_) => MASK.to_owned(),
    }
}

/// Puts what `before` has in the place of what [`masked`] shows of it: a client that gives back what
/// was shown changes nothing.
pub(crate) fn unmask(document: &mut Json, before: &Json) {
    visit(document, String::new(), &mut |pointer, text| {
        let Some(Json::String(known)) = before.pointer(pointer) else { return };
        let is_shown = (text == MASK && (is_url(pointer) || is_secret(pointer, known)))
            || (is_url(pointer) && *text == masked_url(known));
        if is_shown {
            known.clone_into(text);
        }
    });
}

/// The credentials that a document with masks keeps of `before` though its URL, or the one that tokens are
/// fetched from, leads to another origin: by key, each once. They would be sent there. What
/// signs is none of them, since it is never sent.
pub(crate) fn carried_off(document: &Json, before: &Json) -> Vec<String> {
    let is_moved = |pointer: &str| {
        let text = |document: &Json| document.pointer(pointer)?.as_str().map(ToOwned::to_owned);
        let (Some(new), Some(known)) = (text(document), text(before)) else { return false };
        let origin = |text: &str| Url::parse(text.trim()).ok().map(|url| url.origin());
        new != MASK && origin(&new) != origin(&known)
    };
    let (url, token_url) = (is_moved("/url"), is_moved(TOKEN_URL));
    let mut kept = Vec::new();
    visit(&mut document.clone(), String::new(), &mut |pointer, text| {
        let Some(Json::String(known)) = before.pointer(pointer) else { return };
        let goes_along = url || (token_url && pointer.starts_with("/auth/oauth2/"));
        let is_sent = is_secret(pointer, known) && !is_url(pointer) && !is_signing(pointer);
        if goes_along && is_sent && text == MASK {
            kept.push(pointer.trim_start_matches('/').replace('/', "."));
        }
    });
    kept
}

fn is_signing(pointer: &str) -> bool {
    pointer == "/secret" || pointer.starts_with("/secret/")
}

/// Whether a document holds [`MASK`] where no secret is known.
pub(crate) fn is_masked(document: &Json) -> bool {
    let mut is_masked = false;
    let mut copy = document.clone();
    visit(&mut copy, String::new(), &mut |pointer, text| {
        is_masked |= text == MASK || (is_url(pointer) && text.ends_with(MASK));
    });
    is_masked
}

/// Every string, with its place. The depth is that of serde_json's parser at most.
fn visit(value: &mut Json, pointer: String, each: &mut impl FnMut(&str, &mut String)) {
    match value {
        Json::String(text) => each(&pointer, text),
        Json::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                visit(item, format!("{pointer}/{index}"), each);
            }
        }
        Json::Object(members) => {
            for (name, member) in members {
                let name = name.replace('~', "~0").replace('/', "~1");
                visit(member, format!("{pointer}/{name}"), each);
            }
        }
        Json::Null | Json::Bool(_) | Json::Number(_) => {}
    }
}

fn is_url(pointer: &str) -> bool {
    matches!(pointer, "/url" | TOKEN_URL)
}

fn is_secret(pointer: &str, text: &str) -> bool {
    let mut path = pointer.split('/').skip(1);
    let (first, second) = (path.next().unwrap_or_default(), path.next());
    let last = pointer.rsplit('/').next().unwrap_or_default();
    match (first, second) {
        ("secret", _) => true,
        _ if is_url(pointer) => text.contains('?'),
        ("headers", Some(name)) => is_secret_header(&name.to_ascii_lowercase()),
        (_, Some(_)) => SECRET_KEYS.contains(&last),
        (_, None) => false,
    }
}

#[cfg(test)]
mod tests;
