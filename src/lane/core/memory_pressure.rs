//! Makes room for something large: what is in memory and not in flight goes out, into the backlog.
//!
//! Its rows come back in order, page by page, as those of any other delivery that is outside. What
//! has left memory is remembered by its id until then: a row that is not committed yet must not be
//! passed over, and one that is about to be deleted must not come in again.

use crate::flow::park_reason::ParkReason;
use crate::flow::settlement::DurableIn;
use crate::lane::core::DeliveryPhase;
use crate::lane::core::LaneNow;
use crate::lane::core::LaneState;
use crate::lane::core::counts::DeliveryPlace;
use crate::lane::core::order::slot::OrderSlot;
use crate::lane::core::retry_queue::ResumedDelivery;

impl LaneState {
    /// Gives back all that the lane holds, but for what is in flight and what an operator sends again.
    pub fn evict(&mut self, now: LaneNow) {
        let is_ready = |lane: &Self| {
            let spill = lane.spill.as_ref();
            lane.phase == DeliveryPhase::Open && spill.is_some_and(|spill| spill.is_caught_up())
        };
        if !is_ready(self) {
            return;
        }
        let reason = self.held_off().unwrap_or(ParkReason::Full);
        self.park_all(reason, now);
        let mut leaving: Vec<OrderSlot> = self.order.waiting();
        leaving.extend(self.retries.iter().flat_map(|(parcel, _)| parcel.members.iter().copied()));
        leaving.retain(|&slot| self.order.durable_in(slot) == DurableIn::Backlog);
        leaving.sort_unstable();
        leaving.dedup();
        let dues: Vec<_> = self
            .retries
            .iter()
            .flat_map(|(parcel, due)| parcel.members.iter().map(move |&slot| (slot, due)))
            .collect();
        for (slot, tries) in self.retries.remove(&leaving) {
            let due = dues.iter().find(|(known, _)| *known == slot);
            let due = due.map_or(now.instant, |(_, due)| *due);
            self.order.set_resume(slot, ResumedDelivery { tries, due });
        }
        // From the last to the first, so that none of them comes to the front in between.
        leaving.sort_unstable_by_key(|&slot| std::cmp::Reverse(self.order.arrival(slot)));
        for slot in leaving {
            let removed = self.order.remove(slot);
            self.line_up(removed.opened.all());
            self.free(DeliveryPlace::Own, &removed.event);
            self.freed.outside += 1;
            if let Some(spill) = &mut self.spill {
                spill.outside += 1;
                spill.cursor.evict(&removed.event, removed.resume);
            }
        }
        self.missing = 0;
        let order = &self.order;
        self.ready.retain(|&std::cmp::Reverse((arrival, slot))| order.is_waiting(slot, arrival));
    }
}
