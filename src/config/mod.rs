//! `walhook.toml` and the environment, checked and typed.
//!
//! ```text
//! file ─ text ─▶ toml ─ tree with places ─▶ [reader, field] ─▶ one file per section ─▶ Settings
//! ```
//!
//! Every problem is noted with its line and key, and reading goes on: the operator sees all of
//! them at once. Past this module a value of [`Settings`] is valid.
//!
//! | file | holds |
//! | --- | --- |
//! | `api_document` | Endpoints that come over the API |
//! | `configuration` | The whole configuration, read and checked |
//! | `endpoint_name` | Names of endpoints |
//! | `identifiers` | Names of tables and columns in the configuration |
//! | `password_file` | libpq's password file |
//! | `postgres_url` | PostgreSQL connection strings, both forms that libpq reads |
//! | `problem` | What is wrong with a configuration |
//! | `reload` | What of a configuration that was read again can hold without a restart |
//! | `secret` | Values that must not be seen |
//! | `sections` | The sections of the configuration file, each read and checked: what comes of them is in `settings` |
//! | `settings` | The sections of the configuration, as values |
//! | `template_field` | Templates as they stand in TOML |
//! | `toml_file` | How a file is read, with the place of everything that is wrong in it |
//! | `url_template` | The URL of an endpoint, with expressions in its path and query |

pub(crate) mod api_document;
pub(crate) mod configuration;
mod endpoint_name;
pub(crate) mod identifiers;
pub(crate) mod password_file;
mod postgres_url;
pub(crate) mod problem;
pub(crate) mod reload;
pub(crate) mod secret;
pub(crate) mod sections;
pub(crate) mod settings;
mod template_field;
pub(crate) mod toml_file;
mod url_template;

use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use toml::de::DeTable;

use crate::config::configuration::Settings;
use crate::config::problem::ConfigPlace;
use crate::config::problem::ConfigProblems;
use crate::config::sections::delivery_terms;
use crate::config::sections::endpoint;
use crate::config::sections::endpoints_from;
use crate::config::sections::event;
use crate::config::sections::inbound;
use crate::config::sections::messages;
use crate::config::sections::ocr_wallet;
use crate::config::sections::postgres;
use crate::config::sections::process;
use crate::config::sections::relay;
use crate::config::sections::run_time_endpoints;
use crate::config::sections::run_time_endpoints::RunTimeSettings;
use crate::config::sections::subscriptions;
use crate::config::sections::telemetry;
use crate::config::sections::webhook;
use crate::config::sections::webhook::WebhookSection;
use crate::config::sections::write_back;
use crate::config::settings::Endpoint;
use crate::config::settings::EventGlob;
use crate::config::settings::EventRule;
use crate::config::settings::HttpSettings;
use crate::config::settings::ServerSettings;
use crate::config::settings::TelemetrySettings;
use crate::config::settings::ocr_wallet as preset;
use crate::config::toml_file::file::FileError;
use crate::config::toml_file::file::read_text;
use crate::config::toml_file::problem_notes::ProblemNotes;
use crate::config::toml_file::toml_reader::TomlSection;

