//! `walhook dead-letters`: what was given up, looked at, sent again, discarded.

use clap::Args;
use clap::Subcommand;
use serde::Deserialize;
use serde_json::Map;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::cli::GlobalOptions;
use crate::cli::ask::ApiAddress;
use crate::cli::ask::ApiClient;
use crate::cli::exit::CommandError;
use crate::cli::table;
use crate::cli::terminal;

const PATH: &str = "/api/v1/dead-letters";

const COLUMNS: [(&str, &str); 9] = [
    ("ID", "id"),
    ("STATE", "state"),
    ("ENDPOINT", "endpoint"),
    ("TYPE", "event_type"),
    ("KEY", "key"),
    ("CLASS", "class"),
    ("ATTEMPTS", "attempts"),
    ("DIED", "died_at"),
    ("REASON", "reason"),
];

const GROUP_COLUMNS: [(&str, &str); 6] = [
    ("LETTERS", "letters"),
    ("ENDPOINT", "endpoint"),
    ("CLASS", "class"),
    ("STATE", "state"),
    ("FIRST", "first_died_at"),
    ("LAST", "last_died_at"),
];

/// Looks at deliveries that were given up, sends them again, discards them
#[derive(Args, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Talks to a running walhook over its API.\n\n\
                  Examples: walhook dead-letters list --endpoint crm\n          \
                  walhook dead-letters resend --class timeout --dry-run"
)]
pub(crate) struct DeadLetters {
    #[command(subcommand)]
    what: Option<DeadLetterAction>,
    #[command(flatten)]
    target: ApiAddress,
}

#[derive(Debug, Subcommand)]
enum DeadLetterAction {
    /// Lists letters, the newest first
    #[command(after_help = "Example: walhook dead-letters list --endpoint crm --class status")]
    List {
        #[command(flatten)]
        which: DeadLetterChoice,
        /// dead, requested, resending, delivered, expired, discarded, open or all
        #[arg(long, default_value = "open")]
        state: String,
        /// At most so many
        #[arg(long, default_value_t = 50)]
        limit: u32,
        /// Goes on after a page: its next_cursor
        #[arg(long)]
        cursor: Option<String>,
        #[command(flatten)]
        target: ApiAddress,
    },
    /// Shows a letter with its body
    #[command(after_help = "Example: walhook dead-letters show 17")]
    Show {
        id: i64,
        #[command(flatten)]
        target: ApiAddress,
    },
    /// Sends letters again, with all retries
    #[command(
        after_help = "Example: walhook dead-letters resend --key T_20251214_0001 --endpoint crm"
    )]
    Resend(ResendOrder),
    /// Takes back what was asked to be sent again and is not on its way yet
    #[command(after_help = "Example: walhook dead-letters cancel --endpoint crm")]
    Cancel(ListOrder),
    /// Counts letters by endpoint, reason and state
    #[command(after_help = "Example: walhook dead-letters groups --state all")]
    Groups {
        #[command(flatten)]
        which: DeadLetterChoice,
        /// dead, requested, resending, delivered, expired, discarded, open or all
        #[arg(long, default_value = "open")]
        state: String,
        #[command(flatten)]
        target: ApiAddress,
    },
    /// Closes letters that need not be sent any more
    #[command(after_help = "Example: walhook dead-letters discard 17 18")]
    Discard(ListOrder),
}

/// Which letters are meant.
#[derive(Args, Debug, Default)]
struct DeadLetterChoice {
    /// Of this endpoint
    #[arg(long, visible_alias = "webhook-id")]
    endpoint: Option<String>,
    /// Of this event type
    #[arg(long = "type", value_name = "EVENT_TYPE")]
    event_type: Option<String>,
    /// Of this failure class: status, timeout, dns, connect, tls, protocol, refused, request, gone,
    /// backlog_rows, backlog_age
    #[arg(long)]
    class: Option<String>,
    /// Of this row: the value of its first key column
    #[arg(long, visible_alias = "task-id")]
    key: Option<String>,
    /// Of this event
    #[arg(long = "event", value_name = "EVENT_ID")]
    event_id: Option<String>,
    /// Died at this time or later (2026-11-22T03:00:00Z, or a day)
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Died before this time
    #[arg(long, value_name = "TIME")]
    before: Option<String>,
}

