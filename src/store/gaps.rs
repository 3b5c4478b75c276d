//! `walhook.gaps`: transactions that were left out on the operator's word.

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use crate::flow::lsn::Lsn;
use crate::flow::time::Timestamp;
use crate::store::sql::SqlParams;
use crate::store::sql::clean_ascii;
use crate::store::sql::read;
use crate::store::state_error::StateError;

/// A transaction that was left out.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct SkippedTransaction {
    pub commit: Lsn,
    /// Changes of it that were sent.
    pub sent: i64,
    pub reason: String,
    /// When it was booked; `None` before it is.
    pub skipped_at: Option<Timestamp>,
}

/// Books a transaction. Booked again, it is the same one.
///
/// # Errors
/// The state could not be written.
pub(crate) async fn book(
    client: &Client,
    slot: &str,
    skipped: &SkippedTransaction,
) -> Result<(), StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    params.put(Type::PG_LSN, skipped.commit);
    params.put(Type::INT8, skipped.sent);
    // What PostgreSQL said is in ASCII where it cites bytes; a database's own encoding may lack more.
    params.put(Type::TEXT, clean_ascii(&skipped.reason));
    let insert = "INSERT INTO walhook.gaps (slot, commit_lsn, sent, reason) \
                  VALUES ($1, $2, $3, $4) ON CONFLICT (slot, commit_lsn) DO NOTHING";
    client.query_typed(insert, &params.list()).await?;
    Ok(())
}

/// What was left out so far, the latest first; nothing where the state has no such table yet.
///
/// # Errors
/// The state could not be read.
pub(crate) async fn load(
    client: &Client,
    slot: &str,
) -> Result<Vec<SkippedTransaction>, StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    let query = "SELECT commit_lsn, sent, reason, skipped_at FROM walhook.gaps WHERE slot = $1 \
                 ORDER BY commit_lsn DESC";
    let rows = match client.query_typed(query, &params.list()).await {
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => return Ok(Vec::new()),
        rows => rows?,
    };
    let skipped = |row| {
        Ok(SkippedTransaction {
            commit: read(row, "commit_lsn")?,
            sent: read(row, "sent")?,
            reason: read(row, "reason")?,
            skipped_at: read(row, "skipped_at")?,
        })
    };
    rows.iter().map(skipped).collect()
}
