//! The task around one lane: takes events in, makes the requests that the lane asks for, and
//! reports what came of them.
//!
//! Requests are polled in place, not spawned: they end with the lane, and need no hand-over to
//! another thread. Each turn takes all that has arrived. What has ended gathers for a moment: a report
//! wakes the ledger on its thread, and in strict order one for each delivery takes a quarter of the rate.
//!
//! The ledger may be slow. Until it takes a report, requests in flight go on, but from
//! `ATTEMPTS_HELD_MAX` finished ones nothing is leased; settled events keep their places.
//!
//! With nothing to do for long the task gives back what it needs for work and is dormant; where a new lane would
//! do the same from here on it goes, and is opened again when there is something: see `cell`.
//!
//! On `stop` nothing is leased any more, what is in flight ends and is reported, and the rest comes
//! again after the restart. When the input closes instead, the task ends once the WAL owes nothing:
//! what is parked comes from the backlog after the restart. It also ends when its endpoint is removed
//! and nothing is owed to it any more.

mod published_state;
mod report;

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::sync::Weak;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::flow::backlog::RefilledRow;
use crate::flow::lease::Lease;
use crate::flow::report_queue::ReportSender;
use crate::flow::settlement::EndpointIndex;
use crate::flow::settlement::LaneReport;
use crate::lane::MESSAGES_MAX;
use crate::lane::capacity::LaneCapacity;
use crate::lane::core::LaneNow;
use crate::lane::core::LaneState;
use crate::lane::core::counts::DeliveryPlace;
use crate::lane::core::counts::FreedDelivery;
use crate::lane::core::spill::RefillWanted;
use crate::lane::error::QueueError;
use crate::lane::gauges::LaneGauges;
use crate::lane::in_flight::RequestsInFlight;
use crate::lane::in_flight_total::InFlightPart;
use crate::lane::in_flight_total::InFlightTotal;
use crate::lane::message::LaneChange;
use crate::lane::message::LaneMessage;
use crate::lane::message::ReplayedDelivery;
use crate::lane::services::LaneServices;
use crate::lane::settings::LaneSettings;

/// Finished attempts that wait for the ledger; each can hold a response of some 64 KiB.
pub(super) const ATTEMPTS_HELD_MAX: usize = 64;

/// How long a lane has nothing to do before it is dormant: somewhat longer than connections are kept.
const DORMANT_AFTER: Duration = Duration::from_secs(60);

/// How often a lane that may send nothing asks whether it may.
const FENCE_POLL: Duration = Duration::from_millis(250);

/// Where a lane goes when it has nothing to do.
pub(super) trait LaneRest: fmt::Debug + Send + Sync {
    /// The lane goes, unless a sender has a way into it or `is_busy` says that something has come.
    fn rest(&self, is_busy: &dyn Fn() -> bool) -> bool;
}

/// A lane that is ready to run.
#[derive(Debug)]
pub struct LaneTask {
    lane: LaneState,
    settings: LaneSettings,
    endpoint: EndpointIndex,
    name: Arc<str>,
    input: mpsc::Receiver<LaneMessage>,
    capacity: Arc<LaneCapacity>,
    gauges: Arc<LaneGauges>,
    /// What the ledger has not taken yet.
    report: LaneReport,
    /// When it is handed over at the latest.
    report_due: Option<Instant>,
    /// The places that become free when it has.
    freed: FreedDelivery,
    is_backlog_away: bool,
    /// Nothing is leased any more.
    is_stopping: bool,
    /// Nothing more comes in.
    is_closed: bool,
    /// Changes when the memory budget wants something back for something large.
    pressure: Option<watch::Receiver<u64>>,
    /// What it has of the requests that all lanes have in flight.
    part: InFlightPart,
    /// `None`: it never rests.
    rest: Option<Weak<dyn LaneRest>>,
}

/// Why a lane works no more.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum WorkEnd {
    /// It has had nothing to do for long.
    Dormant,
    /// Nothing is left to do, ever.
    Over,
}

/// This moment, by both clocks.
fn now(services: &impl LaneServices) -> LaneNow {
    LaneNow { instant: Instant::now().into_std(), database: services.database_now() }
}

/// Ends when the memory budget wants something back; never without one.
async fn pressed(pressure: &mut Option<watch::Receiver<u64>>) {
    if let Some(told) = pressure {
        if told.changed().await.is_ok() {
            return;
        }
        *pressure = None; // the budget is gone with everything else
    }
    std::future::pending().await
}

impl LaneTask {
    pub(super) fn new(
        settings: LaneSettings,
        input: mpsc::Receiver<LaneMessage>,
        capacity: Arc<LaneCapacity>,
        gauges: Arc<LaneGauges>,
    ) -> Self {
        let (endpoint, name) = (settings.endpoint, Arc::clone(&settings.name));
        gauges.set_gathers(settings.batch.size.get() > 1);
        Self {
            lane: LaneState::new(settings.clone()),
            settings,
            endpoint,
            name,
            input,
            capacity,
            gauges,
            report: LaneReport::default(),
            report_due: None,
            freed: FreedDelivery::default(),
            is_backlog_away: false,
            is_stopping: false,
            is_closed: false,
            pressure: None,
            part: InFlightTotal::default().part(),
            rest: None,
        }
    }

