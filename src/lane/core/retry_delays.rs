//! How long a failed delivery waits before it is tried again.

use std::time::Duration;

use crate::config::settings::RetryDelays;
use crate::config::settings::RetrySettings;

/// What a receiver asks for is a lower bound: jitter only adds to it, up to this share.
const SPREAD_ADDED: f64 = 0.1;

/// Between attempts that do not count: at once, then from a second on.
const UNSPENT: RetrySettings = RetrySettings {
    delays: RetryDelays::Exponential { max: u32::MAX, interval: Duration::from_secs(1) },
    cap: Duration::from_secs(30),
};

/// The wait after attempt number `attempt` (from 1) failed; `None` if it was the last.
///
/// `asked` is what the receiver wants (`Retry-After`): it can make the wait longer than our own
/// delay, up to the cap, and never shorter. `fraction` is random, from 0 up to 1.
pub(super) fn retry_delay(
    policy: &RetrySettings,
    attempt: u32,
    asked: Option<Duration>,
    fraction: f64,
) -> Option<Duration> {
    let fraction = fraction.clamp(0.0, 1.0);
    let lengthened = |wait: Duration| stretch(wait, 1.0 + SPREAD_ADDED * fraction);
    let retry = attempt.saturating_sub(1);
    let own = match &policy.delays {
        RetryDelays::Exponential { max, interval } => {
            if retry >= *max {
                return None;
            }
            let plain = 2u32.checked_pow(retry).and_then(|times| interval.checked_mul(times));
            let (from, to) = (RetrySettings::SPREAD_FROM, RetrySettings::SPREAD_TO);
            // The spread ends at the cap. A clamp after the spread would collect much of it there.
            let plain = plain.unwrap_or(Duration::MAX).min(policy.cap.div_f64(to));
            stretch(plain, from + (to - from) * fraction)
        }
        // The list is the operator's own word: to the letter, and the cap does not shorten it.
        RetryDelays::List(delays) => *delays.get(usize::try_from(retry).ok()?)?,
    };
    let asked = asked.map_or(Duration::ZERO, |asked| lengthened(asked).min(policy.cap));
    Some(own.max(asked))
}

/// The wait after attempts that do not count, `unspent` in a row. `at_once`: the first may be made
/// again without a wait.
pub(super) fn unspent_delay(unspent: u32, at_once: bool, fraction: f64) -> Duration {
    let number = if at_once { unspent.saturating_sub(1) } else { unspent };
    if number == 0 {
        return Duration::ZERO;
    }
    retry_delay(&UNSPENT, number, None, fraction).unwrap_or(UNSPENT.cap)
}

/// `wait` times `factor`; the longest duration where that does not fit.
fn stretch(wait: Duration, factor: f64) -> Duration {
    Duration::try_from_secs_f64(wait.as_secs_f64() * factor).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn exponential() -> RetrySettings {
        RetrySettings {
            delays: RetryDelays::Exponential { max: 4, interval: SECOND },
            cap: 5 * SECOND,
        }
    }

    fn list() -> RetrySettings {
        RetrySettings {
            delays: RetryDelays::List(vec![10 * SECOND, 30 * SECOND]),
            cap: 20 * SECOND,
        }
    }

    #[test]
    fn each_failure_has_its_delay() {
        let asked = |seconds| Some(Duration::from_secs(seconds));
        let millis = |millis| Some(Duration::from_millis(millis));
        let cases = [
            ("first, shortest", exponential(), 1, None, 0.0, millis(750)),
            ("first, middle", exponential(), 1, None, 0.5, millis(1000)),
            ("second", exponential(), 2, None, 0.5, millis(2000)),
            ("third, spread ends at the cap", exponential(), 3, None, 1.0, millis(5000)),
            ("fourth is held down by the cap", exponential(), 4, None, 0.5, millis(4000)),
            ("exhausted", exponential(), 5, None, 0.5, None),
            ("exhausted, whatever was asked", exponential(), 5, asked(1), 0.5, None),
            ("asked for less than our own", exponential(), 2, asked(1), 0.5, millis(2000)),
            ("asked for more than our own", exponential(), 1, asked(3), 0.0, millis(3000)),
            ("asked waits are spread too", exponential(), 1, asked(3), 0.5, millis(3150)),
            ("asked for a week", exponential(), 1, asked(604_800), 0.5, millis(5000)),
            ("listed", list(), 1, None, 0.0, millis(10_000)),
            ("listed, to the letter", list(), 1, None, 0.5, millis(10_000)),
            ("listed beyond the cap", list(), 2, None, 0.0, millis(30_000)),
            ("listed, asked for more", list(), 1, asked(15), 0.0, millis(15_000)),
            ("listed, asked for more than the cap", list(), 1, asked(90), 0.0, millis(20_000)),
            ("list at its end", list(), 3, None, 0.0, None),
        ];
        for (name, policy, attempt, asked, fraction, expected) in cases {
            let delay = retry_delay(&policy, attempt, asked, fraction);
            assert_eq!(delay, expected, "case: {name}");
        }
    }

    #[test]
    fn attempts_that_do_not_count_wait_longer_and_longer_up_to_half_a_minute() {
        let waits = |at_once| {
            let wait = |unspent| unspent_delay(unspent, at_once, 0.5).as_secs();
            [1, 2, 3, 6, 40].map(wait)
        };
        assert_eq!(waits(true), [0, 1, 2, 16, 24]);
        assert_eq!(waits(false), [1, 2, 4, 24, 24]);
    }

    proptest! {
        #[test]
        fn a_delay_is_at_least_what_was_asked_and_at_most_the_cap(
            attempt in 1..80u32,
            interval in 0..u64::MAX,
            cap in 0..u64::MAX,
            asked in 0..u64::MAX,
            fraction in 0.0..1.0f64,
        ) {
            let (cap, asked) = (Duration::from_millis(cap), Duration::from_millis(asked));
            let interval = Duration::from_millis(interval);
            let policy = RetrySettings { delays: RetryDelays::Exponential { max: 100, interval }, cap };
            let delay = retry_delay(&policy, attempt, Some(asked), fraction).unwrap();
            // Durations pass through floating point, which is exact to about 1 in 10^15.
            let slack = Duration::from_nanos(1) + cap / 1_000_000_000;
            prop_assert!(delay <= cap + slack, "{delay:?} is longer than {cap:?}");
            prop_assert!(delay + slack >= asked.min(cap), "{delay:?} is too soon for {asked:?}");
        }
    }
}
