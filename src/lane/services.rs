//! What a lane has others do: the requests, the time, the right to send, the reading of the backlog.

use std::fmt;
use std::future::Future;

use crate::flow::backlog::BacklogPosition;
use crate::flow::backlog::RefilledRow;
use crate::flow::lease::Lease;
use crate::flow::time::Timestamp;
use crate::flow::verdict::HttpExchange;

/// What the task of a lane asks of the process that it runs in.
pub trait LaneServices {
    /// Makes one request, and gives the lease back with what came of it.
    fn attempt(&self, lease: Lease) -> impl Future<Output = (Lease, HttpExchange)> + Send;

    /// The time on the database's clock.
    fn database_now(&self) -> Timestamp;

    /// While it says no, no request is made.
    fn may_send(&self) -> bool;

    /// Reads the endpoint's backlog: up to so many rows in order, after the given one or from the first.
    ///
    /// It need not show what was reported a moment ago, but if it shows what was parked, then also what was parked
    /// before.
    ///
    /// # Errors
    /// The backlog cannot be read at the moment; it is tried again.
    fn read_backlog(
        &self,
        after: Option<BacklogPosition>,
        rows: usize,
    ) -> impl Future<Output = Result<Vec<RefilledRow>, Self::BacklogError>> + Send;

    /// Why the backlog cannot be read.
    type BacklogError: fmt::Display;
}
