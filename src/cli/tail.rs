//! `walhook tail`: prints events and delivers nothing.

use clap::Args;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::app::tail;
use crate::cli::Global;
use crate::cli::exit::CommandError;
use crate::cli::interrupted;
use crate::cli::runtime;
use crate::cli::terminal;
use crate::clock::DatabaseClock;
use crate::flow::event::Event;
use crate::flow::time::Timestamp;

/// Prints events as JSON lines from a temporary slot, and delivers nothing
#[derive(Args, Debug)]
#[command(
    after_help = "Each line has the event's id, type, table, commit time and body, from now \
                        on.\n\nExample: walhook tail | jq .body"
)]
pub struct Tail {
    /// Ends after this many events
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
}

impl Tail {
    /// # Errors
    /// PostgreSQL's refusals, or that the output fails.
    pub fn run(self, global: &Global) -> Result<(), CommandError> {
        let settings = global.settings()?;
        let stop = CancellationToken::new();
        let (clock, times) = (DatabaseClock::new(), DatabaseClock::new());
        let (enough, mut left) = (stop.clone(), self.limit);
        let show = move |event: &Event| {
            if left == Some(0) {
                return Ok(());
            }
            terminal::line(&line(event, times.now()))?;
            left = left.map(|left| left - 1);
            if left == Some(0) {
                enough.cancel();
            }
            Ok(())
        };
        let tail = async {
            tokio::select! {
                ended = tail(settings, clock, stop.clone(), show) => ended,
                stopped = interrupted() => Ok(stopped?),
            }
        };
        runtime()?.block_on(tail).map_err(CommandError::of_postgres)
    }
}

fn line(event: &Event, now: Timestamp) -> String {
    let body = event.body.complete(now);
    // Payloads are JSON; what is not would be shown as text.
    let body = serde_json::from_slice(&body)
        .unwrap_or_else(|_| serde_json::Value::String(String::from_utf8_lossy(&body).into_owned()));
    let line = json!({
        "id": event.id.to_string(),
        "type": &*event.event_type,
        "table": event.table.to_string(),
        "committed": event.committed.iso_millis(),
        "body": body,
    });
    terminal::json_line(&line)
}
