//! The way into a lane.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::AcquireError;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::flow::event::Event;
use crate::flow::settlement::ReplayId;
use crate::lane::capacity::CapacityReservation;
use crate::lane::capacity::LaneAdmission;
use crate::lane::capacity::LaneCapacity;
use crate::lane::error::QueueError;
use crate::lane::gauges::LaneGauges;
use crate::lane::overflow_delay::DelayLook;
use crate::lane::overflow_delay::LOOK_EVERY;
use crate::lane::overflow_delay::LaneProgress;
use crate::lane::overflow_delay::OverflowDelay;
use crate::lane::overflow_delay::WalHold;
use crate::lane::settings::LaneSettings;

/// What comes into a lane; each event has its place.
#[derive(Debug)]
pub(super) enum LaneMessage {
    Events(Vec<Arc<Event>>),
    /// There was no room for these.
    Overflow(Vec<Arc<Event>>),
    Replay(ReplayedDelivery),
    CaughtUp,
    /// Nothing more is on its way.
    Rest,
    Change(LaneChange),
}

/// What is to be different in a lane from here on.
#[derive(Clone, Debug)]
pub enum LaneChange {
    Settings(Box<LaneSettings>),
    /// The endpoint is disabled: nothing is sent, and what waits is parked.
    Disable,
    /// The endpoint is enabled again, also one that said 410.
    Enable,
    /// An operator has paused it: likewise, and the limits of the backlog hold.
    Pause,
    /// The operator lets it go on.
    Resume,
    /// What waits is tried at once, its schedule begun anew.
    TryNow,
    /// The endpoint is removed: what waits is given up, and then the lane ends.
    Delete,
}

/// A delivery that an operator sends again.
#[derive(Clone, Debug)]
pub struct ReplayedDelivery {
    pub id: ReplayId,
    pub event: Arc<Event>,
}

/// Hands over to each lane its events, in order, as many as there is room for each time; waits until
/// all have taken theirs. If the future is dropped, the rest is not handed over.
///
/// While a lane has no room this waits: without a backlog for as long as it takes, and with one while
/// its endpoint answers, within the bounds of `hold`; then the rest goes by way of the backlog, and
/// this waits only for the ledger. `is_any_idle` tells whether any lane has nothing to do meanwhile,
/// also one that gets none of the events.
///
/// # Errors
/// [`QueueError::LaneEnded`] if a lane takes no more events: it was stopped, or it failed.
pub(crate) async fn hand_over<'l>(
    shares: impl IntoIterator<Item = (&'l LaneSender, Vec<Arc<Event>>)>,
    hold: &WalHold,
    is_any_idle: &(dyn Fn() -> bool + Sync),
) -> Result<(), QueueError> {
    let shares = shares.into_iter().filter(|(_, events)| !events.is_empty());
    let shares: Vec<_> = shares.collect();
    let patience = &OverflowDelay::begin(shares.len(), hold, is_any_idle);
    let takes = shares.into_iter().map(|(lane, events)| lane.take(events, patience));
    join_all(takes).await.into_iter().collect()
}

/// Hands the source's events to a lane. When it is dropped, the lane's input is closed.
#[derive(Debug)]
pub struct LaneSender {
    endpoint: Arc<str>,
    settings: LaneSettings,
    input: mpsc::Sender<LaneMessage>,
    room: Arc<LaneCapacity>,
    gauges: Arc<LaneGauges>,
}

impl LaneSender {
    pub(super) fn new(
        settings: LaneSettings,
        input: mpsc::Sender<LaneMessage>,
        room: Arc<LaneCapacity>,
        gauges: Arc<LaneGauges>,
    ) -> Self {
        let endpoint = Arc::clone(&settings.name);
        Self { endpoint, settings, input, room, gauges }
    }

    /// Hands over all events to this lane alone, as [`hand_over`] does, and as if the WAL could hold
    /// no more.
    ///
    /// # Errors
    /// As [`hand_over`].
    pub async fn send(&self, events: Vec<Arc<Event>>) -> Result<(), QueueError> {
        let hold = WalHold::new(0, Duration::ZERO);
        hand_over([(self, events)], &hold, &|| false).await
    }

    /// Whether the lane has nothing to do, and would take events.
    pub fn is_idle(&self) -> bool {
        self.room.held() == 0 && self.room.way() == LaneAdmission::In
    }

    /// Whether so many events of a backfill may come: the lane has no more in it than keeps its endpoint
    /// busy, so that what is live waits behind few, or sends them on to its backlog.
    pub fn is_roomy(&self, events: usize) -> bool {
        if self.room.way() == LaneAdmission::Aside {
            return self.room.takes_overflow(events);
        }
        self.room.held() <= self.busy().saturating_mul(2).min(self.settings.capacity.get() / 2)
    }

    /// Whether the endpoint is about to have nothing to do: more may come at once than the last time.
    pub fn is_nearly_idle(&self) -> bool {
        match self.room.way() {
            LaneAdmission::Aside => self.room.held() == 0,
            LaneAdmission::In | LaneAdmission::InOrAside => self.room.held() <= self.busy() / 2,
        }
    }

    /// How many events keep the endpoint busy.
    fn busy(&self) -> usize {
        self.settings.concurrency.get().saturating_mul(self.settings.batch.size.get())
    }

    async fn take(
        &self,
        mut events: Vec<Arc<Event>>,
        patience: &OverflowDelay<'_>,
    ) -> Result<(), QueueError> {
        while !events.is_empty() {
            let entered = self.enter(&events, patience).await;
            let Some(places) = entered.map_err(|_closed| self.ended())? else { break };
            self.pass_on(&mut events, places, LaneMessage::Events).await?;
        }
        while !events.is_empty() {
            let places = self.room.overflow(events.len()).await;
            let places = places.map_err(|_closed| self.ended())?;
            self.pass_on(&mut events, places, LaneMessage::Overflow).await?;
        }
        Ok(())
    }

