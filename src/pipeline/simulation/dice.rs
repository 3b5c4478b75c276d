//! Choices that a seed makes, and makes again.

use std::ops::Range;
use std::time::Duration;

/// The source of all choices of one simulation.
#[derive(Debug)]
pub(super) struct SeededDice(fastrand::Rng);

impl SeededDice {
    pub(super) fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    /// True once in so many times; never for 0.
    pub(super) fn one_in(&mut self, times: u32) -> bool {
        times > 0 && self.0.u32(..times) == 0
    }

    /// True so many times of a hundred.
    pub(super) fn percent(&mut self, percent: u32) -> bool {
        self.0.u32(..100) < percent
    }

    pub(super) fn number(&mut self, range: Range<u64>) -> u64 {
        self.0.u64(range)
    }

    pub(super) fn index(&mut self, length: usize) -> usize {
        self.0.usize(..length)
    }

    pub(super) fn millis(&mut self, range: Range<u64>) -> Duration {
        Duration::from_millis(self.0.u64(range))
    }

    pub(super) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.index(of.len())]
    }

    /// A number whose size is any, up to `most`: half of them are small.
    pub(super) fn of_any_size(&mut self, most: u64) -> u64 {
        let bits = self.number(0..u64::from(most.ilog2()) + 1);
        self.number(1..(2 << bits)).min(most)
    }
}
