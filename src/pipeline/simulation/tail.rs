//! One run of the tail: brings the partitions in line, takes their streams over, and joins the stages as `app` does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::flow::lsn::Position;
use crate::flow::partition::PartitionNumber;
use crate::flow::report_queue::ReportSender;
use crate::flow::report_queue::report_queue;
use crate::pipeline::already_settled::AlreadySettled;
use crate::pipeline::endpoint_update::KnownVersion;
use crate::pipeline::pump::relay_outbox::RelayOutbox;
use crate::pipeline::simulation::interleave::InterleavedStage;
use crate::pipeline::simulation::model_broker::ModelStream;
use crate::pipeline::simulation::model_state::ModelOwnership;
use crate::pipeline::simulation::process::LedgerStart;
use crate::pipeline::simulation::process::RunParts;
use crate::pipeline::simulation::process::SCARCE_REPORT_ROOM;
use crate::pipeline::simulation::process::StagesOfRun;
use crate::pipeline::simulation::process::join_source;
use crate::pipeline::simulation::process::start;
use crate::pipeline::simulation::process::until_done;
use crate::pipeline::simulation::registry::ModelRegistry;
use crate::pipeline::simulation::scenario::RolesScenario;
use crate::pipeline::simulation::world::SharedWorld;
use crate::relay::error::RelayInterruption;
use crate::relay::outgoing::Outgoing;
use crate::relay::outgoing::UnsettledCount;
use crate::relay::publisher::PartitionPublisher;

/// As `app::tail_relay` has them.
const BATCHES_MAX: usize = 16;
const SETTLED_EVERY: Duration = Duration::from_millis(100);
const RETRY: Duration = Duration::from_secs(1);

/// Between two looks whether the last lease is over.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A partition as the start finds it.
struct FoundPartition {
    number: PartitionNumber,
    settled: Option<Position>,
    is_at_source: bool,
    is_parked: bool,
}

/// Takes the state up, takes the streams over, and starts the stages.
pub(super) async fn join(
    parts: RunParts,
    started: StagesOfRun,
    roles: Arc<RolesScenario>,
) -> anyhow::Result<()> {
    let world = parts.world.clone();
    world.pass(0..20).await;
    let ownership = {
        let mut world = world.lock();
        let ownership = world.state.take(PartitionNumber::SOURCE);
        world.state.define(ownership, roles.partitions);
        ownership
    };
    world.point("the state was taken up").await;
    let names: Vec<Arc<str>> =
        parts.settings.endpoints.iter().map(|endpoint| Arc::clone(&endpoint.name)).collect();
    let partitions = bring_in_line(&world, ownership, &names, &roles).await;
    world.point("the partitions are in line").await;
    let (seen, books) = {
        let world = world.lock();
        let state = &world.state;
        let start = LedgerStart {
            stored: state.confirmed,
            // Their books are those of their owners.
            books: Vec::new(),
            common: state.common.clone(),
            totals: state.totals,
            settled_is_awaited: false,
            ticks: None,
        };
        (state.settled(PartitionNumber::SOURCE), start)
    };
    let (reports_in, reports) = report_queue(SCARCE_REPORT_ROOM);
    let relay = open(&parts, &started, (ownership, seen), partitions, &reports_in, &roles).await?;
    let resumed = |registry: &ModelRegistry| {
        let world = registry.terms.world.lock();
        let state = &world.state;
        let endpoint_watermarks = names.iter().filter_map(|name| {
            let own = state.settled(state.partition_of(name)).map(Position::next);
            let front = own.max(state.endpoint_watermarks.get(name).copied())?;
            Some((registry.index(name)?, front))
        });
        let own = state.settled_ahead.iter().filter(|(_, by)| **by == PartitionNumber::SOURCE);
        let own = own.filter_map(|((name, id), _)| Some((registry.index(name)?, *id)));
        (seen, AlreadySettled::new(endpoint_watermarks, own), None)
    };
    let channel = (reports_in, reports);
    join_source(parts, started, (ownership, books), channel, (Some(relay), resumed)).await
}

