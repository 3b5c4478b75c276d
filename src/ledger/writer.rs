//! Commits flushes, one after the other, for as long as the state's database takes.
//!
//! What it is given is committed or the process ends: a flush whose outcome is unknown is tried again
//! as it is, and the store sees to it that it counts once. Whatever an administrator or the end of a
//! failover may put right is waited for: a state that is away, frozen, locked, read-only, full, or
//! that does not let the role in any more.

use std::io;
use std::time::Duration;

use tokio::sync::watch;

use crate::backoff::Backoff;
use crate::config::settings::ServerSettings;
use crate::flow::lsn::Lsn;
use crate::flow::time::Timestamp;
use crate::flow::time::whole_millis;
use crate::ledger::flush_session::FlushSession;
use crate::ledger::joined_flushes::JoinedFlushes;
use crate::ledger::state_status::StateStatus;
use crate::store;
use crate::store::SqlSession;
use crate::store::crash_records;
use crate::store::error::StoreError;
use crate::store::flush;
use crate::store::flush::PartitionFlush;
use crate::store::flush::StateFlush;
use crate::store::migrate::schema_check;
use crate::store::ownership::StateOwnership;
use crate::store::partitions;
use crate::store::session::backend;
use crate::store::state_error::StateError;

/// First and longest wait before a failed flush is tried again.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_CAP: Duration = Duration::from_secs(2);

/// How long the answer to a statement of a flush may take at most: twice as long after each that did
/// not come, so that a database that is only slow gets through.
const ANSWER_CAP: Duration = Duration::from_secs(240);

/// Commits what it is given, and waits where waiting can help.
#[derive(Debug)]
pub(crate) struct StateWriter<T = StateConnection> {
    target: T,
    /// How long an answer is waited for.
    answer_limit: Duration,
    backoff: Backoff,
    /// Tells the source whether flushes get through.
    writable: watch::Sender<bool>,
    status: StateStatus,
}

/// Where flushes are committed: the state's database, or what stands for it in the simulation.
pub(crate) trait FlushTarget: Send {
    /// Whether there is a session.
    fn is_open(&self) -> bool;

    /// Gives the session up, whatever it is in the middle of.
    fn close(&mut self);

    /// Commits the flush, over a session that is opened if there is none; each answer may take as long
    /// as `answer_limit`. One whose answer got lost is committed once, however often it is given.
    ///
    /// # Errors
    /// As [`flush::commit`]; that no session could be opened.
    fn commit(
        &mut self,
        flush: &StateFlush,
        answer_limit: Duration,
    ) -> impl Future<Output = Result<(), StateError>> + Send;

    /// How far the WAL of the state's database is written: at least to the end of the last flush. `None`
    /// if it cannot be asked now.
    fn wal_end(&mut self) -> impl Future<Output = Option<Lsn>> + Send;

    /// Notes that this run ends as it should, if it can.
    fn say_stopped(&mut self) -> impl Future<Output = ()> + Send;

    /// Makes the push log's next day and drops those beyond the retention. A session is opened if there
    /// is none.
    ///
    /// # Errors
    /// Why it could not be done now.
    fn do_housekeeping(
        &mut self,
        now: Timestamp,
        answer_limit: Duration,
    ) -> impl Future<Output = Result<(), StateError>> + Send;
}

/// The right to write, and a session to do it with.
#[derive(Debug)]
pub(crate) struct StateConnection {
    session: FlushSession,
    /// Commits what is due in other partitions as well.
    joined: Option<JoinedFlushes>,
    /// The last flush that was to be joined was not committed so: the next goes by itself, and tells why.
    alone: bool,
    ownership: StateOwnership,
    retention_days: u32,
}

impl StateWriter {
    pub(crate) fn new(
        server: ServerSettings,
        session: SqlSession,
        ownership: StateOwnership,
        retention_days: u32,
        writable: watch::Sender<bool>,
        status: StateStatus,
    ) -> Self {
        session.answer_within(store::ANSWER_SOON);
        let session = FlushSession::of(server, session);
        let target =
            StateConnection { session, joined: None, alone: false, ownership, retention_days };
        Self::to(target, writable, status)
    }

    /// Commits together with other partitions of the process what may be.
    pub(crate) fn joining(mut self, joined: JoinedFlushes) -> Self {
        self.target.joined = Some(joined);
        self
    }

    /// The slot that is written for, and the epoch.
    pub(crate) fn ownership(&self) -> &StateOwnership {
        &self.target.ownership
    }
}

impl<T: FlushTarget> StateWriter<T> {
    /// A writer to any target.
    pub(crate) fn to(target: T, writable: watch::Sender<bool>, status: StateStatus) -> Self {
        let backoff = Backoff::new(RETRY_FIRST, RETRY_CAP);
        Self { target, answer_limit: store::ANSWER_SOON, backoff, writable, status }
    }

    /// Commits `flush`, however long the database is away.
    ///
    /// # Errors
    /// [`StateError::Fenced`], or another error that waiting cannot mend.
    pub(crate) async fn commit(&mut self, flush: &StateFlush) -> Result<(), StateError> {
        self.status.begun();
        let outcome = self.commit_in_the_end(flush).await;
        if outcome.is_ok() {
            self.backoff.reset();
            self.answer_limit = store::ANSWER_SOON;
            self.writable.send_if_modified(|writable| !std::mem::replace(writable, true));
            self.status.ended();
        }
        outcome
    }

