//! How fast a lane may start requests: the endpoint's rate limit, and the ramp after an outage.

use std::num::NonZeroUsize;
use std::time::Duration;
use std::time::Instant;

/// So many failures in a row, without one answer between them, speak for an outage of the endpoint
/// and not for a bad event.
const OUTAGE_AFTER: u32 = 3;

/// How far starts may fall behind their even spacing and still be caught up with. Timers wake up to
/// some milliseconds late: without this, a limit above some hundred a second was never reached.
const CATCH_UP: Duration = Duration::from_millis(10);

/// Longer waits are as good as this one, and cannot overflow a clock.
const FAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// `now + wait`, for a wait of any length.
pub(super) fn later(now: Instant, wait: Duration) -> Instant {
    now.checked_add(wait.min(FAR)).unwrap_or(now)
}

/// Spaces the starts of requests evenly: the generic cell rate algorithm (ITU-T I.371).
///
/// In any time `t` there are at most `(t + CATCH_UP) * limit + 1` starts.
#[derive(Debug)]
pub(super) struct RateLimit {
    /// `None` without a limit.
    interval: Option<Duration>,
    /// When the next start is due if they are spaced evenly.
    due: Option<Instant>,
    /// Until when the endpoint wants nothing.
    not_before: Option<Instant>,
}

impl RateLimit {
    /// `limit` is in requests per second.
    pub(super) fn new(limit: Option<f64>) -> Self {
        let interval = |limit: f64| Duration::try_from_secs_f64(limit.recip()).unwrap_or(FAR);
        Self { interval: limit.map(interval), due: None, not_before: None }
    }

    /// Another limit, from the next start on.
    pub(super) fn limit(&mut self, limit: Option<f64>) {
        self.interval = Self::new(limit).interval;
        // A start that was due in a long time by a low limit does not bind a higher one.
        self.due = None;
    }

    /// When the next request may start; `None` means at once.
    pub(super) fn free_at(&self, now: Instant) -> Option<Instant> {
        let not_before = self.not_before.filter(|not_before| *not_before > now);
        let due = self.due.filter(|due| *due > later(now, CATCH_UP));
        not_before.max(due.map(|due| due.checked_sub(CATCH_UP).unwrap_or(due)))
    }

    /// The endpoint wants nothing for this time.
    pub(super) fn wal_hold(&mut self, now: Instant, wait: Duration) {
        self.not_before = self.not_before.max(Some(later(now, wait)));
    }

    /// What it wanted holds no more.
    pub(super) fn release(&mut self) {
        self.not_before = None;
    }

    /// A request starts.
    pub(super) fn start(&mut self, now: Instant) {
        if let Some(interval) = self.interval {
            self.due = Some(later(self.due.map_or(now, |due| due.max(now)), interval));
        }
    }
}

/// How many requests may be in flight: one after an outage, twice as many with each success.
#[derive(Debug)]
pub(super) struct RecoveryRamp {
    /// Whether it stays as it is whatever happens: the operator's schedule comes first.
    is_steady: bool,
    full: usize,
    allowed: usize,
    failures_in_row: u32,
}

impl RecoveryRamp {
    pub(super) fn new(concurrency: NonZeroUsize, is_steady: bool) -> Self {
        let full = concurrency.get();
        Self { is_steady, full, allowed: full, failures_in_row: 0 }
    }

    /// Another concurrency; an outage stays one.
    pub(super) fn widen(&mut self, concurrency: NonZeroUsize, is_steady: bool) {
        let was_reduced = self.is_reduced() && !is_steady;
        self.is_steady = is_steady;
        self.full = concurrency.get();
        self.allowed = if was_reduced { self.allowed.min(self.full) } else { self.full };
    }

    pub(super) fn allowed(&self) -> usize {
        self.allowed
    }

    /// Whether fewer are allowed than the endpoint's concurrency.
    pub(super) fn is_reduced(&self) -> bool {
        self.allowed < self.full
    }

