//! Triggers that call `pg_net`, as `pg_dump --schema-only` writes them.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::cli::import::draft::ImportDraft;
use crate::cli::import::draft::ImportedSection;
use crate::cli::import::draft::list;
use crate::cli::import::draft::quoted;
use crate::cli::import::statements::SqlWord;
use crate::cli::import::statements::statements;

/// A trigger that runs a function.
#[derive(Debug, Default)]
struct CallingTrigger {
    name: String,
    table: String,
    /// `insert`, `update`, `delete`, `truncate`
    on: Vec<String>,
    function: String,
    arguments: Vec<String>,
    /// Conditions that are code: `UPDATE OF`, `WHEN`.
    conditions: Vec<&'static str>,
}

pub(super) fn convert(script: &str) -> ImportDraft {
    let mut draft = ImportDraft::default();
    let statements = statements(script);
    let posting = posting_functions(&statements);
    let mut found = false;
    for words in &statements {
        let Some(trigger) = trigger(words) else { continue };
        let is_wrapper = trigger.function == "http_request";
        let own = posting.get(&trigger.function);
        if !is_wrapper && own.is_none() {
            continue;
        }
        found = true;
        convert_trigger(&mut draft, &trigger, own.map(String::as_str));
    }
    if !found {
        draft.lose("no trigger calls http_request or a function with net.http_post");
    }
    let url =
        draft.secret("DATABASE_URL", "the database, as postgres://user:password@host/database");
    draft.postgres.push(format!("url = \"${{{url}}}\""));
    draft
}

/// Functions whose body posts, and the URL that stands in it; empty if it is made up at run time.
fn posting_functions(statements: &[Vec<SqlWord>]) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for words in statements {
        let Some(at) = words.iter().position(|word| word.is("function")) else { continue };
        if !words.first().is_some_and(|word| word.is("create")) {
            continue;
        }
        let (name, _) = qualified(words.get(at + 1..).unwrap_or_default());
        let mut bodies = words.iter().filter_map(|word| match word {
            SqlWord::Text(text) => Some(text),
            _ => None,
        });
        let posts = |body: &&String| body.contains("net.http_post");
        if let (Some((_, name)), Some(body)) = (name, bodies.find(posts)) {
            let url = ["'https://", "'http://"].iter().find_map(|start| {
                let (_, rest) = body.split_once(start)?;
                let (url, _) = rest.split_once('\'')?;
                Some(format!("{}{url}", start.trim_start_matches('\'')))
            });
            found.insert(name, url.unwrap_or_default());
        }
    }
    found
}

/// `schema.name` or `name` at the start, and what follows.
fn qualified(words: &[SqlWord]) -> (Option<(String, String)>, &[SqlWord]) {
    let name = |at: usize| words.get(at).and_then(SqlWord::name);
    match (name(0), words.get(1), name(2)) {
        (Some(schema), Some(SqlWord::Sign('.')), Some(bare)) => {
            (Some((schema, bare)), words.get(3..).unwrap_or_default())
        }
        (Some(bare), ..) => {
            (Some((String::from("public"), bare)), words.get(1..).unwrap_or_default())
        }
        _ => (None, words),
    }
}

fn trigger(words: &[SqlWord]) -> Option<CallingTrigger> {
    if !words.first()?.is("create") {
        return None;
    }
    let at = words.iter().take(5).position(|word| word.is("trigger"))?;
    let mut found =
        CallingTrigger { name: words.get(at + 1)?.name()?, ..CallingTrigger::default() };
    let mut rest = words.get(at + 2..)?;
    while let Some((word, after)) = rest.split_first() {
        rest = after;
        if word.is("on") {
            break;
        }
        let operation =
            ["insert", "update", "delete", "truncate"].into_iter().find(|one| word.is(one));
        found.on.extend(operation.map(str::to_owned));
        if word.is("of") {
            found.conditions.push("UPDATE OF");
        }
    }
    if rest.first().is_some_and(|word| word.is("only")) {
        rest = rest.get(1..)?;
    }
    let (table, mut rest) = qualified(rest);
    let (schema, table) = table?;
    found.table = format!("{schema}.{table}");
    while let Some((word, after)) = rest.split_first() {
        rest = after;
        if word.is("when") {
            found.conditions.push("WHEN");
        }
        if word.is("execute") {
            break;
        }
    }
    let (function, rest) = qualified(rest.get(1..)?);
    found.function = function?.1;
    found.arguments = rest
        .iter()
        .filter_map(|word| match word {
            SqlWord::Text(text) => Some(text.clone()),
            _ => None,
        })
        .collect();
    Some(found)
}

