//! One run of a partition's owner: joins the stages as `app::partition` does, and prolongs its lease.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::clock::since_boot;
use crate::flow::lsn::Lsn;
use crate::flow::lsn::Position;
use crate::flow::partition::PartitionNumber;
use crate::flow::report_queue::report_queue;
use crate::ledger::joined_flushes::FlushTicks;
use crate::pipeline::already_settled::AlreadySettled;
use crate::pipeline::pump::outbox::PumpOutbox;
use crate::pipeline::pump::relay_pump::LackedMessages;
use crate::pipeline::pump::relay_pump::RelayPump;
use crate::pipeline::simulation::model_broker::ModelStream;
use crate::pipeline::simulation::model_state::ModelOwnership;
use crate::pipeline::simulation::model_state::ModelState;
use crate::pipeline::simulation::process::GRACE;
use crate::pipeline::simulation::process::LedgerStart;
use crate::pipeline::simulation::process::OPENED_MAX;
use crate::pipeline::simulation::process::RunParts;
use crate::pipeline::simulation::process::SCARCE_REPORT_ROOM;
use crate::pipeline::simulation::process::StagesOfRun;
use crate::pipeline::simulation::process::ledger;
use crate::pipeline::simulation::process::observe;
use crate::pipeline::simulation::process::run_ledger_task;
use crate::pipeline::simulation::process::start;
use crate::pipeline::simulation::process::until_done;
use crate::pipeline::simulation::registry::ModelRegistry;
use crate::pipeline::simulation::world::SharedWorld;
use crate::relay::feed::PartitionFeed;
use crate::replication::slot_ownership::SlotOwnership;
use crate::store::books::BookEntry;
use crate::store::books::CommonCounts;
use crate::store::push_totals::PushTotals;

/// How often a lease is prolonged.
const PROLONG_EVERY: Duration = Duration::from_secs(1);

/// Between two looks at what is settled elsewhere, while messages are missing.
const LACKING_EVERY: Duration = Duration::from_secs(1);

/// A partition that was taken, and what was known of it then.
pub(super) struct TakenPartition {
    pub(super) ownership: ModelOwnership,
    pub(super) slot_ownership: SlotOwnership,
    /// The numbers of its endpoints.
    pub(super) endpoints: Arc<[usize]>,
}

/// Takes up what is known of the partition and starts its stages.
pub(super) async fn join(
    parts: RunParts,
    started: StagesOfRun,
    taken: TakenPartition,
) -> anyhow::Result<()> {
    let StagesOfRun { stages, in_time } = started;
    let TakenPartition { ownership, slot_ownership, endpoints } = taken;
    let world = parts.world.clone();
    let kept = keep_lease(world.clone(), ownership, slot_ownership.clone(), parts.stop.clone());
    start(&stages, &world, "the lease", until_done(parts.shutdown.finished.clone(), kept))?;
    world.pass(0..20).await;
    let names: Vec<Arc<str>> = endpoints
        .iter()
        .map(|&number| Arc::clone(&parts.settings.endpoints[number].name))
        .collect();
    let (settled, books) = {
        let world = world.lock();
        (settled(&world.state, ownership.partition), books(&world.state, &names))
    };
    world.point("a partition was taken up").await;
    let (opened_in, opened) = mpsc::channel(OPENED_MAX);
    let (reports_in, reports) = report_queue(SCARCE_REPORT_ROOM);
    let (edits_in, edits) = mpsc::channel(2);
    let (updates_in, updates) = mpsc::channel(2);
    let (writable_in, writable) = watch::channel(true);
    let (ended_in, _ledger_ended) = oneshot::channel();
    let lanes = parts.lanes((slot_ownership.may_send(), reports_in), &stages, Some(endpoints));
    parts.show();
    let confirmed = watch::Sender::new(Lsn::ZERO);
    let ledger = ledger(&parts, ownership, books, (writable_in, confirmed));
    let last_flush_deadline =
        parts.shutdown.clone().last_flush_deadline(parts.stop.clone(), writable);
    let ends = (parts.shutdown.clone(), in_time);
    let kept =
        run_ledger_task(ledger.run(opened, reports, edits), last_flush_deadline, ended_in, ends);
    start(&stages, &world, "the ledger", kept)?;
    let registry = ModelRegistry::start(lanes, edits_in, updates_in).await?;
    let (settled_ahead, parked) = {
        let world = world.lock();
        let state = &world.state;
        let endpoint_watermarks = state
            .endpoint_watermarks
            .iter()
            .filter_map(|(name, at)| Some((registry.index(name)?, *at)));
        let own =
            state.settled_ahead.iter().filter(|(_, written)| **written == ownership.partition);
        let own = own.filter_map(|((name, id), _)| Some((registry.index(name)?, *id)));
        let parked = names.iter().filter_map(|name| state.standing(name));
        (
            AlreadySettled::new(endpoint_watermarks, own),
            parked.map(|standing| standing.newest).max(),
        )
    };
    start(&stages, &world, "the registry", registry.run(parts.stop.clone()))?;
    let stream = ModelStream::new(&world, ownership.partition);
    let feed = PartitionFeed::new(stream, settled);
    let lacked = ModelLacked { world: world.clone(), ownership, seen: settled, looked: None };
    let outbox = PumpOutbox::new(opened_in, parts.wal_hold.clone());
    let budget = parts.budget.clone();
    let (lookups, _nobody) = mpsc::channel(1);
    let pump =
        RelayPump::new(feed, lacked, outbox, budget, (updates, lookups), (settled_ahead, parked));
    start(&stages, &world, "the pump", pump.run(parts.stop.clone()))?;
    let until = parts.shutdown.finished.clone();
    let observed = observe(world.clone(), parts.clock, parts.wal_hold);
    start(&stages, &world, "the observer", until_done(until, observed))?;
    start(&stages, &world, "the shutdown", parts.shutdown.follow(parts.stop, GRACE))
}

