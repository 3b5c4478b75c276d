//! Every metric's name, help and labels.
//!
//! ```text
//! stages ─ handles, resolved once ─▶ [registry] ─ Prometheus text ─▶ api (/metrics)
//! ```
//!
//! There are no globals: who builds the stages makes one [`Metrics`] and hands out handles. Label
//! values are tables, event types and endpoints of the configuration, never keys or ids of rows, and
//! every series is there from the start with 0, so that `rate()` sees the first event.

use std::sync::Arc;
use std::time::Duration;

use prometheus::Gauge;
use prometheus::Histogram;
use prometheus::HistogramOpts;
use prometheus::HistogramVec;
use prometheus::IntCounter;
use prometheus::IntCounterVec;
use prometheus::IntGauge;
use prometheus::IntGaugeVec;
use prometheus::Opts;
use prometheus::Registry;
use prometheus::TextEncoder;
use prometheus::core::Collector;

use crate::flow::lsn::Lsn;
use crate::flow::relation::TableName;
use crate::flow::verdict::FailureClass;

/// The content type of [`Metrics::render`]'s text.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// One metric.
struct Spec {
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
}

const EVENTS_CAPTURED: Spec = Spec {
    name: "walhook_events_captured_total",
    help: "Committed row changes that were read from the table.",
    labels: &["table"],
};
const EVENTS_FILTERED: Spec = Spec {
    name: "walhook_events_filtered_total",
    help: "Changes that did not become this event because its filter refused them.",
    labels: &["event"],
};
const EVENTS_REPEATED: Spec = Spec {
    name: "walhook_events_repeated_total",
    help: "Changes that did not become this event because their values were pushed before.",
    labels: &["event"],
};
const EVENTS: Spec = Spec {
    name: "walhook_events_total",
    help: "Events that were raised, before they go to endpoints.",
    labels: &["event"],
};
const DELIVERIES: Spec = Spec {
    name: "walhook_deliveries_total",
    help: "Events whose outcome at the endpoint is final, by outcome.",
    labels: &["endpoint", "outcome"],
};
const DELIVERIES_PENDING: Spec = Spec {
    name: "walhook_deliveries_pending",
    help: "Events whose outcome at the endpoint is still open, by where they wait.",
    labels: &["endpoint", "where"],
};
const BALANCE: Spec = Spec {
    name: "walhook_balance",
    help: "The books since the slot began: captured = delivered + filtered + expired + dead + pending.",
    labels: &["endpoint", "table", "entry"],
};
const ATTEMPTS: Spec = Spec {
    name: "walhook_attempts_total",
    help: "Requests that were sent or tried: delivered, or the class of the failure.",
    labels: &["endpoint", "result"],
};
const ATTEMPT_DURATION: Spec = Spec {
    name: "walhook_attempt_duration_seconds",
    help: "From the start of a request to the last byte of its response.",
    labels: &["endpoint"],
};
const COMMIT_TO_DELIVERY: Spec = Spec {
    name: "walhook_commit_to_delivery_seconds",
    help: "From the commit in PostgreSQL to the response that accepted the event.",
    labels: &["endpoint"],
};
const RETRIES: Spec = Spec {
    name: "walhook_retries_total",
    help: "Requests that were not the first one for their events.",
    labels: &["endpoint"],
};
const REPLAYS: Spec = Spec {
    name: "walhook_replays_total",
    help: "Deliveries that an operator sent again: each has one more outcome.",
    labels: &["endpoint"],
};
const BREAKER_OPEN: Spec = Spec {
    name: "walhook_breaker_open",
    help: "1 while the endpoint's circuit breaker is open or probing, else 0.",
    labels: &["endpoint"],
};
const DEAD_LETTERS: Spec = Spec {
    name: "walhook_dead_letters",
    help: "Deliveries that were given up and are kept: those at the start, and those since.",
    labels: &["endpoint"],
};
const WRITE_BACKS: Spec = Spec {
    name: "walhook_write_backs_total",
    help: "Outcomes that were written into the event's row, or found it changed, by outcome.",
    labels: &["event", "outcome"],
};
const WRITE_BACK_ERRORS: Spec = Spec {
    name: "walhook_write_back_errors_total",
    help: "Tries to write an outcome back that PostgreSQL refused.",
    labels: &["event"],
};
const LEDGER_FLUSH: Spec = Spec {
    name: "walhook_ledger_flush_seconds",
    help: "Time to commit a group of outcomes to the state.",
    labels: &[],
};
const REPLICATION_CONNECTED: Spec = Spec {
    name: "walhook_replication_connected",
    help: "1 while the replication stream is connected, else 0.",
    labels: &[],
};
const REPLICATION_LAG_BYTES: Spec = Spec {
    name: "walhook_replication_lag_bytes",
    help: "WAL between the server's end and the confirmed position.",
    labels: &[],
};
const REPLICATION_LAG_SECONDS: Spec = Spec {
    name: "walhook_replication_lag_seconds",
    help: "Age of the oldest commit that is not settled, on the server's clock; 0 if there is none.",
    labels: &[],
};
const SLOT_RETAINED_WAL: Spec = Spec {
    name: "walhook_slot_retained_wal_bytes",
    help: "WAL that the server keeps for the slot.",
    labels: &[],
};
const RECEIVED_LSN: Spec = Spec {
    name: "walhook_received_lsn",
    help: "Position up to which the stream was read, as a number.",
    labels: &[],
};
const CONFIRMED_LSN: Spec = Spec {
    name: "walhook_confirmed_lsn",
    help: "Position up to which everything is settled and confirmed to the server, as a number.",
    labels: &[],
};
const RECONNECTS: Spec = Spec {
    name: "walhook_reconnects_total",
    help: "Times that the replication stream was connected again after it was lost.",
    labels: &[],
};

