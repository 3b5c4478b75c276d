//! Every metric of a process, and the handles by which stages change it.
//!
//! ```text
//! stages ─ handles, resolved once ─▶ [registry] ─ Prometheus text ─▶ api (/metrics)
//! ```
//!
//! | file | holds |
//! | --- | --- |
//! | `spec` | Each metric's name, help and labels |
//! | `handles` | What stages count in: tables, events, endpoints, write-backs |
//! | `plain_numbers` | The numbers of an endpoint, which are no series by themselves |
//! | `endpoint_series` | Which endpoints have series of their own, and the sums of the others |
//! | `totals` | Sums over all endpoints, for the overview |
//! | `replication`, `backfill`, `channels`, `inbound`, `otlp` | What is counted of each |
//!
//! There are no globals: who builds the stages makes one [`WalhookMetrics`] and hands out handles. Label
//! values are tables, event types and endpoints of the configuration, never keys or ids of rows, and
//! every series is there from the start with 0, so that `rate()` sees the first event.

mod backfill;
mod channels;
mod endpoint_series;
mod handles;
mod inbound;
mod otlp;
mod plain_numbers;
mod replication;
mod spec;
mod totals;

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use prometheus::Histogram;
use prometheus::HistogramVec;
use prometheus::IntCounter;
use prometheus::IntCounterVec;
use prometheus::IntGauge;
use prometheus::IntGaugeVec;
use prometheus::Registry;
use prometheus::TextEncoder;
use prometheus::proto::MetricFamily;

use crate::flow::relation::TableName;
use crate::flow::time::Timestamp;
use crate::telemetry::metrics::endpoint_series::EndpointSeries;
use crate::telemetry::metrics::endpoint_series::SeriesOrigin;
use crate::telemetry::metrics::spec::counters;
use crate::telemetry::metrics::spec::float_gauges;
use crate::telemetry::metrics::spec::gauges;
use crate::telemetry::metrics::spec::histograms;
use crate::telemetry::metrics::spec::registered;
use crate::telemetry::obstacles::NamedObstacle;

pub(crate) use crate::telemetry::metrics::backfill::BackfillMetrics;
pub(crate) use crate::telemetry::metrics::backfill::RereadReason;
pub(crate) use crate::telemetry::metrics::channels::ChannelErrorMetrics;
pub(crate) use crate::telemetry::metrics::handles::BalanceMetrics;
pub(crate) use crate::telemetry::metrics::handles::EndpointMetrics;
pub(crate) use crate::telemetry::metrics::handles::EventMetrics;
pub(crate) use crate::telemetry::metrics::handles::TableMetrics;
pub(crate) use crate::telemetry::metrics::handles::WriteBackMetrics;
pub(crate) use crate::telemetry::metrics::inbound::InboundMetrics;
pub(crate) use crate::telemetry::metrics::otlp::OtlpMetrics;
pub(crate) use crate::telemetry::metrics::plain_numbers::PlainCounter;
pub(crate) use crate::telemetry::metrics::plain_numbers::PlainGauge;
pub(crate) use crate::telemetry::metrics::replication::ReplicationMetrics;

/// The content type of [`WalhookMetrics::render`]'s text.
pub(crate) const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// Why requests to walhook itself are refused: the values of label `reason`.
pub(crate) const HTTP_REFUSALS: [&str; 5] = ["connections", "host", "origin", "slow", "token"];

/// What a process can be: the values of label `role`.
pub(crate) const ROLES: [&str; 2] = ["active", "standby"];

/// All metrics of a process. Cheap to clone: clones share the numbers.
#[derive(Clone, Debug)]
pub(crate) struct WalhookMetrics(Arc<MetricFamilies>);

/// See [`WalhookMetrics::before_each_look`].
struct MetricsRefresh(Box<dyn Fn() + Send + Sync>);

impl std::fmt::Debug for MetricsRefresh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Refresh")
    }
}

