//! The log line of each final outcome: delivered, dead, expired.
//!
//! Facts of the row that `ocr-wallet` asks for (`id`, `wallet_code`, `create_time`) are fields where
//! the event has them; nothing else of the row, no body and no secret is logged.

use crate::config::settings::LoggedOutcomes;
use crate::flow::dead_letter_reason::DeathReason;
use crate::flow::event::EventFacts;
use crate::flow::event::EventId;
use crate::flow::settlement::DeliveryOutcome;
use crate::flow::settlement::Settlement;
use crate::flow::time::whole_millis;

/// An endpoint that is down lets events expire: said once a minute, whatever `outcomes` says.
pub(crate) fn expired_in_outage(endpoint: &str, url: &str, events: u64) {
    tracing::warn!(
        endpoint,
        url,
        events,
        "events expire while the endpoint does not take them: they will not be sent, and count as \
         failures"
    );
}

/// `endpoint` is its name, `url` its URL as it may be shown.
pub(crate) fn settled(
    endpoint: &str,
    url: &str,
    settlement: &Settlement,
    outcomes: LoggedOutcomes,
) {
    let event = &settlement.event;
    match &settlement.outcome {
        DeliveryOutcome::Delivered { .. } if outcomes == LoggedOutcomes::Failures => {}
        DeliveryOutcome::Delivered { status, took } => tracing::info!(
            id = event.facts.find("id"),
            wallet_code = event.facts.find("wallet_code"),
            event = &*event.event_type,
            event_id = %event.id,
            endpoint,
            status,
            attempts = settlement.attempts,
            duration_ms = whole_millis(*took),
            "pushed"
        ),
        DeliveryOutcome::Dead { reason } => given_up(endpoint, url, settlement, reason),
        DeliveryOutcome::Expired => expired(endpoint, &event.event_type, event.id, &event.facts),
        DeliveryOutcome::Filtered => {}
        DeliveryOutcome::Parked { next_attempt, reason } => tracing::debug!(
            event = &*event.event_type,
            event_id = %event.id,
            endpoint,
            reason = reason.as_str(),
            next_attempt = next_attempt.map(|at| at.iso_millis()),
            attempts = settlement.attempts,
            "parked"
        ),
    }
}

fn given_up(endpoint: &str, url: &str, settlement: &Settlement, reason: &DeathReason) {
    let event = &settlement.event;
    tracing::warn!(
        id = event.facts.find("id"),
        wallet_code = event.facts.find("wallet_code"),
        event = &*event.event_type,
        event_id = %event.id,
        endpoint,
        url,
        attempts = settlement.attempts,
        reason = %reason,
        "given up"
    );
}

/// An event was too old, when it was read or when it was to be sent.
pub(crate) fn expired(endpoint: &str, event_type: &str, id: EventId, facts: &EventFacts) {
    tracing::debug!(
        id = facts.find("id"),
        wallet_code = facts.find("wallet_code"),
        create_time = facts.find("create_time"),
        event = event_type,
        event_id = %id,
        endpoint,
        "skipped as expired"
    );
}
