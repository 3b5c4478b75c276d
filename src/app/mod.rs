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
//! and sending would delay reading. So have the lanes: neither a flush nor a client of the API holds
//! up a delivery. All the rest shares the main thread, the source's feedback included.
//!
//! The HTTP surface comes first: it answers while this process stands by for the slot, too.
//!
//! A shutdown runs down the pipe like the data: the pump stops and drops the lanes' senders, the
//! lanes drain and drop the ledger's, the ledger confirms, the source tells PostgreSQL and ends.
//!
//! | file | holds |
//! | --- | --- |
//! | `all_endpoints` | What a worker knows of all endpoints |
//! | `callbacks` | The callbacks that come in |
//! | `deliver` | Who delivers for which partitions: `run --role deliver` |
//! | `ledger_task` | The ledger as a task |
//! | `observation` | What looks at PostgreSQL while walhook runs |
//! | `otlp` | The export of metrics and traces |
//! | `partition` | The stages of a partition's owner |
//! | `sampling` | Samples of the metrics for the page |
//! | `scrape` | What `/metrics` shows beside what is counted |
//! | `stages` | The stages of the slot's holder |
//! | `surface` | The HTTP surface |
//! | `tail` | `walhook tail` |

mod all_endpoints;
mod callbacks;
mod deliver;
mod ledger_task;
mod observation;
mod otlp;
mod partition;
mod sampling;
mod scrape;
mod stages;
mod surface;
pub(crate) mod tail;

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::OnceLock;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::api;
use crate::app::observation::start_observer;
use crate::app::scrape::MetricsScrape;
use crate::app::surface::listen;
use crate::app::surface::surface;
use crate::clock::host_now;
use crate::config::configuration::Settings;
use crate::endpoints::admin::ReloadedSettings;
use crate::endpoints::registry::RegistryHandle;
use crate::endpoints::registry::partition_snapshots::PartitionSnapshots;
use crate::flow::budget::MemoryBudget;
use crate::flow::lsn::Lsn;
use crate::ha::role::MemberRole;
use crate::ha::standby;
use crate::ha::state;
use crate::ha::tail_relay;
use crate::pipeline::fence::SendFence;
use crate::pipeline::free_memory::given_back_during;
use crate::pipeline::handles::SharedHandles;
use crate::pipeline::shutdown::ShutdownStages;
use crate::pipeline::source_thread::AttachedSource;
use crate::pipeline::source_thread::SourceThread;
use crate::pipeline::state_probe;
use crate::preflight::prepare::prepare;
use crate::preflight::rights;
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
    registry: Arc<OnceLock<RegistryHandle>>,
    /// Of the partitions that this process owns.
    partitions: PartitionSnapshots,
    consent: StartConsent,
    role: MemberRole,
    skip_transaction: Option<Lsn>,
    admin: api::requests::endpoint_calls::AdminSender,
    backfills: api::requests::backfill_calls::BackfillRequestSender,
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
    pub(crate) fn start(settings: Settings) -> anyhow::Result<Self> {
        let listener = listen(settings.http.listen)?;
        let address = listener.local_addr()?;
        let mut tasks = TaskOwner::new();
        let mut handles = SharedHandles::new(&settings);
        otlp::start(&settings, &mut handles, &mut tasks)?;
        handles.metrics.reload_taken_up(host_now());
        let (confirmed, confirmed_out) = watch::channel(Lsn::ZERO);
        let (registry, admin) =
            (Arc::default(), api::requests::endpoint_calls::AdminSender::default());
        let partitions = PartitionSnapshots::default();
        let shown = (Arc::clone(&registry), partitions.clone());
        let scrape = MetricsScrape::new(shown.0, shown.1, &handles, confirmed_out);
        let scrape = Arc::new(scrape);
        let shown = (Arc::clone(&registry), partitions.clone());
        let backfills = api::requests::backfill_calls::BackfillRequestSender::default();
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
        Ok(Self {
            settings,
            handles,
            confirmed,
            registry,
            partitions,
            consent,
            role: MemberRole::Alone,
            skip_transaction: None,
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
            callbacks::start(&self.settings, inbound, &self.handles, &mut self.tasks)?;
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
}

/// What makes walhook wait, and what ends its waits.
struct PipelineWaits {
    shutdown: ShutdownStages,
    budget: MemoryBudget,
    writable: watch::Receiver<bool>,
}
