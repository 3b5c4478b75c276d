//! How deliveries leave the lane: each with one final outcome, and the place that it had.

use std::sync::Arc;

use crate::flow::event::Event;
use crate::flow::settlement::DeliveryOutcome;
use crate::flow::settlement::DurableIn;
use crate::flow::settlement::Settlement;
use crate::flow::time::Timestamp;
use crate::lane::core::DeliveryPhase;
use crate::lane::core::LaneState;
use crate::lane::core::counts::DeliveryPlace;
use crate::lane::core::order::slot::OrderSlot;
use crate::lane::core::retry_queue::AttemptCount;
use crate::lane::core::retry_queue::RetryBatch;

impl LaneState {
    pub(super) fn settle_if_expired(
        &mut self,
        slot: OrderSlot,
        tries: &AttemptCount,
        now: Timestamp,
    ) -> bool {
        let expiry = self.order.event(slot).expiry;
        let is_over = expiry.is_some_and(|expiry| expiry.is_over(now));
        if is_over {
            self.release_and_settle(slot, tries, DeliveryOutcome::Expired);
        }
        is_over
    }

    pub(super) fn settle_all(&mut self, parcel: RetryBatch, outcome: &DeliveryOutcome) {
        for slot in parcel.members {
            self.release_and_settle(slot, &parcel.tries, outcome.clone());
        }
    }

    /// Settles everything that is not in flight, for ever. What is in the backlog only comes
    /// through memory and is settled there.
    pub(super) fn close_for_good(&mut self, phase: DeliveryPhase) {
        self.phase = phase;
        let Some(reason) = self.doom() else { return };
        let dead = DeliveryOutcome::Dead { reason };
        while let Some(parcel) = self.retries.pop() {
            self.settle_all(parcel, &dead);
        }
        let waiting = self.order.waiting().into_iter().map(|slot| (slot, dead.clone()));
        self.settle_waiting(waiting.collect());
        while let Some(event) = self.pop_tail() {
            self.free(DeliveryPlace::Own, &event);
            self.settle(event, DurableIn::Wal, &AttemptCount::default(), dead.clone());
        }
        self.ready.clear();
    }

    /// Settles events that wait, given in the order of arrival.
    pub(super) fn settle_waiting(&mut self, doomed: Vec<(OrderSlot, DeliveryOutcome)>) {
        let from = self.settled.len();
        // From the last to the first, so that none of them comes to the front in between.
        for (slot, outcome) in doomed.into_iter().rev() {
            self.release_and_settle(slot, &AttemptCount::default(), outcome);
        }
        self.settled.get_mut(from..).unwrap_or_default().reverse();
    }

    /// Gives an event in memory its final outcome. `tries` does not count for one that waits to
    /// continue: it knows its own.
    pub(super) fn release_and_settle(
        &mut self,
        slot: OrderSlot,
        tries: &AttemptCount,
        outcome: DeliveryOutcome,
    ) {
        let removed = self.order.remove(slot);
        self.line_up(removed.opened.all());
        self.missing = 0;
        let tries = removed.resume.as_ref().map_or(tries, |resume| &resume.tries);
        if matches!(removed.durable_in, DurableIn::Replay(_)) {
            self.freed.own += 1;
            self.freed.replays += 1;
        } else {
            self.free(DeliveryPlace::Own, &removed.event);
        }
        self.settle(removed.event, removed.durable_in, tries, outcome);
    }

    pub(super) fn settle(
        &mut self,
        event: Arc<Event>,
        durable_in: DurableIn,
        tries: &AttemptCount,
        outcome: DeliveryOutcome,
    ) {
        let endpoint = self.settings.endpoint;
        let AttemptCount { attempts, history, .. } = tries.clone();
        self.settled.push(Settlement { event, endpoint, outcome, durable_in, attempts, history });
    }

    /// An event leaves memory.
    pub(super) fn free(&mut self, place: DeliveryPlace, event: &Event) {
        match place {
            DeliveryPlace::Own => {
                self.freed.own += 1;
                self.freed.weight += self.settings.weight(event);
            }
            DeliveryPlace::Overflow => self.freed.overflow += 1,
        }
    }
}
