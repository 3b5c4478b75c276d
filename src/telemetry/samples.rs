//! The last hour and the last day in numbers, in memory: what charts are drawn of.
//!
//! ```text
//! metrics ─ MetricTotals, every 10 s ─▶ [SampleHistory] ─ rates and quantiles ─▶ GET /api/v1/overview
//! ```
//!
//! Counters become rates, and histograms quantiles, between one look and the next. No other store is
//! needed, and a restart begins anew: Prometheus is for what is older.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;

use crate::flow::time::Timestamp;

/// Between two looks.
pub(crate) const SAMPLE_EVERY: Duration = Duration::from_secs(10);

/// An hour of looks.
const HOUR: SeriesShape = SeriesShape { looks: 1, kept: 360 };
/// A day, in steps of five minutes.
const DAY: SeriesShape = SeriesShape { looks: 30, kept: 288 };
/// An hour of one endpoint, in steps of half a minute.
const ENDPOINT_HOUR: SeriesShape = SeriesShape { looks: 3, kept: 120 };

/// Endpoints with a chart of their own: each takes some 10 KB. With more endpoints they are those whose
/// chart was asked for within the hour, and then the busiest.
const CHARTS_MAX: usize = 200;

/// How much of what an endpoint was asked to do before counts at each look, beside what came since.
const MEMORY: (u64, u64) = (63, 64);

/// What is counted since the process began, and what there is at the moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct MetricTotals {
    pub captured: u64,
    pub delivered: u64,
    /// Attempts that did not deliver.
    pub failed: u64,
    /// Of commit to delivery, by bucket: its upper bound in seconds, and how many up to there.
    pub latency: Vec<(f64, u64)>,
    pub waiting_memory: i64,
    pub waiting_backlog: i64,
    pub dead_letters: i64,
    /// `None` where it is not known, as for an endpoint.
    pub retained_wal_bytes: Option<u64>,
    /// `None` also where there is no limit.
    pub safe_wal_bytes: Option<u64>,
}

/// The books of all endpoints and tables together.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct BookSums {
    pub captured: i64,
    pub delivered: i64,
    pub filtered: i64,
    pub expired: i64,
    pub dead: i64,
    pub pending: i64,
}

impl BookSums {
    /// Whether everything that was captured has come to something, or waits.
    pub(crate) fn are_balanced(&self) -> bool {
        self.captured == self.delivered + self.filtered + self.expired + self.dead + self.pending
    }
}

/// One point of a chart: what happened since the one before, and what there is.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = Sample)]
pub(crate) struct MetricSample {
    /// Milliseconds of Unix time
    pub at: i64,
    /// A second, as those below
    pub captured_rate: f64,
    pub delivered_rate: f64,
    pub failed_rate: f64,
    /// Seconds from commit to delivery; null where nothing was delivered
    pub p50: Option<f64>,
    pub p99: Option<f64>,
    pub waiting_memory: i64,
    pub waiting_backlog: i64,
    pub dead_letters: i64,
    pub retained_wal_bytes: Option<u64>,
    pub safe_wal_bytes: Option<u64>,
}

/// How an endpoint did in the last hour.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct EndpointHour {
    /// Attempts that delivered, of all, from 0 to 1; `None` where there were none.
    pub success: Option<f64>,
    /// Seconds from commit to delivery, when something was delivered last.
    pub p99: Option<f64>,
}

impl EndpointHour {
    fn of(samples: &VecDeque<MetricSample>) -> Self {
        // Each sample is of as long a time as any other.
        let sum = |rate: fn(&MetricSample) -> f64| samples.iter().map(rate).sum::<f64>();
        let (delivered, failed) = (sum(|one| one.delivered_rate), sum(|one| one.failed_rate));
        let all = delivered + failed;
        Self {
            success: (all > 0.0).then(|| delivered / all),
            p99: samples.iter().rev().find_map(|one| one.p99),
        }
    }
}

/// How many looks make a sample, and how many samples are kept.
#[derive(Clone, Copy, Debug)]
struct SeriesShape {
    looks: u32,
    kept: usize,
}

/// Samples of one shape, the oldest first.
#[derive(Debug, Default)]
struct SampleSeries {
    last: Option<(Timestamp, MetricTotals)>,
    looks: u32,
    samples: VecDeque<MetricSample>,
}

impl SampleSeries {
    fn look(&mut self, shape: SeriesShape, totals: &MetricTotals, now: Timestamp) {
        let Some((before, last)) = &self.last else {
            self.last = Some((now, totals.clone()));
            return;
        };
        self.looks += 1;
        if self.looks < shape.looks {
            return;
        }
        self.looks = 0;
        let sample = sample(last, totals, now, now.since(*before));
        self.last = Some((now, totals.clone()));
        while self.samples.len() >= shape.kept {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }

    fn view(&self) -> Vec<MetricSample> {
        self.samples.iter().cloned().collect()
    }
}

/// How busy an endpoint is, and when its chart was asked for.
#[derive(Debug, Default)]
struct EndpointActivity {
    /// Attempts at the last look.
    attempts: u64,
    /// What came lately, in thousandths.
    busy: u64,
    /// The number of the look.
    looked_at: Option<u64>,
}

impl EndpointActivity {
    fn note(&mut self, totals: &MetricTotals) {
        let attempts = totals.delivered.saturating_add(totals.failed);
        let came = attempts.saturating_sub(self.attempts).saturating_mul(1000);
        self.busy = (self.busy / MEMORY.1 * MEMORY.0).saturating_add(came);
        self.attempts = attempts;
    }