#[derive(Debug)]
struct MetricFamilies {
    registry: Registry,
    /// Brings numbers up to date that change more often than they are read.
    before_look: Mutex<Vec<MetricsRefresh>>,
    captured: IntCounterVec,
    filtered: IntCounterVec,
    repeated: IntCounterVec,
    values_as_text: IntCounterVec,
    events: IntCounterVec,
    endpoints: EndpointSeries,
    role: IntGaugeVec,
    last_reload: IntGauge,
    last_reload_time: IntGauge,
    endpoints_refused: IntGauge,
    orphaned: IntGauge,
    write_backs: IntCounterVec,
    write_back_errors: IntCounterVec,
    write_backs_failing: IntGauge,
    endpoints_table_errors: IntCounter,
    obstacle: IntGaugeVec,
    ledger_flush: Histogram,
    http_refused: IntCounterVec,
    channel_errors: ChannelErrorMetrics,
    backfill: BackfillMetrics,
    inbound_received: IntCounterVec,
    inbound_refused: IntCounterVec,
    inbound_kept: IntCounterVec,
    inbound_repeats: IntCounterVec,
    inbound_answer: HistogramVec,
    otlp: OtlpMetrics,
    replication: ReplicationMetrics,
}

/// A family of one gauge.
fn gauge(registry: &Registry, spec: &spec::MetricSpec) -> IntGauge {
    gauges(registry, spec).with_label_values::<&str>(&[])
}

impl WalhookMetrics {
    /// Makes all series of these tables, event types and endpoints; of endpoints that come later
    /// `endpoint_series_max` have series of their own.
    pub(crate) fn new<'n>(
        tables: impl IntoIterator<Item = &'n TableName>,
        events: impl IntoIterator<Item = &'n str>,
        (endpoints, endpoint_series_max): (impl IntoIterator<Item = &'n str>, usize),
    ) -> Self {
        let registry = Registry::new();
        register_process(&registry);
        let metrics = Self(Arc::new(MetricFamilies {
            captured: counters(&registry, &spec::EVENTS_CAPTURED),
            filtered: counters(&registry, &spec::EVENTS_FILTERED),
            repeated: counters(&registry, &spec::EVENTS_REPEATED),
            values_as_text: counters(&registry, &spec::VALUES_AS_TEXT),
            events: counters(&registry, &spec::EVENTS),
            endpoints: registered(&registry, Ok(EndpointSeries::new(endpoint_series_max))),
            role: gauges(&registry, &spec::ROLE),
            last_reload: gauge(&registry, &spec::LAST_RELOAD),
            last_reload_time: gauge(&registry, &spec::LAST_RELOAD_TIME),
            endpoints_refused: gauge(&registry, &spec::ENDPOINTS_REFUSED),
            orphaned: gauge(&registry, &spec::ORPHANED),
            write_backs: counters(&registry, &spec::WRITE_BACKS),
            write_back_errors: counters(&registry, &spec::WRITE_BACK_ERRORS),
            write_backs_failing: gauge(&registry, &spec::WRITE_BACKS_FAILING),
            endpoints_table_errors: counters(&registry, &spec::ENDPOINTS_TABLE_ERRORS)
                .with_label_values::<&str>(&[]),
            obstacle: gauges(&registry, &spec::OBSTACLE),
            ledger_flush: histograms(&registry, &spec::LEDGER_FLUSH).with_label_values::<&str>(&[]),
            http_refused: counters(&registry, &spec::HTTP_REFUSED),
            channel_errors: ChannelErrorMetrics::new(counters(&registry, &spec::CHANNEL_ERRORS)),
            backfill: BackfillMetrics::new(
                counters(&registry, &spec::BACKFILL_ROWS),
                float_gauges(&registry, &spec::BACKFILL_PROGRESS),
                counters(&registry, &spec::BACKFILL_REREADS),
            ),
            inbound_received: counters(&registry, &spec::INBOUND_RECEIVED),
            inbound_refused: counters(&registry, &spec::INBOUND_REFUSED),
            inbound_kept: counters(&registry, &spec::INBOUND_KEPT),
            inbound_repeats: counters(&registry, &spec::INBOUND_REPEATS),
            inbound_answer: histograms(&registry, &spec::INBOUND_ANSWER),
            otlp: OtlpMetrics::new(
                &counters(&registry, &spec::OTLP_SPANS),
                counters(&registry, &spec::OTLP_REQUESTS),
            ),
            replication: ReplicationMetrics::new(&registry),
            registry,
            before_look: Mutex::default(),
        }));
        let build = gauges(&metrics.0.registry, &spec::BUILD_INFO);
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        metrics.set_role(None);
        // Asking for a handle makes its series.
        HTTP_REFUSALS.iter().for_each(|reason| drop(metrics.http_refused(reason)));
        let tables: Vec<&TableName> = tables.into_iter().collect();
        for table in &tables {
            drop(metrics.table(table));
            metrics.0.endpoints.add_table(&table.to_string());
        }
        events.into_iter().for_each(|event| drop(metrics.event(event)));
        NamedObstacle::ALL.iter().for_each(|obstacle| metrics.set_obstacle(*obstacle, false));
        endpoints.into_iter().for_each(|endpoint| drop(metrics.endpoint_of_file(endpoint)));
        metrics
    }

