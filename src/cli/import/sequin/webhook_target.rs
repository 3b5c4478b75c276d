//! Where a sink of Sequin goes: URL, headers, batches.

use serde_json::Value;

use crate::cli::import::draft::ImportDraft;
use crate::cli::import::draft::ImportedSection;
use crate::cli::import::draft::column;
use crate::cli::import::draft::list;
use crate::cli::import::draft::literal;
use crate::cli::import::draft::quoted;
use crate::cli::import::items;
use crate::cli::import::sequin::reading::lose_unread;
use crate::cli::import::sequin::reading::plain;
use crate::cli::import::text;

const HTTP_ENDPOINT_READ: [&str; 4] = ["name", "url", "headers", "encrypted_headers"];

/// A transform that takes a part of the message.
pub(super) fn path(document: &Value, wished: &str) -> Option<String> {
    let named = |list: &'static str| {
        items(document, list).iter().find(|one| text(one, "name") == Some(wished))
    };
    let transform = named("transforms").or(named("functions"))?;
    let inner = transform.get("transform").or(transform.get("function")).unwrap_or(transform);
    if text(inner, "type") != Some("path") {
        return None;
    }
    let mut parts = text(inner, "path")?.split('.');
    let root = parts.next()?;
    let rest: Vec<&str> = parts.collect();
    let expression = match (root, rest.as_slice()) {
        ("record", []) => String::from("row"),
        ("changes", []) => String::from("changes"),
        ("action", []) => String::from("op"),
        ("record", [name]) => column(name),
        ("changes", [name]) => format!("changes[{}]", literal(name)),
        ("metadata", ["commit_timestamp"]) => String::from("committed"),
        ("metadata", ["transaction_annotations", rest @ ..]) => rest
            .iter()
            .fold(String::from("metadata"), |all, part| format!("{all}[{}]", literal(part))),
        _ => return None,
    };
    Some(quoted(&format!("{{{{ {expression} }}}}")))
}

pub(super) fn endpoint(
    draft: &mut ImportDraft,
    document: &Value,
    sink: &Value,
    name: &str,
    batch: u64,
) {
    let destination = sink.get("destination").unwrap_or(&Value::Null);
    let wished = text(destination, "http_endpoint").unwrap_or_default();
    let target =
        items(document, "http_endpoints").iter().find(|one| text(one, "name") == Some(wished));
    if let Some(target) = target.filter(|target| target.get("url").is_some()) {
        lose_unread(draft, target, &HTTP_ENDPOINT_READ, &format!("http_endpoint {wished}"));
    }
    let mut section = ImportedSection::new("[[endpoint]]");
    section.set("name", quoted(name));
    let path = text(destination, "http_endpoint_path").unwrap_or_default();
    let url = match target.and_then(|target| text(target, "url")) {
        Some(url) => quoted(&joined(url, path)),
        None => {
            draft.lose(format!(
                "http_endpoint {wished:?} has no URL here (a tunnel, webhook.site, or not in this file)"
            ));
            let variable = draft.secret(&format!("{name}_URL"), &format!("where {name} listens"));
            format!("{{ env = {} }}", quoted(&variable))
        }
    };
    section.set("url", url);
    section.set("events", list([format!("{name}.*").as_str()]));
    match text(sink, "status") {
        None | Some("active") => {}
        Some("disabled") => section.set("enabled", "false"),
        Some("paused") => draft.lose(format!(
            "`status: paused` of sink {name}: pause it when walhook runs, `walhook endpoints pause {name}`"
        )),
        Some(other) => draft.lose(format!("`status: {other}` of sink {name}")),
    }
    let headers = target.map(|target| headers(draft, target, name)).unwrap_or_default();
    if !headers.is_empty() {
        section.set("headers", format!("{{ {} }}", headers.join(", ")));
    }
    if batch > 1 {
        let size = batch.min(100);
        if batch > size {
            draft.lose(format!("batch_size {batch} of {name}: 100 is the most"));
        }
        section.set("batch", format!("{{ size = {size} }}"));
    }
    draft.endpoint(section);
}

/// The headers of an HTTP endpoint as TOML, those that are secrets by a variable each.
pub(super) fn headers(draft: &mut ImportDraft, target: &Value, name: &str) -> Vec<String> {
    let mut headers = Vec::new();
    for (key, value) in pairs(draft, target, "headers", name) {
        if !key.eq_ignore_ascii_case("content-type") {
            headers.push(format!("{} = {}", quoted(&key), quoted(&value)));
        }
    }
    for (key, _) in pairs(draft, target, "encrypted_headers", name) {
        let what = format!("the header {key} of endpoint {name}");
        let variable = draft.secret(&format!("{name}_{key}"), &what);
        headers.push(format!("{} = {{ env = {} }}", quoted(&key), quoted(&variable)));
    }
    headers
}

/// Names and values: a list of `key` and `value`, as the documentation has it, or a table of them.
fn pairs(draft: &mut ImportDraft, target: &Value, list: &str, name: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    match target.get(list) {
        None | Some(Value::Null) => {}
        Some(Value::Object(table)) => {
            found.extend(table.iter().map(|(key, value)| (key.clone(), plain(value))));
        }
        Some(Value::Array(items)) => {
            for item in items {
                match (text(item, "key"), item.get("value")) {
                    (Some(key), Some(value)) => found.push((key.to_owned(), plain(value))),
                    _ => draft.lose(format!(
                        "one of `{list}` of endpoint {name}: it has no key and value"
                    )),
                }
            }
        }
        Some(_) => {
            draft.lose(format!("`{list}` of endpoint {name}: they are no list of key and value"))
        }
    }
    found
}

fn joined(url: &str, path: &str) -> String {
    match path {
        "" => url.to_owned(),
        path => format!("{}/{}", url.trim_end_matches('/'), path.trim_start_matches('/')),
    }
}
