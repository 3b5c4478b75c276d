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
use crate::flow::watermark::PumpReport;
use crate::lane::overflow_delay::WalHold;
use crate::ledger::Ledger;
use crate::ledger::LedgerParts;
use crate::ledger::backfilled::BackfillProgress;
use crate::ledger::live_feed::AttemptFeed;
use crate::ledger::replayed::ReplayProgress;
use crate::ledger::state_status::StateStatus;
use crate::ledger::stats::PushStats;
use crate::ledger::writer::StateWriter;
use crate::pipeline::already_settled::AlreadySettled;
use crate::pipeline::endpoint_update::EndpointUpdate;
use crate::pipeline::pump::EventPump;
use crate::pipeline::pump::outbox::PumpOutbox;
use crate::pipeline::shutdown::ShutdownStages;
use crate::pipeline::simulation::connection::ModelConnection;
use crate::pipeline::simulation::interleave::InterleavedStage;
use crate::pipeline::simulation::oracle::SYSTEM;
use crate::pipeline::simulation::registry::LaneTerms;
use crate::pipeline::simulation::registry::ModelRegistry;
use crate::pipeline::simulation::shown_books::is_shown_balanced;
use crate::pipeline::simulation::source;
use crate::pipeline::simulation::source::ModelSource;
use crate::pipeline::simulation::world::SharedWorld;
use crate::pipeline::simulation::world::ShownRun;
use crate::pipeline::table_counters::TableCounters;
use crate::store::state_error::StateError;
use crate::telemetry::metrics::WalhookMetrics;

/// As `app` has them.
const OPENED_MAX: usize = 64;
const REPORTS_MAX: usize = 16;

/// `[shutdown] grace`: more than any request takes.
const GRACE: Duration = Duration::from_secs(8);

/// How often the source's server is asked for the time and the slot.
const OBSERVED_EVERY: Duration = Duration::from_millis(100);

/// How a run ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum RunEnd {
    Killed,
    /// Everything that was known has been written down, if `in_time`.
    Stopped {
        in_time: bool,
    },
}

/// What the stages of a run share.
struct RunParts {
    world: SharedWorld,
    settings: Arc<Settings>,
    metrics: WalhookMetrics,
    clock: DatabaseClock,
    budget: MemoryBudget,
    hold: WalHold,
    may_send: Arc<AtomicBool>,
    shutdown: ShutdownStages,
    stop: CancellationToken,
}

/// Runs walhook until the world kills it, or `stop` is cancelled and it has ended.
pub(super) async fn run(
    world: &SharedWorld,
    settings: &Arc<Settings>,
    stop: CancellationToken,
) -> RunEnd {
    let mut stages: FuturesUnordered<InterleavedStage> = FuturesUnordered::new();
    let (stages_in, mut more) = mpsc::channel(64);
    let in_time = Arc::new(AtomicBool::new(false));
    let all = join(RunParts::new(world, settings, stop.clone()), stages_in, Arc::clone(&in_time));
    stages.push(InterleavedStage::new(world, "the start", all));
    loop {
        tokio::select! {
            biased;
            () = world.crashed.notified() => if world.lock().is_crashing() {
                return RunEnd::Killed;
            },
            Some(stage) = more.recv() => stages.push(stage),
            ended = stages.next() => match ended {
                Some((_, Ok(()))) => {}
                // Who is stopped while the state is away loses what it had, and says so.
                Some((_, Err(_))) if stop.is_cancelled() && world.lock().is_state_ill() => {
                    return RunEnd::Stopped { in_time: false };
                }
                Some((name, Err(error))) => {
                    world.lock().fail(format!("{name} failed: {error:#}"));
                    return RunEnd::Killed;
                }
                None if stop.is_cancelled() => {
                    let in_time = in_time.load(Ordering::Relaxed);
                    return RunEnd::Stopped { in_time };
                }
                None => {
                    world.lock().fail("all stages have ended, and nobody asked them to");
                    return RunEnd::Killed;
                }
            },
        }
    }
}

