//! How far the deliveries of an endpoint have come into the lane's memory.

use crate::flow::backlog::BacklogPosition;
use crate::flow::event::Event;
use crate::flow::event::EventId;
use crate::flow::lsn::Position;

/// The newest delivery that was in memory: what is in the backlog only comes after it.
///
/// One change can raise several events, and memory may have some of them and the backlog others.
#[derive(Debug, Default)]
pub(super) struct Cursor {
    newest: Option<Position>,
    /// The row of the newest, if it came from the backlog.
    row: Option<i64>,
    /// The events of the newest position that have passed.
    passed: Vec<EventId>,
}

impl Cursor {
    /// An event comes into memory, from the backlog's row with this number or from the source.
    pub(super) fn pass(&mut self, event: &Event, row: Option<i64>) {
        if self.newest != Some(event.position) {
            self.newest = Some(event.position);
            self.passed.clear();
            self.row = None;
        }
        self.row = row.or(self.row);
        self.passed.push(event.id);
    }

    /// Whether the event has been in memory.
    pub(super) fn has_passed(&self, event: &Event) -> bool {
        self.newest.is_some_and(|newest| event.position < newest)
            || self.passed.contains(&event.id) && self.newest == Some(event.position)
    }

    /// Where to read on in the backlog, and how many rows from there on may have been in memory.
    pub(super) fn read_on(&self) -> (Option<BacklogPosition>, usize) {
        let after = |position| BacklogPosition { position, row: self.row.unwrap_or(0) };
        (self.newest.map(after), self.passed.len())
    }
}
