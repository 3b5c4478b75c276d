//! Joins write-backs to the ledger, and looks at them before the start.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::config::configuration::Settings;
use crate::config::settings::EventRule;
use crate::config::settings::RowChangeSql;
use crate::config::settings::WriteBackSettings;
use crate::flow::quote::identifier;
use crate::ledger::write_back::WriteBackRule;
use crate::ledger::write_back::WriteBackRunner;
use crate::ledger::write_back::WriteBackTerms;
use crate::pipeline::handles::SharedHandles;
use crate::preflight::grants;
use crate::replication::catalog::CheckFinding;
use crate::replication::catalog::facts::CatalogFacts;
use crate::replication::catalog::wanted::WantedObjects;
use crate::replication::diagnostic::SetupDiagnostic;
use crate::store::error::StoreError;
use crate::store::error::is_transient_state;
use crate::store::error::server_error::ServerError;
use crate::store::row_change;
use crate::store::state_error::StateError;
use crate::task::TaskOwner;

/// Starts the task that writes back, if an event asks for it. It ends with the sender.
pub(crate) fn start(
    settings: &Settings,
    handles: &SharedHandles,
    tasks: &mut TaskOwner,
) -> Option<watch::Sender<()>> {
    let rule = |rule: &EventRule| {
        Some(WriteBackRule {
            event_type: Arc::clone(&rule.event_type),
            table: rule.table.clone(),
            terms: rule.write_back.clone()?,
        })
    };
    let rules: Vec<WriteBackRule> = settings.events.iter().filter_map(rule).collect();
    if rules.is_empty() {
        return None;
    }
    let terms = WriteBackTerms {
        slot: settings.postgres.slot.clone(),
        source: settings.postgres.server.clone(),
        state: settings.state.clone(),
        rules,
        status: handles.write_backs.clone(),
    };
    let write_backs = WriteBackRunner::new(terms, &handles.metrics);
    let (wake_in, wake) = watch::channel(());
    tasks.spawn("the write-backs", async move {
        write_backs.run(wake).await;
        Ok(())
    });
    Some(wake_in)
}

/// A problem for each write-back that PostgreSQL would refuse. What is wrong with the table itself
/// is the catalog's to say.
///
/// # Errors
/// The server cannot be asked.
pub(crate) async fn findings(
    settings: &Settings,
    facts: &CatalogFacts,
    client: &mut Client,
) -> Result<Vec<CheckFinding>, StoreError> {
    let mut findings = Vec::new();
    let wanted = WantedObjects::new(settings);
    let role = &facts.server.role;
    for rule in &settings.events {
        let Some(terms) = &rule.write_back else { continue };
        let place = wanted.tables.iter().position(|table| table.name == rule.table);
        let Some(Some(table)) = place.and_then(|place| facts.tables.get(place)) else { continue };
        let lacks = |column: &String| !table.columns.contains(column);
        if terms.columns().any(lacks) {
            continue;
        }
        let event = rule.event_type.to_string();
        if table.key.is_empty() && matches!(terms.change, RowChangeSql::Column(_)) {
            let what = String::from("the table has no primary key to find the row by");
            let fix = String::from("give it one, or write `sql` with the columns that find it");
            findings.push(SetupDiagnostic::WriteBack { event, what, fix }.into());
            continue;
        }
        let row = row_change::any_row(terms, &table.key);
        match row_change::explain(client, terms, &rule.table, &row, false).await {
            Ok(()) => match row_change::untyped_place(client, terms, &rule.table, &row).await {
                Ok(Some(place)) => {
                    let what = format!(
                        "{{{{ {place} }}}} stands where a row of any type may, so no value can be put there"
                    );
                    let fix = format!("cast it: {{{{ {place} }}}}::the_type_of_the_row");
                    findings.push(SetupDiagnostic::WriteBack { event, what, fix }.into());
                }
                Ok(None) => findings.push(match call_lacks(client, terms).await?.as_slice() {
                    [] => CheckFinding::ok(format!("write-back of event {event}")),
                    lacks => {
                        let what = String::from("the procedure may not be called");
                        let fix = grants::fix(lacks, String::new);
                        SetupDiagnostic::WriteBack { event, what, fix }.into()
                    }
                }),
                Err(StateError::Store(StoreError::Refused(cause))) => {
                    findings.push(refused(client, rule, terms, role, event, &cause).await?);
                }
                Err(StateError::Store(other)) => return Err(other),
                Err(_) => {}
            },
            Err(StateError::Store(StoreError::Refused(cause))) => {
                // Both have one code: what may be done to the rows that are seen tells them apart.
                let is_denied = cause.sqlstate == SqlState::INSUFFICIENT_PRIVILEGE;
                let is_hidden = is_denied
                    && row_change::explain(client, terms, &rule.table, &row, true).await.is_ok();
                findings.push(if is_hidden {
                    let whose = format!("the write-back of event {event}");
                    let (what, role) = (cause.to_string(), role.clone());
                    SetupDiagnostic::RowSecurity { whose, what, role }.into()
                } else {
                    refused(client, rule, terms, role, event, &cause).await?
                });
            }
            Err(StateError::Store(other)) => return Err(other),
            Err(_) => {}
        }
    }
    Ok(findings)
}

/// What it takes to call a procedure, which PostgreSQL does not plan.
async fn call_lacks(client: &Client, terms: &WriteBackSettings) -> Result<Vec<String>, StoreError> {
    match &terms.change {
        RowChangeSql::Statement(pieces) if row_change::is_call(terms) => {
            grants::for_statement(client, &row_change::text(pieces)).await
        }
        _ => Ok(Vec::new()),
    }
}

async fn refused(
    client: &Client,
    rule: &EventRule,
    terms: &WriteBackSettings,
    role: &str,
    event: String,
    cause: &ServerError,
) -> Result<CheckFinding, StoreError> {
    let what = cause.to_string();
    if is_transient_state(&cause.sqlstate) {
        let what = format!("the write-back of event {event} could not be looked at: {what}");
        return Ok(CheckFinding::warning(what, String::from("run `walhook check` again")));
    }
    let denied = cause.sqlstate == SqlState::INSUFFICIENT_PRIVILEGE;
    let fix = match &terms.change {
        RowChangeSql::Column(column) if denied => format!(
            "run `GRANT UPDATE ({}) ON {} TO {};`",
            identifier(column),
            rule.table.quoted(),
            identifier(role)
        ),
        RowChangeSql::Statement(pieces) if denied => {
            let lacks = grants::for_statement(client, &row_change::text(pieces)).await?;
            grants::fix(&lacks, || {
                format!("grant role {} what the statement needs", identifier(role))
            })
        }
        _ if cause.sqlstate == SqlState::INDETERMINATE_DATATYPE => {
            String::from("cast the place in `sql`, as {{ id }}::bigint")
        }
        _ => String::from("correct `write_back`, or the table"),
    };
    Ok(SetupDiagnostic::WriteBack { event, what, fix }.into())
}
