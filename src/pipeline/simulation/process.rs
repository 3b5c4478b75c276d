//! One run of walhook: takes the state up, joins the stages as `app` does, and runs until it is killed or
//! has stopped.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock::DatabaseClock;
use crate::clock::host_now;
use crate::clock::since_boot;
use crate::config::configuration::Settings;
use crate::event::route::EventRouter;
use crate::flow::budget::MemoryBudget;
use crate::flow::lsn::Lsn;
use crate::flow::lsn::Position;
use crate::flow::partition::PartitionNumber;
use crate::flow::report_queue::ReportReceiver;
use crate::flow::report_queue::ReportSender;
use crate::flow::report_queue::report_queue;
use crate::lane::overflow_delay::WalHold;
use crate::ledger::Ledger;
use crate::ledger::LedgerParts;
use crate::ledger::backfilled::BackfillProgress;
use crate::ledger::joined_flushes::FlushTicks;
use crate::ledger::live_feed::AttemptFeed;
use crate::ledger::replayed::ReplayProgress;
use crate::ledger::state_status::StateStatus;
use crate::ledger::stats::PushStats;
use crate::ledger::writer::StateWriter;
use crate::pipeline::already_settled::AlreadySettled;
use crate::pipeline::pump::EventPump;
use crate::pipeline::pump::outbox::PumpOutbox;
use crate::pipeline::pump::relay_outbox::RelayOutbox;
use crate::pipeline::shutdown::ShutdownStages;
use crate::pipeline::simulation::connection::ModelConnection;
use crate::pipeline::simulation::interleave::InterleavedStage;
use crate::pipeline::simulation::model_state::ModelOwnership;
use crate::pipeline::simulation::oracle::SYSTEM;
use crate::pipeline::simulation::registry::LaneTerms;
use crate::pipeline::simulation::registry::ModelRegistry;
use crate::pipeline::simulation::shown_books::is_shown_balanced;
use crate::pipeline::simulation::source;
use crate::pipeline::simulation::source::ModelSource;
use crate::pipeline::simulation::world::SharedWorld;
use crate::pipeline::simulation::world::ShownRun;
use crate::pipeline::table_counters::TableCounters;
use crate::store::books::BookEntry;
use crate::store::books::CommonCounts;
use crate::store::push_totals::PushTotals;
use crate::store::state_error::StateError;
use crate::telemetry::metrics::WalhookMetrics;

/// As `app` has it.
pub(super) const OPENED_MAX: usize = 64;
/// Less than there, so that lanes wait for it.
pub(super) const SCARCE_REPORT_ROOM: u16 = 16;

/// `[shutdown] grace`: more than any request takes.
pub(super) const GRACE: Duration = Duration::from_secs(8);

/// How often the source's server is asked for the time and the slot.
const OBSERVED_EVERY: Duration = Duration::from_millis(100);

