//! Whether PostgreSQL sends what the events need of old rows, and what their endpoints need of rows.

use std::collections::HashSet;
use std::sync::Arc;

use tokio_postgres::Client;

use crate::config::configuration::Settings;
use crate::config::settings::Endpoint;
use crate::config::settings::EventRule;
use crate::config::settings::Operations;
use crate::event::require;
use crate::event::require::InputUse;
use crate::event::require::MissingInput;
use crate::flow::relation::Column;
use crate::flow::relation::Relation;
use crate::flow::relation::ReplicaIdentity;
use crate::flow::relation::SqlType;
use crate::flow::relation::TableName;
use crate::replication::catalog;
use crate::replication::catalog::CheckFinding;
use crate::replication::catalog::facts::CatalogFacts;
use crate::replication::catalog::facts::TableFacts;
use crate::replication::catalog::judge::coverage;
use crate::replication::catalog::judge::coverage::CoverageOutcome;
use crate::replication::catalog::wanted::WantedObjects;
use crate::replication::diagnostic::SetupDiagnostic;
use crate::store::error::StoreError;

/// Statements that one fix shows.
const STATEMENTS_MAX: usize = 10;

/// A problem for each event whose filter could never be true, a warning for each payload with
/// places that stay empty; likewise for endpoints. What else is wrong with tables is the catalog's
/// to say.
pub(crate) fn findings(settings: &Settings, facts: &CatalogFacts) -> Vec<CheckFinding> {
    let known = known(settings, facts);
    let mut findings = Vec::new();
    for KnownTable { rule, relation, narrow, .. } in &known {
        findings.extend(require::lacks(rule, relation).iter().filter_map(|lack| {
            let MissingInput::OldRow { used_in, .. } = lack else { return None };
            let refusal = SetupDiagnostic::NeedsOldRow {
                event: rule.event_type.to_string(),
                key: used_in.key(),
                table: narrow.first()?.clone(),
                sql: whole_rows(narrow),
            };
            let warning = || CheckFinding::warning(refusal.what(), refusal.fix());
            Some(if lack.is_fatal() { refusal.clone().into() } else { warning() })
        }));
    }
    findings.extend(settings.endpoints.iter().flat_map(|endpoint| of_endpoint(endpoint, &known)));
    findings
}

/// Why this endpoint could never get an event.
///
/// # Errors
/// The server cannot be asked.
pub(crate) async fn refusals(
    settings: &Settings,
    client: &Client,
    endpoint: &Endpoint,
) -> Result<Vec<SetupDiagnostic>, StoreError> {
    let (_, facts) = catalog::look(client, &WantedObjects::new(settings)).await?;
    let Some(facts) = facts else { return Ok(Vec::new()) };
    let found = of_endpoint(endpoint, &known(settings, &facts));
    Ok(found.into_iter().filter_map(|finding| finding.refusal).collect())
}

/// What keeps the endpoints of `[endpoints_from]` from getting events. `example` is one of them: they
/// differ in values, not in what their `when` and `payload` name.
pub(crate) fn findings_from(
    settings: &Settings,
    facts: &CatalogFacts,
    event_column: Option<&str>,
    example: Option<&Endpoint>,
) -> Vec<CheckFinding> {
    let known = known(settings, facts);
    let mut findings = example.map(|example| of_endpoint(example, &known)).unwrap_or_default();
    if let Some(column) = event_column
        && !known.is_empty()
        && known.iter().all(|known| known.relation.column(column).is_none())
    {
        let refusal = SetupDiagnostic::EndpointLacks {
            whose: String::from("[endpoints_from]"),
            key: "match",
            what: format!(
                "names column {column}, which no event's table has, or which is not sent"
            ),
            fix: String::from("correct it: the events' column stands first"),
        };
        findings.push(refusal.into());
    }
    findings
}

/// An event, and what the stream tells of the rows of its table.
struct KnownTable<'s> {
    rule: &'s EventRule,
    relation: Relation,
    /// Columns that the table has and the stream does not bring.
    unsent: Vec<String>,
    /// Tables that hold the rows and do not send old ones whole: partitions, for one.
    narrow: Vec<TableName>,
}

/// The events whose tables are there.
fn known<'s>(settings: &'s Settings, facts: &CatalogFacts) -> Vec<KnownTable<'s>> {
    let wanted = WantedObjects::new(settings);
    let outcome = CoverageOutcome::new(facts, &wanted);
    let known = |rule: &'s EventRule| {
        let place = wanted.tables.iter().position(|table| table.name == rule.table)?;
        let found = facts.tables.get(place)?.as_ref()?;
        let is_sent =
            |column: &String| coverage::is_sent(facts, &outcome, &rule.table, found, column);
        let (sent, unsent) = found.columns.iter().cloned().partition(is_sent);
        Some(KnownTable {
            rule,
            relation: relation(rule, found, sent),
            unsent,
            narrow: narrow(rule, found),
        })
    };
    settings.events.iter().filter_map(known).collect()
}

/// Tables whose replica identity has to be FULL before old rows come whole. The stream describes a
/// partition's rows as its root's, so that both count.
fn narrow(rule: &EventRule, found: &TableFacts) -> Vec<TableName> {
    let partial = found.rows.iter().filter(|rows| rows.kind == 'r' && !rows.identity.is_full());
    let mut narrow: Vec<TableName> = partial.flat_map(|rows| &rows.tables).cloned().collect();
    if found.kind == 'p' && found.identity != 'f' {
        narrow.push(rule.table.clone());
    }
    narrow
}

