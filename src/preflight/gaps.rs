//! Gaps before the start: does the state meet the server? And the explicit way on.

use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::config::configuration::Settings;
use crate::config::settings::ServerSettings;
use crate::flow::exit_status::ExitStatus;
use crate::flow::time::Timestamp;
use crate::replication::catalog::facts;
use crate::replication::diagnostic::SetupDiagnostic;
use crate::replication::error::SourceError;
use crate::replication::gap::ChangeGap;
use crate::replication::gap::GapCause;
use crate::replication::gap_survey;
use crate::replication::gap_survey::SlotMovers;
use crate::replication::slot::SlotStream;
use crate::replication::wire::command;
use crate::store;
use crate::store::error::StoreError;
use crate::store::progress;
use crate::store::progress::StoredProgress;
use crate::store::state_error::StateError;

/// How long a time is asked for that only makes a message clearer.
const DATE_PATIENCE: Duration = Duration::from_millis(500);

/// The last words of a walhook that has just ended may still be on their way to the state.
const SETTLE: Duration = Duration::from_millis(300);

/// What is missing, as far as it can be told while the slot is nobody's. A walhook that has it has
/// looked itself.
///
/// # Errors
/// The server or the state cannot be asked.
pub(crate) async fn found(
    settings: &Settings,
    client: &Client,
) -> anyhow::Result<Vec<SetupDiagnostic>> {
    let found = look(settings, client).await?;
    if found.is_empty() {
        return Ok(found);
    }
    tokio::time::sleep(SETTLE).await;
    look(settings, client).await
}

async fn look(settings: &Settings, client: &Client) -> anyhow::Result<Vec<SetupDiagnostic>> {
    let postgres = &settings.postgres;
    // The slot before the state: see `gap_survey::survey`.
    let slot = facts::slot(client, &postgres.slot).await?;
    let Some(progress) = known(settings).await? else {
        let read = slot.filter(|slot| slot.was_read() && slot.defect().is_none());
        return Ok(match read {
            Some(slot) => vec![state_unknown(settings, client, slot).await?],
            None => Vec::new(),
        });
    };
    if slot.as_ref().is_some_and(|slot| slot.active_pid.is_some()) {
        return Ok(Vec::new());
    }
    let mut connection = command::connect(&postgres.server, postgres.wal_sender_timeout).await?;
    let identity = connection.identify_system().await?;
    connection.close().await;
    Ok(gap_survey::survey(client, postgres, &identity, SlotMovers::Others, slot, &progress).await?)
}

/// The slot has been read, and it is not known what became of what was read.
async fn state_unknown(
    settings: &Settings,
    client: &Client,
    slot: SlotStream,
) -> Result<SetupDiagnostic, StoreError> {
    let question = "SELECT (extract(epoch FROM pg_catalog.clock_timestamp()) * 1000000)::bigint";
    let now = client.query_one(question, &[]).await?.try_get(0)?;
    let state = store::connect(&settings.state).await?;
    let question = "SELECT pg_catalog.current_database()::text";
    let database = state.client.query_one(question, &[]).await?.try_get(0)?;
    Ok(SetupDiagnostic::Gap(ChangeGap {
        cause: GapCause::StateUnknown { slot: slot.name, database },
        from: slot.confirmed.unwrap_or_default(),
        since: None,
        to: None,
        found: Timestamp::from_micros(now),
    }))
}

/// What is no gap after all is left out, and times are added where the state knows them.
pub(crate) async fn weigh(
    settings: &Settings,
    problems: &mut Vec<SetupDiagnostic>,
) -> Result<(), StateError> {
    let is_other =
        |problem: &SetupDiagnostic| matches!(problem, SetupDiagnostic::OtherPublication { .. });
    if problems.iter().any(is_other) {
        problems.retain(|problem| !matches!(problem, SetupDiagnostic::PublicationGone { .. }));
    }
    if problems.iter_mut().any(|problem| undated(problem).is_some()) {
        let known = known(settings).await?.and_then(|progress| progress.confirmed_at);
        for since in problems.iter_mut().filter_map(undated) {
            *since = known;
        }
    }
    Ok(())
}

