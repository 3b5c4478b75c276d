//! Guard against crash loops: sets the change aside over which walhook has crashed; see `store::crash_records`.
//!
//! A run that follows two crashes at the same place takes the next changes one by one, and marks each
//! before it touches it. It goes on when the change is settled, or was with the endpoints for a moment
//! and nothing happened; a slow endpoint takes little of that time from the others. A change that was in
//! hand at the last crash is alone when it is taken again: everything before it is settled, or was given
//! time, and there is a pause with nothing in hand. It is marked before it is rendered and before it is sent.
//!
//! Owners of partitions do the same with the events of their streams. Since one process owns several, their suspects
//! take turns.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedRwLockReadGuard;
use tokio::sync::OwnedRwLockWriteGuard;
use tokio::sync::RwLock;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::flow::lsn::Position;
use crate::flow::partition::PartitionNumber;
use crate::ledger::writer::StateWriter;
use crate::replication::status::StatusHandle;
use crate::store::SqlSession;
use crate::store::crash_records;
use crate::store::crash_records::CrashMark;
use crate::store::crash_records::PastRuns;
use crate::store::crash_records::WorkStage;
use crate::store::ownership::StateOwnership;
use crate::store::state_error::StateError;

/// Changes taken one by one before a run goes on as usual: about what memory holds at once. If the
/// guilty one lies further ahead, there is progress, and the next slice after the next crashes.
const SLICE: u32 = 2000;

/// So long a change is with the endpoints before the next one is taken, and so long that may take of a
/// run in all.
const IN_HAND: Duration = Duration::from_millis(25);
const IN_HAND_TOTAL: Duration = Duration::from_secs(10);

/// So long the suspect is in hand. What comes later is not laid to its charge.
const SUSPECT_IN_HAND: Duration = Duration::from_secs(1);

/// The pause before it, at least and at most: many times as long, so that a kill from outside hits the
/// pause, and never of the same length, so that it does not hit the change time and again.
const PAUSE_MILLIS: RangeInclusive<u64> = 3000..=8000;

/// Partitions of a process take turns by their numbers.
const LOCK_STEP_MILLIS: u64 = 20;

/// So long what was taken before it is waited for.
const ALONE_MAX: Duration = Duration::from_secs(10);

/// What is kept of a change that is set aside, so that it can be sent again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum KeptBody {
    /// What its endpoints would have got: walhook crashed when it was sent.
    Own,
    /// The row in the standard shape: walhook crashed when its own was made.
    Standard,
    /// Nothing: walhook crashed over that, too.
    None,
}

/// How this run goes about changes.
#[derive(Debug)]
pub(crate) enum CrashGuard {
    None,
    /// This one is not to be tried again. `again`: walhook has crashed when it was to be set aside.
    SetAside {
        mark: CrashMark,
        again: bool,
    },
    OneByOne(Box<OneByOne>),
}

/// Where a careful run stands.
#[derive(Debug)]
pub(crate) struct OneByOne {
    session: SqlSession,
    ownership: StateOwnership,
    suspect_lock: SuspectLock,
    /// While the suspect is in hand, and before.
    held_lock: Option<OwnedRwLockWriteGuard<()>>,
    left: u32,
    settled: watch::Receiver<Option<Position>>,
    /// In hand at the last crash.
    suspect: Option<Position>,
    /// The last change that was taken.
    last: Option<Position>,
    /// What is left of the time for waiting.
    in_hand_left: Duration,
    status: StatusHandle,
}

/// While a suspect is in hand, or about to be, nothing else of its process is begun: another partition's crash would be
/// laid to its charge, or its own to another's.
#[derive(Clone, Debug, Default)]
pub(crate) struct SuspectLock(Arc<RwLock<()>>);

impl SuspectLock {
    /// Waits while a suspect is in hand. Nobody's turn begins while what is returned lives.
    pub(crate) async fn pass(&self) -> OwnedRwLockReadGuard<()> {
        Arc::clone(&self.0).read_owned().await
    }

    async fn take(&self, partition: PartitionNumber) -> OwnedRwLockWriteGuard<()> {
        // The same one first each time, so that its charges add up.
        let before = u64::try_from(partition.raw()).unwrap_or_default();
        tokio::time::sleep(Duration::from_millis(LOCK_STEP_MILLIS * before)).await;
        Arc::clone(&self.0).write_owned().await
    }
}

impl CrashGuard {
    /// `session` is for marks, `settled` tells how far the ledger is.
    pub(crate) fn new(
        writer: &StateWriter,
        (past, session): (PastRuns, Option<SqlSession>),
        settled: watch::Receiver<Option<Position>>,
        status: StatusHandle,
    ) -> Self {
        let ownership = writer.ownership().clone();
        match (past, session) {
            (PastRuns::Convicted { mark, again }, _) => {
                tracing::error!(
                    commit = %mark.position.commit,
                    ordinal = mark.position.ordinal,
                    "walhook has crashed again and again with this change in hand: its events become \
                     dead letters"
                );
                Self::SetAside { mark, again }
            }
            (PastRuns::Crashing(suspect), Some(session)) => {
                tracing::warn!(
                    changes = SLICE,
                    suspect = suspect.map(|at| tracing::field::display(at.commit)),
                    "walhook has crashed twice at the same place: the next changes are taken one by one"
                );
                status.mode(Some(format!(
                    "walhook has crashed at the same place again and again: up to {SLICE} changes \
                     are taken one by one"
                )));
                let (last, in_hand_left) = (None, IN_HAND_TOTAL);
                let run = OneByOne {
                    session,
                    ownership,
                    suspect_lock: SuspectLock::default(),
                    held_lock: None,
                    left: SLICE,
                    settled,
                    suspect,
                    last,
                    in_hand_left,
                    status,
                };
                Self::OneByOne(Box::new(run))
            }
            (PastRuns::Sound | PastRuns::Crashing(_), _) => Self::None,
        }
    }

