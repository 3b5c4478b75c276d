//! The stages of the slot's holder, built, and joined by their channels.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::sync::watch;

use crate::api;
use crate::app::App;
use crate::app::PipelineWaits;
use crate::app::ledger_task::LedgerOutputs;
use crate::app::ledger_task::OPENED_MAX;
use crate::app::ledger_task::ledger;
use crate::app::ledger_task::run_ledger;
use crate::backfill::context::BackfillContext;
use crate::backfill::pump_orders::BackfillOrder;
use crate::backfill::pump_orders::ORDERS_MAX;
use crate::backfill::scheduler::BackfillService;
use crate::config::configuration::Settings;
use crate::endpoints::admin::CALLS_MAX;
use crate::endpoints::admin::EndpointAdmin;
use crate::endpoints::admin::ReloadedSettings;
use crate::endpoints::admin::shared::SharedEndpoints;
use crate::endpoints::from_table;
use crate::endpoints::from_table::FollowerRole;
use crate::endpoints::registry::EndpointRegistry;
use crate::endpoints::registry::RegistryHandle;
use crate::endpoints::registry::UpdateSenders;
use crate::endpoints::registry::partition_snapshots::PartitionSnapshots;
use crate::endpoints::registry::store::EndpointStore;
use crate::flow::lsn::Lsn;
use crate::flow::report_queue::REPORT_ROOM;
use crate::flow::report_queue::ReportSender;
use crate::flow::report_queue::report_queue;
use crate::ha::role::MemberRole;
use crate::ha::state::TakenState;
use crate::ha::tail_relay::TailRelay;
use crate::pipeline::crash_guard::CrashGuard;
use crate::pipeline::endpoint_update::KnownVersion;
use crate::pipeline::handles::SharedHandles;
use crate::pipeline::lanes;
use crate::pipeline::lanes::LaneContext;
use crate::pipeline::pump::relay_outbox::RelayOutbox;
use crate::pipeline::source_thread::AttachedSource;
use crate::pipeline::source_thread::PumpParts;
use crate::pipeline::threads::LaneThread;
use crate::preflight::gaps;
use crate::preflight::write_backs;
use crate::redelivery;
use crate::store;
use crate::store::ownership::StateOwnership;
use crate::store::session::backend;
use crate::task::TaskOwner;

