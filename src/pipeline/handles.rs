//! Handles that stages share: status, metrics, the right to send, the state, sockets.

use std::sync::Arc;

use tokio::sync::Notify;
use tokio::sync::watch;

use crate::api::surface::RequestRefused;
use crate::clock::DatabaseClock;
use crate::config::configuration::Settings;
use crate::delivery::connection::network::DeliveryNetwork;
use crate::delivery::connection::sockets::Sockets;
use crate::lane::overflow_delay::WalHold;
use crate::ledger::backfilled::BackfillProgress;
use crate::ledger::live_feed::AttemptFeed;
use crate::ledger::replayed::ReplayProgress;
use crate::ledger::state_status::StateStatus;
use crate::ledger::stats::PushStats;
use crate::ledger::write_back::status::WriteBackStatus;
use crate::replication::slot_ownership::SlotOwnership;
use crate::replication::status::StatusHandle;
use crate::replication::wire::feedback::SlotRelease;
use crate::telemetry::metrics::WalhookMetrics;
use crate::telemetry::obstacles::NamedObstacles;
use crate::telemetry::otlp::tracer::EventTracer;
use crate::telemetry::samples::SampleHistory;

/// What stages tell and what others read.
#[derive(Clone)]
pub(crate) struct SharedHandles {
    pub(crate) clock: DatabaseClock,
    pub(crate) stats: Arc<PushStats>,
    pub(crate) status: StatusHandle,
    /// To the source.
    pub(crate) let_go: SlotRelease,
    /// From the source and the fence to the lanes.
    pub(crate) slot_ownership: SlotOwnership,
    /// Of all deliveries.
    pub(crate) sockets: Sockets,
    pub(crate) metrics: WalhookMetrics,
    /// `None` where no collector is to have traces.
    pub(crate) tracer: Option<EventTracer>,
    pub(crate) write_backs: WriteBackStatus,
    /// From the ledger and the probe.
    pub(crate) state: StateStatus,
    pub(crate) refused: RequestRefused,
    pub(crate) missing: RequestRefused,
    /// What stands in the way beside the stream and the state.
    pub(crate) obstacles: NamedObstacles,
    /// From the ledger to the resender.
    pub(crate) replayed: ReplayProgress,
    /// From the ledger to the backfills.
    pub(crate) backfills: BackfillProgress,
    /// From the ledger to the readers of `/api/v1/live`.
    pub(crate) feed: AttemptFeed,
    /// The last hour and day in numbers.
    pub(crate) samples: SampleHistory,
    /// From the HTTP surface to the resender: there is something to send again.
    pub(crate) asked: Arc<Notify>,
    /// From the observer to the pump: how much WAL waits for slow endpoints.
    pub(crate) wal_hold: WalHold,
    /// The configuration as it holds; from the administration to the observer.
    pub(crate) current: Arc<watch::Sender<Arc<Settings>>>,
}

impl SharedHandles {
    /// The way out of all deliveries.
    pub(crate) fn network(&self) -> DeliveryNetwork {
        DeliveryNetwork::system()
            .gated(self.slot_ownership.may_send())
            .within(self.sockets.clone())
            .counting(self.metrics.channel_errors())
    }

    /// Those of one partition's owner: with a right to send, and words about the state, of its own.
    pub(crate) fn of_partition(&self, settings: &Settings) -> Self {
        Self {
            slot_ownership: SlotOwnership::new(settings.postgres.wal_sender_timeout),
            status: StatusHandle::default(),
            state: StateStatus::default(),
            replayed: ReplayProgress::default(),
            backfills: BackfillProgress::default(),
            missing: RequestRefused::default(),
            ..self.clone()
        }
    }

    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            clock: DatabaseClock::new(settings.longest_life()),
            stats: Arc::new(PushStats::default()),
            status: StatusHandle::default(),
            let_go: SlotRelease::default(),
            write_backs: WriteBackStatus::default(),
            state: StateStatus::default(),
            refused: RequestRefused::default(),
            missing: RequestRefused::default(),
            obstacles: NamedObstacles::default(),
            slot_ownership: SlotOwnership::new(settings.postgres.wal_sender_timeout),
            sockets: Sockets::of_this_process(),
            replayed: ReplayProgress::default(),
            backfills: BackfillProgress::default(),
            feed: AttemptFeed::default(),
            samples: SampleHistory::default(),
            tracer: None,
            asked: Arc::new(Notify::new()),
            wal_hold: WalHold::new(settings.memory.hold_wal_bytes, settings.memory.hold_wal_time),
            current: Arc::new(watch::Sender::new(Arc::new(settings.clone()))),
            metrics: WalhookMetrics::new(
                settings.events.iter().map(|rule| &rule.table),
                settings.events.iter().map(|rule| &*rule.event_type),
                (
                    settings.endpoints.iter().map(|endpoint| &*endpoint.name),
                    settings.metrics.endpoint_series_max,
                ),
            ),
        }
    }
}
