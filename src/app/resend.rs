//! Sends dead letters again, as operators ask for it, and with [`crate::app::replay`] delivered events.
//!
//! ```text
//! api ─ requested ─▶ walhook.dead_letters ─ claim ─▶ [worker per endpoint] ─▶ lane's replays
//!                            ▲                          ▲
//!                            └── flush ── ledger ── ended
//! ```
//!
//! The table is the queue: what is asked for is there, so a large resend goes on after a crash, and
//! another process may ask. A worker lives while its endpoint has something to send, so that one that
//! hangs keeps nobody else waiting. Its portion is small and paced, has a share of the memory budget,
//! and goes through the lane, whose limits hold. With nothing to send, one question every few
//! seconds is all that this costs; nothing is written.

use std::collections::HashMap;
use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Notify;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::app::Handles;
use crate::app::fleet::Orders;
use crate::app::orphans;
use crate::backoff::Backoff;
use crate::clock::DatabaseClock;
use crate::config::settings::DeadLetters;
use crate::config::settings::Settings;
use crate::flow::budget::Budget;
use crate::flow::budget::Held;
use crate::flow::budget::Permit;
use crate::flow::event::Event;
use crate::flow::relation::TableName;
use crate::flow::settlement::ReplayId;
use crate::ledger::replayed::ReplayEnd;
use crate::ledger::replayed::Replayed;
use crate::queue::error::QueueError;
use crate::queue::sender::Replay;
use crate::queue::sender::ReplaySender;
use crate::store::dead_letters;
use crate::store::dead_letters::DeadLetterId;
use crate::store::desk::Desk;
use crate::store::progress::Holding;
use crate::store::replays;
use crate::store::replays::Tally;
use crate::store::resend;
use crate::store::resend::Portion;
use crate::store::state_error::StateError;
use crate::task::Tasks;
use crate::telemetry::metrics::EndpointMetrics;
use crate::telemetry::metrics::Metrics;

/// How soon a request is seen that nobody told us of, such as one by way of another process.
const POLL: Duration = Duration::from_secs(5);

/// Letters of one endpoint that are in memory at once, and the bytes of their bodies.
pub(super) const PORTION_ROWS: usize = 64;
pub(super) const PORTION_BYTES: usize = 1 << 20;

/// What an event costs in memory beside its body.
const EVENT_OVERHEAD_BYTES: usize = 512;

/// The share of the memory budget that replays can have: they must not keep out what is new.
const BUDGET_SHARE: usize = 4;

/// How often a worker looks for room in that share.
const ROOM_POLL: Duration = Duration::from_millis(100);

/// Claims are small and quick: one session is enough for all workers.
const SESSIONS: usize = 1;
const STATEMENT_MAX: Duration = Duration::from_secs(60);

/// How often closed letters are purged, and how many one statement takes.
const HOUSEKEEPING: Duration = Duration::from_secs(3600);
const PURGE_ROWS: u64 = 1000;

/// First and longest wait while the state's database is away.
pub(super) const AWAY_FIRST: Duration = Duration::from_millis(200);
pub(super) const AWAY_CAP: Duration = Duration::from_secs(5);

/// What sending again needs.
pub(crate) struct Resender {
    pub(super) desk: Desk,
    pub(super) holding: Holding,
    pub(super) settings: DeadLetters,
    pub(super) clock: DatabaseClock,
    /// Shared with the source and the lanes.
    budget: Budget,
    /// Out of `budget`, what replays can have.
    own_budget: Budget,
    replayed: Replayed,
    metrics: Metrics,
    asked: Arc<Notify>,
    fleet: Arc<OnceLock<Orders>>,
}

/// The way into the lane of an endpoint.
struct Way {
    replays: ReplaySender,
    metrics: EndpointMetrics,
}

/// Why a worker ended before its work was done.
#[derive(Debug, thiserror::Error)]
pub(super) enum ResendError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Lane(#[from] QueueError),
}

/// Starts the sending of what operators ask for, to the endpoints of the fleet.
pub(crate) fn start(
    settings: &Settings,
    handles: &Handles,
    holding: Holding,
    fleet: Arc<OnceLock<Orders>>,
    budget: Budget,
    tasks: &mut Tasks,
) {
    let resender = Resender::new(settings, handles, holding, fleet, budget);
    tasks.spawn("the sending of dead letters", resender.run(tasks.stop_token()));
}

