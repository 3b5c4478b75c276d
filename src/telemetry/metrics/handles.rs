//! The handles by which stages change what is counted of tables, events and endpoints.

use std::time::Duration;

use prometheus::Gauge;
use prometheus::Histogram;
use prometheus::IntCounter;
use prometheus::IntCounterVec;
use prometheus::IntGauge;

use crate::flow::verdict::FailureClass;

/// What was read from one table.
#[derive(Clone, Debug)]
pub(crate) struct TableMetrics {
    pub captured: IntCounter,
}

/// What became of the deliveries of one table to one endpoint; see `store::books`. Not counters: a
/// dead letter that is sent again is dead no more.
#[derive(Clone, Debug)]
pub(crate) struct BalanceMetrics {
    pub captured: IntGauge,
    pub delivered: IntGauge,
    pub filtered: IntGauge,
    pub expired: IntGauge,
    pub dead: IntGauge,
    pub pending: IntGauge,
}

/// What became of the changes that one `[[event]]` is about.
#[derive(Clone, Debug)]
pub(crate) struct EventMetrics {
    pub raised: IntCounter,
    pub filtered: IntCounter,
    /// A part of `filtered`.
    pub repeated: IntCounter,
}

/// What became of the write-backs of one `[[event]]`.
#[derive(Clone, Debug)]
pub(crate) struct WriteBackMetrics {
    pub(super) delivered: IntCounter,
    pub(super) failed: IntCounter,
    pub(super) unchanged: IntCounter,
    pub errors: IntCounter,
}

impl WriteBackMetrics {
    /// Books one write-back that changed so many rows.
    pub(crate) fn wrote(&self, delivered: bool, rows: u64) {
        match (rows, delivered) {
            (0, _) => self.unchanged.inc(),
            (_, true) => self.delivered.inc(),
            (_, false) => self.failed.inc(),
        }
    }
}

/// One endpoint. `delivered`, `expired`, `dead` and `filtered` count final outcomes, an event each.
#[derive(Clone, Debug)]
pub(crate) struct EndpointMetrics {
    pub delivered: IntCounter,
    pub expired: IntCounter,
    pub dead: IntCounter,
    pub filtered: IntCounter,
    pub pending_memory: IntGauge,
    pub pending_backlog: IntGauge,
    pub retries: IntCounter,
    /// Each of them is pending once more, and has one more of those outcomes.
    pub replays: IntCounter,
    pub breaker_open: IntGauge,
    pub paused: IntGauge,
    pub dead_letters: IntGauge,
    /// In seconds, as the next two.
    pub commit_to_delivery: Histogram,
    pub queue: Histogram,
    pub oldest_pending: Gauge,
    pub(super) attempts: AttemptMetrics,
    pub(super) attempt_duration: Histogram,
}

impl EndpointMetrics {
    /// Books one request: what it came to (`None`: delivered) and how long it took.
    pub(crate) fn attempted(&self, failure: Option<FailureClass>, took: Duration) {
        self.attempts.of(failure).inc();
        self.attempt_duration.observe(took.as_secs_f64());
    }
}

/// One counter for each thing that a request can come to.
#[derive(Clone, Debug)]
pub(super) struct AttemptMetrics {
    pub(super) delivered: IntCounter,
    pub(super) status: IntCounter,
    pub(super) timeout: IntCounter,
    pub(super) dns: IntCounter,
    pub(super) connect: IntCounter,
    pub(super) tls: IntCounter,
    pub(super) protocol: IntCounter,
    pub(super) refused: IntCounter,
    pub(super) request: IntCounter,
    pub(super) local: IntCounter,
}

impl AttemptMetrics {
    /// The values of label `result`.
    pub(super) const RESULTS: [&str; 10] = [
        "delivered",
        "status",
        "timeout",
        "dns",
        "connect",
        "tls",
        "protocol",
        "refused",
        "request",
        "local",
    ];

    pub(super) fn new(attempts: &IntCounterVec, endpoint: &str) -> Self {
        let failed = |class: FailureClass| attempts.with_label_values(&[endpoint, class.as_str()]);
        Self {
            delivered: attempts.with_label_values(&[endpoint, "delivered"]),
            status: failed(FailureClass::Status),
            timeout: failed(FailureClass::Timeout),
            dns: failed(FailureClass::Dns),
            connect: failed(FailureClass::Connect),
            tls: failed(FailureClass::Tls),
            protocol: failed(FailureClass::Protocol),
            refused: failed(FailureClass::Refused),
            request: failed(FailureClass::Request),
            local: failed(FailureClass::Local),
        }
    }

    /// All requests, whatever they came to.
    pub(super) fn all(&self) -> u64 {
        let failed = [
            &self.status,
            &self.timeout,
            &self.dns,
            &self.connect,
            &self.tls,
            &self.protocol,
            &self.refused,
            &self.request,
            &self.local,
        ];
        self.delivered.get() + failed.into_iter().map(IntCounter::get).sum::<u64>()
    }

    pub(super) fn of(&self, failure: Option<FailureClass>) -> &IntCounter {
        match failure {
            None => &self.delivered,
            Some(FailureClass::Status) => &self.status,
            Some(FailureClass::Timeout) => &self.timeout,
            Some(FailureClass::Dns) => &self.dns,
            Some(FailureClass::Connect) => &self.connect,
            Some(FailureClass::Tls) => &self.tls,
            Some(FailureClass::Protocol) => &self.protocol,
            Some(FailureClass::Refused) => &self.refused,
            Some(FailureClass::Request) => &self.request,
            Some(FailureClass::Local) => &self.local,
        }
    }
}
