//! Looks without touching: what `walhook check` finds, and what events a row would raise.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::Map;
use serde_json::Value as Json;
use tokio::runtime::Handle;
use tokio_postgres::Client;

use crate::api::answers::admin_answer::AdminAnswer;
use crate::api::answers::endpoint_answers::EventTypeList;
use crate::api::answers::endpoint_answers::FindingList;
use crate::api::answers::endpoint_answers::ShownEventType;
use crate::api::answers::endpoint_answers::ShownFinding;
use crate::api::answers::endpoint_answers::TrialFault;
use crate::api::answers::endpoint_answers::TrialReport;
use crate::api::answers::endpoint_answers::TriedEvent;
use crate::api::answers::endpoint_answers::TriedRequest;
use crate::api::requests::endpoint_calls::AdminOutcome;
use crate::api::requests::endpoint_calls::AdminRefusal;
use crate::api::requests::endpoint_calls::RowTrial;
use crate::api::requests::endpoint_calls::TestWish;
use crate::api::requests::field_kinds::FreeObject;
use crate::config::configuration::Settings;
use crate::config::settings::Endpoint;
use crate::config::settings::EventRule;
use crate::delivery::request::preview::RequestPreview;
use crate::endpoints::admin::EndpointAdmin;
use crate::endpoints::admin::probe;
use crate::endpoints::admin::refusals::no_client;
use crate::endpoints::admin::refusals::unknown;
use crate::endpoints::registry::RegistryHandle;
use crate::event::dry_run;
use crate::event::trial;
use crate::event::trial::TriedRule;
use crate::flow::backfill::ReadRow;
use crate::flow::change::ChangeOp;
use crate::flow::change::ColumnValue;
use crate::flow::change::CommittedChange;
use crate::flow::change::OldRow;
use crate::flow::change::RowTuple;
use crate::flow::lsn::Position;
use crate::flow::relation::Relation;
use crate::flow::relation::TableName;
use crate::flow::time::Timestamp;
use crate::preflight::dry_run::example_of as dry_run_example;
use crate::preflight::event_schemas;
use crate::preflight::event_schemas::CataloguedEvent;
use crate::preflight::prepare;
use crate::replication::catalog::CheckFinding;
use crate::replication::catalog::FindingLevel;
use crate::replication::diagnostic::SetupDiagnostic;
use crate::replication::sample;
use crate::replication::sample::RowSample;
use crate::replication::sample::SampleSource;
use crate::store;
use crate::store::error::StoreError;

/// The API waits for 40 s.
const CHECK_PATIENCE: Duration = Duration::from_secs(30);

/// Rows to pick one of.
const ROWS_MAX: usize = 20;

/// Endpoints whose requests are shown for one event.
const TAKERS_MAX: usize = 20;

/// How much of a value is shown where a row is to be picked.
const SHOWN_CHARS_MAX: usize = 200;

