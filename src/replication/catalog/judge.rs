//! Judges the catalog's facts: what works, what does not, and what is to be done. Pure.

pub(crate) mod coverage;

use crate::config::settings::Operations;
use crate::flow::nearest_name;
use crate::flow::quote::identifier;
use crate::flow::relation::TableName;
use crate::replication::catalog::CheckFinding;
use crate::replication::catalog::CheckReport;
use crate::replication::catalog::facts::CatalogFacts;
use crate::replication::catalog::facts::PublicationFacts;
use crate::replication::catalog::facts::ServerFacts;
use crate::replication::catalog::facts::TableFacts;
use crate::replication::catalog::judge::coverage::CoverageOutcome;
use crate::replication::catalog::wanted::WantedObjects;
use crate::replication::catalog::wanted::WantedTable;
use crate::replication::diagnostic::SetupDiagnostic;
use crate::replication::slot::SlotStream;
use crate::replication::wire::command::FAILOVER_SINCE;
use crate::replication::wire::command::MAJOR_MIN;
use crate::store::APPLICATION_NAME;

/// Names that are this alike are offered as what may have been meant (Jaro-Winkler, 0 to 1).
const ALIKE: f64 = 0.8;

/// Whether the server's version rules out everything else.
pub(crate) fn too_old(server: &ServerFacts) -> Option<SetupDiagnostic> {
    (server.version / 10_000 < MAJOR_MIN)
        .then(|| SetupDiagnostic::ServerTooOld { version: server.version_text.clone() })
}

/// Everything that there is to say.
pub(crate) fn judge(facts: &CatalogFacts, wanted: &WantedObjects) -> CheckReport {
    let mut report = CheckReport::default();
    server(facts, wanted, &mut report);
    let outcome = CoverageOutcome::new(facts, wanted);
    for (table, found) in wanted.tables.iter().zip(&facts.tables) {
        match found {
            Some(found) => judge_table(table, found, &outcome, facts, &mut report),
            None => {
                let nearest = nearest_table(&table.name, &facts.neighbours);
                let named_in = table.named_in(None);
                let table = table.name.clone();
                report.add(SetupDiagnostic::MissingTable { table, named_in, nearest });
            }
        }
    }
    coverage::judge_levels(facts, wanted, &outcome, &mut report);
    publication(facts, wanted, &outcome, &mut report);
    slot(facts, wanted, &mut report);
    report
}

impl CheckReport {
    fn add(&mut self, finding: impl Into<CheckFinding>) {
        self.findings.push(finding.into());
    }
}

fn server(facts: &CatalogFacts, wanted: &WantedObjects, report: &mut CheckReport) {
    let server = &facts.server;
    report.add(CheckFinding::ok(format!("PostgreSQL {}", server.version_text)));
    if let Some(service) = server.service {
        let what = format!("it is a server of {}: {}", service.name(), service.notes());
        report.add(CheckFinding::ok(what));
    }
    let major = server.version / 10_000;
    if server.standby && major < 16 {
        report.add(SetupDiagnostic::Standby { version: major });
    }
    if wanted.failover && (server.standby || major < FAILOVER_SINCE) {
        let standby = server.standby && major >= FAILOVER_SINCE;
        report.add(SetupDiagnostic::NoFailover { version: major, standby });
    }
    let effective = server.effective_wal_level.as_deref();
    if server.wal_level == "logical" {
        report.add(CheckFinding::ok("wal_level is logical".to_owned()));
    } else if effective == Some("logical") {
        let what = format!("wal_level is {}, and logical in effect", server.wal_level);
        report.add(CheckFinding::ok(what));
    } else if effective.is_some() && server.wal_level == "replica" {
        let what = "wal_level is replica, which PostgreSQL raises when the slot is made";
        report.add(CheckFinding::ok(what.to_owned()));
    } else {
        let (level, service) = (server.wal_level.clone(), server.service);
        report.add(SetupDiagnostic::WalLevel { level, service });
    }
    if server.may_replicate {
        report.add(CheckFinding::ok(format!("role {} may replicate", server.role)));
    } else {
        let (role, service) = (server.role.clone(), server.service);
        report.add(SetupDiagnostic::NoReplicationRight { role, service });
    }
    // A walhook that is running holds the slot and one walsender itself.
    let running = facts.slot.as_ref().is_some_and(|slot| slot.active_pid.is_some());
    let (used, max) = (server.walsenders, server.walsenders_max);
    if used >= max && !running {
        report.add(SetupDiagnostic::NoFreeWalSender { max: Some(max) });
    } else {
        report.add(CheckFinding::ok(format!("{used} of {max} walsenders are in use")));
    }
}

