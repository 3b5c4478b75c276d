//! The owner of a partition: the stages behind its stream, built, joined and run until they are to stop.
//!
//! ```text
//! feed ─▶ relay pump ─ events ─▶ lanes ─▶ delivery
//!               │                  └── reports ──▶ ledger ─▶ state, under the partition's epoch
//!               └───── opened ───────────────────▶  │
//! ```

use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::app::all_endpoints::AllEndpoints;
use crate::app::ledger_task::LedgerOutputs;
use crate::app::ledger_task::OPENED_MAX;
use crate::app::ledger_task::ledger;
use crate::app::ledger_task::run_ledger;
use crate::config::configuration::Settings;
use crate::config::settings::Endpoint;
use crate::config::settings::ServerSettings;
use crate::endpoints::mirror::PartitionMirror;
use crate::endpoints::registry::EndpointRegistry;
use crate::endpoints::registry::InitialEndpoint;
use crate::endpoints::registry::RegistryHandle;
use crate::endpoints::registry::UpdateSenders;
use crate::endpoints::registry::partition_snapshots::PartitionSnapshots;
use crate::endpoints::registry::store::EndpointStore;
use crate::flow::budget::MemoryBudget;
use crate::flow::lsn::Position;
use crate::flow::partition::PartitionNumber;
use crate::flow::report_queue::REPORT_ROOM;
use crate::flow::report_queue::report_queue;
use crate::ha::state::TakenState;
use crate::ledger::joined_flushes::FlushTicks;
use crate::ledger::joined_flushes::JoinedFlushes;
use crate::pipeline::crash_guard::CrashGuard;
use crate::pipeline::crash_guard::SuspectLock;
use crate::pipeline::handles::SharedHandles;
use crate::pipeline::lanes::LaneContext;
use crate::pipeline::pump::outbox::PumpOutbox;
use crate::pipeline::pump::relay_pump::LackedMessages;
use crate::pipeline::pump::relay_pump::RelayPump;
use crate::pipeline::shutdown::ShutdownStages;
use crate::pipeline::threads::LaneThreads;
use crate::preflight::write_backs;
use crate::redelivery;
use crate::relay::broker::BrokerConnection;
use crate::relay::feed::PartitionFeed;
use crate::relay::nats_stream::NatsStream;
use crate::relay::streams::StreamName;
use crate::store;
use crate::store::ownership::StateOwnership;
use crate::store::partition_leases;
use crate::task::TaskOwner;

/// Between two looks at what is settled elsewhere, while messages are missing.
const LACKING_EVERY: Duration = Duration::from_secs(1);

/// What the partitions of a process have in common.
#[derive(Clone)]
pub(super) struct PartitionContext {
    pub(super) broker: BrokerConnection,
    pub(super) budget: MemoryBudget,
    /// What each lane may hold of the memory budget, in bytes.
    pub(super) share: usize,
    /// Where lanes run.
    pub(super) threads: LaneThreads,
    /// Where API, status and metrics find the endpoints.
    pub(super) snapshots: PartitionSnapshots,
    /// All endpoints that there are, of whichever partition.
    pub(super) all: AllEndpoints,
    /// How many partitions there are.
    pub(super) count: NonZeroU16,
    pub(super) suspect_lock: SuspectLock,
    /// Who commits what is due in several partitions, and when it is.
    pub(super) flushes: (JoinedFlushes, FlushTicks),
}

impl PartitionContext {
    /// The endpoints of a partition as they are now.
    pub(super) fn endpoints_of(&self, partition: PartitionNumber) -> Vec<InitialEndpoint> {
        let all = self.all.registry.snapshot();
        let ours = all.listed.iter().filter(|shown| {
            PartitionNumber::of_endpoint(&shown.endpoint.name, self.count) == partition
        });
        ours.map(|shown| InitialEndpoint {
            endpoint: Endpoint::clone(&shown.endpoint),
            origin: shown.origin,
            is_leaving: shown.is_leaving,
        })
        .collect()
    }
}

