//! Fencing: keeps the right to send while the slot is ours, and keeps requests back without it.
//!
//! Asks the server every so often whether our connection still holds the slot: see
//! [`crate::replication::slot_ownership`]. The question has a session of its own, because the stream is not read
//! while lanes are full, and they are emptied only by sending.
//!
//! It also notices a shutdown of the server. PostgreSQL cuts sessions off and takes no new ones, but
//! waits, without a limit, until everything that was sent over a replication connection has been
//! confirmed: an endpoint that hangs would hold it up. So the stream is let go of then; what was not
//! confirmed comes again when the server is back.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::since_boot;
use crate::config::configuration::Settings;
use crate::config::settings::PostgresSettings;
use crate::flow::time::Timestamp;
use crate::pipeline::handles::SharedHandles;
use crate::pipeline::process_name::own_name;
use crate::pipeline::shutdown::AWAY_MAX;
use crate::pipeline::shutdown::ShutdownStages;
use crate::replication::slot_holder;
use crate::replication::slot_ownership::SlotOwnership;
use crate::replication::status::SlotHolder;
use crate::replication::status::StatusHandle;
use crate::replication::wire::feedback::SlotRelease;
use crate::store;
use crate::store::SqlSession;
use crate::store::error::StoreError;

/// The longest time between two questions.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// How often a request that is kept back looks whether it may go on.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Who asks, and about what.
pub(crate) struct SendFence {
    settings: PostgresSettings,
    slot_ownership: SlotOwnership,
    let_go: SlotRelease,
    shutdown: ShutdownStages,
    status: StatusHandle,
    /// When this process took the slot.
    since: Timestamp,
    /// The stream that the status names.
    shown: Option<i32>,
}

impl SendFence {
    /// For a slot that has been taken just now.
    pub(crate) fn new(
        settings: &Settings,
        handles: &SharedHandles,
        shutdown: ShutdownStages,
    ) -> Self {
        Self {
            settings: settings.postgres.clone(),
            slot_ownership: handles.slot_ownership.clone(),
            let_go: handles.let_go.clone(),
            shutdown,
            status: handles.status.clone(),
            since: handles.clock.now(),
            shown: None,
        }
    }

    /// Asks until everything has been sent and settled, or given up. During a shutdown it is given
    /// up soon when there is no stream: nothing may be sent then.
    ///
    /// Never fails: what becomes of a slot that is lost is the source's matter.
    pub(crate) async fn keep(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        let every = (self.slot_ownership.lease() / 3).min(ASK_EVERY);
        let mut session = None;
        let mut away_since = None;
        loop {
            if let Some(server_pid) = self.slot_ownership.server_pid() {
                away_since = None;
                let shutdown = self.shutdown.clone();
                tokio::select! {
                    biased;
                    () = shutdown.finished.cancelled() => return Ok(()),
                    () = shutdown.abort_writes.cancelled() => return Ok(()),
                    () = self.ask(&mut session, server_pid) => {}
                }
            } else if stop.is_cancelled() {
                let since = away_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= AWAY_MAX {
                    self.shutdown.end_requests();
                }
            }
            tokio::select! {
                biased;
                () = self.shutdown.finished.cancelled() => return Ok(()),
                () = self.shutdown.abort_writes.cancelled() => return Ok(()),
                () = ended(&mut session) => session = None,
                () = tokio::time::sleep(every) => {}
            }
        }
    }

    async fn ask(&mut self, session: &mut Option<SqlSession>, server_pid: i32) {
        // A login over a slow network takes longer than the lease, and counts from its end.
        let opened = self.open(session).await;
        let asked = since_boot();
        let answer = match opened {
            Ok(()) => tokio::time::timeout(self.slot_ownership.lease(), self.holder(session)).await,
            Err(error) => Ok(Err(error)),
        };
        match answer {
            Ok(Ok(Some(holder))) if self.slot_ownership.proven(holder, asked) => {
                if self.shown.replace(holder) != Some(holder) {
                    self.show(session.as_ref()).await;
                }
            }
            Ok(Ok(holder)) if self.slot_ownership.server_pid() == Some(server_pid) => {
                tracing::warn!(?holder, "our connection has lost the slot");
                self.slot_ownership.lost();
                self.let_go.now();
            }
            Ok(Ok(_)) => {} // the stream has been made anew meanwhile
            Ok(Err(error)) => {
                *session = None;
                if matches!(error, StoreError::NotReady(_)) {
                    tracing::warn!("PostgreSQL is shutting down, letting go of the stream");
                    self.let_go.now();
                }
                let error = anyhow::Error::new(error);
                tracing::debug!(error = %format!("{error:#}"), "cannot ask who holds the slot");
            }
            Err(_) => *session = None,
        }
    }

    /// Names this process in the status.
    async fn show(&self, session: Option<&SqlSession>) {
        let seen = match session {
            Some(session) => {
                slot_holder::look(&session.client, &self.settings.slot).await.ok().flatten()
            }
            None => None,
        };
        self.status.holder(seen.map(|holder| SlotHolder {
            is_self: true,
            name: Some(own_name()),
            since: Some(self.since.iso_millis()),
            application_name: holder.application,
            client_address: holder.address,
            server_pid: Some(holder.pid),
        }));
    }

    /// Makes sure that there is a session.
    async fn open(&self, session: &mut Option<SqlSession>) -> Result<(), StoreError> {
        let server = &self.settings.server;
        let open = SqlSession::take_or_connect(session, server, store::ANSWER_SOON).await?;
        *session = Some(open);
        Ok(())
    }

    async fn holder(&self, session: &Option<SqlSession>) -> Result<Option<i32>, StoreError> {
        let Some(open) = session else { return Err(StoreError::NoHost) };
        slot_holder::server_pid(&open.client, &self.settings.slot).await
    }
}

/// Ends with the session; never if there is none.
async fn ended(session: &mut Option<SqlSession>) {
    match session {
        Some(session) => session.ended().await,
        None => std::future::pending().await,
    }
}

/// Moves a request on only while it may be made. A process that was frozen in the middle of one
/// makes no further step of it when it wakes.
pub(crate) async fn guarded<T>(
    slot_ownership: &SlotOwnership,
    mut request: Pin<&mut impl Future<Output = T>>,
) -> T {
    loop {
        let step = poll_fn(|context| {
            if slot_ownership.is_open() {
                request.as_mut().poll(context).map(Some)
            } else {
                Poll::Ready(None)
            }
        });
        match step.await {
            Some(done) => return done,
            None => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}
