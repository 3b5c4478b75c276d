//! What a first start will send of the tables, and whether it can be read.

use tokio_postgres::Client;

use crate::backfill::first_start;
use crate::backfill::source;
use crate::backfill::source::ServerKinship;
use crate::backfill::source::StandbyError;
use crate::backfill::table;
use crate::backfill::table::TableError;
use crate::config::configuration::Settings;
use crate::config::settings::EventRule;
use crate::preflight::gaps;
use crate::replication::catalog::CheckFinding;
use crate::replication::diagnostic::SetupDiagnostic;
use crate::store;
use crate::store::error::StoreError;

/// What keeps the first start from sending the rows that it is asked for. Nothing at any later start.
///
/// # Errors
/// The server or the state cannot be asked.
pub(crate) async fn refusals(
    settings: &Settings,
    client: &Client,
) -> anyhow::Result<Vec<SetupDiagnostic>> {
    let mut refusals = Vec::new();
    if first_start::rules(settings).next().is_none() || !is_new(settings).await? {
        return Ok(refusals);
    }
    for rule in first_start::rules(settings) {
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
    let mut findings = standby(settings, client).await;
    if first_start::rules(settings).next().is_none() {
        return Ok(findings);
    }
    let is_new = is_new(settings).await?;
    for rule in first_start::rules(settings) {
        let EventRule { event_type, table, .. } = rule;
        if !is_new {
            let what = format!(
                "event {event_type}: the slot has begun, so no start sends the rows of {table} by itself"
            );
            let fix = Some(format!("to send them: {}", first_start::by_hand(rule)));
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

/// Whether rows can be read on the server of `[backfill] url`. A start does not ask: a backfill waits for it.
async fn standby(settings: &Settings, source: &Client) -> Vec<CheckFinding> {
    let Some(server) = &settings.backfill_standby else { return Vec::new() };
    let looked = async {
        let session = store::connect_within(server, store::ANSWER_SOON).await?;
        let kinship = source::standby_of(source, &session.client).await?;
        let mut findings = vec![kinship_finding(kinship)];
        let asks = |rule: &&EventRule| rule.on.read || rule.backfill;
        for rule in settings.events.iter().filter(asks) {
            findings.extend(look(&session.client, rule).await?.err().map(CheckFinding::from));
        }
        Ok::<_, StandbyError>(findings)
    };
    looked.await.unwrap_or_else(|error| {
        let what = format!("{:#}", anyhow::Error::new(error));
        let fix = String::from("put that right, or take `url` out of [backfill]: docs/backfill.md");
        let whose = String::from("[backfill] url");
        vec![SetupDiagnostic::Backfill { whose, what, fix }.into()]
    })
}

/// A chunk takes less than half a second: a standby that waits so long for it lets it end.
const DELAY_MIN_MILLIS: i64 = 1000;

fn kinship_finding(kinship: ServerKinship) -> CheckFinding {
    let what = "[backfill] url is a standby of the source: rows are read there".to_owned();
    if kinship.has_feedback || !(0..DELAY_MIN_MILLIS).contains(&kinship.delay_millis) {
        return CheckFinding::ok(what);
    }
    CheckFinding::warning(
        format!(
            "{what}, but it waits only {} ms for them before it cancels them for what vacuum removes on the \
             source",
            kinship.delay_millis
        ),
        String::from(
            "set hot_standby_feedback = on there, or max_standby_streaming_delay to 1s or more; chunks that \
             are cancelled are read again",
        ),
    )
}

/// Whether the slot has still to begin.
async fn is_new(settings: &Settings) -> anyhow::Result<bool> {
    Ok(gaps::known(settings).await?.is_none_or(|progress| progress.is_new()))
}

/// About how many rows there are.
async fn look(
    client: &Client,
    rule: &EventRule,
) -> Result<Result<u64, SetupDiagnostic>, StoreError> {
    match table::readable(client, &rule.table).await {
        Ok(rows) => Ok(Ok(rows)),
        Err(TableError::Store(error)) => Err(error),
        // Told by name already.
        Err(TableError::Missing { .. } | TableError::NoTable { .. }) => Ok(Ok(0)),
        Err(error) => Ok(Err(SetupDiagnostic::Backfill {
            whose: format!("event {}", rule.event_type),
            what: error.to_string(),
            fix: String::from("put that right, or take `backfill` out of the event"),
        })),
    }
}
