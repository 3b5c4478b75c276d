//! The lane of one endpoint: which request is made next, and what follows from its outcome.
//!
//! ```text
//! pump ─ Event ─▶ offer ┐          ┌ lease ─ Lease ────▶ delivery
//! backlog ──▶ refilled ─┼─▶ [LaneState] ┤                        │
//! clock ──────▶ tick ───┘          ├ complete ◀─ Exchange ──┘
//!                                  └ take_settled ─ Settlement ─▶ ledger
//! ```
//!
//! Pure: no I/O, no clock, no randomness; time and random numbers come as arguments. It promises:
//! - events with a common key are sent in the order of arrival, and never at the same time, also
//!   through retries and the backlog: a failing key holds back only itself;
//! - nothing is leased after its expiry, nor faster than the endpoint's rate limit, nor more than
//!   `concurrency` at once; after an outage the number in flight starts again from one;
//! - every event that was offered gets one final outcome, unless the lane is stopped before;
//! - an attempt counts only if it came to the endpoint and was no probe of the circuit breaker;
//! - nothing waits for long and holds the WAL: it is parked, which means that the ledger writes it
//!   into the backlog. While the endpoint is out of order, all but what is in flight is parked.
//!
//! | file | holds |
//! | --- | --- |
//! | `backlog_limits` | What is parked for too long, or too much, or has expired |
//! | `backlog_model` | A lane beside a backlog, against a model of both |
//! | `breaker` | The circuit breaker |
//! | `concurrency` | How many requests may be in flight at once |
//! | `counts` | What a lane holds, and what it gives back |
//! | `cursor` | How far the backlog has come into memory |
//! | `dispatch` | What is sent next: retries and fresh events, alone or in batches |
//! | `live` | What can be changed while the lane runs |
//! | `memory_pressure` | Makes room for something large |
//! | `model` | A lane in memory alone, against a model |
//! | `order` | Who stands behind whom, by key |
//! | `outcome` | What follows from the outcome of a request |
//! | `pace` | The rate limit, and the ramp after an outage |
//! | `parking` | What is parked in memory, and keeps its turn |
//! | `retry_delays` | How long a failed delivery waits |
//! | `retry_queue` | Requests that failed and are made again later |
//! | `settle` | How deliveries leave the lane |
//! | `spill` | The order between memory and backlog |
//! | `split` | A batch that is refused for good, event by event |

mod backlog_limits;
pub(crate) mod breaker;
mod concurrency;
pub(crate) mod counts;
mod cursor;
mod dispatch;
mod live;
mod memory_pressure;
mod order;
mod outcome;
mod pace;
mod parking;
mod retry_delays;
mod retry_queue;
mod settle;
pub(crate) mod spill;
mod split;

#[cfg(test)]
mod backlog_model;
#[cfg(test)]
mod live_tests;
#[cfg(test)]
mod model;
#[cfg(test)]
mod parking_tests;
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
use crate::flow::settlement::DeliveryOutcome;
use crate::flow::settlement::DurableIn;
use crate::flow::settlement::ReplayId;
use crate::flow::settlement::Settlement;
use crate::flow::time::Timestamp;
use crate::lane::core::breaker::BreakerState;
use crate::lane::core::breaker::CircuitBreaker;
use crate::lane::core::concurrency::ConcurrencyLimit;
use crate::lane::core::counts::DeliveryPlace;
use crate::lane::core::counts::FreedDelivery;
use crate::lane::core::counts::LaneCounts;
use crate::lane::core::order::ArrivedEvent;
use crate::lane::core::order::KeyOrder;
use crate::lane::core::order::number_hasher::NumberHasher;
use crate::lane::core::order::slot::OrderSlot;
use crate::lane::core::pace::RateLimit;
use crate::lane::core::pace::RecoveryRamp;
use crate::lane::core::retry_queue::AttemptCount;
use crate::lane::core::retry_queue::RetryBatch;
use crate::lane::core::retry_queue::RetryQueue;
use crate::lane::core::spill::BacklogSpill;
use crate::lane::settings::LaneSettings;

/// One moment, on both clocks: ours for waits, the database's for ages.
#[derive(Clone, Copy, Debug)]
pub struct LaneNow {
    pub instant: Instant,
    pub database: Timestamp,
}

impl LaneNow {
    /// What the database's clock shows at `instant`.
    fn on_database(self, instant: Instant) -> Timestamp {
        let ahead = instant.saturating_duration_since(self.instant);
        self.database.shifted(i64::try_from(ahead.as_micros()).unwrap_or(i64::MAX))
    }
}

/// An endpoint that took something within this time, and refuses something else for want of room, is
/// there.
const LATELY: Duration = Duration::from_millis(500);

