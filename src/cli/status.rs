//! `walhook status`: how a running walhook does, on one screen.

use std::time::Duration;

use anyhow::anyhow;
use clap::Args;
use serde_json::Value;

use crate::cli::GlobalOptions;
use crate::cli::ask::ApiAddress;
use crate::cli::ask::ApiClient;
use crate::cli::exit::CommandError;
use crate::cli::table;
use crate::cli::terminal;
use crate::flow::exit_status::ExitStatus;

/// Between two screens.
const WATCH_EVERY: Duration = Duration::from_secs(2);

/// Clears the screen and goes to its top.
const CLEAR: &str = "\x1b[2J\x1b[H";

/// Endpoints that are shown in full; the rest is counted.
const SHOWN_MAX: usize = 20;

/// Shows how walhook does: what is not well, since when, why, and what to do
#[derive(Args, Debug)]
#[command(after_help = "Exit code 1 if something is not well.\n\n\
                        Example: walhook status --watch")]
pub(crate) struct StatusCommand {
    /// Shows it again every two seconds, until Ctrl-C
    #[arg(long, conflicts_with = "json")]
    watch: bool,
    #[command(flatten)]
    target: ApiAddress,
}

impl StatusCommand {
    /// # Errors
    /// With exit code 1 if something is not well, or nobody answers.
    pub(crate) fn run(self, global: &GlobalOptions) -> Result<(), CommandError> {
        let asker = self.target.asker(global)?;
        if self.watch {
            return watch(&asker);
        }
        let answer = status(&asker)?;
        if self.target.json {
            terminal::line(&terminal::json_line(&answer))?;
        } else {
            terminal::line(&screen(&answer).join("\n"))?;
        }
        match answer.get("healthy").and_then(Value::as_bool) {
            Some(true) => Ok(()),
            _ => Err(ExitStatus::Failed.because(anyhow!("not all is well"))),
        }
    }
}

/// Ends with the output, or with Ctrl-C.
fn watch(asker: &ApiClient) -> Result<(), CommandError> {
    loop {
        let screen = match status(asker) {
            Ok(answer) => screen(&answer),
            // It may be between two runs.
            Err(error) => vec![error.to_string()],
        };
        terminal::line(&format!("{CLEAR}{}", screen.join("\n")))?;
        std::thread::sleep(WATCH_EVERY);
    }
}

fn status(asker: &ApiClient) -> Result<Value, CommandError> {
    asker.get("/api/v1/status", &[])
}

/// The lines of the screen.
fn screen(status: &Value) -> Vec<String> {
    let mut lines = vec![headline(status)];
    let source = status.get("source").unwrap_or(&Value::Null);
    let wal = source.get("wal").unwrap_or(&Value::Null);
    if let (Some(lag), Some(retained)) = (number(wal, "lag_bytes"), number(wal, "retained_bytes")) {
        lines.push(format!(
            "slot {}: {} behind, {} of WAL kept{}, confirmed {}",
            text(source, "slot"),
            size(lag),
            size(retained),
            limit(wal),
            text(source, "confirmed_lsn")
        ));
    }
    let problems = items(status, "problems");
    if !problems.is_empty() {
        lines.push(String::new());
        lines.push(String::from("Not well:"));
    }
    for problem in problems.iter().take(SHOWN_MAX) {
        lines.push(format!("  {}: {}", text(problem, "about"), text(problem, "what")));
        lines.push(format!("    -> {}", text(problem, "do")));
    }
    lines.extend(more(problems.len(), "problems"));
    let endpoints = items(status, "endpoints");
    let is_quiet = |endpoint: &&Value| text(endpoint, "condition") == "delivering";
    let (quiet, loud): (Vec<&Value>, Vec<&Value>) = endpoints.iter().partition(is_quiet);
    lines.push(String::new());
    lines.push(format!("Endpoints: {} delivering, {} not", quiet.len(), loud.len()));
    for endpoint in loud.iter().take(SHOWN_MAX) {
        lines.push(format!("  {}: {}", text(endpoint, "name"), text(endpoint, "condition")));
        let details = [
            ("since", "since"),
            ("oldest event", "oldest"),
            ("next attempt", "next_attempt"),
            ("last failure", "last_failure"),
        ];
        let known = details.into_iter().filter(|(_, name)| has(endpoint, name));
        let known: Vec<String> =
            known.map(|(what, name)| format!("{what} {}", text(endpoint, name))).collect();
        if !known.is_empty() {
            lines.push(format!("    {}", known.join(", ")));
        }
    }
    lines.extend(more(loud.len(), "endpoints"));
    let letters = items(status, "dead_letters");
    let sum: u64 = letters.iter().filter_map(|group| number(group, "letters")).sum();
    lines.push(String::new());
    lines.push(format!("Dead letters: {sum}"));
    for group in letters.iter().take(SHOWN_MAX) {
        let of = |name| text(group, name);
        lines.push(format!("  {} of {}: {}", of("letters"), of("endpoint"), of("class")));
    }
    lines.extend(more(letters.len(), "groups"));
    if sum > 0 {
        lines.push(String::from("  -> `walhook dead-letters list` shows them"));
    }
    lines
}