impl EndpointAdmin {
    /// What `walhook check` finds while walhook runs. That its own slot is in use is no finding.
    pub(super) fn check(&self) -> BoxFuture<'static, AdminOutcome> {
        let settings = self.settings.clone();
        Box::pin(async move {
            // It goes from one question to the next on a thread of its own: it is made for `walhook check`,
            // which has nothing else to do.
            let checked = tokio::task::spawn_blocking(move || {
                let check =
                    async { tokio::time::timeout(CHECK_PATIENCE, prepare::check(&settings)).await };
                Handle::current().block_on(check)
            });
            let checked =
                checked.await.map_err(|error| AdminRefusal::new(503, error.to_string()))?;
            let (report, _) = match checked {
                Ok(Ok(checked)) => checked,
                Ok(Err(error)) => return Err(AdminRefusal::new(503, format!("{error:#}"))),
                Err(_late) => {
                    let detail = "the databases did not answer in time: see `walhook check`";
                    return Err(AdminRefusal::new(503, detail));
                }
            };
            let is_other = |finding: &&CheckFinding| !is_own_use(finding);
            let findings = report.findings.iter().filter(is_other).map(shown_finding).collect();
            Ok(AdminAnswer::Findings(FindingList { findings }))
        })
    }

    /// Each event type with the schema of its bodies, of the tables as they are.
    pub(super) fn event_types(&self, orders: &RegistryHandle) -> BoxFuture<'static, AdminOutcome> {
        let (settings, endpoints) = (self.settings.clone(), enabled(orders));
        Box::pin(async move {
            let read = Box::pin(event_schemas::read(&settings, &endpoints)).await;
            let read = read.map_err(away)?;
            let event_types = read.into_iter().map(shown_event).collect();
            Ok(AdminAnswer::EventTypes(EventTypeList { event_types }))
        })
    }

    /// Sends a test that is an event of a certain type, made of a row that is there or might be.
    pub(super) fn trigger(
        &self,
        orders: &RegistryHandle,
        name: &str,
        wish: TestWish,
    ) -> BoxFuture<'static, AdminOutcome> {
        let (settings, now, name) = (self.settings.clone(), self.now(), name.to_owned());
        let snapshot = orders.snapshot();
        let shown = snapshot.find(&name);
        let shown = shown.map(|shown| (shown.runner.client(), Arc::clone(&shown.endpoint)));
        Box::pin(async move {
            let (client, endpoint) = shown.ok_or_else(|| unknown(&name))?;
            let client = client.map_err(no_client)?;
            let mut settings = settings;
            let types: Vec<&str> = settings.events.iter().map(|rule| &*rule.event_type).collect();
            let stranger = wish.event_type.as_deref().filter(|wanted| !types.contains(wanted));
            if let Some(stranger) = stranger {
                let detail =
                    format!("event type {stranger:?} is unknown: known are {}", types.join(", "));
                return Err(AdminRefusal::new(422, detail));
            }
            if let Some(wanted) = &wish.event_type {
                settings.events.retain(|rule| *rule.event_type == **wanted);
            }
            settings.events.retain(|rule| endpoint.takes(rule));
            if settings.events.is_empty() {
                let detail = match &wish.event_type {
                    Some(wanted) => format!("endpoint {name} takes no event {wanted:?}"),
                    None => format!("endpoint {name} takes no events"),
                };
                return Err(AdminRefusal::new(422, detail));
            }
            let key = wish.key.as_deref();
            let example = Box::pin(dry_run_example(&settings, &endpoint, key, now)).await;
            let Some(example) = example.map_err(away)? else {
                let what =
                    key.map_or_else(|| String::from("no row"), |key| format!("no row {key:?}"));
                return Err(AdminRefusal::new(422, format!("{what} can be had to make it of")));
            };
            let sample = (example.sample.body, example.sample.headers, example.sample.values);
            Ok(AdminAnswer::Test(probe::send_of(client, example.event, sample, now).await))
        })
    }

    /// Tries a row on the events of its table.
    pub(super) fn try_row(
        &self,
        orders: &RegistryHandle,
        trial: RowTrial,
    ) -> BoxFuture<'static, AdminOutcome> {
        let settings = self.settings.clone();
        let (endpoints, now) = (enabled(orders), self.now());
        Box::pin(async move {
            let tried = Box::pin(try_on_server(&settings, &endpoints, &trial, now)).await;
            tried.map(AdminAnswer::Trial)
        })
    }
}

/// The endpoints that take events.
fn enabled(orders: &RegistryHandle) -> Vec<Endpoint> {
    let snapshot = orders.snapshot();
    let takes = snapshot.listed.iter().filter(|shown| !shown.is_leaving && shown.endpoint.enabled);
    takes.map(|shown| (*shown.endpoint).clone()).collect()
}

fn away(error: StoreError) -> AdminRefusal {
    AdminRefusal::new(503, format!("{:#}", anyhow::Error::new(error)))
}

/// While walhook runs, its slot is in use by itself.
fn is_own_use(finding: &CheckFinding) -> bool {
    matches!(
        finding.refusal,
        Some(SetupDiagnostic::SlotInUse { .. } | SetupDiagnostic::NoFreeWalSender { .. })
    )
}

fn shown_finding(finding: &CheckFinding) -> ShownFinding {
    let level = match finding.level {
        FindingLevel::Ok => "ok",
        FindingLevel::Warning => "warning",
        FindingLevel::Problem => "problem",
    };
    ShownFinding { level, what: finding.what.clone(), fix: finding.fix.clone() }
}

