//! Builds the stages from settings, joins their channels, starts and stops them.
//!
//! ```text
//!  source's thread          lanes' thread           main thread
//!  source ─▶ pump ─ events ─▶ lanes ─▶ delivery
//!    ▲         │                └─── reports ──────▶ ledger        api, observer
//!    │         └─────── opened ────────────────────▶  │
//!    └───────── confirmed LSN ────────────────────────┘
//!              pump, lanes, ledger ◀─────────────── registry: which endpoints there are
//! ```
//!
//! The source has a thread of its own: decoding and rendering would delay the requests in flight,
//! and sending would delay reading. So have the lanes: neither a flush nor whoever asks the API holds
//! up a delivery. All the rest shares the main thread, the source's feedback included.
//!
//! The HTTP surface comes first: it answers while this process stands by for the slot, too.
//!
//! A shutdown runs down the pipe like the data: the pump stops and drops the lanes' senders, the
//! lanes drain and drop the ledger's, the ledger confirms, the source tells PostgreSQL and ends.

mod callbacks;
mod deliver;
mod ledger_task;
mod otlp;
mod partition;
mod sampling;
mod scrape;
mod surface;
pub(crate) mod tail;
mod tail_relay;

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::OnceLock;

use anyhow::Context;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::api;
use crate::app::deliver::Membership;
use crate::app::ledger_task::OPENED_MAX;
use crate::app::ledger_task::REPORTS_MAX;
use crate::app::ledger_task::run_ledger;
use crate::app::partition::PartitionContext;
use crate::app::scrape::MetricsScrape;
use crate::app::surface::listen;
use crate::app::surface::surface;
use crate::app::tail_relay::TailRelay;
use crate::backfill::context::BackfillContext;
use crate::backfill::pump_orders::BackfillOrder;
use crate::backfill::pump_orders::ORDERS_MAX;
use crate::backfill::scheduler::BackfillService;
use crate::clock::host_now;
use crate::config::configuration::Settings;
use crate::endpoints::admin::CALLS_MAX;
use crate::endpoints::admin::EndpointAdmin;
use crate::endpoints::admin::ReloadedSettings;
use crate::endpoints::from_table;
use crate::endpoints::registry::EndpointRegistry;
use crate::endpoints::registry::RegistryHandle;
use crate::endpoints::registry::UpdateSenders;
use crate::endpoints::registry::partition_rosters::PartitionRosters;
use crate::endpoints::registry::snapshot::EndpointSnapshot;
use crate::endpoints::registry::store::EndpointStore;
use crate::flow::budget::MemoryBudget;
use crate::flow::lsn::Lsn;
use crate::flow::lsn::Position;
use crate::flow::settlement::LaneReport;
use crate::ha::role::MemberRole;
use crate::ha::standby;
use crate::ha::state;
use crate::ha::state::TakenState;
use crate::lane::in_flight_total::InFlightTotal;
use crate::ledger;
use crate::ledger::Ledger;
use crate::ledger::standby_copies::HeardStream;
use crate::ledger::standby_copies::StandbyCopies;
use crate::ledger::writer::StateWriter;
use crate::pipeline::crash_guard::CrashGuard;
use crate::pipeline::fence::SendFence;
use crate::pipeline::free_memory::given_back_during;
use crate::pipeline::handles::SharedHandles;
use crate::pipeline::lanes;
use crate::pipeline::lanes::LaneContext;
use crate::pipeline::pump::relay_outbox::RelayOutbox;
use crate::pipeline::shutdown::ShutdownStages;
use crate::pipeline::source_thread::AttachedSource;
use crate::pipeline::source_thread::PumpParts;
use crate::pipeline::source_thread::SourceThread;
use crate::pipeline::state_probe;
use crate::preflight::attached_partitions::AttachedPartitions;
use crate::preflight::event_schemas;
use crate::preflight::gaps;
use crate::preflight::prepare::prepare;
use crate::preflight::rights;
use crate::preflight::schema_watch::SchemaWatch;
use crate::preflight::server_observer::ServerObserver;
use crate::preflight::standby_block::StandbyBlock;
use crate::preflight::state_session;
use crate::preflight::write_backs;
use crate::redelivery;
use crate::store::SqlSession;
use crate::store::books::BookEntry;
use crate::store::books::CommonCounts;
use crate::store::ownership::StateOwnership;
use crate::store::push_totals;
use crate::store::push_totals::PushTotals;
use crate::task::TaskOwner;
use crate::telemetry::metrics::WalhookMetrics;

pub(crate) use crate::preflight::ownership::StartConsent;

