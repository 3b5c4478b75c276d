//! What is parked in memory: it stays here and keeps its turn, and the WAL need not wait for it.
//!
//! Parked is what waits for long, with all that has to follow it, and everything that is not in
//! flight while the endpoint is out of order, paused or disabled.

use std::sync::Arc;
use std::time::Duration;

use crate::flow::event::Event;
use crate::flow::lease::LeaseId;
use crate::flow::park_reason::ParkReason;
use crate::flow::settlement::DeliveryOutcome;
use crate::flow::settlement::DurableIn;
use crate::flow::time::Timestamp;
use crate::lane::core::LaneNow;
use crate::lane::core::LaneState;
use crate::lane::core::order::ArrivedEvent;
use crate::lane::core::order::slot::OrderSlot;
use crate::lane::core::pace::later;
use crate::lane::core::retry_queue::AttemptCount;
use crate::lane::core::retry_queue::RetryBatch;

impl LaneState {
    /// Takes an event into memory, behind all others with one of its keys.
    pub(super) fn keep(&mut self, arrived: ArrivedEvent, now: LaneNow) -> OrderSlot {
        self.missing = self.missing.saturating_sub(1);
        let slot = self.order.insert(arrived, now.instant);
        if self.order.is_first(slot) {
            self.line_up([Some(slot), None]);
        }
        slot
    }

    /// Takes an event that has just come into memory, and parks it if it would hold the WAL.
    pub(super) fn keep_arrival(&mut self, event: Arc<Event>, now: LaneNow) {
        if let Some(spill) = &mut self.spill {
            spill.cursor.pass(&event, None);
        }
        self.is_resting = false;
        let parked = now.database;
        let slot = self
            .keep(ArrivedEvent { event, durable_in: DurableIn::Wal, parked, resume: None }, now);
        if let Some(reason) = self.held_off() {
            self.park(slot, &AttemptCount::default(), None, reason, now);
        } else if self.spill.is_some() && self.order.is_detained(slot) {
            self.park(slot, &AttemptCount::default(), None, ParkReason::Behind, now);
        }
    }

    /// Keeps a parcel until its next attempt.
    pub(super) fn wait(
        &mut self,
        parcel: RetryBatch,
        failed: LeaseId,
        wait: Duration,
        now: LaneNow,
    ) {
        let due = later(now.instant, wait);
        self.note_waiting(&parcel, wait, now);
        self.retries.push(parcel, failed, due);
    }

    /// Does what the backlog needs of a delivery that waits for so long.
    pub(super) fn note_waiting(&mut self, parcel: &RetryBatch, wait: Duration, now: LaneNow) {
        let due = later(now.instant, wait);
        if let Some(spill) = &self.spill {
            let held_off = self.held_off();
            let is_far = held_off.is_some() || wait > spill.after;
            let reason = held_off.unwrap_or(ParkReason::Retry);
            let next = Some(now.on_database(due));
            for &slot in &parcel.members {
                match self.order.durable_in(slot) {
                    DurableIn::Wal if is_far => self.park(slot, &parcel.tries, next, reason, now),
                    // Its row has to know of the attempt.
                    DurableIn::Backlog => self.report_parked(slot, &parcel.tries, next, reason),
                    DurableIn::Wal | DurableIn::Replay(_) => {}
                }
            }
            if is_far {
                self.park_behind(&parcel.members, now);
            }
        }
    }

    /// Parks all that is not in flight.
    pub(super) fn park_all(&mut self, reason: ParkReason, now: LaneNow) {
        let mut retrying: Vec<(OrderSlot, AttemptCount, Timestamp)> = Vec::new();
        for (parcel, due) in self.retries.iter() {
            let next = now.on_database(due);
            retrying.extend(parcel.members.iter().map(|&slot| (slot, parcel.tries.clone(), next)));
        }
        retrying.retain(|(slot, ..)| self.order.durable_in(*slot) == DurableIn::Wal);
        retrying.sort_unstable_by_key(|(slot, ..)| self.order.arrival(*slot));
        for (slot, tries, next) in retrying {
            self.park(slot, &tries, Some(next), reason, now);
        }
        for slot in self.order.waiting() {
            if self.order.durable_in(slot) == DurableIn::Wal {
                self.park(slot, &AttemptCount::default(), None, reason, now);
            }
        }
        // A replay is not parked itself, but what comes behind it later has to wait as it does.
        self.park_behind(&self.order.detained(), now);
        self.end_tail(now);
    }

    /// Whether nothing is sent for now, so that places do not become free by themselves.
    pub fn is_held_off(&self) -> bool {
        self.held_off().is_some()
    }

    /// Why nothing is sent for now, and everything is parked, if that is so.
    pub(super) fn held_off(&self) -> Option<ParkReason> {
        self.spill.as_ref()?;
        match (self.is_disabled, self.is_paused, self.breaker.is_closed()) {
            (true, _, _) => Some(ParkReason::Disabled),
            (false, true, _) => Some(ParkReason::Paused),
            (false, false, false) => Some(ParkReason::Outage),
            (false, false, true) => None,
        }
    }

    /// The members wait for long: parks all that has to follow them.
    fn park_behind(&mut self, members: &[OrderSlot], now: LaneNow) {
        let mut next: Vec<OrderSlot> = Vec::new();
        for &slot in members {
            next.extend(self.order.detain(slot));
        }
        while let Some(slot) = next.pop() {
            if self.order.is_detained(slot) {
                continue;
            }
            // After a change of the order something that was leased before can stand behind them: it
            // does not wait for them.
            if self.order.durable_in(slot) == DurableIn::Wal && !self.order.is_taken(slot) {
                self.park(slot, &AttemptCount::default(), None, ParkReason::Behind, now);
            }
            next.extend(self.order.detain(slot));
        }
    }

    fn park(
        &mut self,
        slot: OrderSlot,
        tries: &AttemptCount,
        next: Option<Timestamp>,
        reason: ParkReason,
        now: LaneNow,
    ) {
        // One that waits to continue knows its own.
        let own = self.order.tries(slot).cloned();
        self.report_parked(slot, own.as_ref().unwrap_or(tries), next, reason);
        self.order.park(slot, now.database);
    }

    pub(super) fn report_parked(
        &mut self,
        slot: OrderSlot,
        tries: &AttemptCount,
        next_attempt: Option<Timestamp>,
        reason: ParkReason,
    ) {
        let (event, durable_in) = (Arc::clone(self.order.event(slot)), self.order.durable_in(slot));
        self.settle(event, durable_in, tries, DeliveryOutcome::Parked { next_attempt, reason });
    }
}