/// Decides what one endpoint is sent next. Pure: time and chance are arguments.
#[derive(Debug)]
pub struct LaneState {
    settings: LaneSettings,
    phase: DeliveryPhase,
    order: KeyOrder,
    /// Events that nothing holds back, by arrival.
    ready: BinaryHeap<Reverse<(u64, OrderSlot)>>,
    /// Events that may join the batch that is being gathered; empty between calls.
    joining: BinaryHeap<Reverse<(u64, OrderSlot)>>,
    in_flight: HashMap<LeaseId, InFlightDelivery, BuildHasherDefault<NumberHasher>>,
    retries: RetryQueue,
    rate: RateLimit,
    ramp: RecoveryRamp,
    limit: ConcurrencyLimit,
    /// How many requests there may be for the sake of other lanes.
    bound: usize,
    /// When the endpoint answered last.
    answered: Option<Instant>,
    /// Nothing more is on its way, so that a batch that is not full waits for answers only.
    is_resting: bool,
    breaker: CircuitBreaker,
    /// `None` where there is no backlog to park in.
    spill: Option<BacklogSpill>,
    /// So many more events must come before a full batch is possible, if nothing else happens.
    /// Keeps a lingering batch from being gathered again for each event that comes.
    missing: usize,
    /// Whether a due retry goes before fresh events. They take turns: neither a burst of retries
    /// nor a stream of fresh events may starve the other.
    is_retry_next: bool,
    last_lease: u64,
    settled: Vec<Settlement>,
    freed: FreedDelivery,
    /// What has come in from the backlog since the lane's task asked, by weight.
    loaded: usize,
    in_flight_events: usize,
    /// Nothing more is offered, so a batch that is not full has nothing to wait for.
    is_closed: bool,
    /// The endpoint is disabled: nothing is leased, and what waits is parked.
    is_disabled: bool,
    /// An operator has paused it: likewise, but the limits of the backlog hold.
    is_paused: bool,
    /// What was leased up to this one, or comes from the backlog, began before the schedule of all
    /// that waited was begun anew.
    anew: Option<LeaseId>,
}

#[derive(Debug)]
struct InFlightDelivery {
    parcel: RetryBatch,
    begun: Timestamp,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum DeliveryPhase {
    Open,
    /// The endpoint said 410: everything is settled as dead.
    Gone,
    /// The endpoint was removed: likewise.
    Deleted,
    /// Nothing is leased any more.
    Stopped,
}

impl LaneState {
    pub fn new(settings: LaneSettings) -> Self {
        let parking = settings.parking.as_ref();
        let mut breaker = CircuitBreaker::new(parking.and_then(|parking| parking.terms.breaker));
        let mut ramp = RecoveryRamp::new(settings.concurrency, settings.is_steady());
        if parking.and_then(|parking| parking.standing).is_some_and(|standing| standing.is_out) {
            breaker = breaker.unproven();
            ramp.restart();
        }
        Self {
            phase: DeliveryPhase::Open,
            order: KeyOrder::new(settings.ordering),
            ready: BinaryHeap::new(),
            joining: BinaryHeap::new(),
            in_flight: HashMap::default(),
            retries: RetryQueue::default(),
            rate: RateLimit::new(settings.rate_limit),
            ramp,
            limit: ConcurrencyLimit::new(settings.concurrency, settings.is_steady()),
            bound: usize::MAX,
            answered: None,
            is_resting: false,
            breaker,
            spill: parking.map(BacklogSpill::new),
            missing: 0,
            is_retry_next: true,
            last_lease: 0,
            settled: Vec::new(),
            freed: FreedDelivery::default(),
            loaded: 0,
            in_flight_events: 0,
            is_closed: false,
            is_disabled: false,
            is_paused: false,
            anew: None,
            settings,
        }
    }

    /// Takes an event in. Events of one key must be offered in commit order.
    pub fn offer(&mut self, event: Arc<Event>, place: DeliveryPlace, now: LaneNow) {
        if let Some(reason) = self.doom() {
            self.free(place, &event);
            self.settle(
                event,
                DurableIn::Wal,
                &AttemptCount::default(),
                DeliveryOutcome::Dead { reason },
            );
        } else if place == DeliveryPlace::Overflow || self.is_spilling() {
            self.offer_outside(event, place, now);
        } else {
            self.keep_arrival(event, now);
        }
    }

    /// Takes in an event that an operator sends again, behind all that are in memory with one of
    /// its keys. It has a place of its own.
    pub fn replay(&mut self, event: Arc<Event>, id: ReplayId, now: LaneNow) {
        let durable_in = DurableIn::Replay(id);
        if let Some(reason) = self.doom() {
            self.settle(
                event,
                durable_in,
                &AttemptCount::default(),
                DeliveryOutcome::Dead { reason },
            );
            self.freed.own += 1;
            self.freed.replays += 1;
            return;
        }
        self.keep(ArrivedEvent { event, durable_in, parked: now.database, resume: None }, now);
    }

