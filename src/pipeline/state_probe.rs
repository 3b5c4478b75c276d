//! Asks the state now and then whether it could be written, so that trouble is seen before there is
//! something to write.
//!
//! Nothing is written: the lock that each flush takes on its tables is taken and given back. That
//! finds a server that is away, frozen, read-only or recovering, and tables that a session has locked. What
//! a start would be refused for is asked as well: rights that were taken away, tables that were dropped
//! or put under row-level security. A full disk shows with the next flush.

use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tokio_postgres::SimpleQueryMessage;
use tokio_util::sync::CancellationToken;

use crate::config::settings::ServerSettings;
use crate::ledger::state_status::StateStatus;
use crate::store::SqlSession;
use crate::store::error::StoreError;
use crate::store::migrate;
use crate::store::migrate::schema_check;
use crate::store::state_error::StateError;

/// Between two questions.
const ASK_EVERY: Duration = Duration::from_secs(2);

/// How long an answer may take, locks included: with the pause before it, trouble shows within 10 s.
const ANSWER_MAX: Duration = Duration::from_secs(4);

/// One round trip. The tables are those that a flush writes to first.
const QUESTION: &str = "
    BEGIN;
    SET LOCAL lock_timeout = '3s';
    LOCK TABLE ONLY walhook.progress, ONLY walhook.backlog, ONLY walhook.dead_letters
        IN ROW EXCLUSIVE MODE;
    SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('transaction_read_only');
    ROLLBACK";

/// Asks until `stop`.
/// It cannot fail: the signature is that of a task.
pub(crate) async fn watch(
    server: ServerSettings,
    status: StateStatus,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut session = None;
    let mut ticks = tokio::time::interval(ASK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            _ = ticks.tick() => {}
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            silent = ask(&server, &mut session) => status.asked(silent),
        }
    }
}

/// Why there is no good answer; `None` if there is one.
async fn ask(server: &ServerSettings, session: &mut Option<SqlSession>) -> Option<String> {
    let was_open = session.is_some();
    let mut answer = once(server, session).await;
    // A session that stood idle while the server was restarted says nothing of now.
    if was_open && matches!(answer, Err(Some(_))) {
        answer = once(server, session).await;
    }
    match answer {
        Ok(()) => None,
        Err(Some(error)) => Some(format!("{:#}", anyhow::Error::new(error))),
        Err(None) => Some(format!("no answer within {} s", ANSWER_MAX.as_secs())),
    }
}

/// # Errors
/// The server's, or none if it says nothing. The session is closed then.
async fn once(
    server: &ServerSettings,
    session: &mut Option<SqlSession>,
) -> Result<(), Option<StateError>> {
    let asked = async {
        let open = SqlSession::take_or_connect(session, server, ANSWER_MAX).await?;
        let answer = open.client.simple_query(QUESTION).await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                let error = StateError::from(error);
                return Err(match open.client.batch_execute("ROLLBACK").await {
                    Ok(()) => schema_check::named(&open.client, error).await,
                    Err(_closed) => error,
                });
            }
        };
        if let Some(lacks) = migrate::lacking(&open.client).await? {
            return Err(lacks);
        }
        *session = Some(open);
        let is = |row: &tokio_postgres::SimpleQueryRow| {
            row.get(0) == Some("t") || row.get(1) == Some("on")
        };
        let read_only = answer.iter().any(|part| match part {
            SimpleQueryMessage::Row(row) => is(row),
            _ => false,
        });
        Ok(read_only)
    };
    match tokio::time::timeout(ANSWER_MAX, asked).await {
        Ok(Ok(false)) => Ok(()),
        Ok(Ok(true)) => {
            // The next host of the list, or this one later, may be the one that takes writes.
            *session = None;
            Err(Some(StoreError::TakesNoWrites.into()))
        }
        Ok(Err(error)) => {
            *session = None;
            Err(Some(error))
        }
        Err(_) => {
            *session = None;
            Err(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Trouble of the state is named within this, also while there is nothing to write.
    const NAMED_MAX: Duration = Duration::from_secs(10);

    /// The pause, and the question over the session that there is and over a new one.
    #[test]
    fn trouble_is_named_within_ten_seconds() {
        assert!(ASK_EVERY + ANSWER_MAX * 2 <= NAMED_MAX);
    }
}
