//! Events, outcomes and settings for this stage's tests.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::config::settings::Batch;
use crate::config::settings::Delays;
use crate::config::settings::Ordering;
use crate::config::settings::Retry;
use crate::flow::body::Body;
use crate::flow::event::Event;
use crate::flow::event::EventId;
use crate::flow::event::Expiry;
use crate::flow::event::Facts;
use crate::flow::event::Origin;
use crate::flow::headers::Headers;
use crate::flow::key::Key;
use crate::flow::key::Keys;
use crate::flow::lsn::Lsn;
use crate::flow::lsn::Position;
use crate::flow::relation::TableName;
use crate::flow::settlement::EndpointIndex;
use crate::flow::time::Timestamp;
use crate::flow::verdict::Exchange;
use crate::flow::verdict::Failure;
use crate::flow::verdict::FailureClass;
use crate::flow::verdict::Reach;
use crate::flow::verdict::Verdict;
use crate::lane::settings::LaneSettings;

/// An endpoint with room and without limits: 4 retries from 1 s, 4 at once, no batches.
pub(super) fn settings() -> LaneSettings {
    let delays = Delays::Exponential { max: 4, interval: Duration::from_secs(1) };
    LaneSettings {
        endpoint: EndpointIndex(0),
        name: Arc::from("crm"),
        retry: Retry { delays, cap: Duration::from_secs(60) },
        concurrency: number(4),
        batch: Batch { size: number(1), linger: Duration::ZERO },
        ordering: Ordering::Key,
        capacity: number(100),
        share_bytes: usize::MAX,
        rate_limit: None,
        parking: None,
    }
}

pub(super) fn number(number: usize) -> NonZeroUsize {
    NonZeroUsize::new(number).expect("tests count from 1")
}

/// The event with this number and key.
pub(super) fn event(sequence: u64, key: u64) -> Arc<Event> {
    event_of(sequence, Keys::one(Key::from_raw(key)), None)
}

/// An event that may be sent until this second of the database's clock.
pub(super) fn event_until(sequence: u64, key: u64, second: u64) -> Arc<Event> {
    let expiry = Expiry { born: Timestamp::from_seconds(0), max_age: Duration::from_secs(second) };
    event_of(sequence, Keys::one(Key::from_raw(key)), Some(expiry))
}

pub(super) fn event_of(sequence: u64, keys: Keys, expiry: Option<Expiry>) -> Arc<Event> {
    let position = Position { commit: Lsn::from_raw(sequence + 1), ordinal: 0 };
    event_at(sequence, position, "order.created", keys, expiry)
}

pub(super) fn event_at(
    sequence: u64,
    position: Position,
    event_type: &str,
    keys: Keys,
    expiry: Option<Expiry>,
) -> Arc<Event> {
    Arc::new(Event {
        id: EventId::new(position, Origin::new(1, event_type)),
        sequence,
        position,
        event_type: Arc::from(event_type),
        table: Arc::new(TableName::new("public", "orders")),
        committed: Timestamp::from_seconds(0),
        keys,
        expiry,
        body: Body::default(),
        facts: Facts::default(),
        write_back: None,
        held: None,
    })
}

pub(super) fn delivered() -> Exchange {
    exchange(Verdict::Delivered, Some(200))
}

pub(super) fn retry(at_least: Option<Duration>) -> Exchange {
    exchange(Verdict::Retry { at_least }, Some(503))
}

/// Of an attempt that does not count.
pub(super) fn unspent(reach: Reach) -> Exchange {
    Exchange { reach, status: None, ..retry(None) }
}

pub(super) fn rejected() -> Exchange {
    exchange(Verdict::Dead, Some(400))
}

pub(super) fn gone() -> Exchange {
    exchange(Verdict::Gone, Some(410))
}

fn exchange(verdict: Verdict, status: Option<u16>) -> Exchange {
    let detail = format!("status {status:?}");
    let failure =
        (verdict != Verdict::Delivered).then_some(Failure { class: FailureClass::Status, detail });
    Exchange {
        verdict,
        reach: Reach::Endpoint,
        failure,
        status,
        took: Duration::from_millis(7),
        request_headers: Headers::default(),
        response_headers: Headers::default(),
        response_body: Bytes::new(),
    }
}
