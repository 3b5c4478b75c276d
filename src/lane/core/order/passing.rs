//! How events of a table pass its barriers, and barriers their events.

use std::ops::Range;
use std::sync::Arc;

use crate::config::settings::KeyOrdering;
use crate::flow::event::Event;
use crate::flow::relation::TableName;
use crate::lane::core::order::EntryState;
use crate::lane::core::order::KeyOrder;
use crate::lane::core::order::barriers::AheadOfBarrier;
use crate::lane::core::order::barriers::BehindBarrier;
use crate::lane::core::order::barriers::OrderBarrier;
use crate::lane::core::order::slot::OrderSlot;

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