impl App {
    /// Starts the stages, and joins them by their channels.
    pub(super) async fn join(
        &mut self,
        mut attached: AttachedSource,
        mut taken: TakenState,
        PipelineWaits { shutdown, budget, writable }: PipelineWaits,
    ) -> anyhow::Result<()> {
        let Self { settings, handles, tasks, .. } = self;
        let (opened_in, opened) = mpsc::channel(OPENED_MAX);
        let (reports_in, reports) = report_queue(REPORT_ROOM);
        let (ended_in, ledger_ended) = oneshot::channel();
        let known = KnownVersion::default();
        known.stamp(taken.endpoints_version);
        let told = (&reports_in, known.clone());
        let relay = Box::pin(relay_of(self.role, settings, &mut taken, told, tasks)).await?;
        let is_tail = relay.is_some();
        let rows_beyond = rows_beyond(is_tail, settings).await?;
        let (waits, share) = ((&budget, &shutdown), lanes::share_of(settings));
        let lanes =
            LaneContext::new(settings, handles, LaneThread::start()?, waits, reports_in, share);
        let (senders, edits, updates) = UpdateSenders::open();
        let (admin, mut starts) = EndpointAdmin::open(settings, handles, taken.stored.clone())?;
        let (admin, endpoint_store) =
            shared_if(is_tail.then(|| known.clone()), settings, &taken, admin);
        let network = &lanes.0.network;
        let of_table = (follower_role(is_tail, &taken, known), taken.rows.take());
        let follower = from_table::open(settings, handles, network, of_table, &mut starts).await?;
        // The registry and its lanes alone hold the way to the ledger.
        let known = (&taken.backlog, taken.states.as_slice());
        let registry =
            EndpointRegistry::start(lanes, senders, endpoint_store, settings, starts, known);
        // Apart: it would be a large part of what the whole start takes of memory.
        let (registry, orders) = Box::pin(registry).await?;
        let snapshot = orders.snapshot();
        let (already_settled, parked) = (taken.already_settled_of(&snapshot), taken.parked());
        tasks.spawn("the lanes", registry.run(tasks.stop_token()));
        let watched = follower.map(|follower| follower.watch(&orders, tasks));
        let calls_in = administer(admin, orders.clone(), self.reloads.1.clone(), tasks);
        drop(self.admin.set(calls_in)); // there is one
        drop(self.registry.set(orders)); // likewise
        let (settled_in, settled) = watch::channel(None);
        let published = LedgerOutputs::of(handles, self.confirmed.clone(), &taken, settled_in);
        // Without a pause between the two: a scrape has to find both.
        taken.show(&snapshot, handles);
        let (epoch, ownership) = (taken.ownership.epoch(), taken.ownership.clone());
        let past = (taken.past, taken.marks);
        let crash_guard = CrashGuard::new(&taken.writer, past, settled, handles.status.clone());
        if !is_tail {
            let registry = Arc::clone(&self.registry);
            redelivery::start(settings, handles, taken.ownership, registry, budget, tasks);
        }
        let written = write_backs::start(settings, handles, tasks);
        let kept = (taken.writer, taken.books, taken.common, taken.totals);
        let ledger = ledger(settings, handles, published, &snapshot, kept, written);
        let last_flush_deadline =
            shutdown.clone().last_flush_deadline(tasks.stop_token(), writable);
        let kept = ledger.run(opened, reports, edits);
        let run_ledger_task =
            run_ledger(kept, last_flush_deadline, ended_in, shutdown.finished.clone());
        tasks.spawn("the ledger", shutdown.clone().unless_failed(run_ledger_task));
        attached.begin(PumpParts {
            updates,
            opened: opened_in,
            ledger_ended,
            epoch,
            seen: taken.seen,
            already_settled,
            parked,
            remembered: taken.remembered,
            watched,
            crash_guard,
            backfills: start_backfills(settings, handles, ownership, &self.backfills, tasks),
            moving: taken.moving,
            relay,
            rows_beyond,
        });
        let source = settings.clone();
        let source = async move { gaps::dated(&source, attached.ended()).await };
        tasks.spawn("the source", shutdown.clone().unless_failed(source));
        tasks.spawn("the shutdown", shutdown.follow(tasks.stop_token(), settings.grace));
        handles.status.begun();
        tracing::info!(http = %self.address, version = env!("CARGO_PKG_VERSION"), "walhook is running");
        Ok(())
    }
}

/// What events of a tail go to; `None` where they go to lanes. Others read what is parked, and their books are
/// their own.
async fn relay_of(
    role: MemberRole,
    settings: &Settings,
    taken: &mut TakenState,
    (reports, known): (&ReportSender, KnownVersion),
    tasks: &mut TaskOwner,
) -> anyhow::Result<Option<RelayOutbox>> {
    let (MemberRole::Tail, Some(relay)) = (role, &settings.relay) else { return Ok(None) };
    let opened = TailRelay::open(settings, relay, taken, &tasks.stop_token()).await?;
    taken.backlog.clear();
    taken.books.clear();
    taken.letters.clear();
    Ok(Some(opened.start(relay, (reports, known), tasks)))
}