    pub(crate) fn replication(&self) -> ReplicationMetrics {
        self.0.replication.clone()
    }

    /// The handles of a source of callbacks.
    pub(crate) fn inbound(&self, source: &str) -> InboundMetrics {
        let families = &self.0;
        InboundMetrics {
            source: source.to_owned(),
            refused: families.inbound_refused.clone(),
            received: families.inbound_received.with_label_values(&[source]),
            kept: families.inbound_kept.with_label_values(&[source]),
            repeats: families.inbound_repeats.with_label_values(&[source]),
            answer: families.inbound_answer.with_label_values(&[source]),
        }
    }

    /// What became of telemetry for a collector.
    pub(crate) fn otlp(&self) -> OtlpMetrics {
        self.0.otlp.clone()
    }

    /// What chat systems answer instead of success.
    pub(crate) fn channel_errors(&self) -> ChannelErrorMetrics {
        self.0.channel_errors.clone()
    }

    /// What backfills have read and sent.
    pub(crate) fn backfill(&self) -> BackfillMetrics {
        self.0.backfill.clone()
    }

    /// Rows of `[endpoints_from]` that are no endpoints.
    pub(crate) fn endpoints_refused(&self) -> IntGauge {
        self.0.endpoints_refused.clone()
    }

    /// Parked deliveries whose endpoint is not configured.
    pub(crate) fn orphaned(&self) -> IntGauge {
        self.0.orphaned.clone()
    }

    /// Write-backs whose last try was refused.
    pub(crate) fn write_backs_failing(&self) -> IntGauge {
        self.0.write_backs_failing.clone()
    }

    pub(crate) fn endpoints_table_errors(&self) -> IntCounter {
        self.0.endpoints_table_errors.clone()
    }

    pub(crate) fn set_obstacle(&self, obstacle: NamedObstacle, is_there: bool) {
        let gauge = self.0.obstacle.with_label_values(&[obstacle.name()]);
        gauge.set(i64::from(is_there));
    }

    /// What this process is, one of [`ROLES`]; `None` while that is not known.
    pub(crate) fn set_role(&self, role: Option<&str>) {
        for known in ROLES {
            self.0.role.with_label_values(&[known]).set(i64::from(role == Some(known)));
        }
    }

    /// The configuration was read, and is what holds from here on.
    pub(crate) fn reload_taken_up(&self, now: Timestamp) {
        self.0.last_reload.set(1);
        self.0.last_reload_time.set(now.seconds());
    }

    /// The configuration was read, and what held before still does.
    pub(crate) fn reload_refused(&self) {
        self.0.last_reload.set(0);
    }