impl Resender {
    fn new(
        settings: &Settings,
        handles: &Handles,
        holding: Holding,
        fleet: Arc<OnceLock<Orders>>,
        budget: Budget,
    ) -> Self {
        Self {
            desk: Desk::new(settings.state.clone(), SESSIONS, STATEMENT_MAX),
            holding,
            settings: settings.dead_letters,
            clock: handles.clock.clone(),
            budget,
            own_budget: Budget::new(settings.memory.queued_bytes / BUDGET_SHARE),
            replayed: handles.replayed.clone(),
            metrics: handles.metrics.clone(),
            asked: Arc::clone(&handles.asked),
            fleet,
        }
    }

    /// Runs until `stop`. What is under way then is claimed again by the next walhook.
    ///
    /// # Errors
    /// [`StateError::Fenced`], or another error that waiting cannot mend.
    async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        tokio::select! {
            () = stop.cancelled() => Ok(()),
            ended = self.serve() => ended,
        }
    }

    async fn serve(&self) -> anyhow::Result<()> {
        let mut working: HashSet<Arc<str>> = HashSet::new();
        let mut workers = FuturesUnordered::new();
        // One at a time of each. Nothing is waited for outside of the select: a worker that is not
        // polled may hold the session.
        let (mut looks, mut chores) = (FuturesUnordered::new(), FuturesUnordered::new());
        let mut orphans = FuturesUnordered::new();
        let mut is_asked = false;
        let mut polls = tokio::time::interval(POLL);
        let mut housekeeping = tokio::time::interval(HOUSEKEEPING);
        polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
        housekeeping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some((endpoint, ended)) = workers.next() => {
                    working.remove(&endpoint);
                    ended?;
                    is_asked = true; // maybe just before it ended
                }
                () = self.asked.notified() => is_asked = true,
                _ = polls.tick() => is_asked = true,
                Some(endpoints) = looks.next() => {
                    let endpoints: Vec<Arc<str>> = endpoints;
                    for endpoint in endpoints {
                        if self.is_gone(&endpoint) {
                            orphans.push(self.take_back(endpoint));
                            continue;
                        }
                        let way = self.way(&endpoint).filter(|_| !working.contains(&endpoint));
                        if let Some(way) = way {
                            working.insert(Arc::clone(&endpoint));
                            workers.push(self.work(endpoint, way));
                        }
                    }
                }
                _ = housekeeping.tick(), if chores.is_empty() => chores.push(self.keep_house()),
                Some(()) = chores.next() => {}
                Some(()) = orphans.next() => {}
            }
            if is_asked && looks.is_empty() && orphans.is_empty() {
                looks.push(self.waiting());
                is_asked = false;
            }
        }
    }

    /// `None` if there is no such endpoint, or it is disabled or being removed.
    fn way(&self, endpoint: &str) -> Option<Way> {
        let roster = self.fleet.get()?.roster();
        let shown = roster.find(endpoint)?;
        let (replays, metrics) = (shown.replays.clone(), shown.metrics.clone());
        (shown.endpoint.enabled && !shown.is_leaving).then_some(Way { replays, metrics })
    }

    /// Whether there is no such endpoint; one that is disabled or being removed is there.
    fn is_gone(&self, endpoint: &str) -> bool {
        self.fleet.get().is_some_and(|fleet| fleet.roster().find(endpoint).is_none())
    }

    async fn take_back(&self, endpoint: Arc<str>) {
        orphans::take_back(&self.desk, &self.holding, &endpoint).await;
    }

    /// Endpoints with something to send; none while the state cannot be read.
    async fn waiting(&self) -> Vec<Arc<str>> {
        let asked = async {
            let mut session = self.desk.session().await?;
            let slot = self.holding.slot();
            let mut endpoints = resend::waiting(session.client(), slot).await?;
            endpoints.extend(replays::waiting(session.client(), slot).await?);
            Ok::<_, StateError>(endpoints)
        };
        match asked.await {
            Ok(endpoints) => endpoints,
            Err(error) => {
                let error = anyhow::Error::new(error);
                tracing::debug!(error = %format!("{error:#}"), "cannot look for letters to send");
                Vec::new()
            }
        }
    }

    /// Purges letters that were closed long ago.
    async fn keep_house(&self) {
        let age = Duration::from_secs(u64::from(self.settings.retention_days) * 86_400);
        let micros = i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
        let before = self.clock.now().shifted(-micros);
        let purged = async {
            let mut session = self.desk.session().await?;
            let slot = self.holding.slot();
            while dead_letters::purge(session.client(), slot, before, PURGE_ROWS).await?
                == PURGE_ROWS
            {}
            Ok::<(), StateError>(())
        };
        if let Err(error) = purged.await {
            let error = anyhow::Error::new(error);
            tracing::warn!(error = %format!("{error:#}"), "cannot purge closed dead letters");
        }
    }

    /// Sends what there is for one endpoint. Ends when there is nothing more.
    async fn work(&self, endpoint: Arc<str>, way: Way) -> (Arc<str>, anyhow::Result<()>) {
        let mut worker = Worker {
            shared: self,
            ended: self.replayed.watch(),
            pace: Pace::new(self.settings.resend_rate),
            in_memory: HashMap::new(),
            tally: Tally::default(),
            endpoint,
            way,
        };
        let outcome = worker.run().await;
        (worker.endpoint, outcome)
    }
}

