//! What outlives a run of walhook: the WAL, the slot, the state, the receivers, and what is known of them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::flow::budget::MemoryBudget;
use crate::flow::lsn::Lsn;
use crate::flow::lsn::Position;
use crate::lane::cell::LaneView;
use crate::pipeline::simulation::dice::SeededDice;
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
    /// A run of walhook streams from it.
    pub(super) is_connected: bool,
}

/// What a run of walhook shows of itself.
#[derive(Debug)]
pub(super) struct ShownRun {
    pub(super) metrics: WalhookMetrics,
    pub(super) budget: MemoryBudget,
    /// By endpoint number.
    pub(super) lanes: BTreeMap<usize, LaneView>,
}

#[derive(Debug)]
pub(super) struct SimulatedWorld {
    pub(super) scenario: Arc<Scenario>,
    pub(super) wal: Arc<ModelWal>,
    pub(super) dice: SeededDice,
    pub(super) slot: ModelSlot,
    pub(super) state: ModelState,
    pub(super) oracle: DeliveryOracle,
    /// Runs of walhook so far.
    pub(super) run: usize,
    /// All is well from here on.
    pub(super) is_healed: bool,
    /// The last change that was handed to the pump, by any run.
    pub(super) handed: Option<Position>,
    /// Of the run that is under way.
    pub(super) shown: Option<ShownRun>,
    /// The first thing that went wrong.
    pub(super) failure: Option<String>,
    begun: Instant,
    polls: u64,
    end: Option<PlannedEnd>,
    is_crashing: bool,
    /// Each line of the trace is printed as it comes.
    pub(super) is_told_at_once: bool,
    /// `None`: nobody reads it.
    trace: Option<Vec<String>>,
}

/// What a stage may do when it is polled.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum StageTurn {
    Go,
    /// Somebody else first.
    Defer,
    /// Never again.
    Crash,
}

/// The world, for all who live in it. One thread has it.
#[derive(Clone, Debug)]
pub(super) struct SharedWorld {
    world: Arc<Mutex<SimulatedWorld>>,
    /// Told when a run ends as by `kill -9`.
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
        self.is_crashing = true;
    }

    pub(super) fn check(&mut self, outcome: Result<(), String>) {
        if let Err(what) = outcome {
            self.fail(what);
        }
    }

    /// A run of walhook begins, and ends like this, if nothing else ends it.
    pub(super) fn begin_run(&mut self, end: Option<PlannedEnd>) {
        (self.run, self.polls, self.end) = (self.run + 1, 0, end);
        self.is_crashing = self.failure.is_some();
        self.note(|world| format!("run {} begins, planned end {end:?}", world.run));
    }

    pub(super) fn end_run(&mut self, how: &str) {
        (self.slot.is_connected, self.shown) = (false, None);
        self.note(|world| format!("run {} {how}", world.run));
        let (now, is_clean) = (self.now(), how == STOPPED);
        let well_since = if self.is_state_ill() { now } else { self.state.well_since };
        let ended = self.oracle.run_ended(self.run, now, well_since, is_clean);
        self.check(ended);
    }

    /// What a stage may do that is polled now.
    pub(super) fn turn(&mut self) -> StageTurn {
        if self.is_crashing {
            return StageTurn::Crash;
        }
        self.polls += 1;
        if let Some(PlannedEnd::AtPoll(last)) = self.end
            && self.polls >= last
        {
            self.is_crashing = true;
            return StageTurn::Crash;
        }
        match self.dice.one_in(self.scenario.defer_odds) {
            true => StageTurn::Defer,
            false => StageTurn::Go,
        }
    }

    /// Whether the run has been killed.
    pub(super) fn is_crashing(&self) -> bool {
        self.is_crashing
    }

    pub(super) fn mood(&self, endpoint: usize) -> ReceiverMood {
        let now = self.now();
        let moods = &self.scenario.endpoints[endpoint].moods;
        let mood = moods.iter().find(|(until, _)| now < *until).map(|(_, mood)| *mood);
        if self.is_healed { ReceiverMood::Well } else { mood.unwrap_or(ReceiverMood::Well) }
    }

    /// Whether the state's database cannot be reached.
    pub(super) fn is_state_away(&self) -> bool {
        let now = self.now();
        let away = &self.scenario.state_away;
        !self.is_healed && away.iter().any(|(from, until)| (*from..*until).contains(&now))
    }

    /// Whether it could not be written the last time, or could not be now.
    pub(super) fn is_state_ill(&self) -> bool {
        self.state.is_troubled || self.is_state_away()
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
            run: 0,
            is_healed: false,
            handed: None,
            shown: None,
            failure: None,
            begun: Instant::now(),
            polls: 0,
            end: None,
            is_crashing: false,
            is_told_at_once: false,
            trace: is_traced.then(Vec::new),
        };
        Self { world: Arc::new(Mutex::new(world)), crashed: Arc::default() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, SimulatedWorld> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the stage goes on; tells everybody if nobody does any more.
    pub(super) fn turn(&self) -> StageTurn {
        let turn = self.lock().turn();
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
            let ends = world.end == Some(PlannedEnd::AtPoint) && world.dice.one_in(POINT_ODDS);
            if ends {
                world.note(|_| format!("killed at {name}"));
                world.is_crashing = true;
            }
            ends
        };
        if ends {
            self.crashed.notify_one();
            std::future::pending::<()>().await;
        }
    }
}
