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

use crate::flow::relation::TableName;
use crate::lane::core::order::slot::OrderSlot;

/// The barriers of a lane, by table, each list in the order of arrival.
#[derive(Debug, Default)]
pub(super) struct OrderBarriers {
    pub(super) tables: HashMap<Arc<TableName>, Vec<OrderBarrier>>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct OrderBarrier {
    pub(super) slot: OrderSlot,
    pub(super) arrival: u64,
    /// Events that it waits for: those since the barrier before it.
    pub(super) ahead: usize,
    /// Those of them that have joined the batch that is being gathered.
    pub(super) joined: usize,
    pub(super) has_joined: bool,
}

/// What keeps an event back.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct AheadOfBarrier {
    pub(super) all: usize,
    /// Those that have joined the batch that is being gathered.
    pub(super) joined: usize,
}

/// What stands right behind a barrier.
pub(super) struct BehindBarrier {
    pub(super) arrivals: Range<u64>,
    pub(super) barrier: Option<OrderSlot>,
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
    pub(super) fn ahead_of(&self, table: &TableName, arrival: u64) -> AheadOfBarrier {
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

    pub(super) fn of(&self, table: &TableName) -> &[OrderBarrier] {
        self.tables.get(table).map_or(&[], Vec::as_slice)
    }

    pub(super) fn last_before(&self, table: &TableName, arrival: u64) -> Option<OrderBarrier> {
        self.of(table).iter().rev().find(|barrier| barrier.arrival < arrival).copied()
    }

    pub(super) fn first_after(
        &mut self,
        table: &TableName,
        arrival: u64,
    ) -> Option<&mut OrderBarrier> {
        let mut all = self.tables.get_mut(table)?.iter_mut();
        all.find(|barrier| barrier.arrival > arrival)
    }

    pub(super) fn behind(&mut self, table: &TableName, arrival: u64) -> BehindBarrier {
        let next = self.first_after(table, arrival).copied();
        let end = next.map_or(u64::MAX, |next| next.arrival);
        BehindBarrier { arrivals: arrival..end, barrier: next.map(|next| next.slot) }
    }

    /// Takes a barrier out; what it waited for, the next one waits for.
    pub(super) fn remove(&mut self, table: &TableName, arrival: u64) -> BehindBarrier {
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
