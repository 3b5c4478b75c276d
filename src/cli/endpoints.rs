//! `walhook endpoints`: endpoints that are made and changed while walhook runs.

use std::io::Read;
use std::path::PathBuf;

use anyhow::Context;
use anyhow::anyhow;
use clap::Args;
use clap::Subcommand;
use serde_json::Value;
use serde_json::json;

use crate::cli::GlobalOptions;
use crate::cli::ask::ApiAddress;
use crate::cli::ask::ApiClient;
use crate::cli::exit::CommandError;
use crate::cli::table;
use crate::cli::terminal;
use crate::flow::exit_status::ExitStatus;
use crate::flow::unique_json;

const PATH: &str = "/api/v1/endpoints";

/// Endpoints in one answer.
const SHOWN_MAX: u64 = 10_000;

const COLUMNS: [(&str, &str); 4] =
    [("NAME", "name"), ("STATE", "condition"), ("SOURCE", "source"), ("URL", "url")];

/// Makes, changes, tests and removes endpoints of a running walhook
#[derive(Args, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Talks to a running walhook over its API. Documents are JSON with the keys of an \
                  [[endpoint]]: docs/endpoints.md.\n\n\
                  Examples: walhook endpoints list\n          \
                  echo '{\"name\": \"crm\", \"url\": \"https://crm.example.com/\"}' | \
                  walhook endpoints create -"
)]
pub(crate) struct Endpoints {
    #[command(subcommand)]
    what: Option<EndpointAction>,
    #[command(flatten)]
    target: ApiAddress,
}

#[derive(Debug, Subcommand)]
enum EndpointAction {
    /// Lists all endpoints
    #[command(after_help = "Example: walhook endpoints list --json")]
    List {
        #[command(flatten)]
        target: ApiAddress,
    },
    /// Shows an endpoint, its secrets masked
    #[command(after_help = "Example: walhook endpoints show crm")]
    Show(NamedEndpoint),
    /// Makes an endpoint
    #[command(after_help = "Example: walhook endpoints create crm.json")]
    Create {
        /// A JSON document; - for standard input
        document: PathBuf,
        #[command(flatten)]
        target: ApiAddress,
    },
    /// Changes what the document says; null takes a key away
    #[command(after_help = "Example: echo '{\"concurrency\": 8}' | walhook endpoints update crm -")]
    Update {
        name: String,
        /// A JSON merge patch; - for standard input
        document: PathBuf,
        #[command(flatten)]
        target: ApiAddress,
    },
    /// Removes an endpoint; what waits for it becomes dead letters
    #[command(after_help = "Example: walhook endpoints delete crm")]
    Delete(NamedEndpoint),
    /// Lets an endpoint take events again, also one of the file that said 410
    #[command(after_help = "Example: walhook endpoints enable crm")]
    Enable(NamedEndpoint),
    /// Keeps events away from an endpoint for good (`pause` loses none); what waits goes on waiting
    #[command(after_help = "Example: walhook endpoints disable crm")]
    Disable(NamedEndpoint),
    /// Holds back what comes for an endpoint, of the file too, and loses none of it
    #[command(after_help = "Example: walhook endpoints pause crm")]
    Pause(NamedEndpoint),
    /// Lets a paused endpoint go on with all that waits
    #[command(after_help = "Example: walhook endpoints resume crm")]
    Resume(NamedEndpoint),
    /// Tries at once what waits for an endpoint; its retries begin anew
    #[command(after_help = "Example: walhook endpoints try-now crm")]
    TryNow(NamedEndpoint),
    /// Gives an endpoint of the API another name; what waits, is dead or paused goes along
    #[command(after_help = "Example: walhook endpoints rename crm crm-eu")]
    Rename {
        name: String,
        new_name: String,
        #[command(flatten)]
        target: ApiAddress,
    },
    /// Gives an endpoint another secret and prints it; the old one signs on for a while
    #[command(after_help = "Example: walhook endpoints rotate-secret crm --overlap 48h")]
    RotateSecret {
        name: String,
        /// How long the old secret goes on signing [default: 24h]
        #[arg(long)]
        overlap: Option<String>,
        #[command(flatten)]
        target: ApiAddress,
    },
    /// Sends an endpoint again all since a time: its dead letters, and what was delivered as far as the push
    /// log has its bodies
    #[command(
        after_help = "Example: walhook endpoints resend crm --since 2026-11-22T03:00:00Z --dry-run"
    )]
    Resend {
        name: String,
        /// Died, or was delivered, at this time or later (or a day)
        #[arg(long, value_name = "TIME")]
        since: String,
        /// So many a second [default: as dead_letters.resend_rate says, and 100 for the others]
        #[arg(long, value_name = "PER_SECOND")]
        rate: Option<u32>,
        /// Only counts
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        target: ApiAddress,
    },
    /// Sends a test event now and tells what came back; exit code 1 if it was not taken
    #[command(after_help = "Example: walhook endpoints test crm")]
    Test(NamedEndpoint),
}

