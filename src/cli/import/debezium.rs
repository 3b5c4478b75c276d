//! Debezium Server's `application.properties`, with its HTTP sink.

use std::collections::BTreeMap;

use crate::cli::import::draft::ImportDraft;
use crate::cli::import::draft::ImportedSection;
use crate::cli::import::draft::list;
use crate::cli::import::draft::quoted;

const SOURCE: &str = "debezium.source.";
const SINK: &str = "debezium.sink.http.";

/// What walhook does anyway, or keeps by itself.
const NEEDLESS: [&str; 9] = [
    "debezium.source.connector.class",
    "debezium.source.plugin.name",
    "debezium.source.publication.autocreate.mode",
    "debezium.source.tombstones.on.delete",
    "debezium.source.tasks.max",
    "debezium.format.key",
    "debezium.format.value",
    "debezium.format.header",
    "debezium.sink.type",
];

struct ServerProperties {
    left: BTreeMap<String, String>,
}

impl ServerProperties {
    /// The value of a key, which counts as read; empty ones count as missing.
    fn take(&mut self, key: &str) -> Option<String> {
        self.left.remove(key).filter(|value| !value.is_empty())
    }
}

pub(super) fn convert(text: &str) -> ImportDraft {
    let mut draft = ImportDraft::default();
    let mut properties = ServerProperties { left: read(text) };
    let connector = properties.left.get("debezium.source.connector.class").cloned();
    let connector = connector.unwrap_or_default();
    if !connector.is_empty() && !connector.contains("PostgresConnector") {
        draft.lose(format!("connector {connector}: walhook reads PostgreSQL alone"));
        return draft;
    }
    let sink = properties.left.get("debezium.sink.type").cloned().unwrap_or_default();
    if sink != "http" {
        draft.lose(format!("sink {sink:?}: walhook sends to HTTP endpoints"));
        return draft;
    }
    postgres(&mut draft, &mut properties);
    events(&mut draft, &mut properties);
    endpoint(&mut draft, &mut properties);
    for key in NEEDLESS {
        properties.left.remove(key);
    }
    for key in ["topic.prefix", "database.server.name", "name"] {
        if let Some(name) = properties.take(&format!("{SOURCE}{key}")) {
            draft.lose(format!("{SOURCE}{key} = {name}: `source.name` of the body is \"walhook\""));
        }
    }
    for (key, value) in properties.left {
        if key.starts_with("quarkus.") {
            draft.lose(format!("{key}: of Debezium's own process"));
        } else if key.contains("password") || key.contains("secret") {
            draft.lose(key);
        } else {
            draft.lose(format!("{key} = {value}"));
        }
    }
    draft
}

/// `key=value`, `key: value` and `key value`, comments, and lines that a backslash continues.
fn read(text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut whole = String::new();
    for line in text.lines() {
        let line = line.trim_start();
        if whole.is_empty() && (line.is_empty() || line.starts_with(['#', '!'])) {
            continue;
        }
        if let Some(start) = line.strip_suffix('\\') {
            whole.push_str(start);
            continue;
        }
        whole.push_str(line);
        let (key, value) = whole.split_once(['=', ':']).unwrap_or((&whole, ""));
        found.insert(key.trim().to_owned(), substituted(value.trim()));
        whole.clear();
    }
    found
}

/// `${NAME:default}` is `${NAME:-default}` here.
fn substituted(value: &str) -> String {
    let mut parts = value.split("${");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push_str("${");
        match part.split_once('}') {
            Some((inside, rest)) => {
                match inside.split_once(':') {
                    Some((name, default)) if !default.starts_with('-') => {
                        out.push_str(&format!("{name}:-{default}"));
                    }
                    _ => out.push_str(inside),
                }
                out.push('}');
                out.push_str(rest);
            }
            None => out.push_str(part),
        }
    }
    out
}

fn postgres(draft: &mut ImportDraft, properties: &mut ServerProperties) {
    let mut source = |name: &str, default: &str| {
        properties.take(&format!("{SOURCE}database.{name}")).unwrap_or_else(|| default.to_owned())
    };
    let (host, port) = (source("hostname", "localhost"), source("port", "5432"));
    let (user, name) = (source("user", "postgres"), source("dbname", "postgres"));
    let password = source("password", "");
    let ssl = source("sslmode", "");
    let password = match password.starts_with("${") {
        true => password,
        false => format!(
            "${{{}}}",
            draft.secret("DATABASE_PASSWORD", "the password of the role, percent-encoded")
        ),
    };
    let ssl = if ssl.is_empty() { ssl } else { format!("?sslmode={ssl}") };
    draft.postgres.push(format!(
        "url = {}",
        quoted(&format!("postgres://{user}:{password}@{host}:{port}/{name}{ssl}"))
    ));
    for key in ["slot.name", "publication.name"] {
        if let Some(name) = properties.take(&format!("{SOURCE}{key}")) {
            draft.lose(format!(
                "{key} {name}: walhook makes its own; drop Debezium's when it is not used any more"
            ));
        }
    }
    let offsets = |key: &String| key.contains("offset.") || key.contains("schema.history");
    let own: Vec<String> = properties.left.keys().filter(|key| offsets(key)).cloned().collect();
    for key in own {
        properties.left.remove(&key);
        draft.lose(format!("{key}: positions begin anew with walhook's own slot"));
    }
    match properties.take(&format!("{SOURCE}snapshot.mode")).as_deref() {
        None | Some("never" | "no_data") => {}
        Some(mode) => {
            draft.lose(format!(
                "snapshot.mode {mode}: rows from before walhook's slot raise no event by themselves"
            ));
        }
    }
}

