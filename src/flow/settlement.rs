//! What became of an event at an endpoint.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::flow::event::Event;
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

impl fmt::Display for DeathReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RetriesExhausted(failure) => write!(f, "retries exhausted, last {failure}"),
            Self::Rejected(failure) => write!(f, "rejected, {failure}"),
            Self::EndpointGone => f.write_str("endpoint is gone (410)"),
        }
    }
}
