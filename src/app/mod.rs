//! Builds the stages from settings, joins their channels, starts and stops them.
//!
//! ```text
//!  source's thread                      main thread (one runtime for all of the rest)
//!  source ─▶ pump ──── events ────────▶ lanes ─▶ delivery        api, observer
//!    ▲         └────── opened ────────▶ ledger ◀─ reports ┘
//!    └──────── confirmed LSN ─────────────┘
//! ```
//!
//! The source has a thread of its own: decoding and rendering would delay the requests in flight,
//! and sending would delay reading. Only its feedback runs on the main thread, since nothing there
//! takes long.
//!
//! A shutdown runs down the pipe like the data: the pump stops and drops the lanes' senders, the
//! lanes drain and drop the ledger's, the ledger confirms, the source tells PostgreSQL and ends.

mod books;
mod observe;
mod prepare;
mod pump;
mod scrape;
mod tail;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::api;
use crate::api::Surface;
use crate::app::books::Books;
use crate::app::observe::Observer;
use crate::app::pump::Pump;
use crate::app::scrape::Scrape;
use crate::clock::DatabaseClock;
use crate::config::settings::Endpoint;
use crate::config::settings::Settings;
use crate::delivery::http::Client;
use crate::delivery::network::Network;
use crate::event::route::Router;
use crate::flow::budget::Budget;
use crate::flow::lsn::Lsn;
use crate::flow::settlement::EndpointIndex;
use crate::flow::settlement::Report;
use crate::flow::watermark::Opened;
use crate::ledger::Ledger;
use crate::ledger::stats::Stats;
use crate::queue;
use crate::queue::sender::LaneSender;
use crate::queue::settings::LaneSettings;
use crate::queue::task::no_backlog;
use crate::source::status::StatusHandle;
use crate::source::stream::SlotUse;
use crate::source::stream::Source;
use crate::source::stream::Terms;
use crate::source::wire::feedback::LetGo;
use crate::task::Tasks;
use crate::telemetry::metrics::Metrics;

pub use crate::app::prepare::check;
pub use crate::app::prepare::prepare;
pub use crate::app::tail::tail;

/// Messages between the pump and the ledger; each is what one read from PostgreSQL brought.
const OPENED_MAX: usize = 64;

/// Reports between the lanes and the ledger. One may hold dozens of responses of up to 64 KiB.
const REPORTS_MAX: usize = 16;

/// What is left of the grace period when the lanes stop making requests, and when those that are
/// still in flight are cut off: enough for the last confirmation to reach PostgreSQL.
const LAST_REQUESTS: Duration = Duration::from_millis(2500);
const LAST_WORDS: Duration = Duration::from_millis(1200);

/// A walhook that is about to run: everything that can be refused has been checked.
pub struct App {
    tasks: Tasks,
    grace: Duration,
    address: SocketAddr,
}

impl App {
    /// Connects, builds the stages and starts them. PostgreSQL has to be prepared.
    ///
    /// # Errors
    /// What does not let it start: the address in use, an endpoint that cannot be built, the slot
    /// in use, ... A [`crate::source::error::SourceError`] is in the chain if PostgreSQL is the
    /// reason.
    pub async fn start(settings: Settings) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(settings.http.listen).await.with_context(|| {
            let listen = settings.http.listen;
            format!("cannot listen on {listen}: free it, or change [http] listen")
        })?;
        let address = listener.local_addr()?;
        let mut tasks = Tasks::new();
        let network = Network::system();
        let metrics = Metrics::new(
            settings.events.iter().map(|rule| &rule.table),
            settings.events.iter().map(|rule| &*rule.event_type),
            settings.endpoints.iter().map(|endpoint| &*endpoint.name),
        );
        let handles = Handles {
            clock: DatabaseClock::new(),
            stats: Arc::new(Stats::default()),
            status: StatusHandle::default(),
            let_go: LetGo::default(),
            metrics,
        };
        let (opened_in, opened) = mpsc::channel(OPENED_MAX);
        let (reports_in, reports) = mpsc::channel(REPORTS_MAX);
        let (confirmed_in, confirmed) = watch::channel(Lsn::ZERO);
        let cuts = Cuts::default();

