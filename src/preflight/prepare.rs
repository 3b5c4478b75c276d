//! Before the start: looks at the server, makes what is missing.

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::clock::host_now;
use crate::config::configuration::Settings;
use crate::config::settings::Endpoint;
use crate::delivery::connection::sockets;
use crate::failpoint;
use crate::flow::exit_status::ExitStatus;
use crate::preflight::backfills;
use crate::preflight::callback_tables;
use crate::preflight::clock_offset;
use crate::preflight::collector;
use crate::preflight::column_types;
use crate::preflight::dry_run;
use crate::preflight::dry_run::EventExample;
use crate::preflight::endpoint_rows;
use crate::preflight::failover;
use crate::preflight::gaps;
use crate::preflight::inspection::InspectionSessions;
use crate::preflight::inspection::SchemaInspection;
use crate::preflight::old_rows;
use crate::preflight::orphans;
use crate::preflight::ownership;
use crate::preflight::ownership::StartConsent;
use crate::preflight::reach;
use crate::preflight::state_session;
use crate::preflight::write_back_trial;
use crate::replication::catalog;
use crate::replication::catalog::CheckFinding;
use crate::replication::catalog::CheckReport;
use crate::replication::catalog::FindingLevel;
use crate::replication::catalog::wanted::WantedObjects;
use crate::replication::diagnostic::SetupDiagnostic;
use crate::replication::error::SourceError;
use crate::replication::text_forms;
use crate::replication::wire::command;
use crate::store;
use crate::store::endpoints;
use crate::store::error::StoreError;
use crate::store::gaps as gaps_booked;
use crate::store::migrate;
use crate::store::progress;
use crate::store::sealed_secret::SealingKeys;
use crate::store::state_error::StateError;

/// Makes walhook's own tables, the publication and the slot if they are missing, as far as the
/// operator's consent goes.
///
/// # Errors
/// Everything that stands in the way, at once, before anything is changed.
pub(crate) async fn prepare(settings: &Settings, consent: StartConsent) -> anyhow::Result<()> {
    let postgres = &settings.postgres;
    let mut sessions = InspectionSessions::default();
    let wanted = WantedObjects::new(settings);
    let inspection = SchemaInspection::take(settings, &mut sessions).await?;
    let session = sessions.plain(&postgres.server).await?;
    let mut problems = inspection.problems();
    // The source, which streams from it, decides how long to wait for it.
    problems.retain(|problem| !matches!(problem, SetupDiagnostic::SlotInUse { .. }));
    problems.extend(state_refusal(settings).await?);
    let callbacks = callback_tables::findings(settings, &session.client).await?;
    problems.extend(callbacks.iter().filter_map(|finding| finding.refusal.clone()));
    let changes = !inspection.report.steps.is_empty();
    ownership::judge(settings, &session.client, changes, &mut problems).await?;
    if consent.slot {
        problems.retain(|problem| !matches!(problem, SetupDiagnostic::SlotOfOther { .. }));
    }
    if problems.is_empty() {
        let found = column_types::findings(settings, &session.client).await?;
        problems.extend(found.into_iter().filter_map(|finding| finding.refusal));
        problems.extend(backfills::refusals(settings, &session.client).await?);
    }
    if problems.iter().all(may_be_gap) {
        problems.extend(gaps::found(settings, &session.client).await?);
    }
    gaps::weigh(settings, &mut problems).await?;
    if consent.gap {
        gaps::accept(settings, &session.client, &mut problems).await?;
    }
    if !problems.is_empty() {
        return Err(SourceError::NotSetUp(problems).into());
    }
    // The state first: a slot that nobody reads would keep the server's WAL.
    let state = state_session::open(settings).await?;
    progress::register(&state.client, &postgres.slot).await?;
    drop(state);
    let prepared = catalog::prepare(&session.client, postgres, &wanted).await?;
    failpoint::reached(failpoint::SLOT_MADE);
    for step in prepared.ran {
        tracing::info!(sql = step, "made");
    }
    if let Some(start) = prepared.slot_made {
        tracing::info!(slot = postgres.slot, %start, "made the slot: changes count from here");
    }
    let mut standbys = failover::of_primary(settings, &session.client).await?;
    standbys.retain(|finding| finding.level == FindingLevel::Warning);
    let warnings = prepared.warnings.into_iter().chain(standbys).chain(inspection.old_rows);
    for CheckFinding { what, fix, .. } in warnings {
        tracing::warn!(fix, "{what}");
    }
    Ok(())
}

