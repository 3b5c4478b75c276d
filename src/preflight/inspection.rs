//! Asks PostgreSQL for everything that a configuration needs of it: for `check`, for the start, for a
//! configuration that is read again, and every few seconds while walhook runs.

use tokio_postgres::Client;

use crate::config::configuration::Settings;
use crate::config::settings::ServerSettings;
use crate::preflight::endpoint_rows;
use crate::preflight::old_rows;
use crate::preflight::write_backs;
use crate::replication::catalog;
use crate::replication::catalog::CheckFinding;
use crate::replication::catalog::CheckReport;
use crate::replication::catalog::facts::CatalogFacts;
use crate::replication::catalog::wanted::WantedObjects;
use crate::replication::diagnostic::SetupDiagnostic;
use crate::replication::slot_holder;
use crate::replication::slot_holder::SlotHolderSession;
use crate::store;
use crate::store::APPLICATION_NAME;
use crate::store::SqlSession;
use crate::store::error::StoreError;

/// Sessions of an inspection, kept for the next one.
#[derive(Debug, Default)]
pub(crate) struct InspectionSessions {
    plain: Option<SqlSession>,
    /// For what runs the user's own code: views, triggers, statements.
    own_path: Option<SqlSession>,
}

/// What there is to say.
#[derive(Debug)]
pub(crate) struct SchemaInspection {
    /// Server, tables, publication and slot.
    pub(crate) report: CheckReport,
    /// What events and endpoints need of rows.
    pub(crate) old_rows: Vec<CheckFinding>,
    /// Write-backs, and the table of endpoints.
    pub(crate) others: Vec<CheckFinding>,
    pub(crate) facts: Option<CatalogFacts>,
}

impl InspectionSessions {
    /// The session for walhook's own questions.
    ///
    /// # Errors
    /// The server lets nobody in.
    pub(crate) async fn plain(
        &mut self,
        server: &ServerSettings,
    ) -> Result<&mut SqlSession, StoreError> {
        let kept = &mut self.plain;
        let open = SqlSession::take_or_connect(kept, server, store::ANSWER_SOON).await?;
        Ok(self.plain.insert(open))
    }

    /// The session for what runs the user's own code.
    ///
    /// # Errors
    /// The server lets nobody in.
    pub(crate) async fn own_path(
        &mut self,
        server: &ServerSettings,
    ) -> Result<&mut SqlSession, StoreError> {
        let open = match self.own_path.take() {
            Some(open) => open,
            None => store::connect_with_own_path(server, store::ANSWER_SOON).await?,
        };
        Ok(self.own_path.insert(open))
    }
}

/// Who would take over.
async fn standbys(settings: &Settings, client: &Client) -> Result<Vec<CheckFinding>, StoreError> {
    let slot = &settings.postgres.slot;
    let waiting = slot_holder::standbys(client, slot).await?;
    let finding = |one: SlotHolderSession| {
        let name = one.application.unwrap_or_else(|| APPLICATION_NAME.to_owned());
        let from = one.address.map(|address| format!(" at {address}")).unwrap_or_default();
        let since = one.since.map(|since| format!(", since {since}")).unwrap_or_default();
        CheckFinding::ok(format!(
            "standby: {name}{from} waits for slot {slot} (server process {}{since})",
            one.pid
        ))
    };
    Ok(waiting.into_iter().map(finding).collect())
}

impl SchemaInspection {
    /// Asks for all of it.
    ///
    /// # Errors
    /// The server cannot be asked. The sessions are to be dropped then.
    pub(crate) async fn take(
        settings: &Settings,
        sessions: &mut InspectionSessions,
    ) -> Result<Self, StoreError> {
        let mut inspection = Self::of_tables(settings, sessions).await?;
        let server = &settings.postgres.server;
        let Some(facts) = &inspection.facts else { return Ok(inspection) };
        let mut others = standbys(settings, &sessions.plain(server).await?.client).await?;
        if settings.events.iter().any(|rule| rule.write_back.is_some()) {
            let client = &mut sessions.own_path(server).await?.client;
            others.extend(write_backs::findings(settings, facts, client).await?);
        }
        if settings.endpoints_from.is_some() {
            let client = &sessions.own_path(server).await?.client;
            others.extend(endpoint_rows::findings(settings, facts, client).await?);
        }
        inspection.others = others;
        Ok(inspection)
    }

    /// Asks for what the events need of tables and publication.
    ///
    /// # Errors
    /// The server cannot be asked. The sessions are to be dropped then.
    pub(crate) async fn of_tables(
        settings: &Settings,
        sessions: &mut InspectionSessions,
    ) -> Result<Self, StoreError> {
        let server = &settings.postgres.server;
        let client = &sessions.plain(server).await?.client;
        let (report, facts) = catalog::look(client, &WantedObjects::new(settings)).await?;
        let old_rows = facts.as_ref().map(|facts| old_rows::findings(settings, facts));
        let (old_rows, others) = (old_rows.unwrap_or_default(), Vec::new());
        Ok(Self { report, old_rows, others, facts })
    }

    /// Everything that does not allow the work.
    pub(crate) fn problems(&self) -> Vec<SetupDiagnostic> {
        let mut problems = self.report.problems();
        let found = self.old_rows.iter().chain(&self.others);
        problems.extend(found.filter_map(|finding| finding.refusal.clone()));
        problems
    }
}
