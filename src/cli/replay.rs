//! `walhook replay`: delivered events, sent again.

use clap::Args;
use clap::Subcommand;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::cli::GlobalOptions;
use crate::cli::ask::ApiAddress;
use crate::cli::exit::CommandError;
use crate::cli::table;
use crate::cli::terminal;

const PATH: &str = "/api/v1/replay";

const COLUMNS: [(&str, &str); 9] = [
    ("ID", "id"),
    ("STATE", "state"),
    ("ENDPOINT", "endpoint"),
    ("ORDERED", "created_at"),
    ("DELIVERED", "delivered"),
    ("FAILED", "failed"),
    ("EXPIRED", "expired"),
    ("NO BODY", "without_body"),
    ("THROUGH", "done_through"),
];

/// Sends delivered events again, as far as the push log kept their bodies
#[derive(Args, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Talks to a running walhook over its API. Bodies of delivered events are kept with \
                  [push_log] bodies = \"all\".\n\n\
                  Example: walhook replay --from 2026-11-22T03:00:00Z --endpoint crm --dry-run"
)]
pub(crate) struct Replay {
    #[command(subcommand)]
    what: Option<ReplayAction>,
    /// Delivered at this time or later (2026-11-22T03:00:00Z, or a day)
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Delivered before this time
    #[arg(long, value_name = "TIME")]
    before: Option<String>,
    /// Of this event type
    #[arg(long = "type", value_name = "EVENT_TYPE")]
    event_type: Option<String>,
    /// Of this row: the value of its first key column
    #[arg(long, visible_alias = "task-id")]
    key: Option<String>,
    /// This event
    #[arg(long = "event", value_name = "EVENT_ID")]
    event_id: Option<String>,
    /// To this endpoint only
    #[arg(long, visible_alias = "webhook-id")]
    endpoint: Option<String>,
    /// So many a second, within the endpoint's own limits [default: 100]
    #[arg(long, value_name = "N")]
    rate: Option<u32>,
    /// All that the push log knows
    #[arg(long)]
    all: bool,
    /// Only counts them
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    target: ApiAddress,
}

#[derive(Debug, Subcommand)]
enum ReplayAction {
    /// Lists orders and how far they are, the newest first
    #[command(after_help = "Example: walhook replay list")]
    List {
        #[command(flatten)]
        target: ApiAddress,
    },
    /// Holds an order back
    #[command(after_help = "Example: walhook replay pause 3")]
    Pause {
        id: i64,
        #[command(flatten)]
        target: ApiAddress,
    },
    /// Lets an order go on that is held back
    #[command(after_help = "Example: walhook replay resume 3")]
    Resume {
        id: i64,
        #[command(flatten)]
        target: ApiAddress,
    },
    /// Stops an order
    #[command(after_help = "Example: walhook replay cancel 3")]
    Cancel {
        id: i64,
        #[command(flatten)]
        target: ApiAddress,
    },
}

impl Replay {
    /// # Errors
    /// That no walhook answers, or what it answers instead.
    pub(crate) fn run(self, global: &GlobalOptions) -> Result<(), CommandError> {
        match self.what {
            Some(ReplayAction::List { target }) => {
                let answer = target.asker(global)?.get(PATH, &[])?;
                show_orders(&answer, target.json)
            }
            Some(ReplayAction::Cancel { id, target }) => {
                let answer = target.asker(global)?.delete(&format!("{PATH}/{id}"))?;
                show_order(answer, target.json)
            }
            Some(ReplayAction::Pause { id, target }) => {
                let asker = target.asker(global)?;
                show_order(asker.post(&format!("{PATH}/{id}/pause"), &json!({}))?, target.json)
            }
            Some(ReplayAction::Resume { id, target }) => {
                let asker = target.asker(global)?;
                show_order(asker.post(&format!("{PATH}/{id}/resume"), &json!({}))?, target.json)
            }
            None => {
                let json = self.target.json;
                let answer = self.target.asker(global)?.post(PATH, &self.order())?;
                report(&answer, json)
            }
        }
    }

    fn order(&self) -> Value {
        let texts = [
            ("from", &self.from),
            ("before", &self.before),
            ("event_type", &self.event_type),
            ("key", &self.key),
            ("event_id", &self.event_id),
            ("endpoint", &self.endpoint),
        ];
        let mut order = Map::new();
        for (name, value) in texts {
            if let Some(value) = value {
                order.insert(name.to_owned(), Value::String(value.clone()));
            }
        }
        if let Some(rate) = self.rate {
            order.insert("rate".to_owned(), rate.into());
        }
        order.insert("all".to_owned(), self.all.into());
        order.insert("dry_run".to_owned(), self.dry_run.into());
        Value::Object(order)
    }
}

fn report(answer: &Value, json: bool) -> Result<(), CommandError> {
    if json {
        return Ok(terminal::line(&terminal::json_line(answer))?);
    }
    let number = |name: &str| answer.get(name).and_then(Value::as_u64).unwrap_or_default();
    let is_dry = answer.get("dry_run").is_some();
    let events = number("events");
    let plural = if events == 1 { "event" } else { "events" };
    let verb = if is_dry { "would be sent again" } else { "to be sent again" };
    terminal::line(&format!("{events} {plural} {verb}"))?;
    for (name, what) in [
        ("without_body", "without a body in the push log"),
        ("body_cut", "of which only a part of the body was kept"),
        ("expired", "too old to be sent"),
    ] {
        if number(name) > 0 {
            terminal::note(&format!("{} left alone: {what}", number(name)))?;
        }
    }
    if let Some(note) = answer.get("note").and_then(Value::as_str) {
        terminal::note(note)?;
    }
    if is_dry { Ok(()) } else { show_orders(answer, false) }
}

fn show_order(order: Value, json: bool) -> Result<(), CommandError> {
    if json {
        return Ok(terminal::line(&terminal::json_line(&order))?);
    }
    Ok(table::print(&COLUMNS, &[order])?)
}

fn show_orders(answer: &Value, json: bool) -> Result<(), CommandError> {
    if json {
        return Ok(terminal::line(&terminal::json_line(answer))?);
    }
    let orders = answer.get("replays").and_then(Value::as_array);
    match orders.map(Vec::as_slice).unwrap_or_default() {
        [] => Ok(terminal::note("no replays")?),
        orders => Ok(table::print(&COLUMNS, orders)?),
    }
}
