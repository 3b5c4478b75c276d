//! Judges what the publication will cover once it serves the configuration: no application's update
//! or delete may fail because walhook was started, and nothing that was asked for is held back in
//! silence. Pure.

pub(crate) use crate::config::settings::Operations;
use crate::flow::relation::TableName;
use crate::replication::catalog::CheckFinding;
use crate::replication::catalog::CheckReport;
use crate::replication::catalog::facts::CatalogFacts;
use crate::replication::catalog::facts::PublicationFacts;
use crate::replication::catalog::facts::TableFacts;
use crate::replication::catalog::facts::coverage::CoverageRows;
use crate::replication::catalog::facts::coverage::RowIdentity;
use crate::replication::catalog::wanted::WantedObjects;
use crate::replication::catalog::wanted::WantedTable;
use crate::replication::catalog::wanted::union;
use crate::replication::diagnostic::SetupDiagnostic;
use crate::replication::schema_fault::SchemaFault;

/// The first version that publishes stored generated columns, and that minds those in identities.
const GENERATED_SINCE: u32 = 180_000;

/// Names that one finding tells.
const NAMES_MAX: usize = 5;

/// What the publication is to be once it serves the configuration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CoverageOutcome {
    /// For all its tables alike.
    pub operations: Operations,
    pub via_root: bool,
    /// Stored generated columns are published.
    pub generated: bool,
    pub(super) knows_generated: bool,
}

impl CoverageOutcome {
    /// Not more than is there and what is needed.
    pub(crate) fn new(facts: &CatalogFacts, wanted: &WantedObjects) -> Self {
        let there = facts.publication.as_ref();
        let before = there.map(|p| p.operations).unwrap_or_default();
        let operations =
            wanted.tables.iter().fold(before, |all, table| union(all, table.operations));
        let partitioned = facts.tables.iter().flatten().any(|table| table.kind == 'p');
        let knows_generated = facts.server.version >= GENERATED_SINCE;
        let mut outcome = Self {
            operations,
            via_root: partitioned || there.is_some_and(|p| p.via_root),
            generated: knows_generated && there.is_none_or(|p| p.generated),
            knows_generated,
        };
        let mut both = wanted.tables.iter().zip(&facts.tables);
        outcome.generated |= knows_generated
            && both.any(|(table, found)| {
                found.as_ref().is_some_and(|found| outcome.needs_generated(table, found, there))
            });
        outcome
    }

    pub(super) fn writes(&self) -> bool {
        self.operations.update || self.operations.delete
    }

    fn needs_generated(
        &self,
        wanted: &WantedTable,
        found: &TableFacts,
        there: Option<&PublicationFacts>,
    ) -> bool {
        let is_wanted = found.generated.iter().any(|column| {
            let named = wanted.streamed.contains(&column.name);
            column.stored && named && !is_listed(there, &wanted.name, &column.name)
        });
        let in_identity = found.rows.iter().any(|rows| {
            rows.identity.generated_key || rows.identity.is_full() && rows.identity.stored
        });
        is_wanted || self.writes() && in_identity
    }

    /// Why updates and deletes of a published table with this identity fail; `None` if they do not.
    pub(super) fn failure(
        &self,
        identity: &RowIdentity,
        filter: Option<&[String]>,
        list: Option<&[String]>,
    ) -> Option<String> {
        let columns = identity.columns.as_deref().unwrap_or_default();
        let full = identity.is_full();
        let outside = filter.unwrap_or_default().iter().find(|name| !columns.contains(name));
        if let (false, Some(name)) = (full, outside) {
            return Some(format!(
                "its row filter asks for {name}, which is no part of its replica identity"
            ));
        }
        if let Some(list) = list {
            if full {
                return Some(String::from(
                    "it has a column list, and its replica identity is FULL",
                ));
            }
            if let Some(name) = columns.iter().find(|name| !list.contains(name)) {
                return Some(format!(
                    "its column list lacks {name}, a part of its replica identity"
                ));
            }
        } else if self.knows_generated {
            if full && identity.virtual_columns {
                return Some(String::from(
                    "its replica identity is FULL and has virtual generated columns, which cannot \
                     be published",
                ));
            }
            if !self.generated && (full && identity.stored || identity.generated_key) {
                return Some(String::from(
                    "its replica identity has generated columns that are not published",
                ));
            }
        }
        (!full && identity.columns.is_none()).then(|| missing(identity))
    }
}