fn judge_table(
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

fn publication(
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
        both.map(|(table, found)| coverage::alone(&table.name, found.as_ref())).collect();
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
            .map(|(table, found)| coverage::alone(&table.name, found.as_ref()))
            .collect();
        lacks.push(format!("table {}", shown.join(", ")));
        sql.push(format!("ALTER PUBLICATION {name} ADD TABLE {};", quoted.join(", ")));
    }
    let operations = outcome.operations;
    let may_widen = coverage::may_widen(found, facts, wanted, outcome, report);
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

fn slot(facts: &CatalogFacts, wanted: &WantedObjects, report: &mut CheckReport) {
    let Some(found) = &facts.slot else {
        let (used, max) = (facts.server.slots, facts.server.slots_max);
        if used >= max {
            report.add(SetupDiagnostic::NoFreeSlot { max });
        } else {
            report.add(CheckFinding::ok(format!("slot {} will be made at the start", wanted.slot)));
            idle_timeout(facts, wanted, report);
            report.makes_slot = true;
        }
        return;
    };
    if let Some(defect) = found.defect() {
        report.add(defect);
        return;
    }
    report.add(match found {
        SlotStream { active_pid: Some(pid), active_name: Some(name), .. }
            if name == APPLICATION_NAME =>
        {
            CheckFinding::ok(format!(
                "slot {} is in use by a walhook, server process {pid}",
                found.name
            ))
        }
        SlotStream { active_pid: pid @ Some(_), .. } => {
            SetupDiagnostic::SlotInUse { slot: found.name.clone(), pid: *pid }.into()
        }
        _ => CheckFinding::ok(format!("slot {} is there, not in use", found.name)),
    });
    if wanted.failover {
        report.add(CheckFinding::ok(match found.failover {
            true => format!("slot {} is one that standbys keep", found.name),
            false => {
                format!("slot {} will be one that standbys keep, from the start on", found.name)
            }
        }));
    }
    idle_timeout(facts, wanted, report);
    let retained = found.retained_bytes.unwrap_or_default();
    let megabytes = retained / (1024 * 1024);
    report.add(match found.wal_status.as_str() {
        "unreserved" => CheckFinding::warning(
            format!("slot {} is about to be lost: it is {megabytes} MiB behind", found.name),
            "start walhook, or raise max_slot_wal_keep_size".to_owned(),
        ),
        _ if found.is_in_danger() => CheckFinding::warning(
            format!(
                "slot {} retains {megabytes} MiB of WAL and may be lost after {} MiB more",
                found.name,
                found.safe_bytes.unwrap_or_default() / (1024 * 1024)
            ),
            "start walhook, see what its endpoints wait for, or raise max_slot_wal_keep_size"
                .to_owned(),
        ),
        _ => CheckFinding::ok(format!("slot {} retains {megabytes} MiB of WAL", found.name)),
    });
}

/// PostgreSQL 18 can give up slots that nobody reads.
fn idle_timeout(facts: &CatalogFacts, wanted: &WantedObjects, report: &mut CheckReport) {
    let Some(limit) = &facts.server.idle_slot_timeout else { return };
    report.add(CheckFinding::warning(
        format!(
            "slot {} is lost when walhook is away for longer than {limit} \
             (idle_replication_slot_timeout)",
            wanted.slot
        ),
        "set it to more than the longest outage that you plan for, or to 0".to_owned(),
    ));
}

/// SQL that publishes a table anew: all its rows and columns.
pub(crate) fn again(publication: &str, table: &TableName, found: Option<&TableFacts>) -> String {
    let (name, table) = (identifier(publication), coverage::alone(table, found));
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

fn nearest_table(table: &TableName, all: &[TableName]) -> Option<TableName> {
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

fn nearest<'a>(name: &str, all: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    nearest_name::nearest(name, all, ALIKE)
}

#[cfg(test)]
mod tests;
