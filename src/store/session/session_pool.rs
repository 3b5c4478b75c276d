//! The session pool of the API: a few SQL sessions beside those of the deliveries.
//!
//! Connected when they are needed, and made anew when the server was away. Each statement has a time
//! limit, so that a question over too much ends with an error and not with a busy server.

use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::sync::SemaphorePermit;
use tokio_postgres::Client;

use crate::config::settings::ServerSettings;
use crate::store::SqlSession;
use crate::store::connect_within;
use crate::store::error::StoreError;

/// Beyond a statement's limit, for the way there and back.
const SLACK: Duration = Duration::from_secs(5);

/// SQL sessions for questions of operators, opened when needed and given back.
#[derive(Debug)]
pub(crate) struct SessionPool {
    server: ServerSettings,
    /// The server ends a statement itself after its limit: this is for a server that says nothing.
    answer_limit: Duration,
    places: Semaphore,
    /// Sessions that nobody uses at the moment.
    idle: Mutex<Vec<SqlSession>>,
}

/// A session, for as long as it is held.
#[derive(Debug)]
pub(crate) struct PooledSession<'d> {
    /// `None` only while it is dropped.
    session: Option<SqlSession>,
    pool: &'d SessionPool,
    _place: SemaphorePermit<'d>,
}

impl SessionPool {
    /// At most so many sessions, whose statements may take no longer than `limit`.
    pub(crate) fn new(mut server: ServerSettings, sessions: usize, limit: Duration) -> Self {
        let given = server.params.get_options().unwrap_or_default();
        // To compile a question takes longer than most of them.
        let options = format!("{given} -c jit=off -c statement_timeout={}", limit.as_millis());
        server.params.options(options.trim_start());
        let answer_limit = limit + SLACK;
        Self { server, answer_limit, places: Semaphore::new(sessions), idle: Mutex::default() }
    }

    /// A session, as soon as one is free.
    ///
    /// # Errors
    /// The database cannot be reached.
    pub(crate) async fn session(&self) -> Result<PooledSession<'_>, StoreError> {
        let place = self.places.acquire().await.expect("the pool never closes");
        let idle = std::iter::from_fn(|| self.idle().pop()).find(|s| !s.client.is_closed());
        let session = match idle {
            Some(session) => session,
            None => connect_within(&self.server, self.answer_limit).await?,
        };
        Ok(PooledSession { session: Some(session), pool: self, _place: place })
    }

    fn idle(&self) -> MutexGuard<'_, Vec<SqlSession>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PooledSession<'_> {
    pub(crate) fn client(&mut self) -> &mut Client {
        let session = self.session.as_mut();
        &mut session.expect("it is taken only when this is dropped").client
    }
}

impl Drop for PooledSession<'_> {
    fn drop(&mut self) {
        let session = self.session.take().filter(|session| !session.client.is_closed());
        self.pool.idle().extend(session);
    }
}
