//! Judges the publication: whether it is there, and publishes what was asked for. Pure.

use crate::config::settings::Operations;
use crate::flow::quote::identifier;
use crate::flow::relation::TableName;
use crate::replication::catalog::CheckFinding;
use crate::replication::catalog::CheckReport;
use crate::replication::catalog::facts::CatalogFacts;
use crate::replication::catalog::facts::PublicationFacts;
use crate::replication::catalog::facts::TableFacts;
use crate::replication::catalog::judge::coverage::CoverageOutcome;
use crate::replication::catalog::judge::levels;
use crate::replication::catalog::judge::tables::nearest;
use crate::replication::catalog::wanted::WantedObjects;
use crate::replication::catalog::wanted::WantedTable;
use crate::replication::diagnostic::SetupDiagnostic;

pub(super) fn publication(
    facts: &CatalogFacts,
    wanted: &WantedObjects,
    outcome: &CoverageOutcome,
    report: &mut CheckReport,
) {
    match &facts.publication {
        Some(found) => existing_publication(found, facts, wanted, outcome, report),
        None => missing_publication(facts, wanted, outcome, report),
    }
}

fn missing_publication(
    facts: &CatalogFacts,
    wanted: &WantedObjects,
    outcome: &CoverageOutcome,
    report: &mut CheckReport,
) {
    let publication = wanted.publication.clone();
    let name = identifier(&publication);
    if let Some(slot) = facts.slot.as_ref().filter(|slot| slot.defect().is_none()) {
        let (slot, from) = (slot.name.clone(), slot.confirmed);
        let nearest = nearest(&publication, facts.publications.iter().map(String::as_str));
        let nearest = nearest.map(ToOwned::to_owned);
        report.add(SetupDiagnostic::PublicationGone {
            publication,
            slot,
            from,
            since: None,
            nearest,
        });
        return;
    }
    if facts.tables.iter().any(Option::is_none) {
        return; // that has been said; what to run follows when they are there
    }
    let both = wanted.tables.iter().zip(&facts.tables);
    let tables: Vec<String> =
        both.map(|(table, found)| levels::alone(&table.name, found.as_ref())).collect();
    let mut options = format!("publish = '{}'", list(outcome.operations));
    if outcome.via_root {
        options.push_str(", publish_via_partition_root = true");
    }
    if outcome.generated {
        options.push_str(", publish_generated_columns = stored");
    }
    let sql =
        format!("CREATE PUBLICATION {name} FOR TABLE {} WITH ({options});", tables.join(", "));
    if facts.server.may_create && owns(facts, wanted, |_| true) {
        report
            .add(CheckFinding::ok(format!("publication {publication} will be made at the start")));
        report.steps.push(sql);
    } else {
        let role = facts.server.role.clone();
        report.add(SetupDiagnostic::NoPublication { publication, role, sql });
    }
}

fn existing_publication(
    found: &PublicationFacts,
    facts: &CatalogFacts,
    wanted: &WantedObjects,
    outcome: &CoverageOutcome,
    report: &mut CheckReport,
) {
    let before = report.findings.len();
    let name = identifier(&wanted.publication);
    let exists = |table: &WantedTable| {
        wanted
            .tables
            .iter()
            .zip(&facts.tables)
            .any(|(t, found)| t.name == table.name && found.is_some())
    };
    let missing = |table: &WantedTable| {
        exists(table)
            && !found.all_tables
            && !found.members.contains(&table.name)
            && !found.published.iter().any(|published| published.table == table.name)
    };
    let mut lacks = Vec::new();
    let mut sql = Vec::new();
    let both = wanted.tables.iter().zip(&facts.tables);
    let tables: Vec<_> = both.filter(|(table, _)| missing(table)).collect();
    if !tables.is_empty() {
        let shown: Vec<String> = tables.iter().map(|(table, _)| table.name.to_string()).collect();
        let quoted: Vec<String> = tables
            .iter()
            .map(|(table, found)| levels::alone(&table.name, found.as_ref()))
            .collect();
        lacks.push(format!("table {}", shown.join(", ")));
        sql.push(format!("ALTER PUBLICATION {name} ADD TABLE {};", quoted.join(", ")));
    }
    let operations = outcome.operations;
    let may_widen = levels::may_widen(found, facts, wanted, outcome, report);
    if operations != found.operations && may_widen {
        lacks.push(format!("operations: {} are needed", list(operations)));
        sql.push(format!("ALTER PUBLICATION {name} SET (publish = '{}');", list(operations)));
    }
    if outcome.via_root && !found.via_root {
        lacks.push("publish_via_partition_root".to_owned());
        sql.push(format!("ALTER PUBLICATION {name} SET (publish_via_partition_root = true);"));
    }
    if outcome.generated && !found.generated {
        lacks.push("publish_generated_columns".to_owned());
        sql.push(format!("ALTER PUBLICATION {name} SET (publish_generated_columns = stored);"));
    }
    if !lacks.is_empty() {
        let (lacks, sql) = (lacks.join("; "), sql.join(" "));
        let publication = wanted.publication.clone();
        let what = format!("publication {publication} will get at the start: {lacks}");
        let refusal = SetupDiagnostic::PublicationLacks { publication, lacks, sql: sql.clone() };
        if found.owned && owns(facts, wanted, missing) {
            report.add(CheckFinding::ok(what));
            report.steps.push(sql);
            report.mends.push(refusal);
        } else {
            report.add(refusal);
        }
    }
    lists_and_filters(found, facts, wanted, report);
    extra_tables(found, facts, wanted, report);
    if report.findings.len() == before {
        let what = format!("publication {} publishes the tables", wanted.publication);
        report.add(CheckFinding::ok(what));
    }
}

