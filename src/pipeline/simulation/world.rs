//! What outlives a run of walhook: the WAL, the slot, the state, the receivers, and what is known of them.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::task::Waker;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::flow::budget::MemoryBudget;
use crate::flow::lsn::Lsn;
use crate::flow::lsn::Position;
use crate::flow::partition::PartitionNumber;
use crate::lane::cell::LaneView;
use crate::pipeline::simulation::dice::SeededDice;
use crate::pipeline::simulation::model_broker::ModelBroker;
use crate::pipeline::simulation::model_state::ModelState;
use crate::pipeline::simulation::oracle::DeliveryOracle;
use crate::pipeline::simulation::scenario::PlannedEnd;
use crate::pipeline::simulation::scenario::ReceiverMood;
use crate::pipeline::simulation::scenario::Scenario;
use crate::pipeline::simulation::wal::ModelWal;
use crate::telemetry::metrics::WalhookMetrics;

/// Lines of a trace that are shown beside those about what went wrong.
const LAST_LINES: usize = 40;

/// One in so many named points ends a run that is to end at one.
const POINT_ODDS: u32 = 12;

/// The replication slot, as the server has it.
#[derive(Debug, Default)]
pub(super) struct ModelSlot {
    pub(super) confirmed: Lsn,
    /// What a crash of the server leaves of it.
    pub(super) saved: Lsn,
    /// The run of walhook that streams from it.
    pub(super) reader: Option<usize>,
}

/// What a run of walhook shows of itself.
#[derive(Debug)]
pub(super) struct ShownRun {
    pub(super) metrics: WalhookMetrics,
    pub(super) budget: MemoryBudget,
    /// By endpoint number.
    pub(super) lanes: BTreeMap<usize, LaneView>,
}

/// One run of walhook, as long as it lasts.
#[derive(Debug)]
struct ModelRun {
    polls: u64,
    end: Option<PlannedEnd>,
    is_crashing: bool,
    /// Of a run that is frozen: what goes on when it wakes.
    frozen: Option<Vec<Waker>>,
    shown: Option<ShownRun>,
    /// Something has gone wrong between it and the state, and no flush was committed since.
    is_troubled: bool,
    /// Since when nothing has.
    well_since: Duration,
    /// Wakes the run when it ends as by `kill -9`.
    crashed: Arc<Notify>,
}

#[derive(Debug)]
pub(super) struct SimulatedWorld {
    pub(super) scenario: Arc<Scenario>,
    pub(super) wal: Arc<ModelWal>,
    pub(super) dice: SeededDice,
    pub(super) slot: ModelSlot,
    pub(super) state: ModelState,
    pub(super) oracle: DeliveryOracle,
    pub(super) broker: ModelBroker,
    /// Partitions for which nobody is there who could deliver.
    pub(super) absent: BTreeSet<PartitionNumber>,
    /// Runs of walhook so far.
    pub(super) run_count: usize,
    runs: BTreeMap<usize, ModelRun>,
    /// All is well from here on.
    pub(super) is_healed: bool,
    /// The last change that was handed to the pump, by any run.
    pub(super) handed: Option<Position>,
    /// The first thing that went wrong.
    pub(super) failure: Option<String>,
    begun: Instant,
    /// Each line of the trace is printed as it comes.
    pub(super) is_told_at_once: bool,
    /// `None`: nobody reads it.
    trace: Option<Vec<String>>,
}

/// What a stage may do when it is polled.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum StageTurn {
    Go,
    /// Another stage first.
    Defer,
    /// Not before the run wakes.
    Freeze,
    /// Never again.
    Crash,
}

/// The world, for all who live in it. One thread has it.
#[derive(Clone, Debug)]
pub(super) struct SharedWorld {
    world: Arc<Mutex<SimulatedWorld>>,
    /// The run of walhook that this one belongs to; 0 for those who belong to none.
    pub(super) run: usize,
    /// Wakes the run when it ends as by `kill -9`.
    pub(super) crashed: Arc<Notify>,
}

impl ShownRun {
    pub(super) fn lines(&self) -> String {
        let lane = |(number, gauges): (&usize, &LaneView)| {
            format!("e{number}: {:?}, {:?}", gauges.counts(), gauges.breaker())
        };
        let lanes: Vec<String> = self.lanes.iter().map(lane).collect();
        format!("{} B in memory; {}", self.budget.used_bytes(), lanes.join("; "))
    }
}

impl SimulatedWorld {
    pub(super) fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    pub(super) fn note(&mut self, line: impl FnOnce(&Self) -> String) {
        if self.trace.is_none() {
            return;
        }
        let line = format!("{:9.3} {}", self.now().as_secs_f64(), line(self));
        if self.is_told_at_once {
            println!("{line}");
        }
        if let Some(trace) = &mut self.trace {
            trace.push(line);
        }
    }

