//! One request to make: what a lane hands to delivery.

use std::sync::Arc;

use crate::flow::event::Event;

/// Names a lease within its lane.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct LeaseId(pub u64);

/// The right to send some events to the lane's endpoint, once. The lane gives out nothing else
/// with the same keys until the lease's verdict is in.
#[derive(Clone, Debug)]
pub struct Lease {
    pub id: LeaseId,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// Whether an operator sends these events again. Others are never in one request with them.
    pub replay: bool,
    /// In order; more than one only where the endpoint takes batches.
    pub events: Vec<Arc<Event>>,
}