/// Seconds: from a request on the loopback to the last retries of an outage.
const TIME_BUCKETS: [f64; 20] = [
    0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    30.0, 60.0, 120.0, 300.0, 900.0,
];

/// All metrics of a process. Cheap to clone: clones share the numbers.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Families>);

#[derive(Debug)]
struct Families {
    registry: Registry,
    captured: IntCounterVec,
    filtered: IntCounterVec,
    repeated: IntCounterVec,
    events: IntCounterVec,
    deliveries: IntCounterVec,
    pending: IntGaugeVec,
    balance: IntGaugeVec,
    attempts: IntCounterVec,
    attempt_duration: HistogramVec,
    commit_to_delivery: HistogramVec,
    retries: IntCounterVec,
    replays: IntCounterVec,
    breaker_open: IntGaugeVec,
    dead_letters: IntGaugeVec,
    write_backs: IntCounterVec,
    write_back_errors: IntCounterVec,
    ledger_flush: Histogram,
    replication: ReplicationMetrics,
}

impl Metrics {
    /// Makes all series of these tables, event types and endpoints.
    pub fn new<'n>(
        tables: impl IntoIterator<Item = &'n TableName>,
        events: impl IntoIterator<Item = &'n str>,
        endpoints: impl IntoIterator<Item = &'n str>,
    ) -> Self {
        let registry = Registry::new();
        register_process(&registry);
        let metrics = Self(Arc::new(Families {
            captured: counters(&registry, &EVENTS_CAPTURED),
            filtered: counters(&registry, &EVENTS_FILTERED),
            repeated: counters(&registry, &EVENTS_REPEATED),
            events: counters(&registry, &EVENTS),
            deliveries: counters(&registry, &DELIVERIES),
            pending: gauges(&registry, &DELIVERIES_PENDING),
            balance: gauges(&registry, &BALANCE),
            attempts: counters(&registry, &ATTEMPTS),
            attempt_duration: histograms(&registry, &ATTEMPT_DURATION),
            commit_to_delivery: histograms(&registry, &COMMIT_TO_DELIVERY),
            retries: counters(&registry, &RETRIES),
            replays: counters(&registry, &REPLAYS),
            breaker_open: gauges(&registry, &BREAKER_OPEN),
            dead_letters: gauges(&registry, &DEAD_LETTERS),
            write_backs: counters(&registry, &WRITE_BACKS),
            write_back_errors: counters(&registry, &WRITE_BACK_ERRORS),
            ledger_flush: histograms(&registry, &LEDGER_FLUSH).with_label_values::<&str>(&[]),
            replication: ReplicationMetrics::new(&registry),
            registry,
        }));
        // Asking for a handle makes its series.
        let tables: Vec<&TableName> = tables.into_iter().collect();
        tables.iter().for_each(|table| drop(metrics.table(table)));
        events.into_iter().for_each(|event| drop(metrics.event(event)));
        for endpoint in endpoints {
            drop(metrics.endpoint(endpoint));
            tables.iter().for_each(|table| drop(metrics.balance(endpoint, table)));
        }
        metrics
    }

    pub fn replication(&self) -> ReplicationMetrics {
        self.0.replication.clone()
    }

    /// How long flushes take, in seconds.
    pub fn ledger_flush(&self) -> Histogram {
        self.0.ledger_flush.clone()
    }

    pub fn table(&self, table: &TableName) -> TableMetrics {
        TableMetrics { captured: self.0.captured.with_label_values(&[&table.to_string()]) }
    }

    pub fn event(&self, event_type: &str) -> EventMetrics {
        EventMetrics {
            raised: self.0.events.with_label_values(&[event_type]),
            filtered: self.0.filtered.with_label_values(&[event_type]),
            repeated: self.0.repeated.with_label_values(&[event_type]),
        }
    }

    pub fn write_backs(&self, event_type: &str) -> WriteBackMetrics {
        let outcome = |outcome| self.0.write_backs.with_label_values(&[event_type, outcome]);
        WriteBackMetrics {
            delivered: outcome("delivered"),
            failed: outcome("failed"),
            unchanged: outcome("unchanged"),
            errors: self.0.write_back_errors.with_label_values(&[event_type]),
        }
    }

    /// The books of one endpoint and table.
    pub fn balance(&self, endpoint: &str, table: &TableName) -> BalanceMetrics {
        let table = table.to_string();
        let entry = |entry| self.0.balance.with_label_values(&[endpoint, &table, entry]);
        BalanceMetrics {
            captured: entry("captured"),
            delivered: entry("delivered"),
            filtered: entry("filtered"),
            expired: entry("expired"),
            dead: entry("dead"),
            pending: entry("pending"),
        }
    }

    pub fn endpoint(&self, name: &str) -> EndpointMetrics {
        let families = &self.0;
        let outcome = |outcome| families.deliveries.with_label_values(&[name, outcome]);
        let waiting = |place| families.pending.with_label_values(&[name, place]);
        EndpointMetrics {
            delivered: outcome("delivered"),
            expired: outcome("expired"),
            dead: outcome("dead"),
            filtered: outcome("filtered"),
            pending_memory: waiting("memory"),
            pending_backlog: waiting("backlog"),
            retries: families.retries.with_label_values(&[name]),
            replays: families.replays.with_label_values(&[name]),
            breaker_open: families.breaker_open.with_label_values(&[name]),
            dead_letters: families.dead_letters.with_label_values(&[name]),
            commit_to_delivery: families.commit_to_delivery.with_label_values(&[name]),
            attempts: AttemptMetrics::new(&families.attempts, name),
            attempt_duration: families.attempt_duration.with_label_values(&[name]),
        }
    }

    /// Takes the series of an endpoint that is no more out of the scrape. Handles to them still count,
    /// and are seen by nobody.
    pub fn forget_endpoint(&self, name: &str) {
        let families = &self.0;
        // A series that was never made is not there to be removed.
        for outcome in ["delivered", "expired", "dead", "filtered"] {
            families.deliveries.remove_label_values(&[name, outcome]).ok();
        }
        for place in ["memory", "backlog"] {
            families.pending.remove_label_values(&[name, place]).ok();
        }
        for result in AttemptMetrics::RESULTS {
            families.attempts.remove_label_values(&[name, result]).ok();
        }
        for family in families.balance.collect() {
            for series in family.get_metric() {
                // In the alphabetical order of their names: endpoint, entry, table.
                let values: Vec<&str> = series.get_label().iter().map(|l| l.value()).collect();
                if let [endpoint, entry, table] = values.as_slice()
                    && *endpoint == name
                {
                    families.balance.remove_label_values(&[endpoint, table, entry]).ok();
                }
            }
        }
        families.retries.remove_label_values(&[name]).ok();
        families.replays.remove_label_values(&[name]).ok();
        families.breaker_open.remove_label_values(&[name]).ok();
        families.dead_letters.remove_label_values(&[name]).ok();
        families.commit_to_delivery.remove_label_values(&[name]).ok();
        families.attempt_duration.remove_label_values(&[name]).ok();
    }

    /// All series in Prometheus's text format.
    pub fn render(&self) -> String {
        let mut text = String::new();
        let encoded = TextEncoder::new().encode_utf8(&self.0.registry.gather(), &mut text);
        // Only a family without series or name fails, and `gather` gives none.
        debug_assert!(encoded.is_ok(), "{encoded:?}");
        text
    }
}