fn shown_event(event: CataloguedEvent) -> ShownEventType {
    ShownEventType {
        event_type: event.event_type.to_string(),
        table: event.table.to_string(),
        on: event.on,
        schema: event.schema,
        own_schemas: event.own.into_iter().map(|(name, own)| (name.to_string(), own)).collect(),
    }
}

/// The table that a trial is about.
fn table(settings: &Settings, trial: &RowTrial) -> Result<TableName, AdminRefusal> {
    let known = |rule: &&EventRule| match (&trial.table, &trial.event_type) {
        (Some(table), _) => rule.table.to_string() == *table,
        (None, Some(event)) => *rule.event_type == **event,
        (None, None) => true,
    };
    let found = settings.events.iter().find(known).map(|rule| rule.table.clone());
    found.ok_or_else(|| {
        let mut types: Vec<&str> = settings.events.iter().map(|rule| &*rule.event_type).collect();
        types.truncate(ROWS_MAX);
        let detail = format!("no event is about that: there are {}", types.join(", "));
        AdminRefusal::new(422, detail)
    })
}

async fn try_on_server(
    settings: &Settings,
    endpoints: &[Endpoint],
    trial: &RowTrial,
    now: Timestamp,
) -> Result<TrialReport, AdminRefusal> {
    let table = table(settings, trial)?;
    let session = store::connect_within(&settings.postgres.server, store::ANSWER_SOON);
    let session = session.await.map_err(away)?;
    let client = &session.client;
    let given = |row: &Json| row.to_string();
    let (relation, rows) = match (&trial.row, &trial.key) {
        (Some(FreeObject(row)), _) => {
            rows_of(client, &table, SampleSource::Json(&given(row))).await?
        }
        (None, Some(key)) => rows_of(client, &table, SampleSource::Key(key)).await?,
        (None, None) => rows_of(client, &table, SampleSource::First(ROWS_MAX)).await?,
    };
    if let Some(FreeObject(row)) = &trial.row {
        refuse_strangers(row, &relation)?;
    }
    let old = match &trial.old {
        Some(FreeObject(old)) => {
            refuse_strangers(old, &relation)?;
            rows_of(client, &table, SampleSource::Json(&given(old))).await?.1.into_iter().next()
        }
        None => None,
    };
    let mut results = Vec::new();
    if let Some(row) = rows.first() {
        for (op, name) in operations(trial, row, old.as_ref())? {
            let change = change(&relation, op, now);
            results.extend(tried(settings, endpoints, &change, name, now));
        }
        let faults = faults(settings, endpoints, &relation, row, now);
        if let Some(first) = results.first_mut() {
            first.faults = faults;
        }
    }
    let key = relation.key.iter().filter_map(|place| relation.columns.get(*place));
    Ok(TrialReport {
        table: table.to_string(),
        key: key.map(|column| column.name.clone()).collect(),
        rows: rows.iter().map(|row| shown_row(&relation, row)).collect(),
        results,
    })
}

async fn rows_of(
    client: &Client,
    table: &TableName,
    source: SampleSource<'_>,
) -> Result<(Arc<Relation>, Vec<RowTuple>), AdminRefusal> {
    match sample::read_from(client, table, source).await.map_err(away)? {
        RowSample::Rows { relation, rows } => Ok((relation, rows)),
        RowSample::Unreadable(why) => {
            Err(AdminRefusal::new(422, format!("no row can be had of {table}: {why}")))
        }
    }
}

/// A column that the table has not is a mistake, which PostgreSQL would pass over.
fn refuse_strangers(row: &Json, relation: &Relation) -> Result<(), AdminRefusal> {
    let Json::Object(members) = row else {
        return Err(AdminRefusal::new(422, "a row is an object with the table's columns"));
    };
    let stranger = members.keys().find(|name| relation.column(name).is_none());
    stranger.map_or(Ok(()), |name| {
        let columns: Vec<&str> = relation.columns.iter().map(|c| c.name.as_str()).collect();
        let (table, columns) = (&relation.table, columns.join(", "));
        let detail = format!("{table} has no column {name:?}: its columns are {columns}");
        Err(AdminRefusal::new(422, detail))
    })
}

