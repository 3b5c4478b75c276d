//! Capacity of one lane, in events: backpressure, or overflow to the backlog, when it is used up.

use std::num::NonZeroUsize;
use std::time::Duration;

use tokio::sync::AcquireError;
use tokio::sync::Semaphore;
use tokio::sync::SemaphorePermit;
use tokio::sync::watch;

use crate::lane::core::counts::FreedDelivery;
use crate::lane::semaphore::CountedSemaphore;
use crate::lane::settings::LaneSettings;

/// Events that overflow, on their way through the lane to the ledger.
const OVERFLOW_MAX: usize = 256;

/// The share of a lane's places that replays can have: they must not keep out what is new.
const REPLAYS_SHARE: usize = 4;

/// After a wait for a place the sender waits this much longer, so that places gather: the lane would
/// else wake it for every event that is settled, which costs more than the event. The timer's steps
/// are of 1 ms, so it comes to 0.5 to 1.5 ms.
const GATHER: Duration = Duration::from_micros(500);

/// Lanes with this many places have enough to do meanwhile.
const ROOMY: usize = 256;

/// What a sender does with events, as the lane wants it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum LaneAdmission {
    /// It waits a moment for places if there are none.
    Accept,
    /// It takes the places that there are; what finds none overflows at once.
    AcceptOrOverflow,
    /// Everything overflows.
    Overflow,
}

#[derive(Debug)]
pub(super) struct LaneCapacity {
    /// As many as the lane's capacity.
    places: CountedSemaphore,
    /// The lane's share of memory, by weight.
    share: Semaphore,
    overflow: Semaphore,
    /// The share of the places that replays can have.
    replays: CountedSemaphore,
    admission: watch::Sender<LaneAdmission>,
    /// Whether events may overflow.
    has_backlog: bool,
}

impl LaneCapacity {
    pub(super) fn new(settings: &LaneSettings) -> Self {
        let places = settings.capacity.get();
        let has_backlog = settings.parking.is_some();
        let standing = settings.parking.as_ref().and_then(|parking| parking.standing);
        let is_spilling = standing.is_some_and(|standing| standing.rows > 0);
        Self {
            places: CountedSemaphore::new(places),
            share: Semaphore::new(settings.share()),
            overflow: Semaphore::new(if has_backlog { OVERFLOW_MAX } else { 0 }),
            replays: CountedSemaphore::new(places.div_ceil(REPLAYS_SHARE)),
            admission: watch::Sender::new(if is_spilling {
                LaneAdmission::Overflow
            } else {
                LaneAdmission::Accept
            }),
            has_backlog,
        }
    }

    pub(super) fn has_backlog(&self) -> bool {
        self.has_backlog
    }

    /// Events that have a place, of whatever kind.
    pub(super) fn held(&self) -> usize {
        let overflow = if self.has_backlog { OVERFLOW_MAX } else { 0 };
        self.places.taken() + overflow.saturating_sub(self.overflow.available_permits())
    }

    /// Whether so many can overflow at once.
    pub(super) fn takes_overflow(&self, events: usize) -> bool {
        self.overflow.available_permits() >= events
    }

    pub(super) fn admission(&self) -> LaneAdmission {
        *self.admission.borrow()
    }

    /// Tells senders what to do, also those that are waiting.
    pub(super) fn show_admission(&self, admission: LaneAdmission) {
        self.admission.send_if_modified(|shown| std::mem::replace(shown, admission) != admission);
    }

    /// Waits until the way is another than [`LaneAdmission::Accept`].
    pub(super) async fn other_admission(&self) {
        let mut shown = self.admission.subscribe();
        // The sender of the way is this room's own, so that it cannot be gone.
        shown.wait_for(|admission| *admission != LaneAdmission::Accept).await.ok();
    }