/// How a run ended.
#[derive(Debug)]
pub(super) enum RunEnd {
    Killed,
    /// Everything that was known has been written down, if `in_time`.
    Stopped {
        in_time: bool,
    },
    /// A stage has failed.
    Failed(&'static str, anyhow::Error),
}

/// What the stages of a run share.
pub(super) struct RunParts {
    pub(super) world: SharedWorld,
    pub(super) settings: Arc<Settings>,
    pub(super) metrics: WalhookMetrics,
    pub(super) clock: DatabaseClock,
    pub(super) budget: MemoryBudget,
    pub(super) wal_hold: WalHold,
    pub(super) shutdown: ShutdownStages,
    pub(super) stop: CancellationToken,
}

/// Where the stages of a run go as they start, and whether all was written down when it ended.
pub(super) struct StagesOfRun {
    pub(super) stages: mpsc::Sender<InterleavedStage>,
    pub(super) in_time: Arc<AtomicBool>,
}

/// Runs walhook, which reads the slot and delivers, until the world kills it, or `stop` is cancelled and it has
/// ended.
pub(super) async fn run(
    world: &SharedWorld,
    settings: &Arc<Settings>,
    stop: CancellationToken,
) -> RunEnd {
    let parts = RunParts::new(world, settings, stop.clone());
    run_stages(world, stop, |started| join(parts, started)).await
}

/// Runs what `join` starts.
pub(super) async fn run_stages<J>(
    world: &SharedWorld,
    stop: CancellationToken,
    join: impl FnOnce(StagesOfRun) -> J,
) -> RunEnd
where
    J: Future<Output = anyhow::Result<()>> + 'static,
{
    let mut stages: FuturesUnordered<InterleavedStage> = FuturesUnordered::new();
    let (stages_in, mut more) = mpsc::channel(64);
    let in_time = Arc::new(AtomicBool::new(false));
    let all = join(StagesOfRun { stages: stages_in, in_time: Arc::clone(&in_time) });
    stages.push(InterleavedStage::new(world, "the start", all));
    loop {
        tokio::select! {
            biased;
            () = world.crashed.notified() => if world.lock().is_crashing(world.run) {
                return RunEnd::Killed;
            },
            Some(stage) = more.recv() => stages.push(stage),
            ended = stages.next() => match ended {
                Some((_, Ok(()))) => {}
                // Who is stopped while the state is away loses what it had, and says so.
                Some((_, Err(_))) if stop.is_cancelled() && world.lock().is_state_ill(world.run) => {
                    return RunEnd::Stopped { in_time: false };
                }
                Some((name, Err(error))) => return RunEnd::Failed(name, error),
                None if stop.is_cancelled() => {
                    let in_time = in_time.load(Ordering::Relaxed);
                    return RunEnd::Stopped { in_time };
                }
                None => {
                    let error = anyhow::anyhow!("they have ended, and nobody asked them to");
                    return RunEnd::Failed("all stages", error);
                }
            },
        }
    }
}

impl RunParts {
    pub(super) fn new(
        world: &SharedWorld,
        settings: &Arc<Settings>,
        stop: CancellationToken,
    ) -> Self {
        let (budget, wal_hold) = {
            let world = world.lock();
            let scenario = &world.scenario;
            let wal_hold = WalHold::new(scenario.hold_wal_bytes, scenario.hold_wal_time);
            (MemoryBudget::new(scenario.budget_bytes), wal_hold)
        };
        let metrics = WalhookMetrics::new(
            settings.events.iter().map(|rule| &rule.table),
            settings.events.iter().map(|rule| &*rule.event_type),
            (settings.endpoints.iter().map(|endpoint| &*endpoint.name), 0),
        );
        Self {
            world: world.clone(),
            settings: Arc::clone(settings),
            metrics,
            clock: DatabaseClock::new(settings.longest_life()),
            budget,
            wal_hold,
            shutdown: ShutdownStages::default(),
            stop,
        }
    }

    /// What its lanes have in common: those of these endpoints alone, if any are named.
    pub(super) fn lanes(
        &self,
        (may_send, reports): (Arc<dyn Fn() -> bool + Send + Sync>, ReportSender),
        stages: &mpsc::Sender<InterleavedStage>,
        own: Option<Arc<[usize]>>,
    ) -> LaneTerms {
        LaneTerms {
            world: self.world.clone(),
            settings: Arc::clone(&self.settings),
            metrics: self.metrics.clone(),
            clock: self.clock.clone(),
            budget: self.budget.clone(),
            may_send,
            reports,
            shutdown: self.shutdown.clone(),
            stages: stages.clone(),
            own,
        }
    }

