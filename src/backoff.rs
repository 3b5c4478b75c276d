//! Waits that grow with each failure, with full jitter: for tries to connect again after a loss.
//!
//! Full jitter (each wait is drawn evenly from zero to a growing ceiling) spreads many clients that
//! lost the same server better than a wait with a little noise does. Source: "Exponential Backoff
//! and Jitter", AWS Architecture Blog, 2015.

use std::time::Duration;

/// The next wait of one connection. Its ceiling doubles with each wait, from `first` up to `cap`.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    cap: Duration,
    ceiling: Duration,
}

impl Backoff {
    /// The first wait is at most `first`, every wait at most `cap`.
    pub(crate) fn new(first: Duration, cap: Duration) -> Self {
        let first = first.min(cap);
        Self { first, cap, ceiling: first }
    }

    /// The wait before the next try.
    pub(crate) fn next(&mut self) -> Duration {
        self.next_at(fastrand::f64())
    }

    /// The wait for a chosen random `fraction`, from 0 up to but not including 1.
    pub(crate) fn next_at(&mut self, fraction: f64) -> Duration {
        let wait = self.ceiling.mul_f64(fraction.clamp(0.0, 1.0));
        self.ceiling = self.ceiling.saturating_mul(2).min(self.cap);
        wait
    }

    /// The connection works: the next loss starts with a short wait again.
    pub(crate) fn reset(&mut self) {
        self.ceiling = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ceilings_double_up_to_the_cap_and_start_again_after_a_reset() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(500));
        let halves: Vec<u128> = (0..5).map(|_| backoff.next_at(0.5).as_millis()).collect();
        assert_eq!(halves, [50, 100, 200, 250, 250]);
        backoff.reset();
        assert_eq!(backoff.next_at(0.5).as_millis(), 50);
    }

    #[test]
    fn a_drawn_wait_lies_between_zero_and_its_ceiling() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(1));
        let waits: Vec<Duration> = (0..100).map(|_| backoff.next()).collect();
        assert!(waits.iter().all(|wait| *wait < Duration::from_secs(1)));
        assert!(waits.iter().any(|wait| *wait != waits[0]), "there is no jitter");
    }

    #[test]
    fn extreme_settings_neither_overflow_nor_exceed_the_cap() {
        let mut backoff = Backoff::new(Duration::MAX, Duration::from_secs(5));
        assert!(backoff.next_at(0.99) <= Duration::from_secs(5));
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::MAX);
        for _ in 0..200 {
            let _wait: Duration = backoff.next_at(0.5);
        }
    }
}
