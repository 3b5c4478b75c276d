//! How much a chunk may be, and when the next one is due.
//!
//! Pure. A chunk shall take about [`AIM`], to be read and to be taken by the lanes: then its snapshot holds
//! nothing back, and what is live waits behind few rows.

use std::time::Duration;

/// How long the reading of a chunk, and its way through the lanes, may take.
pub(crate) const AIM: Duration = Duration::from_millis(200);

/// How far a chunk reaches: keys of an index, or blocks of a file.
const REACH_FIRST: u32 = 64;
const REACH_MAX: u32 = 20_000;

/// Rows of a chunk.
pub(crate) const ROWS_MAX: usize = 20_000;

/// Bytes of a chunk's values, at most; the first row comes in any case.
pub(crate) const BYTES_MAX: usize = 4 * 1024 * 1024;

/// Rows that are fetched at once at first, and at most.
const FETCH_FIRST: usize = 1;
const FETCH_MAX: usize = 1_024;

/// The reach of the next chunk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct ChunkReach {
    reach: u32,
    /// Rows a second.
    rate: Option<u32>,
}

impl ChunkReach {
    pub(crate) fn new(rate: Option<u32>) -> Self {
        let first = rate.map_or(REACH_FIRST, |rate| rate.min(REACH_FIRST));
        Self { reach: first.max(1), rate }
    }

    pub(crate) fn get(self) -> u32 {
        self.reach
    }

    /// How many rows the next chunk may have: with a rate, as many as go out in a second.
    pub(crate) fn rows(self) -> usize {
        let rate = self.rate.and_then(|rate| usize::try_from(rate).ok());
        rate.map_or(ROWS_MAX, |rate| rate.clamp(1, ROWS_MAX))
    }

    /// After a chunk whose reading, and whose way to its outcomes, took so long: up to twice as much the next
    /// time, or half. For the sake of its way it becomes no smaller than the first one was: an endpoint that
    /// takes its time, or a stream that has more to do, takes no less of it for a row than for sixty.
    #[must_use]
    pub(crate) fn after(self, read: Duration, sent: Duration) -> Self {
        let (by_reading, by_both) = (self.follow(read), self.follow(read + sent));
        let reach = by_both.max(by_reading.min(REACH_FIRST));
        Self { reach: reach.clamp(1, REACH_MAX), ..self }
    }

    fn follow(self, took: Duration) -> u32 {
        match took {
            took if took > AIM * 2 => self.reach / 2,
            took if took > AIM => self.reach - self.reach / 8,
            took if took > AIM / 2 => self.reach + self.reach / 8,
            _ => self.reach.saturating_mul(2),
        }
    }

    /// How long the next chunk has to wait after one of so many rows.
    pub(crate) fn wait(self, rows: usize) -> Duration {
        let rows = u32::try_from(rows).unwrap_or(u32::MAX);
        self.rate.map_or(Duration::ZERO, |rate| Duration::from_secs(1) * rows / rate.max(1))
    }
}

/// How many rows to fetch next, from what has come of the chunk: more while they are small.
pub(crate) fn next_fetch(rows: usize, bytes: usize, rows_max: usize) -> usize {
    let room = BYTES_MAX.saturating_sub(bytes);
    let each = (bytes / rows.max(1)).max(1);
    // Rows may be larger than those before them: half of the room, and no more than twice as many.
    let fetch = if rows == 0 { FETCH_FIRST } else { (room / each / 2).min(rows * 2) };
    fetch.clamp(1, FETCH_MAX).min(rows_max.saturating_sub(rows).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_reach_follows_the_time_that_a_chunk_takes() {
        let mut reach = ChunkReach::new(None);
        for _ in 0..20 {
            reach = reach.after(Duration::from_millis(1), Duration::ZERO);
        }
        assert_eq!(reach.get(), REACH_MAX);
        for _ in 0..40 {
            reach = reach.after(Duration::from_secs(5), Duration::ZERO);
        }
        assert_eq!(reach.get(), 1);
    }

    #[test]
    fn an_endpoint_that_takes_its_time_makes_a_chunk_no_smaller_than_the_first() {
        let (quick, slow) = (Duration::from_millis(1), Duration::from_secs(5));
        let mut reach = ChunkReach::new(None);
        for _ in 0..20 {
            reach = reach.after(quick, slow);
        }
        assert_eq!(reach.get(), REACH_FIRST);
        let mut grown = (0..20).fold(reach, |reach, _| reach.after(quick, quick));
        assert_eq!(grown.get(), REACH_MAX);
        grown = (0..40).fold(grown, |reach, _| reach.after(quick, slow));
        assert_eq!(grown.get(), REACH_FIRST, "what is live waits behind few rows");
        grown = (0..40).fold(grown, |reach, _| reach.after(slow, quick));
        assert_eq!(grown.get(), 1);
        grown = (0..40).fold(grown, |reach, _| reach.after(quick, slow));
        assert_eq!(grown.get(), REACH_FIRST, "it comes back from slow reading");
    }

    #[test]
    fn a_rate_bounds_a_chunk_and_spaces_them() {
        let reach = ChunkReach::new(Some(10));
        assert_eq!((reach.get(), reach.rows()), (10, 10));
        assert_eq!(reach.wait(10), Duration::from_secs(1));
        assert_eq!(reach.wait(5), Duration::from_millis(500));
        assert_eq!(ChunkReach::new(None).wait(5000), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn rows_of_one_size_stay_within_the_bounds(each in 1_usize..1_000_000, rows_max in 1_usize..6000) {
            let (mut rows, mut bytes) = (0, 0);
            while bytes < BYTES_MAX && rows < rows_max {
                let fetch = next_fetch(rows, bytes, rows_max);
                prop_assert!(fetch >= 1);
                rows += fetch;
                bytes += fetch * each;
            }
            prop_assert!(rows <= rows_max);
            prop_assert!(bytes <= BYTES_MAX + FETCH_FIRST * each, "{bytes}");
        }
    }
}
