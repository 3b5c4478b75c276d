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
//! of the same keys can join the same batch; see [`KeyOrder::join`].
//!
//! A barrier, such as a TRUNCATE, stands in no chain, but between all events of its table: `barriers`.
//!
//! An event is *detained* if it waits for longer than the WAL may: it is parked, or a replay whose
//! next attempt is far away. What stands behind a detained event is detained, too.

mod barriers;
mod lookup;
pub(crate) mod number_hasher;
mod passing;
pub(super) mod slot;

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::Arc;
use std::time::Instant;

use crate::config::settings::KeyOrdering;
use crate::flow::event::Event;
use crate::flow::key::EventKeys;
use crate::flow::key::KeyHash;
use crate::flow::settlement::DurableIn;
use crate::flow::time::Timestamp;
use crate::lane::core::order::barriers::OrderBarriers;
use crate::lane::core::order::number_hasher::NumberHasher;
use crate::lane::core::order::slot::OrderSlot;
use crate::lane::core::retry_queue::AttemptCount;
use crate::lane::core::retry_queue::ResumedDelivery;

/// Events that a step has brought to the front: up to two of the same keys, and those that a barrier
/// held back.
#[derive(Debug, Default)]
pub(super) struct OpenedDelivery {
    of_keys: [Option<OrderSlot>; 2],
    of_barriers: Vec<OrderSlot>,
}

#[derive(Debug)]
pub(super) struct KeyOrder {
    ordering: KeyOrdering,
    entries: Vec<Option<OrderEntry>>,
    free: Vec<OrderSlot>,
    /// The last event of each chain.
    last: HashMap<KeyHash, ChainLink, BuildHasherDefault<NumberHasher>>,
    barriers: OrderBarriers,
    arrivals: u64,
    parked: usize,
    replays: usize,
}

/// An event as it comes into the lane.
#[derive(Debug)]
pub(super) struct ArrivedEvent {
    pub(super) event: Arc<Event>,
    pub(super) durable_in: DurableIn,
    /// When it was parked; without a meaning unless the backlog holds it.
    pub(super) parked: Timestamp,
    /// What is left of earlier attempts.
    pub(super) resume: Option<ResumedDelivery>,
}

/// An event as it leaves the lane.
#[derive(Debug)]
pub(super) struct RemovedEvent {
    pub(super) event: Arc<Event>,
    pub(super) durable_in: DurableIn,
    pub(super) resume: Option<ResumedDelivery>,
    pub(super) opened: OpenedDelivery,
}

#[derive(Debug)]
struct OrderEntry {
    event: Arc<Event>,
    durable_in: DurableIn,
    parked: Timestamp,
    is_detained: bool,
    /// It continues where it was once it is first; until then it cannot join a batch of events
    /// that were not tried.
    resume: Option<ResumedDelivery>,
    arrival: u64,
    since: Instant,
    state: EntryState,
    /// Chains in which another event is ahead.
    ahead: u8,
    /// Those of them in which the event right ahead has joined the batch that is being gathered.
    joined: u8,
    first: KeyChain,
    second: KeyChain,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum EntryState {
    Waiting,
    /// In the batch that is being gathered.
    Joined,
    /// Leased, or waiting for a retry.
    Taken,
}

#[derive(Clone, Copy, Debug, Default)]
struct KeyChain {
    previous: Option<ChainLink>,
    next: Option<ChainLink>,
}

/// An event's place in one of its chains.
#[derive(Clone, Copy, Debug)]
struct ChainLink {
    slot: OrderSlot,
    side: ChainSide,
}

#[derive(Clone, Copy, Debug)]
enum ChainSide {
    First,
    Second,
}

impl KeyOrder {
    pub(super) fn new(ordering: KeyOrdering) -> Self {
        Self {
            ordering,
            entries: Vec::new(),
            free: Vec::new(),
            last: HashMap::default(),
            barriers: OrderBarriers::default(),
            arrivals: 0,
            parked: 0,
            replays: 0,
        }
    }

    /// Gives back the room of events that there were.
    pub(super) fn give_back_memory(&mut self) {
        if self.len() == 0 {
            (self.entries, self.free) = (Vec::new(), Vec::new());
        }
        self.last.shrink_to_fit();
    }

