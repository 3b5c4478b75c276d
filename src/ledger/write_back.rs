//! Writes outcomes back into the source database, beside the flushes and never in their way.
//!
//! ```text
//! flush ─ wake ─▶ [WriteBackRunner] ─ UPDATE ─▶ source database (marked: raises no event)
//!                     └ done, or due again ─▶ walhook.write_backs
//! ```
//!
//! Where the state is in the source database, the statement and its to-do are one transaction, so
//! each is written once. Where it is elsewhere, a crash between the two repeats the statement: a
//! column is only written while it says what it said, so the repeat changes nothing.
//!
//! What fails waits, longer each time, and holds up nothing but younger events of its own row.

pub(crate) mod status;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use prometheus::IntGauge;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_postgres::Client;

use crate::backoff::Backoff;
use crate::config::settings::ServerSettings;
use crate::config::settings::WriteBackSettings;
use crate::flow::event::EventId;
use crate::flow::relation::TableName;
use crate::ledger::write_back::status::WriteBackStatus;
use crate::store;
use crate::store::SqlSession;
use crate::store::endpoint_answers;
use crate::store::endpoint_answers::Answered;
use crate::store::error::StoreError;
use crate::store::progress::begin;
use crate::store::row_change;
use crate::store::state_error::StateError;
use crate::store::write_backs;
use crate::store::write_backs::DueWriteBack;
use crate::telemetry::metrics::WalhookMetrics;
use crate::telemetry::metrics::WriteBackMetrics;

/// Written in one transaction at most; it holds their locks until it ends.
const BATCH: i64 = 200;

/// How long a statement may take.
const STATEMENT_MAX: Duration = Duration::from_secs(5);

/// How long a batch waits for a locked row, and how long one alone does.
const BATCH_LOCK_MAX: Duration = Duration::from_millis(250);
const LOCK_MAX: Duration = Duration::from_secs(2);

/// A round goes no further after so many failures: the others wait for the next one.
const FAILURES_MAX: usize = 8;

/// First and longest wait before a write-back, or a lost connection, is tried again.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_CAP: Duration = Duration::from_secs(300);
const CONNECT_CAP: Duration = Duration::from_secs(10);

/// How often the log says again that rows cannot be written, for the same reason.
const NAMED_EVERY: Duration = Duration::from_secs(3600);

/// How often the log says that write-backs changed no row.
const UNCHANGED_EVERY: Duration = Duration::from_secs(60);

/// How often what nobody completes is looked for.
const SWEEP: Duration = Duration::from_secs(3600);

/// How long the last round may take during a shutdown; what is left is done after the restart.
const LAST_MAX: Duration = Duration::from_millis(500);

/// One event rule with a write-back.
#[derive(Clone, Debug)]
pub(crate) struct WriteBackRule {
    pub event_type: Arc<str>,
    pub table: TableName,
    pub terms: WriteBackSettings,
}

/// What is told when the task is made.
pub(crate) struct WriteBackTerms {
    pub slot: String,
    pub source: ServerSettings,
    pub state: ServerSettings,
    pub rules: Vec<WriteBackRule>,
    pub status: WriteBackStatus,
}

/// The task that writes outcomes into the rows of events.
pub(crate) struct WriteBackRunner {
    slot: String,
    /// `None` where the state is in the source database: one session does for both.
    source: Option<ServerSettings>,
    state: ServerSettings,
    rules: Vec<(WriteBackRule, WriteBackMetrics)>,
    status: WriteBackStatus,
    sessions: Option<WriteBackSessions>,
    unchanged: UnchangedRows,
    failing: IntGauge,
    /// The last error of each event type that was logged, and when.
    named: HashMap<Arc<str>, (String, Instant)>,
    swept: Option<Instant>,
}

struct WriteBackSessions {
    state: SqlSession,
    source: Option<SqlSession>,
    /// For what walhook alone has to say, where `state` runs the user's code, too.
    books: Option<SqlSession>,
}

impl WriteBackSessions {
    fn books(&self) -> &Client {
        &self.books.as_ref().unwrap_or(&self.state).client
    }
}

