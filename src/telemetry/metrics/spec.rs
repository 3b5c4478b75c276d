//! Every metric's name, help and labels, and how it is registered.

use std::collections::HashMap;

use prometheus::GaugeVec;
use prometheus::HistogramOpts;
use prometheus::HistogramVec;
use prometheus::IntCounterVec;
use prometheus::IntGaugeVec;
use prometheus::Opts;
use prometheus::Registry;
use prometheus::core::Collector;
use prometheus::core::Desc;

/// One metric.
pub(super) struct MetricSpec {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    labels: &'static [&'static str],
}

pub(super) const EVENTS_CAPTURED: MetricSpec = MetricSpec {
    name: "walhook_events_captured_total",
    help: "Committed row changes that were read from the table.",
    labels: &["table"],
};
pub(super) const EVENTS_FILTERED: MetricSpec = MetricSpec {
    name: "walhook_events_filtered_total",
    help: "Changes that did not become this event because its filter refused them.",
    labels: &["event"],
};
pub(super) const EVENTS_REPEATED: MetricSpec = MetricSpec {
    name: "walhook_events_repeated_total",
    help: "Changes that did not become this event because their values were pushed before.",
    labels: &["event"],
};
pub(super) const VALUES_AS_TEXT: MetricSpec = MetricSpec {
    name: "walhook_values_as_text_total",
    help: "Values of row types that were written before the type was altered, and were sent as their text.",
    labels: &["table"],
};
pub(super) const EVENTS: MetricSpec = MetricSpec {
    name: "walhook_events_total",
    help: "Events that were raised, before they go to endpoints.",
    labels: &["event"],
};
pub(super) const DELIVERIES: MetricSpec = MetricSpec {
    name: "walhook_deliveries_total",
    help: "Events whose outcome at the endpoint is final, by outcome.",
    labels: &["endpoint", "outcome"],
};
pub(super) const DELIVERIES_PENDING: MetricSpec = MetricSpec {
    name: "walhook_deliveries_pending",
    help: "Events whose outcome at the endpoint is still open, by where they wait.",
    labels: &["endpoint", "where"],
};
pub(super) const BALANCE: MetricSpec = MetricSpec {
    name: "walhook_balance",
    help: "The books since the slot began: captured = delivered + filtered + expired + dead + pending.",
    labels: &["endpoint", "table", "entry"],
};
pub(super) const ATTEMPTS: MetricSpec = MetricSpec {
    name: "walhook_attempts_total",
    help: "Requests that were sent or tried: delivered, or the class of the failure.",
    labels: &["endpoint", "result"],
};
pub(super) const ATTEMPT_DURATION: MetricSpec = MetricSpec {
    name: "walhook_attempt_duration_seconds",
    help: "From the start of a request to the last byte of its response.",
    labels: &["endpoint"],
};
pub(super) const COMMIT_TO_DELIVERY: MetricSpec = MetricSpec {
    name: "walhook_commit_to_delivery_seconds",
    help: "From the commit in PostgreSQL to the response that accepted the event.",
    labels: &["endpoint"],
};
pub(super) const QUEUE: MetricSpec = MetricSpec {
    name: "walhook_queue_seconds",
    help: "From the commit in PostgreSQL to the start of the event's first attempt.",
    labels: &["endpoint"],
};
pub(super) const OLDEST_PENDING: MetricSpec = MetricSpec {
    name: "walhook_oldest_pending_seconds",
    help: "Age of the oldest event in the endpoint's backlog, by its commit; 0 if it is empty.",
    labels: &["endpoint"],
};
pub(super) const OTLP_SPANS: MetricSpec = MetricSpec {
    name: "walhook_otlp_spans_total",
    help: "Spans for the collector: exported, or dropped because it did not take them.",
    labels: &["result"],
};
pub(super) const OTLP_REQUESTS: MetricSpec = MetricSpec {
    name: "walhook_otlp_requests_total",
    help: "Requests to the collector of OpenTelemetry, by signal: taken, or failed.",
    labels: &["signal", "result"],
};
pub(super) const ROLE: MetricSpec = MetricSpec {
    name: "walhook_role",
    help: "1 for what this process is: active has the slot, standby waits for it; else 0.",
    labels: &["role"],
};
pub(super) const BUILD_INFO: MetricSpec = MetricSpec {
    name: "walhook_build_info",
    help: "Always 1: the version of this process is in the label.",
    labels: &["version"],
};
pub(super) const LAST_RELOAD: MetricSpec = MetricSpec {
    name: "walhook_last_reload_successful",
    help: "1 if the configuration was taken up when it was read last, else 0.",
    labels: &[],
};
pub(super) const LAST_RELOAD_TIME: MetricSpec = MetricSpec {
    name: "walhook_last_reload_timestamp_seconds",
    help: "Unix time at which the configuration was last taken up, at the start or by a reload.",
    labels: &[],
};
pub(super) const RETRIES: MetricSpec = MetricSpec {
    name: "walhook_retries_total",
    help: "Requests that were not the first one for their events.",
    labels: &["endpoint"],
};
pub(super) const REPLAYS: MetricSpec = MetricSpec {
    name: "walhook_replays_total",
    help: "Deliveries that an operator sent again: each has one more outcome.",
    labels: &["endpoint"],
};
pub(super) const BREAKER_OPEN: MetricSpec = MetricSpec {
    name: "walhook_breaker_open",
    help: "1 while the endpoint's circuit breaker is open or probing, else 0.",
    labels: &["endpoint"],
};
pub(super) const PAUSED: MetricSpec = MetricSpec {
    name: "walhook_endpoint_paused",
    help: "1 while an operator has paused the endpoint, whose events are parked, else 0.",
    labels: &["endpoint"],
};
pub(super) const DEAD_LETTERS: MetricSpec = MetricSpec {
    name: "walhook_dead_letters",
    help: "Deliveries that were given up and are kept: those at the start, and those since.",
    labels: &["endpoint"],
};
pub(super) const ENDPOINTS_REFUSED: MetricSpec = MetricSpec {
    name: "walhook_endpoints_refused",
    help: "Rows of [endpoints_from] that are no endpoints: their events become dead letters.",
    labels: &[],
};
pub(super) const ORPHANED: MetricSpec = MetricSpec {
    name: "walhook_deliveries_orphaned",
    help: "Parked deliveries of endpoints that the configuration did not have at the start.",
    labels: &[],
};
pub(super) const WRITE_BACKS: MetricSpec = MetricSpec {
    name: "walhook_write_backs_total",
    help: "Outcomes that were written into the event's row, or found it changed, by outcome.",
    labels: &["event", "outcome"],
};
pub(super) const WRITE_BACK_ERRORS: MetricSpec = MetricSpec {
    name: "walhook_write_back_errors_total",
    help: "Tries to write an outcome back that PostgreSQL refused.",
    labels: &["event"],
};
pub(super) const WRITE_BACKS_FAILING: MetricSpec = MetricSpec {
    name: "walhook_write_backs_failing",
    help: "Outcomes whose last try to be written back PostgreSQL refused; they are tried again.",
    labels: &[],
};
pub(super) const ENDPOINTS_TABLE_ERRORS: MetricSpec = MetricSpec {
    name: "walhook_endpoints_table_errors_total",
    help: "Tries to read the table of [endpoints_from] that PostgreSQL refused or did not answer.",
    labels: &[],
};
pub(super) const OBSTACLE: MetricSpec = MetricSpec {
    name: "walhook_obstacle",
    help: "1 while this stands in the way and /ready says so, else 0.",
    labels: &["what"],
};
pub(super) const LEDGER_FLUSH: MetricSpec = MetricSpec {
    name: "walhook_ledger_flush_seconds",
    help: "Time to commit a group of outcomes to the state.",
    labels: &[],
};
pub(super) const REPLICATION_CONNECTED: MetricSpec = MetricSpec {
    name: "walhook_replication_connected",
    help: "1 while the replication stream is connected, else 0.",
    labels: &[],
};
pub(super) const REPLICATION_LAG_BYTES: MetricSpec = MetricSpec {
    name: "walhook_replication_lag_bytes",
    help: "WAL between the server's end and the confirmed position.",
    labels: &[],
};
pub(super) const REPLICATION_LAG_SECONDS: MetricSpec = MetricSpec {
    name: "walhook_replication_lag_seconds",
    help: "Age of the oldest commit that is not settled, on the server's clock; 0 if there is none.",
    labels: &[],
};
pub(super) const SOURCE_PROBLEMS: MetricSpec = MetricSpec {
    name: "walhook_source_problems",
    help: "What tables and publication lack for the configuration, as `walhook check` counts it.",
    labels: &[],
};
pub(super) const BLOCKED_BY_STANDBY: MetricSpec = MetricSpec {
    name: "walhook_replication_blocked",
    help: "1 while PostgreSQL holds changes back until a standby has them, else 0.",
    labels: &[],
};
pub(super) const SLOT_RETAINED_WAL: MetricSpec = MetricSpec {
    name: "walhook_slot_retained_wal_bytes",
    help: "WAL that the server keeps for the slot.",
    labels: &[],
};
pub(super) const SLOT_SAFE_WAL: MetricSpec = MetricSpec {
    name: "walhook_slot_safe_wal_bytes",
    help: "WAL that can still be written before the slot may be lost; +Inf if there is no limit.",
    labels: &[],
};
pub(super) const CLOCK_AHEAD: MetricSpec = MetricSpec {
    name: "walhook_clock_ahead_seconds",
    help: "Seconds that the database's clock is ahead of this host's, as measured last.",
    labels: &[],
};
pub(super) const RECEIVED_LSN: MetricSpec = MetricSpec {
    name: "walhook_received_lsn",
    help: "Position up to which the stream was read, as a number.",
    labels: &[],
};
pub(super) const CONFIRMED_LSN: MetricSpec = MetricSpec {
    name: "walhook_confirmed_lsn",
    help: "Position up to which everything is settled and confirmed to the server, as a number.",
    labels: &[],
};
pub(super) const HTTP_REFUSED: MetricSpec = MetricSpec {
    name: "walhook_http_refused_total",
    help: "Requests and connections to walhook's own HTTP surface that were refused, by reason.",
    labels: &["reason"],
};
pub(super) const CHANNEL_ERRORS: MetricSpec = MetricSpec {
    name: "walhook_channel_errors_total",
    help: "Answers of a chat system that were no success, by its code; 32 codes an endpoint, then `other`.",
    labels: &["endpoint", "errcode"],
};
pub(super) const BACKFILL_ROWS: MetricSpec = MetricSpec {
    name: "walhook_backfill_rows_total",
    help: "Rows of backfills, by state: read from the table, sent as events.",
    labels: &["table", "state"],
};
pub(super) const BACKFILL_PROGRESS: MetricSpec = MetricSpec {
    name: "walhook_backfill_progress_ratio",
    help: "How much of the table's backfill is done, from 0 to 1, as far as the planner's guess is right.",
    labels: &["table"],
};
pub(super) const BACKFILL_REREADS: MetricSpec = MetricSpec {
    name: "walhook_backfill_rereads_total",
    help: "Chunks of backfills that were read again, by reason: `invisible` (a change that the snapshot does not see and of which too little is known), `conflict` (the standby cancelled it).",
    labels: &["table", "reason"],
};
pub(super) const INBOUND_RECEIVED: MetricSpec = MetricSpec {
    name: "walhook_inbound_received_total",
    help: "Requests that claimed to be callbacks of the source.",
    labels: &["source"],
};
pub(super) const INBOUND_REFUSED: MetricSpec = MetricSpec {
    name: "walhook_inbound_refused_total",
    help: "Callbacks that were refused, by reason; `unavailable`: the sender is to send them again.",
    labels: &["source", "reason"],
};
pub(super) const INBOUND_KEPT: MetricSpec = MetricSpec {
    name: "walhook_inbound_kept_total",
    help: "Callbacks that became a row.",
    labels: &["source"],
};
pub(super) const INBOUND_REPEATS: MetricSpec = MetricSpec {
    name: "walhook_inbound_repeats_total",
    help: "Callbacks that were answered with success and had a row already.",
    labels: &["source"],
};
pub(super) const INBOUND_ANSWER: MetricSpec = MetricSpec {
    name: "walhook_inbound_answer_seconds",
    help: "From the head of a callback to its answer with success.",
    labels: &["source"],
};
pub(super) const RECONNECTS: MetricSpec = MetricSpec {
    name: "walhook_reconnects_total",
    help: "Times that the replication stream was connected again after it was lost.",
    labels: &[],
};

