//! The sender of a lane: hands events over, waits for capacity (backpressure), lets the rest overflow.

use std::sync::Arc;
use std::sync::Weak;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::AcquireError;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::flow::backlog::BacklogStanding;
use crate::flow::event::Event;
use crate::lane::capacity::CapacityReservation;
use crate::lane::capacity::LaneAdmission;
use crate::lane::cell::ChangedLane;
use crate::lane::cell::LaneCell;
use crate::lane::cell::LaneView;
use crate::lane::cell::WorkingLane;
use crate::lane::error::QueueError;
use crate::lane::message::LaneChange;
use crate::lane::message::LaneMessage;
use crate::lane::message::ReplayedDelivery;
use crate::lane::overflow_delay::DelayLook;
use crate::lane::overflow_delay::LOOK_EVERY;
use crate::lane::overflow_delay::OverflowDelay;
use crate::lane::overflow_delay::OwnDelay;
use crate::lane::overflow_delay::WalHold;
use crate::lane::settings::LaneSettings;

/// Hands over to each lane its events, in order, as many as there is room for each time; waits until
/// all have taken theirs. If the future is dropped, the rest is not handed over.
///
/// While a lane has no room this waits: without a backlog for as long as it takes, and with one while
/// its endpoint answers, within the bounds of `wal_hold`; then the rest goes by way of the backlog, and
/// this waits only for the ledger. `is_any_idle` tells whether any lane has nothing to do meanwhile,
/// also one that gets none of the events.
///
/// # Errors
/// [`QueueError::LaneEnded`] if a lane takes no more events: it was stopped, or it failed.
pub(crate) async fn hand_over<'l>(
    shares: impl IntoIterator<Item = (&'l LaneSender, Vec<Arc<Event>>)>,
    wal_hold: &WalHold,
    is_any_idle: &(dyn Fn() -> bool + Sync),
) -> Result<(), QueueError> {
    let shares = shares.into_iter().filter(|(_, events)| !events.is_empty());
    let shares: Vec<_> = shares.collect();
    let overflow_delay = &OverflowDelay::begin(shares.len(), wal_hold, is_any_idle);
    let takes = shares.into_iter().map(|(lane, events)| lane.take(events, overflow_delay));
    join_all(takes).await.into_iter().collect()
}

/// Hands the source's events to a lane. When it is dropped, the lane's input is closed.
#[derive(Debug)]
pub struct LaneSender {
    endpoint: Arc<str>,
    cell: Arc<LaneCell>,
}

impl LaneSender {
    pub(super) fn new(endpoint: Arc<str>, cell: Arc<LaneCell>) -> Self {
        Self { endpoint, cell }
    }

    /// Hands over all events to this lane alone, as [`hand_over`] does, and as if the WAL could hold
    /// no more.
    ///
    /// # Errors
    /// As [`hand_over`].
    pub async fn send(&self, events: Vec<Arc<Event>>) -> Result<(), QueueError> {
        let wal_hold = WalHold::new(0, Duration::ZERO);
        hand_over([(self, events)], &wal_hold, &|| false).await
    }

    /// Has the lane be there, with what its backlog holds at the start.
    pub(crate) fn begin(&self, standing: Option<BacklogStanding>) {
        let with_backlog = |mut settings: LaneSettings| {
            settings.parking.iter_mut().for_each(|parking| parking.standing = standing);
            settings
        };
        self.cell.working_with(with_backlog);
    }

    /// Whether the lane has nothing to do, and would take events.
    pub fn is_idle(&self) -> bool {
        let lane = self.cell.present();
        lane.is_none_or(|lane| {
            lane.capacity.held() == 0 && lane.capacity.admission() == LaneAdmission::Accept
        })
    }

    #[cfg(test)]
    pub(super) fn is_there(&self) -> bool {
        self.cell.present().is_some()
    }

