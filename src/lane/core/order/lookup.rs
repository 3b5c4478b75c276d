//! What is known of one event that stands in the order, and of all.

use std::sync::Arc;
use std::time::Instant;

use crate::flow::event::Event;
use crate::flow::settlement::DurableIn;
use crate::flow::time::Timestamp;
use crate::lane::core::order::EntryState;
use crate::lane::core::order::KeyOrder;
use crate::lane::core::order::OpenedDelivery;
use crate::lane::core::order::slot::OrderSlot;
use crate::lane::core::retry_queue::AttemptCount;

impl OpenedDelivery {
    pub(in crate::lane::core) fn all(self) -> impl Iterator<Item = Option<OrderSlot>> {
        self.of_keys.into_iter().chain(self.of_barriers.into_iter().map(Some))
    }
}

impl KeyOrder {
    /// Events in the lane.
    pub(in crate::lane::core) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// Those of them that have a row in the backlog.
    pub(in crate::lane::core) fn parked(&self) -> usize {
        self.parked
    }

    /// Those of them that an operator sends again.
    pub(in crate::lane::core) fn replays(&self) -> usize {
        self.replays
    }

    /// Whether the event waits for longer than the WAL may.
    pub(in crate::lane::core) fn is_detained(&self, slot: OrderSlot) -> bool {
        self.entry(slot).is_detained
    }

    /// The events that wait for longer than the WAL may, in the order of arrival.
    pub(in crate::lane::core) fn detained(&self) -> Vec<OrderSlot> {
        let mut all = self.all();
        all.retain(|&slot| self.is_detained(slot));
        all
    }

    /// The waiting events, in the order of arrival.
    pub(in crate::lane::core) fn waiting(&self) -> Vec<OrderSlot> {
        let mut all = self.all();
        all.retain(|&slot| self.entry(slot).state == EntryState::Waiting);
        all
    }

    /// All events, in the order of arrival.
    pub(in crate::lane::core) fn all(&self) -> Vec<OrderSlot> {
        let mut all: Vec<(u64, OrderSlot)> =
            self.slots().map(|slot| (self.arrival(slot), slot)).collect();
        all.sort_unstable();
        all.into_iter().map(|(_, slot)| slot).collect()
    }

    /// What was tried of an event that waits to continue.
    pub(in crate::lane::core) fn tries(&self, slot: OrderSlot) -> Option<&AttemptCount> {
        self.entry(slot).resume.as_ref().map(|resume| &resume.tries)
    }

    /// Whether the slot still names the event that came at this `arrival`, and it waits.
    pub(in crate::lane::core) fn is_waiting(&self, slot: OrderSlot, arrival: u64) -> bool {
        let entry = self.entries.get(slot.0 as usize).and_then(Option::as_ref);
        entry.is_some_and(|entry| entry.arrival == arrival && entry.state == EntryState::Waiting)
    }

    /// Whether the event is leased, or waits for a retry.
    pub(in crate::lane::core) fn is_taken(&self, slot: OrderSlot) -> bool {
        self.entry(slot).state == EntryState::Taken
    }

    /// Whether nothing is ahead of the event.
    pub(in crate::lane::core) fn is_first(&self, slot: OrderSlot) -> bool {
        self.entry(slot).ahead == 0 && self.barriers_ahead(slot).all == 0
    }

    /// Grows with each event that is put in.
    pub(in crate::lane::core) fn arrival(&self, slot: OrderSlot) -> u64 {
        self.entry(slot).arrival
    }

    /// When the event was put in.
    pub(in crate::lane::core) fn since(&self, slot: OrderSlot) -> Instant {
        self.entry(slot).since
    }

    pub(in crate::lane::core) fn event(&self, slot: OrderSlot) -> &Arc<Event> {
        &self.entry(slot).event
    }

    pub(in crate::lane::core) fn durable_in(&self, slot: OrderSlot) -> DurableIn {
        self.entry(slot).durable_in
    }

    /// When the event was parked; without a meaning unless the backlog holds it.
    pub(in crate::lane::core) fn parked_at(&self, slot: OrderSlot) -> Timestamp {
        self.entry(slot).parked
    }

    pub(in crate::lane::core) fn is_replay(&self, slot: OrderSlot) -> bool {
        matches!(self.entry(slot).durable_in, DurableIn::Replay(_))
    }
}
