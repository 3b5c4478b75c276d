//! Requests that failed and are made again later.

use std::cmp::Ordering;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Instant;

use crate::flow::lease::LeaseId;
use crate::flow::settlement::AttemptHistory;
use crate::flow::time::Timestamp;
use crate::flow::verdict::AttemptFailure;
use crate::flow::verdict::FailureClass;
use crate::flow::verdict::HttpExchange;
use crate::lane::core::order::slot::OrderSlot;

/// What was tried so far.
#[derive(Clone, Debug, Default)]
pub(super) struct AttemptCount {
    /// Attempts that count, with the one in flight.
    pub(super) attempts: u32,
    /// Attempts in a row that did not count.
    pub(super) unspent: u32,
    pub(super) history: Option<Arc<AttemptHistory>>,
}

/// What a delivery that comes from the backlog continues with.
#[derive(Debug)]
pub(super) struct ResumedDelivery {
    pub(super) tries: AttemptCount,
    pub(super) due: Instant,
}

/// Events that are sent together, from their first attempt to their last.
#[derive(Debug)]
pub(super) struct RetryBatch {
    pub(super) members: Vec<OrderSlot>,
    pub(super) tries: AttemptCount,
}

impl AttemptCount {
    /// Another attempt, which began at `begun`, has failed.
    pub(super) fn note_failure(&mut self, exchange: &HttpExchange, begun: Timestamp) {
        let first = self.history.as_ref().map_or(begun, |history| history.first_attempt);
        self.history = Some(Arc::new(AttemptHistory {
            first_attempt: first,
            last_attempt: begun,
            status: exchange.status,
            failure: exchange.failure.clone().unwrap_or_else(unnamed_failure),
        }));
    }

    /// The attempt that has failed does not count.
    pub(super) fn take_back(&mut self) {
        self.attempts = self.attempts.saturating_sub(1);
        self.unspent = self.unspent.saturating_add(1);
    }

    /// What was tried before does not count any more.
    pub(super) fn restart(&mut self) {
        (self.attempts, self.unspent) = (0, 0);
    }

    /// Why the last attempt failed.
    pub(super) fn failure(&self) -> AttemptFailure {
        self.history.as_ref().map_or_else(unnamed_failure, |history| history.failure.clone())
    }
}

/// For a failed exchange that came without its reason.
fn unnamed_failure() -> AttemptFailure {
    AttemptFailure { class: FailureClass::Request, detail: String::from("no reason was recorded") }
}

/// Parcels between two attempts, by when the next one is due.
#[derive(Debug, Default)]
pub(super) struct RetryQueue {
    waiting: BinaryHeap<Reverse<WaitingRetry>>,
    events: usize,
}

#[derive(Debug)]
struct WaitingRetry {
    due: Instant,
    /// The lease that failed; breaks ties in the order of leasing.
    failed: LeaseId,
    parcel: RetryBatch,
}

impl RetryQueue {
    pub(super) fn push(&mut self, parcel: RetryBatch, failed: LeaseId, due: Instant) {
        self.events += parcel.members.len();
        self.waiting.push(Reverse(WaitingRetry { due, failed, parcel }));
    }

    /// Gives back the room of retries that there were.
    pub(super) fn give_back_memory(&mut self) {
        self.waiting.shrink_to_fit();
    }

    /// The parcel that has been due for longest.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<RetryBatch> {
        if self.next_due()? > now {
            return None;
        }
        self.pop()
    }

    /// The parcel that is due first, whenever that is.
    pub(super) fn pop(&mut self) -> Option<RetryBatch> {
        let Reverse(WaitingRetry { parcel, .. }) = self.waiting.pop()?;
        self.events -= parcel.members.len();
        Some(parcel)
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.waiting.peek().map(|Reverse(waiting)| waiting.due)
    }

    /// All parcels, each with when it is due, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&RetryBatch, Instant)> {
        self.waiting.iter().map(|Reverse(waiting)| (&waiting.parcel, waiting.due))
    }

    /// Makes all parcels due now, as if they had not been tried; gives their events.
    pub(super) fn restart(&mut self, now: Instant) -> Vec<(OrderSlot, AttemptCount)> {
        let mut all = std::mem::take(&mut self.waiting).into_vec();
        let mut members = Vec::new();
        for Reverse(WaitingRetry { due, parcel, .. }) in &mut all {
            *due = now;
            parcel.tries.restart();
            members.extend(parcel.members.iter().map(|&slot| (slot, parcel.tries.clone())));
        }
        self.waiting = all.into();
        members
    }

    /// Takes events out of their parcels, wherever they stand, and gives what was tried for each
    /// that was in one. `slots` is sorted.
    pub(super) fn remove(&mut self, slots: &[OrderSlot]) -> Vec<(OrderSlot, AttemptCount)> {
        let mut removed = Vec::new();
        let mut left = std::mem::take(&mut self.waiting).into_vec();
        for Reverse(WaitingRetry { parcel, .. }) in &mut left {
            let RetryBatch { members, tries } = parcel;
            members.retain(|slot| {
                let is_meant = slots.binary_search(slot).is_ok();
                if is_meant {
                    removed.push((*slot, tries.clone()));
                }
                !is_meant
            });
        }
        left.retain(|Reverse(waiting)| !waiting.parcel.members.is_empty());
        self.waiting = left.into();
        self.events -= removed.len();
        removed
    }

    /// Events in all parcels.
    pub(super) fn events(&self) -> usize {
        self.events
    }
}

impl WaitingRetry {
    fn place(&self) -> (Instant, LeaseId) {
        (self.due, self.failed)
    }
}

impl PartialEq for WaitingRetry {
    fn eq(&self, other: &Self) -> bool {
        self.place() == other.place()
    }
}

impl Eq for WaitingRetry {}

impl PartialOrd for WaitingRetry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for WaitingRetry {
    fn cmp(&self, other: &Self) -> Ordering {
        self.place().cmp(&other.place())
    }
}