/// The largest configuration: a hundred thousand endpoints.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Reads a configuration file. `env` looks up environment variables.
///
/// # Errors
/// Everything that is wrong with the file, or that it cannot be read.
pub(crate) fn load(
    path: &Path,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Settings, ConfigProblems> {
    let file = path.display().to_string();
    match text(path, &file, env) {
        Ok(text) => parse(&text, &file, env),
        Err(problems) => Err(problems),
    }
}

/// Reads `[http]` of a configuration file and nothing else of it.
///
/// # Errors
/// Everything that is wrong with the section, or that the file cannot be read.
pub(crate) fn load_http(
    path: &Path,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<HttpSettings, ConfigProblems> {
    let file = path.display().to_string();
    let text = text(path, &file, env)?;
    parse_http(&text, &file, env)
}

/// As [`load_http`], from the text.
///
/// # Errors
/// Everything that is wrong with the section, or with the text as TOML.
pub(crate) fn parse_http(
    text: &str,
    file: &str,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<HttpSettings, ConfigProblems> {
    let notes = ProblemNotes::new(file, text, env);
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let at = error.span().map(|span| span.start);
        notes.note(at, "", of_toml(text, error.span(), error.message()));
    }
    let mut root = TomlSection::root(&notes, document.get_ref());
    let http = process::read_http(root.section("http"));
    notes.conclude(Some(http))
}

fn text(
    path: &Path,
    file: &str,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<String, ConfigProblems> {
    let fix = "give its path with --config, or write one with `walhook init`";
    let problem = match read_text(path, FILE_BYTES_MAX) {
        Ok(text) => return Ok(text),
        Err(FileError::Unreadable(error)) => format!("cannot be read ({error}): {fix}"),
        Err(FileError::TooLarge) => {
            format!("is no configuration, it is larger than {} MiB: {fix}", FILE_BYTES_MAX >> 20)
        }
    };
    let notes = ProblemNotes::new(file, "", env);
    notes.note(None, "", problem);
    notes.conclude(None)
}

/// Reads a configuration from its text. `file` names it in problems, and relative paths in it
/// start from the directory of `file`.
///
/// # Errors
/// Everything that is wrong with the text.
pub fn parse(
    text: &str,
    file: &str,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Settings, ConfigProblems> {
    let notes = ProblemNotes::new(file, text, env);
    let settings = read(&notes, text);
    notes.conclude(settings)
}

/// Reads a connection URL or a DSN of `key=value` pairs, as `[postgres] url` takes it. The process's
/// environment fills in what it leaves open.
///
/// # Errors
/// What is wrong with it, without any secret.
pub(crate) fn server(url: &str) -> Result<ServerSettings, String> {
    postgres_url::parse(url, &|name| std::env::var(name).ok())
}

fn read(notes: &ProblemNotes<'_>, text: &str) -> Option<Settings> {
    let (document, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        // What was recovered from a broken file would only raise false alarms, and so would what
        // follows an error on the same line.
        let mut last_line = None;
        for error in errors {
            let at = error.span().map(|span| span.start);
            let line = at.map(|byte| ConfigPlace::of(text, byte).line);
            if line.is_none() || line != last_line {
                notes.note(at, "", of_toml(text, error.span(), error.message()));
            }
            last_line = line;
        }
        return None;
    }
    let mut root = TomlSection::root(notes, document.get_ref());
    let postgres = postgres::read(root.section("postgres"));
    let source = postgres.as_ref().map(|postgres| &postgres.server);
    let (state, keys) = postgres::read_state(root.section("state"), source);
    let backfill_standby = postgres::read_standby(root.section("backfill"));
    let push_log = process::read_push_log(root.section("push_log"));
    let dead_letters = process::read_dead_letters(root.section("dead_letters"));
    let http = process::read_http(root.section("http"));
    let user_agent =
        if root.has("event") { delivery_terms::USER_AGENT } else { preset::USER_AGENT };
    let webhook = webhook::read(root.section("webhook"), user_agent);
    let enabled = webhook.enabled;
    let telemetry = telemetry::read(&mut root);
    let events = read_events(&mut root, webhook.data_expiry, &telemetry);
    let run_time = run_time_endpoints::read(&mut root, keys, &webhook.terms);
    let has_table = root.has("endpoints_from");
    let section = root.section("endpoints_from");
    let endpoints_from = has_table.then(|| {
        endpoints_from::read(section, &webhook.terms, run_time.addresses, events.as_deref())
    });
    let endpoints = read_endpoints(&mut root, webhook, &run_time, events.as_deref());
    let memory = process::read_memory(root.section("memory"));
    let metrics = process::read_metrics(root.section("metrics"));
    let log = process::read_log(root.section("log"));
    let grace = process::read_grace(root.section("shutdown"));
    let has_inbound = root.has("inbound");
    let inbound = inbound::read(&mut root);
    if let Some(inbound) = &inbound {
        inbound::check(&root, inbound, http.listen);
    }
    for rule in events.iter().flatten() {
        if let Some(message) = write_back::unkept(rule, push_log) {
            root.note("push_log", message);
        }
    }
    let messages = messages::read(&mut root);
    let relay = relay::read(&mut root);
    root.finish();
    Some(Settings {
        postgres: postgres?,
        state: state?,
        backfill_standby,
        push_log,
        dead_letters,
        http,
        enabled,
        events: events?,
        endpoints,
        // A problem was noted for one that could not be read.
        endpoints_from: endpoints_from.flatten(),
        memory,
        metrics,
        log,
        grace,
        run_time,
        messages,
        telemetry,
        inbound: if has_inbound { Some(inbound?) } else { None },
        relay: relay?,
    })
}

/// What the parser says of a broken file, with the key where it only points to it.
fn of_toml(text: &str, span: Option<Range<usize>>, message: &str) -> String {
    let named = span.and_then(|span| text.get(span)).map(str::trim).filter(|key| !key.is_empty());
    match (message, named) {
        ("duplicate key", Some(key)) if !key.contains('\n') => {
            format!("key `{key}` is given twice in one table: remove one of the two")
        }
        _ => message.to_owned(),
    }
}

/// The events of the file, or `ocr-wallet`'s; `None` if one of them is bad.
fn read_events(
    root: &mut TomlSection<'_>,
    data_expiry: Option<Duration>,
    telemetry: &TelemetrySettings,
) -> Option<Vec<EventRule>> {
    let is_wanted = telemetry.wants_traces();
    if !root.has("event") {
        root.sections("event");
        let mut event = ocr_wallet::event(data_expiry);
        event.trace.is_wanted = is_wanted;
        return Some(vec![event]);
    }
    let mut events = Vec::new();
    let sections = root.sections("event");
    let written = sections.len();
    for section in sections {
        events.extend(event::read(section, data_expiry, &events));
    }
    for rule in &mut events {
        rule.trace.is_wanted = is_wanted;
        if rule.trace.column.is_some() && !is_wanted {
            let message = format!(
                "`traceparent` of event {} has no use: set `traceparent = true`, or an `endpoint` for traces",
                rule.event_type
            );
            root.note("telemetry", message);
        }
    }
    (events.len() == written).then_some(events)
}

/// Each says who gets events.
const RECEIVERS: [&str; 7] = [
    "webhook",
    "webhook.urls",
    "webhook.subscriptions",
    "webhook.enabled",
    "endpoint",
    "endpoints",
    "endpoints_from",
];

/// First the endpoints of `[webhook] urls`, then those with a table of their own.
fn read_endpoints(
    root: &mut TomlSection<'_>,
    webhook: WebhookSection<'_>,
    run_time: &RunTimeSettings,
    rules: Option<&[EventRule]>,
) -> Vec<Endpoint> {
    let none_written = !root.has("endpoint")
        && !root.has("endpoints_from")
        && !run_time.is_wanted()
        && webhook.subscriptions.is_none()
        && webhook.urls.as_ref().is_some_and(|urls| urls.is_empty());
    let everything = [EventGlob::new("*")];
    if webhook.urls.as_ref().is_some_and(|urls| !urls.is_empty()) {
        let mut urls = webhook.urls.iter().flatten();
        let varying = urls.find_map(|url| endpoint::varying(&webhook.terms, url));
        let clash = endpoint::unbatchable(&webhook.terms, &everything, None, rules);
        if let Some(clash) = clash.or(varying) {
            root.note("webhook", format!("`batch_size` {clash}"));
        }
    }
    let mut taken = Vec::new();
    let mut endpoints = Vec::new();
    for url in webhook.urls.into_iter().flatten() {
        let name = endpoint_name::of_url(url.url.reveal());
        let terms = webhook.terms.clone().short();
        endpoints.push(terms.endpoint(&name, url, everything.to_vec(), None));
        taken.push(name);
    }
    if let Some(file) = &webhook.subscriptions {
        endpoints.extend(subscriptions::read(file, &webhook.terms, rules, &mut taken));
    }
    for section in root.sections("endpoint") {
        let terms = webhook.terms.clone();
        endpoints.extend(endpoint::read(section, terms, rules, &mut taken));
    }
    refuse_unclear_renames(root, &endpoints, &taken);
    if none_written && webhook.enabled {
        root.note_missing(
            "webhook",
            "has nobody to push to: give `urls`, or an [[endpoint]], or `enabled = false`; or \
             [endpoints], if they are to be made over the API",
            &RECEIVERS,
        );
    }
    endpoints
}

/// A name that an endpoint has is not free to be one that another had.
fn refuse_unclear_renames(root: &TomlSection<'_>, endpoints: &[Endpoint], taken: &[String]) {
    let mut had = Vec::new();
    for endpoint in endpoints {
        let Some(from) = &endpoint.renamed_from else { continue };
        let is_taken = taken.iter().any(|name| **name == **from) && *from != endpoint.name;
        if is_taken || had.contains(&from) {
            let name = &endpoint.name;
            let note = format!(
                "{name} cannot be renamed_from {from:?}, which another endpoint is or was: say it of \
                 one, and remove the other"
            );
            root.note("endpoint", note);
        }
        had.push(from);
    }
}

#[cfg(test)]
mod tests;
