//! Events, outcomes and settings for this stage's tests.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::config::settings::BatchSettings;
use crate::config::settings::KeyOrdering;
use crate::config::settings::RetryDelays;
use crate::config::settings::RetrySettings;
use crate::flow::backlog::BacklogPosition;
use crate::flow::backlog::RefilledRow;
use crate::flow::body::EventBody;
use crate::flow::event::Event;
use crate::flow::event::EventExpiry;
use crate::flow::event::EventFacts;
use crate::flow::event::EventId;
use crate::flow::event::IdOrigin;
use crate::flow::headers::HeaderLines;
use crate::flow::key::EventKeys;
use crate::flow::key::KeyHash;
use crate::flow::lease::Lease;
use crate::flow::lsn::Lsn;
use crate::flow::lsn::Position;
use crate::flow::relation::TableName;
use crate::flow::settlement::EndpointIndex;
use crate::flow::time::Timestamp;
use crate::flow::verdict::AttemptFailure;
use crate::flow::verdict::AttemptReach;
use crate::flow::verdict::AttemptVerdict;
use crate::flow::verdict::FailureClass;
use crate::flow::verdict::HttpExchange;
use crate::lane::services::LaneServices;
use crate::lane::settings::LaneSettings;

/// An endpoint with room and without limits: 4 retries from 1 s, 4 at once, no batches.
pub(super) fn settings() -> LaneSettings {
    let delays = RetryDelays::Exponential { max: 4, interval: Duration::from_secs(1) };
    LaneSettings {
        endpoint: EndpointIndex(0),
        name: Arc::from("crm"),
        retry: RetrySettings { delays, cap: Duration::from_secs(60) },
        concurrency: number(4),
        batch: BatchSettings { size: number(1), linger: Duration::ZERO },
        ordering: KeyOrdering::Key,
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
    event_of(sequence, EventKeys::one(KeyHash::from_raw(key)), None)
}

/// An event that may be sent until this second of the database's clock.
pub(super) fn event_until(sequence: u64, key: u64, second: u64) -> Arc<Event> {
    let expiry =
        EventExpiry { born: Timestamp::from_seconds(0), max_age: Duration::from_secs(second) };
    event_of(sequence, EventKeys::one(KeyHash::from_raw(key)), Some(expiry))
}

pub(super) fn event_of(sequence: u64, keys: EventKeys, expiry: Option<EventExpiry>) -> Arc<Event> {
    let position = Position { commit: Lsn::from_raw(sequence + 1), ordinal: 0 };
    event_at(sequence, position, "order.created", keys, expiry)
}

pub(super) fn event_at(
    sequence: u64,
    position: Position,
    event_type: &str,
    keys: EventKeys,
    expiry: Option<EventExpiry>,
) -> Arc<Event> {
    Arc::new(Event {
        id: EventId::new(position, IdOrigin::new(1, event_type)),
        sequence,
        position,
        event_type: Arc::from(event_type),
        table: Arc::new(TableName::new("public", "orders")),
        committed: Timestamp::from_seconds(0),
        keys,
        expiry,
        body: EventBody::default(),
        facts: EventFacts::default(),
        write_back: None,
        held: None,
    })
}

pub(super) fn delivered() -> HttpExchange {
    exchange(AttemptVerdict::Delivered, Some(200))
}

pub(super) fn retry(at_least: Option<Duration>) -> HttpExchange {
    exchange(AttemptVerdict::Retry { at_least }, Some(503))
}

/// Of an attempt that does not count.
pub(super) fn unspent(reach: AttemptReach) -> HttpExchange {
    HttpExchange { reach, status: None, ..retry(None) }
}

pub(super) fn rejected() -> HttpExchange {
    exchange(AttemptVerdict::Dead, Some(400))
}

pub(super) fn gone() -> HttpExchange {
    exchange(AttemptVerdict::Gone, Some(410))
}

fn exchange(verdict: AttemptVerdict, status: Option<u16>) -> HttpExchange {
    let detail = format!("status {status:?}");
    let failure = (verdict != AttemptVerdict::Delivered)
        .then_some(AttemptFailure { class: FailureClass::Status, detail });
    HttpExchange {
        verdict,
        reach: AttemptReach::Endpoint,
        requests: 1,
        failure,
        status,
        took: Duration::from_millis(7),
        request_headers: HeaderLines::default(),
        response_headers: HeaderLines::default(),
        response_body: Bytes::new(),
    }
}

/// What a lane asks of a test: its requests, and a clock that begins at 0 and goes as the runtime's does.
pub(super) struct SampleServices<A, B = NoBacklog> {
    attempt: A,
    start: Instant,
    may_send: Arc<AtomicBool>,
    backlog: B,
}

/// A backlog of a test.
pub(super) trait SampleBacklog {
    fn page(
        &self,
        after: Option<BacklogPosition>,
        rows: usize,
    ) -> impl Future<Output = Result<Vec<RefilledRow>, &'static str>> + Send;
}

/// Has no rows.
pub(super) struct NoBacklog;

impl SampleBacklog for NoBacklog {
    async fn page(
        &self,
        _after: Option<BacklogPosition>,
        _rows: usize,
    ) -> Result<Vec<RefilledRow>, &'static str> {
        Ok(Vec::new())
    }
}

impl<A> SampleServices<A> {
    pub(super) fn new(attempt: A) -> Self {
        let (start, may_send) = (Instant::now(), Arc::new(AtomicBool::new(true)));
        Self { attempt, start, may_send, backlog: NoBacklog }
    }

    pub(super) fn with_backlog<B>(
        self,
        may_send: Arc<AtomicBool>,
        backlog: B,
    ) -> SampleServices<A, B> {
        SampleServices { attempt: self.attempt, start: self.start, may_send, backlog }
    }
}

impl<A, F, B> LaneServices for SampleServices<A, B>
where
    A: Fn(Lease) -> F,
    F: Future<Output = (Lease, HttpExchange)> + Send,
    B: SampleBacklog,
{
    type BacklogError = &'static str;

    fn attempt(&self, lease: Lease) -> impl Future<Output = (Lease, HttpExchange)> + Send {
        (self.attempt)(lease)
    }

    fn database_now(&self) -> Timestamp {
        Timestamp::from_micros(i64::try_from(self.start.elapsed().as_micros()).unwrap())
    }

    fn may_send(&self) -> bool {
        self.may_send.load(Ordering::Relaxed)
    }

    fn read_backlog(
        &self,
        after: Option<BacklogPosition>,
        rows: usize,
    ) -> impl Future<Output = Result<Vec<RefilledRow>, &'static str>> + Send {
        self.backlog.page(after, rows)
    }
}
