//! Whether the broker of `[relay]` can carry events, for `walhook check`.

use std::error::Error;

use crate::config::configuration::Settings;
use crate::config::settings::RelaySettings;
use crate::flow::partition::PartitionNumber;
use crate::relay::broker::shown;
use crate::relay::error::RelayError;
use crate::relay::inspection::BrokerFacts;
use crate::relay::inspection::inspect;
use crate::relay::streams::StreamName;
use crate::replication::catalog::CheckFinding;
use crate::replication::catalog::FindingLevel;

/// The largest message that walhook sends, with its headers.
const MESSAGE_BYTES: usize = 640 * 1024;

/// What is found; nothing where there is no `[relay]`.
pub(crate) async fn findings(settings: &Settings) -> Vec<CheckFinding> {
    let Some(relay) = &settings.relay else { return Vec::new() };
    let source = &settings.postgres.slot;
    match inspect(relay, source).await {
        Ok(facts) => of_facts(&facts, relay, source),
        Err(error) => {
            vec![problem(chain(&error), String::from("docs/scale.md says what it has to be"))]
        }
    }
}

fn of_facts(facts: &BrokerFacts, relay: &RelaySettings, source: &str) -> Vec<CheckFinding> {
    let BrokerFacts { version, message_bytes_max, streams, others, refusal, .. } = facts;
    let mut findings = Vec::new();
    let place = shown(relay);
    findings.push(CheckFinding::ok(format!("relay: NATS {version} at {place} has JetStream")));
    if *message_bytes_max < MESSAGE_BYTES {
        let what = format!("relay: the broker takes messages of {message_bytes_max} bytes only");
        let fix = "set `max_payload: 1MB` in its configuration, which is its default";
        findings.push(problem(what, fix.to_owned()));
    }
    let wanted = usize::from(relay.partitions.get());
    let needed = facts.storage_needed;
    if let Some(left) = facts.storage_left.filter(|left| *left < needed) {
        let what = format!(
            "relay: the account may store {left} bytes more, and streams of {needed} bytes together are to be \
             made"
        );
        let fix = "raise the account's limit of storage, or lower `stream_size` or `partitions`";
        findings.push(problem(what, fix.to_owned()));
    }
    for (name, what) in others {
        let what = format!("relay: stream {} is another one: {what}", name.stream);
        let fix = format!(
            "if nobody needs it: nats stream rm {0} -f && {1}",
            name.stream,
            name.command(relay)
        );
        findings.push(problem(what, fix));
    }
    match refusal {
        None => {
            let what = format!(
                "relay: streams can be made, written, read and removed; {streams} of {wanted} are there"
            );
            findings.push(CheckFinding::ok(what));
        }
        Some(error @ RelayError::NoRoom { .. }) => {
            let fix = "see \"Set it up\" in docs/scale.md";
            findings.push(problem(format!("relay: {error}"), fix.to_owned()));
        }
        Some(error) => {
            let first = StreamName::of(source, PartitionNumber::new(1));
            let fix = format!(
                "allow walhook to publish to wh.{source}.> and $JS.API.>, and to subscribe to _INBOX.>; \
                 where there is one server only, set `replicas = 1`; walhook makes streams as this does: {}",
                first.command(relay)
            );
            findings.push(problem(format!("relay: {}", chain(error)), fix));
        }
    }
    findings
}

fn problem(what: String, fix: String) -> CheckFinding {
    CheckFinding { level: FindingLevel::Problem, ..CheckFinding::warning(what, fix) }
}

/// The error with its causes, each once.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let said = inner.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = inner.source();
    }
    text
}