/// Why the server takes no index as identity.
fn missing(identity: &RowIdentity) -> String {
    match (identity.kind, &identity.defect) {
        ('n', _) => String::from("it is NOTHING"),
        ('i', Some(defect)) => format!("its index {defect}"),
        ('i', None) => String::from("its index was dropped"),
        (_, Some(defect)) => format!("the primary key {defect}"),
        (_, None) => String::from("it has no primary key"),
    }
}

/// What gives the table an identity.
pub(super) fn cure(table: &TableName, identity: &RowIdentity, knows_generated: bool) -> String {
    let quoted = table.quoted();
    if knows_generated && identity.virtual_columns {
        return format!(
            "give it a primary key that is not deferrable, or run `ALTER TABLE {quoted} REPLICA \
             IDENTITY USING INDEX ...;` with a unique index over columns that are NOT NULL and not \
             generated"
        );
    }
    let key = match identity.defect {
        Some(_) => "give it a primary key that is valid and not deferrable",
        None => "give it a primary key",
    };
    format!("{key}, or run `ALTER TABLE {quoted} REPLICA IDENTITY FULL;`")
}

/// Where the rows of a wanted table are, and what is known of them when they are written.
pub(super) fn judge_rows(
    wanted: &WantedTable,
    found: &TableFacts,
    outcome: &CoverageOutcome,
    report: &mut CheckReport,
) {
    let table = &wanted.name;
    for rows in &found.rows {
        let Some(first) = rows.tables.first() else { continue };
        if rows.kind == 'f' {
            let names = shown(&rows.tables);
            report.add(CheckFinding::warning(
                format!("{names} of {table}: foreign tables, whose changes are not in the WAL"),
                String::from("their rows raise nothing: keep rows that matter in other partitions"),
            ));
            continue;
        }
        if rows.persistence != 'p' {
            let temporary = rows.persistence == 't';
            let of_rows = rows.tables.iter().filter(|leaf| *leaf != table);
            of_rows.for_each(|leaf| {
                report.add(SetupDiagnostic::NotLogged { table: leaf.clone(), temporary });
            });
            continue;
        }
        if !outcome.writes() {
            continue;
        }
        match outcome.failure(&rows.identity, None, None) {
            None => key_of_partitions(wanted, found, rows, report),
            Some(why) => {
                for leaf in rows.tables.iter().take(NAMES_MAX) {
                    report.add(unidentified(leaf, table, &rows.identity, &why, outcome));
                }
                let more = rows.tables.len().saturating_sub(NAMES_MAX);
                if more > 0 {
                    report.add(CheckFinding::warning(
                        format!("{more} more tables like {first} have the same fault"),
                        String::from("the same for each of them"),
                    ));
                }
            }
        }
    }
    let silent: Vec<TableName> = found.children.clone();
    if !silent.is_empty() {
        report.add(CheckFinding::warning(
            format!(
                "{} inherits from {table}: changes of its rows are no changes of {table} and raise \
                 nothing, unless it has an [[event]] of its own",
                shown(&silent)
            ),
            String::from("name it in an [[event]] of its own if its rows are meant, too"),
        ));
    }
    if wanted.operations.truncate && found.kind == 'p' {
        report.add(CheckFinding::warning(
            format!(
                "PostgreSQL does not send TRUNCATE of a partition of {table}: only that of {table} itself \
                 is told"
            ),
            String::from("empty a partition with DELETE where others have to learn of it"),
        ));
    }
}

fn unidentified(
    leaf: &TableName,
    table: &TableName,
    identity: &RowIdentity,
    why: &str,
    outcome: &CoverageOutcome,
) -> SetupDiagnostic {
    let itself = leaf == table;
    let plain = identity.columns.is_none() && identity.defect.is_none() && identity.kind == 'd';
    if itself && plain && !(outcome.knows_generated && identity.virtual_columns) {
        return SetupDiagnostic::NoIdentity { table: table.clone() };
    }
    SetupDiagnostic::from(SchemaFault::Unidentified {
        table: leaf.clone(),
        of: (!itself).then(|| table.clone()),
        why: why.to_owned(),
        fix: cure(leaf, identity, outcome.knows_generated),
    })
}