/// A walhook whose HTTP surface is up. The rest begins with [`App::run`].
pub(crate) struct App {
    settings: Settings,
    handles: SharedHandles,
    /// What may be confirmed: from the ledger, to the source and the surface.
    confirmed: watch::Sender<Lsn>,
    /// There when the slot is ours.
    fleet: Arc<OnceLock<RegistryHandle>>,
    /// Of the partitions that this process owns.
    partitions: PartitionRosters,
    consent: StartConsent,
    role: MemberRole,
    skip_transaction: Option<Lsn>,
    admin: api::requests::endpoint_calls::AdminSender,
    backfills: api::requests::backfill_calls::BackfillSender,
    /// The configuration as it is read again.
    reloads: (watch::Sender<Option<Arc<Settings>>>, ReloadedSettings),
    tasks: TaskOwner,
    address: SocketAddr,
}

impl App {
    /// Opens the HTTP surface, which answers from here on, also while the slot is another
    /// walhook's.
    ///
    /// # Errors
    /// The address is in use, or TLS to a collector cannot be set up.
    pub(crate) async fn start(settings: Settings) -> anyhow::Result<Self> {
        let listener = listen(settings.http.listen).await?;
        let address = listener.local_addr()?;
        let mut tasks = TaskOwner::new();
        let mut handles = SharedHandles::new(&settings);
        otlp::start(&settings, &mut handles, &mut tasks)?;
        handles.metrics.reloaded(true, host_now());
        let (confirmed, confirmed_out) = watch::channel(Lsn::ZERO);
        let (fleet, admin) =
            (Arc::default(), api::requests::endpoint_calls::AdminSender::default());
        let partitions = PartitionRosters::default();
        let shown = (Arc::clone(&fleet), partitions.clone());
        let scrape = MetricsScrape::new(shown.0, shown.1, &handles, confirmed_out);
        let scrape = Arc::new(scrape);
        let shown = (Arc::clone(&fleet), partitions.clone());
        let backfills = api::requests::backfill_calls::BackfillSender::default();
        let senders = (Arc::clone(&admin), Arc::clone(&backfills));
        let close = tasks.close_token();
        let surface = surface(&settings, &handles, Arc::clone(&scrape), shown, senders, close);
        let names = Arc::clone(&surface.endpoints);
        let names: Arc<sampling::EndpointNames> =
            Arc::new(move || names().into_iter().map(|view| view.name).collect());
        let sampling = sampling::run(handles.clone(), scrape, names, tasks.stop_token());
        tasks.spawn("the samples", async move {
            sampling.await;
            Ok(())
        });
        let serve = api::serve(listener, surface, tasks.close_token());
        tasks.spawn_last("the HTTP surface", async move {
            serve.await;
            Ok(())
        });
        tracing::info!(http = %address, "the HTTP surface is up");
        let (reloads, consent) = (watch::channel(None), StartConsent::default());
        let skip_transaction = None;
        Ok(Self {
            settings,
            handles,
            confirmed,
            fleet,
            partitions,
            consent,
            role: MemberRole::Alone,
            skip_transaction,
            admin,
            backfills,
            reloads,
            tasks,
            address,
        })
    }

    /// Goes on where the operator has agreed to it, instead of ending with an error.
    #[must_use]
    pub(crate) fn with_consent(self, consent: StartConsent) -> Self {
        Self { consent, ..self }
    }

    /// Does this part of the work.
    #[must_use]
    pub(crate) fn with_role(self, role: MemberRole) -> Self {
        Self { role, ..self }
    }

    /// Goes on without the transaction that commits there, if PostgreSQL cannot send it.
    #[must_use]
    pub(crate) fn skipping(self, transaction: Option<Lsn>) -> Self {
        Self { skip_transaction: transaction, ..self }
    }

    /// Where the HTTP surface listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes the configuration when it was read again. What can change without a restart does once
    /// the slot is ours, all of it or nothing; the log says what became of it.
    pub(crate) fn reloads(&self) -> watch::Sender<Option<Arc<Settings>>> {
        self.reloads.0.clone()
    }

    /// What `/metrics` shows.
    pub(crate) fn metrics(&self) -> WalhookMetrics {
        self.handles.metrics.clone()
    }

    /// Cancel it to shut down.
    pub(crate) fn stop_token(&self) -> CancellationToken {
        self.tasks.stop_token()
    }

