//! A lane that is there while it has work: of 100,000 endpoints most have none.
//!
//! ```text
//! LaneSender ─┐                    first message: opens ─▶ LaneTask, on its thread
//! LaneControl ┼─▶ [LaneCell] ──────▶ its queue, places, gauges
//! ReplaySender ┘ (weak)             nothing to do for long: the task gives them back, and ends
//! ```
//!
//! A lane rests only if it would come back as it was: nothing is owed, its endpoint is neither paused, disabled,
//! gone nor out of order, and nobody is about to give it something. What it has learned of its endpoint's pace it
//! learns anew.

use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::Weak;

use tokio::sync::mpsc;

use crate::lane::MESSAGES_MAX;
use crate::lane::capacity::LaneCapacity;
use crate::lane::core::breaker::BreakerState;
use crate::lane::core::counts::LaneCounts;
use crate::lane::gauges::LaneGauges;
use crate::lane::message::LaneChange;
use crate::lane::message::LaneMessage;
use crate::lane::settings::LaneSettings;
use crate::lane::task::LaneRest;
use crate::lane::task::LaneTask;

/// Opens a lane when there is something for it.
pub(crate) trait LaneOpener: fmt::Debug + Send + Sync {
    /// The settings that it has by now, without what its backlog held at the start.
    fn settings(&self) -> LaneSettings;

    /// Has the lane run beside everything else. If nothing runs any more the task is dropped.
    fn run(self: Arc<Self>, task: LaneTask);
}

/// The place of a lane.
#[derive(Debug)]
pub(super) struct LaneCell {
    state: Mutex<CellState>,
    view: LaneView,
}

#[derive(Debug)]
enum CellState {
    /// It is there from the start, and never rests.
    Lasting(WorkingLane),
    OnDemand {
        opener: Arc<dyn LaneOpener>,
        is_caught_up: bool,
        working: Option<WorkingLane>,
    },
}

/// The way into a lane that is there. While a sender has one, the lane does not rest.
#[derive(Clone, Debug)]
pub(super) struct WorkingLane {
    pub(super) settings: Arc<LaneSettings>,
    pub(super) input: mpsc::Sender<LaneMessage>,
    pub(super) capacity: Arc<LaneCapacity>,
    pub(super) gauges: Arc<LaneGauges>,
}

/// What a lane holds and how it does, whether it is there or not. It can outlive it.
#[derive(Clone, Debug, Default)]
pub struct LaneView(Arc<Mutex<Option<Arc<LaneGauges>>>>);

/// What is to be told to a lane.
pub(super) enum ChangedLane {
    /// Nothing: it rests, and comes back with what its opener says.
    Resting,
    Working(WorkingLane),
}

impl WorkingLane {
    /// A lane's way in, and the task that is to be run.
    pub(super) fn open(settings: LaneSettings) -> (Self, LaneTask) {
        let capacity = Arc::new(LaneCapacity::new(&settings));
        let gauges = Arc::new(LaneGauges::new(Arc::clone(&capacity)));
        let (input, received) = mpsc::channel(MESSAGES_MAX);
        let task =
            LaneTask::new(settings.clone(), received, Arc::clone(&capacity), Arc::clone(&gauges));
        (Self { settings: Arc::new(settings), input, capacity, gauges }, task)
    }
}

impl CellState {
    fn working(&mut self) -> Option<&mut WorkingLane> {
        match self {
            Self::Lasting(working) => Some(working),
            Self::OnDemand { working, .. } => working.as_mut(),
        }
    }
}

impl LaneCell {
    /// The place of a lane that is there, and stays.
    pub(super) fn of(working: WorkingLane) -> Arc<Self> {
        let view = LaneView::default();
        view.set(Some(&working.gauges));
        Arc::new(Self { state: Mutex::new(CellState::Lasting(working)), view })
    }

    /// The place of a lane that is opened when there is something for it.
    pub(super) fn on_demand(opener: Arc<dyn LaneOpener>) -> Arc<Self> {
        let state = CellState::OnDemand { opener, is_caught_up: false, working: None };
        Arc::new(Self { state: Mutex::new(state), view: LaneView::default() })
    }

