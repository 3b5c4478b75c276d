//! Commits flushes, one after the other, for as long as the state's database takes.
//!
//! What it is given is committed or the process ends: a flush whose outcome is unknown is tried again
//! as it is, and the store sees to it that it counts once.

use std::time::Duration;

use tokio::sync::watch;

use crate::backoff::Backoff;
use crate::config::settings::Server;
use crate::flow::time::Timestamp;
use crate::store;
use crate::store::Session;
use crate::store::flush;
use crate::store::flush::Flush;
use crate::store::partitions;
use crate::store::progress::Holding;
use crate::store::runs;
use crate::store::state_error::StateError;

/// First and longest wait before a failed flush is tried again.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_CAP: Duration = Duration::from_secs(5);

/// The right to write, and a session to do it with.
pub struct Writer {
    server: Server,
    session: Option<Session>,
    holding: Holding,
    backoff: Backoff,
    retention_days: u32,
    /// Tells the source whether flushes get through.
    writable: watch::Sender<bool>,
}

impl Writer {
    pub fn new(
        server: Server,
        session: Session,
        holding: Holding,
        retention_days: u32,
        writable: watch::Sender<bool>,
    ) -> Self {
        let backoff = Backoff::new(RETRY_FIRST, RETRY_CAP);
        Self { server, session: Some(session), holding, backoff, retention_days, writable }
    }

    /// Commits `flush`, however long the database is away.
    ///
    /// # Errors
    /// [`StateError::Fenced`], or another error that waiting cannot mend.
    pub(crate) async fn commit(&mut self, flush: &Flush) -> Result<(), StateError> {
        loop {
            let was_open = self.session.is_some();
            match self.try_commit(flush).await {
                Ok(()) => {
                    self.backoff.reset();
                    self.writable.send_if_modified(|writable| !std::mem::replace(writable, true));
                    return Ok(());
                }
                // A session that stood idle while the server was restarted says nothing of now.
                Err(error) if error.is_transient() && was_open => self.session = None,
                Err(error) if error.is_transient() => {
                    self.session = None;
                    self.writable.send_replace(false);
                    let wait = self.backoff.next();
                    let error = anyhow::Error::new(error);
                    tracing::warn!(
                        error = %format!("{error:#}"),
                        wait_ms = wait.as_millis(),
                        "cannot write the state, trying again"
                    );
                    tokio::time::sleep(wait).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn try_commit(&mut self, flush: &Flush) -> Result<(), StateError> {
        let session = match self.session.take() {
            Some(session) => session,
            None => store::connect(&self.server).await?,
        };
        let session = self.session.insert(session);
        flush::commit(&mut session.client, &mut self.holding, flush).await
    }

    /// The slot that is written for, and the epoch.
    pub fn holding(&self) -> &Holding {
        &self.holding
    }

    /// Notes that this run ends as it should. If it cannot, the next start is a little more careful.
    pub(crate) async fn say_stopped(&mut self) {
        let Some(session) = &self.session else { return };
        if let Err(error) = runs::stopped(&session.client, &self.holding).await {
            tracing::debug!(%error, "cannot note the clean end");
        }
    }

    /// Makes the push log's next day and drops those beyond the retention.
    pub(crate) async fn keep_house(&mut self, now: Timestamp) -> Result<(), StateError> {
        let session = match self.session.take() {
            Some(session) => session,
            None => store::connect(&self.server).await?,
        };
        let session = self.session.insert(session);
        partitions::ensure_ahead(&mut session.client, now).await?;
        partitions::drop_old(&session.client, now, self.retention_days).await?;
        Ok(())
    }
}