    /// Makes what is missing in PostgreSQL, waits for the slot, starts the stages, and runs until
    /// it is stopped or something fails.
    ///
    /// # Errors
    /// What does not let it start, what failed, or that the grace period was not enough. A
    /// [`crate::replication::error::SourceError`] is in the chain if PostgreSQL is the reason.
    pub(crate) async fn run(mut self) -> anyhow::Result<()> {
        let stop = self.tasks.stop_token();
        tokio::select! {
            biased;
            () = stop.cancelled() => {} // nothing was begun
            begun = self.begin_role() => begun?,
        }
        let status = self.handles.status.clone();
        let ending = |error: Option<&anyhow::Error>| match error {
            Some(error) => {
                let error = format!("{error:#}");
                tracing::error!(error, "walhook cannot go on, and stops");
                status.ending(error);
            }
            None => status.ending(String::from("shutting down")),
        };
        given_back_during(self.tasks.run(self.settings.grace, ending)).await
    }

    /// Waits for the slot.
    async fn attach(
        &self,
        shutdown: &ShutdownStages,
        budget: &MemoryBudget,
        writable: &watch::Receiver<bool>,
    ) -> anyhow::Result<AttachedSource> {
        let reader = SourceThread {
            budget: budget.clone(),
            settings: self.settings.clone(),
            handles: self.handles.clone(),
            confirmed: self.confirmed.subscribe(),
            writable: writable.clone(),
            skip_transaction: self.skip_transaction,
            stop: self.tasks.stop_token(),
            shutdown: shutdown.clone(),
            main: Handle::current(),
        };
        standby::attach(&reader, self.consent).await
    }

    async fn begin_role(&mut self) -> anyhow::Result<()> {
        match self.role {
            MemberRole::Alone | MemberRole::Tail => self.begin().await,
            MemberRole::Deliver => Box::pin(self.begin_delivering()).await,
        }
    }

