//! `walhook push-log`: every attempt that was made.

use clap::Args;
use serde_json::Value;

use crate::cli::GlobalOptions;
use crate::cli::ask::ApiAddress;
use crate::cli::exit::CommandError;
use crate::cli::table;
use crate::cli::terminal;

const COLUMNS: [(&str, &str); 9] = [
    ("TIME", "created_at"),
    ("ENDPOINT", "endpoint"),
    ("TYPE", "event_type"),
    ("KEY", "key"),
    ("RETRY", "retry_count"),
    ("OUTCOME", "outcome"),
    ("STATUS", "http_status"),
    ("MS", "duration_ms"),
    ("ERROR", "error_message"),
];

/// Lists the attempts of deliveries, the newest first
#[derive(Args, Debug)]
#[command(
    after_help = "Talks to a running walhook over its API. --json shows headers and bodies, \
                        as far as they were kept.\n\n\
                        Example: walhook push-log --key T_20251214_0001 --json | jq"
)]
pub(crate) struct PushLog {
    /// Of this row: the value of its first key column
    #[arg(long, visible_alias = "task-id")]
    key: Option<String>,
    /// Of this event
    #[arg(long = "event", value_name = "EVENT_ID")]
    event_id: Option<String>,
    /// Of this event type
    #[arg(long = "type", value_name = "EVENT_TYPE")]
    event_type: Option<String>,
    /// Of this endpoint
    #[arg(long, visible_alias = "webhook-id")]
    endpoint: Option<String>,
    /// With this HTTP status
    #[arg(long)]
    status: Option<u16>,
    /// With this failure class, such as timeout
    #[arg(long)]
    class: Option<String>,
    /// delivered, retry or dead
    #[arg(long)]
    outcome: Option<String>,
    /// Made at this time or later (2026-11-22T03:00:00Z, or a day)
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Made before this time
    #[arg(long, value_name = "TIME")]
    before: Option<String>,
    /// At most so many
    #[arg(long, default_value_t = 50)]
    limit: u32,
    /// Goes on after a page: its next_cursor
    #[arg(long)]
    cursor: Option<String>,
    #[command(flatten)]
    target: ApiAddress,
}

impl PushLog {
    /// # Errors
    /// That no walhook answers, or what it answers instead.
    pub(crate) fn run(self, global: &GlobalOptions) -> Result<(), CommandError> {
        let fields = [
            ("key", self.key),
            ("event_id", self.event_id),
            ("event_type", self.event_type),
            ("endpoint", self.endpoint),
            ("status", self.status.map(|status| status.to_string())),
            ("class", self.class),
            ("outcome", self.outcome),
            ("from", self.from),
            ("before", self.before),
            ("limit", Some(self.limit.to_string())),
            ("cursor", self.cursor),
        ];
        let query: Vec<(&str, String)> =
            fields.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        let asker = self.target.asker(global)?;
        let mut query = query;
        let mut answer = asker.get("/api/v1/push-logs", &query)?;
        // Where there are many attempts, a page without any may have only looked so far.
        while is_to_be_continued(&answer) {
            query.retain(|(name, _)| *name != "cursor");
            let cursor = answer.get("next_cursor").and_then(Value::as_str).unwrap_or_default();
            query.push(("cursor", cursor.to_owned()));
            answer = asker.get("/api/v1/push-logs", &query)?;
        }
        if self.target.json {
            return Ok(terminal::line(&terminal::json_line(&answer))?);
        }
        let entries = answer.get("push_logs").and_then(Value::as_array);
        let entries = entries.map(Vec::as_slice).unwrap_or_default();
        if entries.is_empty() {
            return Ok(terminal::note("no attempts")?);
        }
        table::print(&COLUMNS, entries)?;
        if let Some(cursor) = answer.get("next_cursor").and_then(Value::as_str) {
            terminal::note(&format!("more: walhook push-log --cursor {cursor} ..."))?;
        }
        Ok(())
    }
}

/// Whether nothing was found yet, and not all was looked through.
fn is_to_be_continued(answer: &Value) -> bool {
    let entries = answer.get("push_logs").and_then(Value::as_array);
    entries.is_some_and(Vec::is_empty) && answer.get("next_cursor").is_some_and(Value::is_string)
}
