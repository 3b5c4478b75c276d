//! Who stands behind whom: the events of one lane, queued by key.
//!
//! ```text
//! key a:   1 ── 3 ── 4        1 and 2 are first everywhere and may be sent;
//! key b:   2 ── 3             3 has both keys and waits for both; 4 waits for 3
//! ```
//!
//! Each key is a chain of its events in the order of arrival, and an event with two keys stands in
//! two chains. All steps are O(1): an event counts the chains in which another one is ahead of it.
//!
//! While a batch is gathered its members count as gone for those behind them, so that later events
//! of the same keys can join the same batch; see [`Order::join`].

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::hash::Hasher;
use std::sync::Arc;
use std::time::Instant;

use crate::config::settings::Ordering;
use crate::flow::event::Event;
use crate::flow::key::Key;
use crate::flow::key::Keys;

/// Names an event in the lane until the event is removed.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Slot(u32);

/// Up to two events that a step has brought to the front.
pub(super) type Opened = [Option<Slot>; 2];

#[derive(Debug)]
pub(super) struct Order {
    ordering: Ordering,
    entries: Vec<Option<Entry>>,
    free: Vec<Slot>,
    /// The last event of each chain.
    last: HashMap<Key, Link, BuildHasherDefault<NumberHasher>>,
    arrivals: u64,
}

#[derive(Debug)]
struct Entry {
    event: Arc<Event>,
    arrival: u64,
    since: Instant,
    state: State,
    /// Chains in which another event is ahead.
    ahead: u8,
    /// Those of them in which the event right ahead has joined the batch that is being gathered.
    joined: u8,
    first: Chain,
    second: Chain,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Waiting,
    /// In the batch that is being gathered.
    Joined,
    /// Leased, or waiting for a retry.
    Taken,
}

#[derive(Clone, Copy, Debug, Default)]
struct Chain {
    previous: Option<Link>,
    next: Option<Link>,
}

/// An event's place in one of its chains.
#[derive(Clone, Copy, Debug)]
struct Link {
    slot: Slot,
    side: Side,
}

#[derive(Clone, Copy, Debug)]
enum Side {
    First,
    Second,
}

impl Order {
    pub(super) fn new(ordering: Ordering) -> Self {
        Self {
            ordering,
            entries: Vec::new(),
            free: Vec::new(),
            last: HashMap::default(),
            arrivals: 0,
        }
    }