    /// Tells the lane that all events have been sent again that were taken before walhook started.
    /// Until then, or until an event arrives that is newer than its backlog, it reads nothing from
    /// the backlog: something older may be on its way.
    ///
    /// # Errors
    /// As [`hand_over`].
    pub async fn caught_up(&self) -> Result<(), QueueError> {
        self.input.send(LaneMessage::CaughtUp).await.map_err(|_closed| self.ended())
    }

    /// Whether the endpoint takes batches, so that [`LaneSender::rest`] matters to it.
    pub fn gathers(&self) -> bool {
        self.gauges.gathers()
    }

    /// Tells the lane that nothing more is on its way at the moment: what is there need not wait for
    /// it.
    ///
    /// # Errors
    /// As [`hand_over`].
    pub async fn rest(&self) -> Result<(), QueueError> {
        self.input.send(LaneMessage::Rest).await.map_err(|_closed| self.ended())
    }

    /// A way in for what is sent again. It does not keep the lane's input open.
    pub fn replays(&self) -> ReplaySender {
        let (endpoint, room) = (Arc::clone(&self.endpoint), Arc::clone(&self.room));
        ReplaySender { endpoint, input: self.input.downgrade(), room }
    }

    /// A way to change the lane; like this one, it keeps the lane's input open.
    pub fn control(&self) -> LaneControl {
        LaneControl { endpoint: Arc::clone(&self.endpoint), input: self.input.clone() }
    }

    /// A view of the lane for metrics and status; it can outlive both.
    pub fn gauges(&self) -> Arc<LaneGauges> {
        Arc::clone(&self.gauges)
    }

    /// Places for the first of the events; `None` if all are to go by way of the backlog.
    async fn enter(
        &self,
        events: &[Arc<Event>],
        patience: &OverflowDelay<'_>,
    ) -> Result<Option<CapacityReservation<'_>>, AcquireError> {
        let weights: Vec<usize> = events.iter().map(|event| self.settings.weight(event)).collect();
        if !self.room.has_backlog() {
            return self.room.enter(&weights).await.map(Some);
        }
        if self.room.way() == LaneAdmission::Aside {
            return Ok(None);
        }
        let since = Instant::now();
        tokio::select! {
            biased; // a place that is free is taken, whatever else
            places = self.room.enter(&weights) => places.map(Some),
            () = self.room.other_way() => Ok(None),
            () = self.waited_enough(since, patience) => Ok(None),
        }
    }

    async fn waited_enough(&self, since: Instant, patience: &OverflowDelay<'_>) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let (answered, latency) = self.gauges.answers();
            let progress = LaneProgress { answered, latency, held_up: self.gauges.held_up() };
            match patience.look(since, progress) {
                DelayLook::Wait => {}
                DelayLook::WaitHoldingUp => self.gauges.holds_up(LOOK_EVERY),
                DelayLook::Enough => return,
            }
        }
    }

    async fn pass_on(
        &self,
        events: &mut Vec<Arc<Event>>,
        places: CapacityReservation<'_>,
        message: fn(Vec<Arc<Event>>) -> LaneMessage,
    ) -> Result<(), QueueError> {
        let rest = events.split_off(places.places());
        let first = std::mem::replace(events, rest);
        self.input.send(message(first)).await.map_err(|_closed| self.ended())?;
        places.used();
        Ok(())
    }

    fn ended(&self) -> QueueError {
        QueueError::LaneEnded { endpoint: Arc::clone(&self.endpoint) }
    }
}

/// Changes a lane while it runs, in the order in which it is told, and after the events that came
/// before. The lane's input is closed when this and the [`LaneSender`] are dropped.
#[derive(Debug)]
pub struct LaneControl {
    endpoint: Arc<str>,
    input: mpsc::Sender<LaneMessage>,
}

impl LaneControl {
    /// Tells the lane. It takes no longer than the lane's turn: nothing in it waits for room.
    ///
    /// # Errors
    /// [`QueueError::LaneEnded`] if the lane was stopped, or failed.
    pub async fn change(&self, change: LaneChange) -> Result<(), QueueError> {
        let sent = self.input.send(LaneMessage::Change(change)).await;
        sent.map_err(|_closed| QueueError::LaneEnded { endpoint: Arc::clone(&self.endpoint) })
    }
}

/// Hands deliveries to a lane that an operator sends again.
#[derive(Clone, Debug)]
pub struct ReplaySender {
    endpoint: Arc<str>,
    input: mpsc::WeakSender<LaneMessage>,
    room: Arc<LaneCapacity>,
}

impl ReplaySender {
    /// Hands over all of them, in order; waits while the lane has no room. They get the full retry
    /// schedule, are never parked, and their settlements say which replays they are. What is not
    /// settled when walhook ends is nowhere but where it was read from.
    ///
    /// # Errors
    /// [`QueueError::LaneEnded`] if the lane takes no more events. What came before is taken.
    pub async fn send(&self, replays: Vec<ReplayedDelivery>) -> Result<(), QueueError> {
        let ended = || QueueError::LaneEnded { endpoint: Arc::clone(&self.endpoint) };
        for replay in replays {
            self.room.replay().await.map_err(|_closed| ended())?;
            let input = self.input.upgrade().ok_or_else(ended)?;
            input.send(LaneMessage::Replay(replay)).await.map_err(|_closed| ended())?;
        }
        Ok(())
    }
}