#[derive(Args, Debug)]
struct NamedEndpoint {
    name: String,
    #[command(flatten)]
    target: ApiAddress,
}

impl Endpoints {
    /// # Errors
    /// What walhook refuses, or that it cannot be reached.
    pub(crate) fn run(self, global: &GlobalOptions) -> Result<(), CommandError> {
        match self.what {
            None => list(&self.target, global),
            Some(EndpointAction::List { target }) => list(&target, global),
            Some(EndpointAction::Show(NamedEndpoint { name, target })) => {
                let endpoint = target.asker(global)?.get(&path(&name)?, &[])?;
                Ok(show(&endpoint)?)
            }
            Some(EndpointAction::Create { document, target }) => {
                let made = target.asker(global)?.post(PATH, &read(&document)?)?;
                tell(&target, &made)
            }
            Some(EndpointAction::Update { name, document, target }) => {
                let changed = target.asker(global)?.patch(&path(&name)?, &read(&document)?)?;
                tell(&target, &changed)
            }
            Some(EndpointAction::Delete(NamedEndpoint { name, target })) => {
                let removed = target.asker(global)?.delete(&path(&name)?)?;
                tell(&target, &removed)
            }
            Some(EndpointAction::Enable(named)) => named.post("enable", global),
            Some(EndpointAction::Disable(named)) => named.post("disable", global),
            Some(EndpointAction::Pause(named)) => named.post("pause", global),
            Some(EndpointAction::Resume(named)) => named.post("resume", global),
            Some(EndpointAction::TryNow(named)) => named.post("try-now", global),
            Some(EndpointAction::Rename { name, new_name, target }) => {
                let asker = target.asker(global)?;
                let wish = json!({ "name": new_name });
                tell(&target, &asker.post(&format!("{}/rename", path(&name)?), &wish)?)
            }
            Some(EndpointAction::RotateSecret { name, overlap, target }) => {
                let body = overlap.map_or_else(|| json!({}), |o| json!({ "overlap": o }));
                let asker = target.asker(global)?;
                show(&asker.post(&format!("{}/rotate-secret", path(&name)?), &body)?)?;
                Ok(())
            }
            Some(EndpointAction::Resend { name, since, rate, dry_run, target }) => {
                let mut wish = json!({ "endpoint": name, "from": since, "dry_run": dry_run });
                if let (Some(rate), Some(members)) = (rate, wish.as_object_mut()) {
                    members.insert(String::from("rate"), json!(rate));
                }
                resend(&target, &target.asker(global)?, &wish)
            }
            Some(EndpointAction::Test(NamedEndpoint { name, target })) => {
                test(&target.asker(global)?, &name)
            }
        }
    }
}

impl NamedEndpoint {
    fn post(&self, order: &str, global: &GlobalOptions) -> Result<(), CommandError> {
        let asker = self.target.asker(global)?;
        let answer = asker.post(&format!("{}/{order}", path(&self.name)?), &json!({}))?;
        tell(&self.target, &answer)
    }
}

fn list(target: &ApiAddress, global: &GlobalOptions) -> Result<(), CommandError> {
    let asker = target.asker(global)?;
    if target.json {
        return Ok(show(&all(&asker)?)?);
    }
    let answer = asker.get("/api/v1/status", &[("limit", SHOWN_MAX.to_string())])?;
    let endpoints =
        answer.get("endpoints").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    table::print(&COLUMNS, endpoints)?;
    let total = answer.get("endpoints_total").and_then(Value::as_u64).unwrap_or(0);
    if total > SHOWN_MAX {
        terminal::note(&format!(
            "{SHOWN_MAX} of {total} endpoints, those first that are not well or that something waits for: \
             --json shows all"
        ))?;
    }
    Ok(())
}

