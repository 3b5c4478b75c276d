//! The session that flushes are committed with, opened anew when it was lost.

use std::time::Duration;

use crate::config::settings::ServerSettings;
use crate::store;
use crate::store::SqlSession;
use crate::store::session::backend;
use crate::store::session::backend::BackendSession;
use crate::store::state_error::StateError;

/// A session for flushes, if there is one.
#[derive(Debug)]
pub(crate) struct FlushSession {
    server: ServerSettings,
    session: Option<SqlSession>,
    /// The server's process for the session, or for the one that was lost.
    backend: Option<BackendSession>,
}

impl FlushSession {
    /// One that is opened when it is needed.
    pub(crate) fn new(server: ServerSettings) -> Self {
        Self { server, session: None, backend: None }
    }

    /// One that is open.
    pub(crate) fn of(server: ServerSettings, session: SqlSession) -> Self {
        Self { server, session: Some(session), backend: None }
    }

    pub(crate) fn server(&self) -> &ServerSettings {
        &self.server
    }

    /// The session, if it is open.
    pub(crate) fn get(&self) -> Option<&SqlSession> {
        self.session.as_ref()
    }

    /// Gives the session up, whatever it is in the middle of.
    pub(crate) fn close(&mut self) {
        self.session = None;
    }

    /// The session, opened if there is none, with answers that may take so long each.
    ///
    /// # Errors
    /// That none could be opened.
    pub(crate) async fn open(
        &mut self,
        answer_limit: Duration,
    ) -> Result<&mut SqlSession, StateError> {
        let session = self.take(answer_limit).await?;
        if self.backend.is_none() {
            self.backend = Some(backend::backend(&session.client).await?);
        }
        Ok(self.session.insert(session))
    }

    /// The same, taken out: it is lost unless it is put back.
    ///
    /// # Errors
    /// That none could be opened.
    pub(crate) async fn take(&mut self, answer_limit: Duration) -> Result<SqlSession, StateError> {
        if let Some(session) = self.session.take() {
            session.answer_within(answer_limit);
            return Ok(session);
        }
        let session = store::connect_within(&self.server, answer_limit).await?;
        // One that was lost may be in the middle of a flush on the server, which has not noticed, and hold the locks
        // that the next one needs.
        if let Some(lost) = self.backend.take()
            && backend::end_backend(&session.client, &lost).await?
        {
            tracing::info!(pid = lost.pid, "ended the lost session in PostgreSQL");
        }
        Ok(session)
    }

    pub(crate) fn put_back(&mut self, session: SqlSession) {
        self.session = Some(session);
    }
}
