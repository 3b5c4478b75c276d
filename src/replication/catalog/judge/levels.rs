//! Whether a publication publishes what is wanted of it, and may be widened.

use crate::flow::quote::identifier;
use crate::flow::relation::TableName;
use crate::replication::catalog::CheckFinding;
use crate::replication::catalog::CheckReport;
use crate::replication::catalog::facts::CatalogFacts;
use crate::replication::catalog::facts::PublicationFacts;
use crate::replication::catalog::facts::TableFacts;
use crate::replication::catalog::facts::coverage::CoveredRelation;
use crate::replication::catalog::judge::coverage::CoverageOutcome;
use crate::replication::catalog::judge::coverage::cure;
use crate::replication::catalog::judge::coverage::shown;
use crate::replication::catalog::wanted::WantedObjects;
use crate::replication::diagnostic::SetupDiagnostic;
use crate::replication::schema_fault::SchemaFault;
use crate::replication::schema_fault::own_publication;

/// Events on a table and on a partition of it.
pub(in crate::replication::catalog::judge) fn judge_levels(
    facts: &CatalogFacts,
    wanted: &WantedObjects,
    outcome: &CoverageOutcome,
    report: &mut CheckReport,
) {
    if !outcome.via_root {
        return;
    }
    let is_covered = |table: &TableName| {
        let there = facts.publication.as_ref();
        let published = there.is_some_and(|p| {
            p.members.contains(table) || p.published.iter().any(|p| p.table == *table)
        });
        published || wanted.tables.iter().any(|wanted| wanted.name == *table)
    };
    for (table, found) in wanted.tables.iter().zip(&facts.tables) {
        let ancestors = found.iter().flat_map(|found| &found.ancestors);
        // Rows come as those of the topmost one.
        if let Some(of) = ancestors.rev().find(|ancestor| is_covered(ancestor)) {
            let (table, of) = (table.name.clone(), of.clone());
            report.add(SetupDiagnostic::from(SchemaFault::TwoLevels { table, of }));
        }
    }
}

/// Whether the publication may publish what `outcome` says: the other tables that it covers, and row
/// filters and column lists of all of them, are judged. Says what is wrong.
pub(in crate::replication::catalog::judge) fn may_widen(
    found: &PublicationFacts,
    facts: &CatalogFacts,
    wanted: &WantedObjects,
    outcome: &CoverageOutcome,
    report: &mut CheckReport,
) -> bool {
    let widens = outcome.operations.update && !found.operations.update
        || outcome.operations.delete && !found.operations.delete;
    if !outcome.writes() {
        return true;
    }
    let is_wanted = |table: &TableName| {
        let rows = facts.tables.iter().flatten().flat_map(|table| &table.rows);
        rows.flat_map(|rows| &rows.tables).any(|other| other == table)
    };
    let failing: Vec<(&CoveredRelation, String)> = found
        .covered
        .iter()
        .filter(|c| c.filter.is_some() || c.list.is_some() || !is_wanted(&c.table))
        .filter_map(|c| {
            let why = outcome.failure(&c.identity, c.filter.as_deref(), c.list.as_deref())?;
            Some((c, why))
        })
        .collect();
    let Some((first, why)) = failing.first() else { return true };
    let tables: Vec<TableName> = failing.iter().map(|(c, _)| c.table.clone()).collect();
    let (table, publication) = (&first.table, wanted.publication.clone());
    let why = match first.identity.columns {
        None if !first.identity.is_full() => format!("{table} has no replica identity, {why}"),
        _ => format!("{table}: {why}"),
    };
    let listed = first.listed.as_ref().unwrap_or(table);
    let drop_it =
        format!("ALTER PUBLICATION {} DROP TABLE {};", identifier(&publication), listed.quoted());
    let fix = match (&first.filter, &first.list) {
        (None, None) => {
            let cure = cure(table, &first.identity, outcome.knows_generated);
            format!("{cure}; or {}", own_publication(&publication))
        }
        _ => format!(
            "run `{drop_it}` and add it again without what holds back; or {}",
            own_publication(&publication)
        ),
    };
    let tables = shown(&tables);
    if widens {
        report.add(SetupDiagnostic::from(SchemaFault::BreaksWrites {
            publication,
            tables,
            why,
            fix,
        }));
    } else {
        report.add(CheckFinding::warning(
            format!("publication {publication} makes updates or deletes of {tables} fail: {why}"),
            fix,
        ));
    }
    !widens
}

/// The table as a publication's statement names it: without the tables that inherit from it, which
/// would be published, too.
pub(in crate::replication::catalog::judge) fn alone(
    table: &TableName,
    found: Option<&TableFacts>,
) -> String {
    match found {
        Some(found) if !found.children.is_empty() => format!("ONLY {}", table.quoted()),
        _ => table.quoted(),
    }
}
