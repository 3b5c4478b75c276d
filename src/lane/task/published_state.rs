//! The state of a lane as gauges, senders and the log get it.

use tokio::time::Instant;

use crate::lane::capacity::LaneAdmission;
use crate::lane::core::breaker::BreakerState;
use crate::lane::task::LaneTask;

impl LaneTask {
    /// Brings the gauges up to date, tells senders the way, and logs what an operator should hear.
    pub(super) fn show(&self) {
        let (endpoint, counts) = (&self.name, self.lane.counts());
        self.gauges.set_counts(counts, self.lane.reserved(), self.freed.outside);
        let breaker = self.lane.breaker(Instant::now().into_std());
        self.capacity.show_admission(match (self.lane.is_taking(), self.lane.is_held_off()) {
            (false, _) => LaneAdmission::Overflow,
            (true, false) => LaneAdmission::Accept,
            (true, true) => LaneAdmission::AcceptOrOverflow,
        });
        let before = self.gauges.set_breaker(breaker);
        if before != breaker {
            let backlog = counts.parked + counts.outside;
            match (before, breaker) {
                (BreakerState::Closed, BreakerState::Open) => {
                    tracing::warn!(%endpoint, backlog, "endpoint is out of order: deliveries are parked");
                }
                (_, BreakerState::Open) => tracing::debug!(%endpoint, backlog, "the try failed"),
                (_, BreakerState::HalfOpen) => {
                    tracing::debug!(%endpoint, "endpoint is being tried")
                }
                (_, BreakerState::Closed) => {
                    tracing::info!(%endpoint, backlog, "endpoint works again");
                }
            }
        }
        let is_slowed = self.lane.is_slowed();
        if self.gauges.set_slowed(is_slowed) && breaker == BreakerState::Closed {
            if is_slowed {
                tracing::warn!(%endpoint, "endpoint fails: one request at a time until it answers");
            } else {
                tracing::info!(%endpoint, "endpoint answers again");
            }
        }
        if self.gauges.set_gone(self.lane.is_gone()) {
            tracing::error!(
                %endpoint,
                "endpoint is gone (410): its events are dead letters until it is enabled again, or \
                 walhook is started again"
            );
        }
    }
}
