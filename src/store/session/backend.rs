//! What the server of a session says of itself: the process for the session, its WAL, its system.

use crate::flow::lsn::Lsn;
use crate::store::sql::SqlParams;
use crate::store::sql::read;
use crate::store::state_error::StateError;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

/// The server's process for a session, so that it can be told from a later one of the same number.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct BackendSession {
    pub pid: i32,
    started: String,
}

/// The process for this session.
///
/// # Errors
/// That a statement failed.
pub(crate) async fn backend(client: &Client) -> Result<BackendSession, StateError> {
    let question = "SELECT pid, coalesce(backend_start::text, '') AS started
          FROM pg_catalog.pg_stat_activity WHERE pid = pg_catalog.pg_backend_pid()";
    let row = client.query_typed_one(question, &[]).await?;
    Ok(BackendSession { pid: read(&row, "pid")?, started: read(&row, "started")? })
}

/// How far the WAL is written, whether it is on the disk or not.
///
/// # Errors
/// That a statement failed, as on a standby.
pub(crate) async fn wal_end(client: &Client) -> Result<Lsn, StateError> {
    let question = "SELECT pg_catalog.pg_current_wal_insert_lsn() AS wal_end";
    read(&client.query_typed_one(question, &[]).await?, "wal_end")
}

/// Writes something to the WAL that nobody reads, so that its end is another one. It has as many bytes as a quiet
/// stream is confirmed by at the least, so that it is passed soon.
///
/// # Errors
/// That the statement failed.
pub(crate) async fn move_wal_on(client: &Client) -> Result<(), StateError> {
    let emit = "SELECT pg_catalog.pg_logical_emit_message(false, 'walhook.rows', repeat(' ', 131072))::text";
    client.query_typed(emit, &[]).await?;
    Ok(())
}

/// The identifier of the database system; `None` if the role may not ask for it.
///
/// # Errors
/// That a statement failed for another reason.
pub(crate) async fn system(client: &Client) -> Result<Option<u64>, StateError> {
    let question = "SELECT system_identifier FROM pg_catalog.pg_control_system()";
    match client.query_typed_one(question, &[]).await {
        Ok(row) => Ok(Some(read::<i64>(&row, "system_identifier")?.cast_unsigned())),
        Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Ends a lost session of ours, if the server still has it; a role may end its own. Returns whether
/// there was one.
///
/// # Errors
/// That a statement failed.
pub(crate) async fn end_backend(
    client: &Client,
    lost: &BackendSession,
) -> Result<bool, StateError> {
    let mut params = SqlParams::default();
    params.put(Type::INT4, lost.pid);
    params.put(Type::TEXT, lost.started.as_str());
    let ended = client
        .query_typed(
            "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity
              WHERE pid = $1 AND backend_start::text = $2 AND pid <> pg_catalog.pg_backend_pid()
                AND usename = current_user",
            &params.list(),
        )
        .await?;
    Ok(!ended.is_empty())
}