#[derive(Args, Debug)]
struct ListOrder {
    /// These letters
    ids: Vec<i64>,
    #[command(flatten)]
    which: DeadLetterChoice,
    /// All letters
    #[arg(long)]
    all: bool,
    /// Only counts them
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    target: ApiAddress,
}

#[derive(Args, Debug)]
struct ResendOrder {
    #[command(flatten)]
    order: ListOrder,
    /// So many a second, instead of dead_letters.resend_rate
    #[arg(long, value_name = "PER_SECOND")]
    rate: Option<u32>,
    /// To this endpoint instead of their own; the letters themselves stay as they are
    #[arg(long, value_name = "ENDPOINT")]
    to: Option<String>,
}

impl DeadLetters {
    /// # Errors
    /// That no walhook answers, or what it answers instead.
    pub(crate) fn run(self, global: &GlobalOptions) -> Result<(), CommandError> {
        match self.what {
            None => {
                let query = [("limit", String::from("50"))];
                list(&self.target.asker(global)?, &query, self.target.json)
            }
            Some(DeadLetterAction::List { which, state, limit, cursor, target }) => {
                let mut query = which.fields();
                query.push(("state", state));
                query.push(("limit", limit.to_string()));
                query.extend(cursor.map(|cursor| ("cursor", cursor)));
                list(&target.asker(global)?, &query, target.json)
            }
            Some(DeadLetterAction::Show { id, target }) => {
                let letter = target.asker(global)?.get_text(&format!("{PATH}/{id}"))?;
                show(&letter, target.json)
            }
            Some(DeadLetterAction::Resend(ResendOrder { order, rate, to })) => {
                let more = [
                    rate.map(|rate| ("rate", Value::from(rate))),
                    to.map(|to| ("to", Value::from(to))),
                ];
                let answer = order.give(global, "resend", more.into_iter().flatten())?;
                order.report(&answer, "requested", "sent again")
            }
            Some(DeadLetterAction::Cancel(order)) => {
                let answer = order.give(global, "cancel", [])?;
                order.report(&answer, "cancelled", "taken back")
            }
            Some(DeadLetterAction::Groups { which, state, target }) => {
                let mut query = which.fields();
                query.push(("state", state));
                groups(&target.asker(global)?, &query, target.json)
            }
            Some(DeadLetterAction::Discard(order)) => {
                let answer = order.give(global, "discard", [])?;
                order.report(&answer, "discarded", "discarded")
            }
        }
    }
}

impl DeadLetterChoice {
    /// The parameters of the API, as far as they are given.
    fn fields(&self) -> Vec<(&'static str, String)> {
        let fields = [
            ("endpoint", &self.endpoint),
            ("event_type", &self.event_type),
            ("class", &self.class),
            ("key", &self.key),
            ("event_id", &self.event_id),
            ("from", &self.from),
            ("before", &self.before),
        ];
        fields.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))).collect()
    }
}