/// SQL that makes old rows come whole.
fn whole_rows(tables: &[TableName]) -> String {
    let alter =
        |table: &TableName| format!("ALTER TABLE {} REPLICA IDENTITY FULL;", table.quoted());
    let sql: Vec<String> = tables.iter().take(STATEMENTS_MAX).map(alter).collect();
    match tables.len().saturating_sub(STATEMENTS_MAX) {
        0 => sql.join(" "),
        more => format!("{} -- and so on for {more} more partitions", sql.join(" ")),
    }
}

/// What lacks for every event that the endpoint takes is a problem: it would get none, or none whole.
/// What lacks for some of them, or for their deletes alone, is worth a word.
fn of_endpoint(endpoint: &Endpoint, known: &[KnownTable<'_>]) -> Vec<CheckFinding> {
    let mut lacks = Vec::new();
    for known in known.iter().filter(|known| endpoint.takes(known.rule)) {
        for on in with_deletes_apart(known.rule.on) {
            let rule = EventRule { on, ..EventRule::clone(known.rule) };
            lacks.push((known, on, require::lacks_of(endpoint, &rule, &known.relation)));
        }
    }
    let mut findings = Vec::new();
    for used_in in [InputUse::Filter, InputUse::Payload, InputUse::Url, InputUse::Headers] {
        let mut found = Vec::new();
        for (known, on, lacks) in &lacks {
            let mut lacks = lacks.iter().filter(|lack| lack.used_in() == used_in);
            // The gravest first.
            let gravest = lacks.clone().find(|lack| lack.is_fatal()).or_else(|| lacks.next());
            found.extend(gravest.map(|lack| {
                (lack.is_fatal(), &known.rule.table, refusal(endpoint, lack, known, *on))
            }));
        }
        let is_problem = found.len() == lacks.len() && found.iter().all(|(fatal, ..)| *fatal);
        let mut told = HashSet::new();
        found.retain(|(_, table, refusal)| told.insert((*table, refusal.fix())));
        findings.extend(found.into_iter().map(|(_, _, refusal)| match is_problem {
            true => refusal.into(),
            false => CheckFinding::warning(refusal.what(), refusal.fix()),
        }));
    }
    findings
}

/// Of a deleted row little is sent, so what fits other rows may not fit it.
fn with_deletes_apart(on: Operations) -> Vec<Operations> {
    let deletes = Operations { delete: true, ..Operations::default() };
    let others = Operations { delete: false, ..on };
    match (on.delete, others == Operations::default()) {
        (true, true) => vec![deletes],
        (true, false) => vec![others, deletes],
        (false, _) => vec![others],
    }
}

fn refusal(
    endpoint: &Endpoint,
    lack: &MissingInput,
    known: &KnownTable<'_>,
    on: Operations,
) -> SetupDiagnostic {
    let table = &known.rule.table;
    let (what, fix) = match lack {
        MissingInput::Column { column, .. } if known.unsent.contains(column) => (
            format!(
                "names column {column} of {table}, which PostgreSQL does not send: it is generated, \
                 or left out by the publication's column list"
            ),
            String::from("write what it is computed from, or have the publication send it"),
        ),
        MissingInput::Column { column, .. } => (
            format!("names column {column}, which {table} does not have"),
            String::from("correct it, or let the endpoint take other `events`"),
        ),
        MissingInput::OldRow { .. } => {
            let rows = if on.delete { "deleted rows" } else { "the old row" };
            let holder = known.narrow.first().unwrap_or(table);
            (
                format!("needs values of {rows} of {holder} that are not sent"),
                format!("run `{}` as the owner of the table", whole_rows(&known.narrow)),
            )
        }
    };
    let what = what + &endpoint.places.shown(lack.used_in().key());
    let whose = format!("endpoint {}", endpoint.name);
    SetupDiagnostic::EndpointLacks { whose, key: lack.used_in().key(), what, fix }
}

/// The table as the stream would describe it, as far as old rows go: of tables that hold rows in
/// different ways, what all of them send.
fn relation(rule: &EventRule, found: &TableFacts, sent: Vec<String>) -> Relation {
    let holders = found.rows.iter().filter(|rows| rows.kind == 'r').map(|rows| &rows.identity);
    let in_rows = |column: &String| {
        holders.clone().all(|identity| {
            let columns = identity.columns.as_ref();
            identity.is_full() || columns.is_some_and(|columns| columns.contains(column))
        })
    };
    let root = found.identity_columns.as_ref();
    let in_root = |column: &String| {
        found.identity == 'f' || root.is_some_and(|columns| columns.contains(column))
    };
    let is_full = narrow(rule, found).is_empty() && found.identity == 'f';
    let column = |name: String| Column {
        identity: in_rows(&name) && in_root(&name),
        name,
        type_oid: 0,
        sql_type: Arc::new(SqlType::Text),
    };
    Relation {
        oid: 0,
        table: rule.table.clone(),
        identity: if is_full { ReplicaIdentity::Full } else { ReplicaIdentity::Index },
        columns: sent.into_iter().map(column).collect(),
        key: Vec::new(),
        row_key: Vec::new(),
    }
}