/// What was read from one table.
#[derive(Clone, Debug)]
pub struct TableMetrics {
    pub captured: IntCounter,
}

/// What became of the deliveries of one table to one endpoint; see `store::books`. Not counters: a
/// dead letter that is sent again is dead no more.
#[derive(Clone, Debug)]
pub struct BalanceMetrics {
    pub captured: IntGauge,
    pub delivered: IntGauge,
    pub filtered: IntGauge,
    pub expired: IntGauge,
    pub dead: IntGauge,
    pub pending: IntGauge,
}

/// What became of the changes that one `[[event]]` is about.
#[derive(Clone, Debug)]
pub struct EventMetrics {
    pub raised: IntCounter,
    pub filtered: IntCounter,
    /// A part of `filtered`.
    pub repeated: IntCounter,
}

/// What became of the write-backs of one `[[event]]`.
#[derive(Clone, Debug)]
pub struct WriteBackMetrics {
    delivered: IntCounter,
    failed: IntCounter,
    unchanged: IntCounter,
    pub errors: IntCounter,
}

impl WriteBackMetrics {
    /// Books one write-back that changed so many rows.
    pub fn wrote(&self, delivered: bool, rows: u64) {
        match (rows, delivered) {
            (0, _) => self.unchanged.inc(),
            (_, true) => self.delivered.inc(),
            (_, false) => self.failed.inc(),
        }
    }
}