/// Write-backs that changed no row and are not in the log yet.
#[derive(Debug, Default)]
struct UnchangedRows {
    count: u64,
    told: Option<Instant>,
}

/// What a round came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum WriteBackRound {
    /// Nothing was due.
    Idle,
    Wrote,
}

impl WriteBackRunner {
    pub(crate) fn new(terms: WriteBackTerms, metrics: &WalhookMetrics) -> Self {
        let apart = terms.source.params != terms.state.params;
        let rule = |rule: WriteBackRule| {
            let metrics = metrics.write_backs(&rule.event_type);
            (rule, metrics)
        };
        Self {
            slot: terms.slot,
            source: apart.then_some(terms.source),
            state: terms.state,
            rules: terms.rules.into_iter().map(rule).collect(),
            status: terms.status,
            sessions: None,
            unchanged: UnchangedRows::default(),
            failing: metrics.write_backs_failing(),
            named: HashMap::new(),
            swept: None,
        }
    }

    /// Writes what is due whenever `wake` says that something may be, and when a retry is. Ends
    /// with the sender of `wake`, after a last round.
    pub(crate) async fn run(mut self, mut wake: watch::Receiver<()>) {
        let mut backoff = Backoff::new(RETRY_FIRST, CONNECT_CAP);
        loop {
            let wait = match self.rounds().await {
                Ok(wait) => {
                    backoff.reset();
                    wait
                }
                Err(error) => {
                    self.sessions = None;
                    let error = format!("{:#}", anyhow::Error::new(error));
                    tracing::warn!(error, "cannot write outcomes back, trying again");
                    self.status.set(|view| view.error = Some(error));
                    // News would not mend it.
                    let wait = backoff.next().max(Duration::from_millis(100));
                    tokio::select! {
                        () = tokio::time::sleep(wait) => continue,
                        () = closed(&mut wake) => break,
                    }
                }
            };
            tokio::select! {
                news = wake.changed() => if news.is_err() { break },
                () = tokio::time::sleep(wait) => {}
            }
        }
        if tokio::time::timeout(LAST_MAX, self.rounds()).await.is_err() {
            tracing::debug!("outcomes are left to be written back after the restart");
        }
    }

    /// Rounds until nothing is due; gives the wait until something is again.
    async fn rounds(&mut self) -> Result<Duration, StateError> {
        let mut sessions = match self.sessions.take() {
            Some(sessions) => sessions,
            None => self.connect().await?,
        };
        if self.swept.is_none_or(|at| at.elapsed() >= SWEEP) {
            write_backs::sweep(sessions.books(), &self.slot).await?;
            self.swept = Some(Instant::now());
        }
        while self.round(&mut sessions).await? == WriteBackRound::Wrote {}
        let outlook = write_backs::outlook(sessions.books(), &self.slot).await?;
        self.sessions = Some(sessions);
        self.failing.set(i64::try_from(outlook.failing).unwrap_or(i64::MAX));
        self.status.set(|view| {
            view.failing = outlook.failing;
            if outlook.failing == 0 {
                view.error = None;
            }
        });
        if outlook.failing == 0 {
            self.named.clear();
        }
        // Younger events of a row that fails are due and wait: not a reason to ask all the time.
        Ok(outlook.next.unwrap_or(SWEEP).clamp(RETRY_FIRST / 4, SWEEP))
    }

    async fn connect(&self) -> Result<WriteBackSessions, StateError> {
        let state = store::connect_within(&self.state, store::ANSWER_SOON).await?;
        // Triggers of the user's tables run in the session that writes into them.
        let source = self.source.as_ref();
        let target = source.unwrap_or(&self.state);
        let written = store::connect_with_own_path(target, store::ANSWER_SOON).await?;
        Ok(match source {
            Some(_) => WriteBackSessions { state, source: Some(written), books: None },
            None => WriteBackSessions { state: written, source: None, books: Some(state) },
        })
    }

