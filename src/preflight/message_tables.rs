//! Looks beforehand at the tables that say what became of messages.

use tokio_postgres::Client;

use crate::config::configuration::Settings;
use crate::replication::catalog::CheckFinding;
use crate::store::error::StoreError;
use crate::store::messages;
use crate::store::state_error::StateError;

/// A warning if the management API could not read them: deliveries go on without.
///
/// # Errors
/// The server cannot be asked.
pub(super) async fn findings(
    settings: &Settings,
    client: &Client,
) -> Result<Vec<CheckFinding>, StoreError> {
    let Some(tables) = &settings.messages else { return Ok(Vec::new()) };
    match messages::find(client, tables, "").await {
        Ok(_) => Ok(vec![CheckFinding::ok(format!(
            "messages: their steps are read from {} and {}",
            tables.table, tables.history
        ))]),
        Err(StateError::Store(StoreError::Refused(cause))) => {
            let what = format!(
                "what became of messages cannot be read from {} and {}: {cause}",
                tables.table, tables.history
            );
            let fix =
                "run sql/wecom-callbacks.sql and the grants at its end, or correct [messages]";
            Ok(vec![CheckFinding::warning(what, fix.to_owned())])
        }
        Err(StateError::Store(other)) => Err(other),
        Err(_) => Ok(Vec::new()),
    }
}
