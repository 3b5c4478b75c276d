//! Requests that failed and are made again later.

use std::cmp::Ordering;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

use crate::flow::lease::LeaseId;
use crate::queue::lane::order::Slot;

/// Events that are sent together, from their first attempt to their last.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) members: Vec<Slot>,
    /// Attempts made, with the one in flight.
    pub(super) attempts: u32,
}

/// Parcels between two attempts, by when the next one is due.
#[derive(Debug, Default)]
pub(super) struct Retries {
    waiting: BinaryHeap<Reverse<Waiting>>,
    events: usize,
}

#[derive(Debug)]
struct Waiting {
    due: Instant,
    /// The lease that failed; breaks ties in the order of leasing.
    failed: LeaseId,
    parcel: Parcel,
}

impl Retries {
    pub(super) fn push(&mut self, parcel: Parcel, failed: LeaseId, due: Instant) {
        self.events += parcel.members.len();
        self.waiting.push(Reverse(Waiting { due, failed, parcel }));
    }

    /// The parcel that has been due for longest.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<Parcel> {
        if self.next_due()? > now {
            return None;
        }
        self.pop()
    }

    /// The parcel that is due first, whenever that is.
    pub(super) fn pop(&mut self) -> Option<Parcel> {
        let Reverse(Waiting { parcel, .. }) = self.waiting.pop()?;
        self.events -= parcel.members.len();
        Some(parcel)
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.waiting.peek().map(|Reverse(waiting)| waiting.due)
    }

    /// Events in all parcels.
    pub(super) fn events(&self) -> usize {
        self.events
    }
}

impl Waiting {
    fn place(&self) -> (Instant, LeaseId) {
        (self.due, self.failed)
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.place() == other.place()
    }
}

impl Eq for Waiting {}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> Ordering {
        self.place().cmp(&other.place())
    }
}
