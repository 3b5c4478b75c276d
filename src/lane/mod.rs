//! One lane per endpoint: order by key, capacity, batches, retry times, parking.
//!
//! ```text
//! pump ─ LaneSender ─▶ [task ─ Lane] ─ Lease ─▶ attempt ─ HttpExchange ─▶ [task] ─ LaneReport ─▶ ledger
//!          │  redelivery ─ ReplaySender ─▶ │             LaneServices               │
//!          └── waits for a place       └◀── read_backlog, of LaneServices ◀── backlog ◀──┘
//! ```
//!
//! | file | holds |
//! | --- | --- |
//! | `capacity` | The places of one lane |
//! | `cell` | A lane that is there while it has work |
//! | `core` | What a lane decides, without I/O |
//! | `error` | Why a lane has ended |
//! | `gauges` | What a lane holds and how it does |
//! | `in_flight` | The requests of one lane |
//! | `in_flight_total` | How many requests all lanes have in flight together |
//! | `message` | What comes into a lane |
//! | `overflow_delay` | How long a sender waits for a full lane |
//! | `samples` | Events, outcomes and services for the tests |
//! | `semaphore` | A counting semaphore whose number of places can change |
//! | `sender` | The ways into a lane: for events, changes, replays |
//! | `services` | What a lane has others do: requests, time, the right to send, the backlog |
//! | `settings` | What a lane has to know about its endpoint |
//! | `task` | The task around the core |
//!
//! `core` decides and does no I/O; `task` does what it says and owns it. Events come in through a
//! [`LaneSender`], which takes a place in the lane for each event first; a place becomes free when
//! the event's settlement has been handed to the ledger. So memory is bounded by the capacity.
//!
//! Pressure travels back to the sender while the endpoint answers, within the bounds of `WalHold`. Then,
//! and at once while the endpoint is out of order or disabled, events overflow into the backlog, where
//! there is one. They have places of their own, so that a slow ledger still makes the sender wait.

mod capacity;
pub(crate) mod cell;
pub(crate) mod core;
pub(crate) mod error;
pub(crate) mod gauges;
mod in_flight;
pub(crate) mod in_flight_total;
pub(crate) mod message;
pub(crate) mod overflow_delay;
mod semaphore;
pub(crate) mod sender;
pub(crate) mod services;
pub(crate) mod settings;
pub(crate) mod task;

#[cfg(test)]
mod backlog_tests;
#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::lane::cell::LaneCell;
use crate::lane::cell::LaneOpener;
use crate::lane::cell::WorkingLane;
use crate::lane::sender::LaneSender;
use crate::lane::settings::LaneSettings;
use crate::lane::task::LaneTask;

/// Messages between a sender and its lane. The events in them have their places already: this
/// bounds only the messages, and lets the sender go on while the lane's task is busy.
const MESSAGES_MAX: usize = 16;

/// Makes a lane: where its events go in, and the task that is to be run.
pub fn open(settings: LaneSettings) -> (LaneSender, LaneTask) {
    let name = Arc::clone(&settings.name);
    let (working, task) = WorkingLane::open(settings);
    (LaneSender::new(name, LaneCell::of(working)), task)
}

/// The way into a lane that is there only while it has work.
pub(crate) fn on_demand(endpoint: Arc<str>, opener: Arc<dyn LaneOpener>) -> LaneSender {
    LaneSender::new(endpoint, LaneCell::on_demand(opener))
}
