//! A member that delivers: takes its share of the partitions, prolongs their leases, and gives back what is above
//! its share.
//!
//! ```text
//! members, partitions ─ once a second ─▶ [membership] ─ take, stop ─▶ partitions
//!                                            └ prolong: the right to send
//! ```
//!
//! Rows of members decide only who tries. Who may send is decided by the lease of a partition, and who may write by
//! its epoch; both are PostgreSQL's word.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::app::all_endpoints;
use crate::app::observation::observer;
use crate::app::partition;
use crate::app::partition::PartitionContext;
use crate::app::stages;
use crate::clock::since_boot;
use crate::config::configuration::Settings;
use crate::config::settings::RelaySettings;
use crate::flow::budget::MemoryBudget;
use crate::flow::lsn::Position;
use crate::flow::partition::PartitionNumber;
use crate::ha::partition_share::ShareStep;
use crate::ha::partition_share::next_look;
use crate::ha::partition_share::next_step;
use crate::ha::partition_state;
use crate::ha::tail_relay;
use crate::ledger::joined_flushes::FlushTicks;
use crate::ledger::joined_flushes::JoinedFlushes;
use crate::pipeline::crash_guard::SuspectLock;
use crate::pipeline::handles::SharedHandles;
use crate::pipeline::lanes;
use crate::pipeline::process_name::own_name;
use crate::pipeline::state_probe;
use crate::pipeline::threads::LaneThreads;
use crate::preflight::state_session;
use crate::replication::slot_ownership::SlotOwnership;
use crate::store;
use crate::store::SqlSession;
use crate::store::crash_records;
use crate::store::members;
use crate::store::ownership::StateOwnership;
use crate::store::partition_leases;
use crate::store::partition_leases::PartitionRow;
use crate::store::push_totals;
use crate::store::source_members::MEMBER_ALIVE;
use crate::store::state_error::StateError;
use crate::task::TaskOwner;

/// How often leases are prolonged, and it is looked who is there.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// At most one partition is given back in this time: its next owner has to catch up first.
const GIVE_BACK_EVERY: Duration = Duration::from_secs(5);

/// A partition that could not be served is left alone for so long.
const FAILED_PAUSE: Duration = Duration::from_secs(5);

/// A member, and the partitions that it owns.
pub(super) struct Membership {
    pub(super) settings: Settings,
    pub(super) relay: RelaySettings,
    pub(super) handles: SharedHandles,
    pub(super) common: PartitionContext,
    /// Where its HTTP surface listens.
    pub(super) address: String,
}

/// A partition that is being served.
struct OwnedPartition {
    ownership: StateOwnership,
    slot_ownership: SlotOwnership,
    stop: CancellationToken,
}

/// What the membership has done so far.
struct MembershipState {
    member: String,
    slot: String,
    /// How long a lease lasts; the right to send is half of it.
    lease: Duration,
    owned: BTreeMap<PartitionNumber, OwnedPartition>,
    running: JoinSet<(PartitionNumber, anyhow::Result<()>)>,
    session: Option<SqlSession>,
    gave_back: Option<Instant>,
    failed: BTreeMap<PartitionNumber, Instant>,
    /// When to look again.
    next_look: Duration,
    /// What the log was told of why nothing is taken.
    told: Option<String>,
}

impl MembershipState {
    /// Looks again when a lease of another member is over.
    fn schedule_look(&mut self, rows: &[PartitionRow]) {
        let others = rows.iter().filter(|row| !self.owned.contains_key(&row.partition));
        let left = others.filter(|row| row.is_leased).map(|row| row.leased_for);
        self.next_look = next_look(self.next_look, left);
    }
}

