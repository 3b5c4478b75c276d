//! The lane of one endpoint: which request is made next, and what follows from its outcome.
//!
//! ```text
//! pump ─ Event ─▶ offer ┐          ┌ lease ─ Lease ────▶ delivery
//!                       ├─▶ [Lane] ┤                        │
//! clock ────────────────┘          ├ complete ◀─ Exchange ──┘
//!                                  └ take_settled ─ Settlement ─▶ ledger
//! ```
//!
//! Pure: no I/O, no clock, no randomness; time and random numbers come as arguments. It promises:
//! - events with a common key are sent in the order of arrival, and never at the same time, also
//!   through retries: a failing key holds back only itself;
//! - nothing is leased after its expiry, nor faster than the endpoint's rate limit, nor more than
//!   `concurrency` at once; after an outage the number in flight starts again from one;
//! - every event that was offered is settled exactly once, unless the lane is stopped before.
//!
//! A delivery that cannot be made promptly passes one of three places here, and waits in memory:
//! [`Lane::offer`] (the caller keeps to the capacity), `Lane::wait` (the next attempt may be far
//! away) and `Lane::may_start` (the endpoint may be out of order).

mod delays;
mod order;
mod pace;
mod retries;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use crate::flow::event::Event;
use crate::flow::lease::Lease;
use crate::flow::lease::LeaseId;
use crate::flow::settlement::DeathReason;
use crate::flow::settlement::Holding;
use crate::flow::settlement::Outcome;
use crate::flow::settlement::Settlement;
use crate::flow::time::Timestamp;
use crate::flow::verdict::Exchange;
use crate::flow::verdict::Failure;
use crate::flow::verdict::FailureClass;
use crate::flow::verdict::Verdict;
use crate::queue::lane::order::NumberHasher;
use crate::queue::lane::order::Opened;
use crate::queue::lane::order::Order;
use crate::queue::lane::order::Slot;
use crate::queue::lane::pace::Ramp;
use crate::queue::lane::pace::Rate;
use crate::queue::lane::pace::later;
use crate::queue::lane::retries::Parcel;
use crate::queue::lane::retries::Retries;
use crate::queue::settings::LaneSettings;

/// What a lane holds, in events.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// Not in flight and not tried before.
    pub queued: usize,
    pub in_flight: usize,
    /// Tried, and waiting for the next attempt.
    pub retrying: usize,
}

/// See the module's header.
#[derive(Debug)]
pub struct Lane {
    settings: LaneSettings,
    phase: Phase,
    order: Order,
    /// Events that nothing holds back, by arrival.
    ready: BinaryHeap<Reverse<(u64, Slot)>>,
    /// Events that may join the batch that is being gathered; empty between calls.
    joining: BinaryHeap<Reverse<(u64, Slot)>>,
    in_flight: HashMap<LeaseId, Parcel, BuildHasherDefault<NumberHasher>>,
    retries: Retries,
    rate: Rate,
    ramp: Ramp,
    /// So many more events must come before a full batch is possible, if nothing else happens.
    /// Keeps a lingering batch from being gathered again for each event that comes.
    missing: usize,
    /// Whether a due retry goes before fresh events. They take turns: neither a burst of retries
    /// nor a stream of fresh events may starve the other.
    retry_turn: bool,
    last_lease: u64,
    settled: Vec<Settlement>,
    in_flight_events: usize,
    /// Nothing more is offered, so a batch that is not full has nothing to wait for.
    is_closed: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    Open,
    /// The endpoint said 410: everything is settled as dead.
    Gone,
    /// Nothing is leased any more.
    Stopped,
}

impl Lane {
    pub fn new(settings: LaneSettings) -> Self {
        Self {
            phase: Phase::Open,
            order: Order::new(settings.ordering),
            ready: BinaryHeap::new(),
            joining: BinaryHeap::new(),
            in_flight: HashMap::default(),
            retries: Retries::default(),
            rate: Rate::new(settings.rate_limit),
            ramp: Ramp::new(settings.concurrency),
            missing: 0,
            retry_turn: true,
            last_lease: 0,
            settled: Vec::new(),
            in_flight_events: 0,
            is_closed: false,
            settings,
        }
    }

    /// Takes an event in. Events of one key must be offered in commit order.
    pub fn offer(&mut self, event: Arc<Event>, now: Instant) {
        if self.phase == Phase::Gone {
            self.settle(event, 0, Outcome::Dead { reason: DeathReason::EndpointGone });
            return;
        }
        self.missing = self.missing.saturating_sub(1);
        let slot = self.order.insert(event, now);
        if self.order.is_first(slot) {
            self.ready.push(Reverse((self.order.arrival(slot), slot)));
        }
    }

