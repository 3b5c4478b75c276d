//! When the transactions were committed that positions of the WAL lie behind: for the ledger, which
//! writes the time beside the position that is confirmed.

use std::collections::VecDeque;
use std::time::Duration;

use crate::flow::lsn::Lsn;
use crate::flow::time::Timestamp;

/// Transactions within this time of each other count as one, at first.
const GRAIN: Duration = Duration::from_secs(1);

/// So many are remembered. Where there are more, the grain is doubled.
const KEPT_MAX: usize = 4096;

/// Ends of transactions and their commit times, in the order of the WAL.
#[derive(Debug)]
pub(crate) struct CommitTimes {
    known: VecDeque<(Lsn, Timestamp)>,
    grain: Duration,
}

impl Default for CommitTimes {
    fn default() -> Self {
        Self { known: VecDeque::new(), grain: GRAIN }
    }
}

impl CommitTimes {
    /// A transaction that ends at `end` was committed then.
    pub(crate) fn note(&mut self, end: Lsn, committed: Timestamp) {
        let is_new =
            |&(last, at): &(Lsn, Timestamp)| end > last && distance(committed, at) >= self.grain;
        if !self.known.back().is_none_or(is_new) {
            return;
        }
        while self.known.len() >= KEPT_MAX {
            self.grain *= 2;
            let mut last = None;
            self.known.retain(|&(_, at)| {
                let is_kept = last.is_none_or(|last| distance(at, last) >= self.grain);
                if is_kept {
                    last = Some(at);
                }
                is_kept
            });
        }
        self.known.push_back((end, committed));
    }

    /// The commit time of the last transaction known to end at or before `position`; what lies before
    /// that one is forgotten.
    pub(crate) fn before(&mut self, position: Lsn) -> Option<Timestamp> {
        while self.known.get(1).is_some_and(|(end, _)| *end <= position) {
            self.known.pop_front();
        }
        self.known.front().filter(|(end, _)| *end <= position).map(|(_, committed)| *committed)
    }
}

fn distance(one: Timestamp, other: Timestamp) -> Duration {
    one.since(other).max(other.since(one))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_has_the_time_of_the_last_commit_before_it() {
        let (lsn, at) = (Lsn::from_raw, Timestamp::from_seconds);
        let mut times = CommitTimes::default();
        assert_eq!(times.before(lsn(5)), None);
        times.note(lsn(10), at(100));
        times.note(lsn(11), at(100));
        times.note(lsn(20), at(105));
        times.note(lsn(30), at(50));
        assert_eq!(times.before(lsn(9)), None);
        assert_eq!(times.before(lsn(19)), Some(at(100)));
        assert_eq!(times.before(lsn(20)), Some(at(105)));
        assert_eq!(times.before(lsn(19)), None, "forgotten");
        assert_eq!(times.before(lsn(90)), Some(at(50)), "the server's clock was set back");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut times = CommitTimes::default();
        for n in 1..100_000 {
            times.note(Lsn::from_raw(n * 10), Timestamp::from_seconds(n.cast_signed() * 2));
        }
        assert!(times.known.len() <= KEPT_MAX, "{}", times.known.len());
        let found = times.before(Lsn::from_raw(500_000)).unwrap().seconds();
        assert!((99_000..=100_000).contains(&found), "{found}");
    }
}