impl ListOrder {
    fn give(
        &self,
        global: &GlobalOptions,
        order: &str,
        more: impl IntoIterator<Item = (&'static str, Value)>,
    ) -> Result<Value, CommandError> {
        let mut body = Map::new();
        for (name, value) in self.which.fields() {
            body.insert(name.to_owned(), Value::String(value));
        }
        if !self.ids.is_empty() {
            body.insert("ids".to_owned(), self.ids.clone().into());
        }
        body.insert("all".to_owned(), self.all.into());
        body.insert("dry_run".to_owned(), self.dry_run.into());
        body.extend(more.into_iter().map(|(name, value)| (name.to_owned(), value)));
        self.target.asker(global)?.post(&format!("{PATH}/{order}"), &Value::Object(body))
    }

    fn report(&self, answer: &Value, field: &str, done: &str) -> Result<(), CommandError> {
        if self.target.json {
            return Ok(terminal::line(&terminal::json_line(answer))?);
        }
        let number = |name: &str| answer.get(name).and_then(Value::as_u64).unwrap_or_default();
        let letters = |count: u64| if count == 1 { "letter" } else { "letters" };
        if self.dry_run {
            let count = number("letters");
            terminal::line(&format!("{count} {} would be {done}", letters(count)))?;
        } else {
            let count = number(field);
            // What is asked for is done by and by.
            let done = if field == "requested" { format!("to be {done}") } else { done.to_owned() };
            terminal::line(&format!("{count} {} {done}", letters(count)))?;
        }
        let bare = number("without_body");
        if bare > 0 {
            let text = "too large to be kept, so that they cannot be sent";
            terminal::note(&format!("{bare} {} had a body {text}", letters(bare)))?;
        }
        let gone = answer.get("not_configured").and_then(Value::as_array);
        for share in gone.into_iter().flatten() {
            let of = |name: &str| table::cell(share.get(name).unwrap_or(&Value::Null));
            terminal::note(&format!(
                "{} left alone: endpoint {} is not configured",
                of("letters"),
                of("endpoint")
            ))?;
        }
        Ok(())
    }
}

fn list(asker: &ApiClient, query: &[(&str, String)], json: bool) -> Result<(), CommandError> {
    let answer = asker.get(PATH, query)?;
    if json {
        return Ok(terminal::line(&terminal::json_line(&answer))?);
    }
    let letters = answer.get("dead_letters").and_then(Value::as_array);
    let letters = letters.map(Vec::as_slice).unwrap_or_default();
    if letters.is_empty() {
        return Ok(terminal::note("no dead letters")?);
    }
    table::print(&COLUMNS, letters)?;
    if let Some(cursor) = answer.get("next_cursor").and_then(Value::as_str) {
        terminal::note(&format!("more: walhook dead-letters list --cursor {cursor} ..."))?;
    }
    Ok(())
}

fn groups(asker: &ApiClient, query: &[(&str, String)], json: bool) -> Result<(), CommandError> {
    let answer = asker.get(&format!("{PATH}/groups"), query)?;
    if json {
        return Ok(terminal::line(&terminal::json_line(&answer))?);
    }
    let groups = answer.get("groups").and_then(Value::as_array);
    let groups = groups.map(Vec::as_slice).unwrap_or_default();
    if groups.is_empty() {
        return Ok(terminal::note("no dead letters")?);
    }
    table::print(&GROUP_COLUMNS, groups)?;
    match answer.get("groups_left_out").and_then(Value::as_u64) {
        None | Some(0) => Ok(()),
        Some(more) => {
            Ok(terminal::note(&format!("and {more} smaller groups: ask for an endpoint"))?)
        }
    }
}

/// What of a letter must not be rounded.
#[derive(Deserialize)]
struct Exact<'a> {
    #[serde(borrow)]
    body: Option<&'a RawValue>,
}

fn show(letter: &str, json: bool) -> Result<(), CommandError> {
    if json {
        let letter: &RawValue = serde_json::from_str(letter)?;
        return Ok(terminal::line(&terminal::json_line(letter))?);
    }
    let Exact { body } = serde_json::from_str(letter)?;
    let fields: Map<String, Value> = serde_json::from_str(letter)?;
    // Their other names are for scripts.
    for (name, value) in
        fields.iter().filter(|(name, _)| !matches!(name.as_str(), "webhook_id" | "task_id"))
    {
        let shown = match body.filter(|_| name == "body") {
            // A text without its quotes, as every other one.
            Some(body) if !value.is_string() => terminal::json_line(body),
            _ => table::cell(value),
        };
        terminal::line(&format!("{name:<17} {shown}"))?;
    }
    Ok(())
}
