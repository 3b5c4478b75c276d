//! The sessions, settings and handles that every backfill of this process shares.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;

use crate::backfill::pump_orders::BackfillSender;
use crate::clock::DatabaseClock;
use crate::config::configuration::Settings;
use crate::config::settings::ServerSettings;
use crate::ledger::backfilled::BackfillProgress;
use crate::store::ownership::StateOwnership;
use crate::store::session::session_pool::SessionPool;
use crate::telemetry::metrics::WalhookMetrics;

/// Sessions to the state, for all of them.
const SESSIONS: usize = 2;
const STATEMENT_MAX: Duration = Duration::from_secs(20);

/// Handles to the source, the state, the pump and the ledger.
pub(crate) struct BackfillContext {
    pub(super) source: ServerSettings,
    /// Where rows are read, if not there.
    pub(super) standby: Option<ServerSettings>,
    pub(super) publication: String,
    pub(super) ownership: StateOwnership,
    pub(super) pool: SessionPool,
    pub(super) orders: BackfillSender,
    pub(super) progress: BackfillProgress,
    pub(super) clock: DatabaseClock,
    pub(super) metrics: WalhookMetrics,
    /// The configuration as it holds.
    pub(super) current: watch::Receiver<Arc<Settings>>,
    chunks: AtomicU64,
}

impl BackfillContext {
    pub(crate) fn new(
        settings: &Settings,
        (ownership, orders): (StateOwnership, BackfillSender),
        progress: BackfillProgress,
        clock: DatabaseClock,
        metrics: WalhookMetrics,
        current: watch::Receiver<Arc<Settings>>,
    ) -> Self {
        Self {
            source: settings.postgres.server.clone(),
            standby: settings.backfill_standby.clone(),
            publication: settings.postgres.publication.clone(),
            ownership,
            pool: SessionPool::new(settings.state.clone(), SESSIONS, STATEMENT_MAX),
            orders,
            progress,
            clock,
            metrics,
            current,
            chunks: AtomicU64::new(1),
        }
    }

    pub(super) fn slot(&self) -> &str {
        self.ownership.slot()
    }

    /// Counts chunks since the start: greater for a later one of the same backfill.
    pub(super) fn next_chunk(&self) -> u64 {
        self.chunks.fetch_add(1, Ordering::Relaxed)
    }
}
