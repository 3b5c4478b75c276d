//! What is sent next: retries and fresh events in turns, alone or in batches.

use std::cmp::Reverse;
use std::time::Instant;

use crate::flow::lease::LeaseId;
use crate::lane::core::DeliveryPhase;
use crate::lane::core::LaneNow;
use crate::lane::core::LaneState;
use crate::lane::core::order::slot::OrderSlot;
use crate::lane::core::pace::later;
use crate::lane::core::retry_queue::AttemptCount;
use crate::lane::core::retry_queue::RetryBatch;

impl LaneState {
    /// Whether the endpoint may get another request.
    pub(super) fn may_start(&self, now: Instant) -> bool {
        self.phase != DeliveryPhase::Stopped
            && !self.is_told_to_rest()
            && self.in_flight.len() < self.allowed()
            && self.rate.free_at(now).is_none()
            && self.breaker.free_at(now).is_some_and(|free| free <= now)
    }

    /// When the next request may start, as far as that is known.
    pub(super) fn next_lease_at(&self, now: Instant) -> Option<Instant> {
        if self.is_told_to_rest() || self.in_flight.len() >= self.allowed() {
            return None;
        }
        let retry = self.retries.next_due();
        let fresh =
            self.ready.peek().map(
                |&Reverse((_, oldest))| {
                    if self.missing == 0 { now } else { self.linger_end(oldest) }
                },
            );
        let work = retry.into_iter().chain(fresh).min()?;
        let work = work.max(self.breaker.free_at(now)?);
        Some(self.rate.free_at(now).map_or(work, |free| work.max(free)))
    }

    pub(super) fn take_next(&mut self, now: LaneNow) -> Option<RetryBatch> {
        // Retries that turn out to have expired can free fresh events: hence the third look. Fresh
        // ones that have expired can free deliveries that continue: hence the fourth.
        for retry in [self.is_retry_next, !self.is_retry_next, false, true] {
            let parcel = if retry { self.take_due_retry(now) } else { self.take_fresh(now) };
            if parcel.is_some() {
                self.is_retry_next = !retry;
                return parcel;
            }
        }
        None
    }

    fn take_due_retry(&mut self, now: LaneNow) -> Option<RetryBatch> {
        while let Some(RetryBatch { mut members, tries }) = self.retries.pop_due(now.instant) {
            members.retain(|&slot| !self.settle_if_expired(slot, &tries, now.database));
            if !members.is_empty() {
                return Some(RetryBatch { members, tries });
            }
        }
        None
    }

    /// A batch of events that were not tried before, if one is due.
    fn take_fresh(&mut self, now: LaneNow) -> Option<RetryBatch> {
        let &Reverse((_, oldest)) = self.ready.peek()?;
        if self.missing > 0 && now.instant < self.linger_end(oldest) {
            return None;
        }
        self.missing = 0;
        let size = self.settings.batch.size.get();
        let (members, is_closed) = self.gather(size, now);
        let &oldest = members.first()?;
        if members.len() < size && !is_closed && now.instant < self.linger_end(oldest) {
            self.order.release(&members);
            let first = members.iter().filter(|&&slot| self.order.is_first(slot));
            self.ready.extend(first.map(|&slot| Reverse((self.order.arrival(slot), slot))));
            self.missing = size - members.len();
            return None;
        }
        self.order.take(&members);
        Some(RetryBatch { members, tries: AttemptCount::default() })
    }

    /// Up to `size` events in the order of arrival, such that each one's predecessors by key are
    /// among them. Expired ones are settled on the way. Replays and others are never together: the
    /// flag tells that the batch ends for that.
    fn gather(&mut self, size: usize, now: LaneNow) -> (Vec<OrderSlot>, bool) {
        let mut members: Vec<OrderSlot> = Vec::new();
        let mut is_closed = false;
        while members.len() < size {
            let from = match (self.ready.peek(), self.joining.peek()) {
                (Some(Reverse(ready)), Some(Reverse(joining))) if joining < ready => {
                    &mut self.joining
                }
                (None, Some(_)) => &mut self.joining,
                _ => &mut self.ready,
            };
            let Some(&Reverse((_, slot))) = from.peek() else { break };
            let is_replay = self.order.is_replay(slot);
            if members.first().is_some_and(|&first| self.order.is_replay(first) != is_replay) {
                is_closed = true;
                break;
            }
            from.pop();
            if !self.settle_if_expired(slot, &AttemptCount::default(), now.database) {
                let opened = self.order.join(slot);
                self.line_up(opened.all());
                members.push(slot);
            }
        }
        self.joining.clear();
        (members, is_closed)
    }

    /// When the batch that starts with this event is sent even if it is not full.
    fn linger_end(&self, oldest: OrderSlot) -> Instant {
        let since = self.order.since(oldest);
        // What comes later joins it only if it has to wait for an answer anyway.
        let goes_alone = self.is_resting && self.in_flight.is_empty();
        if self.is_closed || goes_alone || self.settings.batch.size.get() == 1 {
            return since;
        }
        later(since, self.settings.batch.linger)
    }

    /// Puts events that have come to the front where they are found.
    pub(super) fn line_up(&mut self, opened: impl IntoIterator<Item = Option<OrderSlot>>) {
        for slot in opened.into_iter().flatten() {
            let place = Reverse((self.order.arrival(slot), slot));
            if !self.order.is_first(slot) {
                self.joining.push(place);
            } else if let Some(resume) = self.order.resume(slot) {
                self.last_lease += 1;
                let parcel = RetryBatch { members: vec![slot], tries: resume.tries };
                self.retries.push(parcel, LeaseId(self.last_lease), resume.due);
            } else {
                self.ready.push(place);
            }
        }
    }
}