    /// Whether so many events of a backfill may come: the lane has no more in it than keeps its endpoint
    /// busy, so that what is live waits behind few, or sends them on to its backlog.
    pub fn is_roomy(&self, events: usize) -> bool {
        let Some(lane) = self.cell.present() else { return true };
        if lane.capacity.admission() == LaneAdmission::Overflow {
            return lane.capacity.takes_overflow(events);
        }
        lane.capacity.held() <= lane.busy().saturating_mul(2).min(lane.settings.capacity.get() / 2)
    }

    /// Whether the endpoint is about to have nothing to do: more may come at once than the last time.
    pub fn is_nearly_idle(&self) -> bool {
        let Some(lane) = self.cell.present() else { return true };
        match lane.capacity.admission() {
            LaneAdmission::Overflow => lane.capacity.held() == 0,
            LaneAdmission::Accept | LaneAdmission::AcceptOrOverflow => {
                lane.capacity.held() <= lane.busy() / 2
            }
        }
    }

    async fn take(
        &self,
        events: Vec<Arc<Event>>,
        overflow_delay: &OverflowDelay<'_>,
    ) -> Result<(), QueueError> {
        self.cell.working().take(events, overflow_delay).await.map_err(|_closed| self.ended())
    }

    /// Tells the lane that all events have been sent again that were taken before walhook started.
    /// Until then, or until an event arrives that is newer than its backlog, it reads nothing from
    /// the backlog: something older may be on its way.
    ///
    /// # Errors
    /// As [`hand_over`].
    pub async fn caught_up(&self) -> Result<(), QueueError> {
        match self.cell.catch_up() {
            Some(lane) => self.tell(lane, LaneMessage::CaughtUp).await,
            None => Ok(()),
        }
    }

    /// Whether the endpoint takes batches, so that [`LaneSender::rest`] matters to it.
    pub fn gathers(&self) -> bool {
        self.cell.present().is_some_and(|lane| lane.gauges.gathers())
    }

    /// Tells the lane that nothing more is on its way at the moment: what is there need not wait for
    /// it.
    ///
    /// # Errors
    /// As [`hand_over`].
    pub async fn rest(&self) -> Result<(), QueueError> {
        match self.cell.present() {
            Some(lane) => self.tell(lane, LaneMessage::Rest).await,
            None => Ok(()),
        }
    }

    async fn tell(&self, lane: WorkingLane, message: LaneMessage) -> Result<(), QueueError> {
        lane.input.send(message).await.map_err(|_closed| self.ended())
    }

    /// A way in for what is sent again. It does not keep the lane's input open.
    pub fn replays(&self) -> ReplaySender {
        ReplaySender { endpoint: Arc::clone(&self.endpoint), cell: Arc::downgrade(&self.cell) }
    }

    /// A way to change the lane; like this one, it keeps the lane's input open.
    pub fn control(&self) -> LaneControl {
        LaneControl { endpoint: Arc::clone(&self.endpoint), cell: Arc::clone(&self.cell) }
    }

    /// A view of the lane for metrics and status; it can outlive both.
    pub fn view(&self) -> LaneView {
        self.cell.view()
    }

    fn ended(&self) -> QueueError {
        QueueError::LaneEnded { endpoint: Arc::clone(&self.endpoint) }
    }
}

/// The lane takes nothing any more.
struct InputClosed;

impl From<AcquireError> for InputClosed {
    fn from(_closed: AcquireError) -> Self {
        Self
    }
}

impl WorkingLane {
    /// How many events keep the endpoint busy.
    fn busy(&self) -> usize {
        self.settings.concurrency.get().saturating_mul(self.settings.batch.size.get())
    }

    async fn take(
        &self,
        mut events: Vec<Arc<Event>>,
        overflow_delay: &OverflowDelay<'_>,
    ) -> Result<(), InputClosed> {
        while !events.is_empty() {
            let Some(places) = self.enter(&events, overflow_delay).await? else { break };
            self.pass_on(&mut events, places, LaneMessage::Events).await?;
        }
        while !events.is_empty() {
            let places = self.capacity.overflow(events.len()).await?;
            self.pass_on(&mut events, places, LaneMessage::Overflow).await?;
        }
        Ok(())
    }