        let mut lanes = Vec::new();
        for (index, endpoint) in settings.endpoints.iter().enumerate() {
            let lane = lane(EndpointIndex(index), endpoint, &network, &handles, &reports_in, &cuts);
            let (sender, task) = lane?;
            tasks.spawn("a lane", task);
            lanes.push(sender);
        }
        drop(reports_in);
        let scrape = Scrape::new(&handles, confirmed.clone());

        let (ended_in, ended) = oneshot::channel();
        let ledger = ledger(&settings, &handles, confirmed_in);
        tasks.spawn("the ledger", async move {
            ledger.run(opened, reports).await;
            // Nobody listens any more if the source has failed.
            ended_in.send(()).ok();
            Ok(())
        });

        let observer = observer(&settings, &handles);
        let mut session = None;
        observer.observe(&mut session).await.context("cannot ask PostgreSQL for the time")?;
        let stop = tasks.stop_token();
        tasks.spawn("the observer", async move {
            observer.run(session, stop).await;
            Ok(())
        });

        let reader = Reader::new(&settings, &handles, confirmed);
        let running =
            reader.start(lanes, opened_in, ended, tasks.stop_token(), cuts.clone()).await?;
        tasks.spawn("the source", running);
        let (stop, grace) = (tasks.stop_token(), settings.grace);
        tasks.spawn("the shutdown", async move {
            cuts.follow(stop, grace).await;
            Ok(())
        });
        let surface = surface(&settings, &handles, scrape);
        let stop = tasks.stop_token();
        tasks.spawn(
            "the HTTP surface",
            async move { Ok(api::serve(listener, surface, stop).await?) },
        );
        Ok(Self { tasks, grace: settings.grace, address })
    }

    /// Where the HTTP surface listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cancel it to shut down.
    pub fn stop_token(&self) -> CancellationToken {
        self.tasks.stop_token()
    }

    /// Runs until it is stopped or something fails.
    ///
    /// # Errors
    /// What failed, or that the grace period was not enough.
    pub async fn run(self) -> anyhow::Result<()> {
        self.tasks.run(self.grace).await
    }
}

/// What stages tell and what others read.
#[derive(Clone)]
struct Handles {
    clock: DatabaseClock,
    stats: Arc<Stats>,
    status: StatusHandle,
    /// From the observer to the source.
    let_go: LetGo,
    metrics: Metrics,
}

/// The end of patience during a shutdown, in two steps.
#[derive(Clone, Debug, Default)]
struct Cuts {
    /// The lanes make no more requests.
    no_more: CancellationToken,
    /// Requests in flight are dropped.
    now: CancellationToken,
    /// All is settled: patience is not needed.
    done: CancellationToken,
}

impl Cuts {
    async fn follow(self, stop: CancellationToken, grace: Duration) {
        stop.cancelled().await;
        let cut = async {
            tokio::time::sleep(grace.saturating_sub(LAST_REQUESTS)).await;
            self.no_more.cancel();
            tokio::time::sleep(LAST_REQUESTS.min(grace).saturating_sub(LAST_WORDS)).await;
            self.now.cancel();
        };
        tokio::select! {
            () = self.done.cancelled() => {}
            () = cut => {}
        }
    }
}

fn lane(
    index: EndpointIndex,
    endpoint: &Endpoint,
    network: &Network,
    handles: &Handles,
    reports: &mpsc::Sender<Report>,
    cuts: &Cuts,
) -> anyhow::Result<(LaneSender, impl Future<Output = anyhow::Result<()>> + Send + use<>)> {
    let client = Client::new(endpoint, network)
        .with_context(|| format!("cannot build endpoint {}", endpoint.name))?;
    let client = Arc::new(client);
    let (sender, task) = queue::open(LaneSettings::of(index, endpoint));
    let (clock, times) = (handles.clock.clone(), handles.clock.clone());
    let (reports, cuts) = (reports.clone(), cuts.clone());
    let run = async move {
        let attempt = |lease| {
            let (client, now) = (Arc::clone(&client), times.now());
            async move {
                let exchange = client.attempt(&lease, now).await;
                (lease, exchange)
            }
        };
        let run =
            task.run(attempt, move || clock.now(), || true, no_backlog, reports, cuts.no_more);
        tokio::select! {
            ended = run => Ok(ended?),
            // What is in flight may have arrived; it comes again after the restart all the same.
            () = cuts.now.cancelled() => Ok(()),
        }
    };
    Ok((sender, run))
}

