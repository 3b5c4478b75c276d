//! Sums over all series of a family, for the overview and its charts.

use prometheus::HistogramVec;
use prometheus::IntCounterVec;
use prometheus::IntGaugeVec;
use prometheus::core::Collector;
use prometheus::proto::Metric;
use prometheus::proto::MetricFamily;

use crate::telemetry::metrics::EndpointMetrics;
use crate::telemetry::metrics::WalhookMetrics;
use crate::telemetry::samples::BookSums;
use crate::telemetry::samples::MetricTotals;

impl WalhookMetrics {
    /// Of all endpoints. The series have to be up to date, see [`WalhookMetrics::look`].
    pub(crate) fn totals(&self) -> MetricTotals {
        let families = &self.0;
        let all = |_: &Metric| true;
        let delivered = |metric: &Metric| has(metric, "outcome", "delivered");
        let (retained, safe) = families.replication.wal();
        MetricTotals {
            captured: counted(&families.captured, all),
            delivered: counted(&families.deliveries, delivered),
            failed: counted(&families.attempts, |metric| !has(metric, "result", "delivered")),
            latency: buckets(&families.commit_to_delivery),
            waiting_memory: gauged(&families.pending, |metric| has(metric, "where", "memory")),
            waiting_backlog: gauged(&families.pending, |metric| has(metric, "where", "backlog")),
            dead_letters: gauged(&families.dead_letters, all),
            retained_wal_bytes: Some(retained),
            safe_wal_bytes: safe,
        }
    }

    /// Of one endpoint.
    pub(crate) fn endpoint_totals(&self, name: &str) -> MetricTotals {
        let endpoint = self.endpoint(name);
        let attempts = endpoint.attempts.all();
        MetricTotals {
            captured: 0,
            delivered: endpoint.delivered.get(),
            failed: attempts.saturating_sub(endpoint.attempts.delivered.get()),
            latency: in_buckets(&endpoint.commit_to_delivery.collect()),
            waiting_memory: endpoint.pending_memory.get(),
            waiting_backlog: endpoint.pending_backlog.get(),
            dead_letters: endpoint.dead_letters.get(),
            retained_wal_bytes: None,
            safe_wal_bytes: None,
        }
    }

    /// The books of all endpoints and tables.
    pub(crate) fn books(&self) -> BookSums {
        let of = |entry| gauged(&self.0.balance, |metric: &Metric| has(metric, "entry", entry));
        BookSums {
            captured: of("captured"),
            delivered: of("delivered"),
            filtered: of("filtered"),
            expired: of("expired"),
            dead: of("dead"),
            pending: of("pending"),
        }
    }
}

impl EndpointMetrics {
    /// Adds what an endpoint has counted under another name. How long things took begins anew.
    pub(crate) fn go_on_from(&self, before: &Self) {
        self.delivered.inc_by(before.delivered.get());
        self.expired.inc_by(before.expired.get());
        self.dead.inc_by(before.dead.get());
        self.filtered.inc_by(before.filtered.get());
        self.retries.inc_by(before.retries.get());
        self.replays.inc_by(before.replays.get());
        self.pending_memory.add(before.pending_memory.get());
        self.pending_backlog.add(before.pending_backlog.get());
        self.dead_letters.set(before.dead_letters.get());
        self.breaker_open.set(before.breaker_open.get());
        self.paused.set(before.paused.get());
        self.oldest_pending.set(before.oldest_pending.get());
    }
}

fn has(metric: &Metric, label: &str, value: &str) -> bool {
    metric.get_label().iter().any(|pair| pair.name() == label && pair.value() == value)
}

fn series(families: &[MetricFamily]) -> impl Iterator<Item = &Metric> {
    families.iter().flat_map(MetricFamily::get_metric)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a counter of whole numbers that is shown as a float"
)]
fn counted(family: &IntCounterVec, is_meant: impl Fn(&Metric) -> bool) -> u64 {
    let found = family.collect();
    let meant = series(&found).filter(|metric| is_meant(metric));
    meant.map(|metric| metric.get_counter().get_value() as u64).sum()
}

#[expect(clippy::cast_possible_truncation, reason = "a whole number that is shown as a float")]
fn gauged(family: &IntGaugeVec, is_meant: impl Fn(&Metric) -> bool) -> i64 {
    let found = family.collect();
    let meant = series(&found).filter(|metric| is_meant(metric));
    meant.map(|metric| metric.get_gauge().get_value() as i64).sum()
}

fn buckets(family: &HistogramVec) -> Vec<(f64, u64)> {
    in_buckets(&family.collect())
}

/// The buckets of all series together, which have the same bounds, with the last one's.
fn in_buckets(found: &[MetricFamily]) -> Vec<(f64, u64)> {
    let mut sums: Vec<(f64, u64)> = Vec::new();
    let mut all = 0;
    for histogram in series(found).map(Metric::get_histogram) {
        all += histogram.get_sample_count();
        for (place, bucket) in histogram.get_bucket().iter().enumerate() {
            match sums.get_mut(place) {
                Some((_, count)) => *count += bucket.cumulative_count(),
                None => sums.push((bucket.upper_bound(), bucket.cumulative_count())),
            }
        }
    }
    sums.push((f64::INFINITY, all));
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::relation::TableName;

    #[test]
    fn series_are_summed_over_endpoints() {
        let table = TableName::new("public", "orders");
        let metrics = WalhookMetrics::new([&table], ["order"], ["crm", "erp"]);
        metrics.table(&table).captured.inc_by(7);
        for (name, times) in [("crm", 3), ("erp", 4)] {
            let endpoint = metrics.endpoint(name);
            endpoint.delivered.inc_by(times);
            endpoint.dead.inc();
            endpoint.pending_backlog.set(2);
            endpoint.commit_to_delivery.observe(0.02);
            endpoint.attempts.of(None).inc_by(times);
            endpoint.attempts.of(Some(crate::flow::verdict::FailureClass::Timeout)).inc();
            metrics.balance(name, &table).captured.set(7);
            metrics.balance(name, &table).delivered.set(7);
        }
        let totals = metrics.totals();
        assert_eq!((totals.captured, totals.delivered, totals.failed), (7, 7, 2));
        assert_eq!((totals.waiting_backlog, totals.waiting_memory), (4, 0));
        assert_eq!(totals.latency.last(), Some(&(f64::INFINITY, 2)));
        assert_eq!(totals.latency.iter().find(|(to, _)| *to >= 0.025), Some(&(0.025, 2)));
        let one = metrics.endpoint_totals("erp");
        assert_eq!((one.delivered, one.failed, one.waiting_backlog), (4, 1, 2));
        let books = metrics.books();
        assert!(books.are_balanced() && books.captured == 14, "{books:?}");
        metrics.balance("crm", &table).dead.inc();
        assert!(!metrics.books().are_balanced());
    }
}
