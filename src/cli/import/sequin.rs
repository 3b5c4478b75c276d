//! `walhook import sequin`: Sequin's YAML configuration, its sinks that go to webhooks.

mod reading;
mod webhook_target;

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
use crate::cli::import::sequin::webhook_target::endpoint;
use crate::cli::import::sequin::webhook_target::path;
use crate::cli::import::text;

/// Keys of the document that have no meaning here, or are read beside the sinks.
const READ: [&str; 5] = ["databases", "http_endpoints", "sinks", "transforms", "functions"];

/// Keys of a sink that are read.
const SINK_READ: [&str; 13] = [
    "name",
    "database",
    "table",
    "tables",
    "source",
    "batch_size",
    "status",
    "group_column_names",
    "transform",
    "actions",
    "filters",
    "destination",
    "annotations",
];

/// Keys of a database, of an HTTP endpoint and of a sink's destination that are read.
const DATABASE_READ: [&str; 12] = [
    "name",
    "url",
    "username",
    "password",
    "hostname",
    "port",
    "database",
    "ssl",
    "slot_name",
    "publication_name",
    "slot",
    "publication",
];
const DESTINATION_READ: [&str; 4] = ["type", "http_endpoint", "http_endpoint_path", "batch"];

pub(super) fn convert(document: &Value) -> ImportDraft {
    let mut draft = ImportDraft::default();
    let sinks = items(document, "sinks");
    let of_webhooks = |sink: &&Value| kind(sink) == "webhook";
    postgres(&mut draft, document, sinks.iter().find(of_webhooks));
    for sink in sinks {
        let name = text(sink, "name").unwrap_or("sink");
        if kind(sink) == "webhook" {
            webhook(&mut draft, document, sink, name);
        } else {
            draft.lose(format!(
                "sink {name}: walhook sends to HTTP endpoints, not to {}",
                kind(sink)
            ));
        }
    }
    if let Some(members) = document.as_object() {
        for (key, _) in members.iter().filter(|(key, _)| !READ.contains(&key.as_str())) {
            draft.lose(format!("`{key}`: walhook has nothing of the kind"));
        }
    }
    draft
}

fn kind(sink: &Value) -> &str {
    sink.get("destination").and_then(|destination| text(destination, "type")).unwrap_or("nothing")
}

/// The database of the first sink that goes to a webhook.
fn postgres(draft: &mut ImportDraft, document: &Value, sink: Option<&Value>) {
    let named = sink.and_then(|sink| text(sink, "database"));
    let databases = items(document, "databases");
    let is_named = |database: &&Value| text(database, "name") == named;
    let Some(database) = databases.iter().find(is_named).or(databases.first()) else {
        let name =
            draft.secret("DATABASE_URL", "the database, as postgres://user:password@host/database");
        draft.postgres.push(format!("url = \"${{{name}}}\""));
        return;
    };
    for other in databases.iter().filter(|other| *other != database) {
        let name = text(other, "name").unwrap_or("without a name");
        draft.lose(format!("database {name}: a walhook reads one; run another one for it"));
    }
    let what = format!("database {}", text(database, "name").unwrap_or("without a name"));
    lose_unread(draft, database, &DATABASE_READ, &what);
    let has_tls = database.get("ssl").and_then(Value::as_bool) == Some(true);
    let url = match text(database, "url") {
        Some(url) if has_tls && !url.contains("sslmode=") => {
            let sign = if url.contains('?') { '&' } else { '?' };
            format!("{}{sign}sslmode=require", without_password(draft, url))
        }
        Some(url) => without_password(draft, url),
        None => {
            let or = |name, default| text(database, name).unwrap_or(default);
            let port = database.get("port").map_or_else(|| String::from("5432"), plain);
            let (user, host, name) = (
                or("username", "postgres"),
                or("hostname", "localhost"),
                or("database", "postgres"),
            );
            let password =
                draft.secret("DATABASE_PASSWORD", "the password of the role, percent-encoded");
            let ssl = if has_tls { "?sslmode=require" } else { "" };
            format!("postgres://{user}:${{{password}}}@{host}:{port}/{name}{ssl}")
        }
    };
    draft.postgres.push(format!("url = {}", quoted(&url)));
    for key in ["slot", "publication"] {
        let nested = database.get(key).and_then(|object| text(object, "name"));
        if let Some(name) = text(database, &format!("{key}_name")).or(nested) {
            draft.lose(format!(
                "{key}_name {name}: walhook makes its own; drop Sequin's when it is not used any more"
            ));
        }
    }
}

