//! pgstream's YAML, with webhooks as its target.

use anyhow::bail;
use serde_json::Value;

use crate::cli::import::draft::ImportDraft;
use crate::cli::import::draft::ImportedSection;
use crate::cli::import::draft::list;
use crate::cli::import::draft::quoted;
use crate::cli::import::sequin::without_password;
use crate::cli::import::text;

pub(super) fn convert(document: &Value, tables: &[String]) -> anyhow::Result<ImportDraft> {
    let mut draft = ImportDraft::default();
    let at = |path: &str| document.pointer(path).unwrap_or(&Value::Null);
    let webhooks = at("/target/webhooks");
    for (name, _) in at("/target").as_object().into_iter().flatten() {
        if name != "webhooks" {
            draft.lose(format!("target {name}: walhook sends to HTTP endpoints"));
        }
    }
    if webhooks.is_null() {
        return Ok(draft);
    }
    if tables.is_empty() {
        bail!(
            "names no tables, since pgstream keeps subscriptions in one of its own: say with --table whose \
             changes are events"
        );
    }
    match text(at("/source/postgres"), "url") {
        Some(url) => {
            let url = without_password(&mut draft, url);
            draft.postgres.push(format!("url = {}", quoted(&url)));
        }
        None => {
            draft.lose("the source: walhook reads PostgreSQL itself");
            let name = draft
                .secret("DATABASE_URL", "the database, as postgres://user:password@host/database");
            draft.postgres.push(format!("url = \"${{{name}}}\""));
        }
    }
    if text(at("/source/postgres"), "mode").is_some_and(|mode| mode.contains("snapshot")) {
        draft.lose("the snapshot: rows from before walhook's slot raise no event by themselves");
    }
    for table in tables {
        let table = if table.contains('.') { table.clone() } else { format!("public.{table}") };
        let mut event = ImportedSection::new("[[event]]");
        event.set("type", quoted(&table));
        event.set("table", quoted(&table));
        event.set("on", list(["insert", "update", "delete", "truncate"]));
        draft.event(event);
    }
    endpoints(&mut draft, webhooks, text(at("/source/postgres"), "url"));
    for (name, modifiers) in at("/modifiers").as_object().into_iter().flatten() {
        if !modifiers.is_null() && name != "injector" {
            draft.lose(format!("modifier {name}: write it as a `payload`"));
        }
    }
    for (name, _) in document.as_object().into_iter().flatten() {
        if name == "instrumentation" {
            let what = "[telemetry] sends traces and metrics by OTLP over HTTP, not by gRPC";
            draft.lose(format!("`{name}`: {what}"));
        } else if !["source", "target", "modifiers"].contains(&name.as_str()) {
            draft.lose(format!("`{name}`: walhook has [log], /metrics and its own names for it"));
        }
    }
    Ok(draft)
}

/// The rows of pgstream's table of subscriptions.
fn endpoints(draft: &mut ImportDraft, webhooks: &Value, source: Option<&str>) {
    let store = webhooks.pointer("/subscriptions/store/url").and_then(Value::as_str);
    if store.is_some() && store != source {
        draft.lose(
            "subscriptions in another database than the source: [endpoints_from] reads a table of the source",
        );
    }
    let mut from = ImportedSection::new("[endpoints_from]");
    from.set("table", quoted("pgstream.webhook_subscriptions"));
    draft.others.push(from);
    let mut endpoint = ImportedSection::new("[endpoints_from.endpoint]");
    endpoint.set("name", quoted("{{ schema_name }}.{{ table_name }}.{{ url }}"));
    endpoint.set("url", quoted("{{ url }}"));
    endpoint.set("events", list(["{{ schema_name }}.{{ table_name }}"]));
    let timeout = webhooks.pointer("/notifier/client_timeout").and_then(Value::as_u64);
    if let Some(millis) = timeout.filter(|millis| *millis > 0) {
        endpoint.set("timeout", format!("\"{millis}ms\""));
    }
    draft.others.push(endpoint);
    draft.lose("`event_types` of subscriptions: each endpoint gets every operation of its table");
    draft.lose("subscriptions without schema or table, which mean all: give them names");
    draft.lose("the body: wal2json's list of columns is walhook's standard payload here");
    draft.lose(
        "private addresses among the subscriptions: list them in [endpoints] allow, or they are refused",
    );
    if webhooks.pointer("/subscriptions/server").is_some() {
        draft.lose("the server for subscriptions: rows of the table, or walhook's own API (docs/endpoints.md)");
    }
    if webhooks.pointer("/notifier/worker_count").is_some() {
        draft.lose("worker_count: `concurrency` of each endpoint adapts by itself");
    }
}
