//! `walhook backfill`: rows that tables hold already, sent as events.

use std::io::IsTerminal;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use clap::Args;
use clap::Subcommand;
use serde_json::Map;
use serde_json::Value;

use crate::cli::GlobalOptions;
use crate::cli::ask::ApiAddress;
use crate::cli::ask::ApiClient;
use crate::cli::exit::CommandError;
use crate::cli::table;
use crate::cli::terminal;

const PATH: &str = "/api/v1/backfills";

/// How long rows may be counted, and a table be looked at.
const ORDER_MAX: Duration = Duration::from_secs(70);

/// How often the bar is drawn anew.
const LOOK: Duration = Duration::from_millis(500);

/// How wide it is.
const BAR: usize = 24;

const COLUMNS: [(&str, &str); 9] = [
    ("ID", "id"),
    ("STATE", "state"),
    ("TABLE", "table"),
    ("ORDERED", "created_at"),
    ("READ", "rows_read"),
    ("SENT", "rows_sent"),
    ("OF ABOUT", "estimated_rows"),
    ("BY", "by"),
    ("REASON", "reason"),
];

const OFFERED: [(&str, &str); 5] = [
    ("TABLE", "table"),
    ("ABOUT", "estimated_rows"),
    ("COUNTED", "counted_rows"),
    ("BY", "by"),
    ("AS", "event_types"),
];

/// Sends rows that tables hold already, in order with the changes that go on
#[derive(Args, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Talks to a running walhook over its API. Rows become events of operation `read`: an \
                  [[event]] asks for them with on = [..., \"read\"], or --as names one. On a terminal the \
                  progress is shown; Ctrl-C ends that, and not the backfill.\n\n\
                  Example: walhook backfill public.orders --where \"status = 'open'\" --endpoint crm --rate 500"
)]
pub(crate) struct Backfill {
    #[command(subcommand)]
    what: Option<BackfillAction>,
    /// Tables, with their schemas
    #[arg(value_name = "TABLE")]
    tables: Vec<String>,
    /// Only rows that meet this condition in SQL
    #[arg(long = "where", value_name = "SQL")]
    filter: Option<String>,
    /// To this endpoint only; may be given several times
    #[arg(long = "endpoint", value_name = "NAME")]
    endpoints: Vec<String>,
    /// So many rows a second, within the endpoints' own limits [default: as fast as they are taken]
    #[arg(long, value_name = "N")]
    rate: Option<u32>,
    /// Along the key, or as rows lie in the file [default: key, if the table has one]
    #[arg(long, value_name = "ORDER", value_parser = ["key", "ctid"])]
    by: Option<String>,
    /// As events of this type, whatever its `on` says
    #[arg(long = "as", value_name = "EVENT_TYPE")]
    event_type: Option<String>,
    /// Only says what it would read
    #[arg(long)]
    dry_run: bool,
    /// With --dry-run: counts the rows instead of asking the planner
    #[arg(long, requires = "dry_run")]
    count: bool,
    /// Orders it and returns at once, also on a terminal
    #[arg(long)]
    detach: bool,
    #[command(flatten)]
    target: ApiAddress,
}

#[derive(Debug, Subcommand)]
enum BackfillAction {
    /// Lists backfills and how far they are, the newest first
    #[command(after_help = "Example: walhook backfill list")]
    List {
        #[command(flatten)]
        target: ApiAddress,
    },
    /// Shows one, with its progress as long as it runs
    #[command(after_help = "Example: walhook backfill show 3")]
    Show {
        id: i64,
        #[command(flatten)]
        target: ApiAddress,
    },
    /// Reads nothing more of it until it is resumed
    #[command(after_help = "Example: walhook backfill pause 3")]
    Pause {
        id: i64,
        #[command(flatten)]
        target: ApiAddress,
    },
    /// Goes on with one that is paused or has failed
    #[command(after_help = "Example: walhook backfill resume 3")]
    Resume {
        id: i64,
        #[command(flatten)]
        target: ApiAddress,
    },
    /// Ends one where it is
    #[command(after_help = "Example: walhook backfill cancel 3")]
    Cancel {
        id: i64,
        #[command(flatten)]
        target: ApiAddress,
    },
}

impl Backfill {
    /// # Errors
    /// That no walhook answers, or what it answers instead.
    pub(crate) fn run(self, global: &GlobalOptions) -> Result<(), CommandError> {
        match &self.what {
            Some(BackfillAction::List { target }) => {
                let answer = target.asker(global)?.get(PATH, &[])?;
                show_all(&answer, target.json)
            }
            Some(BackfillAction::Show { id, target }) => {
                let asker = target.asker(global)?;
                let found = asker.get(&format!("{PATH}/{id}"), &[])?;
                show_one(&found, target.json)?;
                match is_watched(target.json) {
                    true => watch(&asker, &[*id]),
                    false => Ok(()),
                }
            }
            Some(BackfillAction::Pause { id, target }) => act(global, target, *id, "pause"),
            Some(BackfillAction::Resume { id, target }) => act(global, target, *id, "resume"),
            Some(BackfillAction::Cancel { id, target }) => act(global, target, *id, "cancel"),
            None => self.order(global),
        }
    }

