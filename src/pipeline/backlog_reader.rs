//! Reads the backlog for the lanes.

use std::sync::Arc;

use tokio::sync::Mutex;
use tokio::sync::watch;

use crate::config::settings::ServerSettings;
use crate::config::settings::Settings;
use crate::flow::backlog::BacklogPosition;
use crate::flow::backlog::RefilledRow;
use crate::flow::budget::HeldMemory;
use crate::flow::budget::MemoryBudget;
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

/// What an event costs in memory beside its body.
const EVENT_OVERHEAD_BYTES: usize = 512;

/// All lanes read over one session, one after the other: pages are small and quick.
pub(crate) struct BacklogReader {
    server: ServerSettings,
    slot: String,
    budget: MemoryBudget,
    session: Mutex<Option<SqlSession>>,
}

impl BacklogReader {
    pub(crate) fn of(settings: &Settings, budget: MemoryBudget) -> Self {
        let (server, slot) = (settings.state.clone(), settings.postgres.slot.clone());
        Self { server, slot, budget, session: Mutex::new(None) }
    }

    /// Told when memory is wanted for something large.
    pub(crate) fn pressure(&self) -> watch::Receiver<u64> {
        self.budget.pressure()
    }

    /// The next rows of an endpoint, as many as memory has room for.
    ///
    /// # Errors
    /// The state cannot be read at the moment.
    pub(crate) async fn page(
        &self,
        endpoint: &str,
        after: Option<BacklogPosition>,
        rows: usize,
    ) -> Result<Vec<RefilledRow>, StateError> {
        let after = after.map(|at| BacklogCursor { position: at.position, id: BacklogId(at.row) });
        let limits = PageLimits { after, rows, bytes: PAGE_BYTES };
        let mut session = self.session.lock().await;
        let open = match session.take() {
            Some(open) => open,
            None => store::connect_within(&self.server, store::ANSWER_SOON).await?,
        };
        // Left closed after an error: the next page is read over a new one.
        let page = backlog::page(&open.client, &self.slot, endpoint, limits).await?;
        *session = Some(open);
        Ok(page.into_iter().map_while(|row| self.refilled(row)).collect())
    }

    /// `None` when there is no room for it now; it is read again later.
    fn refilled(&self, row: WaitingRow) -> Option<RefilledRow> {
        let bytes = row.event.body.held_bytes() + EVENT_OVERHEAD_BYTES;
        let share = self.budget.try_take(bytes)?;
        let at = BacklogPosition { position: row.event.position, row: row.id.0 };
        let mut event = row.event;
        event.held = Some(HeldMemory::Own(share));
        let history = row.history;
        let failed = history.failure.zip(history.first_attempt).zip(history.last_attempt);
        Some(RefilledRow {
            event: Arc::new(event),
            at,
            parked: row.parked_at,
            attempts: history.attempts,
            due: row.next_attempt,
            history: failed.map(|((failure, first_attempt), last_attempt)| {
                let status = history.status;
                Arc::new(AttemptHistory { first_attempt, last_attempt, status, failure })
            }),
        })
    }
}
