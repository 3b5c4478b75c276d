//! What has been counted of one endpoint, or of several together.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::telemetry::metrics::handles::AttemptMetrics;
use crate::telemetry::metrics::handles::EndpointMetrics;
use crate::telemetry::metrics::plain_numbers::HistogramCounts;

/// What only goes up.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct CountedTotals {
    /// In the order of `families::OUTCOMES`.
    pub(super) outcomes: [u64; 4],
    /// In the order of [`AttemptMetrics::RESULTS`].
    pub(super) results: [u64; AttemptMetrics::RESULTS.len()],
    pub(super) retries: u64,
    pub(super) replays: u64,
    pub(super) attempt_duration: HistogramCounts,
    pub(super) commit_to_delivery: HistogramCounts,
    pub(super) queue: HistogramCounts,
}

impl CountedTotals {
    pub(super) fn of(numbers: &EndpointMetrics) -> Self {
        Self {
            outcomes: [
                numbers.delivered.get(),
                numbers.expired.get(),
                numbers.dead.get(),
                numbers.filtered.get(),
            ],
            results: numbers.attempts.values(),
            retries: numbers.retries.get(),
            replays: numbers.replays.get(),
            attempt_duration: numbers.attempt_duration.counts(),
            commit_to_delivery: numbers.commit_to_delivery.counts(),
            queue: numbers.queue.counts(),
        }
    }

    /// What an endpoint goes on from under another name ([`EndpointMetrics::go_on_from`]).
    pub(super) fn kept_by_rename(&self) -> Self {
        let Self { outcomes, retries, replays, .. } = *self;
        Self { outcomes, retries, replays, ..Self::default() }
    }

    pub(super) fn add(&mut self, more: &Self) {
        self.outcomes.iter_mut().zip(more.outcomes).for_each(|(sum, more)| *sum += more);
        self.results.iter_mut().zip(more.results).for_each(|(sum, more)| *sum += more);
        self.retries += more.retries;
        self.replays += more.replays;
        self.attempt_duration.add(&more.attempt_duration);
        self.commit_to_delivery.add(&more.commit_to_delivery);
        self.queue.add(&more.queue);
    }

    /// The same less what there was before.
    pub(super) fn without(mut self, before: Option<&Self>) -> Self {
        let Some(before) = before else { return self };
        let less = |(count, before): (&mut u64, u64)| *count = count.saturating_sub(before);
        self.outcomes.iter_mut().zip(before.outcomes).for_each(less);
        self.results.iter_mut().zip(before.results).for_each(less);
        self.retries = self.retries.saturating_sub(before.retries);
        self.replays = self.replays.saturating_sub(before.replays);
        self.attempt_duration.less(&before.attempt_duration);
        self.commit_to_delivery.less(&before.commit_to_delivery);
        self.queue.less(&before.queue);
        self
    }
}

/// What goes up and down.
#[derive(Clone, Debug, Default)]
pub(super) struct GaugedTotals {
    /// In the order of `families::PLACES`.
    pub(super) pending: [i64; 2],
    /// How many of them.
    pub(super) breaker_open: i64,
    pub(super) paused: i64,
    pub(super) dead_letters: i64,
    /// Of all the oldest, in seconds.
    pub(super) oldest_pending: f64,
    /// By table, in the order of `BalanceMetrics::ENTRIES`.
    pub(super) balances: BTreeMap<Arc<str>, [i64; 6]>,
}

impl GaugedTotals {
    pub(super) fn of(numbers: &EndpointMetrics) -> Self {
        let balances = numbers.balances();
        let balances = balances.iter().map(|(table, books)| (Arc::clone(table), books.values()));
        Self {
            pending: [numbers.pending_memory.get(), numbers.pending_backlog.get()],
            breaker_open: numbers.breaker_open.get(),
            paused: numbers.paused.get(),
            dead_letters: numbers.dead_letters.get(),
            oldest_pending: numbers.oldest_pending.get(),
            balances: balances.collect(),
        }
    }

    pub(super) fn add(&mut self, more: &Self) {
        self.pending.iter_mut().zip(more.pending).for_each(|(sum, more)| *sum += more);
        self.breaker_open += more.breaker_open;
        self.paused += more.paused;
        self.dead_letters += more.dead_letters;
        self.oldest_pending = self.oldest_pending.max(more.oldest_pending);
        for (table, books) in &more.balances {
            let sums = self.balances.entry(Arc::clone(table)).or_default();
            sums.iter_mut().zip(books).for_each(|(sum, more)| *sum += more);
        }
    }
}
