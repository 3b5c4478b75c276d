//! The counters behind `GET /api/v1/webhook/stats`, and how far behind we are.

use std::sync::atomic::AtomicI64;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;

use crate::flow::time::Timestamp;
use crate::store::push_totals::PushTotals;

/// Nothing yet: nothing is pushed or committed at the very start of 1970.
const NEVER: i64 = 0;

/// Counted per event and endpoint once the outcome is final: since the slot began.
#[derive(Debug, Default)]
pub(crate) struct PushStats {
    succeeded: AtomicU64,
    failed: AtomicU64,
    /// Those of `succeeded` whose response time is known.
    timed: AtomicU64,
    response_micros: AtomicU64,
    last_push_seconds: AtomicI64,
    oldest_open_micros: AtomicI64,
    last_commit_micros: AtomicI64,
}

/// The counters at one moment, with the field names of `ocr-wallet`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, ToSchema)]
#[schema(as = Stats)]
pub(crate) struct StatsView {
    pub total_pushed: u64,
    pub success_count: u64,
    /// Given up, or expired while the endpoint was down
    pub failure_count: u64,
    /// Unix seconds
    pub last_push_time: Option<i64>,
    /// Mean response time of successful pushes
    pub average_delay_ms: u64,
}

impl PushStats {
    /// Goes on from what the state holds.
    pub(crate) fn resume(&self, totals: &PushTotals) {
        for (counter, total) in [
            (&self.succeeded, totals.succeeded),
            (&self.failed, totals.failed),
            (&self.timed, totals.timed),
            (&self.response_micros, totals.response_micros),
        ] {
            counter.store(u64::try_from(total).unwrap_or(0), Ordering::Relaxed);
        }
        let last = totals.last_push.map_or(NEVER, Timestamp::seconds);
        self.last_push_seconds.store(last, Ordering::Relaxed);
    }

    /// A push was taken; `took` is its response time.
    pub(crate) fn succeeded(&self, took: Duration, now: Timestamp) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.response_micros.fetch_add(micros, Ordering::Relaxed);
        self.succeeded.fetch_add(1, Ordering::Relaxed);
        self.timed.fetch_add(1, Ordering::Relaxed);
        self.last_push_seconds.store(now.seconds(), Ordering::Relaxed);
    }

    /// A push was given up.
    pub(crate) fn failed(&self, now: Timestamp) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        self.last_push_seconds.store(now.seconds(), Ordering::Relaxed);
    }

    /// A commit was seen.
    pub(crate) fn committed(&self, committed: Timestamp) {
        self.last_commit_micros.fetch_max(committed.micros(), Ordering::Relaxed);
    }

    /// When the last commit that was seen was made; `None` before the first.
    pub(crate) fn last_commit(&self) -> Option<Timestamp> {
        match self.last_commit_micros.load(Ordering::Relaxed) {
            NEVER => None,
            micros => Some(Timestamp::from_micros(micros)),
        }
    }

    /// When the oldest event that is still open was committed.
    pub(crate) fn set_oldest_open(&self, committed: Option<Timestamp>) {
        let micros = committed.map_or(NEVER, Timestamp::micros);
        self.oldest_open_micros.store(micros, Ordering::Relaxed);
    }

    /// How long the oldest event that is still open has been committed; zero if there is none.
    pub(crate) fn lag(&self, now: Timestamp) -> Duration {
        match self.oldest_open_micros.load(Ordering::Relaxed) {
            NEVER => Duration::ZERO,
            micros => now.since(Timestamp::from_micros(micros)),
        }
    }

    pub(crate) fn view(&self) -> StatsView {
        let success_count = self.succeeded.load(Ordering::Relaxed);
        let failure_count = self.failed.load(Ordering::Relaxed);
        let (micros, timed) =
            (self.response_micros.load(Ordering::Relaxed), self.timed.load(Ordering::Relaxed));
        let last = self.last_push_seconds.load(Ordering::Relaxed);
        StatsView {
            total_pushed: success_count + failure_count,
            success_count,
            failure_count,
            last_push_time: (last != NEVER).then_some(last),
            // Rounded to the nearest millisecond.
            average_delay_ms: (micros + timed * 500).checked_div(timed * 1000).unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_the_sum_of_the_outcomes_and_the_mean_is_of_successes() {
        let stats = PushStats::default();
        let empty = stats.view();
        assert_eq!(
            (empty.total_pushed, empty.last_push_time, empty.average_delay_ms),
            (0, None, 0)
        );
        stats.succeeded(Duration::from_millis(100), Timestamp::from_seconds(1_703_123_455));
        stats.succeeded(Duration::from_millis(201), Timestamp::from_seconds(1_703_123_456));
        stats.failed(Timestamp::from_seconds(1_703_123_457));
        let expected = StatsView {
            total_pushed: 3,
            success_count: 2,
            failure_count: 1,
            last_push_time: Some(1_703_123_457),
            average_delay_ms: 151,
        };
        assert_eq!(stats.view(), expected);
    }

    #[test]
    fn what_is_kept_is_what_is_shown_after_a_restart() {
        let (before, mut kept) = (PushStats::default(), PushTotals::default());
        let at = Timestamp::from_seconds(1_703_123_455);
        before.succeeded(Duration::from_micros(100_499), at);
        kept.succeeded(Duration::from_micros(100_499), at);
        before.failed(at.shifted(5_000_000));
        kept.failed(at.shifted(5_000_000));
        let after = PushStats::default();
        after.resume(&kept);
        assert_eq!(after.view(), before.view());
    }
}