impl App {
    /// Ends when partitions are looked for.
    pub(super) async fn begin_delivering(&mut self) -> anyhow::Result<()> {
        let relay = tail_relay::settings_of(&self.settings)?.clone();
        let Self { settings, handles, tasks, .. } = self;
        let state = state_session::open(settings).await?;
        handles.stats.resume(&push_totals::load(&state.client, &settings.postgres.slot).await?);
        let around = (self.partitions.clone(), self.reloads.1.clone());
        let count = relay.partitions;
        let threads = LaneThreads::start(count.into())?;
        let thread = threads.of(PartitionNumber::SOURCE);
        let started = all_endpoints::start(settings, handles, &state, around, thread, tasks);
        let (all, calls_in) = Box::pin(started).await?;
        drop(self.admin.set(calls_in)); // there is one
        drop(state);
        let orders_in = stages::admit_backfills(settings, handles, tasks);
        drop(self.backfills.set(orders_in)); // likewise
        let (observer, session) = observer(settings, handles, None).await?;
        let stop = tasks.stop_token();
        tasks.spawn("the clock", async move {
            observer.follow_clock(session, stop).await;
            Ok(())
        });
        let broker = tail_relay::connect(&relay, &tasks.stop_token()).await?;
        let probe =
            state_probe::watch(settings.state.clone(), handles.state.clone(), tasks.stop_token());
        tasks.spawn("the probe of the state", probe);
        let budget = MemoryBudget::new(settings.memory.queued_bytes);
        let snapshots = self.partitions.clone();
        let share = lanes::share_of(settings);
        let suspect_lock = SuspectLock::default();
        let (joined, joiner) = JoinedFlushes::open(settings.state.clone());
        let stop = tasks.stop_token();
        tasks.spawn("the flushes of all partitions", async move {
            joiner.run(stop).await;
            Ok(())
        });
        let flushes = (joined, FlushTicks::new());
        let common = PartitionContext {
            broker,
            budget,
            share,
            threads,
            snapshots,
            all,
            count,
            suspect_lock,
            flushes,
        };
        let membership = Membership {
            settings: settings.clone(),
            relay,
            handles: handles.clone(),
            common,
            address: self.address.to_string(),
        };
        tasks.spawn("the membership", membership.run(tasks.stop_token()));
        handles.status.begun();
        tracing::info!(http = %self.address, version = env!("CARGO_PKG_VERSION"), "walhook is running");
        Ok(())
    }
}

