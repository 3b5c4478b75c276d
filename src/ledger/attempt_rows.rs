//! The rows of the push log that an attempt makes, as far as it keeps them.
//!
//! Pure. A request has a row for each of its events, as far as there is something to say of each: its
//! body, or that it failed. Otherwise the events of one kind share a row.

use std::sync::Arc;

use bytes::Bytes;
use bytes::BytesMut;

use crate::config::settings::PushLogSettings;
use crate::flow::body::BodyPart;
use crate::flow::body::EventBody;
use crate::flow::event::Event;
use crate::flow::settlement;
use crate::flow::time::Timestamp;
use crate::flow::verdict::AttemptVerdict;
use crate::store::flush::StateFlush;
use crate::store::push_log::AttemptOutcome;
use crate::store::push_log::LoggedAttempt;
use crate::store::push_log::LoggedBatch;

/// Fewer events than this have a row each: a search by event or key finds these by an index, but has
/// to look through all the rows that are shared.
const SHARED_MIN: usize = 10;

/// Adds the rows of `attempt` to `flush`, with as much of its bodies as `log` wants kept.
pub(crate) fn add(
    flush: &mut StateFlush,
    endpoint: &Arc<str>,
    log: &PushLogSettings,
    attempt: settlement::DeliveryAttempt,
) {
    if !log.attempts.keep(&attempt.exchange.verdict) {
        return;
    }
    let outcome = match (&attempt.exchange.verdict, attempt.retry_in) {
        (AttemptVerdict::Delivered, _) => AttemptOutcome::Delivered,
        (_, Some(_)) => AttemptOutcome::Retry,
        (_, None) => AttemptOutcome::Dead,
    };
    let keep = log.bodies.are_kept_of(&attempt.exchange.verdict);
    let micros = i64::try_from(attempt.exchange.took.as_micros()).unwrap_or(i64::MAX);
    let created_at = attempt.finished.shifted(-micros);
    let response = &attempt.exchange.response_body;
    let response_body = keep.then(|| response.slice(..response.len().min(log.body_limit)));
    let exchange = Arc::new(attempt.exchange);
    let (retry_count, replay) = (attempt.lease.attempt.saturating_sub(1), attempt.lease.replay);
    let (shared, alone) = match outcome {
        AttemptOutcome::Delivered if !keep => by_kind(attempt.lease.events),
        _ => (Vec::new(), attempt.lease.events),
    };
    let batch = |events| LoggedBatch {
        created_at,
        events,
        endpoint: Arc::clone(endpoint),
        retry_count,
        exchange: Arc::clone(&exchange),
        replay,
    };
    let event = |event: Arc<Event>| {
        let request = keep.then(|| beginning(&event.body, created_at, log.body_limit));
        let body_whole = request.as_ref().is_some_and(|(_, is_whole)| *is_whole);
        LoggedAttempt {
            created_at,
            endpoint: Arc::clone(endpoint),
            retry_count,
            outcome,
            exchange: Arc::clone(&exchange),
            request_body: request.map(|(beginning, _)| beginning),
            body_whole,
            response_body: response_body.clone(),
            replay,
            event,
        }
    };
    flush.batches.extend(shared.into_iter().map(batch));
    flush.attempts.extend(alone.into_iter().map(event));
}

/// Events of one type and table together, each in its place, if there are enough of them for a row
/// of their own; and the rest.
fn by_kind(events: Vec<Arc<Event>>) -> (Vec<Vec<Arc<Event>>>, Vec<Arc<Event>>) {
    if events.len() < SHARED_MIN {
        return (Vec::new(), events);
    }
    let is_alike = |a: &Event, b: &Event| a.event_type == b.event_type && a.table == b.table;
    let mut kinds: Vec<Vec<Arc<Event>>> = Vec::new();
    for event in events {
        let is_same =
            |kind: &&mut Vec<Arc<Event>>| kind.first().is_some_and(|first| is_alike(first, &event));
        // The one before is mostly of the same kind.
        match kinds.iter_mut().rev().find(is_same) {
            Some(kind) => kind.push(event),
            None => kinds.push(vec![event]),
        }
    }
    let (many, few): (Vec<_>, Vec<_>) =
        kinds.into_iter().partition(|kind| kind.len() >= SHARED_MIN);
    (many, few.into_iter().flatten().collect())
}