/// Where the rows of backfills may begin to stand: in a tail behind all that an earlier one has sent, which the owners of
/// partitions know by its places. The WAL is moved on, since a quiet source would keep them waiting.
async fn rows_beyond(is_tail: bool, settings: &Settings) -> anyhow::Result<Lsn> {
    if !is_tail {
        return Ok(Lsn::ZERO);
    }
    let source = store::connect(&settings.postgres.server).await?;
    let beyond = backend::wal_end(&source.client).await?;
    if let Err(error) = backend::move_wal_on(&source.client).await {
        let error = format!("{:#}", anyhow::Error::new(error));
        tracing::warn!(error, "rows of backfills wait until something is written to the source");
    }
    Ok(beyond)
}

/// For whom the table of endpoints is followed.
fn follower_role(is_tail: bool, taken: &TakenState, known: KnownVersion) -> FollowerRole {
    match is_tail {
        true => FollowerRole::Tail(taken.ownership.clone(), known),
        false => FollowerRole::Alone(taken.ownership.clone()),
    }
}

/// What a tail shares with the workers, which change endpoints, too.
fn shared_if(
    known: Option<KnownVersion>,
    settings: &Settings,
    taken: &TakenState,
    admin: EndpointAdmin,
) -> (EndpointAdmin, EndpointStore) {
    let Some(known) = known else {
        return (admin, EndpointStore::new(settings, taken.ownership.epoch()));
    };
    let (ownership, nothing_served) = (taken.ownership.clone(), PartitionSnapshots::default());
    let follows = mpsc::channel(1).1; // nobody asks
    let shared =
        SharedEndpoints::new(settings, known.clone(), Some(ownership), nothing_served, follows);
    (admin.sharing(Some(shared)), EndpointStore::of_member(settings, known))
}

/// Starts the administration of endpoints. Returns the way to it.
pub(super) fn administer(
    admin: EndpointAdmin,
    orders: RegistryHandle,
    reloads: ReloadedSettings,
    tasks: &mut TaskOwner,
) -> mpsc::Sender<api::requests::endpoint_calls::AdminRequest> {
    let (calls_in, calls) = mpsc::channel(CALLS_MAX);
    let run = admin.run(orders, calls, reloads, tasks.stop_token());
    tasks.spawn("the administration of endpoints", run);
    calls_in
}

/// Starts the backfills. Returns the pump's end of their way to it.
fn start_backfills(
    settings: &Settings,
    handles: &SharedHandles,
    ownership: StateOwnership,
    sender: &api::requests::backfill_calls::BackfillRequestSender,
    tasks: &mut TaskOwner,
) -> mpsc::Receiver<BackfillOrder> {
    let (orders_in, orders) = mpsc::channel(ORDERS_MAX);
    let (requests_in, requests) = mpsc::channel(CALLS_MAX);
    let (progress, clock) = (handles.backfills.clone(), handles.clock.clone());
    let current = handles.current.subscribe();
    let metrics = handles.metrics.clone();
    let context =
        BackfillContext::new(settings, (ownership, orders_in), progress, clock, metrics, current);
    let service = BackfillService::new(context);
    tasks.spawn("the backfills", service.run(requests, tasks.stop_token()));
    drop(sender.set(requests_in)); // there is one
    orders
}

/// Admits backfills, which the slot's holder carries out. Returns the way to it.
pub(super) fn admit_backfills(
    settings: &Settings,
    handles: &SharedHandles,
    tasks: &mut TaskOwner,
) -> mpsc::Sender<api::requests::backfill_calls::BackfillRequest> {
    let (requests_in, requests) = mpsc::channel(CALLS_MAX);
    let (progress, clock) = (handles.backfills.clone(), handles.clock.clone());
    let (current, metrics) = (handles.current.subscribe(), handles.metrics.clone());
    let nobody = mpsc::channel(1).0;
    let ownership = StateOwnership::of_nobody(settings.postgres.slot.as_str().into());
    let context =
        BackfillContext::new(settings, (ownership, nobody), progress, clock, metrics, current);
    let service = BackfillService::new(context);
    tasks.spawn("the orders of backfills", service.admit(requests, tasks.stop_token()));
    requests_in
}
