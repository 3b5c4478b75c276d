//! Sums over all endpoints, for the overview and its charts.

use prometheus::IntCounterVec;
use prometheus::core::Collector;
use prometheus::proto::MetricFamily;

use crate::telemetry::metrics::BalanceMetrics;
use crate::telemetry::metrics::EndpointMetrics;
use crate::telemetry::metrics::WalhookMetrics;
use crate::telemetry::metrics::plain_numbers::HistogramCounts;
use crate::telemetry::samples::BookSums;
use crate::telemetry::samples::MetricTotals;

impl WalhookMetrics {
    /// Of all endpoints. The numbers have to be up to date, see [`WalhookMetrics::look`].
    pub(crate) fn totals(&self) -> MetricTotals {
        let families = &self.0;
        let (retained, safe) = families.replication.wal();
        let mut totals = MetricTotals {
            captured: counted(&families.captured),
            retained_wal_bytes: Some(retained),
            safe_wal_bytes: safe,
            ..MetricTotals::default()
        };
        let mut latency = HistogramCounts::default();
        families.endpoints.each(|endpoint| endpoint.add_to(&mut totals, &mut latency));
        MetricTotals { latency: latency.cumulative(), ..totals }
    }

    /// Of one endpoint.
    pub(crate) fn endpoint_totals(&self, name: &str) -> MetricTotals {
        let (mut totals, mut latency) = (MetricTotals::default(), HistogramCounts::default());
        self.endpoint(name).add_to(&mut totals, &mut latency);
        MetricTotals { latency: latency.cumulative(), ..totals }
    }

    /// The books of all endpoints and tables.
    pub(crate) fn books(&self) -> BookSums {
        let mut sums = [0; BalanceMetrics::ENTRIES.len()];
        self.0.endpoints.each(|endpoint| {
            for books in endpoint.balances().values() {
                sums.iter_mut().zip(books.values()).for_each(|(sum, more)| *sum += more);
            }
        });
        let [captured, delivered, filtered, expired, dead, pending] = sums;
        BookSums { captured, delivered, filtered, expired, dead, pending }
    }
}

impl EndpointMetrics {
    fn add_to(&self, totals: &mut MetricTotals, latency: &mut HistogramCounts) {
        totals.delivered += self.delivered.get();
        totals.failed += self.attempts.failed();
        latency.add(&self.commit_to_delivery.counts());
        totals.waiting_memory += self.pending_memory.get();
        totals.waiting_backlog += self.pending_backlog.get();
        totals.dead_letters += self.dead_letters.get();
    }

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

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a counter of whole numbers that is shown as a float"
)]
fn counted(family: &IntCounterVec) -> u64 {
    let found = family.collect();
    let series = found.iter().flat_map(MetricFamily::get_metric);
    series.map(|metric| metric.get_counter().get_value() as u64).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::relation::TableName;

    #[test]
    fn series_are_summed_over_endpoints() {
        let table = TableName::new("public", "orders");
        let metrics = WalhookMetrics::new([&table], ["order"], (["crm", "erp"], 0));
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