    /// The next request to make, if one may be made now: call it again until there is none.
    ///
    /// `database_now` is the time on the database's clock, on which expiry is decided.
    pub fn lease(&mut self, now: Instant, database_now: Timestamp) -> Option<Lease> {
        if !self.may_start(now) {
            return None;
        }
        let mut parcel = self.take_next(now, database_now)?;
        parcel.attempts += 1;
        self.rate.start(now);
        self.last_lease += 1;
        let id = LeaseId(self.last_lease);
        let events = parcel.members.iter().map(|&slot| Arc::clone(self.order.event(slot)));
        let events = events.collect();
        let lease = Lease { id, attempt: parcel.attempts, replay: false, events };
        self.in_flight_events += parcel.members.len();
        self.in_flight.insert(id, parcel);
        Some(lease)
    }

    /// Takes the outcome of a lease. Returns the wait before its next attempt, if there is one.
    ///
    /// `fraction` is a random number from 0 up to but not including 1.
    pub fn complete(
        &mut self,
        id: LeaseId,
        exchange: &Exchange,
        now: Instant,
        fraction: f64,
    ) -> Option<Duration> {
        let Some(parcel) = self.in_flight.remove(&id) else {
            debug_assert!(false, "{id:?} is not in flight");
            return None;
        };
        self.in_flight_events -= parcel.members.len();
        self.note_pace(exchange);
        let failure = || exchange.failure.clone().unwrap_or_else(unnamed_failure);
        let reason = match exchange.verdict {
            Verdict::Delivered => {
                let status = exchange.status.unwrap_or_default();
                self.settle_all(parcel, &Outcome::Delivered { status, took: exchange.took });
                return None;
            }
            Verdict::Retry { .. } if self.phase == Phase::Gone => DeathReason::EndpointGone,
            Verdict::Retry { at_least } => {
                let policy = &self.settings.retry;
                match delays::retry_delay(policy, parcel.attempts, at_least, fraction) {
                    Some(wait) => {
                        self.wait(parcel, id, later(now, wait));
                        return Some(wait);
                    }
                    None => DeathReason::RetriesExhausted(failure()),
                }
            }
            Verdict::Dead => DeathReason::Rejected(failure()),
            Verdict::Gone => DeathReason::EndpointGone,
        };
        self.settle_all(parcel, &Outcome::Dead { reason });
        // A lane that stops leaves the rest to the next start, which finds out for itself.
        if exchange.verdict == Verdict::Gone && self.phase == Phase::Open {
            self.close_for_good();
        }
        None
    }

