//! Tries write-backs on rows that are there, for `walhook check`.

use crate::config::configuration::Settings;
use crate::config::settings::WriteBackSettings;
use crate::flow::change::ColumnValue;
use crate::flow::change::RowTuple;
use crate::flow::relation::Relation;
use crate::flow::write_back::TargetRow;
use crate::preflight::function_tables;
use crate::preflight::inspection::InspectionSessions;
use crate::replication::catalog::CheckFinding;
use crate::replication::sample;
use crate::replication::sample::RowSample;
use crate::store::error::StoreError;
use crate::store::row_change;
use crate::store::state_error::StateError;

/// Rows of each table.
const SAMPLES_MAX: usize = 5;

/// Tries each write-back on rows that are there, for `walhook check`: a value may be none of the type that
/// stands in its place, which shows only with a value. Nothing is written.
///
/// # Errors
/// The server cannot be asked.
pub(crate) async fn findings(
    settings: &Settings,
    sessions: &mut InspectionSessions,
) -> Result<Vec<CheckFinding>, StoreError> {
    let mut findings = Vec::new();
    let server = &settings.postgres.server;
    for rule in &settings.events {
        let Some(terms) = &rule.write_back else { continue };
        let client = &sessions.plain(server).await?.client;
        let sample = sample::read(client, &rule.table, SAMPLES_MAX).await?;
        let RowSample::Rows { relation, rows } = sample else { continue };
        let client = &mut sessions.own_path(server).await?.client;
        findings.extend(function_tables::findings(client, rule, terms).await?);
        let mut first = None;
        let mut failing = 0;
        for row in &rows {
            let target = sampled(terms, &relation, row);
            let tried = row_change::explain(client, terms, &rule.table, &target, false).await;
            if let Err(StateError::Store(StoreError::Refused(cause))) = tried {
                failing += 1;
                // The message may hold the value.
                first.get_or_insert(cause.sqlstate.code().to_owned());
            }
        }
        if let Some(code) = first {
            let event = &rule.event_type;
            findings.push(CheckFinding::warning(
                format!(
                    "the write-back of event {event} would be refused for {failing} of {} rows of {} that were \
                     tried (SQLSTATE {code})",
                    rows.len(),
                    rule.table
                ),
                String::from("cast the places in `sql` to what their values are, or correct the rows"),
            ));
        }
    }
    Ok(findings)
}

/// What the write-back of an event over this row would be told.
fn sampled(terms: &WriteBackSettings, relation: &Relation, row: &RowTuple) -> TargetRow {
    let value = |column: usize| match row.value(column) {
        ColumnValue::Text(text) => Some(String::from_utf8_lossy(text).into_owned()),
        ColumnValue::Null | ColumnValue::Unchanged => None,
    };
    let named = |column: &usize| relation.columns.get(*column).map(|column| column.name.as_str());
    let key: Vec<String> = relation.key.iter().filter_map(named).map(ToOwned::to_owned).collect();
    let mut target = row_change::any_row(terms, &key);
    for (name, known) in &mut target.values {
        *known = relation.column(name).and_then(value);
    }
    target
}
