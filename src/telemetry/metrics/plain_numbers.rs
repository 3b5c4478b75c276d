//! Numbers without name and labels: of each endpoint there are some eighty, and there may be 100,000
//! endpoints. They become series when the metrics are read, see `endpoint_series`.

use std::array;
use std::sync::OnceLock;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use crate::telemetry::metrics::spec::TIME_BUCKETS;

/// Only goes up.
#[derive(Debug, Default)]
pub(crate) struct PlainCounter(AtomicU64);

impl PlainCounter {
    pub(crate) fn inc(&self) {
        self.inc_by(1);
    }

    pub(crate) fn inc_by(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Goes up and down.
#[derive(Debug, Default)]
pub(crate) struct PlainGauge(AtomicI64);

impl PlainGauge {
    pub(crate) fn set(&self, value: i64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub(crate) fn add(&self, more: i64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(crate) fn sub(&self, less: i64) {
        self.0.fetch_sub(less, Ordering::Relaxed);
    }

    pub(crate) fn inc(&self) {
        self.add(1);
    }

    pub(crate) fn dec(&self) {
        self.sub(1);
    }

    pub(crate) fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The same with a fraction.
#[derive(Debug, Default)]
pub(crate) struct PlainSeconds(AtomicU64);

impl PlainSeconds {
    pub(crate) fn set(&self, seconds: f64) {
        self.0.store(seconds.to_bits(), Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }
}

/// How often something took how long. Takes no room before the first time.
#[derive(Debug, Default)]
pub(crate) struct PlainHistogram(OnceLock<Box<HistogramCells>>);

#[derive(Debug, Default)]
struct HistogramCells {
    /// One for each of [`TIME_BUCKETS`], and one for what is beyond the last.
    counts: [AtomicU64; TIME_BUCKETS.len() + 1],
    sum_micros: AtomicU64,
}

impl PlainHistogram {
    /// In seconds.
    pub(crate) fn observe(&self, seconds: f64) {
        let cells = self.0.get_or_init(Box::default);
        let bucket = TIME_BUCKETS.iter().position(|bound| seconds <= *bound);
        if let Some(count) = cells.counts.get(bucket.unwrap_or(TIME_BUCKETS.len())) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        // A `Duration` cannot be made of what is less than nothing: clocks may differ.
        let took = std::time::Duration::try_from_secs_f64(seconds).unwrap_or_default();
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        cells.sum_micros.fetch_add(micros, Ordering::Relaxed);
    }

    pub(super) fn counts(&self) -> HistogramCounts {
        let Some(cells) = self.0.get() else { return HistogramCounts::default() };
        let count = |place: usize| cells.counts.get(place).map_or(0, |c| c.load(Ordering::Relaxed));
        HistogramCounts {
            counts: array::from_fn(count),
            sum_micros: cells.sum_micros.load(Ordering::Relaxed),
        }
    }
}

/// What a [`PlainHistogram`] holds at a moment, or has got since another one.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct HistogramCounts {
    counts: [u64; TIME_BUCKETS.len() + 1],
    sum_micros: u64,
}

impl HistogramCounts {
    pub(super) fn add(&mut self, more: &Self) {
        self.counts.iter_mut().zip(more.counts).for_each(|(sum, more)| *sum += more);
        self.sum_micros += more.sum_micros;
    }

    /// Takes away what there was before.
    pub(super) fn less(&mut self, before: &Self) {
        let pairs = self.counts.iter_mut().zip(before.counts);
        pairs.for_each(|(count, before)| *count = count.saturating_sub(before));
        self.sum_micros = self.sum_micros.saturating_sub(before.sum_micros);
    }

    /// How many there were up to each bound, as Prometheus has them; the last is of all.
    pub(super) fn cumulative(&self) -> Vec<(f64, u64)> {
        let bounds = TIME_BUCKETS.into_iter().chain([f64::INFINITY]);
        let mut all = 0;
        let up_to = |(bound, count): (f64, u64)| {
            all += count;
            (bound, all)
        };
        bounds.zip(self.counts).map(up_to).collect()
    }

    /// How often.
    pub(super) fn all(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// In seconds.
    #[expect(clippy::cast_precision_loss, reason = "2^53 microseconds are 285 years")]
    pub(super) fn sum_seconds(&self) -> f64 {
        self.sum_micros as f64 / 1e6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_counted_up_to_their_bounds() {
        let times = PlainHistogram::default();
        assert_eq!(times.counts(), HistogramCounts::default());
        for seconds in [0.000_1, 0.000_25, 0.2, 1000.0, -1.0] {
            times.observe(seconds);
        }
        let counts = times.counts();
        let cumulative = counts.cumulative();
        assert_eq!(cumulative.first(), Some(&(0.000_25, 3)), "the bound itself is within");
        assert_eq!(cumulative.last(), Some(&(f64::INFINITY, 5)));
        assert_eq!(cumulative.iter().find(|(bound, _)| *bound >= 0.25), Some(&(0.25, 4)));
        assert_eq!(counts.all(), 5);
        let sum = counts.sum_seconds();
        assert!((sum - 1_000.200_350).abs() < 1e-6, "{sum}");
    }
}
