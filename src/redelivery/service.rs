//! What the sending again is made of: its settings and limits, its share of memory, its ways into lanes.

use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;

use tokio::sync::Notify;

use crate::clock::DatabaseClock;
use crate::config::settings::DeadLetterSettings;
use crate::endpoints::registry::RegistryHandle;
use crate::flow::budget::MemoryBudget;
use crate::flow::partition::PartitionNumber;
use crate::lane::error::QueueError;
use crate::lane::sender::ReplaySender;
use crate::ledger::replayed::ReplayProgress;
use crate::redelivery::recount::LetterRecount;
use crate::store::ownership::StateOwnership;
use crate::store::session::session_pool::SessionPool;
use crate::store::state_error::StateError;
use crate::telemetry::metrics::EndpointMetrics;
use crate::telemetry::metrics::WalhookMetrics;

/// How soon a request is seen that nobody told us of, such as one by way of another process.
pub(super) const POLL: Duration = Duration::from_secs(5);

/// Letters of one endpoint that are in memory at once, and the bytes of their bodies.
pub(super) const PORTION_ROWS: usize = 64;
pub(super) const PORTION_BYTES: usize = 1 << 20;

/// How often a worker looks for room in that share.
pub(super) const ROOM_POLL: Duration = Duration::from_millis(100);

/// First and longest wait while the state's database is away.
pub(super) const AWAY_FIRST: Duration = Duration::from_millis(200);
pub(super) const AWAY_CAP: Duration = Duration::from_secs(5);

/// What sending again needs.
pub(crate) struct RedeliveryService {
    pub(super) pool: SessionPool,
    pub(super) ownership: StateOwnership,
    pub(super) settings: DeadLetterSettings,
    pub(super) clock: DatabaseClock,
    /// Shared with the source and the lanes.
    pub(super) budget: MemoryBudget,
    /// Out of `budget`, what replays can have.
    pub(super) own_budget: MemoryBudget,
    pub(super) replayed: ReplayProgress,
    pub(super) metrics: WalhookMetrics,
    pub(super) asked: Arc<Notify>,
    pub(super) recount: LetterRecount,
    pub(super) registry: Arc<OnceLock<RegistryHandle>>,
    /// How many partitions the source has: those of others send for themselves. `None`: all are ours.
    pub(super) partitions: Option<NonZeroU16>,
}

impl RedeliveryService {
    /// Whether an endpoint of this name is ours to send to, whether there is one or not.
    pub(super) fn is_ours(&self, endpoint: &str) -> bool {
        self.partitions.is_none_or(|count| {
            PartitionNumber::of_endpoint(endpoint, count) == self.ownership.partition()
        })
    }
}

/// The way into the lane of an endpoint.
pub(crate) struct ClaimKind {
    pub(super) replays: ReplaySender,
    pub(super) metrics: Arc<EndpointMetrics>,
}

/// Why a worker ended before its work was done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResendError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Lane(#[from] QueueError),
}
