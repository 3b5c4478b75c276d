//! All backfills of this walhook: takes them up where they were, and new ones as they are ordered.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::api::requests::backfill_calls::BackfillRequest;
use crate::backfill::admit;
use crate::backfill::context::BackfillContext;
use crate::backfill::run::BackfillRun;
use crate::backfill::run::RunEnd;
use crate::backfill::run_error::RunError;
use crate::flow::backfill::BackfillId;
use crate::flow::relation::TableName;
use crate::store::backfills;
use crate::store::backfills::BackfillState;
use crate::store::backfills::StoredBackfill;
use crate::store::state_error::StateError;

/// How soon an order is seen that nobody told us of, and how often one is tried that could not go on.
const POLL: Duration = Duration::from_secs(2);

/// Backfills that read at once; others wait their turn. Each may hold a chunk, and remembers changes.
const RUNNING_MAX: usize = 4;

/// Orders that are looked at at once.
const ADMITTED_MAX: usize = 4;

/// Starts of walhook with the same chunk in hand, after which it is left alone: the rows may be why.
const TRIES_MAX: u32 = 5;

/// Starts what is ordered, and ends it.
pub(crate) struct BackfillService {
    context: BackfillContext,
}

impl BackfillService {
    pub(crate) fn new(context: BackfillContext) -> Self {
        Self { context }
    }

    /// Runs until `stop`. What is under way then goes on with the next walhook.
    ///
    /// # Errors
    /// [`StateError::Fenced`], or another error of the state that waiting cannot mend.
    pub(crate) async fn run(
        self,
        requests: mpsc::Receiver<BackfillRequest>,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        tokio::select! {
            () = stop.cancelled() => Ok(()),
            ended = self.serve(requests) => ended,
        }
    }

    /// Answers orders until `stop`, and leaves it to the slot's holder to carry them out.
    ///
    /// # Errors
    /// There are none: the signature is that of a task.
    pub(crate) async fn admit(
        self,
        mut requests: mpsc::Receiver<BackfillRequest>,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let mut answers = FuturesUnordered::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                Some(()) = answers.next() => {}
                Some(request) = requests.recv(), if answers.len() < ADMITTED_MAX => {
                    answers.push(admit::answer(&self.context, request));
                }
            }
        }
    }

    async fn serve(&self, mut requests: mpsc::Receiver<BackfillRequest>) -> anyhow::Result<()> {
        let mut polls = tokio::time::interval(POLL);
        polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut active: BTreeSet<BackfillId> = BTreeSet::new();
        // Those that this process has tried: only the first try of each counts.
        let mut tried: BTreeSet<BackfillId> = BTreeSet::new();
        let (mut runs, mut looks) = (FuturesUnordered::new(), FuturesUnordered::new());
        let mut answers = FuturesUnordered::new();
        let mut is_asked = false;
        loop {
            tokio::select! {
                Some((id, ended)) = runs.next() => {
                    active.remove(&id);
                    // What cannot go on is tried again with the next poll.
                    let ended: anyhow::Result<bool> = ended;
                    is_asked |= ended?;
                }
                Some(open) = looks.next() => {
                    let open: Vec<StoredBackfill> = open;
                    self.show(&open);
                    let due = open.into_iter().filter(|one| {
                        one.state == BackfillState::Running && !active.contains(&one.id)
                    });
                    let room = RUNNING_MAX.saturating_sub(active.len());
                    for stored in due.take(room).collect::<Vec<_>>() {
                        let (id, table) = (stored.id, stored.wish.table.clone());
                        active.insert(id);
                        let is_first = tried.insert(id);
                        // Nothing is waited for outside of the select: a run that is not polled may
                        // hold the session.
                        runs.push(async move {
                            let ended = self.one(stored, is_first).await;
                            (id, self.after(id, &table, ended).await)
                        });
                    }
                }
                request = requests.recv() => match request {
                    Some(BackfillRequest::Look) => is_asked = true,
                    Some(request) => answers.push(admit::answer(&self.context, request)),
                    None => return Ok(()), // it ends only with everything else
                },
                Some(()) = answers.next() => is_asked = true,
                _ = polls.tick() => is_asked = true,
            }
            if is_asked && looks.is_empty() {
                is_asked = false;
                looks.push(self.look());
            }
        }
    }

    async fn look(&self) -> Vec<StoredBackfill> {
        let open = async {
            let mut session = self.context.pool.session().await.map_err(StateError::from)?;
            backfills::open(session.client(), self.context.slot()).await
        };
        open.await.unwrap_or_else(|error| {
            let error = anyhow::Error::new(error);
            tracing::debug!(error = %format!("{error:#}"), "cannot look for backfills");
            Vec::new()
        })
    }

    async fn one(&self, stored: StoredBackfill, is_first: bool) -> Result<RunEnd, RunError> {
        let (id, table) = (stored.id, stored.wish.table.clone());
        if is_first {
            let now = self.context.clock.now();
            let mut session = self.context.pool.session().await?;
            let tries =
                backfills::begin_try(session.client(), &self.context.ownership, id, now).await?;
            if tries > TRIES_MAX {
                let reason = format!(
                    "walhook has ended {TRIES_MAX} times since a chunk of it was done: look into the log \
                     for the reason, then resume it"
                );
                self.switch(id, BackfillState::Paused, Some(&reason)).await?;
                return Ok(RunEnd::Stopped);
            }
            tracing::info!(backfill = %id, table = %table, read = stored.rows_read, "a backfill begins");
        }
        BackfillRun::run(&self.context, stored).await
    }

    /// Notes how a run ended. `false`: it is tried again after a while.
    async fn after(
        &self,
        id: BackfillId,
        table: &TableName,
        ended: Result<RunEnd, RunError>,
    ) -> anyhow::Result<bool> {
        match ended {
            Ok(RunEnd::Done) => {
                tracing::info!(backfill = %id, "a backfill is done");
                self.context.progress.forget(id);
                self.context.metrics.backfill().progress(table, 1.0);
                self.switch(id, BackfillState::Done, None).await?;
                Ok(true)
            }
            Ok(RunEnd::Stopped | RunEnd::Closed) => Ok(true),
            Err(RunError::State(error)) if !error.may_be_mended() => Err(error.into()),
            Err(error) => {
                let is_waiting = error.may_be_mended();
                let logged = error.without_data();
                let error = format!("{:#}", anyhow::Error::new(error));
                let logged = logged.as_ref().unwrap_or(&error);
                tracing::warn!(backfill = %id, error = logged, is_waiting, "a backfill cannot go on");
                if is_waiting {
                    let explained = async {
                        let mut session =
                            self.context.pool.session().await.map_err(StateError::from)?;
                        backfills::explain(session.client(), self.context.slot(), id, Some(&error))
                            .await
                    };
                    explained.await.ok(); // the state may be what is away
                    return Ok(false);
                }
                self.switch(id, BackfillState::Failed, Some(&error)).await?;
                Ok(true)
            }
        }
    }

    async fn switch(
        &self,
        id: BackfillId,
        to: BackfillState,
        reason: Option<&str>,
    ) -> Result<(), StateError> {
        let mut session = self.context.pool.session().await?;
        let from = [BackfillState::Running];
        let now = self.context.clock.now();
        backfills::switch(session.client(), self.context.slot(), id, (&from, to), reason, now)
            .await?;
        Ok(())
    }

    /// Shows how far they are.
    fn show(&self, open: &[StoredBackfill]) {
        for one in open.iter().filter(|one| one.state == BackfillState::Running) {
            self.context.metrics.backfill().progress(&one.wish.table, one.progress());
        }
    }
}
