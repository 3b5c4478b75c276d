//! `walhook tail`: prints events and delivers nothing.

use std::sync::Arc;

use clap::Args;
use serde::Serialize;
use serde_json::Map;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;

use crate::app::tail;
use crate::app::tail::NoEndpoint;
use crate::cli::GlobalOptions;
use crate::cli::exit::CommandError;
use crate::cli::interrupted;
use crate::cli::runtime;
use crate::cli::terminal;
use crate::clock::DatabaseClock;
use crate::config::settings::Endpoint;
use crate::delivery::request::preview::PreviewedRequest;
use crate::delivery::request::preview::RequestPreview;
use crate::flow::event::Event;
use crate::flow::exit_status::ExitStatus;
use crate::flow::raw_json::raw_json;
use crate::flow::time::Timestamp;

/// Prints events as JSON lines from a temporary slot, and delivers nothing
#[derive(Args, Debug)]
#[command(
    after_help = "Each line has the event's id, type, table, commit time and body, from now \
                        on.\n\nExamples: walhook tail | jq .body\n          \
                  walhook tail --endpoint crm"
)]
pub(crate) struct Tail {
    /// Shows what this endpoint would get, wherever it was made: its events, by its filters and in
    /// its format, with method, URL and headers; secrets are masked
    #[arg(long, value_name = "NAME")]
    endpoint: Option<String>,
    /// Ends after this many events
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
}

impl Tail {
    /// # Errors
    /// PostgreSQL's refusals, or that the output fails.
    pub(crate) fn run(self, global: &GlobalOptions) -> Result<(), CommandError> {
        let settings = global.settings()?;
        let runtime = runtime()?;
        let only = match &self.endpoint {
            Some(name) => {
                let found = runtime.block_on(tail::endpoint(&settings, name));
                Some(found.map_err(not_found)?)
            }
            None => None,
        };
        let preview = only.as_ref().map(addressed).transpose()?;
        let stop = CancellationToken::new();
        let (clock, times) = (DatabaseClock::default(), DatabaseClock::default());
        let (enough, mut left) = (stop.clone(), self.limit);
        let show = move |event: Arc<Event>| {
            if left == Some(0) {
                return Ok(());
            }
            terminal::line(&line(event, preview.as_ref(), times.now()))?;
            left = left.map(|left| left - 1);
            if left == Some(0) {
                enough.cancel();
            }
            Ok(())
        };
        let tail = async {
            tokio::select! {
                ended = tail::tail(settings, only, clock, stop.clone(), show) => ended,
                stopped = interrupted() => Ok(stopped?),
            }
        };
        runtime.block_on(tail).map_err(CommandError::of_postgres)
    }
}

/// An endpoint, and what its requests would be.
struct AddressedEvent {
    name: Arc<str>,
    /// Without what could be a secret.
    url: String,
    preview: RequestPreview,
}

/// # Errors
/// With exit code 2: its headers or credentials cannot be used.
fn addressed(endpoint: &Endpoint) -> Result<AddressedEvent, CommandError> {
    let preview =
        RequestPreview::new(endpoint).map_err(|error| ExitStatus::Usage.because(error))?;
    Ok(AddressedEvent { name: Arc::clone(&endpoint.name), url: endpoint.shown_url(), preview })
}

fn not_found(error: anyhow::Error) -> CommandError {
    match error.is::<NoEndpoint>() {
        true => ExitStatus::Usage.because(error),
        false => CommandError::of_postgres(error),
    }
}

/// A line as it is printed; its body is as it would be sent.
#[derive(Serialize)]
struct TailLine<'a> {
    id: String,
    r#type: &'a str,
    table: String,
    committed: String,
    #[serde(flatten)]
    request: Option<TailRequest<'a>>,
    body: Option<Box<RawValue>>,
}

#[derive(Serialize)]
struct TailRequest<'a> {
    endpoint: &'a str,
    method: &'static str,
    url: &'a str,
    headers: Map<String, Value>,
    /// Why it would be a dead letter instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
}

fn line(event: Arc<Event>, addressed: Option<&AddressedEvent>, now: Timestamp) -> String {
    let (event_type, table) = (Arc::clone(&event.event_type), event.table.to_string());
    let (id, committed) = (event.id.to_string(), event.committed.iso_millis());
    let (request, body) = match addressed {
        None => (None, raw_json(&event.body.complete(now))),
        Some(AddressedEvent { name, url, preview }) => {
            let PreviewedRequest { headers, body, failure } = preview.of(event, now);
            let headers = headers.by_name();
            let refused = failure.map(|failure| failure.detail);
            let request = TailRequest { endpoint: name, method: "POST", url, headers, refused };
            (Some(request), raw_json(&body))
        }
    };
    terminal::json_line(&TailLine { id, r#type: &event_type, table, committed, request, body })
}
