//! How many requests may be in flight at once: as many as the endpoint bears, up to `concurrency`.
//!
//! A receiver that takes long needs many at once, and one that is short of room answers 429 or 503, or
//! takes longer the more it gets. So, as TCP finds the width of a line: from a few on, twice as many
//! with each round trip, then a few more; and a third less as soon as the endpoint refuses for want of
//! room, or its quickest answers take much longer than they did. If fewer requests do not make them
//! quicker, it is not their number that makes them slow, and it goes back.
//!
//! Pure. Only for lanes that may have more than a handful: the others keep what was configured.

use std::num::NonZeroUsize;
use std::time::Duration;

use crate::flow::lease::LeaseId;

/// Up to so many are not worth finding out.
const STEADY_MAX: usize = 8;

/// So many at first, where more may be configured than an operator would set by hand.
const FIRST: f64 = 16.0;

/// Up to so many are begun with at once.
const AT_ONCE_MAX: usize = 100;

/// Answers that a round needs: one of a few may be slow by chance.
const ROUND_ANSWERS_MIN: u32 = 8;

/// What is left after a sign of too much.
const CUT: f64 = 0.7;

/// Answers that take this much longer than the quickest so far, and twice as long, are a sign. Less
/// than this comes from the machines' other work.
const SLOWER_BY: Duration = Duration::from_millis(25);

/// Adapts the number of requests in flight to what the endpoint bears.
#[derive(Debug)]
pub(super) struct ConcurrencyLimit {
    full: usize,
    limit: f64,
    is_steady: bool,
    /// No sign of too much has come yet.
    is_starting: bool,
    /// How long the quickest answers take when the endpoint is not pressed.
    usual: Option<Duration>,
    /// The limit was cut because answers took this long, from so many.
    on_trial: Option<(Duration, f64)>,
    /// The last request that was started.
    last: LeaseId,
    /// Refusals of requests up to this one are told by the last cut already.
    cut_at: LeaseId,
    round: LatencyRound,
}

/// About one round trip.
#[derive(Debug)]
struct LatencyRound {
    /// It began before this request.
    first: LeaseId,
    answers: u32,
    quickest: Duration,
    /// Whether as many were in flight as may be.
    was_full: bool,
}

impl LatencyRound {
    fn after(last: LeaseId) -> Self {
        let first = LeaseId(last.0 + 1);
        Self { first, answers: 0, quickest: Duration::MAX, was_full: false }
    }
}

impl ConcurrencyLimit {
    /// `is_steady`: it stays as configured, whatever happens.
    pub(super) fn new(concurrency: NonZeroUsize, is_steady: bool) -> Self {
        let full = concurrency.get();
        let is_steady = is_steady || full <= STEADY_MAX;
        let limit = if is_steady || full <= AT_ONCE_MAX { width(full) } else { FIRST };
        Self {
            full,
            limit,
            is_steady,
            is_starting: true,
            usual: None,
            on_trial: None,
            last: LeaseId(0),
            cut_at: LeaseId(0),
            round: LatencyRound::after(LeaseId(0)),
        }
    }

    /// Another concurrency. What was found out about the endpoint holds, as far as it is the same.
    pub(super) fn widen(&mut self, concurrency: NonZeroUsize, is_steady: bool) {
        if concurrency.get() != self.full || is_steady != self.is_steady {
            let found = Self::new(concurrency, is_steady);
            let (last, cut_at) = (self.last, self.last);
            *self = Self { last, cut_at, round: LatencyRound::after(last), ..found };
        }
    }

    /// How many requests may be in flight.
    pub(super) fn allowed(&self) -> usize {
        // From 1 to `full`, which is a small number.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "see above")]
        let allowed = self.limit as usize;
        allowed.clamp(1, self.full)
    }

    /// How long the quickest answers take; `None` where the limit is as configured.
    pub(super) fn usual(&self) -> Option<Duration> {
        (!self.is_steady).then(|| self.usual.unwrap_or_default())
    }

    /// A request has started, and with it so many are in flight.
    pub(super) fn started(&mut self, id: LeaseId, in_flight: usize) {
        self.last = id;
        self.round.was_full |= in_flight >= self.allowed();
    }

    /// The endpoint took a request, within this time.
    pub(super) fn answered(&mut self, id: LeaseId, took: Duration) {
        // What was started before the round tells of another number of requests.
        if self.is_steady || id < self.round.first {
            return;
        }
        self.round.answers += 1;
        self.round.quickest = self.round.quickest.min(took);
        if self.round.answers >= ROUND_ANSWERS_MIN {
            let round = std::mem::replace(&mut self.round, LatencyRound::after(self.last));
            self.judge(&round);
        }
    }

    /// The endpoint refused a request for want of room.
    pub(super) fn refused(&mut self, id: LeaseId) {
        if self.is_steady || id <= self.cut_at {
            return;
        }
        self.limit = (self.limit * CUT).max(1.0);
        (self.is_starting, self.on_trial, self.cut_at) = (false, None, self.last);
        self.round = LatencyRound::after(self.last);
    }