/// What `ha::shared_source` does: partitions that nobody has taken for too long are called back.
async fn bring_in_line(
    world: &SharedWorld,
    source: ModelOwnership,
    names: &[Arc<str>],
    roles: &RolesScenario,
) -> Vec<FoundPartition> {
    let unowned: Vec<PartitionNumber> = {
        let mut world = world.lock();
        let now = world.now();
        let rows = world.state.shared();
        let unowned = rows.filter(|(_, row)| row.is_unowned(roles.patience, now));
        unowned.map(|(number, _)| number).collect()
    };
    if !unowned.is_empty() {
        world.lock().state.call_back(&unowned);
        loop {
            world.pass(0..20).await;
            let is_leased = {
                let mut world = world.lock();
                let now = world.now();
                let mut rows = world.state.shared();
                rows.any(|(number, row)| unowned.contains(&number) && row.is_leased(now))
            };
            if !is_leased {
                break;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        world.point("nobody has a lease").await;
        world.lock().state.called_back(source, &unowned, names);
    }
    let mut world = world.lock();
    world.note(|_| format!("parked: {unowned:?}"));
    let rows = world.state.shared().map(|(number, row)| FoundPartition {
        number,
        settled: row.settled,
        is_at_source: row.is_at_source,
        is_parked: unowned.contains(&number),
    });
    rows.collect()
}

/// What `app::tail_relay` does: takes the streams over, gives the partitions out, and starts the publishers.
async fn open(
    parts: &RunParts,
    started: &StagesOfRun,
    (ownership, seen): (ModelOwnership, Option<Position>),
    partitions: Vec<FoundPartition>,
    reports: &ReportSender,
    roles: &RolesScenario,
) -> anyhow::Result<RelayOutbox> {
    let world = &parts.world;
    let mut outboxes = Vec::new();
    let mut told = BTreeMap::new();
    let unsettled = UnsettledCount::default();
    for FoundPartition { number, settled, is_at_source, is_parked } in partitions {
        if is_parked {
            outboxes.push((number, None));
            continue;
        }
        world.lock().broker.ensure(number);
        let (epoch, settled) = (ownership.epoch, settled.max(seen));
        let publisher = loop {
            let stream = ModelStream::new(world, number);
            match PartitionPublisher::open(stream, epoch, settled, is_at_source).await {
                Err(RelayInterruption::Away(_)) => tokio::time::sleep(RETRY).await,
                opened => break opened?,
            }
        };
        world.point("a stream was taken over").await;
        if is_at_source {
            let mut world = world.lock();
            let now = world.now();
            world.state.give_out(ownership, number, now);
        }
        let (outbox, outgoing) = mpsc::channel::<Vec<Outgoing>>(BATCHES_MAX);
        let (settled_in, settled) = watch::channel(None);
        outboxes.push((number, Some(outbox)));
        told.insert(number, settled_in);
        let publisher = publisher.counting(unsettled.clone());
        let run = publisher.run(outgoing, settled, reports.clone());
        let run = async move { Ok(run.await?) };
        start(&started.stages, world, "a publisher", run)?;
    }
    let follow = SettledFollower {
        world: world.clone(),
        epoch: ownership.epoch,
        patience: roles.patience,
        is_parking: outboxes.iter().any(|(_, outbox)| outbox.is_none()),
        told,
    };
    let until = parts.shutdown.finished.clone();
    follow.start(&started.stages, until, parts.stop.clone())?;
    let counts = (KnownVersion::default(), unsettled);
    Ok(RelayOutbox::new(roles.partitions, outboxes.into_iter(), reports.clone(), counts))
}

/// Looks what the owners of the partitions have settled, and whether they lack anything.
struct SettledFollower {
    world: SharedWorld,
    epoch: i64,
    patience: Duration,
    is_parking: bool,
    told: BTreeMap<PartitionNumber, watch::Sender<Option<Position>>>,
}

impl SettledFollower {
    fn start(
        self,
        stages: &mpsc::Sender<InterleavedStage>,
        until: CancellationToken,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let world = self.world.clone();
        let run = async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => Ok(()),
                ended = self.run() => ended,
            }
        };
        start(stages, &world, "what the partitions have settled", until_done(until, run))
    }

    async fn run(self) -> anyhow::Result<()> {
        loop {
            tokio::time::sleep(SETTLED_EVERY).await;
            self.world.pass(0..20).await;
            let mut world = self.world.lock();
            if world.is_state_away() {
                continue;
            }
            let now = world.now();
            let is_wanted = self.is_parking && world.has_workers();
            for (number, row) in world.state.shared() {
                if row.rewind >= self.epoch {
                    let member = String::from("its owner");
                    let partition = number.raw();
                    return Err(RelayInterruption::Rewind { partition, member }.into());
                }
                if row.is_unowned(self.patience, now) {
                    return Err(RelayInterruption::Unowned { partition: number.raw() }.into());
                }
                let Some(told) = self.told.get(&number) else { continue };
                told.send_if_modified(|known| {
                    let is_news = *known < row.settled;
                    *known = row.settled.max(*known);
                    is_news
                });
            }
            if is_wanted {
                return Err(RelayInterruption::Wanted.into());
            }
        }
    }
}