    /// Orders by another rule from here on: what waits lines up anew, in the order of arrival. Another
    /// may be the first then.
    pub(super) fn reorder(&mut self, ordering: KeyOrdering) {
        self.ordering = ordering;
        self.last.clear();
        self.barriers.clear();
        let is_barrier = |order: &Self, slot| order.is_barrier(order.event(slot));
        for slot in self.all() {
            let keys = self.keys(self.event(slot));
            let entry = self.entry_mut(slot);
            (entry.ahead, entry.joined) = (0, 0);
            (entry.first, entry.second) = (KeyChain::default(), KeyChain::default());
            for (key, side) in keys.iter().zip([ChainSide::First, ChainSide::Second]) {
                let link = ChainLink { slot, side };
                if let Some(before) = self.last.insert(key, link) {
                    self.chain(before).next = Some(link);
                    let is_detained = self.entry(before.slot).is_detained;
                    let entry = self.entry_mut(slot);
                    entry.chain(side).previous = Some(before);
                    entry.ahead += 1;
                    entry.is_detained |= is_detained;
                }
            }
            if is_barrier(self, slot) || !self.barriers.is_empty() {
                self.place_at_barriers(slot);
            }
        }
    }

    /// Puts an event behind all others with one of its keys.
    pub(super) fn insert(&mut self, arrived: ArrivedEvent, now: Instant) -> OrderSlot {
        let ArrivedEvent { event, durable_in, parked, resume } = arrived;
        self.count(durable_in, 1);
        let keys = self.keys(&event);
        let slot = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            OrderSlot(
                u32::try_from(self.entries.len() - 1).expect("2^32 events do not fit in memory"),
            )
        });
        let mut entry = OrderEntry {
            event,
            durable_in,
            parked,
            is_detained: durable_in == DurableIn::Backlog,
            resume,
            arrival: self.arrivals,
            since: now,
            state: EntryState::Waiting,
            ahead: 0,
            joined: 0,
            first: KeyChain::default(),
            second: KeyChain::default(),
        };
        self.arrivals += 1;
        for (key, side) in keys.iter().zip([ChainSide::First, ChainSide::Second]) {
            let link = ChainLink { slot, side };
            if let Some(before) = self.last.insert(key, link) {
                self.chain(before).next = Some(link);
                entry.chain(side).previous = Some(before);
                entry.ahead += 1;
                entry.is_detained |= self.entry(before.slot).is_detained;
            }
        }
        let place = self.entries.get_mut(slot.0 as usize);
        let is_barrier = entry.event.keys.is_barrier();
        *place.expect("the slot was free or has just been made") = Some(entry);
        if is_barrier || !self.barriers.is_empty() {
            self.place_at_barriers(slot);
        }
        slot
    }

    /// Takes an event out, wherever it stands, and closes the gap.
    pub(super) fn remove(&mut self, slot: OrderSlot) -> RemovedEvent {
        let place = self.entries.get_mut(slot.0 as usize).and_then(Option::take);
        let mut entry = place.expect("a slot names an event until the event is removed");
        self.free.push(slot);
        self.count(entry.durable_in, -1);
        for (key, side) in self.keys(&entry.event).iter().zip([ChainSide::First, ChainSide::Second])
        {
            let KeyChain { previous, next } = *entry.chain(side);
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
                    if self.entry(previous.slot).state == EntryState::Joined {
                        self.entry_mut(next.slot).joined += 1;
                    }
                }
            }
        }
        let of_keys = self.opened_behind(&entry);
        let of_barriers = match self.barriers.is_empty() {
            true => Vec::new(),
            false => self.pass_barriers(&entry.event, entry.arrival, true),
        };
        let opened = OpenedDelivery { of_keys, of_barriers };
        let OrderEntry { event, durable_in, resume, .. } = entry;
        RemovedEvent { event, durable_in, resume, opened }
    }

    /// The event has got a row in the backlog.
    pub(super) fn park(&mut self, slot: OrderSlot, parked: Timestamp) {
        let entry = self.entry_mut(slot);
        debug_assert_eq!(entry.durable_in, DurableIn::Wal, "only what the WAL holds is parked");
        (entry.durable_in, entry.parked, entry.is_detained) = (DurableIn::Backlog, parked, true);
        self.count(DurableIn::Backlog, 1);
    }

    /// Detains an event, and gives those right behind it.
    pub(super) fn detain(&mut self, slot: OrderSlot) -> Vec<OrderSlot> {
        let entry = self.entry_mut(slot);
        entry.is_detained = true;
        let links = [entry.first.next, entry.second.next].into_iter().flatten();
        let of_keys = links.map(|link| link.slot);
        of_keys.chain(self.behind_barriers(slot)).collect()
    }

    /// What is left of the earlier attempts of an event that has come to the front; from here on
    /// it is taken.
    pub(super) fn resume(&mut self, slot: OrderSlot) -> Option<ResumedDelivery> {
        let entry = self.entry_mut(slot);
        let resume = entry.resume.take();
        if resume.is_some() {
            entry.state = EntryState::Taken;
        }
        resume
    }

    /// Makes an event a member of the batch that is being gathered. What follows it in its chains
    /// may join too, unless something else is ahead of it.
    pub(super) fn join(&mut self, slot: OrderSlot) -> OpenedDelivery {
        self.entry_mut(slot).state = EntryState::Joined;
        let OrderEntry { first, second, .. } = *self.entry(slot);
        for next in [first.next, second.next].into_iter().flatten() {
            self.entry_mut(next.slot).joined += 1;
        }
        let of_keys = self.opened_behind(self.entry(slot));
        if self.barriers.is_empty() {
            return OpenedDelivery { of_keys, of_barriers: Vec::new() };
        }
        let (event, arrival) = (Arc::clone(&self.entry(slot).event), self.entry(slot).arrival);
        let of_barriers = self.pass_barriers(&event, arrival, false);
        OpenedDelivery { of_keys, of_barriers }
    }

    /// The batch is complete: nothing joins it any more, and its members are taken.
    pub(super) fn take(&mut self, members: &[OrderSlot]) {
        self.end_gathering(members, EntryState::Taken);
    }

    /// The batch does not come about: its members wait as before.
    pub(super) fn release(&mut self, members: &[OrderSlot]) {
        self.end_gathering(members, EntryState::Waiting);
    }

    fn end_gathering(&mut self, members: &[OrderSlot], state: EntryState) {
        self.barriers.end_gathering();
        for &slot in members {
            self.entry_mut(slot).state = state;
            let OrderEntry { first, second, .. } = *self.entry(slot);
            for next in [first.next, second.next].into_iter().flatten() {
                self.entry_mut(next.slot).joined = 0;
            }
        }
    }

    /// Lets all that wait to continue begin anew; gives them, in the order of arrival.
    pub(super) fn restart(&mut self, now: Instant) -> Vec<(OrderSlot, AttemptCount)> {
        let mut restarted = Vec::new();
        for slot in self.waiting() {
            if let Some(resume) = &mut self.entry_mut(slot).resume {
                resume.due = now;
                resume.tries.restart();
                restarted.push((slot, resume.tries.clone()));
            }
        }
        restarted
    }

    /// Leaves an event what is left of its attempts; see [`KeyOrder::resume`].
    pub(super) fn set_resume(&mut self, slot: OrderSlot, resume: ResumedDelivery) {
        let entry = self.entry_mut(slot);
        (entry.resume, entry.state) = (Some(resume), EntryState::Waiting);
    }

    /// Those right behind `entry` in its chains that nothing holds back any more.
    fn opened_behind(&self, entry: &OrderEntry) -> [Option<OrderSlot>; 2] {
        let behind = |chain: &KeyChain| chain.next.map(|next| next.slot);
        let is_open = |slot: &OrderSlot| self.is_open(*slot);
        let first = behind(&entry.first).filter(is_open);
        // One event can be behind in both chains, and is reported once.
        let second = behind(&entry.second).filter(|second| first != Some(*second));
        [first, second.filter(is_open)]
    }

    /// All events, in no order.
    fn slots(&self) -> impl Iterator<Item = OrderSlot> + '_ {
        let entries = (0u32..).zip(&self.entries);
        entries.filter(|(_, entry)| entry.is_some()).map(|(slot, _)| OrderSlot(slot))
    }

    fn count(&mut self, durable_in: DurableIn, change: isize) {
        let count = match durable_in {
            DurableIn::Wal => return,
            DurableIn::Backlog => &mut self.parked,
            DurableIn::Replay(_) => &mut self.replays,
        };
        *count = count.saturating_add_signed(change);
    }

    fn keys(&self, event: &Event) -> EventKeys {
        match self.ordering {
            KeyOrdering::Key => event.keys,
            KeyOrdering::Strict => EventKeys::one(KeyHash::from_raw(0)),
            KeyOrdering::None => EventKeys::NONE,
        }
    }

    fn entry(&self, slot: OrderSlot) -> &OrderEntry {
        let entry = self.entries.get(slot.0 as usize).and_then(Option::as_ref);
        entry.expect("a slot names an event until the event is removed")
    }

    fn entry_mut(&mut self, slot: OrderSlot) -> &mut OrderEntry {
        let entry = self.entries.get_mut(slot.0 as usize).and_then(Option::as_mut);
        entry.expect("a slot names an event until the event is removed")
    }

    fn chain(&mut self, link: ChainLink) -> &mut KeyChain {
        self.entry_mut(link.slot).chain(link.side)
    }
}

impl OrderEntry {
    fn chain(&mut self, side: ChainSide) -> &mut KeyChain {
        match side {
            ChainSide::First => &mut self.first,
            ChainSide::Second => &mut self.second,
        }
    }
}