/// The URL with its password as a variable.
pub(super) fn without_password(draft: &mut ImportDraft, url: &str) -> String {
    let parts = url.split_once("://").and_then(|(scheme, rest)| {
        let (login, host) = rest.rsplit_once('@')?;
        let (user, password) = login.split_once(':')?;
        (!password.starts_with("${")).then_some((scheme, user, host))
    });
    match parts {
        Some((scheme, user, host)) => {
            let name =
                draft.secret("DATABASE_PASSWORD", "the password of the role, percent-encoded");
            format!("{scheme}://{user}:${{{name}}}@{host}")
        }
        None => url.to_owned(),
    }
}

fn webhook(draft: &mut ImportDraft, document: &Value, sink: &Value, name: &str) {
    lose_unread(draft, sink, &SINK_READ, &format!("sink {name}"));
    let destination = sink.get("destination").unwrap_or(&Value::Null);
    lose_unread(draft, destination, &DESTINATION_READ, &format!("the destination of sink {name}"));
    let tables = tables(draft, sink, name);
    if tables.is_empty() {
        draft.lose(format!(
            "sink {name}: it names no table; write an [[event]] for each that is meant"
        ));
        return;
    }
    // Without it each message is a body of its own.
    let is_enveloped = destination.get("batch").and_then(Value::as_bool) != Some(false);
    let wished = sink.get("batch_size").and_then(Value::as_u64).unwrap_or(1);
    let mut batch = if is_enveloped { wished } else { 1 };
    let transform = text(sink, "transform").and_then(|wished| path(document, wished));
    if batch > 1 && transform.is_some() {
        draft.lose(format!("batch_size {batch} of sink {name}: a part of the message goes alone, in a request of its own"));
        batch = 1;
    }
    let endpoint_name = draft.name(name);
    for table in &tables {
        let mut event = ImportedSection::new("[[event]]");
        event.set("type", quoted(&format!("{endpoint_name}.{}", table.name)));
        event.set("table", quoted(&table.name));
        let actions: Vec<&str> = items(sink, "actions").iter().filter_map(Value::as_str).collect();
        if !actions.is_empty() {
            event.set("on", list(actions.iter().copied().filter(|action| *action != "read")));
        }
        if let Some(when) = filters(draft, sink, name) {
            event.set("when", quoted(&when));
        }
        if !table.order_by.is_empty() {
            event.set("order_by", list(table.order_by.iter().map(String::as_str)));
        }
        let envelope = match batch {
            _ if !is_enveloped => MessageEnvelope::None,
            1 => MessageEnvelope::OfOne,
            _ => MessageEnvelope::OfMany,
        };
        let transform = transform.as_deref();
        event.set("payload", payload(draft, (sink, name), transform, &table.name, envelope));
        draft.event(event);
    }
    endpoint(draft, document, sink, &endpoint_name, batch);
}

/// What Sequin puts around messages.
#[derive(Clone, Copy)]
enum MessageEnvelope {
    None,
    /// `{"data": [...]}` with one message.
    OfOne,
    /// The same with several, which walhook sends as the array alone.
    OfMany,
}

struct SinkTable {
    name: String,
    order_by: Vec<String>,
}