    fn state(&self) -> MutexGuard<'_, CellState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn view(&self) -> LaneView {
        self.view.clone()
    }

    /// The lane, if it is there.
    pub(super) fn present(&self) -> Option<WorkingLane> {
        self.state().working().cloned()
    }

    /// The lane, which is opened if it is not there.
    pub(super) fn working(self: &Arc<Self>) -> WorkingLane {
        self.working_with(|settings| settings)
    }

    /// The same, opened with other settings than the opener's.
    pub(super) fn working_with(
        self: &Arc<Self>,
        settings: impl FnOnce(LaneSettings) -> LaneSettings,
    ) -> WorkingLane {
        match &mut *self.state() {
            CellState::Lasting(working) | CellState::OnDemand { working: Some(working), .. } => {
                working.clone()
            }
            CellState::OnDemand { opener, is_caught_up, working } => {
                let (opened, task) = WorkingLane::open(settings(opener.settings()));
                if *is_caught_up {
                    // There is room: it is the first message.
                    opened.input.try_send(LaneMessage::CaughtUp).ok();
                }
                self.view.set(Some(&opened.gauges));
                let rest: Weak<Self> = Arc::downgrade(self);
                Arc::clone(opener).run(task.resting_in(rest));
                working.insert(opened).clone()
            }
        }
    }

    /// Everything has been sent again that was taken before walhook started. Gives the lane if it is there
    /// and has to hear of it.
    pub(super) fn catch_up(&self) -> Option<WorkingLane> {
        let mut state = self.state();
        if let CellState::OnDemand { is_caught_up, .. } = &mut *state {
            *is_caught_up = true;
        }
        state.working().cloned()
    }

    /// Who has to hear of a change.
    pub(super) fn changed(self: &Arc<Self>, change: &LaneChange) -> ChangedLane {
        let mut state = self.state();
        match (state.working(), change) {
            (Some(working), LaneChange::Settings(settings)) => {
                // What it may hold stays as it was: places are counted by it.
                let share_bytes = working.settings.share_bytes;
                working.settings = Arc::new((**settings).clone().within(share_bytes));
                ChangedLane::Working(working.clone())
            }
            (Some(working), _) => ChangedLane::Working(working.clone()),
            (
                None,
                LaneChange::Settings(_)
                | LaneChange::Enable
                | LaneChange::Resume
                | LaneChange::TryNow,
            ) => ChangedLane::Resting,
            (None, LaneChange::Disable | LaneChange::Pause | LaneChange::Delete) => {
                drop(state);
                ChangedLane::Working(self.working())
            }
        }
    }
}

impl LaneRest for LaneCell {
    fn rest(&self, is_busy: &dyn Fn() -> bool) -> bool {
        let CellState::OnDemand { working, .. } = &mut *self.state() else { return false };
        let is_only = working.as_ref().is_some_and(|lane| lane.input.strong_count() == 1);
        if !is_only || is_busy() {
            return false;
        }
        *working = None;
        self.view.set(None);
        true
    }
}

impl LaneView {
    fn set(&self, gauges: Option<&Arc<LaneGauges>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = gauges.cloned();
    }

    fn gauges(&self) -> Option<Arc<LaneGauges>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// As [`LaneGauges::counts`].
    pub fn counts(&self) -> LaneCounts {
        self.gauges().map(|gauges| gauges.counts()).unwrap_or_default()
    }

    /// As [`LaneGauges::in_memory`].
    pub fn in_memory(&self) -> usize {
        self.gauges().map_or(0, |gauges| gauges.in_memory())
    }

    /// As [`LaneGauges::in_backlog`].
    pub fn in_backlog(&self) -> usize {
        self.gauges().map_or(0, |gauges| gauges.in_backlog())
    }

    /// As [`LaneGauges::is_gone`].
    pub fn is_gone(&self) -> bool {
        self.gauges().is_some_and(|gauges| gauges.is_gone())
    }

    /// As [`LaneGauges::is_slowed`].
    pub fn is_slowed(&self) -> bool {
        self.gauges().is_some_and(|gauges| gauges.is_slowed())
    }

    /// As [`LaneGauges::breaker`].
    pub fn breaker(&self) -> BreakerState {
        self.gauges().map_or(BreakerState::Closed, |gauges| gauges.breaker())
    }
}