    /// When to call [`Lane::lease`] again if nothing else happens before; `None` if only an offer
    /// or an outcome can help.
    pub fn wake_at(&self, now: Instant) -> Option<Instant> {
        if self.phase == Phase::Stopped || self.in_flight.len() >= self.ramp.allowed() {
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
        Some(self.rate.free_at(now).map_or(work, |free| work.max(free)))
    }

    /// Nothing more will be offered: what is there is leased without waiting for full batches.
    pub fn close(&mut self) {
        self.is_closed = true;
    }

    /// From here on nothing is leased. What is in flight can still be completed; the rest is never
    /// settled, and comes again after the restart.
    pub fn stop(&mut self) {
        self.phase = Phase::Stopped;
    }

    /// Takes the settlements since the last call, in the order in which they happened.
    pub fn take_settled(&mut self) -> Vec<Settlement> {
        std::mem::take(&mut self.settled)
    }

    pub fn counts(&self) -> Counts {
        let (in_flight, retrying) = (self.in_flight_events, self.retries.events());
        Counts { queued: self.order.len() - in_flight - retrying, in_flight, retrying }
    }

    /// Whether everything that was offered is settled.
    pub fn is_empty(&self) -> bool {
        self.order.len() == 0
    }

    /// Whether the endpoint said that it is gone for good.
    pub fn is_gone(&self) -> bool {
        self.phase == Phase::Gone
    }

    /// Whether fewer requests are made at once than configured, because of an outage.
    pub fn is_slowed(&self) -> bool {
        self.ramp.is_reduced()
    }

    /// Whether the endpoint may get another request. An open circuit breaker belongs here.
    fn may_start(&self, now: Instant) -> bool {
        self.phase != Phase::Stopped
            && self.in_flight.len() < self.ramp.allowed()
            && self.rate.free_at(now).is_none()
    }

    fn take_next(&mut self, now: Instant, database_now: Timestamp) -> Option<Parcel> {
        // Retries that turn out to have expired can free fresh events: hence the third look.
        for retry in [self.retry_turn, !self.retry_turn, false] {
            let parcel = if retry {
                self.take_due_retry(now, database_now)
            } else {
                self.take_fresh(now, database_now)
            };
            if parcel.is_some() {
                self.retry_turn = !retry;
                return parcel;
            }
        }
        None
    }

    fn take_due_retry(&mut self, now: Instant, database_now: Timestamp) -> Option<Parcel> {
        while let Some(Parcel { mut members, attempts }) = self.retries.pop_due(now) {
            members.retain(|&slot| !self.settle_if_expired(slot, attempts, database_now));
            if !members.is_empty() {
                return Some(Parcel { members, attempts });
            }
        }
        None
    }

    /// A batch of events that were not tried before, if one is due.
    fn take_fresh(&mut self, now: Instant, database_now: Timestamp) -> Option<Parcel> {
        let &Reverse((_, oldest)) = self.ready.peek()?;
        if self.missing > 0 && now < self.linger_end(oldest) {
            return None;
        }
        self.missing = 0;
        let size = self.settings.batch.size.get();
        let members = self.gather(size, database_now);
        let &oldest = members.first()?;
        if members.len() < size && now < self.linger_end(oldest) {
            self.order.release(&members);
            let first = members.iter().filter(|&&slot| self.order.is_first(slot));
            self.ready.extend(first.map(|&slot| Reverse((self.order.arrival(slot), slot))));
            self.missing = size - members.len();
            return None;
        }
        self.order.take(&members);
        Some(Parcel { members, attempts: 0 })
    }

    /// Up to `size` events in the order of arrival, such that each one's predecessors by key are
    /// among them. Expired ones are settled on the way.
    fn gather(&mut self, size: usize, database_now: Timestamp) -> Vec<Slot> {
        let mut members = Vec::new();
        while members.len() < size {
            let from = match (self.ready.peek(), self.joining.peek()) {
                (Some(Reverse(ready)), Some(Reverse(joining))) if joining < ready => {
                    &mut self.joining
                }
                (None, Some(_)) => &mut self.joining,
                _ => &mut self.ready,
            };
            let Some(Reverse((_, slot))) = from.pop() else { break };
            if !self.settle_if_expired(slot, 0, database_now) {
                let opened = self.order.join(slot);
                self.line_up(opened);
                members.push(slot);
            }
        }
        self.joining.clear();
        members
    }

    /// When the batch that starts with this event is sent even if it is not full.
    fn linger_end(&self, oldest: Slot) -> Instant {
        let since = self.order.since(oldest);
        if self.is_closed || self.settings.batch.size.get() == 1 {
            return since;
        }
        later(since, self.settings.batch.linger)
    }

    /// Keeps a parcel until its next attempt. A delivery whose next attempt is far away is parked
    /// from here.
    fn wait(&mut self, parcel: Parcel, failed: LeaseId, due: Instant) {
        self.retries.push(parcel, failed, due);
    }

    /// An attempt tells how the endpoint does, whatever becomes of its events.
    fn note_pace(&mut self, exchange: &Exchange) {
        match exchange.verdict {
            Verdict::Delivered => self.ramp.answered(),
            Verdict::Retry { .. } => self.ramp.failed(),
            // A refusal is an answer; a request that could not be built or sent is not.
            Verdict::Dead | Verdict::Gone if exchange.status.is_some() => self.ramp.answered(),
            Verdict::Dead | Verdict::Gone => {}
        }
    }

    fn settle_if_expired(&mut self, slot: Slot, attempts: u32, database_now: Timestamp) -> bool {
        let expiry = self.order.event(slot).expiry;
        let is_over = expiry.is_some_and(|expiry| expiry.is_over(database_now));
        if is_over {
            self.release_and_settle(slot, attempts, Outcome::Expired);
        }
        is_over
    }

    fn settle_all(&mut self, parcel: Parcel, outcome: &Outcome) {
        for slot in parcel.members {
            self.release_and_settle(slot, parcel.attempts, outcome.clone());
        }
    }

    /// Settles everything that is not in flight, for ever.
    fn close_for_good(&mut self) {
        self.phase = Phase::Gone;
        let dead = Outcome::Dead { reason: DeathReason::EndpointGone };
        while let Some(parcel) = self.retries.pop() {
            self.settle_all(parcel, &dead);
        }
        for slot in self.order.waiting() {
            self.release_and_settle(slot, 0, dead.clone());
        }
        self.ready.clear();
    }

    fn release_and_settle(&mut self, slot: Slot, attempts: u32, outcome: Outcome) {
        let (event, opened) = self.order.remove(slot);
        self.line_up(opened);
        self.missing = 0;
        self.settle(event, attempts, outcome);
    }

    fn settle(&mut self, event: Arc<Event>, attempts: u32, outcome: Outcome) {
        let endpoint = self.settings.endpoint;
        let (holding, history) = (Holding::Wal, None);
        self.settled.push(Settlement { event, endpoint, outcome, holding, attempts, history });
    }

    fn line_up(&mut self, opened: Opened) {
        for slot in opened.into_iter().flatten() {
            let place = Reverse((self.order.arrival(slot), slot));
            if self.order.is_first(slot) {
                self.ready.push(place);
            } else {
                self.joining.push(place);
            }
        }
    }
}

/// For a failed exchange that came without its reason.
fn unnamed_failure() -> Failure {
    Failure { class: FailureClass::Request, detail: String::from("no reason was recorded") }
}
