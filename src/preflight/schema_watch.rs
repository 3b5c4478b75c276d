//! Compares tables and publication with the configuration while walhook runs, as `check` does before:
//! what was altered under it is named in log, status and metric, and walhook is not ready until it is
//! mended. What is needed beside the stream is `rights`' matter. Row filters and column lists are deliberate where they were there at the start; what they
//! hold back since is a problem.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::config::configuration::Settings;
use crate::flow::relation::TableName;
use crate::preflight::column_types;
use crate::preflight::inspection::InspectionSessions;
use crate::preflight::inspection::SchemaInspection;
use crate::replication::catalog::CheckFinding;
use crate::replication::catalog::FindingLevel;
use crate::replication::catalog::facts::CatalogFacts;
use crate::replication::catalog::facts::PublishedTable;
use crate::replication::catalog::facts::TableFacts;
use crate::replication::catalog::judge::publication;
use crate::replication::catalog::wanted::WantedObjects;
use crate::replication::diagnostic::SetupDiagnostic;
use crate::replication::schema_fault::SchemaFault;
use crate::replication::status::StatusHandle;
use crate::store::error::StoreError;
use crate::telemetry::metrics::ReplicationMetrics;

/// Soon enough for an operator who has just altered something.
const INTERVAL: Duration = Duration::from_secs(5);

/// What was found so far.
pub(crate) struct SchemaWatch {
    status: StatusHandle,
    metrics: ReplicationMetrics,
    sessions: InspectionSessions,
    /// What the publication sent of the tables at the first look.
    before: Option<BTreeMap<TableName, PublishedTable>>,
    /// Named in the log, and not mended since.
    problems: BTreeSet<String>,
    warnings: BTreeSet<String>,
}

impl SchemaWatch {
    pub(crate) fn new(status: StatusHandle, metrics: ReplicationMetrics) -> Self {
        Self {
            status,
            metrics,
            sessions: InspectionSessions::default(),
            before: None,
            problems: BTreeSet::new(),
            warnings: BTreeSet::new(),
        }
    }

    /// Looks every few seconds until `stop`. `current` is the configuration as it holds.
    pub(crate) async fn run(
        mut self,
        current: watch::Receiver<Arc<Settings>>,
        stop: CancellationToken,
    ) {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let settings = Arc::clone(&current.borrow());
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.look(&settings) => {}
            }
        }
    }

    /// Looks once, and tells what is other than before. That the server cannot be asked is the
    /// stream's to say.
    async fn look(&mut self, settings: &Settings) {
        let looked = async {
            let inspection = SchemaInspection::of_tables(settings, &mut self.sessions).await?;
            let client = &self.sessions.plain(&settings.postgres.server).await?.client;
            Ok::<_, StoreError>((inspection, column_types::refusals(settings, client).await?))
        };
        match looked.await {
            Ok((inspection, types)) => self.judge(settings, &inspection, types),
            Err(error) => {
                self.sessions = InspectionSessions::default();
                let error = format!("{:#}", anyhow::Error::new(error));
                tracing::debug!(error, "cannot look at the tables and the publication");
            }
        }
    }

    fn judge(
        &mut self,
        settings: &Settings,
        inspection: &SchemaInspection,
        types: Vec<SetupDiagnostic>,
    ) {
        let mut problems = inspection.problems();
        problems.extend(types);
        // The slot and a walsender are this process's own.
        problems.retain(|problem| {
            !matches!(
                problem,
                SetupDiagnostic::SlotInUse { .. } | SetupDiagnostic::NoFreeWalSender { .. }
            )
        });
        problems.extend(inspection.report.mends.iter().cloned());
        if let Some(facts) = &inspection.facts {
            let wanted = WantedObjects::new(settings);
            let is_first = self.before.is_none();
            let before = self.before.get_or_insert_with(|| published(facts, &wanted));
            problems.extend(narrowed(before, facts, &wanted));
            let found = inspection.report.findings.iter().chain(&inspection.old_rows);
            self.warn(found, is_first);
        }
        self.tell(&problems);
    }

    fn tell(&mut self, problems: &[SetupDiagnostic]) {
        let told: BTreeSet<String> = problems.iter().map(SetupDiagnostic::what).collect();
        for problem in problems.iter().filter(|problem| !self.problems.contains(&problem.what())) {
            tracing::error!(fix = problem.fix(), "not ready: {}", problem.what());
        }
        for mended in self.problems.difference(&told) {
            tracing::info!(problem = mended, "mended");
        }
        self.problems = told;
        self.metrics.set_problems(self.problems.len());
        let shown = problems.iter().map(ToString::to_string);
        let mut seen = BTreeSet::new();
        self.status.problems(shown.filter(|problem| seen.insert(problem.clone())).collect());
    }

    /// The start has told those that were there at the first look.
    fn warn<'f>(&mut self, findings: impl Iterator<Item = &'f CheckFinding>, is_first: bool) {
        let warnings = findings.filter(|finding| finding.level == FindingLevel::Warning);
        let mut told = BTreeSet::new();
        for CheckFinding { what, fix, .. } in warnings {
            if !is_first && !self.warnings.contains(what) {
                tracing::warn!(fix = fix.as_deref().unwrap_or_default(), "{what}");
            }
            told.insert(what.clone());
        }
        self.warnings = told;
    }
}

/// What is published of the wanted tables.
fn published(facts: &CatalogFacts, wanted: &WantedObjects) -> BTreeMap<TableName, PublishedTable> {
    let all = facts.publication.iter().flat_map(|publication| &publication.published);
    let wanted = all.filter(|one| wanted.tables.iter().any(|table| table.name == one.table));
    wanted.map(|one| (one.table.clone(), one.clone())).collect()
}

/// Row filters and column lists that were not there before.
fn narrowed(
    before: &BTreeMap<TableName, PublishedTable>,
    facts: &CatalogFacts,
    wanted: &WantedObjects,
) -> Vec<SetupDiagnostic> {
    let mut found = Vec::new();
    let both = wanted.tables.iter().zip(&facts.tables);
    for now in published(facts, wanted).into_values() {
        let Some(before) = before.get(&now.table) else { continue };
        let table = both.clone().find(|(table, _)| table.name == now.table);
        let table = table.and_then(|(_, found)| found.as_ref());
        let sql = publication::again(&wanted.publication, &now.table, table);
        let columns = columns_left(before, &now, table);
        let rows = (now.filter != before.filter)
            .then(|| now.filter.as_ref().map(|filter| format!("rows other than `{filter}`")))
            .flatten();
        for what in rows.into_iter().chain(columns) {
            found.push(SetupDiagnostic::from(SchemaFault::Narrowed {
                publication: wanted.publication.clone(),
                table: now.table.clone(),
                what,
                sql: sql.clone(),
            }));
        }
    }
    found
}

/// Columns that were published, are still there, and are not published any more.
fn columns_left(
    before: &PublishedTable,
    now: &PublishedTable,
    table: Option<&TableFacts>,
) -> Option<String> {
    let (before, now) = (before.columns.as_ref()?, now.columns.as_ref()?);
    let is_there = |column: &&String| table.is_some_and(|table| table.columns.contains(column));
    let left: Vec<&str> = before
        .iter()
        .filter(|column| !now.contains(column))
        .filter(is_there)
        .map(String::as_str)
        .collect();
    (!left.is_empty()).then(|| format!("column {}", left.join(", ")))
}
