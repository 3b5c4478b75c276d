//! The first statement of a flush: whether the slot is still ours, and this is the next flush.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use tokio_postgres::Client;
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use crate::store::flush::StateFlush;
use crate::store::ownership::StateOwnership;
use crate::store::progress::fenced;
use crate::store::progress::not_ours;
use crate::store::session::prepared_statements::StateTransaction;
use crate::store::sql::SqlParams;
use crate::store::sql::read;
use crate::store::state_error::StateError;

/// Counts the flush and moves progress. Where there is no such row it is an error of the server, which takes
/// nothing more in this transaction: so whatever comes next need not wait for the answer.
const FENCE: &str = "WITH moved AS (
         UPDATE walhook.progress
            SET flush = $3, settled_lsn = coalesce($4, settled_lsn),
                settled_ordinal = coalesce($5, settled_ordinal),
                confirmed_lsn = greatest($6, confirmed_lsn),
                confirmed_at = coalesce($7, confirmed_at), updated_at = now()
          WHERE slot = $1 AND partition = $8 AND epoch = $2 AND flush = $3 - 1
      RETURNING 1)
     SELECT (CASE count(*) WHEN 1 THEN '1'
             ELSE 'walhook: another has the slot, or this flush is not the next one' END)::integer
       FROM moved";

/// What the server says when there is no such row: the text is no number.
const REFUSAL: SqlState = SqlState::INVALID_TEXT_REPRESENTATION;

/// Fails on the server if the slot is not ours or this is not the next flush.
///
/// # Errors
/// That the statement failed. `refused` is told if that was the fence.
pub(super) async fn pass(
    tx: &StateTransaction<'_>,
    ownership: &StateOwnership,
    number: i64,
    flush: &StateFlush,
    refused: &AtomicBool,
) -> Result<u64, StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, ownership.slot.as_ref());
    params.put(Type::INT8, ownership.epoch);
    params.put(Type::INT8, number);
    params.put(Type::PG_LSN, flush.settled.map(|position| position.commit));
    params.put(Type::INT8, flush.settled.map(|position| i64::from(position.ordinal)));
    params.put(Type::PG_LSN, flush.confirmed);
    params.put(Type::TIMESTAMPTZ, flush.confirmed_at);
    params.put(Type::INT4, ownership.partition.raw());
    let outcome = tx.execute(FENCE, &params).await;
    if outcome.as_ref().is_err_and(|error| error.sqlstate() == Some(&REFUSAL)) {
        refused.store(true, Ordering::Relaxed);
    }
    outcome
}

/// Why the fence has refused, once its transaction is over; nothing if an earlier try of this very flush was
/// committed after all.
///
/// # Errors
/// [`StateError::Fenced`], [`StateError::SetBack`], [`StateError::OutOfOrder`]; that it could not be asked.
pub(super) async fn refusal(
    client: &Client,
    ownership: &StateOwnership,
    number: i64,
) -> Result<(), StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, ownership.slot.as_ref());
    params.put(Type::INT4, ownership.partition.raw());
    let query = "SELECT epoch, flush, holder FROM walhook.progress
                  WHERE slot = $1 AND partition = $2";
    let row: Option<Row> = client.query_typed_opt(query, &params.list()).await?;
    let Some(row) = row else { return Err(fenced(ownership, None)) };
    not_ours(ownership, read(&row, "epoch")?, read(&row, "holder")?)?;
    match read::<i64>(&row, "flush")? {
        stored if stored == number => Ok(()),
        // Flushes that were known to be committed are not there.
        stored if stored < number - 1 => {
            Err(StateError::SetBack { slot: ownership.slot.to_string() })
        }
        stored => Err(StateError::OutOfOrder { slot: ownership.slot.to_string(), number, stored }),
    }
}
