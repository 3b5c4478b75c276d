//! Parked deliveries: what waits for an endpoint in the database and not in memory.

use std::sync::Arc;

use crate::flow::event::Event;
use crate::flow::lsn::Position;
use crate::flow::settlement::AttemptHistory;
use crate::flow::time::Timestamp;

/// A delivery's place in its endpoint's backlog, which is read in this order.
///
/// One change can raise several events, so its position alone does not tell them apart.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct BacklogPosition {
    pub position: Position,
    /// Number of the row: grows in the order of parking. Rows are counted from 1, so that 0 stands
    /// right before all rows of the position.
    pub row: i64,
}

/// A parked delivery as the backlog gives it back.
#[derive(Clone, Debug)]
pub struct RefilledRow {
    pub event: Arc<Event>,
    pub at: BacklogPosition,
    /// When it was parked first.
    pub parked: Timestamp,
    /// Attempts that were made.
    pub attempts: u32,
    /// When the next attempt is due; `None` means at once.
    pub due: Option<Timestamp>,
    pub history: Option<Arc<AttemptHistory>>,
}

/// What an endpoint's backlog holds when walhook starts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BacklogStanding {
    pub rows: usize,
    /// Position of the newest row.
    pub newest: Position,
    /// Some of it was parked because the endpoint was out of order.
    pub is_out: bool,
}