/// Whether it is worth asking what the state says of it.
fn may_be_gap(problem: &SetupDiagnostic) -> bool {
    let is_gone = matches!(problem, SetupDiagnostic::PublicationGone { .. });
    is_gone || problem.exit() == ExitStatus::SlotLost
}

/// What tables and publication lack for the events and endpoints of `settings`, while walhook runs.
///
/// # Errors
/// The server cannot be asked.
pub(crate) async fn lacking(settings: &Settings) -> anyhow::Result<Vec<String>> {
    let mut sessions = InspectionSessions::default();
    let mut problems = SchemaInspection::take(settings, &mut sessions).await?.problems();
    problems.retain(|problem| !matches!(problem, SetupDiagnostic::SlotInUse { .. }));
    Ok(problems.iter().map(|problem| format!("{}: {}", problem.what(), problem.fix())).collect())
}

/// What the tables lack for one endpoint, which would never get an event.
///
/// # Errors
/// The server cannot be asked.
pub(crate) async fn lacking_for(
    settings: &Settings,
    endpoint: &Endpoint,
) -> Result<Vec<SetupDiagnostic>, StoreError> {
    let session = store::connect(&settings.postgres.server).await?;
    old_rows::refusals(settings, &session.client, endpoint).await
}

/// Transactions that were left out on the operator's word.
async fn skipped(settings: &Settings) -> Result<Option<CheckFinding>, StateError> {
    let session = store::connect(&settings.state).await?;
    let all = match gaps_booked::load(&session.client, &settings.postgres.slot).await {
        Err(error) if error.sqlstate() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => Vec::new(),
        loaded => loaded?,
    };
    let Some(last) = all.first() else { return Ok(None) };
    let (count, commit, sent) = (all.len(), last.commit, last.sent);
    Ok(Some(CheckFinding::warning(
        format!(
            "{count} transactions were left out, the last one committed at {commit}, after {sent} of its \
             changes: {}",
            last.reason
        ),
        String::from(
            "send from the tables what is missing, then delete their rows from walhook.gaps",
        ),
    )))
}

/// Whether this process may have as many sockets as the endpoints of the file may ask for at once.
fn sockets_finding(settings: &Settings) -> Option<CheckFinding> {
    let limit = sockets::raise_limit();
    let (room, endpoints) = (sockets::within(limit), settings.endpoints.len());
    let wanted: usize = settings.endpoints.iter().map(|each| each.concurrency.get()).sum();
    (wanted > room).then(|| {
        CheckFinding::warning(
            format!(
                "{endpoints} endpoints may have {wanted} requests in flight, and the limit of \
                 {limit} file descriptors leaves {room} for them"
            ),
            String::from(
                "raise it (`ulimit -Hn`, LimitNOFILE of the unit), or lower `concurrency`",
            ),
        )
    })
}

/// Opens what is secret of the endpoints of the API, as a start will.
async fn open_secrets(settings: &Settings) -> anyhow::Result<()> {
    let (keys, slot) = (SealingKeys::new(&settings.run_time.keys), &settings.postgres.slot);
    let state = store::connect(&settings.state).await?;
    for row in endpoints::load_if_any(&state.client, slot).await? {
        if let Some(sealed) = &row.sealed {
            keys.open(slot, &row.name, sealed)?;
        }
    }
    Ok(())
}

/// What keeps walhook from having its own tables.
async fn state_refusal(settings: &Settings) -> Result<Option<SetupDiagnostic>, StateError> {
    let session = store::connect(&settings.state).await?;
    store::is_direct(&session.client).await?;
    match migrate::lacking(&session.client).await? {
        None => Ok(None),
        Some(StateError::NoPrivilege { role, sql, .. }) => {
            Ok(Some(SetupDiagnostic::NoState { role, sql }))
        }
        Some(other) => Err(other),
    }
}

