//! The way to the model of the state, which may be slow, fail, or lose its answer.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::flow::backlog::BacklogPosition;
use crate::flow::backlog::RefilledRow;
use crate::flow::budget::EVENT_OVERHEAD_BYTES;
use crate::flow::budget::HeldMemory;
use crate::flow::budget::MemoryBudget;
use crate::flow::event::Event;
use crate::flow::lsn::Lsn;
use crate::flow::settlement::AttemptHistory;
use crate::flow::time::Timestamp;
use crate::ledger::writer::FlushTarget;
use crate::pipeline::simulation::model_state::ModelBacklogRow;
use crate::pipeline::simulation::model_state::ModelOwnership;
use crate::pipeline::simulation::world::SharedWorld;
use crate::store::error::StoreError;
use crate::store::flush::StateFlush;
use crate::store::state_error::StateError;

/// What goes wrong with a flush.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum FlushFault {
    Nothing,
    Slow,
    /// The connection is lost, and nothing was committed.
    LostBefore,
    /// It was committed, and nobody hears of it.
    LostAfter,
    /// No answer comes in time; it was committed, or was not.
    SilentBefore,
    SilentAfter,
}

/// The ledger's session.
#[derive(Debug)]
pub(super) struct ModelConnection {
    world: SharedWorld,
    ownership: ModelOwnership,
    flushed: i64,
    is_open: bool,
}

impl ModelConnection {
    pub(super) fn new(world: &SharedWorld, ownership: ModelOwnership) -> Self {
        Self { world: world.clone(), ownership, flushed: ownership.flushed, is_open: true }
    }

    fn fault(&self) -> FlushFault {
        let mut world = self.world.lock();
        if world.is_state_away() {
            return FlushFault::LostBefore;
        }
        let odds = world.scenario.flush_odds;
        let is_struck = world.strikes(odds);
        if is_struck {
            world.trouble(self.world.run);
        }
        match is_struck {
            true => world.dice.pick(&[
                FlushFault::Slow,
                FlushFault::LostBefore,
                FlushFault::LostAfter,
                FlushFault::LostAfter,
                FlushFault::SilentBefore,
                FlushFault::SilentAfter,
            ]),
            false => FlushFault::Nothing,
        }
    }

    fn lost(&mut self, kind: io::ErrorKind) -> StateError {
        let mut world = self.world.lock();
        world.trouble(self.world.run);
        world.note(|_| format!("a flush fails: {kind}"));
        StoreError::Disconnected(io::Error::from(kind)).into()
    }

    fn apply(&self, number: i64, flush: &StateFlush) -> Result<(), StateError> {
        let mut world = self.world.lock();
        let outcome = world.state.apply(self.ownership, number, flush);
        world.note(|_| {
            let (parked, done, dead) =
                (flush.parked.len(), flush.finished.len(), flush.dead.len());
            let again = flush.reparked.len();
            format!(
                "flush {number} of {}: settled {:?}, confirmed {:?}, parked {parked}, parked again {again}, \
                 finished {done}, dead {dead}, ahead {}: {outcome:?}",
                self.ownership.partition.raw(),
                flush.settled,
                flush.confirmed,
                flush.settled_ahead.len()
            )
        });
        if outcome.is_ok() {
            let now = world.now();
            let world = &mut *world;
            let accounted = world.oracle.committed(&world.state, now);
            world.check(accounted);
            let balanced = world.state.is_balanced();
            world.check(balanced);
        }
        outcome
    }

    async fn open(&mut self) -> Result<(), StateError> {
        self.world.pass(0..5).await;
        if self.world.lock().is_state_away() {
            return Err(self.lost(io::ErrorKind::ConnectionRefused));
        }
        self.is_open = true;
        Ok(())
    }
}

impl FlushTarget for ModelConnection {
    fn is_open(&self) -> bool {
        self.is_open
    }

    fn close(&mut self) {
        self.is_open = false;
    }

