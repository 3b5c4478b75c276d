//! Which events come with values that were pushed before, within a window of time. Pure.
//!
//! ```text
//! fingerprint, position, commit time ─▶ [DedupeWindow] ─ new ─▶ event; the ledger writes it down
//!                                                  └ known ─▶ nobody gets it
//! ```
//!
//! Time is the database's: the commit. The window runs from the event that was pushed, and what is
//! kept back does not prolong it. An event that is read again after a crash is known by its
//! position, and is no repeat of itself.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::time::Duration;

use crate::flow::lsn::Position;
use crate::flow::seen::ValueFingerprint;
use crate::flow::time::Timestamp;

/// Values that one event rule remembers, of about 100 bytes each. Beyond them the oldest is
/// forgotten before its time: its repeat is pushed.
pub(crate) const VALUES_MAX: usize = 100_000;

/// What is remembered of one event rule.
#[derive(Debug)]
pub(crate) struct DedupeWindow {
    length: Duration,
    max: usize,
    known: HashMap<ValueFingerprint, SeenMark>,
    /// In the order in which they were noted; what was noted again since is in it twice.
    order: VecDeque<(ValueFingerprint, SeenMark)>,
    /// Whether something was forgotten before its time.
    overflowed: bool,
    /// Whether that was said.
    pub(crate) told: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct SeenMark {
    position: Position,
    committed: Timestamp,
}

/// What an event is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum SeenSight {
    /// Not seen within the window; it is remembered from now on.
    New,
    /// The very event that is remembered, read again.
    Same,
    Repeat,
}

impl DedupeWindow {
    pub(crate) fn new(length: Duration, max: usize) -> Self {
        let (known, order) = (HashMap::new(), VecDeque::new());
        Self { length, max: max.max(1), known, order, overflowed: false, told: false }
    }

    /// Looks at an event that is to be pushed unless it is a repeat.
    pub(crate) fn see(
        &mut self,
        fingerprint: ValueFingerprint,
        position: Position,
        committed: Timestamp,
    ) -> SeenSight {
        match self.known.get(&fingerprint) {
            Some(mark) if mark.position == position => return SeenSight::Same,
            Some(mark) if committed.since(mark.committed) <= self.length => {
                return SeenSight::Repeat;
            }
            Some(_) | None => {}
        }
        self.note(fingerprint, position, committed);
        SeenSight::New
    }

    /// Remembers an event, as of an earlier run, too.
    pub(crate) fn note(
        &mut self,
        fingerprint: ValueFingerprint,
        position: Position,
        committed: Timestamp,
    ) {
        let mark = SeenMark { position, committed };
        self.known.insert(fingerprint, mark);
        self.order.push_back((fingerprint, mark));
        while let Some((first, mark)) = self.order.front() {
            let is_over = committed.since(mark.committed) > self.length;
            let is_too_much = self.order.len() > self.max;
            if !is_over && !is_too_much {
                break;
            }
            self.overflowed |= !is_over;
            if self.known.get(first) == Some(mark) {
                self.known.remove(first);
            }
            self.order.pop_front();
        }
    }

    /// When the oldest event was committed that is remembered.
    pub(crate) fn oldest(&self) -> Option<Timestamp> {
        self.order.front().map(|(_, mark)| mark.committed)
    }