/// Sends again what one endpoint is to get.
pub(super) struct Worker<'r> {
    pub(super) shared: &'r Resender,
    pub(super) endpoint: Arc<str>,
    way: Way,
    ended: watch::Receiver<()>,
    pub(super) pace: Pace,
    /// What became of the replays of the push log.
    pub(super) tally: Tally,
    /// What was handed to the lane and is not committed yet, with its share of the replays' budget.
    pub(super) in_memory: HashMap<ReplayId, Permit>,
}

impl Worker<'_> {
    async fn run(&mut self) -> anyhow::Result<()> {
        let mut away = Backoff::new(AWAY_FIRST, AWAY_CAP);
        loop {
            match self.portion().await {
                // Letters first: they were never delivered.
                Ok(0) if self.in_memory.is_empty() => match self.replay_page().await {
                    Ok(true) => away.reset(),
                    Ok(false) => return Ok(()),
                    Err(error) => match self.after(error, &mut away).await? {
                        ControlFlow::Continue(()) => {}
                        ControlFlow::Break(()) => return Ok(()),
                    },
                },
                Ok(0) => self.some_ended().await,
                Ok(letters) => {
                    away.reset();
                    tracing::info!(endpoint = %self.endpoint, letters, "sending dead letters again");
                }
                Err(error) => match self.after(error, &mut away).await? {
                    ControlFlow::Continue(()) => {}
                    ControlFlow::Break(()) => return Ok(()),
                },
            }
            self.settle();
        }
    }

    /// Waits where waiting can help, and says whether to go on.
    async fn after(
        &self,
        error: ResendError,
        away: &mut Backoff,
    ) -> anyhow::Result<ControlFlow<()>> {
        match error {
            // The lane is gone, and what it had is claimed again when there is one.
            ResendError::Lane(_) => {
                tokio::time::sleep(POLL).await;
                Ok(ControlFlow::Break(()))
            }
            ResendError::State(error) if error.is_transient() => {
                let error = anyhow::Error::new(error);
                tracing::debug!(error = %format!("{error:#}"), "cannot read what is to be sent again");
                tokio::time::sleep(away.next()).await;
                Ok(ControlFlow::Continue(()))
            }
            ResendError::State(error) => Err(error.into()),
        }
    }

    /// Claims as many letters as there is room for, and hands them to the lane. Returns how many.
    async fn portion(&mut self) -> Result<usize, ResendError> {
        let rows = PORTION_ROWS.saturating_sub(self.in_memory.len());
        if rows == 0 {
            return Ok(0);
        }
        let letter = |id: &ReplayId| match id {
            ReplayId::Letter(id) => Some(DeadLetterId(*id)),
            ReplayId::Logged(_) => None,
        };
        let in_memory: Vec<DeadLetterId> = self.in_memory.keys().filter_map(letter).collect();
        let claimed = {
            let mut session = self.shared.desk.session().await.map_err(StateError::from)?;
            let endpoint = Some(&*self.endpoint);
            let bytes = PORTION_BYTES;
            let portion = Portion { endpoint, in_memory: &in_memory, rows, bytes };
            resend::claim(session.client(), &self.shared.holding, portion).await?
        };
        let letters = claimed.len();
        // All at once, as the state has them, whatever becomes of the lane meanwhile.
        for claimed in claimed.iter().filter(|claimed| claimed.unbooked) {
            self.revive(&claimed.letter.event.table);
        }
        for claimed in claimed {
            let id = ReplayId::Letter(claimed.letter.id.0);
            // It was read a moment ago, and nobody else has it.
            if let Some(event) = Arc::into_inner(claimed.letter.event) {
                self.hand_over(id, event).await?;
            }
        }
        Ok(letters)
    }

    /// A dead letter is pending again. One that was claimed before, and got lost, is so already.
    fn revive(&self, table: &TableName) {
        let balance = self.shared.metrics.balance(&self.endpoint, table);
        balance.dead.dec();
        balance.pending.inc();
        self.way.metrics.pending_memory.inc();
        self.way.metrics.replays.inc();
    }

    /// Gives one event to the lane, when it is its turn and there is room for it in memory.
    pub(super) async fn hand_over(
        &mut self,
        id: ReplayId,
        mut event: Event,
    ) -> Result<(), QueueError> {
        self.pace.turn().await;
        let bytes = event.body.held_bytes() + EVENT_OVERHEAD_BYTES;
        let share = loop {
            match self.shared.own_budget.try_take(bytes) {
                Some(share) => break share,
                None => {
                    // The room may be our own: what has ended gives it back.
                    self.settle();
                    tokio::time::sleep(ROOM_POLL).await;
                }
            }
        };
        event.held = Some(Held::Own(self.shared.budget.take(bytes).await));
        // Letters are counted when they are claimed: until they end they are pending, wherever they are.
        let is_logged = matches!(id, ReplayId::Logged(_));
        if is_logged {
            self.way.metrics.pending_memory.inc();
            self.way.metrics.replays.inc();
        }
        let sent = self.way.replays.send(vec![Replay { id, event: Arc::new(event) }]).await;
        if sent.is_err() {
            self.way.metrics.pending_memory.sub(i64::from(is_logged));
        } else {
            self.in_memory.insert(id, share);
        }
        sent
    }

    /// Waits until at least one replay of any endpoint has ended.
    pub(super) async fn some_ended(&mut self) {
        // The sender is the shared handle's own, so that it cannot be gone.
        self.ended.changed().await.ok();
    }

    /// Forgets what has ended.
    pub(super) fn settle(&mut self) {
        self.ended.mark_unchanged();
        let replayed = &self.shared.replayed;
        let ends = self.in_memory.keys().filter_map(|id| Some((*id, replayed.take(*id)?)));
        let ends: Vec<(ReplayId, ReplayEnd)> = ends.collect();
        for (id, end) in ends {
            self.in_memory.remove(&id);
            if matches!(id, ReplayId::Logged(_)) {
                match end {
                    ReplayEnd::Delivered => self.tally.delivered += 1,
                    ReplayEnd::Expired => self.tally.expired += 1,
                    ReplayEnd::Failed => self.tally.failed += 1,
                }
            }
        }
    }
}

/// Turns at a steady rate.
#[derive(Debug)]
pub(super) struct Pace {
    every: Duration,
    next: Instant,
}

impl Pace {
    fn new(per_second: u32) -> Self {
        Self { every: Duration::from_secs(1) / per_second.max(1), next: Instant::now() }
    }

    pub(super) fn set_rate(&mut self, per_second: u32) {
        self.every = Duration::from_secs(1) / per_second.max(1);
    }

    /// Waits for the next turn. Turns that nobody took do not add up.
    async fn turn(&mut self) {
        tokio::time::sleep_until(self.next).await;
        self.next = (self.next + self.every).max(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn turns_come_at_the_rate_and_do_not_add_up() {
        let begun = Instant::now();
        let mut pace = Pace::new(10);
        for _ in 0..11 {
            pace.turn().await;
        }
        assert_eq!(begun.elapsed().as_millis(), 1000);
        tokio::time::sleep(Duration::from_secs(5)).await;
        let before = Instant::now();
        for _ in 0..3 {
            pace.turn().await;
        }
        let took = before.elapsed().as_millis();
        assert!((100..=200).contains(&took), "{took}");
    }
}