/// `table`, `tables` and `source.include_tables`: over the versions they have all been there.
fn tables(draft: &mut ImportDraft, sink: &Value, name: &str) -> Vec<SinkTable> {
    let columns = |value: &Value| -> Vec<String> {
        items(value, "group_column_names")
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect()
    };
    let qualified = |name: &str| match name.contains('.') {
        true => name.to_owned(),
        false => format!("public.{name}"),
    };
    let mut found: Vec<SinkTable> = Vec::new();
    let mut add = |table: &str, order_by: Vec<String>| {
        let name = qualified(table);
        if !found.iter().any(|known| known.name == name) {
            found.push(SinkTable { name, order_by });
        }
    };
    if let Some(table) = text(sink, "table") {
        add(table, columns(sink));
    }
    for table in items(sink, "tables") {
        match table.as_str() {
            Some(table) => add(table, columns(sink)),
            None => {
                if let Some(name) = text(table, "name") {
                    let own = columns(table);
                    add(name, if own.is_empty() { columns(sink) } else { own });
                }
            }
        }
    }
    let source = sink.get("source").unwrap_or(&Value::Null);
    for table in items(source, "include_tables").iter().filter_map(Value::as_str) {
        add(table, columns(sink));
    }
    for (key, _) in source.as_object().into_iter().flatten() {
        if key != "include_tables" {
            draft.lose(format!("`source.{key}` of sink {name}: an [[event]] names each table"));
        }
    }
    found
}

/// All filters of the sink as one expression.
fn filters(draft: &mut ImportDraft, sink: &Value, name: &str) -> Option<String> {
    let mut parts = Vec::new();
    for filter in items(sink, "filters") {
        match filter_of(filter) {
            Some(part) => parts.push(part),
            None => draft.lose(format!("a filter of sink {name}: {filter}")),
        }
    }
    (!parts.is_empty()).then(|| parts.join(" && "))
}

fn filter_of(filter: &Value) -> Option<String> {
    let mut left = column(text(filter, "column_name")?);
    if let Some(path) = text(filter, "field_path") {
        // Inside of a document a name is looked up as a text, whatever it is called.
        path.split('.').for_each(|part| left.push_str(&format!("[{}]", literal(part))));
    }
    let value = filter.get("comparison_value");
    Some(match text(filter, "operator")?.to_ascii_lowercase().as_str() {
        "=" | "==" => format!("{left} == {}", constant(value?)?),
        "!=" => format!("{left} != {}", constant(value?)?),
        operator @ (">" | ">=" | "<" | "<=") => format!("{left} {operator} {}", constant(value?)?),
        "in" => format!("{left} in {}", constant(value?)?),
        "not in" => format!("!({left} in {})", constant(value?)?),
        "is null" => format!("{left} == null"),
        "is not null" => format!("{left} != null"),
        _ => return None,
    })
}

/// A value as an expression has it.
fn constant(value: &Value) -> Option<String> {
    Some(match value {
        Value::String(text) => literal(text),
        Value::Number(_) | Value::Bool(_) | Value::Null => value.to_string(),
        Value::Array(items) => {
            let items: Option<Vec<String>> = items.iter().map(constant).collect();
            format!("[{}]", items?.join(", "))
        }
        Value::Object(_) => return None,
    })
}

/// Sequin's message, in the envelope of a request where that holds one.
fn payload(
    draft: &mut ImportDraft,
    (sink, name): (&Value, &str),
    transform: Option<&str>,
    table: &str,
    envelope: MessageEnvelope,
) -> String {
    let (schema, bare) = table.split_once('.').unwrap_or(("public", table));
    let whole = format!(
        "{{ record = \"{{{{ row }}}}\", changes = \"{{{{ changes }}}}\", action = \"{{{{ op }}}}\", metadata = {{ \
         table_schema = {}, table_name = {}, commit_timestamp = \"{{{{ committed }}}}\" }} }}",
        quoted(schema),
        quoted(bare)
    );
    let wished = text(sink, "transform").filter(|name| *name != "none");
    let message = match (transform, wished) {
        (Some(part), _) => part.to_owned(),
        (None, None) => whole,
        (None, Some(wished)) => {
            draft.lose(format!("transform {wished} of sink {name}: write it as a `payload`"));
            whole
        }
    };
    match envelope {
        // Alone, a text would be a body that is no JSON.
        MessageEnvelope::None if transform.is_some() => {
            draft.lose(format!(
                "`batch: false` of sink {name}: a part of the message stays in {{\"data\": [...]}}"
            ));
            format!("{{ data = [{message}] }}")
        }
        MessageEnvelope::None => message,
        MessageEnvelope::OfOne => format!("{{ data = [{message}] }}"),
        MessageEnvelope::OfMany => {
            draft.lose(format!(
                "the envelope {{\"data\": [...]}} of sink {name}: a batch is the array alone"
            ));
            message
        }
    }
}
