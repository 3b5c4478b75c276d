//! Up to where everything is settled.
//!
//! ```text
//! pump ─ open, commit, idle ─▶ [Watermark] ─ confirmable ─▶ source
//! ledger ─ settle ───────────▶
//! ```
//!
//! Nothing is confirmed to PostgreSQL before it is settled: what is confirmed is never sent again.

use std::collections::VecDeque;

use crate::flow::lsn::Lsn;
use crate::flow::lsn::Position;
use crate::flow::time::Timestamp;

/// What the pump tells the watermark, in commit order, before the lanes hear of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Opened {
    /// An event is about to be handed to `owed` lanes.
    Event { position: Position, committed: Timestamp, owed: u32 },
    /// See [`Watermark::boundary`].
    Boundary { end: Lsn },
}

/// Follows events from the moment they are handed to lanes until every endpoint has settled them.
///
/// Memory grows with what is in flight, not with the length of a transaction: a settled prefix is
/// forgotten at once, also in the middle of one.
#[derive(Debug, Default)]
pub struct Watermark {
    /// Sequence number of the first entry.
    first: u64,
    /// Events that are not in the settled prefix, in commit order.
    open: VecDeque<Entry>,
    confirmable: Lsn,
    settled: Option<Position>,
}

#[derive(Debug)]
struct Entry {
    position: Position,
    committed: Timestamp,
    /// Endpoints that have not settled it yet.
    owed: u32,
    /// What may be confirmed once this event and everything before it is settled; `ZERO` while
    /// its transaction goes on.
    boundary: Lsn,
}

impl Watermark {
    /// The number that the next event will get.
    pub fn next_sequence(&self) -> u64 {
        self.first + self.open.len() as u64
    }

    /// An event is about to be handed to `owed` lanes. Returns its number: events are counted
    /// from 0 in this order.
    pub fn open(&mut self, position: Position, committed: Timestamp, owed: u32) -> u64 {
        let sequence = self.next_sequence();
        self.open.push_back(Entry { position, committed, owed, boundary: Lsn::ZERO });
        self.advance();
        sequence
    }

    /// All events before this call belong to transactions that end at or before `end`, and all
    /// later ones to transactions that end after it: a commit, or a keepalive while none is open.
    pub fn boundary(&mut self, end: Lsn) {
        match self.open.back_mut() {
            Some(entry) => entry.boundary = entry.boundary.max(end),
            None => self.confirmable = self.confirmable.max(end),
        }
    }

    /// One endpoint has settled the event with this number.
    pub fn settle(&mut self, sequence: u64) {
        let offset = sequence.checked_sub(self.first).and_then(|n| usize::try_from(n).ok());
        match offset.and_then(|offset| self.open.get_mut(offset)) {
            Some(entry) if entry.owed > 0 => entry.owed -= 1,
            _ => debug_assert!(false, "event {sequence} is settled more often than it was owed"),
        }
        self.advance();
    }

    /// [`Self::open`] or [`Self::boundary`].
    pub fn note(&mut self, opened: Opened) {
        match opened {
            Opened::Event { position, committed, owed } => {
                self.open(position, committed, owed);
            }
            Opened::Boundary { end } => self.boundary(end),
        }
    }

    fn advance(&mut self) {
        while let Some(entry) = self.open.pop_front_if(|entry| entry.owed == 0) {
            self.first += 1;
            self.settled = Some(entry.position);
            self.confirmable = self.confirmable.max(entry.boundary);
        }
    }

    /// What may be confirmed to PostgreSQL. It never goes back.
    pub fn confirmable(&self) -> Lsn {
        self.confirmable
    }

    /// The last event of the settled prefix; `None` before the first.
    pub fn settled(&self) -> Option<Position> {
        self.settled
    }

    /// When the oldest event that is not settled was committed; `None` if all are.
    pub fn oldest(&self) -> Option<Timestamp> {
        self.open.front().map(|entry| entry.committed)
    }

    /// Events that are not in the settled prefix.
    pub fn open_events(&self) -> usize {
        self.open.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Step {
        Event {
            owed: u32,
        },
        Boundary,
        /// Settles one owed delivery, chosen by this number.
        Settle(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (0..4u32).prop_map(|owed| Step::Event { owed }),
            2 => Just(Step::Boundary),
            6 => any::<usize>().prop_map(Step::Settle),
        ];
        prop::collection::vec(step, 0..200)
    }

    /// The model keeps everything for ever and looks through all of it.
    #[derive(Default)]
    struct Model {
        events: Vec<u32>,
        boundaries: Vec<(usize, u64)>,
    }

    impl Model {
        fn confirmable(&self) -> u64 {
            let settled = self.events.iter().take_while(|&&owed| owed == 0).count();
            let reached = self.boundaries.iter().filter(|(events, _)| *events <= settled);
            reached.map(|&(_, end)| end).max().unwrap_or(0)
        }
    }

    proptest! {
        #[test]
        fn nothing_is_confirmable_before_all_of_it_is_settled(steps in steps()) {
            let mut mark = Watermark::default();
            let mut model = Model::default();
            let mut wal = 0;
            let mut before = Lsn::ZERO;
            for step in steps {
                wal += 1;
                match step {
                    Step::Event { owed } => {
                        let position = Position { commit: Lsn::from_raw(wal), ordinal: 0 };
                        let sequence = mark.open(position, Timestamp::default(), owed);
                        prop_assert_eq!(sequence, model.events.len() as u64);
                        model.events.push(owed);
                    }
                    Step::Boundary => {
                        mark.boundary(Lsn::from_raw(wal));
                        model.boundaries.push((model.events.len(), wal));
                    }
                    Step::Settle(choice) => {
                        let owing: Vec<usize> =
                            (0..model.events.len()).filter(|&i| model.events[i] > 0).collect();
                        if owing.is_empty() {
                            continue;
                        }
                        let chosen = owing[choice % owing.len()];
                        model.events[chosen] -= 1;
                        mark.settle(chosen as u64);
                    }
                }
                prop_assert_eq!(mark.confirmable(), Lsn::from_raw(model.confirmable()));
                prop_assert!(mark.confirmable() >= before, "it went back");
                before = mark.confirmable();
            }
        }
    }
}
