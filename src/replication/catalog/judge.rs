//! Judges the catalog's facts: what works, what does not, and what is to be done. Pure.

pub(crate) mod coverage;
mod levels;
pub(crate) mod publication;
pub(crate) mod server;
mod slot;
mod tables;

use crate::replication::catalog::CheckFinding;
use crate::replication::catalog::CheckReport;
use crate::replication::catalog::facts::CatalogFacts;
use crate::replication::catalog::judge::coverage::CoverageOutcome;
use crate::replication::catalog::wanted::WantedObjects;
use crate::replication::diagnostic::SetupDiagnostic;

/// Everything that there is to say.
pub(crate) fn judge(facts: &CatalogFacts, wanted: &WantedObjects) -> CheckReport {
    let mut report = CheckReport::default();
    server::server(facts, wanted, &mut report);
    let outcome = CoverageOutcome::new(facts, wanted);
    for (table, found) in wanted.tables.iter().zip(&facts.tables) {
        match found {
            Some(found) => tables::judge_table(table, found, &outcome, facts, &mut report),
            None => {
                let nearest = tables::nearest_table(&table.name, &facts.neighbours);
                let named_in = table.named_in(None);
                let table = table.name.clone();
                report.add(SetupDiagnostic::MissingTable { table, named_in, nearest });
            }
        }
    }
    levels::judge_levels(facts, wanted, &outcome, &mut report);
    publication::publication(facts, wanted, &outcome, &mut report);
    slot::slot(facts, wanted, &mut report);
    report
}

impl CheckReport {
    fn add(&mut self, finding: impl Into<CheckFinding>) {
        self.findings.push(finding.into());
    }
}

#[cfg(test)]
mod tests;
