//! The rows of backfills that wait for the stream, and whom to tell what becomes of them.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::backfill::moves::MoveWatch;
use crate::backfill::pump_orders::BackfillOrder;
use crate::backfill::pump_orders::ChunkOutcome;
use crate::backfill::window::BackfillWindow;
use crate::backfill::window::ReadChunk;
use crate::event::plan::AsideBody;
use crate::flow::backfill::BackfillId;
use crate::flow::change::CommittedChange;
use crate::flow::lsn::Lsn;
use crate::flow::lsn::Position;
use crate::flow::relation::TableName;
use crate::flow::settlement::EndpointIndex;

/// Rows that go out at once: what is live waits behind them. More than the first number only where lanes have
/// run out of the ones before.
pub(super) const SLICE: usize = 32;
const SLICE_MAX: usize = 256;

/// What the pump has to do with backfills.
pub(super) struct PumpBackfills {
    orders: Option<mpsc::Receiver<BackfillOrder>>,
    pub(super) window: BackfillWindow,
    pub(super) moves: MoveWatch,
    /// Whom to tell what becomes of the chunk that waits.
    pub(super) outcomes: HashMap<BackfillId, oneshot::Sender<ChunkOutcome>>,
    /// The last row that was sent.
    pub(super) last: Option<Position>,
    /// An earlier run may have sent rows up to here, which are known by their places elsewhere.
    pub(super) beyond: Lsn,
    /// When some were sent.
    pub(super) sent_at: Instant,
    /// What went out last of each backfill.
    pub(super) slices: HashMap<BackfillId, SentSlice>,
}

/// Rows that went out at once.
pub(super) struct SentSlice {
    /// At most.
    pub(super) rows: usize,
    pub(super) takers: Vec<EndpointIndex>,
    /// When it was looked next, a lane had no room for more.
    pub(super) was_too_much: bool,
}

impl Default for PumpBackfills {
    fn default() -> Self {
        Self {
            orders: None,
            window: BackfillWindow::default(),
            moves: MoveWatch::default(),
            outcomes: HashMap::new(),
            last: None,
            beyond: Lsn::ZERO,
            sent_at: Instant::now(),
            slices: HashMap::new(),
        }
    }
}

impl SentSlice {
    /// How many may go next: twice as many where all lanes that got these are nearly idle, and half as many where
    /// these were too many for one of them.
    pub(super) fn next_rows(&self, are_nearly_idle: bool) -> usize {
        let rows = match are_nearly_idle {
            true => self.rows.saturating_mul(2),
            false if self.was_too_much => self.rows / 2,
            false => self.rows,
        };
        rows.clamp(SLICE, SLICE_MAX)
    }
}

impl PumpBackfills {
    /// Those of `watched` are not over: an earlier run has begun them.
    pub(super) fn listen(
        &mut self,
        orders: mpsc::Receiver<BackfillOrder>,
        watched: Vec<(BackfillId, TableName)>,
    ) {
        self.orders = Some(orders);
        for (id, table) in watched {
            self.moves.watch(id, table, true); // nobody has looked yet
        }
    }

    /// The next order; never comes once nobody gives any.
    pub(super) async fn next(&mut self) -> BackfillOrder {
        if let Some(orders) = &mut self.orders
            && let Some(order) = orders.recv().await
        {
            return order;
        }
        self.orders = None;
        std::future::pending().await
    }

    /// Takes in a change that is handed on.
    pub(super) fn observe(&mut self, change: &CommittedChange) {
        if self.window.is_empty() {
            return;
        }
        for id in self.window.observe(change) {
            self.tell(id, ChunkOutcome::ReadAgain);
        }
    }

    pub(super) fn accept(&mut self, chunk: ReadChunk, outcome: oneshot::Sender<ChunkOutcome>) {
        let id = chunk.step.id;
        self.outcomes.insert(id, outcome);
        if self.window.accept(chunk).is_err() {
            self.tell(id, ChunkOutcome::ReadAgain);
        }
    }

    /// Notes that there is no room for rows of any of them.
    pub(super) fn note_full(&mut self, due: &[BackfillId]) {
        for id in due {
            if let Some(sent) = self.slices.get_mut(id) {
                sent.was_too_much = true;
            }
        }
    }

    pub(super) fn tell(&mut self, id: BackfillId, outcome: ChunkOutcome) {
        if let Some(told) = self.outcomes.remove(&id) {
            told.send(outcome).ok(); // it may have been stopped
        }
    }
}

/// Those of the takers that are chosen; all, if none are named.
pub(super) fn narrowed(
    takers: Arc<[EndpointIndex]>,
    chosen: Option<&BTreeSet<EndpointIndex>>,
) -> Arc<[EndpointIndex]> {
    match chosen {
        None => takers,
        Some(chosen) => takers.iter().copied().filter(|taker| chosen.contains(taker)).collect(),
    }
}

/// The same for what is not sent.
pub(super) fn narrow(aside: &mut [AsideBody], chosen: Option<&BTreeSet<EndpointIndex>>) {
    let Some(chosen) = chosen else { return };
    for one in aside {
        one.shaped.endpoints.retain(|taker| chosen.contains(taker));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_rows_go_where_lanes_run_out_and_fewer_where_they_were_too_many() {
        let next = |rows, was_too_much, are_nearly_idle| {
            SentSlice { rows, takers: Vec::new(), was_too_much }.next_rows(are_nearly_idle)
        };
        assert_eq!(next(SLICE, false, true), 2 * SLICE);
        assert_eq!(next(SLICE, true, true), 2 * SLICE, "a look before they ran out says nothing");
        assert_eq!(next(128, false, false), 128);
        assert_eq!(next(128, true, false), 64);
        assert_eq!(next(SLICE, true, false), SLICE);
        assert_eq!(next(SLICE_MAX, false, true), SLICE_MAX);
        // What was begun goes out whole when a backfill is stopped.
        assert_eq!(next(usize::MAX, false, true), SLICE_MAX);
    }
}
