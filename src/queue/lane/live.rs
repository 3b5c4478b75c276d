//! What can be changed while the lane runs: its settings, whether it sends, and that it ends.

use crate::flow::settlement::DeathReason;
use crate::flow::settlement::ParkReason;
use crate::queue::lane::Lane;
use crate::queue::lane::Now;
use crate::queue::lane::Phase;
use crate::queue::settings::LaneSettings;

impl Lane {
    /// Keeps to other settings from here on; whether there is a backlog, what it holds, and the
    /// lane's share of memory do not change. An endpoint that said 410 gets another chance: it may be another one.
    pub fn reconfigure(&mut self, settings: LaneSettings, now: Now) {
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
        self.rest_if_paused(now); // it did not while it was gone
        if is_reordered {
            self.reorder(now);
        }
    }

    /// The endpoint is disabled: what is in flight ends, all else waits in the backlog.
    pub fn pause(&mut self, now: Now) {
        self.is_paused = true;
        self.rest_if_paused(now);
    }

    /// The endpoint is enabled again, also one that said 410.
    pub fn resume(&mut self) {
        self.is_paused = false;
        self.reopen();
    }

    /// The endpoint is removed: what waits is given up, in memory now and in the backlog page by
    /// page. What is in flight has its own outcome. The lane is done when it is empty.
    pub fn delete(&mut self) {
        self.caught_up(); // it is not sent what had been taken before walhook started
        if self.phase != Phase::Stopped {
            self.close_for_good(Phase::Deleted);
        }
    }

    /// Whether the endpoint was removed.
    pub fn is_deleted(&self) -> bool {
        self.phase == Phase::Deleted
    }

    /// Why everything that comes is given up, if that is so.
    pub(super) fn doom(&self) -> Option<DeathReason> {
        match self.phase {
            Phase::Gone => Some(DeathReason::EndpointGone),
            Phase::Deleted => Some(DeathReason::EndpointDeleted),
            Phase::Open | Phase::Stopped => None,
        }
    }

    fn reopen(&mut self) {
        if self.phase == Phase::Gone {
            self.phase = Phase::Open;
        }
    }

    /// Nothing holds the WAL, and nothing comes in from the backlog.
    fn rest_if_paused(&mut self, now: Now) {
        if self.is_paused && self.phase == Phase::Open && self.spill.is_some() {
            self.park_all(ParkReason::Disabled, now);
            self.release_reserved(0);
        }
    }

    /// What is parked may wait behind others than before, so that nothing is left to hold the WAL
    /// behind something that waits for long.
    fn reorder(&mut self, now: Now) {
        if self.spill.is_some() && self.phase == Phase::Open {
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
