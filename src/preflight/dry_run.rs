//! Tries every event on rows of its table, for `walhook check`.

use std::collections::HashMap;
use std::sync::Arc;

use tokio_postgres::Client;

use crate::config::configuration::Settings;
use crate::config::settings::Endpoint;
use crate::config::settings::EventRule;
use crate::event::dry_run;
use crate::event::dry_run::DryRunTrial;
use crate::event::dry_run::SampleBody;
use crate::event::dry_run::TrialFailure;
use crate::flow::relation::TableName;
use crate::flow::time::Timestamp;
use crate::replication::catalog::CheckFinding;
use crate::replication::sample;
use crate::replication::sample::RowSample;
use crate::replication::sample::SampleSource;
use crate::store;
use crate::store::error::StoreError;

/// Enough to meet the usual nulls, few enough for any table.
const ROWS_MAX: usize = 20;

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct TrialResults {
    pub(crate) findings: Vec<CheckFinding>,
    pub(crate) examples: Vec<EventExample>,
}

/// A body as an event would have it.
#[derive(Debug)]
pub(crate) struct EventExample {
    pub event: Arc<str>,
    pub sample: SampleBody,
}

/// A warning for each expression that has no value on a row, and how each event went.
///
/// # Errors
/// The server cannot be asked.
pub(crate) async fn findings(
    settings: &Settings,
    client: &Client,
    now: Timestamp,
) -> Result<TrialResults, StoreError> {
    let mut samples: HashMap<&TableName, RowSample> = HashMap::new();
    let mut trials = TrialResults::default();
    for rule in &settings.events {
        if !samples.contains_key(&rule.table) {
            samples.insert(&rule.table, sample::read(client, &rule.table, ROWS_MAX).await?);
        }
        let (event, table) = (&rule.event_type, &rule.table);
        match samples.get(table) {
            Some(RowSample::Rows { rows, .. }) if rows.is_empty() => {
                trials.findings.push(CheckFinding::ok(format!(
                    "event {event}: not tried, {table} has no rows (up to 1 MiB)"
                )))
            }
            Some(RowSample::Rows { relation, rows }) => {
                let trial = dry_run::dry_run(rule, &settings.endpoints, relation, rows, now);
                trials.add(rule, trial);
            }
            Some(RowSample::Unreadable(reason)) => trials.findings.push(CheckFinding::warning(
                format!("event {event}: not tried on rows of {table}: {reason}"),
                String::from("its expressions show on the first changes whether they fit"),
            )),
            None => {}
        }
    }
    Ok(trials)
}

/// What an endpoint would get for a row that is there, or, where there is none, for one that might be: the
/// body of a test that has the shape of a real event. `None` if no event is for it, or none can be made.
///
/// # Errors
/// The server cannot be asked.
pub(crate) async fn example(
    settings: &Settings,
    endpoint: &Endpoint,
    now: Timestamp,
) -> Result<Option<EventExample>, StoreError> {
    example_of(settings, endpoint, None, now).await
}

/// As [`example`], of the row with this value in the first column of its primary key, if one is named.
///
/// # Errors
/// The server cannot be asked.
pub(crate) async fn example_of(
    settings: &Settings,
    endpoint: &Endpoint,
    key: Option<&str>,
    now: Timestamp,
) -> Result<Option<EventExample>, StoreError> {
    let source = key.map_or(SampleSource::First(1), SampleSource::Key);
    let session = store::connect(&settings.postgres.server).await?;
    let mut made_up = None;
    for rule in settings.events.iter().filter(|rule| endpoint.takes(rule)) {
        let read = sample::read_from(&session.client, &rule.table, source).await?;
        let RowSample::Rows { relation, rows } = read else { continue };
        let is_there = !rows.is_empty();
        if !is_there && (made_up.is_some() || key.is_some()) {
            continue;
        }
        let rows = match is_there {
            true => rows,
            false => sample::made_up(&relation).into_iter().collect(),
        };
        let trial = dry_run::dry_run(rule, std::slice::from_ref(endpoint), &relation, &rows, now);
        // Behind the event's own shape that of the endpoint, if it has one.
        let Some(sample) = trial.bodies.into_iter().next_back() else { continue };
        let example = EventExample { event: Arc::clone(&rule.event_type), sample };
        if is_there {
            return Ok(Some(example));
        }
        made_up = Some(example);
    }
    Ok(made_up)
}

impl TrialResults {
    fn add(&mut self, rule: &EventRule, trial: DryRunTrial) {
        let event = &rule.event_type;
        let rows = trial.rows;
        let passing = match (&rule.filter, trial.passing) {
            (None, _) => String::new(),
            (Some(_), passing) => format!(", its filter is true for {passing} as they are"),
        };
        self.findings
            .push(CheckFinding::ok(format!("event {event}: tried on {rows} rows{passing}")));
        self.findings.extend(trial.failures.iter().map(|failure| warning(event, failure, rows)));
        let example = |sample| EventExample { event: Arc::clone(event), sample };
        self.examples.extend(trial.bodies.into_iter().map(example));
    }
}

fn warning(event: &str, failure: &TrialFailure, rows: usize) -> CheckFinding {
    let TrialFailure { place, expression, what, row, rows: failing, .. } = failure;
    CheckFinding::warning(
        format!(
            "event {event}, {place}: `{expression}` has no value on {failing} of {rows} rows, such as \
             the row {row}"
        ),
        format!("there it {what}"),
    )
}
