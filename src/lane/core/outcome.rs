//! What follows from the outcome of a request: delivered, tried again, parked, a dead letter; and the pace that it tells of.

use std::time::Duration;
use std::time::Instant;

use crate::flow::dead_letter_reason::DeathReason;
use crate::flow::lease::LeaseId;
use crate::flow::park_reason::ParkReason;
use crate::flow::settlement::DeliveryOutcome;
use crate::flow::verdict::AttemptReach;
use crate::flow::verdict::AttemptVerdict;
use crate::flow::verdict::HttpExchange;
use crate::lane::core::DeliveryPhase;
use crate::lane::core::InFlightDelivery;
use crate::lane::core::LaneNow;
use crate::lane::core::LaneState;
use crate::lane::core::retry_delays;
use crate::lane::core::retry_queue::AttemptCount;
use crate::lane::core::retry_queue::RetryBatch;
use crate::lane::core::split;

impl LaneState {
    /// Takes the outcome of a lease. Returns the wait before its next attempt, if there is one.
    ///
    /// `fraction` is a random number from 0 up to but not including 1.
    pub fn complete(
        &mut self,
        id: LeaseId,
        exchange: &HttpExchange,
        now: LaneNow,
        fraction: f64,
    ) -> Option<Duration> {
        let Some(InFlightDelivery { mut parcel, begun }) = self.in_flight.remove(&id) else {
            debug_assert!(false, "{id:?} is not in flight");
            return None;
        };
        self.in_flight_events -= parcel.members.len();
        if exchange.verdict != AttemptVerdict::Delivered {
            parcel.tries.note_failure(exchange, begun);
        }
        let is_retry = matches!(exchange.verdict, AttemptVerdict::Retry { .. });
        let is_past = self.anew.is_some_and(|anew| id <= anew);
        let counts = matches!(exchange.reach, AttemptReach::Endpoint | AttemptReach::Throttled);
        if is_retry && is_past {
            parcel.tries.restart();
        } else if is_retry && (!counts || self.breaker.is_probe(id)) {
            parcel.tries.take_back();
        } else {
            parcel.tries.unspent = 0;
        }
        // What was sent before may have gone to another place: it tells nothing of this one.
        let has_opened = !is_past && self.note_pace(id, exchange, now.instant, fraction);
        let wait = self.conclude(parcel, id, exchange, now, fraction);
        if has_opened {
            self.park_all(ParkReason::Outage, now);
        }
        // A lane that stops leaves the rest to the next start, which finds out for itself.
        if exchange.verdict == AttemptVerdict::Gone && self.phase == DeliveryPhase::Open {
            self.close_for_good(DeliveryPhase::Gone);
        }
        wait
    }

    /// What follows from the outcome for the parcel itself.
    fn conclude(
        &mut self,
        parcel: RetryBatch,
        id: LeaseId,
        exchange: &HttpExchange,
        now: LaneNow,
        fraction: f64,
    ) -> Option<Duration> {
        let reason = match (&exchange.verdict, self.doom()) {
            (AttemptVerdict::Delivered, _) => {
                let status = exchange.status.unwrap_or_default();
                self.settle_all(
                    parcel,
                    &DeliveryOutcome::Delivered { status, took: exchange.took },
                );
                return None;
            }
            (AttemptVerdict::Retry { .. }, Some(doom)) => doom,
            (AttemptVerdict::Retry { at_least }, None) => {
                match self.next_delay(&parcel.tries, exchange.reach, *at_least, now, fraction) {
                    Some(wait) => {
                        self.wait(parcel, id, wait, now);
                        return Some(wait);
                    }
                    None => DeathReason::RetriesExhausted(parcel.tries.failure()),
                }
            }
            (AttemptVerdict::Dead, None) if split::is_worth_it(&parcel, exchange) => {
                self.split(parcel, now);
                return Some(Duration::ZERO);
            }
            (AttemptVerdict::Dead, _) => DeathReason::Rejected(parcel.tries.failure()),
            (AttemptVerdict::Gone, _) => DeathReason::EndpointGone,
        };
        self.settle_all(parcel, &DeliveryOutcome::Dead { reason });
        None
    }

    /// The wait before the next attempt of what has just failed; `None` if that was the last one.
    fn next_delay(
        &self,
        tries: &AttemptCount,
        reach: AttemptReach,
        at_least: Option<Duration>,
        now: LaneNow,
        fraction: f64,
    ) -> Option<Duration> {
        match (tries.unspent, reach) {
            _ if tries.attempts == 0 && tries.unspent == 0 => Some(Duration::ZERO),
            (0, _) => {
                retry_delays::retry_delay(&self.settings.retry, tries.attempts, at_least, fraction)
            }
            // A probe: its delivery is due already, and waits for the next one with all others.
            (_, AttemptReach::Endpoint | AttemptReach::Throttled) => {
                let free = self.breaker.free_at(now.instant);
                Some(free.map_or(Duration::ZERO, |free| free.duration_since(now.instant)))
            }
            (unspent, reach) => Some(retry_delays::unspent_delay(
                unspent,
                reach == AttemptReach::Unprocessed,
                fraction,
            )),
        }
    }

    /// An attempt tells how the endpoint does, whatever becomes of its events. Returns whether the
    /// circuit breaker has opened.
    fn note_pace(
        &mut self,
        id: LeaseId,
        exchange: &HttpExchange,
        now: Instant,
        fraction: f64,
    ) -> bool {
        if exchange.verdict == AttemptVerdict::Delivered {
            self.answered = Some(now);
            self.limit.answered(id, exchange.took);
        }
        // The first was counted when it started.
        (1..exchange.requests).for_each(|_further| self.rate.start(now));
        let is_too_much = matches!(exchange.verdict, AttemptVerdict::Retry { .. })
            && matches!(exchange.status, Some(429 | 503));
        if is_too_much {
            self.limit.refused(id);
        }
        let is_answered = match exchange.verdict {
            AttemptVerdict::Delivered => true,
            // It is there, and wants nothing for a while.
            AttemptVerdict::Retry { at_least } if exchange.reach == AttemptReach::Throttled => {
                self.rate.wal_hold(now, at_least.unwrap_or_default());
                true
            }
            // It is there, and takes fewer at once.
            AttemptVerdict::Retry { .. } if is_too_much && self.bears_fewer(now) => return false,
            AttemptVerdict::Retry { .. } if exchange.reach == AttemptReach::Nowhere => false,
            // It did not get through, and yet an answer with a status came.
            AttemptVerdict::Retry { .. }
                if exchange.reach == AttemptReach::Unprocessed && exchange.status.is_some() =>
            {
                true
            }
            AttemptVerdict::Retry { at_least } => {
                let has_opened = self.breaker.failed(id, at_least, now, fraction);
                if has_opened {
                    self.ramp.restart();
                } else if self.breaker.is_closed() {
                    self.ramp.failed();
                }
                return has_opened;
            }
            // A refusal is an answer; a request that could not be built or sent is not.
            AttemptVerdict::Dead | AttemptVerdict::Gone => exchange.status.is_some(),
        };
        if is_answered {
            self.breaker.answered(id);
            if self.breaker.is_closed() {
                self.ramp.answered();
            }
        } else {
            self.breaker.unsent(id, now);
        }
        false
    }
}