    pub(super) fn show(&self) {
        let (metrics, budget) = (self.metrics.clone(), self.budget.clone());
        let shown = ShownRun { metrics, budget, lanes: BTreeMap::new() };
        self.world.lock().show(self.world.run, shown);
    }
}

/// Takes the state up and starts the stages.
async fn join(parts: RunParts, started: StagesOfRun) -> anyhow::Result<()> {
    let world = parts.world.clone();
    world.pass(0..20).await;
    let ownership = world.lock().state.take(PartitionNumber::SOURCE);
    world.point("the state was taken up").await;
    world.pass(0..20).await;
    let (reports_in, reports) = report_queue(SCARCE_REPORT_ROOM);
    let books = {
        let world = world.lock();
        let state = &world.state;
        LedgerStart {
            stored: state.confirmed,
            books: state.balance(),
            common: state.common.clone(),
            totals: state.totals,
            settled_is_awaited: false,
            ticks: None,
        }
    };
    let resumed = |registry: &ModelRegistry| {
        let world = registry.terms.world.lock();
        let state = &world.state;
        let endpoint_watermarks = state
            .endpoint_watermarks
            .iter()
            .filter_map(|(name, at)| Some((registry.index(name)?, *at)));
        let settled_ahead =
            state.settled_ahead.keys().filter_map(|(name, id)| Some((registry.index(name)?, *id)));
        let seen = state.settled(PartitionNumber::SOURCE);
        (seen, AlreadySettled::new(endpoint_watermarks, settled_ahead), state.parked())
    };
    join_source(parts, started, (ownership, books), (reports_in, reports), (None, resumed)).await
}

/// What the ledger of a run begins with.
pub(super) struct LedgerStart {
    pub(super) stored: Lsn,
    pub(super) books: Vec<BookEntry>,
    pub(super) common: CommonCounts,
    pub(super) totals: PushTotals,
    pub(super) settled_is_awaited: bool,
    pub(super) ticks: Option<FlushTicks>,
}

/// Where a source was left.
pub(super) type ResumedSource = (Option<Position>, AlreadySettled, Option<Position>);

/// Starts the stages of the slot's holder. Events go to its lanes, or to `relay`.
pub(super) async fn join_source(
    parts: RunParts,
    started: StagesOfRun,
    (ownership, books): (ModelOwnership, LedgerStart),
    (reports_in, reports): (ReportSender, ReportReceiver),
    (relay, resumed): (Option<RelayOutbox>, impl FnOnce(&ModelRegistry) -> ResumedSource),
) -> anyhow::Result<()> {
    let StagesOfRun { stages, in_time } = started;
    let world = parts.world.clone();
    let (opened_in, opened) = mpsc::channel(OPENED_MAX);
    let (edits_in, edits) = mpsc::channel(2);
    let (updates_in, mut updates) = mpsc::channel(2);
    let (writable_in, writable) = watch::channel(true);
    let (confirmed_in, confirmed) = watch::channel(Lsn::ZERO);
    let (ended_in, ledger_ended) = oneshot::channel();
    let is_connected = Arc::new(AtomicBool::new(false));
    let may_send = Arc::clone(&is_connected);
    let may_send = Arc::new(move || may_send.load(Ordering::Relaxed));
    let lanes = parts.lanes((may_send, reports_in), &stages, None);
    parts.show();
    let ledger = ledger(&parts, ownership, books, (writable_in, confirmed_in));
    let last_flush_deadline =
        parts.shutdown.clone().last_flush_deadline(parts.stop.clone(), writable.clone());
    let ends = (parts.shutdown.clone(), in_time);
    let kept =
        run_ledger_task(ledger.run(opened, reports, edits), last_flush_deadline, ended_in, ends);
    start(&stages, &world, "the ledger", kept)?;
    let registry = ModelRegistry::start(lanes, edits_in, updates_in).await?;
    let source = ModelSource::new(&world, writable, is_connected);
    let first = updates.recv().await.context("there is no first update")?;
    let outbox = PumpOutbox::new(opened_in, parts.wal_hold.clone()).relaying(relay);
    let router = EventRouter::new(SYSTEM, &parts.settings.events, &[]);
    let counters = TableCounters::new(&parts.metrics, &parts.settings.events);
    let (clock, budget) = (parts.clock.clone(), parts.budget.clone());
    let pump = EventPump::new(router, counters, clock, budget, updates, outbox);
    let (seen, settled_ahead, parked) = resumed(&registry);
    let mut pump = pump.resumed(seen, settled_ahead, parked);
    pump.take_update(first);
    start(&stages, &world, "the registry", registry.run(parts.stop.clone()))?;
    let until = parts.shutdown.finished.clone();
    let told = confirmed.clone();
    let pumped = pumped(world.clone(), pump, source, (parts.stop.clone(), ledger_ended, told));
    let done = until.clone();
    let pumped = async move {
        pumped.await?;
        done.cancel();
        Ok(())
    };
    start(&stages, &world, "the pump", pumped)?;
    let feedback = source::feedback(world.clone(), confirmed);
    start(&stages, &world, "the feedback", until_done(until.clone(), feedback))?;
    let observed = observe(world.clone(), parts.clock, parts.wal_hold);
    start(&stages, &world, "the observer", until_done(until, observed))?;
    start(&stages, &world, "the shutdown", parts.shutdown.follow(parts.stop, GRACE))
}

pub(super) fn start(
    stages: &mpsc::Sender<InterleavedStage>,
    world: &SharedWorld,
    name: &'static str,
    stage: impl Future<Output = anyhow::Result<()>> + 'static,
) -> anyhow::Result<()> {
    let stage = InterleavedStage::new(world, name, stage);
    stages.try_send(stage).ok().context("too many stages")
}

pub(super) async fn until_done(
    done: CancellationToken,
    stage: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    tokio::select! {
        biased;
        () = done.cancelled() => Ok(()),
        ended = stage => ended,
    }
}

pub(super) fn ledger(
    parts: &RunParts,
    ownership: ModelOwnership,
    begun: LedgerStart,
    (writable, confirmed): (watch::Sender<bool>, watch::Sender<Lsn>),
) -> Ledger<ModelConnection> {
    let connection = ModelConnection::new(&parts.world, ownership);
    let world = parts.world.lock();
    let (state, settings) = (&world.state, &parts.settings);
    let name = |number: &usize| Arc::clone(&settings.endpoints[*number].name);
    let terms = LedgerParts {
        push_log: settings.push_log,
        outcomes: settings.log.outcomes,
        stats: Arc::new(PushStats::default()),
        clock: parts.clock.clone(),
        confirmed,
        stored: begun.stored,
        copies: None,
        settled: watch::Sender::new(None),
        writer: StateWriter::to(connection, writable, StateStatus::default()),
        event_types: settings.events.iter().map(|rule| Arc::clone(&rule.event_type)).collect(),
        write_backs: None,
        shown: state.present.iter().chain(&state.leaving).map(name).collect(),
        books: begun.books,
        common: begun.common,
        totals: begun.totals,
        replayed: ReplayProgress::default(),
        backfills: BackfillProgress::default(),
        feed: AttemptFeed::default(),
        settled_is_awaited: begun.settled_is_awaited,
        ticks: begun.ticks,
    };
    Ledger::new(&parts.metrics, terms)
}

/// Runs the ledger while patience lasts, as `app` does.
pub(super) async fn run_ledger_task(
    ledger: impl Future<Output = Result<(), StateError>>,
    last_flush_deadline: impl Future<Output = ()>,
    ended: oneshot::Sender<()>,
    (shutdown, in_time): (ShutdownStages, Arc<AtomicBool>),
) -> anyhow::Result<()> {
    let outcome = tokio::select! {
        biased;
        outcome = ledger => {
            in_time.store(!shutdown.abort_requests.is_cancelled(), Ordering::Relaxed);
            outcome
        }
        () = last_flush_deadline => Ok(()),
    };
    if outcome.is_ok() {
        ended.send(()).ok();
    }
    shutdown.finished.cancel();
    Ok(outcome?)
}

/// As `source_thread`: pumps, waits for the ledger, and tells the server the last of it.
async fn pumped(
    world: SharedWorld,
    pump: EventPump,
    mut source: ModelSource,
    (stop, ledger_ended, confirmed): (
        CancellationToken,
        oneshot::Receiver<()>,
        watch::Receiver<Lsn>,
    ),
) -> anyhow::Result<()> {
    pump.run(&mut source, stop, GRACE / 2).await?;
    ledger_ended.await.ok();
    let last = *confirmed.borrow();
    source::confirm(&world, last);
    Ok(())
}

/// Asks the server for the time, and how much WAL the slot holds.
pub(super) async fn observe(
    world: SharedWorld,
    clock: DatabaseClock,
    wal_hold: WalHold,
) -> anyhow::Result<()> {
    loop {
        let asked = since_boot();
        world.pass(0..10).await; // CLOCK_ERROR_MAX is half of it
        clock.measured(asked, host_now(), since_boot());
        {
            let mut world = world.lock();
            let written = world.wal.written(world.now());
            wal_hold.note_retained(written.bytes_since(world.slot.confirmed));
            let balanced = is_shown_balanced(&world);
            world.check(balanced);
        }
        tokio::select! {
            () = tokio::time::sleep(OBSERVED_EVERY) => {}
            () = clock.wanted() => {}
        }
    }
}