/// Tables that are published and that no event is about.
fn extra_tables(
    found: &PublicationFacts,
    facts: &CatalogFacts,
    wanted: &WantedObjects,
    report: &mut CheckReport,
) {
    // A table that is misspelt is most likely one of those.
    let all_exist = facts.tables.iter().all(Option::is_some);
    let mut extra = found.members.iter().filter(|m| wanted.tables.iter().all(|t| t.name != **m));
    if let Some(first) = extra.next().filter(|_| all_exist) {
        let all: Vec<String> =
            std::iter::once(first).chain(extra).map(ToString::to_string).collect();
        report.add(CheckFinding::warning(
            format!(
                "publication {} also publishes {}, which no event of this configuration is about",
                wanted.publication,
                all.join(", ")
            ),
            "if another system reads them, give each a publication and a slot of its own; if \
             nobody does, take them out of the publication"
                .to_owned(),
        ));
    }
}

/// Column lists and row filters (PostgreSQL 15) hold back what was asked for.
fn lists_and_filters(
    found: &PublicationFacts,
    facts: &CatalogFacts,
    wanted: &WantedObjects,
    report: &mut CheckReport,
) {
    for (table, there) in wanted.tables.iter().zip(&facts.tables) {
        let Some(published) = found.published.iter().find(|p| p.table == table.name) else {
            continue;
        };
        let again = again(&wanted.publication, &table.name, there.as_ref());
        let listed = |column: &&String| {
            published.columns.as_ref().is_none_or(|columns| columns.contains(column))
        };
        // Of those that PostgreSQL computes, the coverage has said whether they are sent.
        let exists = |column: &&String| {
            there.as_ref().is_some_and(|there| {
                let is_generated = there.generated.iter().any(|other| other.name == **column);
                there.columns.contains(column) && !is_generated
            })
        };
        let missing: Vec<&str> = table
            .streamed
            .iter()
            .filter(|column| exists(column) && !listed(column))
            .map(String::as_str)
            .collect();
        if !missing.is_empty() {
            report.add(SetupDiagnostic::PublicationLacks {
                publication: wanted.publication.clone(),
                lacks: format!("column {} of table {}", missing.join(", "), table.name),
                sql: again.clone(),
            });
        }
        if published.filter.is_some() {
            report.add(CheckFinding::warning(
                format!("publication {} filters the rows of {}", wanted.publication, table.name),
                format!("if that is not meant, run `{again}`"),
            ));
        }
    }
}

/// SQL that publishes a table anew: all its rows and columns.
pub(crate) fn again(publication: &str, table: &TableName, found: Option<&TableFacts>) -> String {
    let (name, table) = (identifier(publication), levels::alone(table, found));
    format!(
        "ALTER PUBLICATION {name} DROP TABLE {table}; ALTER PUBLICATION {name} ADD TABLE {table};"
    )
}

/// Whether we act as the owner of the chosen tables: only owners may publish.
fn owns(
    facts: &CatalogFacts,
    wanted: &WantedObjects,
    chosen: impl Fn(&WantedTable) -> bool,
) -> bool {
    let both = wanted.tables.iter().zip(&facts.tables);
    both.filter(|(table, _)| chosen(table))
        .all(|(_, found)| found.as_ref().is_some_and(|found| found.owned))
}

fn list(operations: Operations) -> String {
    let names = [
        (operations.insert, "insert"),
        (operations.update, "update"),
        (operations.delete, "delete"),
        (operations.truncate, "truncate"),
    ];
    let wanted: Vec<&str> =
        names.iter().filter(|(wanted, _)| *wanted).map(|(_, name)| *name).collect();
    wanted.join(", ")
}