    async fn round(
        &mut self,
        sessions: &mut WriteBackSessions,
    ) -> Result<WriteBackRound, StateError> {
        let found = match self.write(sessions, None).await {
            Ok(0) => return Ok(WriteBackRound::Idle),
            Ok(_) => return Ok(WriteBackRound::Wrote),
            Err(WriteBackFailure::Lost(error)) => return Err(error),
            Err(WriteBackFailure::Refused(found, _)) => found,
        };
        // One of them is in the way of the others: each on its own.
        let (mut failures, mut wrote) = (0, false);
        for due in found {
            match self.write(sessions, Some(due.event)).await {
                Ok(_) => wrote = true,
                Err(WriteBackFailure::Lost(error)) => return Err(error),
                Err(WriteBackFailure::Refused(_, error)) => {
                    self.refused(sessions.books(), &due, &error).await?;
                    failures += 1;
                    wrote = true; // it is not due now, so there is something new to look at
                }
            }
            if failures >= FAILURES_MAX {
                return Ok(WriteBackRound::Idle);
            }
        }
        Ok(if wrote { WriteBackRound::Wrote } else { WriteBackRound::Idle })
    }

    /// Writes what is due, or only one of it, in one transaction; gives how many.
    async fn write(
        &mut self,
        sessions: &mut WriteBackSessions,
        only: Option<EventId>,
    ) -> Result<usize, WriteBackFailure> {
        let tx = begin(&mut sessions.state.client).await?;
        let shared = sessions.source.is_none();
        if shared {
            row_change::own_statements(&tx).await?;
        }
        let found = write_backs::due(&tx, &self.slot, only, BATCH).await?;
        if found.is_empty() {
            return Ok(0);
        }
        let lock = if only.is_some() { LOCK_MAX } else { BATCH_LOCK_MAX };
        let apart = match &mut sessions.source {
            Some(source) => Some(begin(&mut source.client).await?),
            None => None,
        };
        let target = apart.as_ref().unwrap_or(&tx);
        let answered = self.answered(&tx, &found).await?;
        let applied = async {
            row_change::begin(target, &self.slot, STATEMENT_MAX, lock).await?;
            try_join_all(found.iter().map(|due| self.apply(target, due, &answered))).await
        };
        let rows = match applied.await {
            Ok(rows) => rows,
            Err(error) if is_refused(&error) => {
                return Err(WriteBackFailure::Refused(found, error));
            }
            Err(error) => return Err(WriteBackFailure::Lost(error)),
        };
        if let Some(apart) = apart {
            match apart.commit().await.map_err(StateError::from) {
                Ok(()) => {}
                // A deferred constraint, for one.
                Err(error) if is_refused(&error) => {
                    return Err(WriteBackFailure::Refused(found, error));
                }
                Err(error) => return Err(WriteBackFailure::Lost(error)),
            }
        }
        let events: Vec<EventId> = found.iter().map(|due| due.event).collect();
        let written = write_backs::written(&tx, &self.slot, &events);
        if shared {
            // Sent in this order, all at once.
            let (before, after) = (row_change::own_statements(&tx), row_change::user_code(&tx));
            tokio::try_join!(biased; before, written, after)?;
        } else {
            written.await?;
        }
        match tx.commit().await.map_err(StateError::from) {
            Ok(()) => {}
            Err(error) if is_refused(&error) => {
                return Err(WriteBackFailure::Refused(found, error));
            }
            Err(error) => return Err(WriteBackFailure::Lost(error)),
        }
        for (due, rows) in found.iter().zip(rows) {
            self.wrote(due, rows);
        }
        Ok(found.len())
    }

    /// What endpoints answered to those of them whose rule says it.
    async fn answered(
        &self,
        tx: &tokio_postgres::Transaction<'_>,
        found: &[DueWriteBack],
    ) -> Result<HashMap<EventId, Answered>, StateError> {
        let says =
            |due: &&DueWriteBack| self.rule(due).is_some_and(|(rule, _)| rule.terms.says_answers());
        let said = found.iter().filter(says).map(|due| (due.event, due.delivered));
        let said: Vec<(EventId, bool)> = said.collect();
        if said.is_empty() {
            return Ok(HashMap::new());
        }
        endpoint_answers::of_events(tx, &self.slot, &said).await
    }