/// The place for the time from which on changes are lost, where that is not known yet.
fn undated(problem: &mut SetupDiagnostic) -> Option<&mut Option<Timestamp>> {
    let since = match problem {
        SetupDiagnostic::SlotLost { since, .. }
        | SetupDiagnostic::PublicationGone { since, .. }
        | SetupDiagnostic::Gap(ChangeGap { since, .. }) => since,
        _ => return None,
    };
    since.is_none().then_some(since)
}

/// When the last transaction was committed that the state knows of as confirmed; `None` also if the state
/// does not say it soon: nothing waits for it.
pub(crate) async fn confirmed_at(state: &ServerSettings, slot: &str) -> Option<Timestamp> {
    let asked = async {
        let session = store::connect_within(state, DATE_PATIENCE).await.ok()?;
        progress::load(&session.client, slot).await.ok()??.confirmed_at
    };
    tokio::time::timeout(DATE_PATIENCE, asked).await.ok()?
}

/// What has ended a walhook that ran, with the time from which on changes are lost, if they are.
///
/// # Errors
/// Those of `ended`.
pub(crate) async fn dated(
    settings: &Settings,
    ended: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let mut error = match ended.await {
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    if let Some(SourceError::Refused(problem)) = error.downcast_mut::<SourceError>()
        && let Some(since) = undated(problem)
    {
        *since = Box::pin(confirmed_at(&settings.state, &settings.postgres.slot)).await;
    }
    Err(error)
}

/// `None` if the state does not know the slot, or is not there yet.
pub(crate) async fn known(settings: &Settings) -> Result<Option<StoredProgress>, StateError> {
    let session = store::connect(&settings.state).await?;
    match progress::load(&session.client, &settings.postgres.slot).await {
        // That it may not be read is told by name, with what an administrator has to run.
        Err(error)
            if error.sqlstate().is_some_and(|state| {
                [SqlState::UNDEFINED_TABLE, SqlState::INSUFFICIENT_PRIVILEGE].contains(state)
            }) =>
        {
            Ok(None)
        }
        loaded => loaded,
    }
}

/// The command that sends what the tables hold; deleted rows are in none.
fn backfill(settings: &Settings) -> String {
    let mut tables: Vec<String> =
        settings.events.iter().map(|rule| rule.table.to_string()).collect();
    tables.sort_unstable();
    tables.dedup();
    format!("walhook backfill {}", tables.join(" "))
}

/// Takes the gaps out of `problems`, since the operator accepts them. A slot that cannot be read any
/// more, because it is lost or stands before its publication, is dropped for the next to be made.
///
/// # Errors
/// The slot cannot be dropped.
pub(crate) async fn accept(
    settings: &Settings,
    client: &Client,
    problems: &mut Vec<SetupDiagnostic>,
) -> Result<(), StoreError> {
    let is_gap = |problem: &SetupDiagnostic| problem.exit() == ExitStatus::SlotLost;
    let needs_slot = |problem: &SetupDiagnostic| match problem {
        SetupDiagnostic::SlotLost { .. } | SetupDiagnostic::PublicationGone { .. } => true,
        SetupDiagnostic::Gap(ChangeGap { cause, .. }) => {
            matches!(cause, GapCause::PublicationMadeAgain { .. })
        }
        _ => false,
    };
    let gaps: Vec<SetupDiagnostic> = problems.extract_if(.., |problem| is_gap(problem)).collect();
    for gap in &gaps {
        let fill = backfill(settings);
        tracing::warn!(gap = gap.what(), fill, "going on in spite of a gap");
    }
    if problems.is_empty() && gaps.iter().any(needs_slot) {
        let slot = &settings.postgres.slot;
        let drop = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots \
                    WHERE slot_name = $1 AND active_pid IS NULL AND database = current_database()";
        client.execute(drop, &[slot]).await?;
        tracing::warn!(slot, "dropped the slot, which could not be read any more");
    }
    Ok(())
}