/// Adds what only the state knows, and corrects what was found without it.
async fn settle(
    settings: &Settings,
    client: &Client,
    report: &mut CheckReport,
) -> anyhow::Result<()> {
    let mut problems = report.problems();
    let changes = !report.steps.is_empty();
    ownership::judge(settings, client, changes, &mut problems).await?;
    let gaps = gaps::found(settings, client).await?;
    report.makes_slot &= gaps.is_empty();
    problems.extend(gaps);
    gaps::weigh(settings, &mut problems).await?;
    if problems.iter().any(|problem| matches!(problem, SetupDiagnostic::PublicationOfOther { .. }))
    {
        report.steps.clear();
    }
    // What stays stands where it stood.
    report.findings.retain(|finding| {
        let Some(refusal) = &finding.refusal else { return true };
        let place = problems.iter().position(|problem| problem == refusal);
        place.map(|place| problems.remove(place)).is_some()
    });
    report.findings.extend(problems.into_iter().map(CheckFinding::from));
    Ok(())
}

/// Looks at everything that [`prepare`] and the endpoints need, and tries the events on rows that
/// are there. Changes nothing.
///
/// # Errors
/// The server cannot be asked at all.
pub(crate) async fn check(settings: &Settings) -> anyhow::Result<(CheckReport, Vec<EventExample>)> {
    let mut sessions = InspectionSessions::default();
    let inspection = SchemaInspection::take(settings, &mut sessions).await?;
    let session = sessions.plain(&settings.postgres.server).await?;
    let SchemaInspection { mut report, old_rows, others, .. } = inspection;
    let tables: Vec<_> =
        WantedObjects::new(settings).tables.into_iter().map(|table| table.name).collect();
    report.findings.extend(text_forms::findings(&session.client, &tables).await?);
    report.findings.extend(skipped(settings).await?);
    report.findings.extend(old_rows.into_iter().chain(others));
    report.findings.extend(callback_tables::findings(settings, &session.client).await?);
    report.findings.extend(column_types::untaken(settings));
    let mut examples = Vec::new();
    if report.problems().is_empty() {
        report.findings.extend(column_types::findings(settings, &session.client).await?);
        let trials = dry_run::findings(settings, &session.client, host_now()).await?;
        report.findings.extend(trials.findings);
        examples = trials.examples;
        report.findings.extend(write_back_trial::findings(settings, &mut sessions).await?);
    }
    let session = sessions.plain(&settings.postgres.server).await?;
    report.findings.push(clock_offset::finding(&session.client).await?);
    report.findings.extend(failover::findings(settings, &session.client).await?);
    match state_refusal(settings).await? {
        None => {
            settle(settings, &session.client, &mut report).await?;
            report.findings.extend(orphans::findings(settings).await?);
            open_secrets(settings).await?;
            report.findings.extend(backfills::findings(settings, &session.client).await?);
            let what = String::from("state in schema walhook is there, or can be made");
            report.findings.push(CheckFinding::ok(what));
        }
        // What it would say cannot be asked for.
        Some(refusal) => report.findings.push(refusal.into()),
    }
    if report.problems().is_empty() {
        // The catalog can be right and the door closed all the same: pg_hba.conf, for one.
        let timeout = settings.postgres.wal_sender_timeout;
        match command::connect(&settings.postgres.server, timeout).await {
            Ok(connection) => {
                connection.close().await;
                report
                    .findings
                    .push(CheckFinding::ok(String::from("replication connections work")));
            }
            Err(error) => return Err(error.into()),
        }
    }
    report.findings.extend(sockets_finding(settings));
    report.findings.extend(reach::findings(&settings.endpoints).await);
    report.findings.extend(collector::findings(&settings.telemetry).await);
    if settings.endpoints_from.is_some() {
        let session = sessions.own_path(&settings.postgres.server).await?;
        report.findings.extend(endpoint_rows::unreachable(settings, &session.client).await?);
    }
    Ok((report, examples))
}