    /// Events in the lane.
    pub(super) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// Puts an event behind all others with one of its keys.
    pub(super) fn insert(&mut self, event: Arc<Event>, now: Instant) -> Slot {
        let keys = self.keys(&event);
        let slot = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            Slot(u32::try_from(self.entries.len() - 1).expect("2^32 events do not fit in memory"))
        });
        let mut entry = Entry {
            event,
            arrival: self.arrivals,
            since: now,
            state: State::Waiting,
            ahead: 0,
            joined: 0,
            first: Chain::default(),
            second: Chain::default(),
        };
        self.arrivals += 1;
        for (key, side) in keys.iter().zip([Side::First, Side::Second]) {
            let link = Link { slot, side };
            if let Some(before) = self.last.insert(key, link) {
                self.chain(before).next = Some(link);
                entry.chain(side).previous = Some(before);
                entry.ahead += 1;
            }
        }
        let place = self.entries.get_mut(slot.0 as usize);
        *place.expect("the slot was free or has just been made") = Some(entry);
        slot
    }

    /// Takes an event out, wherever it stands, and closes the gap.
    pub(super) fn remove(&mut self, slot: Slot) -> (Arc<Event>, Opened) {
        let place = self.entries.get_mut(slot.0 as usize).and_then(Option::take);
        let mut entry = place.expect("a slot names an event until the event is removed");
        self.free.push(slot);
        for (key, side) in self.keys(&entry.event).iter().zip([Side::First, Side::Second]) {
            let Chain { previous, next } = *entry.chain(side);
            match (previous, next) {
                (None, None) => {
                    self.last.remove(&key);
                }
                (Some(previous), None) => {
                    self.chain(previous).next = None;
                    self.last.insert(key, previous);
                }
                (None, Some(next)) => {
                    self.chain(next).previous = None;
                    self.entry_mut(next.slot).ahead -= 1;
                }
                (Some(previous), Some(next)) => {
                    self.chain(previous).next = Some(next);
                    self.chain(next).previous = Some(previous);
                    if self.entry(previous.slot).state == State::Joined {
                        self.entry_mut(next.slot).joined += 1;
                    }
                }
            }
        }
        let opened = self.opened_behind(&entry);
        (entry.event, opened)
    }

    /// Makes an event a member of the batch that is being gathered. What follows it in its chains
    /// may join too, unless something else is ahead of it.
    pub(super) fn join(&mut self, slot: Slot) -> Opened {
        self.entry_mut(slot).state = State::Joined;
        let Entry { first, second, .. } = *self.entry(slot);
        for next in [first.next, second.next].into_iter().flatten() {
            self.entry_mut(next.slot).joined += 1;
        }
        self.opened_behind(self.entry(slot))
    }

    /// The batch is complete: nothing joins it any more, and its members are taken.
    pub(super) fn take(&mut self, members: &[Slot]) {
        self.end_gathering(members, State::Taken);
    }

    /// The batch does not come about: its members wait as before.
    pub(super) fn release(&mut self, members: &[Slot]) {
        self.end_gathering(members, State::Waiting);
    }

    fn end_gathering(&mut self, members: &[Slot], state: State) {
        for &slot in members {
            self.entry_mut(slot).state = state;
            let Entry { first, second, .. } = *self.entry(slot);
            for next in [first.next, second.next].into_iter().flatten() {
                self.entry_mut(next.slot).joined = 0;
            }
        }
    }

    /// The waiting events, in the order of arrival.
    pub(super) fn waiting(&self) -> Vec<Slot> {
        let mut waiting: Vec<(u64, Slot)> = (0u32..)
            .zip(&self.entries)
            .filter_map(|(slot, entry)| Some((slot, entry.as_ref()?)))
            .filter(|(_, entry)| entry.state == State::Waiting)
            .map(|(slot, entry)| (entry.arrival, Slot(slot)))
            .collect();
        waiting.sort_unstable();
        waiting.into_iter().map(|(_, slot)| slot).collect()
    }

    /// Whether nothing is ahead of the event in any chain.
    pub(super) fn is_first(&self, slot: Slot) -> bool {
        self.entry(slot).ahead == 0
    }

    /// Grows with each event that is put in.
    pub(super) fn arrival(&self, slot: Slot) -> u64 {
        self.entry(slot).arrival
    }

    /// When the event was put in.
    pub(super) fn since(&self, slot: Slot) -> Instant {
        self.entry(slot).since
    }

    pub(super) fn event(&self, slot: Slot) -> &Arc<Event> {
        &self.entry(slot).event
    }

    /// Those right behind `entry` that nothing holds back any more.
    fn opened_behind(&self, entry: &Entry) -> Opened {
        let behind = |chain: &Chain| {
            let next = chain.next?.slot;
            let Entry { state, ahead, joined, .. } = *self.entry(next);
            (state == State::Waiting && joined == ahead).then_some(next)
        };
        let first = behind(&entry.first);
        // One event can be behind in both chains, and is reported once.
        [first, behind(&entry.second).filter(|&second| first != Some(second))]
    }

    fn keys(&self, event: &Event) -> Keys {
        match self.ordering {
            Ordering::Key => event.keys,
            Ordering::Strict => Keys::one(Key::from_raw(0)),
            Ordering::None => Keys::NONE,
        }
    }

    fn entry(&self, slot: Slot) -> &Entry {
        let entry = self.entries.get(slot.0 as usize).and_then(Option::as_ref);
        entry.expect("a slot names an event until the event is removed")
    }

    fn entry_mut(&mut self, slot: Slot) -> &mut Entry {
        let entry = self.entries.get_mut(slot.0 as usize).and_then(Option::as_mut);
        entry.expect("a slot names an event until the event is removed")
    }

    fn chain(&mut self, link: Link) -> &mut Chain {
        self.entry_mut(link.slot).chain(link.side)
    }
}

impl Entry {
    fn chain(&mut self, side: Side) -> &mut Chain {
        match side {
            Side::First => &mut self.first,
            Side::Second => &mut self.second,
        }
    }
}

/// A hasher for numbers that are hashes already, or counters: one multiplication (Fibonacci
/// hashing), where the standard hasher would take most of an event's time in the lane.
#[derive(Debug, Default)]
pub(super) struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
