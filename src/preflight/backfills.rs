//! What a first start will send of the tables, and whether it can be read.

use tokio_postgres::Client;

use crate::backfill::first;
use crate::backfill::table;
use crate::backfill::table::TableError;
use crate::config::configuration::Settings;
use crate::config::settings::EventRule;
use crate::preflight::gaps;
use crate::replication::catalog::CheckFinding;
use crate::replication::diagnostic::SetupDiagnostic;

/// What keeps the first start from sending the rows that it is asked for. Nothing at any later start.
///
/// # Errors
/// The server or the state cannot be asked.
pub(crate) async fn refusals(
    settings: &Settings,
    client: &Client,
) -> anyhow::Result<Vec<SetupDiagnostic>> {
    let mut refusals = Vec::new();
    if first::rules(settings).next().is_none() || !is_new(settings).await? {
        return Ok(refusals);
    }
    for rule in first::rules(settings) {
        refusals.extend(look(client, rule).await?.err());
    }
    Ok(refusals)
}

/// What `walhook run` will do about rows that tables hold already.
///
/// # Errors
/// The server or the state cannot be asked.
pub(crate) async fn findings(
    settings: &Settings,
    client: &Client,
) -> anyhow::Result<Vec<CheckFinding>> {
    let mut findings = Vec::new();
    if first::rules(settings).next().is_none() {
        return Ok(findings);
    }
    let is_new = is_new(settings).await?;
    for rule in first::rules(settings) {
        let EventRule { event_type, table, .. } = rule;
        if !is_new {
            let what = format!(
                "event {event_type}: the slot has begun, so no start sends the rows of {table} by itself"
            );
            let fix = Some(format!("to send them: {}", first::by_hand(rule)));
            findings.push(CheckFinding { fix, ..CheckFinding::ok(what) });
            continue;
        }
        findings.push(match look(client, rule).await? {
            Ok(rows) => CheckFinding::ok(format!(
                "event {event_type}: walhook run will send the rows of {table}, about {rows}, once"
            )),
            Err(refusal) => refusal.into(),
        });
    }
    Ok(findings)
}

/// Whether the slot has still to begin.
async fn is_new(settings: &Settings) -> anyhow::Result<bool> {
    Ok(gaps::known(settings).await?.is_none_or(|progress| progress.is_new()))
}

/// About how many rows there are.
async fn look(
    client: &Client,
    rule: &EventRule,
) -> Result<Result<u64, SetupDiagnostic>, TableError> {
    match table::readable(client, &rule.table).await {
        Ok(rows) => Ok(Ok(rows)),
        Err(TableError::Store(error)) => Err(error.into()),
        // Told by name already.
        Err(TableError::Missing { .. } | TableError::NoTable { .. }) => Ok(Ok(0)),
        Err(error) => Ok(Err(SetupDiagnostic::Backfill {
            whose: format!("event {}", rule.event_type),
            what: error.to_string(),
            fix: String::from("put that right, or take `backfill` out of the event"),
        })),
    }
}
