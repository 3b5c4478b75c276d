//! walhook's own tables: opened, and brought up to date.

use std::time::Duration;

use crate::config::configuration::Settings;
use crate::store;
use crate::store::SqlSession;
use crate::store::migrate;
use crate::store::state_error::StateError;

/// How long a statement may take that brings the schema up to date, or reads all of it.
const UPGRADE_MAX: Duration = Duration::from_secs(24 * 3600);

/// Connects to the state's database and brings the schema up to date.
///
/// # Errors
/// The database cannot be reached, the schema is newer than this walhook, or the role may not make
/// it; the SQL for the administrator is in the error then.
pub(crate) async fn open(settings: &Settings) -> Result<SqlSession, StateError> {
    // An index over a large table takes its time, and so does the wait for another walhook.
    let mut session = store::connect_within(&settings.state, UPGRADE_MAX).await?;
    store::is_direct(&session.client).await?;
    migrate::migrate(&mut session.client).await?;
    Ok(session)
}
