//! Values that events were raised with, for as long as their `dedupe` remembers them.
//!
//! Written by the flush whose settled prefix passes the event, so that after a crash everything is
//! known that came before what is read again, and nothing that comes after it.

use std::sync::Arc;

use tokio_postgres::Client;
use tokio_postgres::Row;
use tokio_postgres::Transaction;
use tokio_postgres::types::Type;

use crate::flow::lsn::Lsn;
use crate::flow::lsn::Position;
use crate::flow::seen::ValueFingerprint;
use crate::flow::time::Timestamp;
use crate::store::ownership::StateOwnership;
use crate::store::session::prepared_statements::StateTransaction;
use crate::store::sql::SqlParams;
use crate::store::sql::chunks;
use crate::store::sql::read;
use crate::store::sql::unsigned;
use crate::store::state_error::StateError;

/// One value. No two of a flush have the same fingerprint.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SeenValue {
    pub event_type: Arc<str>,
    pub fingerprint: ValueFingerprint,
    pub position: Position,
    pub committed: Timestamp,
}

pub(crate) async fn add(
    tx: &StateTransaction<'_>,
    ownership: &StateOwnership,
    values: &[SeenValue],
) -> Result<(), StateError> {
    for chunk in chunks(values, |_| 0) {
        let halves = || chunk.iter().map(|value| value.fingerprint.halves());
        let positions = || chunk.iter().map(|value| value.position);
        let mut params = SqlParams::default();
        params.put(Type::TEXT, ownership.slot.as_ref());
        params.column(Type::INT8_ARRAY, halves().map(|(high, _)| high.cast_signed()));
        params.column(Type::INT8_ARRAY, halves().map(|(_, low)| low.cast_signed()));
        params.column(Type::TEXT_ARRAY, chunk.iter().map(|value| &*value.event_type));
        params.column(Type::PG_LSN_ARRAY, positions().map(|position| position.commit));
        params.column(Type::INT8_ARRAY, positions().map(|position| i64::from(position.ordinal)));
        params.column(Type::TIMESTAMPTZ_ARRAY, chunk.iter().map(|value| value.committed));
        tx.execute(
            "INSERT INTO walhook.seen_values AS s
                    (slot, high, low, event_type, commit_lsn, ordinal, committed)
             SELECT $1, high, low, event_type, commit_lsn, ordinal, committed
               FROM unnest($2::bigint[], $3::bigint[], $4::text[], $5::pg_lsn[], $6::bigint[],
                           $7::timestamptz[])
                    AS r (high, low, event_type, commit_lsn, ordinal, committed)
             ON CONFLICT (slot, high, low) DO UPDATE
                SET commit_lsn = excluded.commit_lsn, ordinal = excluded.ordinal,
                    committed = excluded.committed",
            &params,
        )
        .await?;
    }
    Ok(())
}

/// Forgets the values of each event type that are older than the time beside it.
pub(crate) async fn forget(
    tx: &Transaction<'_>,
    ownership: &StateOwnership,
    before: &[(Arc<str>, Timestamp)],
) -> Result<(), StateError> {
    if before.is_empty() {
        return Ok(());
    }
    let mut params = SqlParams::default();
    params.put(Type::TEXT, ownership.slot.as_ref());
    params.column(Type::TEXT_ARRAY, before.iter().map(|(event_type, _)| &**event_type));
    params.column(Type::TIMESTAMPTZ_ARRAY, before.iter().map(|(_, time)| *time));
    tx.execute_typed(
        "DELETE FROM walhook.seen_values s
          USING unnest($2::text[], $3::timestamptz[]) AS r (event_type, oldest)
          WHERE s.slot = $1 AND s.event_type = r.event_type AND s.committed < r.oldest",
        &params.list(),
    )
    .await?;
    Ok(())
}

/// The newest values of an event type, at most `max`, the oldest first.
///
/// # Errors
/// That the rows could not be read.
pub(crate) async fn load(
    client: &Client,
    slot: &str,
    event_type: &Arc<str>,
    max: usize,
) -> Result<Vec<SeenValue>, StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    params.put(Type::TEXT, &**event_type);
    params.put(Type::INT8, i64::try_from(max).unwrap_or(i64::MAX));
    let mut rows = client
        .query_typed(
            "SELECT high, low, commit_lsn, ordinal, committed FROM walhook.seen_values
              WHERE slot = $1 AND event_type = $2
              ORDER BY committed DESC, commit_lsn DESC, ordinal DESC LIMIT $3",
            &params.list(),
        )
        .await?;
    rows.reverse();
    let value = |row: &Row| {
        let half = |column| read::<i64>(row, column).map(i64::cast_unsigned);
        let commit: Lsn = read(row, "commit_lsn")?;
        Ok(SeenValue {
            event_type: Arc::clone(event_type),
            fingerprint: ValueFingerprint::from_halves(half("high")?, half("low")?),
            position: Position { commit, ordinal: unsigned(row, "ordinal")? },
            committed: read(row, "committed")?,
        })
    };
    rows.iter().map(value).collect()
}