    /// One of several of the process, whose suspects take turns.
    pub(crate) fn with_suspect_lock(mut self, suspect_lock: &SuspectLock) -> Self {
        if let Self::OneByOne(run) = &mut self {
            run.suspect_lock = suspect_lock.clone();
        }
        self
    }

    /// Whether this change is to be set aside, and what is kept of it.
    pub(crate) fn convicts(&mut self, position: Position) -> Option<KeptBody> {
        let Self::SetAside { mark, again } = self else { return None };
        let kept = (mark.position == position).then_some(match (mark.stage, again) {
            (WorkStage::Sending, false) => KeptBody::Own,
            (WorkStage::Rendering | WorkStage::Waiting, false) => KeptBody::Standard,
            (_, true) => KeptBody::None,
        });
        if mark.position <= position {
            *self = Self::None;
        }
        kept
    }

    pub(crate) fn is_one_by_one(&self) -> bool {
        matches!(self, Self::OneByOne(_))
    }

    /// Whether nothing else of the process is begun.
    pub(crate) fn holds_suspect_lock(&self) -> bool {
        matches!(self, Self::OneByOne(run) if run.held_lock.is_some())
    }

    /// Has the suspect wait until it is alone, and then for the pause.
    pub(crate) async fn approach(&mut self, position: Position) {
        let Self::OneByOne(run) = self else { return };
        if run.suspect != Some(position) {
            return;
        }
        let before = run.last;
        let alone = run.settled.wait_for(|settled| *settled >= before);
        // Too late, or the ledger has ended: both end the wait.
        drop(tokio::time::timeout(ALONE_MAX, alone).await);
        if run.ownership.partition() != PartitionNumber::SOURCE {
            // A crash now is laid to nobody's charge here.
            if run.mark(None).await.is_err() {
                tracing::warn!("cannot say that a change waits for its turn");
            }
            let suspect_lock = run.suspect_lock.take(run.ownership.partition());
            // Too late: another pump is stuck, and this one must not wait for it for ever.
            run.held_lock = tokio::time::timeout(ALONE_MAX, suspect_lock).await.ok();
        }
        self.mark(position, WorkStage::Waiting).await;
        tokio::time::sleep(Duration::from_millis(fastrand::u64(PAUSE_MILLIS))).await;
    }

    /// Events are about to be made of the change. One mark does for both stages until it is known at which change runs
    /// die: each is an answer of the database to wait for.
    pub(crate) async fn before_rendering(&mut self, position: Position) {
        let stage = match self.is_suspect(position) {
            true => WorkStage::Rendering,
            false => WorkStage::Sending,
        };
        self.mark(position, stage).await;
    }

    /// They are about to be sent.
    pub(crate) async fn before_sending(&mut self, position: Position) {
        if self.is_suspect(position) {
            self.mark(position, WorkStage::Sending).await;
        }
    }

    fn is_suspect(&self, position: Position) -> bool {
        matches!(self, Self::OneByOne(run) if run.suspect == Some(position))
    }

    async fn mark(&mut self, position: Position, stage: WorkStage) {
        let Self::OneByOne(run) = self else { return };
        if let Err(error) = run.mark(Some(CrashMark { position, stage })).await {
            tracing::warn!(%error, "cannot mark a change, going on as usual");
            run.status.mode(None);
            *self = Self::None;
        }
    }

    /// The change was handed over: waits until it is settled, or for a moment.
    pub(crate) async fn wait(&mut self, position: Position) {
        let Self::OneByOne(run) = self else { return };
        let is_suspect = run.suspect == Some(position);
        let limit = if is_suspect { SUSPECT_IN_HAND } else { IN_HAND.min(run.in_hand_left) };
        let begun = Instant::now();
        let settled = run.settled.wait_for(|settled| *settled >= Some(position));
        // Too late, or the ledger has ended: both end the wait.
        drop(tokio::time::timeout(limit, settled).await);
        if !is_suspect {
            run.in_hand_left = run.in_hand_left.saturating_sub(begun.elapsed());
        }
        run.last = Some(position);
        run.left = run.left.saturating_sub(1);
        if is_suspect && run.left > 0 {
            run.suspect = None;
            let held_lock = run.held_lock.take();
            self.mark(position, WorkStage::Waiting).await;
            drop(held_lock);
            return;
        }
        if run.left == 0 {
            // A mark that stays does no harm: two crashes at it would have to follow.
            drop(run.mark(None).await);
            tracing::info!("no crash among the changes that were taken one by one");
            run.status.mode(None);
            *self = Self::None;
        }
    }
}

impl OneByOne {
    async fn mark(&self, mark: Option<CrashMark>) -> Result<(), StateError> {
        crash_records::mark(&self.session.client, &self.ownership, mark).await
    }
}
