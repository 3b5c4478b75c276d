//! What can be changed while the lane runs: its settings, whether it sends, and that it ends.

use crate::flow::dead_letter_reason::DeathReason;
use crate::flow::lease::LeaseId;
use crate::flow::park_reason::ParkReason;
use crate::flow::settlement::DurableIn;
use crate::lane::core::DeliveryPhase;
use crate::lane::core::LaneNow;
use crate::lane::core::LaneState;
use crate::lane::settings::LaneSettings;

impl LaneState {
    /// Keeps to other settings from here on; whether there is a backlog, what it holds, and the
    /// lane's share of memory do not change. An endpoint that said 410 gets another chance: it may be another one.
    pub fn reconfigure(&mut self, settings: LaneSettings, now: LaneNow) {
        self.rate.limit(settings.rate_limit);
        self.ramp.widen(settings.concurrency, settings.is_steady());
        self.limit.widen(settings.concurrency, settings.is_steady());
        if let (Some(parking), Some(spill)) = (&settings.parking, &mut self.spill) {
            self.breaker.govern(parking.terms.breaker);
            (spill.after, spill.limits) = (parking.terms.after, parking.terms.backlog);
        }
        let is_reordered = settings.ordering != self.settings.ordering;
        let parking = self.settings.parking.take();
        let share_bytes = self.settings.share_bytes;
        self.settings = LaneSettings { parking, share_bytes, ..settings };
        self.missing = 0;
        self.reopen();
        self.rest_if_told(now); // it did not while it was gone
        if is_reordered {
            self.reorder(now);
        }
    }

    /// The endpoint is disabled: what is in flight ends, all else waits in the backlog.
    pub fn disable(&mut self, now: LaneNow) {
        self.is_disabled = true;
        self.rest_if_told(now);
    }

    /// The endpoint is enabled again, also one that said 410.
    pub fn enable(&mut self) {
        self.is_disabled = false;
        self.reopen();
    }

    /// An operator has paused the endpoint: what is in flight ends, and all else waits in the
    /// backlog, whose limits hold.
    pub fn pause(&mut self, now: LaneNow) {
        self.is_paused = true;
        self.rest_if_told(now);
    }

    /// The operator lets it go on.
    pub fn resume(&mut self) {
        self.is_paused = false;
    }

    /// What waits is tried at once, and its schedule begins anew: the endpoint may be another one,
    /// or is said to work again. What is in flight has its outcome, and is tried at once after it.
    pub fn try_now(&mut self, now: LaneNow) {
        self.reopen();
        self.rest_if_told(now); // it did not while it was gone
        self.anew = Some(LeaseId(self.last_lease));
        self.breaker.forget();
        self.rate.release();
        let mut restarted = self.retries.restart(now.instant);
        restarted.sort_unstable_by_key(|(slot, _)| self.order.arrival(*slot));
        restarted.extend(self.order.restart(now.instant));
        let reason = self.held_off().unwrap_or(ParkReason::Retry);
        for (slot, tries) in restarted {
            // Its row has to know of it.
            if self.order.durable_in(slot) == DurableIn::Backlog {
                self.report_parked(slot, &tries, Some(now.database), reason);
            }
        }
        if let Some(spill) = &mut self.spill {
            spill.hurry(now.instant);
        }
    }

    /// Whether nothing is sent because the endpoint is disabled or paused.
    pub(super) fn is_told_to_rest(&self) -> bool {
        self.is_disabled || self.is_paused
    }

    /// The endpoint is removed: what waits is given up, in memory now and in the backlog page by
    /// page. What is in flight has its own outcome. The lane is done when it is empty.
    pub fn delete(&mut self) {
        self.caught_up(); // it is not sent what had been taken before walhook started
        if self.phase != DeliveryPhase::Stopped {
            self.close_for_good(DeliveryPhase::Deleted);
        }
    }

    /// Whether nothing happens before something is offered or changed.
    pub fn is_dormant(&self) -> bool {
        let is_serving = matches!(self.phase, DeliveryPhase::Open | DeliveryPhase::Gone);
        is_serving
            && self.is_empty()
            && self.in_flight.is_empty()
            && self.settled.is_empty()
            && self.reserved() == 0
            && self.breaker.is_closed()
    }

    /// Whether a new lane would do the same from here on, when nothing is owed.
    pub(crate) fn is_as_new(&self) -> bool {
        self.phase == DeliveryPhase::Open && !self.is_told_to_rest() && !self.is_slowed()
    }

    /// Gives back the room of what there was when there was more to do.
    pub fn give_back_memory(&mut self) {
        self.ready.shrink_to_fit();
        self.joining.shrink_to_fit();
        self.in_flight.shrink_to_fit();
        self.settled.shrink_to_fit();
        self.order.give_back_memory();
        self.retries.give_back_memory();
    }

    /// Whether the endpoint was removed.
    pub fn is_deleted(&self) -> bool {
        self.phase == DeliveryPhase::Deleted
    }

    /// Why everything that comes is given up, if that is so.
    pub(super) fn doom(&self) -> Option<DeathReason> {
        match self.phase {
            DeliveryPhase::Gone => Some(DeathReason::EndpointGone),
            DeliveryPhase::Deleted => Some(DeathReason::EndpointDeleted),
            DeliveryPhase::Open | DeliveryPhase::Stopped => None,
        }
    }

    fn reopen(&mut self) {
        if self.phase == DeliveryPhase::Gone {
            self.phase = DeliveryPhase::Open;
        }
    }

    /// Nothing holds the WAL, and nothing comes in from the backlog.
    fn rest_if_told(&mut self, now: LaneNow) {
        if self.is_told_to_rest() && self.phase == DeliveryPhase::Open && self.spill.is_some() {
            let reason = self.held_off().unwrap_or(ParkReason::Disabled);
            self.park_all(reason, now);
            self.release_reserved(0);
        }
    }

    /// What is parked may wait behind others than before, so that nothing is left to hold the WAL
    /// behind something that waits for long.
    fn reorder(&mut self, now: LaneNow) {
        if self.spill.is_some() && self.phase == DeliveryPhase::Open {
            self.park_all(ParkReason::Behind, now);
        }
        self.order.reorder(self.settings.ordering);
        self.ready.clear();
        for slot in self.order.waiting() {
            if self.order.is_first(slot) {
                self.line_up([Some(slot), None]);
            }
        }
    }
}