impl Membership {
    /// Delivers until `stop`, and then until all that was taken is given back.
    ///
    /// Never fails: what cannot be served is tried again, and said in the log.
    pub(super) async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let slot = self.settings.postgres.slot.clone();
        let mut state = MembershipState {
            member: format!("{:016x}", fastrand::u64(..)),
            slot,
            lease: self.settings.postgres.wal_sender_timeout,
            owned: BTreeMap::new(),
            running: JoinSet::new(),
            session: None,
            gave_back: None,
            failed: BTreeMap::new(),
            next_look: Duration::ZERO,
            told: None,
        };
        loop {
            let stopping = stop.is_cancelled();
            state.next_look = LOOK_EVERY.min(state.lease / 6);
            if let Err(error) = self.look(&mut state, stopping).await {
                state.session = None;
                let error = format!("{:#}", anyhow::Error::new(error));
                tracing::warn!(error, "cannot ask the state who owns which partition");
            }
            if stopping && state.owned.is_empty() {
                if let Some(session) = &state.session {
                    // If it cannot be said, it is seen by its silence.
                    drop(members::leave(&session.client, &state.slot, &state.member).await);
                }
                return Ok(());
            }
            self.show(&state);
            tokio::select! {
                () = stop.cancelled(), if !stopping => {}
                Some(ended) = state.running.join_next() => self.ended(&mut state, ended?).await,
                () = tokio::time::sleep(state.next_look) => {}
            }
        }
    }

    /// One look at the state, and what follows from it.
    async fn look(&self, state: &mut MembershipState, stopping: bool) -> Result<(), StateError> {
        let mut session = SqlSession::take_or_connect(
            &mut state.session,
            &self.settings.state,
            store::ANSWER_SOON,
        )
        .await?;
        self.prolong(state, &session).await?;
        if stopping {
            state.owned.values().for_each(|owned| owned.stop.cancel());
            state.session = Some(session);
            return Ok(());
        }
        let client = &session.client;
        let row = (state.member.as_str(), &*own_name(), self.address.as_str());
        members::beat(client, &state.slot, row).await?;
        let source = partition_leases::source(client, &state.slot).await?;
        let count = source.and_then(|(count, ..)| count);
        let settled = source.and_then(|(_, _, settled)| settled);
        let wanted = self.relay.partitions.get();
        let refusal = match count {
            None => Some(String::from(
                "no tail has shared the source yet: start `walhook run --role tail`",
            )),
            Some(count) if count != wanted => Some(format!(
                "the tail shares {count} partitions, and `partitions` of [relay] is {wanted} here: give \
                 all members the same configuration"
            )),
            Some(_) => None,
        };
        if let Some(why) = &refusal
            && state.told != refusal
        {
            tracing::warn!(why, "nothing is taken");
        }
        state.told = refusal;
        if state.told.is_some() {
            state.session = Some(session);
            return Ok(());
        }
        let alive = members::load(client, &state.slot, MEMBER_ALIVE).await?;
        let alive = alive.iter().filter(|member| member.is_alive).count();
        let rows = partition_leases::rows(client, &state.slot).await?;
        state.schedule_look(&rows);
        let is_left =
            |partition| state.failed.get(partition).is_some_and(|at| at.elapsed() < FAILED_PAUSE);
        let free = rows.iter().filter(|row| !row.at_source && !row.is_leased);
        let free: Vec<_> = free
            .filter(|row| !is_left(&row.partition) && !state.owned.contains_key(&row.partition))
            .map(|row| (row.partition, row.settled))
            .collect();
        let serving = state.owned.iter().filter(|(_, owned)| !owned.stop.is_cancelled());
        let serving: Vec<PartitionNumber> = serving.map(|(partition, _)| *partition).collect();
        let numbers: Vec<PartitionNumber> = free.iter().map(|(partition, _)| *partition).collect();
        let may_give = state.gave_back.is_none_or(|at| at.elapsed() >= GIVE_BACK_EVERY);
        match next_step(usize::from(wanted), alive.max(1), &serving, &numbers, may_give) {
            ShareStep::Stay => {}
            ShareStep::GiveBack(partition) => {
                if let Some(owned) = state.owned.get(&partition) {
                    tracing::info!(partition = partition.raw(), "a partition is given back");
                    owned.stop.cancel();
                    state.gave_back = Some(Instant::now());
                }
            }
            ShareStep::Take(partitions) => {
                for partition in partitions {
                    let own = free.iter().find(|(number, _)| *number == partition);
                    let own = own.and_then(|(_, settled)| *settled);
                    self.take(state, &mut session, (partition, own.max(settled))).await?;
                }
            }
        }
        state.session = Some(session);
        Ok(())
    }

    /// Prolongs the leases. What is not ours any more stops at once: its right to send is over already.
    async fn prolong(
        &self,
        state: &mut MembershipState,
        session: &SqlSession,
    ) -> Result<(), StateError> {
        if state.owned.is_empty() {
            return Ok(());
        }
        let held = state.owned.iter();
        let held: Vec<_> = held.map(|(number, owned)| (*number, owned.ownership.epoch())).collect();
        let asked = since_boot();
        let who = (state.slot.as_str(), state.member.as_str());
        let kept = partition_leases::prolong(&session.client, who, &held, state.lease).await?;
        for (partition, owned) in &state.owned {
            if kept.contains(partition) {
                owned.slot_ownership.leased(asked);
            } else if !owned.stop.is_cancelled() {
                tracing::warn!(
                    partition = partition.raw(),
                    "a partition is somebody else's by now"
                );
                owned.slot_ownership.lost();
                owned.stop.cancel();
            }
        }
        Ok(())
    }

    /// Takes a partition, of which everything up to `settled` is settled, and serves it.
    async fn take(
        &self,
        state: &mut MembershipState,
        session: &mut SqlSession,
        (partition, settled): (PartitionNumber, Option<Position>),
    ) -> Result<(), StateError> {
        let asked = since_boot();
        let name = own_name();
        let who = (state.member.as_str(), name.as_str());
        let slot = state.slot.as_str();
        let taken =
            partition_leases::take(&mut session.client, slot, partition, who, state.lease).await?;
        let Some((ownership, progress)) = taken else { return Ok(()) };
        tracing::info!(partition = partition.raw(), "a partition is taken");
        let handles = self.handles.of_partition(&self.settings);
        handles.slot_ownership.leased(asked);
        let tasks = TaskOwner::new();
        let (slot_ownership, stop) = (handles.slot_ownership.clone(), tasks.stop_token());
        let owned = OwnedPartition { ownership: ownership.clone(), slot_ownership, stop };
        state.owned.insert(partition, owned);
        let mut settings = self.settings.clone();
        // While it is given back it stands still for all its endpoints: no longer than if this process had died.
        settings.grace = settings.grace.min(state.lease);
        let settled = settled.max(progress.settled);
        let serve =
            Box::pin(serve(settings, handles, self.common.clone(), (ownership, settled), tasks));
        state.running.spawn(async move { (partition, serve.await) });
        Ok(())
    }

    /// A partition is served no more: others may take it.
    async fn ended(
        &self,
        state: &mut MembershipState,
        (partition, outcome): (PartitionNumber, anyhow::Result<()>),
    ) {
        let Some(owned) = state.owned.remove(&partition) else { return };
        owned.slot_ownership.lost();
        for name in self.common.snapshots.ended(partition) {
            self.handles.metrics.forget_endpoint(&name);
        }
        if let Err(error) = outcome {
            let error = format!("{error:#}");
            tracing::warn!(partition = partition.raw(), error, "a partition cannot be served");
            state.failed.insert(partition, Instant::now());
        }
        let released = async {
            let session = SqlSession::take_or_connect(
                &mut state.session,
                &self.settings.state,
                store::ANSWER_SOON,
            )
            .await?;
            // Whatever it is that this process sees, it is no crash of its own.
            crash_records::stopped(&session.client, &owned.ownership).await?;
            partition_leases::release(&session.client, &owned.ownership).await?;
            state.session = Some(session);
            Ok::<(), StateError>(())
        };
        if let Err(error) = released.await {
            let error = format!("{:#}", anyhow::Error::new(error));
            tracing::debug!(error, "a lease runs out by itself");
        }
    }

    /// Says what is owned, for readiness and status.
    fn show(&self, state: &MembershipState) {
        let owned: Vec<String> =
            state.owned.keys().map(|number| number.raw().to_string()).collect();
        let what = match (&state.told, owned.is_empty()) {
            (Some(why), true) => format!("delivers for no partition: {why}"),
            (None, true) => String::from("delivers for no partition: others have them all"),
            (_, false) => format!("delivers for partitions {}", owned.join(", ")),
        };
        self.handles.status.delivering(what);
    }
}

/// Serves a partition until it is to stop or something fails.
async fn serve(
    mut settings: Settings,
    handles: SharedHandles,
    common: PartitionContext,
    (ownership, settled): (StateOwnership, Option<Position>),
    mut tasks: TaskOwner,
) -> anyhow::Result<()> {
    let (writable_in, writable) = watch::channel(true);
    let starts = common.endpoints_of(ownership.partition());
    settings.endpoints = starts.iter().map(|start| start.endpoint.clone()).collect();
    let session = store::connect_within(&settings.state, store::ANSWER_MAX).await?;
    let writes = (writable_in, handles.state.clone());
    let taken = partition_state::take_up(&settings, session, ownership, settled, writes).await;
    let taken = taken.context("cannot read what is known of the partition")?;
    let started =
        partition::start(&settings, &handles, (common, starts), taken, writable, &mut tasks);
    Box::pin(started).await?;
    tasks.run(settings.grace, |_| ()).await
}
