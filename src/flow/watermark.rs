//! Up to where everything is settled.
//!
//! ```text
//! pump ─ open, commit, idle ─▶ [Watermark] ─ confirmable ─▶ source
//! ledger ─ settle ───────────▶
//! ```
//!
//! Nothing is confirmed to PostgreSQL before it is settled: what is confirmed is never sent again.

use std::collections::BTreeMap;
use std::collections::btree_map;

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
/// Memory grows with the events that are not settled, not with the length of a transaction and not
/// with what is settled behind an event that is stuck: a settled event is forgotten at once, and
/// what it stood for is left to the one before it.
#[derive(Debug, Default)]
pub struct Watermark {
    next_sequence: u64,
    /// Events that are not settled, by number.
    open: BTreeMap<u64, Entry>,
    confirmable: Lsn,
    settled: Option<Position>,
}

#[derive(Debug)]
struct Entry {
    committed: Timestamp,
    /// Endpoints that have not settled it yet.
    owed: u32,
    /// The last of the events from this one on, up to the next open one.
    last: Position,
    /// What may be confirmed once this event and everything before it is settled; `ZERO` while
    /// its transaction goes on.
    boundary: Lsn,
}

impl Watermark {
    /// The number that the next event will get.
    pub fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// An event is about to be handed to `owed` lanes. Returns its number: events are counted
    /// from 0 in this order.
    pub fn open(&mut self, position: Position, committed: Timestamp, owed: u32) -> u64 {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let entry = Entry { committed, owed, last: position, boundary: Lsn::ZERO };
        if owed == 0 {
            self.leave(sequence, &entry);
        } else {
            self.open.insert(sequence, entry);
        }
        sequence
    }

    /// All events before this call belong to transactions that end at or before `end`, and all
    /// later ones to transactions that end after it: a commit, or a keepalive while none is open.
    pub fn boundary(&mut self, end: Lsn) {
        match self.open.last_entry() {
            Some(mut last) => last.get_mut().boundary = last.get().boundary.max(end),
            None => self.confirmable = self.confirmable.max(end),
        }
    }

    /// One endpoint has settled the event with this number.
    pub fn settle(&mut self, sequence: u64) {
        match self.open.entry(sequence) {
            btree_map::Entry::Occupied(mut open) if open.get().owed > 1 => open.get_mut().owed -= 1,
            btree_map::Entry::Occupied(open) => {
                let settled = open.remove();
                self.leave(sequence, &settled);
            }
            btree_map::Entry::Vacant(_) => {
                debug_assert!(false, "event {sequence} is settled more often than it was owed");
            }
        }
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

    /// Hands what a settled event stood for to the open one before it, or makes it confirmable.
    fn leave(&mut self, sequence: u64, settled: &Entry) {
        match self.open.range_mut(..sequence).next_back() {
            Some((_, before)) => {
                before.last = settled.last;
                before.boundary = before.boundary.max(settled.boundary);
            }
            None => {
                self.settled = Some(settled.last);
                self.confirmable = self.confirmable.max(settled.boundary);
            }
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
        self.open.first_key_value().map(|(_, entry)| entry.committed)
    }

    /// Events that are not settled.
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
        /// Events in the settled prefix.
        fn settled(&self) -> usize {
            self.events.iter().take_while(|&&owed| owed == 0).count()
        }

        fn confirmable(&self) -> u64 {
            let settled = self.settled();
            let reached = self.boundaries.iter().filter(|(events, _)| *events <= settled);
            reached.map(|&(_, end)| end).max().unwrap_or(0)
        }
    }

    #[test]
    fn one_event_that_is_not_settled_keeps_none_of_those_behind_it_in_memory() {
        let mut mark = Watermark::default();
        let open = |mark: &mut Watermark, ordinal| {
            let position = Position { commit: Lsn::from_raw(7), ordinal };
            mark.open(position, Timestamp::default(), 1)
        };
        let stuck = open(&mut mark, 0);
        for ordinal in 1..1000 {
            let sequence = open(&mut mark, ordinal);
            mark.settle(sequence);
        }
        mark.boundary(Lsn::from_raw(8));
        assert_eq!((mark.open_events(), mark.confirmable()), (1, Lsn::ZERO));
        mark.settle(stuck);
        assert_eq!((mark.open_events(), mark.confirmable()), (0, Lsn::from_raw(8)));
        assert_eq!(mark.settled().map(|last| last.ordinal), Some(999));
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
                        let ordinal = u32::try_from(model.events.len()).unwrap();
                        let position = Position { commit: Lsn::from_raw(wal), ordinal };
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
                let settled = mark.settled().map_or(0, |last| last.ordinal as usize + 1);
                prop_assert_eq!(settled, model.settled());
                let open = model.events.iter().filter(|&&owed| owed > 0).count();
                prop_assert_eq!(mark.open_events(), open);
                prop_assert!(mark.confirmable() >= before, "it went back");
                before = mark.confirmable();
            }
        }
    }
}