fn convert_trigger(draft: &mut ImportDraft, trigger: &CallingTrigger, own_url: Option<&str>) {
    let CallingTrigger { name, .. } = trigger;
    for condition in &trigger.conditions {
        draft.lose(format!("{condition} of trigger {name}: write it as `when`"));
    }
    let endpoint_name = draft.name(name);
    let (url, headers, timeout) = match own_url {
        Some(url) => {
            draft.lose(format!(
                "function {} of trigger {name} is code: write its body and headers as `payload` and `headers`",
                trigger.function
            ));
            (url.to_owned(), None, None)
        }
        None => {
            let argument = |at: usize| trigger.arguments.get(at).map(String::as_str);
            if let Some(method) = argument(1).filter(|method| !method.eq_ignore_ascii_case("post"))
            {
                draft.lose(format!("method {method} of trigger {name}: walhook posts"));
            }
            if let Some(params) = argument(3).filter(|params| !["{}", ""].contains(params)) {
                draft.lose(format!(
                    "parameters {params} of trigger {name}: write them into the URL"
                ));
            }
            (argument(0).unwrap_or_default().to_owned(), argument(2), argument(4))
        }
    };
    let mut endpoint = ImportedSection::new("[[endpoint]]");
    endpoint.set("name", quoted(&endpoint_name));
    if url.is_empty() {
        draft.lose(format!("the URL of trigger {name} is made up at run time"));
        let variable =
            draft.secret(&format!("{endpoint_name}_URL"), &format!("where {name} posts to"));
        endpoint.set("url", format!("{{ env = {} }}", quoted(&variable)));
    } else {
        endpoint.set("url", quoted(&url));
    }
    let types = add_events(draft, trigger, &endpoint_name);
    endpoint.set("events", list(types.iter().map(String::as_str)));
    let millis =
        timeout.and_then(|timeout| timeout.parse::<u64>().ok()).filter(|millis| *millis > 0);
    if let Some(millis) = millis {
        endpoint.set("timeout", format!("\"{millis}ms\""));
    }
    set_headers(draft, &mut endpoint, &endpoint_name, headers);
    draft.endpoint(endpoint);
}

/// The trigger's changes as events; their types.
fn add_events(
    draft: &mut ImportDraft,
    trigger: &CallingTrigger,
    endpoint_name: &str,
) -> Vec<String> {
    let (schema, bare) = trigger.table.split_once('.').unwrap_or(("public", &trigger.table));
    let (changed, deleted): (Vec<&str>, Vec<&str>) =
        trigger.on.iter().map(String::as_str).partition(|on| *on != "delete");
    let mut types = Vec::new();
    // The same body as the trigger's: of a delete the row is the old one.
    for (on, suffix, record) in
        [(changed, "", "record = \"{{ row }}\", "), (deleted, ".deleted", "")]
    {
        if on.is_empty() {
            continue;
        }
        types.push(suffix);
        let mut event = ImportedSection::new("[[event]]");
        event.set("type", quoted(&format!("{endpoint_name}{suffix}")));
        event.set("table", quoted(&trigger.table));
        event.set("on", list(on.iter().copied()));
        event.set(
            "payload",
            format!(
                "{{ type = \"{{{{ op.upperAscii() }}}}\", table = {}, schema = {}, {record}old_record = \"{{{{ old }}}}\" }}",
                quoted(bare),
                quoted(schema)
            ),
        );
        draft.event(event);
    }
    types.into_iter().map(|suffix| format!("{endpoint_name}{suffix}")).collect()
}

/// Headers are secrets more often than not.
fn set_headers(
    draft: &mut ImportDraft,
    endpoint: &mut ImportedSection,
    name: &str,
    headers: Option<&str>,
) {
    let given: Value = headers.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let mut lines = Vec::new();
    for (key, _) in given.as_object().into_iter().flatten() {
        if key.eq_ignore_ascii_case("content-type") {
            continue;
        }
        let variable =
            draft.secret(&format!("{name}_{key}"), &format!("the header {key} of {name}"));
        lines.push(format!("{} = {{ env = {} }}", quoted(key), quoted(&variable)));
    }
    if !lines.is_empty() {
        endpoint.set("headers", format!("{{ {} }}", lines.join(", ")));
    }
}