    /// Something that must not be.
    pub(super) fn fail(&mut self, what: impl Into<String>) {
        let what = what.into();
        self.note(|_| format!("WRONG: {what}"));
        self.failure.get_or_insert(what);
        for run in self.runs.values_mut() {
            run.is_crashing = true;
            run.crashed.notify_one();
        }
    }

    pub(super) fn check(&mut self, outcome: Result<(), String>) {
        if let Err(what) = outcome {
            self.fail(what);
        }
    }

    /// A run of walhook begins, and ends like this, if nothing else ends it. Returns its number.
    pub(super) fn begin_run(&mut self, end: Option<PlannedEnd>) -> usize {
        self.run_count += 1;
        let run = ModelRun {
            polls: 0,
            end,
            is_crashing: self.failure.is_some(),
            frozen: None,
            shown: None,
            is_troubled: false,
            well_since: self.now(),
            crashed: Arc::default(),
        };
        self.runs.insert(self.run_count, run);
        self.note(|world| format!("run {} begins, planned end {end:?}", world.run_count));
        self.run_count
    }

    /// A run has ended that has sent to these endpoints. What it had in memory is gone.
    pub(super) fn end_run(&mut self, run: usize, how: &str, endpoints: &[usize]) {
        let is_ill = self.is_state_ill(run);
        let well_since = self.runs.remove(&run).map(|run| run.well_since);
        if self.slot.reader == Some(run) {
            self.slot.reader = None;
        }
        self.note(|_| format!("run {run} {how}"));
        let (now, is_clean) = (self.now(), how == STOPPED);
        let well_since = well_since.filter(|_| !is_ill).unwrap_or(now);
        let ended = self.oracle.run_ended((run, endpoints), now, well_since, is_clean);
        self.check(ended);
    }

    /// What a stage of the run may do that is polled now.
    fn turn(&mut self, run: usize, waker: &Waker) -> StageTurn {
        let defer_odds = self.scenario.defer_odds;
        let Some(run) = self.runs.get_mut(&run).filter(|run| !run.is_crashing) else {
            return StageTurn::Crash;
        };
        if let Some(frozen) = &mut run.frozen {
            frozen.push(waker.clone());
            return StageTurn::Freeze;
        }
        run.polls += 1;
        if let Some(PlannedEnd::AtPoll(last)) = run.end
            && run.polls >= last
        {
            run.is_crashing = true;
            return StageTurn::Crash;
        }
        match self.dice.one_in(defer_odds) {
            true => StageTurn::Defer,
            false => StageTurn::Go,
        }
    }

    /// Whether the run has been killed.
    pub(super) fn is_crashing(&self, run: usize) -> bool {
        self.runs.get(&run).is_none_or(|run| run.is_crashing)
    }

    /// What all runs show that are under way.
    pub(super) fn all_shown(&self) -> impl Iterator<Item = &ShownRun> {
        self.runs.values().filter_map(|run| run.shown.as_ref())
    }

    pub(super) fn show(&mut self, run: usize, shown: ShownRun) {
        if let Some(run) = self.runs.get_mut(&run) {
            run.shown = Some(shown);
        }
    }

    pub(super) fn show_lane(&mut self, run: usize, endpoint: usize, lane: LaneView) {
        if let Some(shown) = self.runs.get_mut(&run).and_then(|run| run.shown.as_mut()) {
            shown.lanes.insert(endpoint, lane);
        }
    }

    /// Nothing of the run goes on until it wakes.
    pub(super) fn freeze(&mut self, run: usize) {
        self.note(|_| format!("run {run} is frozen"));
        if let Some(run) = self.runs.get_mut(&run) {
            run.frozen.get_or_insert_default();
        }
    }

    pub(super) fn wake(&mut self, run: usize) {
        self.note(|_| format!("run {run} wakes"));
        let now = self.now();
        let frozen = self.runs.get_mut(&run).and_then(|run| {
            // It could not flush meanwhile.
            run.well_since = now;
            run.frozen.take()
        });
        frozen.into_iter().flatten().for_each(Waker::wake);
    }

    /// All is well from here on, and no run ends by itself any more.
    pub(super) fn heal(&mut self) {
        self.is_healed = true;
        self.note(|_| String::from("all is well"));
        self.runs.values_mut().for_each(|run| run.end = None);
    }

    pub(super) fn mood(&self, endpoint: usize) -> ReceiverMood {
        let now = self.now();
        let moods = &self.scenario.endpoints[endpoint].moods;
        let mood = moods.iter().find(|(until, _)| now < *until).map(|(_, mood)| *mood);
        if self.is_healed { ReceiverMood::Well } else { mood.unwrap_or(ReceiverMood::Well) }
    }