    /// How long flushes take, in seconds.
    pub(crate) fn ledger_flush(&self) -> Histogram {
        self.0.ledger_flush.clone()
    }

    /// Requests to walhook itself that were refused for this reason, one of [`HTTP_REFUSALS`].
    pub(crate) fn http_refused(&self, reason: &str) -> IntCounter {
        self.0.http_refused.with_label_values(&[reason])
    }

    pub(crate) fn table(&self, table: &TableName) -> TableMetrics {
        TableMetrics { captured: self.0.captured.with_label_values(&[&table.to_string()]) }
    }

    /// Values of a table's rows that are sent as their text, since their type was altered.
    pub(crate) fn values_as_text(&self, table: &TableName) -> IntCounter {
        self.0.values_as_text.with_label_values(&[&table.to_string()])
    }

    pub(crate) fn event(&self, event_type: &str) -> EventMetrics {
        EventMetrics {
            raised: self.0.events.with_label_values(&[event_type]),
            filtered: self.0.filtered.with_label_values(&[event_type]),
            repeated: self.0.repeated.with_label_values(&[event_type]),
        }
    }

    pub(crate) fn write_backs(&self, event_type: &str) -> WriteBackMetrics {
        let outcome = |outcome| self.0.write_backs.with_label_values(&[event_type, outcome]);
        WriteBackMetrics {
            delivered: outcome("delivered"),
            failed: outcome("failed"),
            unchanged: outcome("unchanged"),
            errors: self.0.write_back_errors.with_label_values(&[event_type]),
        }
    }

    /// The books of one endpoint and table.
    pub(crate) fn balance(&self, endpoint: &str, table: &TableName) -> Arc<BalanceMetrics> {
        self.0.endpoints.balance(endpoint, &table.to_string())
    }

    pub(crate) fn endpoint(&self, name: &str) -> Arc<EndpointMetrics> {
        self.0.endpoints.endpoint(name, SeriesOrigin::RunTime)
    }

    /// Of an endpoint of the configuration file, which has series of its own however many others there are.
    pub(crate) fn endpoint_of_file(&self, name: &str) -> Arc<EndpointMetrics> {
        self.0.endpoints.endpoint(name, SeriesOrigin::File)
    }

    /// Takes the series of an endpoint that is no more out of the scrape. Handles to them still count,
    /// and are seen by nobody.
    pub(crate) fn forget_endpoint(&self, name: &str) {
        self.0.endpoints.forget(name);
        self.0.channel_errors.forget(name);
    }

    /// The endpoint `before` has become `name`, whose numbers have gone on from its own.
    pub(crate) fn rename_endpoint(&self, before: &str, name: &str) {
        self.0.endpoints.rename(before, name);
        self.0.channel_errors.forget(before);
    }

    /// Has `refresh` called before the series are read, and they are read without a pause after it.
    pub(crate) fn before_each_look(&self, refresh: impl Fn() + Send + Sync + 'static) {
        let mut all = self.0.before_look.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(MetricsRefresh(Box::new(refresh)));
    }

    /// Brings the series up to date, for readers by another way than
    /// [`WalhookMetrics::render`].
    pub(crate) fn look(&self) {
        let refreshes = self.0.before_look.lock().unwrap_or_else(PoisonError::into_inner);
        refreshes.iter().for_each(|MetricsRefresh(refresh)| refresh());
    }

    /// All series, up to date.
    pub(crate) fn gather(&self) -> Vec<MetricFamily> {
        self.look();
        self.0.registry.gather()
    }

    /// All series in Prometheus's text format.
    pub(crate) fn render(&self) -> String {
        let mut text = String::new();
        let encoded = TextEncoder::new().encode_utf8(&self.gather(), &mut text);
        // Only a family without series or name fails, and `gather` gives none.
        debug_assert!(encoded.is_ok(), "{encoded:?}");
        text
    }
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
