//! The handles by which stages change what is counted of tables, events and endpoints.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use prometheus::IntCounter;

use crate::flow::verdict::FailureClass;
use crate::telemetry::metrics::plain_numbers::PlainCounter;
use crate::telemetry::metrics::plain_numbers::PlainGauge;
use crate::telemetry::metrics::plain_numbers::PlainHistogram;
use crate::telemetry::metrics::plain_numbers::PlainSeconds;

/// What was read from one table.
#[derive(Clone, Debug)]
pub(crate) struct TableMetrics {
    pub captured: IntCounter,
}

/// What became of the deliveries of one table to one endpoint; see `store::books`. Not counters: a
/// dead letter that is sent again is dead no more.
#[derive(Debug, Default)]
pub(crate) struct BalanceMetrics {
    pub captured: PlainGauge,
    pub delivered: PlainGauge,
    pub filtered: PlainGauge,
    pub expired: PlainGauge,
    pub dead: PlainGauge,
    pub pending: PlainGauge,
}

impl BalanceMetrics {
    /// The values of label `entry`.
    pub(super) const ENTRIES: [&str; 6] =
        ["captured", "delivered", "filtered", "expired", "dead", "pending"];

    /// In the order of [`BalanceMetrics::ENTRIES`].
    pub(super) fn values(&self) -> [i64; 6] {
        let Self { captured, delivered, filtered, expired, dead, pending } = self;
        [captured, delivered, filtered, expired, dead, pending].map(PlainGauge::get)
    }
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
#[derive(Debug, Default)]
pub(crate) struct EndpointMetrics {
    pub delivered: PlainCounter,
    pub expired: PlainCounter,
    pub dead: PlainCounter,
    pub filtered: PlainCounter,
    pub pending_memory: PlainGauge,
    pub pending_backlog: PlainGauge,
    pub retries: PlainCounter,
    /// Each of them is pending once more, and has one more of those outcomes.
    pub replays: PlainCounter,
    pub breaker_open: PlainGauge,
    pub paused: PlainGauge,
    pub dead_letters: PlainGauge,
    /// In seconds, as the next two.
    pub commit_to_delivery: PlainHistogram,
    pub queue: PlainHistogram,
    pub oldest_pending: PlainSeconds,
    pub(super) attempts: AttemptMetrics,
    pub(super) attempt_duration: PlainHistogram,
    /// By table.
    balances: Mutex<BTreeMap<Arc<str>, Arc<BalanceMetrics>>>,
}

impl EndpointMetrics {
    /// Books one request: what it came to (`None`: delivered) and how long it took.
    pub(crate) fn attempted(&self, failure: Option<FailureClass>, took: Duration) {
        self.attempts.of(failure).inc();
        self.attempt_duration.observe(took.as_secs_f64());
    }

    /// The books of a table, made if there are none yet.
    pub(super) fn balance(&self, table: Arc<str>) -> Arc<BalanceMetrics> {
        Arc::clone(self.balances().entry(table).or_default())
    }

    pub(super) fn balances(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Arc<BalanceMetrics>>> {
        self.balances.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One counter for each thing that a request can come to.
#[derive(Debug, Default)]
pub(super) struct AttemptMetrics {
    delivered: PlainCounter,
    status: PlainCounter,
    timeout: PlainCounter,
    dns: PlainCounter,
    connect: PlainCounter,
    tls: PlainCounter,
    protocol: PlainCounter,
    refused: PlainCounter,
    request: PlainCounter,
    local: PlainCounter,
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

    /// In the order of [`AttemptMetrics::RESULTS`].
    pub(super) fn values(&self) -> [u64; 10] {
        [
            &self.delivered,
            &self.status,
            &self.timeout,
            &self.dns,
            &self.connect,
            &self.tls,
            &self.protocol,
            &self.refused,
            &self.request,
            &self.local,
        ]
        .map(PlainCounter::get)
    }

    /// Requests that were not delivered.
    pub(super) fn failed(&self) -> u64 {
        let [_delivered, failed @ ..] = self.values();
        failed.into_iter().sum()
    }

    pub(super) fn of(&self, failure: Option<FailureClass>) -> &PlainCounter {
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