    /// Whether there is a worker that could deliver for some partition.
    pub(super) fn has_workers(&self) -> bool {
        let partitions = self.scenario.roles.as_ref().map_or(0, |roles| roles.partitions.get());
        self.absent.len() < usize::from(partitions)
    }

    /// Whether the state's database cannot be reached.
    pub(super) fn is_state_away(&self) -> bool {
        let now = self.now();
        let away = &self.scenario.state_away;
        !self.is_healed && away.iter().any(|(from, until)| (*from..*until).contains(&now))
    }

    /// Whether the run could not write it the last time, or could not now.
    pub(super) fn is_state_ill(&self, run: usize) -> bool {
        self.runs.get(&run).is_some_and(|run| run.is_troubled) || self.is_state_away()
    }

    /// Something goes wrong between the run and the state.
    pub(super) fn trouble(&mut self, run: usize) {
        if let Some(run) = self.runs.get_mut(&run) {
            run.is_troubled = true;
        }
    }

    /// A flush of the run was committed, and it has heard of that.
    pub(super) fn is_well(&mut self, run: usize) {
        let now = self.now();
        if let Some(run) = self.runs.get_mut(&run).filter(|run| run.is_troubled) {
            (run.is_troubled, run.well_since) = (false, now);
        }
    }

    /// Something goes wrong one time in so many, until all is well.
    pub(super) fn strikes(&mut self, odds: u32) -> bool {
        !self.is_healed && self.dice.one_in(odds)
    }

    pub(super) fn take_trace(&mut self) -> Vec<String> {
        self.trace.take().unwrap_or_default()
    }

    /// The lines about some label, and the last ones.
    pub(super) fn story(&self) -> String {
        let Some(trace) = &self.trace else { return String::new() };
        let failure = self.failure.clone().unwrap_or_default();
        let labels: Vec<&str> = failure
            .split(|c: char| c.is_whitespace() || c == ',')
            .filter(|word| word.starts_with('#'))
            .collect();
        let rest = trace.len().saturating_sub(LAST_LINES);
        let is_about = |line: &str| {
            line.split_whitespace().any(|word| labels.contains(&word)) || line.contains(" run ")
        };
        let mut story = String::new();
        for (at, line) in trace.iter().enumerate() {
            if at == rest {
                story.push_str("      ... all of the last lines:\n");
            }
            if at >= rest || is_about(line) {
                writeln!(story, "{line}").unwrap();
            }
        }
        story
    }
}

/// How a run ends that was asked to, and had the time for it.
pub(super) const STOPPED: &str = "has stopped";

impl SharedWorld {
    pub(super) fn new(scenario: Arc<Scenario>, mut dice: SeededDice, is_traced: bool) -> Self {
        let wal = Arc::new(ModelWal::draw(&scenario, &mut dice));
        let oracle = DeliveryOracle::new(&scenario, &wal);
        let world = SimulatedWorld {
            scenario,
            wal,
            dice,
            slot: ModelSlot::default(),
            state: ModelState::default(),
            oracle,
            broker: ModelBroker::default(),
            absent: BTreeSet::new(),
            run_count: 0,
            runs: BTreeMap::new(),
            is_healed: false,
            handed: None,
            failure: None,
            begun: Instant::now(),
            is_told_at_once: false,
            trace: is_traced.then(Vec::new),
        };
        Self { world: Arc::new(Mutex::new(world)), run: 0, crashed: Arc::default() }
    }

    /// The same world, for a run of walhook that begins now.
    pub(super) fn begin_run(&self, end: Option<PlannedEnd>) -> Self {
        let mut world = self.lock();
        let run = world.begin_run(end);
        let crashed = world.runs.get(&run).map(|run| Arc::clone(&run.crashed));
        Self { world: Arc::clone(&self.world), run, crashed: crashed.unwrap_or_default() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, SimulatedWorld> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the stage goes on; tells everybody if nobody does any more.
    pub(super) fn turn(&self, waker: &Waker) -> StageTurn {
        let turn = self.lock().turn(self.run, waker);
        if turn == StageTurn::Crash {
            self.crashed.notify_one();
        }
        turn
    }

    /// Some milliseconds pass.
    pub(super) async fn pass(&self, range: std::ops::Range<u64>) {
        let wait = self.lock().dice.millis(range);
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }

    /// A place at which a run may end.
    pub(super) async fn point(&self, name: &str) {
        let ends = {
            let mut world = self.lock();
            let planned = world.runs.get(&self.run).and_then(|run| run.end);
            let ends = planned == Some(PlannedEnd::AtPoint) && world.dice.one_in(POINT_ODDS);
            if ends {
                world.note(|_| format!("killed at {name}"));
            }
            if let Some(run) = world.runs.get_mut(&self.run).filter(|_| ends) {
                run.is_crashing = true;
            }
            ends
        };
        if ends {
            self.crashed.notify_one();
            std::future::pending::<()>().await;
        }
    }
}
