//! What the surface can look up and ask for in the state, beside the deliveries.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use tokio::sync::Notify;
use tokio_postgres::error::SqlState;

use crate::api::answers::problem::ProblemResponse;
use crate::config::settings::LoggedBodies;
use crate::config::settings::ServerSettings;
use crate::store::session::session_pool::PooledSession;
use crate::store::session::session_pool::SessionPool;
use crate::store::state_error::StateError;

/// People who ask at once; others wait.
const SESSIONS: usize = 2;

/// A question that takes longer is about too much.
const STATEMENT_MAX: Duration = Duration::from_secs(15);

/// How long a request waits for a session before it is answered that the state is away.
const PATIENCE: Duration = Duration::from_secs(20);

/// Answers the questions of the HTTP surface from the state's database.
#[derive(Debug)]
pub(crate) struct StateQueries {
    pool: SessionPool,
    slot: String,
    /// Wakes the resender.
    asked: Arc<Notify>,
    /// Of which attempts the push log keeps bodies.
    bodies: LoggedBodies,
}

impl StateQueries {
    pub(crate) fn new(
        state: ServerSettings,
        slot: String,
        asked: Arc<Notify>,
        bodies: LoggedBodies,
    ) -> Self {
        Self { pool: SessionPool::new(state, SESSIONS, STATEMENT_MAX), slot, asked, bodies }
    }

    pub(crate) fn slot(&self) -> &str {
        &self.slot
    }

    pub(crate) fn bodies(&self) -> LoggedBodies {
        self.bodies
    }

    /// # Errors
    /// 503: the state cannot be reached.
    pub(crate) async fn session(&self) -> Result<PooledSession<'_>, ProblemResponse> {
        match tokio::time::timeout(PATIENCE, self.pool.session()).await {
            Ok(session) => session.map_err(|error| ProblemResponse::from(StateError::from(error))),
            Err(_late) => Err(away("nobody answered in time")),
        }
    }

    /// There is something to send again.
    pub(crate) fn asked(&self) {
        self.asked.notify_one();
    }
}

fn away(why: &str) -> ProblemResponse {
    let detail = format!("walhook's state cannot be read at the moment, try again: {why}");
    ProblemResponse::new(StatusCode::SERVICE_UNAVAILABLE, detail)
}

impl From<StateError> for ProblemResponse {
    fn from(error: StateError) -> Self {
        if error.sqlstate() == Some(&SqlState::QUERY_CANCELED) {
            let detail = "this is about too many rows to be answered in time: narrow it down, \
                          such as by endpoint or with a time range";
            return Self::new(StatusCode::SERVICE_UNAVAILABLE, detail);
        }
        if error.sqlstate() == Some(&SqlState::UNDEFINED_TABLE) {
            return away("its tables are not there yet");
        }
        let shown = error.to_string();
        if error.is_transient() {
            return away(&shown);
        }
        let error = anyhow::Error::new(error);
        tracing::warn!(error = %format!("{error:#}"), "cannot answer a question about the state");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, shown)
    }
}
