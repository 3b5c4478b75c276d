//! Sends dead letters again, as operators ask for it, and with [`replay_page`] delivered events.
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

mod backlog_ages;
mod orphans;
mod pace;
mod recount;
mod replay_page;
mod service;
mod worker;

use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::config::configuration::Settings;
use crate::endpoints::registry::RegistryHandle;
use crate::flow::budget::MemoryBudget;
use crate::flow::partition::PartitionNumber;
use crate::pipeline::handles::SharedHandles;
use crate::redelivery::pace::ResendPace;
use crate::redelivery::recount::LetterRecount;
use crate::redelivery::recount::RECOUNT;
use crate::redelivery::service::ClaimKind;
use crate::redelivery::service::POLL;
use crate::redelivery::service::RedeliveryService;
use crate::redelivery::worker::ResendWorker;
use crate::store::dead_letters;
use crate::store::ownership::StateOwnership;
use crate::store::replay_orders;
use crate::store::replay_orders::ReplayTally;
use crate::store::resend;
use crate::store::session::session_pool::SessionPool;
use crate::store::state_error::StateError;
use crate::task::TaskOwner;

/// The share of the memory budget that replays can have: they must not keep out what is new.
const BUDGET_SHARE: usize = 4;

/// Claims are small and quick: one session is enough for all workers.
const SESSIONS: usize = 1;
const STATEMENT_MAX: Duration = Duration::from_secs(20);

/// How often closed letters are purged, and how many one statement takes.
const HOUSEKEEPING: Duration = Duration::from_secs(3600);
const PURGE_ROWS: u64 = 1000;

/// Starts the sending of what operators ask for, to the endpoints of the registry.
pub(crate) fn start(
    settings: &Settings,
    handles: &SharedHandles,
    ownership: StateOwnership,
    registry: Arc<OnceLock<RegistryHandle>>,
    budget: MemoryBudget,
    tasks: &mut TaskOwner,
) {
    let resender = RedeliveryService::new(settings, handles, ownership, registry, budget);
    tasks.spawn("the sending of dead letters", resender.run(tasks.stop_token()));
}

impl RedeliveryService {
    fn new(
        settings: &Settings,
        handles: &SharedHandles,
        ownership: StateOwnership,
        registry: Arc<OnceLock<RegistryHandle>>,
        budget: MemoryBudget,
    ) -> Self {
        Self {
            pool: SessionPool::new(settings.state.clone(), SESSIONS, STATEMENT_MAX),
            settings: settings.dead_letters,
            clock: handles.clock.clone(),
            budget,
            own_budget: MemoryBudget::new(settings.memory.queued_bytes / BUDGET_SHARE),
            replayed: handles.replayed.clone(),
            metrics: handles.metrics.clone(),
            asked: Arc::clone(&handles.asked),
            recount: LetterRecount::default(),
            partitions: settings
                .relay
                .as_ref()
                .filter(|_| ownership.partition() != PartitionNumber::SOURCE)
                .map(|relay| relay.partitions),
            ownership,
            registry,
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
        let (mut recounts, mut counts) = (tokio::time::interval(RECOUNT), FuturesUnordered::new());
        recounts.set_missed_tick_behavior(MissedTickBehavior::Delay);
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
                        let claim = self.claim_of(&endpoint).filter(|_| !working.contains(&endpoint));
                        if let Some(claim) = claim {
                            working.insert(Arc::clone(&endpoint));
                            workers.push(self.work(endpoint, claim));
                        }
                    }
                }
                _ = housekeeping.tick(), if chores.is_empty() => chores.push(self.do_housekeeping()),
                Some(()) = chores.next() => {}
                _ = recounts.tick(), if counts.is_empty() => counts.push(self.count_letters()),
                Some(()) = counts.next() => {}
                Some(()) = orphans.next() => {}
            }
            if is_asked && looks.is_empty() && orphans.is_empty() {
                looks.push(self.waiting());
                is_asked = false;
            }
        }
    }

    /// `None` if there is no such endpoint, or it is disabled or being removed.
    fn claim_of(&self, endpoint: &str) -> Option<ClaimKind> {
        let snapshot = self.registry.get()?.snapshot();
        let shown = snapshot.find(endpoint)?;
        let (replays, metrics) = (shown.replays.clone(), shown.metrics.clone());
        (shown.endpoint.enabled && !shown.is_leaving).then_some(ClaimKind { replays, metrics })
    }

    /// Whether there is no such endpoint; one that is disabled or being removed is there.
    fn is_gone(&self, endpoint: &str) -> bool {
        self.registry.get().is_some_and(|registry| !registry.snapshot().knows(endpoint))
    }

    async fn take_back(&self, endpoint: Arc<str>) {
        orphans::take_back(&self.pool, &self.ownership, &endpoint).await;
    }

    /// Endpoints with something to send; none while the state cannot be read.
    async fn waiting(&self) -> Vec<Arc<str>> {
        let asked = async {
            let mut session = self.pool.session().await?;
            let slot = self.ownership.slot();
            let mut endpoints = resend::waiting(session.client(), slot).await?;
            endpoints.extend(replay_orders::waiting(session.client(), slot).await?);
            endpoints.retain(|endpoint| self.is_ours(endpoint));
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

    /// Has the gauges follow the table; not while it cannot be read.
    async fn count_letters(&self) {
        let Some(registry) = self.registry.get() else { return };
        let Ok(mut session) = self.pool.session().await else { return };
        if let Ok(sizes) = dead_letters::sizes(session.client(), self.ownership.slot()).await {
            self.recount.compare(&registry.snapshot(), &sizes);
        }
        backlog_ages::look(
            &registry.snapshot(),
            session.client(),
            self.ownership.slot(),
            self.clock.now(),
        )
        .await;
    }

    /// Purges letters that were closed long ago.
    async fn do_housekeeping(&self) {
        let age = Duration::from_secs(u64::from(self.settings.retention_days) * 86_400);
        let micros = i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
        let before = self.clock.now().shifted(-micros);
        let purged = async {
            let mut session = self.pool.session().await?;
            let slot = self.ownership.slot();
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
    async fn work(&self, endpoint: Arc<str>, claim: ClaimKind) -> (Arc<str>, anyhow::Result<()>) {
        let mut worker = ResendWorker {
            shared: self,
            ended: self.replayed.watch(),
            pace: ResendPace::new(self.settings.resend_rate),
            // The first one says how quickly the others may go.
            portion_rows: 1,
            in_memory: HashMap::new(),
            tally: ReplayTally::default(),
            endpoint,
            claim,
        };
        let outcome = worker.run().await;
        (worker.endpoint, outcome)
    }
}