    fn judge(&mut self, round: &LatencyRound) {
        let quickest = round.quickest;
        if let Some((before, limit)) = self.on_trial.take()
            && quickest > before.mul_f64((1.0 + CUT) / 2.0)
        {
            // Fewer requests are not answered sooner: this is how long the endpoint takes.
            (self.usual, self.limit) = (Some(quickest), limit);
            return;
        }
        let usual = match self.usual {
            Some(usual) if usual < quickest && round.was_full => usual,
            // Slowly up again, for what has become slower though it is not pressed.
            Some(usual) if usual < quickest => usual + (quickest - usual) / 64,
            _ => quickest,
        };
        self.usual = Some(usual);
        if quickest > (usual * 2).max(usual + SLOWER_BY) && self.allowed() > STEADY_MAX {
            self.on_trial = Some((quickest, self.limit));
            self.is_starting = false;
            self.limit = (self.limit * CUT).max(width(STEADY_MAX));
        } else if round.was_full {
            let more = if self.is_starting { self.limit } else { self.limit.sqrt() };
            self.limit = (self.limit + more).min(width(self.full));
        }
    }
}

/// Limits are small numbers.
#[expect(clippy::cast_precision_loss, reason = "see above")]
fn width(number: usize) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// An endpoint that answers after `latency`, and what a lane with much to do makes of it.
    struct World {
        limit: ConcurrencyLimit,
        next: u64,
        most: usize,
    }

    impl World {
        fn new(concurrency: usize) -> Self {
            let concurrency = NonZeroUsize::new(concurrency).unwrap();
            Self { limit: ConcurrencyLimit::new(concurrency, false), next: 0, most: 0 }
        }

        /// Rounds in which all that may be in flight is: `bears` of them are taken, within the time
        /// that `latency` tells of their number; the others are refused.
        fn rounds(&mut self, rounds: usize, bears: usize, latency: impl Fn(usize) -> Duration) {
            for _ in 0..rounds {
                let count = self.limit.allowed();
                self.most = self.most.max(count);
                let first = self.next + 1;
                for in_flight in 1..=count {
                    self.next += 1;
                    self.limit.started(LeaseId(self.next), in_flight);
                }
                for (nth, id) in (first..=self.next).enumerate() {
                    match nth < bears {
                        true => self.limit.answered(LeaseId(id), latency(count)),
                        false => self.limit.refused(LeaseId(id)),
                    }
                }
            }
        }
    }

    #[test]
    fn an_endpoint_that_only_takes_its_time_gets_all_that_may_be_in_a_few_round_trips() {
        for latency in [MS, 20 * MS, 200 * MS, 5_000 * MS] {
            let mut world = World::new(512);
            assert_eq!(world.limit.allowed(), 16);
            world.rounds(12, usize::MAX, |_| latency);
            assert_eq!(world.limit.allowed(), 512, "{latency:?}");
        }
    }

    #[test]
    fn an_endpoint_that_refuses_what_is_too_much_gets_about_what_it_bears() {
        for bears in [1, 3, 10, 100] {
            let mut world = World::new(512);
            world.rounds(60, bears, |_| 20 * MS);
            world.most = 0;
            let mut sum = 0;
            for _ in 0..40 {
                world.rounds(1, bears, |_| 20 * MS);
                sum += world.limit.allowed();
            }
            let mean = sum / 40;
            assert!(mean >= bears.div_ceil(2) && mean <= 2 * bears + 1, "{mean} of {bears}");
            assert!(world.most <= 2 * bears + 1, "{} of {bears}", world.most);
        }
    }

    #[test]
    fn an_endpoint_that_takes_longer_the_more_it_gets_is_not_pressed_further() {
        let mut world = World::new(4096);
        // It works on 20 at a time, each for 10 ms; the others wait their turn.
        let queues = |count: usize| 10 * MS * u32::try_from(count.div_ceil(20)).unwrap();
        world.rounds(60, usize::MAX, queues);
        world.most = 0;
        world.rounds(60, usize::MAX, queues);
        assert!((20..=160).contains(&world.most), "{}", world.most);
    }

    #[test]
    fn what_has_become_slower_for_another_reason_gets_as_many_as_before() {
        let mut world = World::new(128);
        world.rounds(12, usize::MAX, |_| MS);
        assert_eq!(world.limit.allowed(), 128);
        world.rounds(4, usize::MAX, |_| 300 * MS);
        assert_eq!(world.limit.allowed(), 128, "fewer at once would only make it slower");
    }

    #[test]
    fn a_single_slow_answer_is_no_sign() {
        let mut world = World::new(128);
        world.rounds(12, usize::MAX, |_| MS);
        let ids = (world.next + 1)..=(world.next + 100);
        for id in ids {
            world.limit.started(LeaseId(id), 100);
            world.limit.answered(LeaseId(id), if id % 10 == 0 { 900 * MS } else { MS });
        }
        assert_eq!(world.limit.allowed(), 128);
    }

    #[test]
    fn a_few_are_as_configured_whatever_happens() {
        let mut world = World::new(3);
        assert_eq!(world.limit.allowed(), 3);
        world.rounds(5, 0, |_| MS);
        assert_eq!(world.limit.allowed(), 3);
        assert_eq!(World::new(64).limit.allowed(), 64, "what was set by hand is begun with");
    }
}