    /// The next request to make, if one may be made now: call it again until there is none.
    pub fn lease(&mut self, now: LaneNow) -> Option<Lease> {
        if !self.may_start(now.instant) {
            return None;
        }
        let mut parcel = self.take_next(now)?;
        parcel.tries.attempts += 1;
        self.rate.start(now.instant);
        self.last_lease += 1;
        let id = LeaseId(self.last_lease);
        self.breaker.started(id);
        self.limit.started(id, self.in_flight.len() + 1);
        let replay = parcel.members.first().is_some_and(|&slot| self.order.is_replay(slot));
        let events = parcel.members.iter().map(|&slot| Arc::clone(self.order.event(slot)));
        let lease = Lease { id, attempt: parcel.tries.attempts, replay, events: events.collect() };
        self.in_flight_events += parcel.members.len();
        self.in_flight.insert(id, InFlightDelivery { parcel, begun: now.database });
        Some(lease)
    }

    /// Does what time alone brings about. To be called before [`LaneState::lease`].
    pub fn tick(&mut self, now: LaneNow) {
        if self.phase != DeliveryPhase::Stopped {
            self.sweep_if_due(now);
            self.end_tail_if_due(now);
        }
    }

    /// When to call [`LaneState::tick`], [`LaneState::lease`] and [`LaneState::refill_room`] again if nothing else
    /// happens before; `None` if only an offer or an outcome can help.
    pub fn wake_at(&self, now: Instant) -> Option<Instant> {
        if self.phase == DeliveryPhase::Stopped {
            return None;
        }
        self.next_lease_at(now).into_iter().chain(self.next_care_at(now)).min()
    }

    /// Nothing more will be offered: what is there is leased without waiting for full batches, and
    /// what waits for the backlog goes there.
    pub fn close(&mut self, now: LaneNow) {
        self.is_closed = true;
        self.end_tail(now);
    }

    /// From here on nothing is leased. What is in flight can still be completed; the rest is never
    /// settled, and comes again after the restart.
    pub fn stop(&mut self) {
        self.phase = DeliveryPhase::Stopped;
    }

    /// Takes the settlements since the last call, in the order in which they happened.
    pub fn take_settled(&mut self) -> Vec<Settlement> {
        std::mem::take(&mut self.settled)
    }

    /// Takes the places that the settlements since the last call have freed.
    pub fn take_freed(&mut self) -> FreedDelivery {
        std::mem::take(&mut self.freed)
    }

    /// Takes the weight of what has come in from the backlog since the last call.
    pub fn take_loaded(&mut self) -> usize {
        std::mem::take(&mut self.loaded)
    }

    pub fn counts(&self) -> LaneCounts {
        let (in_flight, retrying) = (self.in_flight_events, self.retries.events());
        LaneCounts {
            queued: self.order.len() + self.tail_len() - in_flight - retrying,
            in_flight,
            retrying,
            parked: self.order.parked(),
            replays: self.order.replays(),
            outside: self.outside(),
        }
    }

    /// Whether nothing is owed any more, neither from memory nor from the backlog.
    pub fn is_empty(&self) -> bool {
        self.order.len() + self.tail_len() + self.outside() == 0
    }

    /// Whether the WAL holds nothing for this lane any more: the rest is safe in the database.
    pub fn is_durable(&self) -> bool {
        self.order.len() == self.order.parked() + self.order.replays() && self.tail_len() == 0
    }

    /// Whether the endpoint said that it is gone for good.
    pub fn is_gone(&self) -> bool {
        self.phase == DeliveryPhase::Gone
    }

    /// Whether fewer requests are made at once than configured, because of an outage.
    pub fn is_slowed(&self) -> bool {
        self.ramp.is_reduced()
    }

    pub fn breaker(&self, now: Instant) -> BreakerState {
        self.breaker.state(now)
    }

    /// How many requests may be in flight.
    fn allowed(&self) -> usize {
        self.ramp.allowed().min(self.limit.allowed()).min(self.bound)
    }

    /// Requests in flight.
    pub fn requests(&self) -> usize {
        self.in_flight.len()
    }

    /// No more requests than these are to be in flight, but one in any case. Not for an endpoint whose
    /// schedule holds to the letter.
    pub fn bound(&mut self, requests: usize) {
        self.bound = if self.settings.is_steady() { usize::MAX } else { requests.max(1) };
    }

    /// Whether an endpoint that refuses for want of room takes other requests at the same time.
    fn bears_fewer(&self, now: Instant) -> bool {
        let within = self.limit.usual().map(|usual| (usual * 2).max(LATELY));
        let lately = |within| self.has_answered_within(within, now);
        self.breaker.is_closed() && within.is_some_and(lately)
    }

    /// Whether the endpoint has answered within this time.
    fn has_answered_within(&self, within: Duration, now: Instant) -> bool {
        self.answered.is_some_and(|at| now.saturating_duration_since(at) <= within)
    }

    /// Nothing more is on its way at the moment.
    pub fn rest(&mut self) {
        self.is_resting = true;
    }
}
