//! Barriers: events that concern every row of their table, as a TRUNCATE does.
//!
//! ```text
//! table t:   1  2  3 ─ barrier ─ 5  6        the barrier waits for 1, 2 and 3;
//! table u:   4                    7          5 and 6 wait for the barrier, 4 and 7 do not
//! ```
//!
//! They are rare, so they cost the other events nothing while there is none: who stands on which
//! side is told by the order of arrival, and only what a barrier waits for is counted. Where a
//! barrier comes or goes, all events of the lane are looked through.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use crate::config::settings::KeyOrdering;
use crate::flow::event::Event;
use crate::flow::relation::TableName;
use crate::lane::core::order::EntryState;
use crate::lane::core::order::KeyOrder;
use crate::lane::core::order::OrderSlot;

/// The barriers of a lane, by table, each list in the order of arrival.
#[derive(Debug, Default)]
pub(super) struct OrderBarriers {
    tables: HashMap<Arc<TableName>, Vec<OrderBarrier>>,
}

#[derive(Clone, Copy, Debug)]
struct OrderBarrier {
    slot: OrderSlot,
    arrival: u64,
    /// Events that it waits for: those since the barrier before it.
    ahead: usize,
    /// Those of them that have joined the batch that is being gathered.
    joined: usize,
    has_joined: bool,
}

/// What keeps an event back.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct AheadOfBarrier {
    pub(super) all: usize,
    /// Those that have joined the batch that is being gathered.
    pub(super) joined: usize,
}

/// What stands right behind a barrier.
struct BehindBarrier {
    arrivals: Range<u64>,
    barrier: Option<OrderSlot>,
}

impl OrderBarriers {
    pub(super) fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.tables.clear();
    }

    /// Nothing is gathered any more.
    pub(super) fn end_gathering(&mut self) {
        for barrier in self.tables.values_mut().flatten() {
            (barrier.joined, barrier.has_joined) = (0, false);
        }
    }

    /// What keeps back the event of this arrival, be it a barrier or not.
    fn ahead_of(&self, table: &TableName, arrival: u64) -> AheadOfBarrier {
        let mut ahead = AheadOfBarrier::default();
        for barrier in self.of(table) {
            if barrier.arrival < arrival {
                ahead.all += 1;
                ahead.joined += usize::from(barrier.has_joined);
            } else if barrier.arrival == arrival {
                ahead.all += barrier.ahead;
                ahead.joined += barrier.joined;
            }
        }
        ahead
    }

    fn of(&self, table: &TableName) -> &[OrderBarrier] {
        self.tables.get(table).map_or(&[], Vec::as_slice)
    }

    fn last_before(&self, table: &TableName, arrival: u64) -> Option<OrderBarrier> {
        self.of(table).iter().rev().find(|barrier| barrier.arrival < arrival).copied()
    }

    fn first_after(&mut self, table: &TableName, arrival: u64) -> Option<&mut OrderBarrier> {
        let mut all = self.tables.get_mut(table)?.iter_mut();
        all.find(|barrier| barrier.arrival > arrival)
    }

    fn behind(&mut self, table: &TableName, arrival: u64) -> BehindBarrier {
        let next = self.first_after(table, arrival).copied();
        let end = next.map_or(u64::MAX, |next| next.arrival);
        BehindBarrier { arrivals: arrival..end, barrier: next.map(|next| next.slot) }
    }

    /// Takes a barrier out; what it waited for, the next one waits for.
    fn remove(&mut self, table: &TableName, arrival: u64) -> BehindBarrier {
        let behind = self.behind(table, arrival);
        if let Some(all) = self.tables.get_mut(table) {
            if let Some(at) = all.iter().position(|barrier| barrier.arrival == arrival) {
                let gone = all.remove(at);
                if let Some(next) = all.get_mut(at) {
                    next.ahead += gone.ahead;
                    next.joined += gone.joined;
                }
            }
            if all.is_empty() {
                self.tables.remove(table);
            }
        }
        behind
    }
}

impl KeyOrder {
    pub(super) fn is_barrier(&self, event: &Event) -> bool {
        self.ordering == KeyOrdering::Key && event.keys.is_barrier()
    }