/// All pages as one.
fn all(asker: &ApiClient) -> Result<Value, CommandError> {
    let (mut endpoints, mut cursor) = (Vec::new(), None);
    loop {
        let mut query = vec![("limit", SHOWN_MAX.to_string())];
        query.extend(cursor.map(|cursor| ("cursor", cursor)));
        let page = asker.get(PATH, &query)?;
        endpoints
            .extend(page.get("endpoints").and_then(Value::as_array).cloned().unwrap_or_default());
        cursor = page.get("next_cursor").and_then(Value::as_str).map(str::to_owned);
        if cursor.is_none() {
            return Ok(json!({ "endpoints": endpoints }));
        }
    }
}

/// The delivered ones first: a letter that is delivered meanwhile is not one of them.
fn resend(target: &ApiAddress, asker: &ApiClient, wish: &Value) -> Result<(), CommandError> {
    let count = |answer: &Value, name: &str| answer.get(name).and_then(Value::as_u64).unwrap_or(0);
    let is_dry = wish.get("dry_run") == Some(&Value::Bool(true));
    // An order for nothing is refused, so it is counted first.
    let mut counted = wish.clone();
    if let Some(members) = counted.as_object_mut() {
        members.insert(String::from("dry_run"), json!(true));
    }
    let mut delivered = asker.post("/api/v1/replay", &counted)?;
    if !is_dry && count(&delivered, "events") > 0 {
        delivered = asker.post("/api/v1/replay", wish)?;
    }
    let letters = asker.post("/api/v1/dead-letters/resend", wish)?;
    if target.json {
        return Ok(show(&json!({ "dead_letters": letters, "delivered": delivered }))?);
    }
    let (dead, done) = if is_dry { ("letters", "would be") } else { ("requested", "are to be") };
    terminal::line(&format!("{} dead letters {done} sent again", count(&letters, dead)))?;
    let events = count(&delivered, "events");
    terminal::line(&format!("{events} delivered events {done} sent again"))?;
    let bare = count(&delivered, "without_body");
    if bare > 0 {
        terminal::note(&format!("{bare} delivered events have no body in the push log"))?;
    }
    Ok(())
}

fn test(asker: &ApiClient, name: &str) -> Result<(), CommandError> {
    let report = asker.post(&format!("{}/test", path(name)?), &json!({}))?;
    show(&report)?;
    match report.get("delivered").and_then(Value::as_bool) {
        Some(true) => Ok(()),
        _ => {
            Err(ExitStatus::Failed.because(anyhow!("endpoint {name} did not take the test event")))
        }
    }
}

/// A line for people, all of it for scripts.
fn tell(target: &ApiAddress, answer: &Value) -> Result<(), CommandError> {
    if target.json {
        show(answer)?;
        return Ok(());
    }
    let text = |name| table::cell(answer.get(name).unwrap_or(&Value::Null));
    terminal::line(&format!("{}: {}", text("name"), text("state")))?;
    Ok(())
}

fn show(answer: &Value) -> std::io::Result<()> {
    terminal::line(&format!("{answer:#}"))
}

/// Names have no character that a path would have to escape; what has one is no name.
pub(crate) fn path(name: &str) -> Result<String, CommandError> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    // `.` and `..` are no names, and would lead elsewhere.
    if name.bytes().all(|b| b == b'.') || !name.bytes().all(allowed) {
        return Err(ExitStatus::Usage.because(anyhow!("{name:?} is not the name of an endpoint")));
    }
    Ok(format!("{PATH}/{name}"))
}

fn read(file: &PathBuf) -> Result<Value, CommandError> {
    let text = if file.as_os_str() == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(file)
    };
    let shown = file.display();
    let usage = |error: anyhow::Error| ExitStatus::Usage.because(error);
    let text = text.with_context(|| format!("{shown} cannot be read")).map_err(usage)?;
    unique_json::parse(text.as_bytes()).map_err(|error| usage(anyhow!("{shown} {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_that_an_endpoint_may_have_has_a_path() {
        for name in ["crm", "WH_001", "hooks.example.com-99e22cebda", "a.B-c", "..a"] {
            assert_eq!(path(name).ok(), Some(format!("{PATH}/{name}")), "case: {name}");
        }
        for name in ["", ".", "..", "a/b", "a?b", "a b", "张三"] {
            assert!(path(name).is_err(), "case: {name}");
        }
    }
}
