//! What a lane tells the ledger: what has ended gathers for a moment, and its places become free when it is handed over.

use std::time::Duration;

use tokio::time::Instant;

use crate::flow::lease::Lease;
use crate::flow::report_queue::ReportPlace;
use crate::flow::settlement::DeliveryAttempt;
use crate::flow::time::Timestamp;
use crate::flow::verdict::AttemptVerdict;
use crate::flow::verdict::HttpExchange;
use crate::lane::core::LaneNow;
use crate::lane::core::counts::FreedDelivery;
use crate::lane::task::LaneTask;

/// A report of so many attempts or settled events is handed over at once. So is all there is when
/// nothing is in flight: more would not come, or wait for the places that it frees.
const REPORT_MANY: usize = 32;

/// How long a smaller one waits for more.
const REPORT_AFTER: Duration = Duration::from_millis(1);

impl LaneTask {
    pub(super) fn finish(&mut self, lease: Lease, exchange: HttpExchange, finished: Timestamp) {
        if exchange.verdict == AttemptVerdict::Delivered {
            self.gauges.note_answer(exchange.took);
        }
        let now = LaneNow { instant: Instant::now().into_std(), database: finished };
        let retry_in = self.lane.complete(lease.id, &exchange, now, fastrand::f64());
        let endpoint = self.endpoint;
        self.report.attempts.push(DeliveryAttempt {
            endpoint,
            lease,
            exchange,
            finished,
            retry_in,
        });
    }

    pub(super) fn note_settled(&mut self) {
        self.freed += self.lane.take_freed();
        let settled = self.lane.take_settled();
        if self.report.settlements.is_empty() {
            self.report.settlements = settled;
        } else {
            self.report.settlements.extend(settled);
        }
    }

    /// Whether the report is to be handed over now, and if not, when.
    pub(super) fn look_at_report(&mut self, is_at_rest: bool) -> (bool, Option<Instant>) {
        if self.report.is_empty() {
            return (false, None);
        }
        let many = self.report.attempts.len().max(self.report.settlements.len()) >= REPORT_MANY;
        if many || is_at_rest {
            return (true, None);
        }
        let now = Instant::now();
        let due = *self.report_due.get_or_insert(now + REPORT_AFTER);
        if due <= now { (true, None) } else { (false, Some(due)) }
    }

    pub(super) fn hand_over(&mut self, place: ReportPlace<'_>) {
        let report = std::mem::take(&mut self.report);
        self.report_due = None;
        self.free_places();
        place.send(report);
    }

    /// Gives back the places of all that has left memory, unless the ledger has not taken their report:
    /// it bounds what waits for it. Places that were kept for rows become free without one.
    pub(super) fn free_places(&mut self) {
        self.note_settled();
        if !self.report.is_empty() || self.freed == FreedDelivery::default() {
            return;
        }
        let mut freed = std::mem::take(&mut self.freed);
        freed.own = self.lane.keep_positions(freed.own, Instant::now().into_std());
        self.capacity.give_back(freed);
    }
}