    /// Has the lane go when it has nothing to do for long.
    pub(super) fn resting_in(mut self, rest: Weak<dyn LaneRest>) -> Self {
        self.rest = Some(rest);
        self
    }

    /// Goes, if it would come back as it is; then it is to be dropped.
    pub(crate) fn goes_to_rest(&mut self) -> bool {
        let Some(rest) = self.rest.as_ref().and_then(Weak::upgrade) else { return false };
        self.is_dormant() && self.lane.is_as_new() && rest.rest(&|| !self.input.is_empty())
    }

    /// Has the lane share its number of requests in flight with others.
    #[must_use]
    pub fn counted_in(mut self, total: &InFlightTotal) -> Self {
        self.part = total.part();
        self.gauges.counted_in(total);
        self
    }

    /// Has the lane give back what it holds in memory and the backlog has, too, when `pressure` changes.
    #[must_use]
    pub fn pressed_by(mut self, pressure: watch::Receiver<u64>) -> Self {
        self.pressure = Some(pressure);
        self
    }

    /// Runs the lane until `stop`, or until its input has closed and all that is owed is settled or
    /// parked.
    ///
    /// # Errors
    /// [`QueueError::LedgerEnded`] if nobody takes the reports.
    pub async fn run(
        mut self,
        services: &impl LaneServices,
        reports: ReportSender,
        stop: CancellationToken,
    ) -> Result<(), QueueError> {
        loop {
            self.wait_for_work(services, &stop).await;
            // Apart: a lane that waits holds nothing of it.
            let work = self.work(services, &reports, &stop);
            if Box::pin(work).await? == WorkEnd::Over || self.goes_to_rest() {
                return Ok(());
            }
        }
    }

