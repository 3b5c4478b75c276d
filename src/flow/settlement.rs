//! What became of an event at an endpoint.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::flow::event::Event;
use crate::flow::lease::Lease;
use crate::flow::time::Timestamp;
use crate::flow::verdict::Exchange;
use crate::flow::verdict::Failure;

/// The index of an endpoint in the settings' list.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct EndpointIndex(pub usize);

/// Final for this event and endpoint: nothing more is owed in memory.
#[derive(Clone, Debug)]
pub struct Settlement {
    pub event: Arc<Event>,
    pub endpoint: EndpointIndex,
    pub outcome: Outcome,
    /// Attempts that were made.
    pub attempts: u32,
}

#[derive(Clone, Debug)]
pub enum Outcome {
    /// `took` is the response time of the attempt that succeeded.
    Delivered { status: u16, took: Duration },
    /// Too old to be sent.
    Expired,
    /// The endpoint does not take it.
    Filtered,
    /// Given up.
    Dead { reason: DeathReason },
}

/// Why a delivery was given up.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum DeathReason {
    /// The last retry failed.
    RetriesExhausted(Failure),
    /// The receiver refused it for good.
    Rejected(Failure),
    /// The endpoint said 410, now or earlier: it is disabled until a restart.
    EndpointGone,
}

/// One finished attempt, whatever came of it: for the push log and the metrics.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub endpoint: EndpointIndex,
    /// What was sent, and the number of the attempt.
    pub lease: Lease,
    pub exchange: Exchange,
    /// When its outcome was known, on the database's clock.
    pub finished: Timestamp,
    /// The wait before the next attempt, if there is one.
    pub retry_in: Option<Duration>,
}

/// What a lane has to tell the ledger at once. The attempts come before the settlements that
/// follow from them, both in the order in which they happened.
#[derive(Debug, Default)]
pub struct Report {
    pub attempts: Vec<Attempt>,
    pub settlements: Vec<Settlement>,
}

impl Report {
    pub fn is_empty(&self) -> bool {
        self.attempts.is_empty() && self.settlements.is_empty()
    }
}

impl fmt::Display for DeathReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RetriesExhausted(failure) => write!(f, "retries exhausted, last {failure}"),
            Self::Rejected(failure) => write!(f, "rejected, {failure}"),
            Self::EndpointGone => f.write_str("endpoint is gone (410)"),
        }
    }
}
