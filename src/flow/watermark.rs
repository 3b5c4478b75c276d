//! The watermark: the position up to which every endpoint has settled everything, which may be confirmed.
//!
//! ```text
//! pump ─ open, commit, idle ─▶ [Watermark] ─ confirmable ─▶ source
//! ledger ─ settle ───────────▶
//! ```
//!
//! Nothing is confirmed to PostgreSQL before it is settled: what is confirmed is never sent again.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::btree_map;

use crate::flow::backfill::BackfillStep;
use crate::flow::lsn::Lsn;
use crate::flow::lsn::Position;
use crate::flow::pump_report::FilteredNote;
use crate::flow::pump_report::PumpReport;
use crate::flow::time::Timestamp;

/// Follows events from the moment they are handed to lanes until every endpoint has settled them.
///
/// Memory grows with the events that are not settled, not with the length of a transaction and not
/// with what is settled behind an event that is stuck: a settled event is forgotten at once, and
/// what it stood for is left to the one before it.
#[derive(Debug, Default)]
pub struct Watermark {
    next_sequence: u64,
    /// Events that are not settled, by number.
    open: BTreeMap<u64, OpenEntry>,
    confirmable: Lsn,
    settled: Option<Position>,
    /// Notes of the settled prefix that nobody has taken yet, and steps of backfills.
    passed: EventTally,
    backfilled: Vec<BackfillStep>,
}

/// Notes and how many there are of each. There are no more kinds than rules and endpoints that choose.
pub(crate) type EventTally = HashMap<FilteredNote, u64>;

/// An open event, and all that is settled behind it up to the next open one.
#[derive(Debug)]
struct OpenEntry {
    committed: Timestamp,
    /// Endpoints that have not settled it yet.
    owed: u32,
    /// The last change that is whole; `None` while more may come of this event's own change.
    through: Option<Position>,
    /// What may be confirmed; `ZERO` while the transaction goes on.
    boundary: Lsn,
    notes: EventTally,
    /// There are no more of them than backfills under way have unsettled chunks: a few each.
    backfilled: Vec<BackfillStep>,
}

impl Watermark {
    /// The number that the next event will get.
    pub fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// Takes in what the pump tells.
    pub fn note(&mut self, opened: PumpReport) {
        match opened {
            PumpReport::Event { committed, takers, .. } => {
                self.open(committed, u32::try_from(takers.len()).unwrap_or(u32::MAX));
            }
            PumpReport::Poison { event, takers, .. } => {
                self.open(event.committed, u32::try_from(takers.len()).unwrap_or(u32::MAX));
            }
            PumpReport::Note(note) => match self.open.last_entry() {
                Some(mut last) => *last.get_mut().notes.entry(note).or_default() += 1,
                None => *self.passed.entry(note).or_default() += 1,
            },
            PumpReport::Backfilled(step) => match self.open.last_entry() {
                Some(mut last) => last.get_mut().backfilled.push(step),
                None => self.backfilled.push(step),
            },
            PumpReport::Through { position } => match self.open.last_entry() {
                Some(mut last) => last.get_mut().through = Some(position),
                None => self.settled = Some(position),
            },
            PumpReport::Boundary { end, .. } => self.boundary(end),
            // The ledger's matter: it moves nothing.
            PumpReport::Seen(_) | PumpReport::Untaken(_) | PumpReport::Moved(_) => {}
        }
    }