impl RunParts {
    fn new(world: &SharedWorld, settings: &Arc<Settings>, stop: CancellationToken) -> Self {
        let (budget, hold) = {
            let world = world.lock();
            let scenario = &world.scenario;
            let hold = WalHold::new(scenario.hold_wal_bytes, scenario.hold_wal_time);
            (MemoryBudget::new(scenario.budget_bytes), hold)
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
            hold,
            may_send: Arc::default(),
            shutdown: ShutdownStages::default(),
            stop,
        }
    }
}

/// Takes the state up and starts the stages.
async fn join(
    parts: RunParts,
    stages: mpsc::Sender<InterleavedStage>,
    in_time: Arc<AtomicBool>,
) -> anyhow::Result<()> {
    let world = parts.world.clone();
    world.pass(0..20).await;
    let taken = world.lock().state.take();
    world.point("the state was taken up").await;
    world.pass(0..20).await;
    let (opened_in, opened) = mpsc::channel(OPENED_MAX);
    let (reports_in, reports) = mpsc::channel(REPORTS_MAX);
    let (edits_in, edits) = mpsc::channel(2);
    let (turns_in, turns) = mpsc::channel(2);
    let (writable_in, writable) = watch::channel(true);
    let (confirmed_in, confirmed) = watch::channel(Lsn::ZERO);
    let (ended_in, ledger_ended) = oneshot::channel();
    let lanes = LaneTerms {
        world: world.clone(),
        settings: Arc::clone(&parts.settings),
        metrics: parts.metrics.clone(),
        clock: parts.clock.clone(),
        budget: parts.budget.clone(),
        may_send: Arc::clone(&parts.may_send),
        reports: reports_in,
        shutdown: parts.shutdown.clone(),
        stages: stages.clone(),
    };
    let (metrics, budget) = (parts.metrics.clone(), parts.budget.clone());
    world.lock().shown = Some(ShownRun { metrics, budget, lanes: BTreeMap::new() });
    let ledger = ledger(&parts, taken, writable_in, confirmed_in);
    let patience = parts.shutdown.clone().patience(parts.stop.clone(), writable.clone());
    let ends = (parts.shutdown.clone(), in_time);
    let kept = keep_books(ledger.run(opened, reports, edits), patience, ended_in, ends);
    start(&stages, &world, "the ledger", kept)?;
    let registry = ModelRegistry::start(lanes, edits_in, turns_in).await?;
    let source = ModelSource::new(&world, writable, Arc::clone(&parts.may_send));
    let pump = event_pump(&parts, &registry, opened_in, turns).await?;
    start(&stages, &world, "the registry", registry.run(parts.stop.clone()))?;
    let until = parts.shutdown.finished.clone();
    let told = confirmed.clone();
    let pumped = pumped(parts.world, pump, source, (parts.stop.clone(), ledger_ended, told));
    let done = until.clone();
    let pumped = async move {
        pumped.await?;
        done.cancel();
        Ok(())
    };
    start(&stages, &world, "the pump", pumped)?;
    let feedback = source::feedback(world.clone(), confirmed);
    start(&stages, &world, "the feedback", until_done(until.clone(), feedback))?;
    let observed = observe(world.clone(), parts.clock, parts.hold);
    start(&stages, &world, "the observer", until_done(until, observed))?;
    start(&stages, &world, "the shutdown", parts.shutdown.follow(parts.stop, GRACE))
}

fn start(
    stages: &mpsc::Sender<InterleavedStage>,
    world: &SharedWorld,
    name: &'static str,
    stage: impl Future<Output = anyhow::Result<()>> + 'static,
) -> anyhow::Result<()> {
    let stage = InterleavedStage::new(world, name, stage);
    stages.try_send(stage).ok().context("too many stages")
}

async fn until_done(
    done: CancellationToken,
    stage: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    tokio::select! {
        biased;
        () = done.cancelled() => Ok(()),
        ended = stage => ended,
    }
}

