//! One lane per endpoint: order by key, capacity, batches, retry times.
//!
//! ```text
//! pump ─ LaneSender ─▶ [task ─ Lane] ─ Lease ─▶ attempt ─ Exchange ─▶ [task] ─ Report ─▶ ledger
//!          waits while the lane is full         given by app
//! ```
//!
//! `lane` decides and does no I/O; `task` does what it says and owns it. Events come in through a
//! [`LaneSender`], which takes a place in the lane for each event first; a place becomes free when
//! the event's settlement has been handed to the ledger. So memory is bounded by the capacity, and
//! pressure travels back to whoever sends.

pub mod error;
pub mod lane;
pub mod settings;
pub mod task;

#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use tokio::sync::Semaphore;
use tokio::sync::mpsc;

use crate::flow::event::Event;
use crate::queue::error::QueueError;
use crate::queue::lane::Counts;
use crate::queue::settings::LaneSettings;
use crate::queue::task::LaneTask;

/// Messages between a sender and its lane. The events in them have their places already: this
/// bounds only the messages, and lets the sender go on while the lane's task is busy.
const MESSAGES_MAX: usize = 16;

/// Makes a lane: where its events go in, and the task that is to be run.
pub fn open(settings: LaneSettings) -> (LaneSender, LaneTask) {
    // Tokio's own limit is far beyond what fits in memory.
    let places = settings.capacity.get().min(Semaphore::MAX_PERMITS);
    let room = Arc::new(Room { free: Semaphore::new(places), places });
    let gauges = Arc::new(Gauges { room: Arc::clone(&room), ..Gauges::default() });
    let (input, received) = mpsc::channel(MESSAGES_MAX);
    let endpoint = Arc::clone(&settings.name);
    let sender =
        LaneSender { endpoint, input, room: Arc::clone(&room), gauges: Arc::clone(&gauges) };
    (sender, LaneTask::new(settings, received, room, gauges))
}

/// Hands events to a lane.
#[derive(Debug)]
pub struct LaneSender {
    endpoint: Arc<str>,
    input: mpsc::Sender<Vec<Arc<Event>>>,
    room: Arc<Room>,
    gauges: Arc<Gauges>,
}

impl LaneSender {
    /// Hands over all events, in order; waits while the lane has no room, and hands over as many
    /// as there is room for each time. If the future is dropped, the rest is not handed over.
    ///
    /// # Errors
    /// [`QueueError::LaneEnded`] if the lane takes no more events: it was stopped, or it failed.
    pub async fn send(&self, mut events: Vec<Arc<Event>>) -> Result<(), QueueError> {
        let ended = || QueueError::LaneEnded { endpoint: Arc::clone(&self.endpoint) };
        while !events.is_empty() {
            let mut places = self.room.free.acquire().await.map_err(|_closed| ended())?;
            let more = (events.len() - 1).min(self.room.free.available_permits());
            let more = u32::try_from(more).unwrap_or(u32::MAX);
            if let Ok(others) = self.room.free.try_acquire_many(more) {
                places.merge(others);
            }
            let rest = events.split_off(places.num_permits());
            let first = std::mem::replace(&mut events, rest);
            self.input.send(first).await.map_err(|_closed| ended())?;
            places.forget(); // the lane gives them back
        }
        Ok(())
    }

    /// A view of the lane for metrics and status; it can outlive both.
    pub fn gauges(&self) -> Arc<Gauges> {
        Arc::clone(&self.gauges)
    }
}

/// The places of one lane.
#[derive(Debug)]
struct Room {
    free: Semaphore,
    places: usize,
}

impl Default for Room {
    fn default() -> Self {
        Self { free: Semaphore::new(0), places: 0 }
    }
}

/// What a lane holds and how it does, to be read at any time by anyone.
#[derive(Debug, Default)]
pub struct Gauges {
    room: Arc<Room>,
    in_flight: AtomicUsize,
    retrying: AtomicUsize,
    is_gone: AtomicBool,
    is_slowed: AtomicBool,
}

impl Gauges {
    /// Events that are owed: handed over, and not yet reported to the ledger as settled.
    pub fn counts(&self) -> Counts {
        let held = self.room.places - self.room.free.available_permits().min(self.room.places);
        let in_flight = self.in_flight.load(Ordering::Relaxed);
        let retrying = self.retrying.load(Ordering::Relaxed);
        let queued = held.saturating_sub(in_flight + retrying);
        Counts { queued, in_flight, retrying, ..Counts::default() }
    }

    /// Whether the endpoint said that it is gone for good (410).
    pub fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Relaxed)
    }

    /// Whether fewer requests are made at once than configured, because of an outage.
    pub fn is_slowed(&self) -> bool {
        self.is_slowed.load(Ordering::Relaxed)
    }
}
