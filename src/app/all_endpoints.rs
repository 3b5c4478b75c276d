//! What a worker knows of all endpoints, of whichever partition: its administration answers the API and changes
//! them, and those of its partitions follow.
//!
//! ```text
//! api ─ calls ─▶ administration ─▶ registry of all ─ mirror ─▶ registries of the partitions
//!                     ▲ └─▶ walhook.endpoints, then all other members
//!                     └── what other members have changed
//! ```
//!
//! The registry of all has no stages: nothing is read or delivered by it.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::api::requests::endpoint_calls::AdminRequest;
use crate::app::stages;
use crate::config::configuration::Settings;
use crate::endpoints::admin::CALLS_MAX;
use crate::endpoints::admin::EndpointAdmin;
use crate::endpoints::admin::ReloadedSettings;
use crate::endpoints::admin::shared::SharedEndpoints;
use crate::endpoints::from_table;
use crate::endpoints::from_table::FollowerRole;
use crate::endpoints::mirror::FollowSender;
use crate::endpoints::registry::EndpointRegistry;
use crate::endpoints::registry::RegistryHandle;
use crate::endpoints::registry::UpdateSenders;
use crate::endpoints::registry::partition_snapshots::PartitionSnapshots;
use crate::endpoints::registry::store::EndpointStore;
use crate::flow::budget::MemoryBudget;
use crate::flow::report_queue::ReportReceiver;
use crate::flow::report_queue::report_queue;
use crate::ledger::EndpointsEdit;
use crate::pipeline::endpoint_update::EndpointUpdate;
use crate::pipeline::endpoint_update::KnownVersion;
use crate::pipeline::handles::SharedHandles;
use crate::pipeline::lanes;
use crate::pipeline::lanes::LaneContext;
use crate::pipeline::shutdown::ShutdownStages;
use crate::pipeline::threads::LaneThread;
use crate::replication::slot_ownership::SlotOwnership;
use crate::store::SqlSession;
use crate::store::endpoint_states;
use crate::store::endpoints;
use crate::task::TaskOwner;

/// For reports that nobody needs and that wait to be dropped.
const DROPPED_ROOM: u16 = 16;

/// All endpoints, and the ways to them.
#[derive(Clone)]
pub(super) struct AllEndpoints {
    pub(super) registry: RegistryHandle,
    /// Has it looked what other members have changed.
    pub(super) follow: FollowSender,
    pub(super) known: KnownVersion,
}

/// Starts what knows all endpoints. Returns the way to its administration as well.
///
/// # Errors
/// The state cannot be read, or an endpoint cannot be built.
pub(super) async fn start(
    settings: &Settings,
    handles: &SharedHandles,
    session: &SqlSession,
    (partitions, reloads): (PartitionSnapshots, ReloadedSettings),
    thread: Arc<LaneThread>,
    tasks: &mut TaskOwner,
) -> anyhow::Result<(AllEndpoints, mpsc::Sender<AdminRequest>)> {
    let slot = &settings.postgres.slot;
    let stored = endpoints::load(&session.client, slot).await?;
    let states = endpoint_states::load(&session.client, slot).await?;
    let (admin, mut starts) = EndpointAdmin::open(settings, handles, stored)?;
    let known = KnownVersion::default();
    let (follow, follows) = mpsc::channel(CALLS_MAX);
    let shared = SharedEndpoints::new(settings, known.clone(), None, partitions.clone(), follows);
    let budget = MemoryBudget::new(settings.memory.queued_bytes);
    let (reports_in, reports) = report_queue(DROPPED_ROOM);
    let (waits, share) = ((&budget, &ShutdownStages::default()), lanes::share_of(settings));
    // Whose partition an endpoint belongs to does not matter to a test event.
    let tries = SharedHandles { slot_ownership: SlotOwnership::of_trials(), ..handles.clone() };
    let lanes = LaneContext::new(settings, &tries, thread, waits, reports_in, share);
    let network = &lanes.0.network;
    let role = (FollowerRole::Worker, None);
    let table = from_table::open(settings, handles, network, role, &mut starts).await?;
    let shared = shared.following(table);
    let (senders, edits, updates) = UpdateSenders::open();
    tasks.spawn("what nobody needs of all endpoints", drop_all(edits, updates, reports));
    let endpoint_store = EndpointStore::of_member(settings, known.clone());
    let before = (&HashMap::new(), states.as_slice());
    let registry =
        EndpointRegistry::start(lanes, senders, endpoint_store, settings, starts, before);
    let (registry, orders) = Box::pin(registry).await?;
    tasks.spawn("the registry of all endpoints", registry.run(tasks.stop_token()));
    partitions.list(orders.clone());
    let calls = stages::administer(admin.sharing(Some(shared)), orders.clone(), reloads, tasks);
    Ok((AllEndpoints { registry: orders, follow, known }, calls))
}

/// Nothing is delivered, so nobody needs what ledger and pump would hear. Ends with the registry.
async fn drop_all(
    mut edits: mpsc::Receiver<EndpointsEdit>,
    mut updates: mpsc::Receiver<EndpointUpdate>,
    mut reports: ReportReceiver,
) -> anyhow::Result<()> {
    loop {
        tokio::select! {
            Some(EndpointsEdit { known, .. }) = edits.recv() => drop(known.send(())),
            Some(EndpointUpdate { taken, .. }) = updates.recv() => drop(taken.send(())),
            Some(_) = reports.recv() => {}
            else => return Ok(()),
        }
    }
}
