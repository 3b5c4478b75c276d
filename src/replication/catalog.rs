//! Looks at a server, its tables, publication and slot, and makes what is missing.
//!
//! ```text
//! settings ─ WantedObjects ─▶ [facts] queries ─▶ [judge] (pure) ─▶ CheckReport ─▶ `walhook check`
//!                                                              └────▶ prepare ─▶ `walhook run`
//! ```
//!
//! Everything that is wrong is found in one go, each with its fix. walhook makes the publication,
//! for exactly the wanted tables, and after it the slot: a slot cannot be read where it stands
//! before its publication. It drops nothing. Where it lacks the privilege, the fix is the exact SQL.

pub(crate) mod facts;
pub(crate) mod judge;
pub(crate) mod wanted;

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::config::settings::PostgresSettings;
use crate::flow::exit_status::ExitStatus;
use crate::flow::lsn::Lsn;
use crate::replication::catalog::facts::CatalogFacts;
use crate::replication::catalog::wanted::WantedObjects;
use crate::replication::diagnostic::SetupDiagnostic;
use crate::replication::error::SourceError;
use crate::replication::wire::command;
use crate::replication::wire::command::slot_commands::NewSlot;
use crate::replication::wire::command::slot_commands::SlotCreation;
use crate::store::error::StoreError;

/// How grave a finding is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum FindingLevel {
    Ok,
    /// It works, but look at it.
    Warning,
    /// It cannot work.
    Problem,
}

/// One line of `walhook check`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CheckFinding {
    pub level: FindingLevel,
    pub what: String,
    /// Exact SQL, or a setting.
    pub fix: Option<String>,
    /// For problems: the same as an error.
    pub refusal: Option<SetupDiagnostic>,
}

impl CheckFinding {
    pub fn ok(what: String) -> Self {
        Self { level: FindingLevel::Ok, what, fix: None, refusal: None }
    }

    pub fn warning(what: String, fix: String) -> Self {
        Self { level: FindingLevel::Warning, what, fix: Some(fix), refusal: None }
    }
}

impl From<SetupDiagnostic> for CheckFinding {
    fn from(refusal: SetupDiagnostic) -> Self {
        Self {
            level: FindingLevel::Problem,
            what: refusal.what(),
            fix: Some(refusal.fix()),
            refusal: Some(refusal),
        }
    }
}

/// All that was found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct CheckReport {
    pub findings: Vec<CheckFinding>,
    /// What walhook itself would run at its start; it may.
    pub steps: Vec<String>,
    /// What the publication lacks that those steps would mend.
    pub mends: Vec<SetupDiagnostic>,
    /// The slot is missing, and walhook would make it.
    pub makes_slot: bool,
}

impl CheckReport {
    /// Everything that does not allow the work.
    pub fn problems(&self) -> Vec<SetupDiagnostic> {
        self.findings.iter().filter_map(|finding| finding.refusal.clone()).collect()
    }

    /// 0 if there is no problem; else the gravest problem's code.
    pub fn exit(&self) -> ExitStatus {
        self.problems().iter().map(SetupDiagnostic::exit).max().unwrap_or(ExitStatus::Done)
    }
}

/// What [`prepare`] has made.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PreparedObjects {
    /// Statements that were run: the publication's.
    pub ran: Vec<String>,
    /// Where the slot starts, if it is new.
    pub slot_made: Option<Lsn>,
    /// What works, but should be looked at.
    pub warnings: Vec<CheckFinding>,
}

/// Asks the server about everything that `wanted` needs. Changes nothing.
///
/// # Errors
/// That the server could not be asked; what it answered is in the report.
pub async fn inspect(client: &Client, wanted: &WantedObjects) -> Result<CheckReport, StoreError> {
    Ok(look(client, wanted).await?.0)
}

/// As [`inspect`], with the facts that it was judged by; none of a server that is too old.
///
/// # Errors
/// That the server could not be asked.
pub(crate) async fn look(
    client: &Client,
    wanted: &WantedObjects,
) -> Result<(CheckReport, Option<CatalogFacts>), StoreError> {
    let server = facts::server(client).await?;
    if let Some(refusal) = judge::server::too_old(&server) {
        // Its catalog lacks columns that the other questions need.
        let findings = vec![refusal.into()];
        return Ok((CheckReport { findings, ..CheckReport::default() }, None));
    }
    let facts = facts::gather(client, server, wanted).await?;
    Ok((judge::judge(&facts, wanted), Some(facts)))
}

/// Makes sure that everything is there, for `walhook tail`, which only looks on.
///
/// # Errors
/// [`SourceError::NotSetUp`] with everything that is missing, also what [`prepare`] would make.
pub(crate) async fn require(client: &Client, wanted: &WantedObjects) -> Result<(), SourceError> {
    let report = inspect(client, wanted).await?;
    let mut problems = report.problems();
    let publication = || wanted.publication.clone();
    let missing = |sql| SetupDiagnostic::NotPrepared { publication: publication(), sql };
    problems.extend(report.steps.into_iter().map(missing));
    if problems.is_empty() { Ok(()) } else { Err(SourceError::NotSetUp(problems)) }
}

/// Makes what is missing: the publication, then the slot. A slot that is in use does not stand in
/// the way of that; the source, which streams from it afterwards, decides how long to wait for it. Only
/// a new slot takes a replication connection: one more than it needs would refuse walhook a server with a
/// single free walsender.
///
/// # Errors
/// [`SourceError::NotSetUp`] with everything that stands in the way, before anything is changed;
/// the server's refusal of a statement.
pub async fn prepare(
    client: &Client,
    settings: &PostgresSettings,
    wanted: &WantedObjects,
) -> Result<PreparedObjects, SourceError> {
    let report = inspect(client, wanted).await?;
    let mut problems = report.problems();
    problems.retain(|problem| !matches!(problem, SetupDiagnostic::SlotInUse { .. }));
    if !problems.is_empty() {
        return Err(SourceError::NotSetUp(problems));
    }
    let mut prepared = PreparedObjects::default();
    for step in report.steps {
        match client.batch_execute(&step).await {
            Ok(()) => prepared.ran.push(step),
            // Another walhook that starts at the same moment has been quicker: by as much as PostgreSQL looks
            // for first, or by less, which its own index says.
            Err(error)
                if [&SqlState::DUPLICATE_OBJECT, &SqlState::UNIQUE_VIOLATION]
                    .map(Some)
                    .contains(&error.code()) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if report.makes_slot {
        let slot = NewSlot { name: &wanted.slot, temporary: false, failover: settings.failover };
        let mut replication =
            command::connect(&settings.server, settings.wal_sender_timeout).await?;
        if let SlotCreation::Created { consistent } = replication.create_slot(slot).await? {
            prepared.slot_made = Some(consistent);
        }
        replication.close().await;
    }
    prepared.warnings = report.findings;
    prepared.warnings.retain(|finding| finding.level == FindingLevel::Warning);
    Ok(prepared)
}