    /// What of its table keeps an event back.
    pub(super) fn barriers_ahead(&self, slot: OrderSlot) -> AheadOfBarrier {
        if self.barriers.is_empty() {
            return AheadOfBarrier::default();
        }
        let entry = self.entry(slot);
        self.barriers.ahead_of(&entry.event.table, entry.arrival)
    }

    /// An event has come in behind all others: it is a barrier, or stands behind one.
    pub(super) fn place_at_barriers(&mut self, slot: OrderSlot) {
        let (event, arrival) = (Arc::clone(&self.entry(slot).event), self.entry(slot).arrival);
        let before = self.barriers.last_before(&event.table, arrival);
        let mut is_detained = before.is_some_and(|barrier| self.entry(barrier.slot).is_detained);
        if self.is_barrier(&event) {
            let since = before.map_or(0, |barrier| barrier.arrival + 1);
            let ahead = self.of_table(&event.table, since..arrival);
            is_detained |= ahead.iter().any(|&slot| self.entry(slot).is_detained);
            let ahead = ahead.len();
            let barrier = OrderBarrier { slot, arrival, ahead, joined: 0, has_joined: false };
            self.barriers.tables.entry(Arc::clone(&event.table)).or_default().push(barrier);
        }
        self.entry_mut(slot).is_detained |= is_detained;
    }

    /// An event has left, or has joined the batch. Returns those that nothing holds back any more.
    pub(super) fn pass_barriers(
        &mut self,
        event: &Event,
        arrival: u64,
        left: bool,
    ) -> Vec<OrderSlot> {
        let table = &event.table;
        let mut candidates = Vec::new();
        if self.is_barrier(event) {
            let BehindBarrier { arrivals, barrier } = if left {
                self.barriers.remove(table, arrival)
            } else {
                self.mark_joined(table, arrival);
                self.barriers.behind(table, arrival)
            };
            candidates = self.of_table(table, arrivals);
            candidates.extend(barrier);
        } else if let Some(barrier) = self.barriers.first_after(table, arrival) {
            if left {
                barrier.ahead -= 1;
            } else {
                barrier.joined += 1;
            }
            candidates.push(barrier.slot);
        }
        candidates.retain(|&slot| self.is_open(slot));
        candidates
    }

    fn mark_joined(&mut self, table: &TableName, arrival: u64) {
        let all = self.barriers.tables.get_mut(table).into_iter().flatten();
        for barrier in all.filter(|barrier| barrier.arrival == arrival) {
            barrier.has_joined = true;
        }
    }

    /// What stands right behind an event for a barrier's sake.
    pub(super) fn behind_barriers(&mut self, slot: OrderSlot) -> Vec<OrderSlot> {
        if self.barriers.is_empty() {
            return Vec::new();
        }
        let (event, arrival) = (Arc::clone(&self.entry(slot).event), self.entry(slot).arrival);
        let BehindBarrier { arrivals, barrier } = self.barriers.behind(&event.table, arrival);
        let mut behind = match self.is_barrier(&event) {
            true => self.of_table(&event.table, arrivals),
            false => Vec::new(),
        };
        behind.extend(barrier);
        behind
    }

    /// Whether the event waits, and nothing but members of the batch is ahead of it.
    pub(super) fn is_open(&self, slot: OrderSlot) -> bool {
        let entry = self.entry(slot);
        let barriers = self.barriers_ahead(slot);
        let all = usize::from(entry.ahead) + barriers.all;
        let joined = usize::from(entry.joined) + barriers.joined;
        // What continues after earlier attempts joins no batch of others.
        entry.state == EntryState::Waiting && joined == all && (entry.resume.is_none() || all == 0)
    }

    /// The table's events of these arrivals that are no barriers.
    fn of_table(&self, table: &TableName, arrivals: Range<u64>) -> Vec<OrderSlot> {
        let is_meant = |slot: &OrderSlot| {
            let entry = self.entry(*slot);
            arrivals.contains(&entry.arrival)
                && *entry.event.table == *table
                && !self.is_barrier(&entry.event)
        };
        self.slots().filter(is_meant).collect()
    }
}