    /// Places for events of these weights, in order: for as many as there is room for, as soon as
    /// there is room for the first.
    pub(super) async fn enter(
        &self,
        weights: &[usize],
    ) -> Result<CapacityReservation<'_>, AcquireError> {
        let Some(first) = weights.first() else {
            return Ok(CapacityReservation {
                places: self.places.free.acquire_many(0).await?,
                weights: None,
            });
        };
        let mut places = self.gathered(weights.len()).await?;
        let all = weights.iter().take(places.num_permits()).sum();
        if let Ok(all) = self.share.try_acquire_many(permits(all)) {
            return Ok(CapacityReservation { places, weights: Some(all) });
        }
        let mut taken = self.share.acquire_many(permits(*first)).await?;
        let mut entering = 1;
        for weight in weights.iter().take(places.num_permits()).skip(1) {
            let Ok(more) = self.share.try_acquire_many(permits(*weight)) else { break };
            taken.merge(more);
            entering += 1;
        }
        let surplus = places.num_permits() - entering;
        drop(places.split(surplus));
        Ok(CapacityReservation { places, weights: Some(taken) })
    }

    /// Up to `most` places, as soon as there is one; of a large lane some more.
    async fn gathered(&self, most: usize) -> Result<SemaphorePermit<'_>, AcquireError> {
        let free = &self.places.free;
        if let Ok(one) = free.try_acquire() {
            return Ok(with_others(one, free, most));
        }
        let one = free.acquire().await?;
        if self.places.size() >= ROOMY {
            tokio::time::sleep(GATHER).await;
        }
        Ok(with_others(one, free, most))
    }

    /// Takes this weight for a row of the backlog, if it is free.
    pub(super) fn take_weight(&self, weight: usize) -> bool {
        self.share.try_acquire_many(permits(weight)).map(SemaphorePermit::forget).is_ok()
    }

    pub(super) fn give_back_weight(&self, weight: usize) {
        self.share.add_permits(weight);
    }

    /// Up to `most` places for what overflows, as soon as there is one.
    pub(super) async fn overflow(
        &self,
        most: usize,
    ) -> Result<CapacityReservation<'_>, AcquireError> {
        let one = self.overflow.acquire().await?;
        Ok(CapacityReservation { places: with_others(one, &self.overflow, most), weights: None })
    }

    /// A place for a replay, as soon as there is one. The share of all replays comes first: while
    /// it is used up, none waits among those that are new.
    pub(super) async fn replay(&self) -> Result<(), AcquireError> {
        let share = self.replays.free.acquire().await?;
        self.places.free.acquire().await?.forget();
        share.forget(); // the lane gives both back
        Ok(())
    }

    /// Takes up to `most` places that are free at once, for deliveries of the backlog.
    pub(super) fn take(&self, most: usize) -> usize {
        let free = &self.places.free;
        let taken = most.min(free.available_permits());
        match free.try_acquire_many(u32::try_from(taken).unwrap_or(u32::MAX)) {
            Ok(places) => {
                let taken = places.num_permits();
                places.forget();
                taken
            }
            // A sender was quicker: there is another turn.
            Err(_none) => 0,
        }
    }

    /// Makes it so many places, and the replays' share of them.
    pub(super) fn resize(&self, places: NonZeroUsize) {
        self.places.resize(places.get());
        self.replays.resize(places.get().div_ceil(REPLAYS_SHARE));
    }

    pub(super) fn give_back(&self, freed: FreedDelivery) {
        self.places.give_back(freed.own);
        self.overflow.add_permits(freed.overflow);
        self.replays.give_back(freed.replays);
        self.share.add_permits(freed.weight);
    }

    /// Nothing comes in any more; senders that wait are told.
    pub(super) fn close(&self) {
        self.places.free.close();
        self.share.close();
        self.overflow.close();
        self.replays.free.close();
    }
}

/// Places that were taken, and their weight. Given back when it is dropped, unless it is used.
#[derive(Debug)]
pub(super) struct CapacityReservation<'r> {
    places: SemaphorePermit<'r>,
    weights: Option<SemaphorePermit<'r>>,
}

impl CapacityReservation<'_> {
    pub(super) fn places(&self) -> usize {
        self.places.num_permits()
    }

    /// The events have gone in: the lane gives back what they had.
    pub(super) fn used(self) {
        self.places.forget();
        if let Some(weights) = self.weights {
            weights.forget();
        }
    }
}

fn permits(weight: usize) -> u32 {
    u32::try_from(weight).unwrap_or(u32::MAX)
}

/// One place and the others that are free at once, up to `most` in all.
fn with_others<'a>(
    mut taken: SemaphorePermit<'a>,
    places: &'a Semaphore,
    most: usize,
) -> SemaphorePermit<'a> {
    let more = most.saturating_sub(1).min(places.available_permits());
    if let Ok(others) = places.try_acquire_many(u32::try_from(more).unwrap_or(u32::MAX)) {
        taken.merge(others);
    }
    taken
}