/// What the server keeps at most, and how much can be written until then.
fn limit(wal: &Value) -> String {
    let limit = number(wal, "limit_bytes").map(|limit| format!(" of at most {}", size(limit)));
    let safe = number(wal, "safe_bytes")
        .map(|safe| format!(" ({} more can be written before the slot may be lost)", size(safe)));
    match limit.is_some() || safe.is_some() {
        true => limit.unwrap_or_default() + &safe.unwrap_or_default(),
        false => String::from(" (without a limit)"),
    }
}

fn headline(status: &Value) -> String {
    let source = status.get("source").unwrap_or(&Value::Null);
    let role = match text(source, "state").as_str() {
        "streaming" => String::from("active"),
        "standby" => match source.get("holder").filter(|holder| has(holder, "name")) {
            Some(holder) => format!("standby, {} has the slot", text(holder, "name")),
            None => String::from("standby"),
        },
        "delivering" => format!("worker, {}", text(source, "reason")),
        other => format!("not streaming ({other})"),
    };
    let well = status.get("healthy").and_then(Value::as_bool) == Some(true);
    let verdict = if well { "well" } else { "NOT WELL" };
    format!("walhook {} is {verdict}: {role}", text(status, "version"))
}

fn more(count: usize, what: &str) -> Option<String> {
    let hidden = count.checked_sub(SHOWN_MAX).filter(|hidden| *hidden > 0)?;
    Some(format!("  and {hidden} more {what}: --json has them all"))
}

fn items<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn has(value: &Value, name: &str) -> bool {
    value.get(name).is_some_and(|value| !value.is_null())
}

fn text(value: &Value, name: &str) -> String {
    table::cell(value.get(name).unwrap_or(&Value::Null))
}

fn number(value: &Value, name: &str) -> Option<u64> {
    value.get(name)?.as_u64()
}

/// Bytes as people say them.
fn size(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    match units.into_iter().find(|(shift, _)| bytes >= 1 << shift) {
        Some((shift, unit)) => {
            let tenths = (u128::from(bytes) * 10) >> shift;
            format!("{}.{} {unit}", tenths / 10, tenths % 10)
        }
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_standby_says_who_has_the_slot() {
        let status = |holder: Value| json!({ "version": "1.0", "healthy": true, "source": { "state": "standby", "holder": holder } });
        let held = headline(&status(json!({ "name": "host-a/7" })));
        assert_eq!(held, "walhook 1.0 is well: standby, host-a/7 has the slot");
        assert_eq!(headline(&status(Value::Null)), "walhook 1.0 is well: standby");
    }

    #[test]
    fn a_worker_says_what_it_delivers_for() {
        let source = json!({ "state": "delivering", "reason": "delivers for partitions 1, 2" });
        let status = json!({ "version": "1.0", "healthy": true, "source": source });
        assert_eq!(headline(&status), "walhook 1.0 is well: worker, delivers for partitions 1, 2");
    }

    #[test]
    fn what_is_wrong_stands_with_since_why_how_many_and_what_to_do() {
        let status = json!({
            "version": "1.0",
            "healthy": false,
            "problems": [{ "about": "endpoint crm", "what": "out of order, 7 waiting", "do": "look" }],
            "source": {
                "state": "streaming",
                "slot": "walhook",
                "confirmed_lsn": "0/1",
                "wal": {
                    "lag_bytes": 1536, "retained_bytes": 16_777_216,
                    "limit_bytes": 67_108_864, "safe_bytes": 50_331_648,
                },
            },
            "endpoints": [
                { "name": "erp", "condition": "delivering" },
                {
                    "name": "crm",
                    "condition": "out of order, 7 waiting",
                    "since": "T1",
                    "oldest": "T0",
                    "next_attempt": "T2",
                    "last_failure": "status: 503\u{1b}[2J",
                },
            ],
            "dead_letters": [{ "endpoint": "crm", "class": "timeout", "letters": 3 }],
        });
        let screen = screen(&status).join("\n");
        for expected in [
            "walhook 1.0 is NOT WELL: active",
            "1.5 KiB behind, 16.0 MiB of WAL kept of at most 64.0 MiB (48.0 MiB more can be written",
            "endpoint crm: out of order, 7 waiting\n    -> look",
            "1 delivering, 1 not",
            "since T1, oldest event T0, next attempt T2, last failure status: 503\\u{1b}[2J",
            "Dead letters: 3\n  3 of crm: timeout",
        ] {
            assert!(screen.contains(expected), "{expected:?} is not in\n{screen}");
        }
    }

    #[test]
    fn a_thousand_endpoints_that_are_down_fit_on_a_screen() {
        let down: Vec<Value> =
            (0..1000).map(|n| json!({ "name": n, "condition": "out of order" })).collect();
        let screen = screen(&json!({ "healthy": true, "endpoints": down }));
        assert!(screen.len() < 2 * SHOWN_MAX + 10, "{}", screen.len());
        assert!(screen.join("\n").contains("and 980 more endpoints"));
    }
}