    async fn commit_in_the_end(&mut self, flush: &StateFlush) -> Result<(), StateError> {
        loop {
            let was_open = self.target.is_open();
            let error = match self.target.commit(flush, self.answer_limit).await {
                Ok(()) => return Ok(()),
                Err(error) if !error.may_be_mended() => return Err(error),
                Err(error) => error,
            };
            self.target.close();
            let is_late = has_not_answered(&error);
            if is_late {
                self.answer_limit = (self.answer_limit * 2).min(ANSWER_CAP);
            }
            // A session that stood idle while the server was restarted says nothing of now.
            if was_open && error.is_transient() && !is_late {
                continue;
            }
            self.writable.send_replace(false);
            let wait = self.backoff.next();
            let error = format!("{:#}", anyhow::Error::new(error));
            tracing::warn!(
                error,
                wait_ms = whole_millis(wait),
                "cannot write the state, trying again"
            );
            self.status.failed(error);
            tokio::time::sleep(wait).await;
        }
    }

    /// As [`FlushTarget::wal_end`].
    pub(crate) async fn wal_end(&mut self) -> Option<Lsn> {
        self.target.wal_end().await
    }

    /// As [`FlushTarget::say_stopped`]. If it cannot, the next start is a little more careful.
    pub(crate) async fn say_stopped(&mut self) {
        self.target.say_stopped().await;
    }

    /// As [`FlushTarget::do_housekeeping`].
    pub(crate) async fn do_housekeeping(&mut self, now: Timestamp) -> Result<(), StateError> {
        self.target.do_housekeeping(now, self.answer_limit).await
    }
}

impl StateConnection {
    /// Whether the flush was committed together with others.
    async fn was_joined(&mut self, flush: &StateFlush) -> bool {
        let Some(joined) = self.joined.as_ref().filter(|_| !self.alone && flush.may_be_joined())
        else {
            return false;
        };
        let part = PartitionFlush { ownership: self.ownership.clone(), flush: flush.clone() };
        let is_committed = joined.commit(part).await;
        if is_committed {
            self.ownership.committed(flush.settled);
        }
        self.alone = !is_committed;
        is_committed
    }
}

impl FlushTarget for StateConnection {
    fn is_open(&self) -> bool {
        self.session.get().is_some()
    }

    fn close(&mut self) {
        self.session.close();
    }

    async fn commit(
        &mut self,
        flush: &StateFlush,
        answer_limit: Duration,
    ) -> Result<(), StateError> {
        if self.was_joined(flush).await {
            return Ok(());
        }
        let session = self.session.open(answer_limit).await?;
        let error = match flush::commit(session, &mut self.ownership, flush).await {
            Err(error) if schema_check::is_of_tables(&error) => error,
            outcome => {
                self.alone &= outcome.is_err();
                return outcome;
            }
        };
        // What the session is in the middle of does not matter: it is given up.
        match store::connect_within(self.session.server(), answer_limit).await {
            Ok(fresh) => Err(schema_check::named(&fresh.client, error).await),
            Err(_away) => Err(error),
        }
    }

    async fn wal_end(&mut self) -> Option<Lsn> {
        backend::wal_end(&self.session.get()?.client).await.ok()
    }

    async fn say_stopped(&mut self) {
        let Some(session) = self.session.get() else { return };
        if let Err(error) = crash_records::stopped(&session.client, &self.ownership).await {
            tracing::debug!(%error, "cannot note the clean end");
        }
    }

    async fn do_housekeeping(
        &mut self,
        now: Timestamp,
        answer_limit: Duration,
    ) -> Result<(), StateError> {
        let mut session = self.session.take(answer_limit).await?;
        // Left closed after an error: the flush opens another one.
        session.answer_within(store::ANSWER_MAX);
        partitions::ensure_ahead(&mut session.client, now).await?;
        partitions::drop_old(&session.client, now, self.retention_days).await?;
        self.session.put_back(session);
        Ok(())
    }
}

/// Whether the answer did not come in time, as opposed to an error.
fn has_not_answered(error: &StateError) -> bool {
    let StateError::Store(StoreError::Disconnected(cause)) = error else { return false };
    cause.kind() == io::ErrorKind::TimedOut
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::session::dial::CONNECT_TIMEOUT;

    /// What is promised of sessions that go dead without a word while new ones are let in.
    const REPLACED_MAX: Duration = Duration::from_secs(30);

    /// The silence is noticed (`store::answers` asserts when, on a paused clock), the first wait is over, and
    /// the new session is there, whatever is drawn.
    #[test]
    fn a_session_that_goes_dead_is_replaced_within_thirty_seconds() {
        let first_wait = Backoff::new(RETRY_FIRST, RETRY_CAP).next_at(1.0);
        let replaced = store::ANSWER_SOON + first_wait + CONNECT_TIMEOUT;
        assert!(replaced <= REPLACED_MAX, "{replaced:?}");
        // One whose first new session is lost as well, before it is used.
        assert!(replaced + RETRY_FIRST * 2 + CONNECT_TIMEOUT <= REPLACED_MAX);
    }

    #[test]
    fn only_a_late_answer_makes_the_next_one_be_waited_for_longer() {
        let lost = |kind| StateError::from(StoreError::Disconnected(io::Error::from(kind)));
        assert!(has_not_answered(&lost(io::ErrorKind::TimedOut)));
        assert!(!has_not_answered(&lost(io::ErrorKind::UnexpectedEof)));
        assert!(lost(io::ErrorKind::TimedOut).may_be_mended());
    }
}
