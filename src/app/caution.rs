//! What the pump does about a change over which walhook has crashed; see [`runs`].
//!
//! A run that follows two crashes at the same place takes the next changes one by one, and marks each
//! before it renders it and before it hands it over. It goes on when the change is settled, or was
//! with the endpoints for a moment and nothing happened.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::flow::lsn::Position;
use crate::ledger::writer::Writer;
use crate::store::Session;
use crate::store::runs;
use crate::store::runs::Mark;
use crate::store::runs::Past;
use crate::store::runs::Stage;
use crate::store::state_error::StateError;

/// Changes taken one by one before a run goes on as usual: about what memory holds at once. If the
/// guilty one lies further ahead, there is progress, and the next slice after the next crashes.
const SLICE: u32 = 2000;

/// So long a change is with the endpoints before the next one is taken.
const PATIENCE: Duration = Duration::from_millis(500);

/// How this run goes about changes.
#[derive(Debug)]
pub(crate) enum Caution {
    None,
    /// This one is not to be tried again.
    SetAside(Mark),
    OneByOne(Box<OneByOne>),
}

/// Where a careful run stands.
#[derive(Debug)]
pub(crate) struct OneByOne {
    session: Session,
    slot: Arc<str>,
    epoch: i64,
    left: u32,
    settled: watch::Receiver<Option<Position>>,
}

impl Caution {
    /// `session` is for marks, `settled` tells how far the ledger is.
    pub(crate) fn new(
        writer: &Writer,
        past: Past,
        session: Option<Session>,
        settled: watch::Receiver<Option<Position>>,
    ) -> Self {
        let (slot, epoch) = (Arc::clone(writer.holding().slot()), writer.holding().epoch());
        match (past, session) {
            (Past::Convicted(mark), _) => {
                tracing::error!(
                    commit = %mark.position.commit,
                    ordinal = mark.position.ordinal,
                    "walhook has crashed over this change twice: its events become dead letters"
                );
                Self::SetAside(mark)
            }
            (Past::Crashing, Some(session)) => {
                tracing::warn!(
                    changes = SLICE,
                    "walhook has crashed twice at the same place: the next changes are taken one by one"
                );
                Self::OneByOne(Box::new(OneByOne { session, slot, epoch, left: SLICE, settled }))
            }
            (Past::Sound | Past::Crashing, _) => Self::None,
        }
    }

    /// Whether this change is to be set aside, and what walhook was doing when it crashed.
    pub(crate) fn convicts(&mut self, position: Position) -> Option<Stage> {
        let Self::SetAside(mark) = self else { return None };
        let stage = (mark.position == position).then_some(mark.stage);
        if mark.position <= position {
            *self = Self::None;
        }
        stage
    }

    pub(crate) fn is_one_by_one(&self) -> bool {
        matches!(self, Self::OneByOne(_))
    }

    /// The change is about to be dealt with.
    pub(crate) async fn mark(&mut self, position: Position, stage: Stage) {
        let Self::OneByOne(run) = self else { return };
        if let Err(error) = run.mark(Some(Mark { position, stage })).await {
            tracing::warn!(%error, "cannot mark a change, going on as usual");
            *self = Self::None;
        }
    }

    /// The change was handed over: waits until it is settled, or for a moment.
    pub(crate) async fn wait(&mut self, position: Position) {
        let Self::OneByOne(run) = self else { return };
        let settled = run.settled.wait_for(|settled| *settled >= Some(position));
        // Too late, or the ledger has ended: both end the wait.
        drop(tokio::time::timeout(PATIENCE, settled).await);
        run.left -= 1;
        if run.left == 0 {
            // A mark that stays does no harm: two crashes at it would have to follow.
            drop(run.mark(None).await);
            tracing::info!("no crash among the changes that were taken one by one");
            *self = Self::None;
        }
    }
}

impl OneByOne {
    async fn mark(&self, mark: Option<Mark>) -> Result<(), StateError> {
        runs::mark(&self.session.client, &self.slot, self.epoch, mark).await
    }
}