fn ledger(settings: &Settings, handles: &Handles, confirmed: watch::Sender<Lsn>) -> Ledger {
    let (stats, clock) = (Arc::clone(&handles.stats), handles.clock.clone());
    Ledger::new(&settings.endpoints, &handles.metrics, stats, clock, confirmed)
}

fn observer(settings: &Settings, handles: &Handles) -> Observer {
    Observer {
        settings: settings.postgres.clone(),
        clock: handles.clock.clone(),
        status: handles.status.clone(),
        let_go: handles.let_go.clone(),
        metrics: handles.metrics.replication(),
    }
}

fn surface(settings: &Settings, handles: &Handles, scrape: Scrape) -> Surface {
    let endpoints = settings.endpoints.iter().map(|e| (e.name.to_string(), e.shown_url()));
    Surface {
        metrics: handles.metrics.clone(),
        stats: Arc::clone(&handles.stats),
        source: handles.status.clone(),
        clock: handles.clock.clone(),
        refresh: Arc::new(move || scrape.refresh()),
        endpoints: endpoints.collect(),
        token: settings.http.token.clone(),
    }
}

/// Everything that lives on the source's thread.
struct Reader {
    settings: Settings,
    handles: Handles,
    confirmed: watch::Receiver<Lsn>,
    /// The runtime of all the rest.
    main: Handle,
}

impl Reader {
    fn new(settings: &Settings, handles: &Handles, confirmed: watch::Receiver<Lsn>) -> Self {
        let (settings, handles) = (settings.clone(), handles.clone());
        Self { settings, handles, confirmed, main: Handle::current() }
    }

    /// Opens the source on its own thread; the future that comes back ends with the thread.
    async fn start(
        self,
        lanes: Vec<LaneSender>,
        opened: mpsc::Sender<Vec<Opened>>,
        ledger_ended: oneshot::Receiver<()>,
        stop: CancellationToken,
        cuts: Cuts,
    ) -> anyhow::Result<impl Future<Output = anyhow::Result<()>> + Send> {
        let (started_in, started) = oneshot::channel();
        let (ended_in, ended) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name(String::from("source"));
        thread.spawn(move || {
            let run = self.run(lanes, opened, ledger_ended, stop, cuts, started_in);
            // Nobody waits any more if the grace period is over.
            drop(ended_in.send(runtime.block_on(run)));
        })?;
        let ended = async move { ended.await.context("the source's thread panicked")? };
        let mut ended = Box::pin(ended);
        tokio::select! {
            biased;
            opened = started => if opened.is_err() { ended.as_mut().await?; },
            early = ended.as_mut() => early?,
        }
        Ok(ended)
    }

    async fn run(
        self,
        lanes: Vec<LaneSender>,
        opened: mpsc::Sender<Vec<Opened>>,
        ledger_ended: oneshot::Receiver<()>,
        stop: CancellationToken,
        cuts: Cuts,
        started: oneshot::Sender<()>,
    ) -> anyhow::Result<()> {
        let Self { settings, handles, confirmed, main } = self;
        let budget = Budget::new(settings.memory.queued_bytes);
        let terms = Terms {
            settings: settings.postgres.clone(),
            slot_use: SlotUse::Lasting,
            budget: budget.clone(),
            status: handles.status.clone(),
            confirmed,
            let_go: handles.let_go.clone(),
            feedback_on: main,
        };
        let mut source = Source::open(terms).await?;
        // Without `enabled` nobody takes anything: changes are read and counted.
        let takers = if settings.enabled { settings.endpoints.as_slice() } else { &[] };
        let router = Router::new(source.system(), &settings.events, takers);
        let books = Books::new(&handles.metrics, &settings.events, &settings.endpoints);
        let pump = Pump::new(router, books, handles.clock.clone(), budget, lanes, opened);
        started.send(()).ok();
        // Half of the grace period to finish reading a transaction, the other half to deliver it.
        pump.run(&mut source, stop, settings.grace / 2).await?;
        // An error of the sender means that it has ended, too.
        drop(ledger_ended.await);
        cuts.done.cancel();
        source.finish().await;
        Ok(())
    }
}
