//! Whether PostgreSQL sends what the events need of old rows, and what their endpoints need of rows.

use std::collections::HashSet;
use std::sync::Arc;

use tokio_postgres::Client;

use crate::config::settings::Endpoint;
use crate::config::settings::EventRule;
use crate::config::settings::Operations;
use crate::config::settings::Settings;
use crate::event::require;
use crate::event::require::Lack;
use crate::event::require::Use;
use crate::flow::relation::Column;
use crate::flow::relation::Relation;
use crate::flow::relation::ReplicaIdentity;
use crate::flow::relation::SqlType;
use crate::source::catalog::Finding;
use crate::source::catalog::Wanted;
use crate::source::catalog::facts;
use crate::source::catalog::facts::TableFacts;
use crate::source::catalog::judge;
use crate::source::refusal::Refusal;
use crate::store::error::StoreError;

/// A problem for each event whose filter could never be true, a warning for each payload with
/// places that stay empty; likewise for endpoints. What else is wrong with tables is the catalog's
/// to say.
///
/// # Errors
/// The server cannot be asked.
pub(crate) async fn findings(
    settings: &Settings,
    client: &Client,
) -> Result<Vec<Finding>, StoreError> {
    let known = known(settings, client).await?;
    let mut findings = Vec::new();
    for (rule, relation) in &known {
        findings.extend(require::lacks(rule, relation).iter().filter_map(|lack| {
            let Lack::OldRow { used_in, .. } = lack else { return None };
            let refusal = Refusal::NeedsOldRow {
                event: rule.event_type.to_string(),
                key: used_in.key(),
                sql: lack.fix(relation)?,
            };
            let warning = || Finding::warning(refusal.what(), refusal.fix());
            Some(if lack.is_fatal() { refusal.clone().into() } else { warning() })
        }));
    }
    findings.extend(settings.endpoints.iter().flat_map(|endpoint| of_endpoint(endpoint, &known)));
    Ok(findings)
}

/// Why this endpoint could never get an event.
///
/// # Errors
/// The server cannot be asked.
pub(crate) async fn refusals(
    settings: &Settings,
    client: &Client,
    endpoint: &Endpoint,
) -> Result<Vec<Refusal>, StoreError> {
    let found = of_endpoint(endpoint, &known(settings, client).await?);
    Ok(found.into_iter().filter_map(|finding| finding.refusal).collect())
}

/// What keeps the endpoints of `[endpoints_from]` from getting events. `example` is one of them: they
/// differ in values, not in what their `when` and `payload` name.
///
/// # Errors
/// The server cannot be asked.
pub(crate) async fn findings_from(
    settings: &Settings,
    client: &Client,
    event_column: Option<&str>,
    example: Option<&Endpoint>,
) -> Result<Vec<Finding>, StoreError> {
    let known = known(settings, client).await?;
    let mut findings = example.map(|example| of_endpoint(example, &known)).unwrap_or_default();
    if let Some(column) = event_column
        && !known.is_empty()
        && known.iter().all(|(_, relation)| relation.column(column).is_none())
    {
        let refusal = Refusal::EndpointLacks {
            whose: String::from("[endpoints_from]"),
            key: "match",
            what: format!("names column {column}, which no event's table has"),
            fix: String::from("correct it: the events' column stands first"),
        };
        findings.push(refusal.into());
    }
    Ok(findings)
}

/// The events whose tables are there.
async fn known<'s>(
    settings: &'s Settings,
    client: &Client,
) -> Result<Vec<(&'s EventRule, Relation)>, StoreError> {
    let wanted = Wanted::new(settings);
    let server = facts::server(client).await?;
    if judge::too_old(&server).is_some() {
        return Ok(Vec::new());
    }
    let facts = facts::gather(client, server, &wanted).await?;
    let known = |rule: &'s EventRule| {
        let place = wanted.tables.iter().position(|table| table.name == rule.table)?;
        Some((rule, relation(rule, facts.tables.get(place)?.as_ref()?)))
    };
    Ok(settings.events.iter().filter_map(known).collect())
}

/// What lacks for every event that the endpoint takes is a problem: it would get none, or none whole.
/// What lacks for some of them, or for their deletes alone, is worth a word.
fn of_endpoint(endpoint: &Endpoint, known: &[(&EventRule, Relation)]) -> Vec<Finding> {
    let mut lacks = Vec::new();
    for (rule, relation) in known.iter().filter(|(rule, _)| endpoint.takes(rule)) {
        for on in with_deletes_apart(rule.on) {
            let rule = EventRule { on, ..EventRule::clone(rule) };
            lacks.push((relation, on, require::lacks_of(endpoint, &rule, relation)));
        }
    }
    let mut findings = Vec::new();
    for used_in in [Use::Filter, Use::Payload] {
        let mut found = Vec::new();
        for (relation, on, lacks) in &lacks {
            let mut lacks = lacks.iter().filter(|lack| lack.used_in() == used_in);
            // The gravest first.
            let gravest = lacks.clone().find(|lack| lack.is_fatal()).or_else(|| lacks.next());
            found.extend(gravest.map(|lack| {
                (lack.is_fatal(), &relation.table, refusal(endpoint, lack, relation, *on))
            }));
        }
        let is_problem = found.len() == lacks.len() && found.iter().all(|(fatal, ..)| *fatal);
        let mut told = HashSet::new();
        found.retain(|(_, table, refusal)| told.insert((*table, refusal.fix())));
        findings.extend(found.into_iter().map(|(_, _, refusal)| match is_problem {
            true => refusal.into(),
            false => Finding::warning(refusal.what(), refusal.fix()),
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

fn refusal(endpoint: &Endpoint, lack: &Lack, relation: &Relation, on: Operations) -> Refusal {
    let table = &relation.table;
    let (what, fix) = match lack {
        Lack::Column { column, .. } => (
            format!("names column {column}, which {table} does not have"),
            String::from("correct it, or let the endpoint take other `events`"),
        ),
        Lack::OldRow { .. } => {
            let rows = if on.delete { "deleted rows" } else { "the old row" };
            let sql = lack.fix(relation).unwrap_or_default();
            (
                format!("needs values of {rows} of {table} that are not sent"),
                format!("run `{sql}` as the owner of the table"),
            )
        }
    };
    let whose = format!("endpoint {}", endpoint.name);
    Refusal::EndpointLacks { whose, key: lack.used_in().key(), what, fix }
}

/// The table as the stream would describe it, as far as old rows go.
fn relation(rule: &EventRule, table: &TableFacts) -> Relation {
    let identity = match table.identity {
        'f' => ReplicaIdentity::Full,
        'n' => ReplicaIdentity::Nothing,
        'i' => ReplicaIdentity::Index,
        _ => ReplicaIdentity::Default,
    };
    let column = |name: &String| Column {
        name: name.clone(),
        type_oid: 0,
        // Which columns an identity index has is not known here: none of them is relied upon.
        identity: identity == ReplicaIdentity::Default && table.key.contains(name),
        sql_type: Arc::new(SqlType::Text),
    };
    Relation {
        oid: 0,
        table: rule.table.clone(),
        identity,
        columns: table.columns.iter().map(column).collect(),
        key: Vec::new(),
        row_key: Vec::new(),
    }
}