/// One endpoint. `delivered`, `expired`, `dead` and `filtered` count final outcomes, an event each.
#[derive(Clone, Debug)]
pub struct EndpointMetrics {
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
    pub dead_letters: IntGauge,
    /// In seconds.
    pub commit_to_delivery: Histogram,
    attempts: AttemptMetrics,
    attempt_duration: Histogram,
}

impl EndpointMetrics {
    /// Books one request: what it came to (`None`: delivered) and how long it took.
    pub fn attempted(&self, failure: Option<FailureClass>, took: Duration) {
        self.attempts.of(failure).inc();
        self.attempt_duration.observe(took.as_secs_f64());
    }
}

/// One counter for each thing that a request can come to.
#[derive(Clone, Debug)]
struct AttemptMetrics {
    delivered: IntCounter,
    status: IntCounter,
    timeout: IntCounter,
    dns: IntCounter,
    connect: IntCounter,
    tls: IntCounter,
    protocol: IntCounter,
    refused: IntCounter,
    request: IntCounter,
}

impl AttemptMetrics {
    /// The values of label `result`.
    const RESULTS: [&str; 9] = [
        "delivered",
        "status",
        "timeout",
        "dns",
        "connect",
        "tls",
        "protocol",
        "refused",
        "request",
    ];

    fn new(attempts: &IntCounterVec, endpoint: &str) -> Self {
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
        }
    }

    fn of(&self, failure: Option<FailureClass>) -> &IntCounter {
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
        }
    }
}