/// Seconds: from a request on the loopback to the last retries of an outage.
pub(super) const TIME_BUCKETS: [f64; 20] = [
    0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    30.0, 60.0, 120.0, 300.0, 900.0,
];

pub(super) fn options(spec: &MetricSpec) -> Opts {
    Opts::new(spec.name, spec.help)
}

pub(super) fn counters(registry: &Registry, spec: &MetricSpec) -> IntCounterVec {
    registered(registry, IntCounterVec::new(options(spec), spec.labels))
}

pub(super) fn gauges(registry: &Registry, spec: &MetricSpec) -> IntGaugeVec {
    registered(registry, IntGaugeVec::new(options(spec), spec.labels))
}

pub(super) fn float_gauges(registry: &Registry, spec: &MetricSpec) -> GaugeVec {
    registered(registry, GaugeVec::new(options(spec), spec.labels))
}

pub(super) fn histograms(registry: &Registry, spec: &MetricSpec) -> HistogramVec {
    let options = HistogramOpts::new(spec.name, spec.help).buckets(TIME_BUCKETS.to_vec());
    registered(registry, HistogramVec::new(options, spec.labels))
}

/// A metric whose series are made by ourselves.
pub(super) fn described(spec: &MetricSpec) -> Desc {
    let labels = spec.labels.iter().map(|label| (*label).to_owned()).collect();
    let made = Desc::new(spec.name.to_owned(), spec.help.to_owned(), labels, HashMap::new());
    made.expect("names and labels are constants that a test has tried")
}

/// Adds a family that was made from the constants above.
pub(super) fn registered<C>(registry: &Registry, made: prometheus::Result<C>) -> C
where
    C: Collector + Clone + 'static,
{
    let family = made.expect("names, labels and buckets are constants that a test has tried");
    let added = registry.register(Box::new(family.clone()));
    added.expect("each constant has a name of its own and is registered once");
    family
}