/// The first bytes of a body as it was at `at`, and whether that is all of it.
fn beginning(body: &EventBody, at: Timestamp, limit: usize) -> (Bytes, bool) {
    if let [BodyPart::Bytes(all)] = body.parts() {
        return (all.slice(..all.len().min(limit)), all.len() <= limit);
    }
    let mut kept = BytesMut::new();
    for chunk in body.chunks(at) {
        let room = limit - kept.len();
        if let Some(cut) = chunk.get(..room).filter(|cut| cut.len() < chunk.len()) {
            kept.extend_from_slice(cut);
            return (kept.freeze(), false);
        }
        kept.extend_from_slice(&chunk);
    }
    (kept.freeze(), true)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::settings::LoggedAttempts;
    use crate::config::settings::LoggedBodies;
    use crate::flow::event::EventFacts;
    use crate::flow::event::EventId;
    use crate::flow::event::IdOrigin;
    use crate::flow::headers::HeaderLines;
    use crate::flow::key::EventKeys;
    use crate::flow::lease::Lease;
    use crate::flow::lease::LeaseId;
    use crate::flow::lsn::Lsn;
    use crate::flow::lsn::Position;
    use crate::flow::relation::TableName;
    use crate::flow::settlement::EndpointIndex;
    use crate::flow::verdict::AttemptReach;
    use crate::flow::verdict::HttpExchange;

    fn event(ordinal: u32, event_type: &str, table: &str) -> Arc<Event> {
        let position = Position { commit: Lsn::from_raw(1), ordinal };
        Arc::new(Event {
            id: EventId::new(position, IdOrigin::new(1, event_type)),
            sequence: 0,
            position,
            event_type: event_type.into(),
            table: Arc::new(TableName::new("public", table)),
            committed: Timestamp::default(),
            keys: EventKeys::NONE,
            expiry: None,
            body: EventBody::new(vec![BodyPart::Bytes(Bytes::from_static(b"body"))]),
            facts: EventFacts::default(),
            write_back: None,
            held: None,
        })
    }

    fn attempt(events: Vec<Arc<Event>>, verdict: AttemptVerdict) -> settlement::DeliveryAttempt {
        let exchange = HttpExchange {
            verdict,
            reach: AttemptReach::Endpoint,
            requests: 1,
            failure: None,
            status: Some(200),
            took: Duration::from_micros(250),
            request_headers: HeaderLines::default(),
            response_headers: HeaderLines::default(),
            response_body: Bytes::from_static(b"answer"),
        };
        settlement::DeliveryAttempt {
            endpoint: EndpointIndex(0),
            lease: Lease { id: LeaseId(1), attempt: 3, replay: true, events },
            exchange,
            finished: Timestamp::from_micros(1_000),
            retry_in: None,
        }
    }

    fn log(bodies: LoggedBodies) -> PushLogSettings {
        PushLogSettings { attempts: LoggedAttempts::All, bodies, body_limit: 3, retention_days: 7 }
    }

    fn rows(bodies: LoggedBodies, attempt: settlement::DeliveryAttempt) -> StateFlush {
        let mut flush = StateFlush::default();
        add(&mut flush, &"crm".into(), &log(bodies), attempt);
        flush
    }

    fn many(count: usize) -> Vec<Arc<Event>> {
        (0..).take(count).map(|ordinal| event(ordinal, "a", "t")).collect()
    }

    #[test]
    fn events_share_a_row_where_nothing_is_to_be_said_of_each() {
        let all = SHARED_MIN;
        let (delivered, failed) = (AttemptVerdict::Delivered, AttemptVerdict::Dead);
        let cases = [
            ("a batch", all, delivered.clone(), LoggedBodies::Failures, (0, 1)),
            ("no bodies at all", all, delivered.clone(), LoggedBodies::None, (0, 1)),
            ("too few", all - 1, delivered.clone(), LoggedBodies::Failures, (9, 0)),
            ("one", 1, delivered.clone(), LoggedBodies::None, (1, 0)),
            ("bodies are kept", all, delivered, LoggedBodies::All, (10, 0)),
            ("failed", all, failed.clone(), LoggedBodies::Failures, (10, 0)),
            ("failed, no bodies", all, failed, LoggedBodies::None, (10, 0)),
        ];
        for (name, count, verdict, bodies, expected) in cases {
            let rows = rows(bodies, attempt(many(count), verdict));
            assert_eq!((rows.attempts.len(), rows.batches.len()), expected, "case: {name}");
            let has_body = rows.attempts.iter().all(|row| row.request_body.is_some());
            let keeps =
                bodies == LoggedBodies::All || bodies == LoggedBodies::Failures && name == "failed";
            assert_eq!(has_body && !rows.attempts.is_empty(), keeps, "case: {name}");
        }
    }

    #[test]
    fn attempts_that_are_not_to_be_kept_have_no_row() {
        let (all, failures, off) =
            (LoggedAttempts::All, LoggedAttempts::Failures, LoggedAttempts::Off);
        let cases = [
            (all, AttemptVerdict::Delivered, 1),
            (all, AttemptVerdict::Dead, 1),
            (failures, AttemptVerdict::Delivered, 0),
            (failures, AttemptVerdict::Dead, 1),
            (off, AttemptVerdict::Delivered, 0),
            (off, AttemptVerdict::Dead, 0),
        ];
        for (attempts, verdict, expected) in cases {
            let log = PushLogSettings { attempts, ..log(LoggedBodies::Failures) };
            for events in [1, 2 * SHARED_MIN] {
                let mut flush = StateFlush::default();
                add(&mut flush, &"crm".into(), &log, attempt(many(events), verdict.clone()));
                let rows = flush.attempts.len() + flush.batches.len();
                assert_eq!(rows > 0, expected > 0, "case: {attempts:?}, {verdict:?}, {events}");
            }
        }
    }

    #[test]
    fn a_shared_row_is_of_one_type_and_table_and_loses_nothing() {
        // Three kinds in turn; of the last there are too few.
        let kind = |n: u32| match n {
            n if n % 10 == 9 => ("a", "u"),
            n if n % 2 == 0 => ("a", "t"),
            _ => ("b", "t"),
        };
        let events: Vec<_> = (0..40).map(|n| event(n, kind(n).0, kind(n).1)).collect();
        let found = rows(LoggedBodies::Failures, attempt(events, AttemptVerdict::Delivered));
        let ordinals = |events: &[Arc<Event>]| -> Vec<u32> {
            events.iter().map(|event| event.position.ordinal).collect()
        };
        let of = |wanted| (0..40).filter(|&n| kind(n) == wanted).collect::<Vec<u32>>();
        let [first, second] = found.batches.as_slice() else { panic!("{found:?}") };
        assert_eq!(ordinals(&first.events), of(("a", "t")));
        assert_eq!(ordinals(&second.events), of(("b", "t")));
        let alone: Vec<_> = found.attempts.iter().map(|row| Arc::clone(&row.event)).collect();
        assert_eq!(ordinals(&alone), of(("a", "u")));
        for batch in &found.batches {
            assert_eq!((batch.created_at, batch.retry_count), (Timestamp::from_micros(750), 2));
            assert!(batch.replay && batch.exchange.status == Some(200));
        }
    }
}