    /// Waits until there is something to do.
    pub(crate) async fn wait_for_work(
        &mut self,
        services: &impl LaneServices,
        stop: &CancellationToken,
    ) {
        while self.is_dormant() {
            let message = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                message = self.input.recv() => message,
            };
            let now = now(services);
            match message {
                Some(message) => self.take_in(message, now),
                None => self.close(now),
            }
            self.free_places();
            self.show();
        }
    }

    /// Works until the lane is dormant or ends, as [`LaneTask::run`] does.
    ///
    /// # Errors
    /// As [`LaneTask::run`].
    pub(crate) async fn work(
        &mut self,
        services: &impl LaneServices,
        reports: &ReportSender,
        stop: &CancellationToken,
    ) -> Result<WorkEnd, QueueError> {
        let mut in_flight = RequestsInFlight::new();
        let mut pages = FuturesUnordered::new(); // one at a time
        let mut arrived = Vec::with_capacity(MESSAGES_MAX);
        let mut dormant_from = None;
        let mut stopped = pin!(stop.cancelled());
        loop {
            self.free_places();
            let mut wake_at = None;
            if self.report.attempts.len() < ATTEMPTS_HELD_MAX {
                let (now, may_send) = (now(services), services.may_send());
                let start = |lease| in_flight.start(services.attempt(lease));
                wake_at = self.start_ready(now, may_send, start).map(Instant::from_std);
                if let Some(RefillWanted { after, limit }) = self.want_page(now.instant, may_send) {
                    pages.push(services.read_backlog(after, limit));
                }
            }
            self.note_settled();
            self.show();
            let is_done = self.lane.is_deleted() && self.lane.is_empty();
            if self.is_closed && self.lane.is_durable() || is_done {
                self.lane.stop();
                self.is_stopping = true;
            }
            if self.is_stopping && in_flight.is_empty() && self.report.is_empty() {
                return Ok(WorkEnd::Over);
            }
            let is_idle = in_flight.is_empty() && pages.is_empty() && self.is_dormant();
            dormant_from = is_idle.then(|| dormant_from.unwrap_or(Instant::now() + DORMANT_AFTER));
            if dormant_from.is_some_and(|from| from <= Instant::now()) {
                self.lane.give_back_memory();
                return Ok(WorkEnd::Dormant);
            }
            let (is_due, due) = self.look_at_report(in_flight.is_empty());
            self.gauges.set_waits_for_ledger(is_due);
            let wake_at = wake_at.into_iter().chain(due).chain(dormant_from).min();
            tokio::select! {
                biased; // stop first: a busy lane must not delay a shutdown
                () = &mut stopped, if !self.is_stopping => {
                    self.is_stopping = true;
                    self.stop();
                }
                Some((lease, exchange)) = in_flight.next() => {
                    self.finish(lease, exchange, services.database_now());
                    // All that have ended by now go into one report.
                    while let Some(Some((lease, exchange))) = in_flight.next().now_or_never() {
                        self.finish(lease, exchange, services.database_now());
                    }
                }
                Some(page) = pages.next() => self.take_page(page, now(services)),
                place = reports.reserve(self.report.room()), if is_due => {
                    let ended = |_closed| QueueError::LedgerEnded { endpoint: self.name.clone() };
                    self.hand_over(place.map_err(ended)?);
                }
                messages = self.input.recv_many(&mut arrived, MESSAGES_MAX),
                    if !self.is_closed && !self.is_stopping =>
                {
                    // The turn may have begun long ago.
                    let now = now(services);
                    if messages == 0 {
                        self.close(now);
                    }
                    arrived.drain(..).for_each(|message| self.take_in(message, now));
                }
                () = pressed(&mut self.pressure), if !self.is_stopping => self.lane.evict(now(services)),
                () = tokio::time::sleep_until(wake_at.unwrap_or_else(Instant::now)),
                    if wake_at.is_some() => {}
            }
        }
    }

    /// Whether there is nothing to do, nor anything to come back to by itself.
    fn is_dormant(&self) -> bool {
        let has_ended = self.is_closed || self.is_stopping;
        let owes_nothing = self.report.is_empty() && self.freed == FreedDelivery::default();
        !has_ended && owes_nothing && self.lane.is_dormant()
    }

    fn close(&mut self, now: LaneNow) {
        self.is_closed = true;
        self.lane.close(now);
    }

    /// Starts what may start. Returns when to look again if nothing happens.
    fn start_ready(
        &mut self,
        now: LaneNow,
        may_send: bool,
        mut start: impl FnMut(Lease),
    ) -> Option<std::time::Instant> {
        if !may_send {
            return Some(now.instant + FENCE_POLL);
        }
        self.lane.tick(now);
        self.lane.bound(self.part.note(self.lane.requests()));
        while let Some(lease) = self.lane.lease(now) {
            start(lease);
        }
        self.part.note(self.lane.requests());
        self.lane.wake_at(now.instant)
    }

    /// The page of the backlog that the lane can take, if there are places for it.
    fn want_page(&mut self, now: std::time::Instant, may_send: bool) -> Option<RefillWanted> {
        let capacity = if may_send { self.lane.refill_room(now) } else { 0 };
        if capacity == 0 {
            return None;
        }
        let granted = self.capacity.take(capacity.saturating_sub(self.lane.reserved()));
        self.lane.start_refill(granted, now)
    }

    fn take_page<E: fmt::Display>(&mut self, page: Result<Vec<RefilledRow>, E>, now: LaneNow) {
        let endpoint = &self.name;
        match page {
            Ok(rows) => {
                if std::mem::take(&mut self.is_backlog_away) {
                    tracing::info!(%endpoint, "the backlog can be read again");
                }
                let mut taken = 0;
                let has_room = |row: &RefilledRow| {
                    let weight = self.settings.weight(&row.event);
                    let has_room = self.capacity.take_weight(weight);
                    taken += if has_room { weight } else { 0 };
                    has_room
                };
                // The rest is read again when there is room.
                let rows = rows.into_iter().take_while(has_room).collect();
                self.lane.refilled(rows, now);
                self.capacity.give_back_weight(taken - self.lane.take_loaded());
            }
            Err(error) => {
                if !std::mem::replace(&mut self.is_backlog_away, true) {
                    tracing::warn!(%endpoint, %error, "cannot read the backlog, trying again");
                }
                self.lane.refill_failed(now.instant);
            }
        }
    }

    fn take_in(&mut self, message: LaneMessage, now: LaneNow) {
        match message {
            LaneMessage::Events(events) => {
                events
                    .into_iter()
                    .for_each(|event| self.lane.offer(event, DeliveryPlace::Own, now));
            }
            LaneMessage::Overflow(events) => {
                let place = DeliveryPlace::Overflow;
                events.into_iter().for_each(|event| self.lane.offer(event, place, now));
            }
            LaneMessage::Replay(ReplayedDelivery { id, event }) => self.lane.replay(event, id, now),
            LaneMessage::CaughtUp => self.lane.caught_up(),
            LaneMessage::Rest => self.lane.rest(),
            LaneMessage::Change(LaneChange::Settings(settings)) => {
                self.capacity.resize(settings.capacity);
                self.gauges.set_gathers(settings.batch.size.get() > 1);
                self.name = Arc::clone(&settings.name);
                self.lane.reconfigure(*settings, now);
            }
            LaneMessage::Change(LaneChange::Disable) => self.lane.disable(now),
            LaneMessage::Change(LaneChange::Enable) => self.lane.enable(),
            LaneMessage::Change(LaneChange::Pause) => self.lane.pause(now),
            LaneMessage::Change(LaneChange::Resume) => self.lane.resume(),
            LaneMessage::Change(LaneChange::TryNow) => self.lane.try_now(now),
            LaneMessage::Change(LaneChange::Delete) => self.lane.delete(),
        }
    }

    /// Senders that wait for room are told at once: the shutdown may depend on it.
    fn stop(&mut self) {
        self.lane.stop();
        self.input.close();
        self.capacity.close();
    }
}

impl Drop for LaneTask {
    /// However the task ends, nobody may go on waiting for room.
    fn drop(&mut self) {
        self.capacity.close();
    }
}