    /// Ends when partitions are looked for.
    async fn begin_delivering(&mut self) -> anyhow::Result<()> {
        let relay = tail_relay::settings_of(&self.settings)?.clone();
        let Self { settings, handles, tasks, .. } = self;
        let state = state_session::open(settings).await?;
        handles.stats.resume(&push_totals::load(&state.client, &settings.postgres.slot).await?);
        drop(state);
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
        let rosters = self.partitions.clone();
        let common = PartitionContext { broker, budget, share: lane_share(settings), rosters };
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

    /// How many partitions others deliver for.
    fn shared(&self) -> anyhow::Result<Option<NonZeroU16>> {
        match self.role {
            MemberRole::Tail => Ok(Some(tail_relay::settings_of(&self.settings)?.partitions)),
            MemberRole::Alone | MemberRole::Deliver => Ok(None),
        }
    }

    /// Ends when all stages run. May be dropped at any time: stages that have started then end.
    async fn begin(&mut self) -> anyhow::Result<()> {
        prepare(&self.settings, self.consent).await?;
        if let Some(inbound) = &self.settings.inbound {
            // Not before there is a slot: what was kept without one would never be pushed on.
            callbacks::start(&self.settings, inbound, &self.handles, &mut self.tasks).await?;
        }
        let (writable_in, writable) = watch::channel(true);
        let shutdown = ShutdownStages::default();
        let budget = MemoryBudget::new(self.settings.memory.queued_bytes);
        let attached = self.attach(&shutdown, &budget, &writable).await?;
        let consent = (self.consent, self.shared()?);
        let Self { settings, handles, tasks, .. } = self;
        let watch = state::watch(handles.let_go.clone(), writable.clone());
        tasks.spawn("the watch over the state", watch);
        let writes = (writable_in, handles.state.clone());
        let taken = state::take(settings, &attached.identity, consent, writes).await?;
        let probe =
            state_probe::watch(settings.state.clone(), handles.state.clone(), tasks.stop_token());
        tasks.spawn("the probe of the state", probe);
        rights::start(settings, handles, tasks);
        start_observer(settings, handles, taken.publication, tasks).await?;
        let fence = SendFence::new(settings, handles, shutdown.clone());
        tasks.spawn("the fence", fence.keep(tasks.stop_token()));
        let waits = PipelineWaits { shutdown, budget, writable };
        Box::pin(self.join(attached, taken, waits)).await
    }

    /// Starts the stages, and joins them by their channels.
    async fn join(
        &mut self,
        mut attached: AttachedSource,
        mut taken: TakenState,
        PipelineWaits { shutdown, budget, writable }: PipelineWaits,
    ) -> anyhow::Result<()> {
        let Self { settings, handles, tasks, .. } = self;
        let (opened_in, opened) = mpsc::channel(OPENED_MAX);
        let (reports_in, reports) = mpsc::channel(REPORTS_MAX);
        let (ended_in, ledger_ended) = oneshot::channel();
        let relay = Box::pin(relay_of(self.role, settings, &mut taken, &reports_in, tasks)).await?;
        let is_tail = relay.is_some();
        let waits = (&budget, &shutdown);
        let lanes = LaneContext::new(settings, handles, waits, reports_in, lane_share(settings));
        let (ways, edits, turns) = UpdateSenders::open();
        let (admin, mut starts) = EndpointAdmin::open(settings, handles, taken.stored.clone())?;
        let network = &lanes.0.network;
        let known = (taken.holding.clone(), taken.rows.take());
        let keeper = from_table::open(settings, handles, network, known, &mut starts).await?;
        let keep = EndpointStore::new(settings, taken.holding.epoch());
        // The registry and its lanes alone hold the way to the ledger.
        let known = (&taken.backlog, taken.states.as_slice());
        let fleet = EndpointRegistry::start(lanes, ways, keep, settings, starts, known);
        // Apart: it would be a large part of what the whole start takes of memory.
        let (fleet, orders) = Box::pin(fleet).await?;
        let roster = orders.roster();
        let (ahead, parked) = (taken.ahead_of(&roster), taken.parked());
        tasks.spawn("the lanes", fleet.run(tasks.stop_token()));
        let watched = keeper.map(|keeper| keeper.watch(&orders, tasks));
        if !is_tail {
            let calls_in = administer(admin, orders.clone(), self.reloads.1.clone(), tasks);
            drop(self.admin.set(calls_in)); // there is one
        }
        drop(self.fleet.set(orders)); // likewise
        let (settled_in, settled) = watch::channel(None);
        let published = LedgerOutputs::of(handles, self.confirmed.clone(), &taken, settled_in);
        // Without a pause between the two: a scrape has to find both.
        taken.show(&roster, handles);
        let (epoch, holding) = (taken.holding.epoch(), taken.holding.clone());
        let caution = CrashGuard::new(
            &taken.writer,
            (taken.past, taken.marks),
            settled,
            handles.status.clone(),
        );
        if !is_tail {
            let fleet = Arc::clone(&self.fleet);
            redelivery::start(settings, handles, taken.holding, fleet, budget, tasks);
        }
        let written = write_backs::start(settings, handles, tasks);
        let kept = (taken.writer, taken.books, taken.common, taken.totals);
        let ledger = ledger(settings, handles, published, &roster, kept, written);
        let patience = shutdown.clone().patience(tasks.stop_token(), writable);
        let kept = ledger.run(opened, reports, edits);
        let keep_books = run_ledger(kept, patience, ended_in, shutdown.finished.clone());
        tasks.spawn("the ledger", shutdown.clone().unless_failed(keep_books));
        attached.begin(PumpParts {
            turns,
            opened: opened_in,
            ledger_ended,
            epoch,
            seen: taken.seen,
            ahead,
            parked,
            remembered: taken.remembered,
            watched,
            caution,
            backfills: match is_tail {
                true => mpsc::channel(1).1, // nobody orders any
                false => start_backfills(settings, handles, holding, &self.backfills, tasks),
            },
            moving: taken.moving,
            relay,
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

/// What makes walhook wait, and what ends its waits.
struct PipelineWaits {
    shutdown: ShutdownStages,
    budget: MemoryBudget,
    writable: watch::Receiver<bool>,
}

/// Asks the server once, so that ages are right from the first event on.
async fn observer(
    settings: &Settings,
    handles: &SharedHandles,
    publication: Option<u32>,
) -> anyhow::Result<(ServerObserver, Option<SqlSession>)> {
    let observer = ServerObserver {
        settings: settings.postgres.clone(),
        state: settings.state.clone(),
        clock: handles.clock.clone(),
        status: handles.status.clone(),
        wal_hold: handles.wal_hold.clone(),
        metrics: handles.metrics.replication(),
        block: StandbyBlock::default(),
        partitions: AttachedPartitions::default(),
        publication,
        tables: settings.events.iter().map(|rule| rule.table.clone()).collect(),
    };
    let mut session = None;
    observer.observe(&mut session).await.context("cannot ask PostgreSQL for the time")?;
    Ok((observer, session))
}

/// Asks the server once, and then every so often.
async fn start_observer(
    settings: &Settings,
    handles: &SharedHandles,
    publication: Option<u32>,
    tasks: &mut TaskOwner,
) -> anyhow::Result<()> {
    let (observer, session) = observer(settings, handles, publication).await?;
    let stop = tasks.stop_token();
    tasks.spawn("the observer", async move { Ok(observer.run(session, stop).await?) });
    let schemas = event_schemas::watch(handles.current.subscribe(), tasks.stop_token());
    tasks.spawn("the watch over the events' schemas", async move {
        schemas.await;
        Ok(())
    });
    let watch = SchemaWatch::new(handles.status.clone(), handles.metrics.replication());
    let watch = watch.run(handles.current.subscribe(), tasks.stop_token());
    tasks.spawn("the watch over tables and publication", async move {
        watch.await;
        Ok(())
    });
    Ok(())
}

/// What each lane of this process may hold of the memory budget, and what they count together.
fn lane_share(settings: &Settings) -> (usize, InFlightTotal) {
    let bytes = lanes::share_bytes(settings.memory.queued_bytes, settings.endpoints.len());
    (bytes, InFlightTotal::default())
}

/// What events of a tail go to; `None` where they go to lanes. Others read what is parked, and their books are
/// their own.
async fn relay_of(
    role: MemberRole,
    settings: &Settings,
    taken: &mut TakenState,
    reports: &mpsc::Sender<LaneReport>,
    tasks: &mut TaskOwner,
) -> anyhow::Result<Option<RelayOutbox>> {
    let (MemberRole::Tail, Some(relay)) = (role, &settings.relay) else { return Ok(None) };
    let opened = TailRelay::open(settings, relay, taken, &tasks.stop_token()).await?;
    taken.backlog.clear();
    taken.books.clear();
    taken.letters.clear();
    Ok(Some(opened.start(relay, reports, tasks)))
}

/// Starts the administration of endpoints. Returns the way to it.
fn administer(
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
    holding: StateOwnership,
    sender: &api::requests::backfill_calls::BackfillSender,
    tasks: &mut TaskOwner,
) -> mpsc::Receiver<BackfillOrder> {
    let (orders_in, orders) = mpsc::channel(ORDERS_MAX);
    let (requests_in, requests) = mpsc::channel(CALLS_MAX);
    let (progress, clock) = (handles.backfills.clone(), handles.clock.clone());
    let current = handles.current.subscribe();
    let metrics = handles.metrics.clone();
    let context =
        BackfillContext::new(settings, (holding, orders_in), progress, clock, metrics, current);
    let service = BackfillService::new(context);
    tasks.spawn("the backfills", service.run(requests, tasks.stop_token()));
    drop(sender.set(requests_in)); // there is one
    orders
}

/// What the ledger tells the source and the pump.
struct LedgerOutputs {
    confirmed: watch::Sender<Lsn>,
    /// What the state says was confirmed.
    stored: Lsn,
    copies: Option<StandbyCopies>,
    settled: watch::Sender<Option<Position>>,
}

impl LedgerOutputs {
    fn of(
        handles: &SharedHandles,
        confirmed: watch::Sender<Lsn>,
        taken: &TakenState,
        settled: watch::Sender<Option<Position>>,
    ) -> Self {
        let copies = taken.wal_end.map(|end| standby_copies(handles, end, taken.confirmed));
        Self { confirmed, stored: taken.confirmed, copies, settled }
    }
}

/// What standbys have of the state, which was read when the WAL ended at `end`.
fn standby_copies(handles: &SharedHandles, end: Lsn, stored: Lsn) -> StandbyCopies {
    let status = handles.status.clone();
    let listener = move || {
        let (connection, received) = status.heard();
        HeardStream { connection, received }
    };
    StandbyCopies::new(Arc::new(listener), end, stored)
}

fn ledger(
    settings: &Settings,
    handles: &SharedHandles,
    published: LedgerOutputs,
    roster: &EndpointSnapshot,
    (writer, books, common, totals): (StateWriter, Vec<BookEntry>, CommonCounts, PushTotals),
    write_backs: Option<watch::Sender<()>>,
) -> Ledger {
    let terms = ledger::LedgerParts {
        push_log: settings.push_log,
        outcomes: settings.log.outcomes,
        stats: Arc::clone(&handles.stats),
        clock: handles.clock.clone(),
        confirmed: published.confirmed,
        stored: published.stored,
        copies: published.copies,
        settled: published.settled,
        writer,
        event_types: settings.events.iter().map(|rule| Arc::clone(&rule.event_type)).collect(),
        write_backs,
        shown: roster.listed.iter().map(|shown| Arc::clone(&shown.endpoint.name)).collect(),
        books,
        common,
        totals,
        replayed: handles.replayed.clone(),
        backfills: handles.backfills.clone(),
        feed: handles.feed.clone(),
        settled_is_awaited: false,
    };
    Ledger::new(&handles.metrics, terms)
}
