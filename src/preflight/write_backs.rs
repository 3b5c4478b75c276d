//! Joins write-backs to the ledger, and looks at them before the start.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::config::settings::EventRule;
use crate::config::settings::RowChange;
use crate::config::settings::Settings;
use crate::config::settings::WriteBack;
use crate::ledger::write_back::Rule;
use crate::ledger::write_back::Terms;
use crate::ledger::write_back::WriteBacks;
use crate::pipeline::handles::Handles;
use crate::replication::catalog::Finding;
use crate::replication::catalog::Wanted;
use crate::replication::catalog::facts::Facts;
use crate::replication::diagnostic::Refusal;
use crate::store::error::ServerError;
use crate::store::error::StoreError;
use crate::store::error::is_transient_state;
use crate::store::row_change;
use crate::store::state_error::StateError;
use crate::task::Tasks;

/// Starts the task that writes back, if an event asks for it. It ends with the sender.
pub(crate) fn start(
    settings: &Settings,
    handles: &Handles,
    tasks: &mut Tasks,
) -> Option<watch::Sender<()>> {
    let rule = |rule: &EventRule| {
        Some(Rule {
            event_type: Arc::clone(&rule.event_type),
            table: rule.table.clone(),
            terms: rule.write_back.clone()?,
        })
    };
    let rules: Vec<Rule> = settings.events.iter().filter_map(rule).collect();
    if rules.is_empty() {
        return None;
    }
    let terms = Terms {
        slot: settings.postgres.slot.clone(),
        source: settings.postgres.server.clone(),
        state: settings.state.clone(),
        rules,
        status: handles.write_backs.clone(),
    };
    let write_backs = WriteBacks::new(terms, &handles.metrics);
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
    facts: &Facts,
    client: &mut Client,
) -> Result<Vec<Finding>, StoreError> {
    let mut findings = Vec::new();
    let wanted = Wanted::new(settings);
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
        if table.key.is_empty() && matches!(terms.change, RowChange::Column(_)) {
            let what = String::from("the table has no primary key to find the row by");
            let fix = String::from("give it one, or write `sql` with the columns that find it");
            findings.push(Refusal::WriteBack { event, what, fix }.into());
            continue;
        }
        match row_change::explain(client, terms, &rule.table, &table.key, false).await {
            Ok(()) => findings.push(Finding::ok(format!("write-back of event {event}"))),
            Err(StateError::Store(StoreError::Refused(cause))) => {
                // Both have one code: what may be done to the rows that are seen tells them apart.
                let is_denied = cause.sqlstate == SqlState::INSUFFICIENT_PRIVILEGE;
                let seen = row_change::explain(client, terms, &rule.table, &table.key, true);
                findings.push(if is_denied && seen.await.is_ok() {
                    let whose = format!("the write-back of event {event}");
                    let (what, role) = (cause.to_string(), role.clone());
                    Refusal::RowSecurity { whose, what, role }.into()
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
    terms: &WriteBack,
    role: &str,
    event: String,
    cause: &ServerError,
) -> Finding {
    let what = cause.to_string();
    if is_transient_state(&cause.sqlstate) {
        let what = format!("the write-back of event {event} could not be looked at: {what}");
        return Finding::warning(what, String::from("run `walhook check` again"));
    }
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let denied = cause.sqlstate == SqlState::INSUFFICIENT_PRIVILEGE;
    let fix = match &terms.change {
        RowChange::Column(column) if denied => format!(
            "run `GRANT UPDATE ({}) ON {} TO {};`",
            quoted(column),
            rule.table.quoted(),
            quoted(role)
        ),
        RowChange::Statement(_) if denied => {
            format!("grant role {} what the statement needs", quoted(role))
        }
        _ => String::from("correct `write_back`, or the table"),
    };
    Refusal::WriteBack { event, what, fix }.into()
}