fn ledger(
    parts: &RunParts,
    taken: (i64, i64),
    writable: watch::Sender<bool>,
    confirmed: watch::Sender<Lsn>,
) -> Ledger<ModelConnection> {
    let connection = ModelConnection::new(&parts.world, taken);
    let world = parts.world.lock();
    let (state, settings) = (&world.state, &parts.settings);
    let name = |number: &usize| Arc::clone(&settings.endpoints[*number].name);
    let terms = LedgerParts {
        push_log: settings.push_log,
        outcomes: settings.log.outcomes,
        stats: Arc::new(PushStats::default()),
        clock: parts.clock.clone(),
        confirmed,
        stored: state.confirmed,
        copies: None,
        settled: watch::Sender::new(None),
        writer: StateWriter::to(connection, writable, StateStatus::default()),
        event_types: settings.events.iter().map(|rule| Arc::clone(&rule.event_type)).collect(),
        write_backs: None,
        shown: state.present.iter().chain(&state.leaving).map(name).collect(),
        books: state.balance(),
        common: state.common.clone(),
        totals: state.totals,
        replayed: ReplayProgress::default(),
        backfills: BackfillProgress::default(),
        feed: AttemptFeed::default(),
        settled_is_awaited: false,
    };
    Ledger::new(&parts.metrics, terms)
}

/// Runs the ledger while patience lasts, as `app` does.
async fn keep_books(
    ledger: impl Future<Output = Result<(), StateError>>,
    patience: impl Future<Output = ()>,
    ended: oneshot::Sender<()>,
    (shutdown, in_time): (ShutdownStages, Arc<AtomicBool>),
) -> anyhow::Result<()> {
    let outcome = tokio::select! {
        biased;
        outcome = ledger => {
            in_time.store(!shutdown.abort_requests.is_cancelled(), Ordering::Relaxed);
            outcome
        }
        () = patience => Ok(()),
    };
    if outcome.is_ok() {
        ended.send(()).ok();
    }
    shutdown.finished.cancel();
    Ok(outcome?)
}

async fn event_pump(
    parts: &RunParts,
    registry: &ModelRegistry,
    opened: mpsc::Sender<Vec<PumpReport>>,
    mut turns: mpsc::Receiver<EndpointUpdate>,
) -> anyhow::Result<EventPump> {
    let settings = &parts.settings;
    let router = EventRouter::new(SYSTEM, &settings.events, &[]);
    let books = TableCounters::new(&parts.metrics, &settings.events);
    let first = turns.recv().await.context("there is no first turn")?;
    let outbox = PumpOutbox::new(opened, parts.hold.clone());
    let (clock, budget) = (parts.clock.clone(), parts.budget.clone());
    let pump = EventPump::new(router, books, clock, budget, turns, outbox);
    let world = parts.world.lock();
    let state = &world.state;
    let fronts = state.fronts.iter().filter_map(|(name, at)| Some((registry.index(name)?, *at)));
    let ahead = state.ahead.iter().filter_map(|(name, id)| Some((registry.index(name)?, *id)));
    let ahead = AlreadySettled::new(fronts, ahead);
    let mut pump = pump.resumed(state.settled, ahead, state.parked());
    pump.turn(first);
    Ok(pump)
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
async fn observe(world: SharedWorld, clock: DatabaseClock, hold: WalHold) -> anyhow::Result<()> {
    loop {
        let asked = since_boot();
        world.pass(0..10).await; // CLOCK_ERROR_MAX is half of it
        clock.measured(asked, host_now(), since_boot());
        {
            let mut world = world.lock();
            let written = world.wal.written(world.now());
            hold.note_retained(written.bytes_since(world.slot.confirmed));
            let balanced = is_shown_balanced(&world);
            world.check(balanced);
        }
        tokio::select! {
            () = tokio::time::sleep(OBSERVED_EVERY) => {}
            () = clock.wanted() => {}
        }
    }
}