    async fn commit(
        &mut self,
        flush: &StateFlush,
        answer_limit: Duration,
    ) -> Result<(), StateError> {
        if !self.is_open {
            self.open().await?;
        }
        let (fault, number) = (self.fault(), self.flushed + 1);
        self.world.pass(0..10).await;
        self.world.point("before the commit").await;
        match fault {
            FlushFault::LostBefore => return Err(self.lost(io::ErrorKind::UnexpectedEof)),
            FlushFault::SilentBefore => {
                tokio::time::sleep(answer_limit).await;
                return Err(self.lost(io::ErrorKind::TimedOut));
            }
            FlushFault::Slow => self.world.pass(100..3000).await,
            FlushFault::Nothing | FlushFault::LostAfter | FlushFault::SilentAfter => {}
        }
        let outcome = self.apply(number, flush);
        self.world.point("after the commit").await;
        match fault {
            FlushFault::LostAfter => return Err(self.lost(io::ErrorKind::UnexpectedEof)),
            FlushFault::SilentAfter => {
                tokio::time::sleep(answer_limit).await;
                return Err(self.lost(io::ErrorKind::TimedOut));
            }
            _ => self.world.pass(0..10).await,
        }
        outcome?;
        self.flushed = number;
        let mut world = self.world.lock();
        world.is_well(self.world.run);
        Ok(())
    }

    async fn wal_end(&mut self) -> Option<Lsn> {
        None
    }

    async fn say_stopped(&mut self) {}

    async fn do_housekeeping(
        &mut self,
        _now: Timestamp,
        _patience: Duration,
    ) -> Result<(), StateError> {
        Ok(())
    }
}

/// What `pipeline::backlog_reader` reads for a lane.
pub(super) async fn page(
    world: SharedWorld,
    endpoint: Arc<str>,
    after: Option<BacklogPosition>,
    rows: usize,
    budget: MemoryBudget,
) -> Result<Vec<RefilledRow>, String> {
    world.pass(0..10).await;
    let page: Vec<(BacklogPosition, ModelBacklogRow)> = {
        let mut world = world.lock();
        let odds = world.scenario.page_odds;
        if world.is_state_away() || world.strikes(odds) {
            return Err(String::from("the backlog cannot be read"));
        }
        let most = if world.dice.one_in(3) { world.dice.index(4) + 1 } else { rows };
        let found = world.state.backlog.get(&endpoint).into_iter().flatten();
        let found = found.filter(|(at, _)| after.is_none_or(|after| **at > after));
        let page: Vec<_> = found.take(rows.min(most)).map(|(at, row)| (*at, row.clone())).collect();
        // Not by their numbers: rows of several endpoints that are parked together have them in any order.
        world.note(|world| {
            let all = world.state.backlog.get(&endpoint).map_or(0, BTreeMap::len);
            let places: Vec<_> = page.iter().map(|(at, _)| at.position).collect();
            let after = after.map(|after| after.position);
            format!("{endpoint} reads of the {all} rows of its backlog after {after:?}: {places:?}")
        });
        page
    };
    world.point("a page was read").await;
    world.pass(0..10).await;
    let mut refilled = Vec::with_capacity(page.len());
    for (at, row) in page {
        let bytes = row.event.body.held_bytes() + EVENT_OVERHEAD_BYTES;
        let Some(share) = budget.try_take(bytes) else { break };
        let event = Event { sequence: 0, ..row.event.shaped(row.event.body.clone(), None) };
        let event = Arc::new(Event { held: Some(HeldMemory::Own(share)), ..event });
        let history = row.history;
        let failed = history.failure.zip(history.first_attempt).zip(history.last_attempt);
        let status = history.status;
        refilled.push(RefilledRow {
            event,
            at,
            parked: row.parked_at,
            attempts: history.attempts,
            due: row.next_attempt,
            history: failed.map(|((failure, first_attempt), last_attempt)| {
                Arc::new(AttemptHistory { first_attempt, last_attempt, status, failure })
            }),
        });
    }
    Ok(refilled)
}