/// A partition's old rows have to tell what names a row of its table.
fn key_of_partitions(
    wanted: &WantedTable,
    found: &TableFacts,
    rows: &CoverageRows,
    report: &mut CheckReport,
) {
    let is_read = wanted.operations.update || wanted.operations.delete;
    if found.kind != 'p' || !is_read || rows.identity.is_full() {
        return;
    }
    let sent = rows.identity.columns.as_deref().unwrap_or_default();
    let needed = match &found.identity_columns {
        Some(columns) => columns,
        None => &found.key,
    };
    let lacks: Vec<&str> =
        needed.iter().filter(|name| !sent.contains(name)).map(String::as_str).collect();
    if lacks.is_empty() {
        return;
    }
    for leaf in rows.tables.iter().take(NAMES_MAX) {
        let (table, of) = (leaf.clone(), wanted.name.clone());
        let columns = lacks.join(", ");
        report.add(SetupDiagnostic::from(SchemaFault::PartitionKey { table, of, columns }));
    }
}

/// Columns that the configuration takes from the stream and PostgreSQL computes.
pub(super) fn judge_generated(
    wanted: &WantedTable,
    found: &TableFacts,
    facts: &CatalogFacts,
    outcome: &CoverageOutcome,
    report: &mut CheckReport,
) {
    let there = facts.publication.as_ref();
    let named = found.generated.iter().filter(|column| wanted.streamed.contains(&column.name));
    for column in named {
        let is_sent = column.stored && outcome.generated;
        if is_sent || is_listed(there, &wanted.name, &column.name) {
            continue;
        }
        let version = facts.server.version / 10_000;
        let kind = if column.stored { "stored" } else { "virtual" };
        let why = format!("it is generated ({kind}), which PostgreSQL {version} does not send");
        let expression = &column.expression;
        let fix = match column.stored {
            true => format!(
                "write what it is computed from, `{expression}`, or make it an ordinary column that \
                 a trigger fills; PostgreSQL 18 sends such columns"
            ),
            false => format!(
                "write what it is computed from, `{expression}`, or make it a column that is stored"
            ),
        };
        let (table, column) = (wanted.name.clone(), column.name.clone());
        report.add(SetupDiagnostic::from(SchemaFault::Unsent { table, column, why, fix }));
    }
    identity_is_sent(wanted, found, facts, outcome, report);
}

/// An update or delete of which PostgreSQL leaves out what names its row says nothing.
fn identity_is_sent(
    wanted: &WantedTable,
    found: &TableFacts,
    facts: &CatalogFacts,
    outcome: &CoverageOutcome,
    report: &mut CheckReport,
) {
    let is_read = wanted.operations.update || wanted.operations.delete;
    if found.identity == 'f' || !is_read {
        return;
    }
    for name in found.identity_columns.iter().flatten() {
        let generated = found.generated.iter().any(|column| column.name == *name);
        if !generated
            || wanted.streamed.contains(name)
            || is_sent(facts, outcome, &wanted.name, found, name)
        {
            continue;
        }
        let (table, column) = (wanted.name.clone(), name.clone());
        let version = facts.server.version / 10_000;
        let why = format!(
            "it is generated, which PostgreSQL {version} does not send, and it is what tells which row \
             was updated or deleted"
        );
        let fix = format!(
            "run `ALTER TABLE {} REPLICA IDENTITY FULL;`, or name a unique index of other columns \
             (REPLICA IDENTITY USING INDEX)",
            table.quoted()
        );
        report.add(SetupDiagnostic::from(SchemaFault::Unsent { table, column, why, fix }));
    }
}

fn is_listed(there: Option<&PublicationFacts>, table: &TableName, column: &str) -> bool {
    let published = there.and_then(|there| there.published.iter().find(|p| p.table == *table));
    let columns = published.and_then(|published| published.columns.as_ref());
    columns.is_some_and(|columns| columns.iter().any(|name| name == column))
}

/// Whether the stream brings this column of a wanted table.
pub(crate) fn is_sent(
    facts: &CatalogFacts,
    outcome: &CoverageOutcome,
    table: &TableName,
    found: &TableFacts,
    column: &str,
) -> bool {
    let there = facts.publication.as_ref();
    let generated = found.generated.iter().find(|generated| generated.name == column);
    match generated {
        Some(generated) => generated.stored && outcome.generated || is_listed(there, table, column),
        None => {
            let published = there.and_then(|p| p.published.iter().find(|p| p.table == *table));
            let columns = published.and_then(|published| published.columns.as_ref());
            columns.is_none_or(|columns| columns.iter().any(|name| name == column))
        }
    }
}

/// The first few names.
pub(super) fn shown(tables: &[TableName]) -> String {
    let names: Vec<String> = tables.iter().take(NAMES_MAX).map(ToString::to_string).collect();
    match tables.len().saturating_sub(NAMES_MAX) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}