    /// Places for the first of the events; `None` if all are to go by way of the backlog.
    async fn enter(
        &self,
        events: &[Arc<Event>],
        overflow_delay: &OverflowDelay<'_>,
    ) -> Result<Option<CapacityReservation<'_>>, AcquireError> {
        let weights: Vec<usize> = events.iter().map(|event| self.settings.weight(event)).collect();
        if !self.capacity.has_backlog() {
            return self.capacity.enter(&weights).await.map(Some);
        }
        if self.capacity.admission() == LaneAdmission::Overflow {
            return Ok(None);
        }
        let since = Instant::now();
        tokio::select! {
            biased; // a place that is free is taken, whatever else
            places = self.capacity.enter(&weights) => places.map(Some),
            () = self.capacity.other_admission() => Ok(None),
            () = self.waited_enough(since, overflow_delay) => Ok(None),
        }
    }

    async fn waited_enough(&self, since: Instant, overflow_delay: &OverflowDelay<'_>) {
        let mut own = OwnDelay::default();
        loop {
            let looked = Instant::now();
            tokio::time::sleep(LOOK_EVERY).await;
            let mut progress = self.gauges.progress();
            progress.stood_still = own.passed(looked.elapsed(), &progress);
            match overflow_delay.look(since, progress) {
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
    ) -> Result<(), InputClosed> {
        let rest = events.split_off(places.places());
        let first = std::mem::replace(events, rest);
        self.input.send(message(first)).await.map_err(|_closed| InputClosed)?;
        places.used();
        Ok(())
    }
}

/// Changes a lane while it runs, in the order in which it is told, and after the events that came
/// before. The lane's input is closed when this and the [`LaneSender`] are dropped.
#[derive(Debug)]
pub struct LaneControl {
    endpoint: Arc<str>,
    cell: Arc<LaneCell>,
}

impl LaneControl {
    /// Tells the lane. It takes no longer than the lane's turn: nothing in it waits for room.
    ///
    /// # Errors
    /// [`QueueError::LaneEnded`] if the lane was stopped, or failed.
    pub async fn change(&self, change: LaneChange) -> Result<(), QueueError> {
        let ChangedLane::Working(lane) = self.cell.changed(&change) else { return Ok(()) };
        let sent = lane.input.send(LaneMessage::Change(change)).await;
        sent.map_err(|_closed| QueueError::LaneEnded { endpoint: Arc::clone(&self.endpoint) })
    }
}

/// Hands deliveries to a lane that an operator sends again.
#[derive(Clone, Debug)]
pub struct ReplaySender {
    endpoint: Arc<str>,
    cell: Weak<LaneCell>,
}

impl ReplaySender {
    /// Hands over all of them, in order; waits while the lane has no room. They get the full retry
    /// schedule, are never parked, and their settlements say which replays they are. What is not
    /// settled when walhook ends is nowhere but where it was read from.
    ///
    /// # Errors
    /// [`QueueError::LaneEnded`] if the lane takes no more events. What came before is taken.
    pub async fn send(&self, replays: Vec<ReplayedDelivery>) -> Result<(), QueueError> {
        for replay in replays {
            let input = self.input().await.ok_or_else(|| self.ended())?;
            input.send(LaneMessage::Replay(replay)).await.map_err(|_closed| self.ended())?;
        }
        Ok(())
    }

    /// The way in, with a place for one.
    async fn input(&self) -> Option<mpsc::Sender<LaneMessage>> {
        loop {
            // While it waits it must not keep the input open.
            let (capacity, input) = {
                let lane = self.cell.upgrade()?.working();
                (lane.capacity, lane.input.downgrade())
            };
            capacity.replay().await.ok()?;
            if let Some(input) = input.upgrade() {
                return Some(input);
            }
            // It has gone to rest meanwhile: this place went with it.
        }
    }

    fn ended(&self) -> QueueError {
        QueueError::LaneEnded { endpoint: Arc::clone(&self.endpoint) }
    }
}