    /// An event is about to be handed to `owed` lanes, at least one. Returns its number: events
    /// are counted from 0 in this order.
    pub fn open(&mut self, committed: Timestamp, owed: u32) -> u64 {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        if owed > 0 {
            let (boundary, notes) = (Lsn::ZERO, EventTally::new());
            let backfilled = Vec::new();
            let entry = OpenEntry { committed, owed, through: None, boundary, notes, backfilled };
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
                self.leave(sequence, settled);
            }
            btree_map::Entry::Vacant(_) => {
                debug_assert!(false, "event {sequence} is settled more often than it was owed");
            }
        }
    }

    /// Hands what a settled event stood for to the open one before it, or to the settled prefix.
    fn leave(&mut self, sequence: u64, settled: OpenEntry) {
        let notes = match self.open.range_mut(..sequence).next_back() {
            Some((_, before)) => {
                before.backfilled.extend(settled.backfilled);
                before.through = settled.through.or(before.through);
                before.boundary = before.boundary.max(settled.boundary);
                &mut before.notes
            }
            None => {
                self.backfilled.extend(settled.backfilled);
                self.settled = settled.through.or(self.settled);
                self.confirmable = self.confirmable.max(settled.boundary);
                &mut self.passed
            }
        };
        // The fewer go to the more: a stuck event is handed those of all that are behind it.
        let mut fewer = settled.notes;
        if fewer.len() > notes.len() {
            std::mem::swap(notes, &mut fewer);
        }
        for (note, times) in fewer {
            *notes.entry(note).or_default() += times;
        }
    }

    /// What may be confirmed to PostgreSQL. It never goes back.
    pub fn confirmable(&self) -> Lsn {
        self.confirmable
    }

    /// The last change of the settled prefix; `None` before the first.
    pub fn settled(&self) -> Option<Position> {
        self.settled
    }

    /// The notes that the settled prefix has passed since the last call.
    pub fn take_passed(&mut self) -> EventTally {
        std::mem::take(&mut self.passed)
    }

    /// The steps of backfills that the settled prefix has passed since the last call.
    pub fn take_backfilled(&mut self) -> Vec<BackfillStep> {
        std::mem::take(&mut self.backfilled)
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
    use crate::flow::event::RuleIndex;
    use crate::flow::pump_report::EndpointsVersion;
    use crate::flow::pump_report::OpenedAs;
    use proptest::prelude::*;

    const NOTE: FilteredNote = FilteredNote {
        endpoints_version: EndpointsVersion(0),
        rule: RuleIndex(0),
        opened_as: OpenedAs::Filtered,
    };

    #[derive(Clone, Debug)]
    enum Step {
        Event {
            owed: u32,
        },
        Note,
        Through,
        Boundary,
        /// Settles one owed delivery, chosen by this number.
        Settle(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (0..4u32).prop_map(|owed| Step::Event { owed }),
            1 => Just(Step::Note),
            4 => Just(Step::Through),
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
        /// The number of events before each note.
        notes: Vec<usize>,
        throughs: Vec<(usize, u64)>,
    }

    impl Model {
        fn settled(&self) -> usize {
            self.events.iter().take_while(|&&owed| owed == 0).count()
        }

        fn passed(&self) -> usize {
            self.notes.iter().filter(|&&events| events <= self.settled()).count()
        }

        fn position(&self) -> Option<u64> {
            let settled = self.settled();
            let reached = self.throughs.iter().filter(|(events, _)| *events <= settled);
            reached.map(|&(_, at)| at).max()
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
        let stuck = mark.open(Timestamp::default(), 1);
        for _ in 1..1000 {
            let sequence = mark.open(Timestamp::default(), 1);
            mark.settle(sequence);
        }
        mark.boundary(Lsn::from_raw(8));
        assert_eq!((mark.open_events(), mark.confirmable()), (1, Lsn::ZERO));
        mark.settle(stuck);
        assert_eq!((mark.open_events(), mark.confirmable()), (0, Lsn::from_raw(8)));
    }

    #[test]
    fn a_change_is_settled_when_all_of_its_events_are() {
        let mut mark = Watermark::default();
        let position = Position { commit: Lsn::from_raw(7), ordinal: 3 };
        let first = mark.open(Timestamp::default(), 1);
        mark.settle(first);
        let second = mark.open(Timestamp::default(), 1);
        mark.note(PumpReport::Through { position });
        assert_eq!(mark.settled(), None);
        mark.settle(second);
        assert_eq!(mark.settled(), Some(position));
    }

    proptest! {
        #[test]
        fn nothing_is_confirmable_before_all_of_it_is_settled(steps in steps()) {
            let mut mark = Watermark::default();
            let mut model = Model::default();
            let mut wal = 0;
            let mut before = Lsn::ZERO;
            let mut passed = 0;
            for step in steps {
                wal += 1;
                match step {
                    Step::Event { owed } => {
                        let sequence = mark.open(Timestamp::default(), owed);
                        prop_assert_eq!(sequence, model.events.len() as u64);
                        model.events.push(owed);
                    }
                    Step::Note => {
                        mark.note(PumpReport::Note(NOTE));
                        model.notes.push(model.events.len());
                    }
                    Step::Through => {
                        let position = Position { commit: Lsn::from_raw(wal), ordinal: 0 };
                        mark.note(PumpReport::Through { position });
                        model.throughs.push((model.events.len(), wal));
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
                passed += mark.take_passed().values().sum::<u64>();
                prop_assert_eq!(passed, model.passed() as u64);
                prop_assert_eq!(mark.settled().map(|at| at.commit.raw()), model.position());
                let open = model.events.iter().filter(|&&owed| owed > 0).count();
                prop_assert_eq!(mark.open_events(), open);
                prop_assert!(mark.confirmable() >= before, "it went back");
                before = mark.confirmable();
            }
        }
    }
}
