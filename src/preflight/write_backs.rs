//! Joins write-backs to the ledger, and looks at them before the start.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::config::settings::EventRule;
use crate::config::settings::RowChangeSql;
use crate::config::settings::Settings;
use crate::config::settings::WriteBackSettings;
use crate::ledger::write_back::WriteBackRule;
use crate::ledger::write_back::WriteBackRunner;
use crate::ledger::write_back::WriteBackTerms;
use crate::pipeline::handles::SharedHandles;
use crate::replication::catalog::CheckFinding;
use crate::replication::catalog::facts::CatalogFacts;
use crate::replication::catalog::wanted::WantedObjects;
use crate::replication::diagnostic::SetupDiagnostic;
use crate::store::error::ServerError;
use crate::store::error::StoreError;
use crate::store::error::is_transient_state;
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
        match row_change::explain(client, terms, &rule.table, &table.key, false).await {
            Ok(()) => findings.push(CheckFinding::ok(format!("write-back of event {event}"))),
            Err(StateError::Store(StoreError::Refused(cause))) => {
                // Both have one code: what may be done to the rows that are seen tells them apart.
                let is_denied = cause.sqlstate == SqlState::INSUFFICIENT_PRIVILEGE;
                let seen = row_change::explain(client, terms, &rule.table, &table.key, true);
                findings.push(if is_denied && seen.await.is_ok() {
                    let whose = format!("the write-back of event {event}");
                    let (what, role) = (cause.to_string(), role.clone());
                    SetupDiagnostic::RowSecurity { whose, what, role }.into()
                } else {
                    refused(rule, terms, role, event, &cause)
                });
            }
            Err(StateError::Store(other)) => return Err(other),
            Err(_) => {}
        }
    }
    Ok(findings)
}

fn refused(
    rule: &EventRule,
    terms: &WriteBackSettings,
    role: &str,
    event: String,
    cause: &ServerError,
) -> CheckFinding {
    let what = cause.to_string();
    if is_transient_state(&cause.sqlstate) {
        let what = format!("the write-back of event {event} could not be looked at: {what}");
        return CheckFinding::warning(what, String::from("run `walhook check` again"));
    }
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let denied = cause.sqlstate == SqlState::INSUFFICIENT_PRIVILEGE;
    let fix = match &terms.change {
        RowChangeSql::Column(column) if denied => format!(
            "run `GRANT UPDATE ({}) ON {} TO {};`",
            quoted(column),
            rule.table.quoted(),
            quoted(role)
        ),
        RowChangeSql::Statement(_) if denied => {
            format!("grant role {} what the statement needs", quoted(role))
        }
        _ => String::from("correct `write_back`, or the table"),
    };
    SetupDiagnostic::WriteBack { event, what, fix }.into()
}