/// The operations to try, each with its name. Without an old row, an update is of the row as it is.
fn operations(
    trial: &RowTrial,
    row: &RowTuple,
    old: Option<&RowTuple>,
) -> Result<Vec<(ChangeOp, &'static str)>, AdminRefusal> {
    let before = || OldRow::Full(old.unwrap_or(row).clone());
    let all = [
        (ChangeOp::Insert { new: row.clone() }, "insert"),
        (ChangeOp::Update { old: Some(before()), new: row.clone() }, "update"),
        (ChangeOp::Delete { old: OldRow::Full(row.clone()) }, "delete"),
        (ChangeOp::Read { new: row.clone(), read: ReadRow::of_nobody() }, "read"),
    ];
    let Some(wanted) = &trial.op else { return Ok(all.into()) };
    let found: Vec<_> = all.into_iter().filter(|(_, name)| name == wanted).collect();
    match found.is_empty() {
        false => Ok(found),
        true => Err(AdminRefusal::new(422, "op is one of insert, update, delete, read")),
    }
}

fn change(relation: &Arc<Relation>, op: ChangeOp, now: Timestamp) -> CommittedChange {
    CommittedChange {
        position: Position::default(),
        committed: now,
        relation: Arc::clone(relation),
        op,
        xid: 0,
        metadata: None,
        trace: None,
        held: None,
    }
}

/// What each event type of the table comes to.
fn tried(
    settings: &Settings,
    endpoints: &[Endpoint],
    change: &CommittedChange,
    op: &'static str,
    now: Timestamp,
) -> Vec<TriedEvent> {
    let tried = trial::try_change(0, &settings.events, endpoints, change, now);
    let shown = |TriedRule { rule, verdict, takers }: TriedRule| {
        let rule = settings.events.get(rule.0)?;
        let requests = takers.iter().take(TAKERS_MAX).filter_map(|(taker, event)| {
            let endpoint = endpoints.get(taker.0)?;
            let name = endpoint.name.to_string();
            let failed = |error: String| TriedRequest {
                endpoint: endpoint.name.to_string(),
                error: Some(error),
                ..TriedRequest::default()
            };
            let request = match RequestPreview::new(endpoint) {
                Ok(preview) => preview.of(Arc::clone(event), now),
                Err(error) => return Some(failed(error.to_string())),
            };
            if let Some(failure) = request.failure {
                return Some(failed(failure.detail));
            }
            let headers = Some(request.headers.by_name());
            let body = Some(String::from_utf8_lossy(&request.body).into_owned());
            Some(TriedRequest { endpoint: name, headers, body, error: None })
        });
        Some(TriedEvent {
            op,
            event_type: rule.event_type.to_string(),
            verdict,
            endpoints: requests.collect(),
            more: takers.len().saturating_sub(TAKERS_MAX),
            faults: Vec::new(),
        })
    };
    tried.into_iter().filter_map(shown).collect()
}

/// Expressions that have no value on the row, each once.
fn faults(
    settings: &Settings,
    endpoints: &[Endpoint],
    relation: &Arc<Relation>,
    row: &RowTuple,
    now: Timestamp,
) -> Vec<TrialFault> {
    let rules = settings.events.iter().filter(|rule| rule.table == relation.table);
    let mut told = HashSet::new();
    let mut found = Vec::new();
    for rule in rules {
        let trial = dry_run::dry_run(rule, endpoints, relation, std::slice::from_ref(row), now);
        for failure in trial.failures {
            if told.insert((failure.place.clone(), Arc::clone(&failure.expression))) {
                found.push(TrialFault {
                    event_type: rule.event_type.to_string(),
                    place: failure.place.to_string(),
                    expression: failure.expression.to_string(),
                    what: failure.what.to_owned(),
                });
            }
        }
    }
    found
}

/// The row's values as texts, long ones cut.
fn shown_row(relation: &Relation, row: &RowTuple) -> Map<String, Json> {
    let values = relation.columns.iter().enumerate().map(|(place, column)| {
        let value = match row.value(place) {
            ColumnValue::Null | ColumnValue::Unchanged => Json::Null,
            ColumnValue::Text(text) => {
                let text = String::from_utf8_lossy(text);
                Json::from(text.chars().take(SHOWN_CHARS_MAX).collect::<String>())
            }
        };
        (column.name.clone(), value)
    });
    values.collect()
}
