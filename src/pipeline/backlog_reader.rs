//! Reads pages of the backlog for the lanes, within the memory budget.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::sync::MutexGuard;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::configuration::Settings;
use crate::config::settings::ServerSettings;
use crate::flow::backlog::BacklogPosition;
use crate::flow::backlog::RefilledRow;
use crate::flow::budget::EVENT_OVERHEAD_BYTES;
use crate::flow::budget::HeldMemory;
use crate::flow::budget::MemoryBudget;
use crate::flow::budget::MemoryPermit;
use crate::flow::settlement::AttemptHistory;
use crate::store;
use crate::store::SqlSession;
use crate::store::backlog;
use crate::store::backlog::BacklogCursor;
use crate::store::backlog::BacklogId;
use crate::store::backlog::PageLimits;
use crate::store::backlog::WaitingRow;
use crate::store::state_error::StateError;

/// Bodies of one page; a single row comes whatever its size.
const PAGE_BYTES: usize = 2 << 20;

/// A row of so much that finds no room for so long passes beyond the allowance.
const LARGE_BYTES: usize = 1024 * 1024;
const STARVING: Duration = Duration::from_secs(5);

/// All lanes read over one session, one after the other: pages are small and quick.
pub(crate) struct BacklogReader {
    server: ServerSettings,
    slot: String,
    budget: MemoryBudget,
    session: Mutex<Option<SqlSession>>,
    /// Since when endpoints have found no room for their next row.
    starving: std::sync::Mutex<HashMap<Arc<str>, Instant>>,
}

impl BacklogReader {
    pub(crate) fn of(settings: &Settings, budget: MemoryBudget) -> Self {
        let (server, slot) = (settings.state.clone(), settings.postgres.slot.clone());
        let (session, starving) = (Mutex::new(None), std::sync::Mutex::default());
        Self { server, slot, budget, session, starving }
    }

    /// Changes when the memory budget wants something back for something large.
    pub(crate) fn pressure(&self) -> watch::Receiver<u64> {
        self.budget.pressure()
    }

    /// Keeps the lanes from reading until it is dropped: what they ask for has another name then.
    pub(crate) async fn pause_reading(&self) -> ReadingPaused<'_> {
        ReadingPaused { _session: self.session.lock().await }
    }

    /// The next rows of an endpoint, as many as memory has room for. What it is called is looked up when
    /// it is its turn.
    ///
    /// # Errors
    /// The state cannot be read at the moment.
    pub(crate) async fn page(
        &self,
        endpoint: impl FnOnce() -> Arc<str>,
        after: Option<BacklogPosition>,
        rows: usize,
    ) -> Result<Vec<RefilledRow>, StateError> {
        let after = after.map(|at| BacklogCursor { position: at.position, id: BacklogId(at.row) });
        let limits = PageLimits { after, rows, bytes: PAGE_BYTES };
        let mut session = self.session.lock().await;
        let endpoint = &*endpoint();
        let open =
            SqlSession::take_or_connect(&mut session, &self.server, store::ANSWER_SOON).await?;
        // Left closed after an error: the next page is read over a new one.
        let page = backlog::page(&open.client, &self.slot, endpoint, limits).await?;
        let mut rows = Vec::with_capacity(page.len());
        for mut row in page {
            let is_large = row.is_large();
            let bytes = if is_large { row.body_bytes } else { row.event.body.held_bytes() };
            // None when there is no room for it now; it is read again later.
            let Some(share) = self.share(endpoint, bytes + EVENT_OVERHEAD_BYTES) else { break };
            if is_large && !row.fetch_body(&open.client).await? {
                break;
            }
            rows.push(refilled(row, share));
        }
        *session = Some(open);
        Ok(rows)
    }

    /// A share of the memory, if there is one. What is large may never find so much free at once while
    /// others are busy: it comes in beyond the allowance then, one at a time.
    fn share(&self, endpoint: &str, bytes: usize) -> Option<MemoryPermit> {
        let mut starving = self.starving.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = self.budget.try_take(bytes) {
            starving.remove(endpoint);
            return Some(share);
        }
        let since = starving.entry(endpoint.into()).or_insert_with(Instant::now);
        if bytes < LARGE_BYTES || since.elapsed() < STARVING {
            return None;
        }
        let share = self.budget.try_take_beyond()?;
        starving.remove(endpoint);
        Some(share)
    }
}

/// While it is there, no lane reads the backlog.
pub(crate) struct ReadingPaused<'r> {
    _session: MutexGuard<'r, Option<SqlSession>>,
}

fn refilled(row: WaitingRow, share: MemoryPermit) -> RefilledRow {
    let at = BacklogPosition { position: row.event.position, row: row.id.0 };
    let mut event = row.event;
    event.held = Some(HeldMemory::Own(share));
    let history = row.history;
    let failed = history.failure.zip(history.first_attempt).zip(history.last_attempt);
    RefilledRow {
        event: Arc::new(event),
        at,
        parked: row.parked_at,
        attempts: history.attempts,
        due: row.next_attempt,
        history: failed.map(|((failure, first_attempt), last_attempt)| {
            let status = history.status;
            Arc::new(AttemptHistory { first_attempt, last_attempt, status, failure })
        }),
    }
}