    /// Whether something was forgotten before its time since the last call.
    pub(crate) fn take_overflowed(&mut self) -> bool {
        std::mem::take(&mut self.overflowed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::lsn::Lsn;
    use proptest::prelude::*;

    fn print(value: u8) -> ValueFingerprint {
        ValueFingerprint::of([[value].as_slice()])
    }

    fn at(number: u64) -> Position {
        Position { commit: Lsn::from_raw(number), ordinal: 0 }
    }

    fn second(number: u64) -> Timestamp {
        Timestamp::from_seconds(i64::try_from(number).unwrap())
    }

    #[test]
    fn the_window_runs_from_what_was_pushed_and_the_last_moment_counts() {
        let mut window = DedupeWindow::new(Duration::from_secs(10), 100);
        let sights = [
            (0, SeenSight::New),
            (9, SeenSight::Repeat),
            (10, SeenSight::Repeat),
            (11, SeenSight::New),
        ];
        for (time, expected) in sights {
            assert_eq!(window.see(print(1), at(time), second(time)), expected, "{time}");
        }
        assert_eq!(window.see(print(1), at(11), second(11)), SeenSight::Same);
        assert_eq!(window.see(print(2), at(12), second(11)), SeenSight::New);
    }

    #[test]
    fn beyond_the_limit_the_oldest_is_forgotten_and_that_is_told_once() {
        let mut window = DedupeWindow::new(Duration::from_secs(10), 2);
        for value in 1..=3 {
            window.see(print(value), at(value.into()), second(0));
        }
        assert!(window.take_overflowed() && !window.take_overflowed());
        assert_eq!(window.see(print(3), at(9), second(1)), SeenSight::Repeat);
        assert_eq!(window.see(print(1), at(10), second(1)), SeenSight::New);
        assert_eq!((window.known.len(), window.order.len()), (2, 2));
    }

    #[test]
    fn parts_do_not_run_into_each_other_and_halves_join() {
        let of = |parts: &[&str]| ValueFingerprint::of(parts.iter().map(|part| part.as_bytes()));
        assert_ne!(of(&["a,b", "c"]), of(&["a", "b,c"]));
        let (high, low) = of(&["x"]).halves();
        assert_eq!(ValueFingerprint::from_halves(high, low), of(&["x"]));
    }

    proptest! {
        /// Against a model that keeps everything: also across restarts that take back what was
        /// read and not settled, of which any part was written down or not.
        #[test]
        fn it_decides_as_one_that_forgets_nothing(
            values in prop::collection::vec((0..6_u8, 0..4_u64), 1..120),
            restarts in prop::collection::vec((0..120_usize, 0..20_usize), 0..4),
        ) {
            const LENGTH: u64 = 5;
            let mut events = Vec::new();
            let mut now = 0;
            for (value, pause) in values {
                now += pause;
                events.push((value, now));
            }
            let mut pushed: Vec<(u8, u64)> = Vec::new();
            let mut expected = Vec::new();
            for &(value, time) in &events {
                let last = pushed.iter().rfind(|(known, _)| *known == value);
                let repeat = last.is_some_and(|(_, then)| time - then <= LENGTH);
                if !repeat {
                    pushed.push((value, time));
                }
                expected.push(!repeat);
            }
            let length = Duration::from_secs(LENGTH);
            let mut window = DedupeWindow::new(length, 1000);
            let mut decided = vec![None; events.len()];
            let mut restarts = restarts.into_iter().rev().collect::<Vec<_>>();
            let mut next = 0;
            while let Some(&(value, time)) = events.get(next) {
                let position = at(next as u64);
                let raised = window.see(print(value), position, second(time)) != SeenSight::Repeat;
                prop_assert!(decided[next].is_none_or(|before| before == raised), "{next} differs");
                decided[next] = Some(raised);
                next += 1;
                if restarts.last().is_some_and(|(when, _)| *when <= next) {
                    // What is settled was written down, what is not comes again.
                    let (_, back) = restarts.pop().unwrap();
                    let settled = next.saturating_sub(back);
                    window = DedupeWindow::new(length, 1000);
                    for (number, &(value, time)) in events.iter().enumerate().take(settled) {
                        if decided[number] == Some(true) {
                            window.note(print(value), at(number as u64), second(time));
                        }
                    }
                    next = settled;
                }
            }
            let decided: Vec<bool> = decided.into_iter().flatten().collect();
            prop_assert_eq!(decided, expected);
            prop_assert!(window.known.len() <= window.order.len());
        }
    }
}