/// Everything up to here is settled: the partition says so, or the source.
fn settled(state: &ModelState, partition: PartitionNumber) -> Option<Position> {
    state.settled(partition).max(state.settled(PartitionNumber::SOURCE))
}

fn books(state: &ModelState, names: &[Arc<str>]) -> LedgerStart {
    let is_own = |entry: &BookEntry| names.contains(&entry.endpoint);
    LedgerStart {
        stored: Lsn::ZERO,
        books: state.balance().into_iter().filter(is_own).collect(),
        common: CommonCounts::default(),
        totals: PushTotals::default(),
        settled_is_awaited: true,
        ticks: Some(FlushTicks::new()),
    }
}

/// Prolongs the lease. What another owner has stops at once: the right to send is over already.
async fn keep_lease(
    world: SharedWorld,
    ownership: ModelOwnership,
    slot_ownership: SlotOwnership,
    stop: tokio_util::sync::CancellationToken,
) -> anyhow::Result<()> {
    loop {
        tokio::time::sleep(PROLONG_EVERY).await;
        let asked = since_boot();
        world.pass(0..20).await;
        let is_ours = {
            let mut world_now = world.lock();
            if world_now.is_state_away() {
                continue;
            }
            let now = world_now.now();
            world_now.state.prolong(ownership, (world.run, now))
        };
        world.pass(0..20).await;
        if is_ours {
            slot_ownership.leased(asked);
        } else {
            slot_ownership.lost();
            stop.cancel();
            return Ok(());
        }
    }
}

/// What `app::partition` does when messages are missing.
struct ModelLacked {
    world: SharedWorld,
    ownership: ModelOwnership,
    seen: Option<Position>,
    looked: Option<Instant>,
}

impl LackedMessages for ModelLacked {
    async fn lacking(&mut self, epoch: i64) -> Option<Position> {
        if self.looked.is_some_and(|looked| looked.elapsed() < LACKING_EVERY) {
            return None;
        }
        self.looked = Some(Instant::now());
        self.world.pass(0..20).await;
        let mut world = self.world.lock();
        if world.is_state_away() {
            return None;
        }
        let settled = settled(&world.state, self.ownership.partition);
        if settled > self.seen {
            self.seen = settled;
            return settled;
        }
        let partition = self.ownership.partition.raw();
        world.note(|_| format!("partition {partition} lacks messages of epoch {epoch}"));
        world.state.ask_rewind(self.ownership, epoch);
        None
    }
}