/// Builds the stages of a partition, whose endpoints alone `settings` and `starts` have, and starts them.
///
/// # Errors
/// An endpoint cannot be built.
pub(super) async fn start(
    settings: &Settings,
    handles: &SharedHandles,
    (common, starts): (PartitionContext, Vec<InitialEndpoint>),
    mut taken: TakenState,
    writable: watch::Receiver<bool>,
    tasks: &mut TaskOwner,
) -> anyhow::Result<()> {
    let shutdown = ShutdownStages::default();
    let PartitionContext {
        broker,
        budget,
        share,
        threads,
        snapshots,
        all,
        count,
        suspect_lock,
        flushes,
    } = common;
    let (opened_in, opened) = mpsc::channel(OPENED_MAX);
    let (reports_in, reports) = report_queue(REPORT_ROOM);
    let (ended_in, _ledger_ended) = oneshot::channel();
    let tombstones_in = reports_in.clone();
    let thread = threads.of(taken.ownership.partition());
    let waits = (&budget, &shutdown);
    let lanes = LaneContext::new(settings, handles, thread, waits, reports_in, share);
    let (senders, edits, updates) = UpdateSenders::open();
    let endpoint_store = EndpointStore::of_partition(settings, taken.ownership.clone());
    let known = (&taken.backlog, taken.states.as_slice());
    let registry = EndpointRegistry::start(lanes, senders, endpoint_store, settings, starts, known);
    let (registry, orders) = Box::pin(registry).await?;
    let snapshot = orders.snapshot();
    let (already_settled, parked) = (taken.already_settled_of(&snapshot), taken.parked());
    tasks.spawn("the lanes of a partition", registry.run(tasks.stop_token()));
    taken.show(&snapshot, handles);
    let partition = taken.ownership.partition();
    snapshots.begun(partition, orders.clone());
    let (lookups_in, lookups) = mpsc::channel(1);
    let AllEndpoints { registry: all, follow, known } = all;
    let follow = (follow, known);
    let mirror = PartitionMirror::new((all, orders.clone()), (partition, count), follow);
    tasks.spawn("the endpoints of a partition", mirror.run(lookups, tasks.stop_token()));
    let registry: Arc<OnceLock<RegistryHandle>> = Arc::default();
    drop(registry.set(orders)); // there is none yet
    let ownership = taken.ownership.clone();
    redelivery::start(settings, handles, ownership.clone(), registry, budget.clone(), tasks);
    let written = write_backs::start(settings, handles, tasks);
    let (settled_in, settled) = watch::channel(None);
    let past = (taken.past, taken.marks.take());
    let guard = CrashGuard::new(&taken.writer, past, settled, handles.status.clone());
    let (joined, ticks) = flushes;
    let kept = (taken.writer.joining(joined), taken.books, taken.common, taken.totals);
    let published = LedgerOutputs::of_partition(settled_in, ticks);
    let kept = ledger(settings, handles, published, &snapshot, kept, written);
    let kept = kept.run(opened, reports, edits);
    let last_flush_deadline = shutdown.clone().last_flush_deadline(tasks.stop_token(), writable);
    let run_ledger_task =
        run_ledger(kept, last_flush_deadline, ended_in, shutdown.finished.clone());
    tasks.spawn("the ledger of a partition", shutdown.clone().unless_failed(run_ledger_task));
    let name = StreamName::of(ownership.slot(), ownership.partition());
    let feed = PartitionFeed::new(NatsStream::new(&broker, name), taken.seen);
    let lacked =
        LackedRows { state: settings.state.clone(), ownership, seen: taken.seen, looked: None };
    let outbox =
        PumpOutbox::new(opened_in, handles.wal_hold.clone()).with_tombstones(tombstones_in);
    let updates = (updates, lookups_in);
    let pump = RelayPump::new(feed, lacked, outbox, budget, updates, (already_settled, parked));
    let pump = pump.cautious(guard.with_suspect_lock(&suspect_lock), suspect_lock);
    tasks.spawn("the pump of a partition", pump.run(tasks.stop_token()));
    tasks.spawn("the shutdown of a partition", shutdown.follow(tasks.stop_token(), settings.grace));
    Ok(())
}

/// Looks in the state for what the stream lacks, and asks the tail for it.
struct LackedRows {
    state: ServerSettings,
    ownership: StateOwnership,
    /// What is known to be settled.
    seen: Option<Position>,
    looked: Option<Instant>,
}

impl LackedMessages for LackedRows {
    async fn lacking(&mut self, epoch: i64) -> Option<Position> {
        if self.looked.is_some_and(|looked| looked.elapsed() < LACKING_EVERY) {
            return None;
        }
        self.looked = Some(Instant::now());
        let looked = async {
            let session = store::connect_within(&self.state, store::ANSWER_SOON).await?;
            let (client, slot) = (&session.client, self.ownership.slot());
            let source = partition_leases::source(client, slot).await?;
            let source = source.and_then(|(_, _, settled)| settled);
            // A new tail begins behind what this one has settled, which is behind the last event of its change.
            let rows = partition_leases::rows(client, slot).await?;
            let own = rows.into_iter().find(|row| row.partition == self.ownership.partition());
            let settled = source.max(own.and_then(|row| row.settled));
            if settled > self.seen {
                self.seen = settled;
                return Ok(settled);
            }
            partition_leases::ask_rewind(&session.client, &self.ownership, epoch).await?;
            tracing::warn!(
                partition = self.ownership.partition().raw(),
                epoch,
                "messages are missing: the tail is asked to send again what is not settled"
            );
            Ok::<_, store::state_error::StateError>(None)
        };
        looked.await.unwrap_or_else(|error| {
            let error = format!("{:#}", anyhow::Error::new(error));
            tracing::debug!(error, "cannot ask for messages that are missing");
            None
        })
    }
}
