//! The limits of a backlog: what is parked for too long, or too much, or has expired.
//!
//! Only what is in memory is looked at: the oldest. What it settles makes room for what comes next,
//! so that a large backlog passes through a small memory, also while the endpoint is out of order or paused.

use std::cmp::Reverse;
use std::time::Duration;

use crate::flow::dead_letter_reason::DeathReason;
use crate::flow::settlement::DeliveryOutcome;
use crate::flow::settlement::DurableIn;
use crate::lane::core::DeliveryPhase;
use crate::lane::core::LaneNow;
use crate::lane::core::LaneState;
use crate::lane::core::breaker::BreakerState;
use crate::lane::core::order::slot::OrderSlot;
use crate::lane::core::retry_queue::ResumedDelivery;

/// An endpoint that took a delivery within this time answers.
const ANSWERING: Duration = Duration::from_secs(60);

/// How often a lane is looked through.
pub(super) const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

impl LaneState {
    pub(super) fn sweep_if_due(&mut self, now: LaneNow) {
        let is_resting = self.is_empty() || self.is_disabled;
        let Some(spill) = &mut self.spill else { return };
        let next = now.instant + SWEEP_INTERVAL;
        match spill.sweep_at {
            _ if is_resting => spill.sweep_at = None,
            None => spill.sweep_at = Some(next),
            Some(due) if due <= now.instant => {
                spill.sweep_at = Some(next);
                // Even if there is nothing to settle: memory may be empty, and then the backlog's
                // oldest have to come in to be looked at.
                spill.may_pass_through = true;
                self.sweep(now);
            }
            Some(_) => {}
        }
    }

    /// Deliveries have come from the backlog. While the endpoint is out of order they came to be
    /// looked at, and if some of them go, others may come.
    pub(super) fn sweep_refilled(&mut self, now: LaneNow) {
        if self.is_paused || self.breaker.state(now.instant) == BreakerState::Open {
            let has_settled = self.sweep(now);
            if let Some(spill) = &mut self.spill {
                spill.may_pass_through = has_settled;
            }
        }
    }

    /// Settles what is beyond the limits; returns whether there was something.
    fn sweep(&mut self, now: LaneNow) -> bool {
        if self.phase != DeliveryPhase::Open {
            return false;
        }
        let doomed = self.beyond_limits(now);
        let mut slots: Vec<OrderSlot> = doomed.iter().map(|(slot, _)| *slot).collect();
        slots.sort_unstable();
        for (slot, tries) in self.retries.remove(&slots) {
            self.order.set_resume(slot, ResumedDelivery { tries, due: now.instant });
        }
        self.settle_waiting(doomed);
        let order = &self.order;
        self.ready.retain(|&Reverse((arrival, slot))| order.is_waiting(slot, arrival));
        !slots.is_empty()
    }

    fn beyond_limits(&self, now: LaneNow) -> Vec<(OrderSlot, DeliveryOutcome)> {
        let Some(spill) = &self.spill else { return Vec::new() };
        let flying = self.in_flight.values().flat_map(|in_flight| &in_flight.parcel.members);
        let mut flying: Vec<OrderSlot> = flying.copied().collect();
        flying.sort_unstable();
        let rows = spill.outside + self.order.parked();
        let mut excess = rows.saturating_sub(spill.limits.rows.get());
        // What waits for an endpoint that answers is given up by nobody: it is on its way.
        let is_answering = self.breaker.is_closed()
            && !self.is_paused
            && self.has_answered_within(ANSWERING, now.instant);
        let mut doomed = Vec::new();
        for slot in self.order.all() {
            if flying.binary_search(&slot).is_ok() {
                continue;
            }
            let is_parked = self.order.durable_in(slot) == DurableIn::Backlog;
            let expiry = self.order.event(slot).expiry;
            let age = now.database.since(self.order.parked_at(slot));
            let is_parked = is_parked && !is_answering;
            let outcome = if expiry.is_some_and(|expiry| expiry.is_over(now.database)) {
                DeliveryOutcome::Expired
            } else if is_parked && age > spill.limits.age {
                DeliveryOutcome::Dead { reason: DeathReason::BacklogTooOld }
            } else if is_parked && excess > 0 {
                DeliveryOutcome::Dead { reason: DeathReason::BacklogFull }
            } else {
                continue;
            };
            excess = excess.saturating_sub(usize::from(is_parked));
            doomed.push((slot, outcome));
        }
        doomed
    }
}