/// The replication stream and its slot.
#[derive(Clone, Debug)]
pub struct ReplicationMetrics {
    connected: IntGauge,
    lag_bytes: IntGauge,
    lag_seconds: Gauge,
    retained_wal: IntGauge,
    received: IntGauge,
    confirmed: IntGauge,
    /// Streams connected again after a loss.
    pub reconnects: IntCounter,
}

impl ReplicationMetrics {
    fn new(registry: &Registry) -> Self {
        let gauge = |spec: &Spec| gauges(registry, spec).with_label_values::<&str>(&[]);
        Self {
            connected: gauge(&REPLICATION_CONNECTED),
            lag_bytes: gauge(&REPLICATION_LAG_BYTES),
            lag_seconds: registered(registry, Gauge::with_opts(options(&REPLICATION_LAG_SECONDS))),
            retained_wal: gauge(&SLOT_RETAINED_WAL),
            received: gauge(&RECEIVED_LSN),
            confirmed: gauge(&CONFIRMED_LSN),
            reconnects: counters(registry, &RECONNECTS).with_label_values::<&str>(&[]),
        }
    }

    pub fn set_connected(&self, connected: bool) {
        self.connected.set(i64::from(connected));
    }

    /// WAL that is not confirmed, and the age of the oldest commit that is not settled.
    pub fn set_lag(&self, bytes: u64, age: Duration) {
        self.lag_bytes.set(as_gauge(bytes));
        self.lag_seconds.set(age.as_secs_f64());
    }

    pub fn set_retained_wal(&self, bytes: u64) {
        self.retained_wal.set(as_gauge(bytes));
    }

    pub fn set_received(&self, lsn: Lsn) {
        self.received.set(as_gauge(lsn.raw()));
    }

    pub fn set_confirmed(&self, lsn: Lsn) {
        self.confirmed.set(as_gauge(lsn.raw()));
    }
}

fn as_gauge(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn options(spec: &Spec) -> Opts {
    Opts::new(spec.name, spec.help)
}

fn counters(registry: &Registry, spec: &Spec) -> IntCounterVec {
    registered(registry, IntCounterVec::new(options(spec), spec.labels))
}

fn gauges(registry: &Registry, spec: &Spec) -> IntGaugeVec {
    registered(registry, IntGaugeVec::new(options(spec), spec.labels))
}

fn histograms(registry: &Registry, spec: &Spec) -> HistogramVec {
    let options = HistogramOpts::new(spec.name, spec.help).buckets(TIME_BUCKETS.to_vec());
    registered(registry, HistogramVec::new(options, spec.labels))
}

/// Adds a family that was made from the constants above.
fn registered<C>(registry: &Registry, made: prometheus::Result<C>) -> C
where
    C: Collector + Clone + 'static,
{
    let family = made.expect("names, labels and buckets are constants that a test has tried");
    let added = registry.register(Box::new(family.clone()));
    added.expect("each constant has a name of its own and is registered once");
    family
}

/// CPU, memory, file descriptors, threads and start time, under the names that every Prometheus
/// client has for them.
fn register_process(registry: &Registry) {
    #[cfg(target_os = "linux")]
    {
        let process = prometheus::process_collector::ProcessCollector::for_self();
        let added = registry.register(Box::new(process));
        added.expect("no metric of ours starts with process_");
    }
    #[cfg(not(target_os = "linux"))]
    let _none_elsewhere = registry;
}

#[cfg(test)]
mod tests;