    /// The endpoint took a request, or refused it for what it said: it is there.
    pub(super) fn answered(&mut self) {
        self.failures_in_row = 0;
        self.allowed = self.allowed.saturating_mul(2).min(self.full);
    }

    /// The endpoint is out of order: it begins with one request.
    pub(super) fn restart(&mut self) {
        self.allowed = if self.is_steady { self.full } else { 1 };
    }

    /// An attempt failed in a way that may pass.
    pub(super) fn failed(&mut self) {
        self.failures_in_row = self.failures_in_row.saturating_add(1);
        if self.failures_in_row >= OUTAGE_AFTER {
            self.restart();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_ramp_starts_from_one_after_an_outage_and_doubles() {
        let mut ramp = RecoveryRamp::new(NonZeroUsize::new(10).unwrap(), false);
        ramp.failed();
        ramp.failed();
        ramp.answered();
        ramp.failed();
        ramp.failed();
        assert_eq!(ramp.allowed(), 10, "an answer in between: the events failed, not the endpoint");
        ramp.failed();
        let mut seen = vec![ramp.allowed()];
        for _ in 0..5 {
            ramp.answered();
            seen.push(ramp.allowed());
        }
        assert_eq!(seen, [1, 2, 4, 8, 10, 10]);
    }

    #[test]
    fn a_slow_rate_is_spaced_evenly_from_the_first_request() {
        let start = Instant::now();
        let mut rate = RateLimit::new(Some(2.0));
        assert_eq!(rate.free_at(start), None);
        rate.start(start);
        let next = rate.free_at(start).unwrap();
        assert_eq!(next, start + Duration::from_millis(490));
        assert_eq!(rate.free_at(next), None);
        rate.start(next);
        let free = rate.free_at(next).unwrap();
        assert_eq!(free, start + Duration::from_millis(990), "the catch-up does not add up");
    }

    #[test]
    fn an_endpoint_that_is_held_starts_nothing_until_then_whatever_its_limit() {
        let start = Instant::now();
        for limit in [None, Some(10.0)] {
            let mut rate = RateLimit::new(limit);
            rate.wal_hold(start, Duration::from_secs(60));
            rate.wal_hold(start, Duration::from_secs(5));
            rate.start(start);
            let until = start + Duration::from_secs(60);
            assert_eq!(rate.free_at(start), Some(until));
            assert_eq!(rate.free_at(until), None);
            rate.release();
            assert!(rate.free_at(start).is_none_or(|free| free < until));
        }
    }

    #[test]
    fn absurd_limits_do_not_overflow() {
        let now = Instant::now();
        for limit in [0.0, -1.0, f64::NAN, f64::INFINITY, f64::MIN_POSITIVE, 1e300] {
            let mut rate = RateLimit::new(Some(limit));
            for _ in 0..3 {
                rate.start(now);
                let _free: Option<Instant> = rate.free_at(now);
            }
        }
        assert!(later(now, Duration::MAX) > now);
    }

    proptest! {
        #[test]
        fn no_span_of_time_sees_more_starts_than_the_limit(
            limit in 0.5..5_000.0f64,
            pauses in prop::collection::vec(0..30_000u64, 1..40),
        ) {
            let mut rate = RateLimit::new(Some(limit));
            let mut now = Instant::now();
            let mut starts = Vec::new();
            for pause in pauses {
                now += Duration::from_micros(pause);
                // Greedy: as many as it lets through, up to a bound for the test's sake.
                for _ in 0..20 {
                    if rate.free_at(now).is_none() {
                        rate.start(now);
                        starts.push(now);
                    }
                }
            }
            for (i, from) in starts.iter().enumerate() {
                for (count, to) in starts.iter().skip(i).enumerate() {
                    let span = to.duration_since(*from) + CATCH_UP;
                    let most = span.as_secs_f64() * limit + 1.001;
                    prop_assert!((count + 1) as f64 <= most, "{} starts in {span:?}", count + 1);
                }
            }
        }
    }
}