    fn order(&self, global: &GlobalOptions) -> Result<(), CommandError> {
        let json = self.target.json;
        let asker = self.target.asker(global)?.within(ORDER_MAX);
        let answer = asker.post(PATH, &self.wish())?;
        if json {
            return Ok(terminal::line(&terminal::json_line(&answer))?);
        }
        let found = answer.get("backfills").and_then(Value::as_array);
        let found = found.map(Vec::as_slice).unwrap_or_default();
        if self.dry_run {
            return Ok(table::print(&OFFERED, found)?);
        }
        table::print(&COLUMNS, found)?;
        let ids: Vec<i64> =
            found.iter().filter_map(|one| one.get("id").and_then(Value::as_i64)).collect();
        match is_watched(json) && !self.detach {
            true => watch(&asker, &ids),
            false => Ok(()),
        }
    }

    fn wish(&self) -> Value {
        let mut wish = Map::new();
        let mut say = |name: &str, value: Value| wish.insert(name.to_owned(), value);
        say("tables", self.tables.clone().into());
        say("endpoints", self.endpoints.clone().into());
        for (name, text) in [("where", &self.filter), ("by", &self.by), ("as", &self.event_type)] {
            if let Some(text) = text {
                say(name, text.clone().into());
            }
        }
        if let Some(rate) = self.rate {
            say("rate", rate.into());
        }
        say("dry_run", self.dry_run.into());
        say("count", self.count.into());
        Value::Object(wish)
    }
}

fn act(
    global: &GlobalOptions,
    target: &ApiAddress,
    id: i64,
    what: &str,
) -> Result<(), CommandError> {
    let answer = target.asker(global)?.post(&format!("{PATH}/{id}/{what}"), &Value::Null)?;
    show_one(&answer, target.json)
}

fn show_one(answer: &Value, json: bool) -> Result<(), CommandError> {
    match json {
        true => Ok(terminal::line(&terminal::json_line(answer))?),
        false => Ok(table::print(&COLUMNS, std::slice::from_ref(answer))?),
    }
}

fn show_all(answer: &Value, json: bool) -> Result<(), CommandError> {
    if json {
        return Ok(terminal::line(&terminal::json_line(answer))?);
    }
    let found = answer.get("backfills").and_then(Value::as_array);
    match found.map(Vec::as_slice).unwrap_or_default() {
        [] => Ok(terminal::note("no backfills")?),
        found => Ok(table::print(&COLUMNS, found)?),
    }
}

fn is_watched(json: bool) -> bool {
    !json && std::io::stdout().is_terminal()
}

/// Draws the progress until all of them have ended. Ending this ends the looking only.
fn watch(asker: &ApiClient, ids: &[i64]) -> Result<(), CommandError> {
    for id in ids {
        let (begun, mut first) = (Instant::now(), None);
        loop {
            let found = asker.get(&format!("{PATH}/{id}"), &[])?;
            let read = number(&found, "rows_read");
            let first = *first.get_or_insert(read);
            let line = bar(&found, read.saturating_sub(first), begun.elapsed());
            terminal::redraw(&line)?;
            if found.get("state").and_then(Value::as_str) != Some("running") {
                break;
            }
            thread::sleep(LOOK);
        }
        terminal::line("")?;
    }
    Ok(())
}

fn number(found: &Value, name: &str) -> u64 {
    found.get(name).and_then(Value::as_u64).unwrap_or_default()
}

/// `#3 public.orders [#####.....]  50 %  1200 of about 2400  600 rows/s  2 s left`.
fn bar(found: &Value, lately: u64, took: Duration) -> String {
    let text = |name: &str| found.get(name).and_then(Value::as_str).unwrap_or_default();
    let ratio = found.get("progress").and_then(Value::as_f64).unwrap_or_default().clamp(0.0, 1.0);
    let (read, about) = (number(found, "rows_read"), number(found, "estimated_rows"));
    let seconds = took.as_secs_f64().max(0.001);
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = lately as f64 / seconds;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within the bar")]
    let full = (ratio * BAR as f64).round() as usize;
    let drawn = format!("{}{}", "#".repeat(full), ".".repeat(BAR - full));
    let id = number(found, "id");
    let percent = ratio * 100.0;
    let mut line = format!(
        "#{id} {} [{drawn}] {percent:3.0} %  {read} of about {about}  {rate:.0} rows/s",
        terminal::visible(text("table"))
    );
    #[expect(clippy::cast_precision_loss, reason = "a guess for people")]
    let left = about.saturating_sub(read) as f64 / rate;
    if text("state") != "running" {
        line.push_str("  ");
        line.push_str(text("state"));
    } else if left.is_finite() {
        line.push_str(&format!("  {left:.0} s left"));
    }
    if !text("reason").is_empty() {
        line.push_str(&format!("  {}", terminal::visible(text("reason"))));
    }
    line
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_bar_says_how_far_it_is() {
        let found = json!({
            "id": 3, "table": "public.orders", "progress": 0.5, "rows_read": 1200,
            "estimated_rows": 2400, "state": "running", "reason": null
        });
        assert_eq!(
            bar(&found, 600, Duration::from_secs(1)),
            "#3 public.orders [############............]  50 %  1200 of about 2400  600 rows/s  2 s left"
        );
        let done = json!({
            "id": 3, "table": "public.orders", "progress": 1.0, "rows_read": 2400,
            "estimated_rows": 2400, "state": "done", "reason": null
        });
        assert!(bar(&done, 0, Duration::from_secs(1)).ends_with("done"));
    }
}
