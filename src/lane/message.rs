//! Messages to a lane: events, replays, changes of its endpoint.

use std::sync::Arc;

use crate::flow::event::Event;
use crate::flow::settlement::ReplayId;
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
