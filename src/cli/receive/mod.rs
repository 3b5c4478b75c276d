//! `walhook receive`: a receiver for trying things out.
//!
//! ```text
//! walhook run ─ POST ─▶ server ─ Received ─▶ [receive] ─ lines ─▶ terminal
//! ```

pub(crate) mod server;
pub(crate) mod show;
pub(crate) mod signature;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use http::StatusCode;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::cli::exit::CommandError;
use crate::cli::interrupted;
use crate::cli::receive::server::RECEIVED_MAX;
use crate::cli::receive::server::ReceivedRequest;
use crate::cli::receive::server::ReceiverBehaviour;
use crate::cli::receive::server::ReceiverServer;
use crate::cli::receive::show::RepeatCounter;
use crate::cli::receive::signature::SignatureVerdict;
use crate::cli::receive::signature::VerificationKey;
use crate::cli::runtime;
use crate::cli::terminal;
use crate::cli::terminal::Colours;
use crate::clock::host_now;

/// The longest answer delay: beyond it no sender is still there.
const DELAY_MAX: Duration = Duration::from_secs(3600);

/// A receiver for trying things out: prints requests, checks signatures, answers as told
#[derive(Args, Debug)]
#[command(after_help = "Example: walhook receive --secret whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX \
                        --status 503 --delay 200ms")]
pub(crate) struct Receive {
    /// Where to listen; port 0 takes any free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9999")]
    listen: SocketAddr,
    /// The status to answer with, 200 to 599
    #[arg(long, value_name = "CODE", default_value = "200", value_parser = parse_status)]
    status: StatusCode,
    /// How long to wait before answering, like 50ms or 2s
    #[arg(long, value_name = "TIME", default_value = "0ms", value_parser = parse_delay)]
    delay: Duration,
    /// Checks Standard Webhooks signatures with this secret, or with the public key (whpk_) of one;
    /// may be given several times
    #[arg(long = "secret", value_name = "SECRET", value_parser = VerificationKey::parse)]
    secrets: Vec<VerificationKey>,
    /// One line per request, without its body
    #[arg(long)]
    quiet: bool,
    /// One JSON object per request
    #[arg(long)]
    json: bool,
}

impl Receive {
    /// Receives until Ctrl-C.
    ///
    /// # Errors
    /// If the address cannot be had or the output fails.
    pub(crate) fn run(self) -> Result<(), CommandError> {
        runtime()?.block_on(self.receive())
    }

    async fn receive(self) -> Result<(), CommandError> {
        let listen = self.listen;
        let server = ReceiverServer::bind(listen).with_context(|| {
            format!("cannot listen on {listen}: choose another address with --listen")
        })?;
        terminal::note(&self.greeting(server.address()))?;
        let behaviour = ReceiverBehaviour {
            status: self.status,
            delay: self.delay,
            keys: self.secrets.clone(),
            clock: host_now,
        };
        let (to, received) = mpsc::channel(RECEIVED_MAX);
        let mut totals = ReceiveTotals::default();
        tokio::select! {
            served = server.serve(behaviour, to, CancellationToken::new()) => served?,
            shown = self.show_all(received, &mut totals) => shown?,
            stopped = interrupted() => stopped?,
        }
        terminal::note(&totals.to_string())?;
        Ok(())
    }

    fn greeting(&self, address: SocketAddr) -> String {
        let checks = match self.secrets.len() {
            0 => "signatures are not checked (give --secret)",
            _ => "signatures are checked",
        };
        let status = self.status.as_u16();
        let after =
            if self.delay.is_zero() { String::new() } else { format!(" after {:?}", self.delay) };
        format!("receiving on http://{address}/, answering {status}{after}; {checks}; Ctrl-C ends")
    }

    async fn show_all(
        &self,
        mut received: mpsc::Receiver<ReceivedRequest>,
        totals: &mut ReceiveTotals,
    ) -> std::io::Result<()> {
        let colours = Colours::detect();
        let mut repeats = RepeatCounter::default();
        while let Some(one) = received.recv().await {
            let times = one.id().map_or(1, |id| repeats.count(&one.path, id));
            totals.add(&one, times);
            if self.json {
                terminal::line(&terminal::json_line(&show::json(&one, times)))?;
                continue;
            }
            terminal::line(&show::headline(&one, times, colours))?;
            if !self.quiet {
                for line in show::body_lines(&one) {
                    terminal::line(&line)?;
                }
            }
        }
        Ok(())
    }
}

/// What came in all.
#[derive(Debug, Default)]
struct ReceiveTotals {
    requests: u64,
    repeats: u64,
    refused: u64,
}

impl ReceiveTotals {
    fn add(&mut self, received: &ReceivedRequest, times: u32) {
        self.requests += 1;
        self.repeats += u64::from(times > 1);
        let refused =
            matches!(received.signature, SignatureVerdict::Missing | SignatureVerdict::Wrong(_));
        self.refused += u64::from(refused);
    }
}

impl std::fmt::Display for ReceiveTotals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { requests, repeats, refused } = self;
        write!(f, "{requests} requests, {repeats} repeats, {refused} without a valid signature")
    }
}

fn parse_status(text: &str) -> Result<StatusCode, String> {
    text.parse::<u16>()
        .ok()
        .filter(|code| (200..=599).contains(code))
        .and_then(|code| StatusCode::from_u16(code).ok())
        .ok_or_else(|| "give a status from 200 to 599".to_owned())
}

fn parse_delay(text: &str) -> Result<Duration, String> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(unit_at);
    let unit = match unit {
        "ms" => Some(Duration::from_millis(1)),
        "s" => Some(Duration::from_secs(1)),
        "m" => Some(Duration::from_secs(60)),
        _ => None,
    };
    digits
        .parse::<u32>()
        .ok()
        .zip(unit)
        .and_then(|(count, unit)| unit.checked_mul(count))
        .filter(|delay| *delay <= DELAY_MAX)
        .ok_or_else(|| "give a time like 50ms, 2s or 1m, up to an hour".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_have_a_number_and_a_unit() {
        let millis = |text| parse_delay(text).ok().map(|delay| delay.as_millis());
        let cases = [
            ("50ms", Some(50)),
            ("2s", Some(2000)),
            ("60m", Some(3_600_000)),
            ("61m", None),
            ("5", None),
            ("ms", None),
            ("-1s", None),
            ("1h", None),
            ("4294967295m", None),
        ];
        for (text, expected) in cases {
            assert_eq!(millis(text), expected, "case: {text}");
        }
    }

    #[test]
    fn statuses_are_those_that_end_a_request() {
        for (text, good) in [("200", true), ("599", true), ("101", false), ("600", false)] {
            assert_eq!(parse_status(text).is_ok(), good, "case: {text}");
        }
    }
}
