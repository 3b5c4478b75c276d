//! Judges the tables that events are about: whether they are there, with the columns that are named. Pure.

use crate::flow::nearest_name;
use crate::flow::relation::TableName;
use crate::replication::catalog::CheckFinding;
use crate::replication::catalog::CheckReport;
use crate::replication::catalog::facts::CatalogFacts;
use crate::replication::catalog::facts::TableFacts;
use crate::replication::catalog::judge::coverage;
use crate::replication::catalog::judge::coverage::CoverageOutcome;
use crate::replication::catalog::wanted::WantedTable;
use crate::replication::diagnostic::SetupDiagnostic;

/// Names that are this alike are offered as what may have been meant (Jaro-Winkler, 0 to 1).
const ALIKE: f64 = 0.8;

pub(super) fn judge_table(
    wanted: &WantedTable,
    found: &TableFacts,
    outcome: &CoverageOutcome,
    facts: &CatalogFacts,
    report: &mut CheckReport,
) {
    let table = &wanted.name;
    let role = &facts.server.role;
    let before = report.findings.len();
    if let Some(kind) = other_kind(found.kind) {
        report.add(SetupDiagnostic::NotATable { table: table.clone(), kind });
        return; // nothing else about it would make sense
    }
    if found.persistence != 'p' {
        let temporary = found.persistence == 't';
        report.add(SetupDiagnostic::NotLogged { table: table.clone(), temporary });
    }
    if !found.schema_usable {
        report.add(SetupDiagnostic::NoUsage { schema: table.schema.clone(), role: role.clone() });
    }
    if !found.readable {
        report.add(SetupDiagnostic::NoSelect { table: table.clone(), role: role.clone() });
    }
    for column in wanted.columns.iter().filter(|column| !found.columns.contains(column)) {
        let nearest = nearest(column, found.columns.iter().map(String::as_str));
        let nearest = word(column).or(nearest).map(ToOwned::to_owned);
        let named_in = wanted.named_in(Some(column));
        let (table, column) = (table.clone(), column.clone());
        report.add(SetupDiagnostic::MissingColumn { table, column, named_in, nearest });
    }
    coverage::judge_generated(wanted, found, facts, outcome, report);
    coverage::judge_rows(wanted, found, outcome, report);
    if report.findings.len() > before {
        return;
    }
    let is_identified = found.identity == 'f' || found.identity_columns.is_some();
    if found.key.is_empty() && is_identified {
        let what = format!("table {table}: no primary key, ordered by its replica identity");
        report.add(CheckFinding::ok(what));
    } else if found.key.is_empty() {
        report.add(CheckFinding::warning(
            format!("table {table} has no primary key: its events have no key to order them by"),
            "give it a primary key, or set order_by".to_owned(),
        ));
    } else {
        let key = found.key.join(", ");
        let identity = match found.identity {
            'f' => "full",
            'i' => "index",
            'n' => "nothing",
            _ => "default",
        };
        let what = format!("table {table}: primary key ({key}), replica identity {identity}");
        report.add(CheckFinding::ok(what));
    }
}

fn other_kind(kind: char) -> Option<&'static str> {
    match kind {
        'r' | 'p' => None,
        'v' => Some("a view"),
        'm' => Some("a materialized view"),
        'f' => Some("a foreign table"),
        'i' | 'I' => Some("an index"),
        'S' => Some("a sequence"),
        'c' => Some("a type"),
        _ => Some("something else"),
    }
}

pub(super) fn nearest_table(table: &TableName, all: &[TableName]) -> Option<TableName> {
    let same_name = all.iter().find(|other| other.name == table.name);
    let shown: Vec<String> = all.iter().map(ToString::to_string).collect();
    let name = table.to_string();
    let alike = || {
        let nearest = nearest(&name, shown.iter().map(String::as_str))?;
        all.iter().find(|other| other.to_string() == nearest)
    };
    same_name.or_else(alike).cloned()
}

/// The word of the language that is written like this in SQL, and is no column.
fn word(name: &str) -> Option<&'static str> {
    let words = [("null", "null"), ("true", "true"), ("false", "false"), ("old", "old")];
    let row = ("new", "the column alone, without `new.`");
    let lower = name.to_ascii_lowercase();
    words.into_iter().chain([row]).find(|(spelt, _)| *spelt == lower).map(|(_, meant)| meant)
}

pub(super) fn nearest<'a>(name: &str, all: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    nearest_name::nearest(name, all, ALIKE)
}