fn events(draft: &mut ImportDraft, properties: &mut ServerProperties) {
    let skipped = properties.take(&format!("{SOURCE}skipped.operations"));
    let skipped = skipped.unwrap_or_else(|| String::from("t"));
    let skips = |letter: &str| skipped.split(',').any(|one| one.trim() == letter);
    let operations = [("c", "insert"), ("u", "update"), ("d", "delete"), ("t", "truncate")];
    let operations = operations.into_iter().filter(|(letter, _)| !skips(letter));
    let operations: Vec<&str> = operations.map(|(_, name)| name).collect();
    let tables = properties.take(&format!("{SOURCE}table.include.list"));
    for pattern in tables.iter().flat_map(|tables| tables.split(',')).map(str::trim) {
        let table = pattern.replace("\\.", ".");
        let is_name = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'.';
        if !table.bytes().all(is_name) || table.split('.').count() != 2 {
            draft.lose(format!("table {pattern}: a pattern; write an [[event]] for each table"));
            continue;
        }
        let mut event = ImportedSection::new("[[event]]");
        event.set("type", quoted(&table));
        event.set("table", quoted(&table));
        event.set("on", list(operations.iter().copied()));
        draft.event(event);
    }
    if tables.is_none() {
        draft.lose("no table.include.list, which means all tables: write an [[event]] for each");
    }
}

fn endpoint(draft: &mut ImportDraft, properties: &mut ServerProperties) {
    let format = properties.left.get("debezium.format.value").cloned();
    let format = format.unwrap_or_else(|| String::from("json"));
    let schemas = properties.take("debezium.format.value.schemas.enable");
    properties.take("debezium.format.key.schemas.enable");
    if schemas.as_deref() == Some("true") {
        draft.lose("schemas beside each body (format.value.schemas.enable)");
    }
    let mut section = ImportedSection::new("[[endpoint]]");
    section.set("name", quoted(&draft.name("debezium")));
    match properties.take(&format!("{SINK}url")) {
        Some(url) => section.set("url", quoted(&url)),
        None => {
            let name = draft.secret("ENDPOINT_URL", "where the endpoint listens");
            section.set("url", format!("{{ env = {} }}", quoted(&name)));
        }
    }
    match format.as_str() {
        "json" | "simplestring" => section.set("payload", quoted("debezium")),
        "cloudevents" => section.set("payload", quoted("cloudevents")),
        other => {
            draft.lose(format!("format {other}: bodies are JSON"));
            section.set("payload", quoted("debezium"));
        }
    }
    let millis = |value: &str| value.parse::<u64>().ok().map(|millis| format!("\"{millis}ms\""));
    let timeout = properties.take(&format!("{SINK}timeout.ms"));
    if let Some(timeout) = timeout.as_deref().and_then(millis) {
        section.set("timeout", timeout);
    }
    let retries = properties.take(&format!("{SINK}retries"));
    let interval = properties.take(&format!("{SINK}retry.interval.ms"));
    if let Some(retries) = retries.and_then(|retries| retries.parse::<u64>().ok()) {
        let interval =
            interval.as_deref().and_then(millis).unwrap_or_else(|| String::from("\"1s\""));
        let max = retries.min(100);
        if max < retries {
            draft.lose(format!(
                "{retries} retries: 100 is the most; leave `retry` out for more than a day of them"
            ));
        }
        section.set("retry", format!("{{ max = {max}, interval = {interval}, cap = {interval} }}"));
    }
    set_headers(draft, properties, &mut section);
    authentication(draft, properties, &mut section);
    draft.endpoint(section);
}

fn set_headers(
    draft: &mut ImportDraft,
    properties: &mut ServerProperties,
    section: &mut ImportedSection,
) {
    let prefix = format!("{SINK}headers.");
    let (mut headers, keys): (Vec<String>, Vec<String>) = (
        Vec::new(),
        properties.left.keys().filter(|key| key.starts_with(&prefix)).cloned().collect(),
    );
    for key in keys {
        let Some(value) = properties.take(&key) else { continue };
        let name = key.strip_prefix(&prefix).unwrap_or(&key);
        match name {
            "prefix" | "encode.base64" => draft.lose(key),
            _ if name.eq_ignore_ascii_case("content-type") => {}
            _ if value.starts_with("${") => {
                headers.push(format!("{} = {}", quoted(name), quoted(&value)));
            }
            _ => {
                let variable =
                    draft.secret(&format!("HEADER_{name}"), &format!("the header {name}"));
                headers.push(format!("{} = {{ env = {} }}", quoted(name), quoted(&variable)));
            }
        }
    }
    if !headers.is_empty() {
        section.set("headers", format!("{{ {} }}", headers.join(", ")));
    }
}

fn authentication(
    draft: &mut ImportDraft,
    properties: &mut ServerProperties,
    section: &mut ImportedSection,
) {
    let kind = properties.take(&format!("{SINK}authentication.type"));
    let secret = properties.take(&format!("{SINK}authentication.webhook.secret"));
    match kind.as_deref() {
        None => {}
        Some("standard-webhooks") => match secret {
            Some(secret) if secret.starts_with("${") => section.set("secret", quoted(&secret)),
            _ => {
                let name =
                    draft.secret("WEBHOOK_SECRET", "what the endpoint checks signatures with");
                section.set("secret", format!("{{ env = {} }}", quoted(&name)));
            }
        },
        Some(kind) => {
            draft.lose(format!("authentication {kind}: see `auth` (basic, bearer, oauth2)"))
        }
    }
}
