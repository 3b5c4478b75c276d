//! What stages tell, and what others read of it.

use std::sync::Arc;

use tokio::sync::Notify;
use tokio::sync::watch;

use crate::api::Refused;
use crate::clock::DatabaseClock;
use crate::config::settings::Settings;
use crate::lane::overflow_delay::WalHold;
use crate::ledger::replayed::Replayed;
use crate::ledger::state_status::StateStatus;
use crate::ledger::stats::Stats;
use crate::ledger::write_back::WriteBackStatus;
use crate::replication::slot_ownership::Hold;
use crate::replication::status::StatusHandle;
use crate::replication::wire::feedback::LetGo;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::obstacles::Obstacles;

/// What stages tell and what others read.
#[derive(Clone)]
pub(crate) struct Handles {
    pub(crate) clock: DatabaseClock,
    pub(crate) stats: Arc<Stats>,
    pub(crate) status: StatusHandle,
    /// To the source.
    pub(crate) let_go: LetGo,
    /// From the source and the fence to the lanes.
    pub(crate) hold: Hold,
    pub(crate) metrics: Metrics,
    pub(crate) write_backs: WriteBackStatus,
    /// From the ledger and the probe.
    pub(crate) state: StateStatus,
    pub(crate) refused: Refused,
    pub(crate) missing: Refused,
    /// What stands in the way beside the stream and the state.
    pub(crate) obstacles: Obstacles,
    /// From the ledger to the resender.
    pub(crate) replayed: Replayed,
    /// From the HTTP surface to the resender: somebody has asked.
    pub(crate) asked: Arc<Notify>,
    /// From the observer to the pump: how much WAL waits for slow endpoints.
    pub(crate) wal_hold: WalHold,
    /// The configuration as it holds; from the desk to the observer.
    pub(crate) current: Arc<watch::Sender<Arc<Settings>>>,
}

impl Handles {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            clock: DatabaseClock::new(settings.longest_life()),
            stats: Arc::new(Stats::default()),
            status: StatusHandle::default(),
            let_go: LetGo::default(),
            write_backs: WriteBackStatus::default(),
            state: StateStatus::default(),
            refused: Refused::default(),
            missing: Refused::default(),
            obstacles: Obstacles::default(),
            hold: Hold::new(settings.postgres.wal_sender_timeout),
            replayed: Replayed::default(),
            asked: Arc::new(Notify::new()),
            wal_hold: WalHold::new(settings.memory.hold_wal_bytes, settings.memory.hold_wal_time),
            current: Arc::new(watch::Sender::new(Arc::new(settings.clone()))),
            metrics: Metrics::new(
                settings.events.iter().map(|rule| &rule.table),
                settings.events.iter().map(|rule| &*rule.event_type),
                settings.endpoints.iter().map(|endpoint| &*endpoint.name),
            ),
        }
    }
}