    fn is_looked_at(&self, look: u64) -> bool {
        self.looked_at.is_some_and(|at| look.saturating_sub(at) <= HOUR.kept as u64)
    }
}

#[derive(Debug, Default)]
struct SampleStore {
    /// How many there were.
    looks: u64,
    activity: HashMap<Arc<str>, EndpointActivity>,
    hour: SampleSeries,
    day: SampleSeries,
    endpoints: HashMap<Arc<str>, SampleSeries>,
}

/// What charts are drawn of. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct SampleHistory(Arc<Mutex<SampleStore>>);

impl SampleHistory {
    /// Takes in what there is `now`: of all, and of each endpoint. Endpoints that are not among them
    /// are forgotten.
    pub(crate) fn look(
        &self,
        totals: &MetricTotals,
        endpoints: impl IntoIterator<Item = (Arc<str>, MetricTotals)>,
        now: Timestamp,
    ) {
        let mut store = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        store.hour.look(HOUR, totals, now);
        store.day.look(DAY, totals, now);
        store.looks += 1;
        let (look, mut known) = (store.looks, std::mem::take(&mut store.activity));
        let mut before = std::mem::take(&mut store.endpoints);
        let mut ranked = Vec::new();
        for (name, totals) in endpoints {
            let mut activity = known.remove(&name).unwrap_or_default();
            activity.note(&totals);
            // Who has a chart keeps it until another one is twice as busy.
            let worth = activity.busy.saturating_mul(1 + u64::from(before.contains_key(&name)));
            ranked.push((activity.is_looked_at(look), worth, Arc::clone(&name), totals));
            store.activity.insert(name, activity);
        }
        if ranked.len() > CHARTS_MAX {
            ranked.sort_by(|a, b| (b.0, b.1, &a.2).cmp(&(a.0, a.1, &b.2)));
            ranked.truncate(CHARTS_MAX);
        }
        for (_, _, name, totals) in ranked {
            let mut series = before.remove(&name).unwrap_or_default();
            series.look(ENDPOINT_HOUR, &totals, now);
            store.endpoints.insert(name, series);
        }
    }

    /// An endpoint is called otherwise: its chart goes on.
    pub(crate) fn rename(&self, from: &str, to: &Arc<str>) {
        let mut store = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(series) = store.endpoints.remove(from) {
            store.endpoints.insert(Arc::clone(to), series);
        }
        if let Some(activity) = store.activity.remove(from) {
            store.activity.insert(Arc::clone(to), activity);
        }
    }

    /// The last hour, the oldest first.
    pub(crate) fn hour(&self) -> Vec<MetricSample> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).hour.view()
    }

    /// The last day.
    pub(crate) fn day(&self) -> Vec<MetricSample> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).day.view()
    }

    /// The last hour of each endpoint that has a chart, in two numbers.
    pub(crate) fn endpoint_hours(&self) -> HashMap<Arc<str>, EndpointHour> {
        let store = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let each = store.endpoints.iter();
        each.map(|(name, series)| (Arc::clone(name), EndpointHour::of(&series.samples))).collect()
    }

    /// The last hour of one endpoint; nothing for one without a chart. From here on it has one.
    pub(crate) fn endpoint(&self, name: &str) -> Vec<MetricSample> {
        let mut store = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let look = store.looks;
        if let Some(activity) = store.activity.get_mut(name) {
            activity.looked_at = Some(look);
        }
        store.endpoints.get(name).map(SampleSeries::view).unwrap_or_default()
    }
}

fn sample(
    before: &MetricTotals,
    totals: &MetricTotals,
    now: Timestamp,
    passed: Duration,
) -> MetricSample {
    #[expect(clippy::cast_precision_loss, reason = "a rate on a chart")]
    let rate = |before: u64, now: u64| match passed.as_secs_f64() {
        seconds if seconds > 0.0 => now.saturating_sub(before) as f64 / seconds,
        _ => 0.0,
    };
    let latency = since(&before.latency, &totals.latency);
    MetricSample {
        at: now.micros().div_euclid(1000),
        captured_rate: rate(before.captured, totals.captured),
        delivered_rate: rate(before.delivered, totals.delivered),
        failed_rate: rate(before.failed, totals.failed),
        p50: quantile(&latency, 0.5),
        p99: quantile(&latency, 0.99),
        waiting_memory: totals.waiting_memory,
        waiting_backlog: totals.waiting_backlog,
        dead_letters: totals.dead_letters,
        retained_wal_bytes: totals.retained_wal_bytes,
        safe_wal_bytes: totals.safe_wal_bytes,
    }
}

/// What a histogram has got since. Without the same buckets before, as at the start, all of it.
fn since(before: &[(f64, u64)], now: &[(f64, u64)]) -> Vec<(f64, u64)> {
    let earlier = |place: usize| before.get(place).map_or(0, |(_, count)| *count);
    let buckets = now.iter().enumerate();
    buckets.map(|(place, (to, count))| (*to, count.saturating_sub(earlier(place)))).collect()
}

/// The value below which this share lies, as Prometheus reckons it: in a straight line through a
/// bucket, and no further than the last bound.
fn quantile(cumulative: &[(f64, u64)], share: f64) -> Option<f64> {
    let all = cumulative.last().map(|(_, count)| *count).filter(|count| *count > 0)?;
    #[expect(clippy::cast_precision_loss, reason = "a quantile is an estimate")]
    let (number, all) = (|count: u64| count as f64, all as f64);
    let wanted = share * all;
    let (mut from, mut below) = (0.0, 0);
    for (to, count) in cumulative {
        if number(*count) >= wanted {
            if !to.is_finite() || *count == below {
                return Some(from);
            }
            let part = (wanted - number(below)) / number(count - below);
            return Some(from + (to - from) * part);
        }
        (from, below) = (*to, *count);
    }
    Some(from)
}

#[cfg(test)]
mod tests;
