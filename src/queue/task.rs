//! The task around one lane: takes events in, makes the requests that the lane asks for, and
//! reports what came of them.
//!
//! Requests are polled in place, not spawned: they end with the lane, and need no hand-over to
//! another thread. Each turn takes all that has arrived and makes one report of all that ended.
//!
//! The ledger may be slow. Until it takes a report, requests in flight go on, but from
//! `ATTEMPTS_HELD_MAX` finished ones nothing is leased; settled events keep their places.
//!
//! On `stop` nothing is leased any more, what is in flight ends and is reported, and the rest comes
//! again after the restart. When the input closes instead, the task ends once all is settled.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::FutureExt;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::flow::event::Event;
use crate::flow::lease::Lease;
use crate::flow::settlement::Attempt;
use crate::flow::settlement::EndpointIndex;
use crate::flow::settlement::Report;
use crate::flow::time::Timestamp;
use crate::flow::verdict::Exchange;
use crate::queue::Gauges;
use crate::queue::MESSAGES_MAX;
use crate::queue::Room;
use crate::queue::error::QueueError;
use crate::queue::lane::Lane;
use crate::queue::lane::Now;
use crate::queue::lane::Place;
use crate::queue::settings::LaneSettings;

/// Finished attempts that wait for the ledger; each can hold a response of some 64 KiB.
pub(super) const ATTEMPTS_HELD_MAX: usize = 64;

/// A lane that is ready to run.
#[derive(Debug)]
pub struct LaneTask {
    lane: Lane,
    endpoint: EndpointIndex,
    name: Arc<str>,
    input: mpsc::Receiver<Vec<Arc<Event>>>,
    room: Arc<Room>,
    gauges: Arc<Gauges>,
    /// What the ledger has not taken yet.
    report: Report,
}

impl LaneTask {
    pub(super) fn new(
        settings: LaneSettings,
        input: mpsc::Receiver<Vec<Arc<Event>>>,
        room: Arc<Room>,
        gauges: Arc<Gauges>,
    ) -> Self {
        let (endpoint, name) = (settings.endpoint, Arc::clone(&settings.name));
        let (lane, report) = (Lane::new(settings), Report::default());
        Self { lane, endpoint, name, input, room, gauges, report }
    }

    /// Runs the lane until `stop`, or until its input has closed and everything is settled.
    ///
    /// `attempt` makes one request and gives the lease back with what came of it. `clock` tells
    /// the time on the database's clock.
    ///
    /// # Errors
    /// [`QueueError::LedgerEnded`] if nobody takes the reports.
    pub async fn run<A, F, C>(
        mut self,
        attempt: A,
        clock: C,
        reports: mpsc::Sender<Report>,
        stop: CancellationToken,
    ) -> Result<(), QueueError>
    where
        A: Fn(Lease) -> F,
        F: Future<Output = (Lease, Exchange)>,
        C: Fn() -> Timestamp,
    {
        let mut in_flight = FuturesUnordered::new();
        let mut arrived = Vec::with_capacity(MESSAGES_MAX);
        let (mut is_stopping, mut is_closed) = (false, false);
        let mut stopped = pin!(stop.cancelled());
        loop {
            let mut wake_at = None;
            if self.report.attempts.len() < ATTEMPTS_HELD_MAX {
                let now = Now { instant: Instant::now().into_std(), database: clock() };
                while let Some(lease) = self.lane.lease(now) {
                    in_flight.push(attempt(lease));
                }
                wake_at = self.lane.wake_at(now.instant).map(Instant::from_std);
            }
            self.note_settled();
            self.show();
            let is_done = is_stopping || (is_closed && self.lane.is_empty());
            if is_done && in_flight.is_empty() && self.report.is_empty() {
                return Ok(());
            }
            tokio::select! {
                biased; // stop first: a busy lane must not delay a shutdown
                () = &mut stopped, if !is_stopping => {
                    is_stopping = true;
                    self.stop();
                }
                Some((lease, exchange)) = in_flight.next() => {
                    self.finish(lease, exchange, clock());
                    // All that have ended by now go into one report.
                    while let Some(Some((lease, exchange))) = in_flight.next().now_or_never() {
                        self.finish(lease, exchange, clock());
                    }
                }
                place = reports.reserve(), if !self.report.is_empty() => {
                    let ended = |_closed| QueueError::LedgerEnded { endpoint: self.name.clone() };
                    self.hand_over(place.map_err(ended)?);
                }
                messages = self.input.recv_many(&mut arrived, MESSAGES_MAX),
                    if !is_closed && !is_stopping =>
                {
                    is_closed = messages == 0;
                    // The turn may have begun long ago.
                    let now = Now { instant: Instant::now().into_std(), database: clock() };
                    arrived.drain(..).flatten().for_each(|event| self.lane.offer(event, Place::Own, now));
                }
                () = tokio::time::sleep_until(wake_at.unwrap_or_else(Instant::now)),
                    if wake_at.is_some() => {}
            }
        }
    }

    /// Whoever is waiting for room is told at once: the shutdown may depend on it.
    fn stop(&mut self) {
        self.lane.stop();
        self.input.close();
        self.room.free.close();
    }

    fn finish(&mut self, lease: Lease, exchange: Exchange, finished: Timestamp) {
        let now = Now { instant: Instant::now().into_std(), database: finished };
        let retry_in = self.lane.complete(lease.id, &exchange, now, fastrand::f64());
        let endpoint = self.endpoint;
        self.report.attempts.push(Attempt { endpoint, lease, exchange, finished, retry_in });
    }

    fn note_settled(&mut self) {
        let settled = self.lane.take_settled();
        if self.report.settlements.is_empty() {
            self.report.settlements = settled;
        } else {
            self.report.settlements.extend(settled);
        }
    }

    fn hand_over(&mut self, place: mpsc::Permit<'_, Report>) {
        let report = std::mem::take(&mut self.report);
        self.room.free.add_permits(report.settlements.len());
        place.send(report);
    }

    /// Brings the gauges up to date, and logs what an operator should hear about.
    fn show(&self) {
        let counts = self.lane.counts();
        self.gauges.in_flight.store(counts.in_flight, Ordering::Relaxed);
        self.gauges.retrying.store(counts.retrying, Ordering::Relaxed);
        let (endpoint, is_slowed) = (&self.name, self.lane.is_slowed());
        if self.gauges.is_slowed.swap(is_slowed, Ordering::Relaxed) != is_slowed {
            if is_slowed {
                tracing::warn!(%endpoint, "endpoint fails: one request at a time until it answers");
            } else {
                tracing::info!(%endpoint, "endpoint answers again");
            }
        }
        let is_gone = self.lane.is_gone();
        if self.gauges.is_gone.swap(is_gone, Ordering::Relaxed) != is_gone {
            tracing::error!(
                %endpoint,
                "endpoint is gone (410): its events are dead letters until a restart"
            );
        }
    }
}

impl Drop for LaneTask {
    /// However the task ends, nobody may go on waiting for room.
    fn drop(&mut self) {
        self.room.free.close();
    }
}