    async fn apply(
        &self,
        tx: &tokio_postgres::Transaction<'_>,
        due: &DueWriteBack,
        answered: &HashMap<EventId, Answered>,
    ) -> Result<Option<u64>, StateError> {
        // An event of an earlier configuration has nobody to tell.
        let Some((rule, _)) = self.rule(due) else { return Ok(None) };
        let DueWriteBack { event, target, delivered, .. } = due;
        let none = Answered::default();
        let said = (*delivered, answered.get(event).unwrap_or(&none));
        row_change::apply(tx, &rule.terms, &due.table, *event, target, said).await.map(Some)
    }

    fn rule(&self, due: &DueWriteBack) -> Option<&(WriteBackRule, WriteBackMetrics)> {
        let is_its =
            |rule: &WriteBackRule| rule.event_type == due.event_type && rule.table == due.table;
        self.rules.iter().find(|(rule, _)| is_its(rule))
    }

    fn wrote(&mut self, due: &DueWriteBack, rows: Option<u64>) {
        let Some((_, metrics)) = self.rule(due) else { return };
        metrics.wrote(due.delivered, rows.unwrap_or_default());
        if rows == Some(0) {
            self.status.set(|view| view.unchanged += 1);
            let silent = &mut self.unchanged;
            silent.count += 1;
            if silent.told.is_none_or(|at| at.elapsed() >= UNCHANGED_EVERY) {
                // Not a mistake by itself, and never to be overlooked.
                tracing::warn!(
                    event = &*due.event_type,
                    table = %due.table,
                    event_id = %due.event,
                    rows = std::mem::take(&mut silent.count),
                    "a write-back changed no row: it is gone, or somebody else has changed it"
                );
                silent.told = Some(Instant::now());
            }
        }
        tracing::debug!(
            event = &*due.event_type,
            event_id = %due.event,
            delivered = due.delivered,
            rows,
            "written back"
        );
    }

    async fn refused(
        &mut self,
        client: &Client,
        due: &DueWriteBack,
        error: &StateError,
    ) -> Result<(), StateError> {
        let cause = match error {
            StateError::Store(StoreError::Refused(cause)) => cause.to_string(),
            other => other.to_string(),
        };
        let wait = RETRY_FIRST.saturating_mul(1 << due.tries.min(16)).min(RETRY_CAP);
        let wait = wait.mul_f64(0.75 + fastrand::f64() / 2.0);
        write_backs::failed(client, &self.slot, due.event, &cause, wait).await?;
        let named = self.named.get(&due.event_type);
        let is_told = named.is_some_and(|(told, at)| *told == cause && at.elapsed() < NAMED_EVERY);
        if !is_told {
            tracing::warn!(
                event = &*due.event_type,
                table = %due.table,
                error = cause,
                tries = due.tries + 1,
                "cannot write an outcome back, trying again; deliveries go on; see `walhook check`"
            );
            self.named.insert(Arc::clone(&due.event_type), (cause.clone(), Instant::now()));
        }
        self.status.set(|view| view.error = Some(cause));
        if let Some((_, metrics)) = self.rule(due) {
            metrics.errors.inc();
        }
        Ok(())
    }
}

/// Why a transaction was not committed.
enum WriteBackFailure {
    /// The server refused a statement: these, or one of them, have to wait.
    Refused(Vec<DueWriteBack>, StateError),
    /// Nothing can be written at the moment.
    Lost(StateError),
}

impl<E: Into<StateError>> From<E> for WriteBackFailure {
    fn from(error: E) -> Self {
        Self::Lost(error.into())
    }
}

/// Whether the server said no to this statement, as opposed to being away.
fn is_refused(error: &StateError) -> bool {
    let Some(state) = error.sqlstate() else { return false };
    // Connection exceptions, and the operator's interventions but for a statement that was
    // cancelled: by its time limit, most likely.
    let code = state.code();
    !code.starts_with("08") && (!code.starts_with("57") || code == "57014")
}

async fn closed(wake: &mut watch::Receiver<()>) {
    while wake.changed().await.is_ok() {}
}
