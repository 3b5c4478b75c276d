//! Writes what a flush parks, parks again and ends.

use tokio_postgres::Transaction;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use crate::flow::verdict::AttemptFailure;
use crate::store::backlog::BacklogDelivery;
use crate::store::backlog::OWN_COLUMNS;
use crate::store::backlog::ParkedDelivery;
use crate::store::backlog::ReparkedDelivery;
use crate::store::backlog::copy;
use crate::store::body_codec;
use crate::store::body_codec::STORED_BYTES_MAX;
use crate::store::large_body;
use crate::store::ownership::StateOwnership;
use crate::store::session::prepared_statements::StateTransaction;
use crate::store::sql::SqlParams;
use crate::store::sql::chunks;
use crate::store::sql::clean;
use crate::store::sql::int;
use crate::store::sql::looked_up;
use crate::store::state_error::StateError;
use crate::store::stored_event;
use crate::store::stored_event::StoredHistory;
use crate::store::stored_event::StoredSubject;

/// The row `b` of a delivery `r` to the slot $1. Only the index that begins with the event can be used: before
/// the table is analyzed the planner takes those of slot and endpoint for as good, and reads all rows of the
/// endpoint for each delivery. Nor may it read all rows of the table, of which it believes that there are few: that is
/// so in all of a flush (`store::flush`).
const OF_EVENT: &str = "b.event_id = r.event_id AND b.endpoint || '' = r.endpoint
            AND b.slot || '' = $1 AND NOT b.replay";

pub(crate) async fn park(
    tx: &mut StateTransaction<'_>,
    ownership: &StateOwnership,
    parked: &[ParkedDelivery],
) -> Result<(), StateError> {
    if parked.is_empty() {
        return Ok(());
    }
    let is_large =
        |row: &ParkedDelivery| large_body::is_large(body_codec::encoded_len(&row.event.body));
    if parked.iter().any(is_large) {
        return insert(tx, ownership, parked).await; // COPY takes a row in one piece
    }
    let attempt = tx.savepoint("park").await?;
    match copy::copy(&attempt, ownership, parked).await {
        Ok(()) => attempt.commit().await,
        // COPY has no ON CONFLICT, and next to never a conflict.
        Err(error) if error.sqlstate() == Some(&SqlState::UNIQUE_VIOLATION) => {
            attempt.rollback().await?;
            insert(tx, ownership, parked).await
        }
        Err(error) => Err(error),
    }
}

/// Rows of which some are there already: those stay as they are.
async fn insert(
    tx: &Transaction<'_>,
    ownership: &StateOwnership,
    parked: &[ParkedDelivery],
) -> Result<(), StateError> {
    let (event, rest) = (stored_event::COLUMNS, OWN_COLUMNS);
    let insert = |selected: &str| {
        format!(
            "INSERT INTO walhook.backlog (slot, {event}, {rest})
         SELECT $1, {selected}, {rest}
           FROM unnest({arrays}, $16::text[], $17::int[], $18::timestamptz[], $19::timestamptz[],
                       $20::text[], $21::timestamptz[], $22::timestamptz[], $23::int[],
                       $24::text[], $25::text[], $26::bool[], $27::bigint[])
                WITH ORDINALITY AS rows ({event}, {rest}, number)
          ORDER BY number
         ON CONFLICT DO NOTHING",
            arrays = stored_event::ARRAYS,
        )
    };
    for chunk in chunks(parked, |row| body_codec::encoded_len(&row.event.body)) {
        let body = |row: &ParkedDelivery| {
            let bytes = body_codec::encoded_len(&row.event.body);
            match bytes > STORED_BYTES_MAX {
                false if large_body::is_large(bytes) => Ok(None),
                false => Ok(body_codec::encode(&row.event.body)),
                true => Err(StateError::BodyTooLarge { event: row.event.id.to_string(), bytes }),
            }
        };
        let bodies = chunk.iter().map(body).collect::<Result<Vec<_>, StateError>>()?;
        let large = match (chunk, bodies.as_slice()) {
            ([row], [None]) => Some(&row.event.body),
            _ => None,
        };
        let subjects: Vec<StoredSubject<'_>> = chunk
            .iter()
            .map(|row| StoredSubject { event: &row.event, row_key: row.row_key.as_deref() })
            .collect();
        let mut params = SqlParams::default();
        params.put(Type::TEXT, ownership.slot.as_ref());
        stored_event::put_events(&mut params, &subjects, bodies, ownership.unicode);
        params.column(Type::TEXT_ARRAY, chunk.iter().map(|row| &*row.endpoint));
        params.column(Type::INT4_ARRAY, chunk.iter().map(|row| int(row.history.attempts)));
        params.column(Type::TIMESTAMPTZ_ARRAY, chunk.iter().map(|row| row.next_attempt));
        params.column(Type::TIMESTAMPTZ_ARRAY, chunk.iter().map(|row| row.parked_at));
        params.column(Type::TEXT_ARRAY, chunk.iter().map(|row| row.reason.as_str()));
        let histories: Vec<&StoredHistory> = chunk.iter().map(|row| &row.history).collect();
        put_histories(&mut params, &histories, ownership.unicode);
        params.column(Type::BOOL_ARRAY, chunk.iter().map(|row| row.replay.is_replay()));
        params.column(Type::INT8_ARRAY, chunk.iter().map(|row| row.replay.dead_letter()));
        if let Some(body) = large {
            large_body::gather(tx, &ownership.slot, body).await?;
        }
        let insert = insert(&large_body::selected(large.is_some()));
        tx.execute_typed(&insert, &params.list()).await?;
        if large.is_some() {
            large_body::clear(tx, &ownership.slot).await?;
        }
    }
    Ok(())
}

/// Adds first and last attempt, status, class and detail of the last failure.
fn put_histories<'a>(params: &mut SqlParams<'a>, rows: &[&'a StoredHistory], unicode: bool) {
    params.column(Type::TIMESTAMPTZ_ARRAY, rows.iter().map(|row| row.first_attempt));
    params.column(Type::TIMESTAMPTZ_ARRAY, rows.iter().map(|row| row.last_attempt));
    params.column(Type::INT4_ARRAY, rows.iter().map(|row| row.status.map(i32::from)));
    let failures = || rows.iter().map(|row| row.failure.as_ref());
    params.column(Type::TEXT_ARRAY, failures().map(|failure| failure.map(|f| f.class.as_str())));
    let detail = |failure: &'a AttemptFailure| clean(&failure.detail, unicode);
    params.column(Type::TEXT_ARRAY, failures().map(|failure| failure.map(detail)));
}

pub(crate) async fn repark(
    tx: &Transaction<'_>,
    ownership: &StateOwnership,
    reparked: &[ReparkedDelivery],
) -> Result<(), StateError> {
    let update = format!(
        "UPDATE walhook.backlog b
            SET attempts = r.attempts, next_attempt_at = r.next_attempt_at, reason = r.reason,
                first_attempt_at = r.first_attempt_at, last_attempt_at = r.last_attempt_at,
                http_status = r.http_status, failure_class = r.failure_class,
                failure_detail = r.failure_detail
           FROM {rows} AS r (endpoint, event_id, attempts, next_attempt_at, reason,
                             first_attempt_at, last_attempt_at, http_status, failure_class,
                             failure_detail)
          WHERE {OF_EVENT}",
        rows = looked_up(&[
            "text",
            "text",
            "int",
            "timestamptz",
            "text",
            "timestamptz",
            "timestamptz",
            "int",
            "text",
            "text",
        ]),
    );
    for chunk in chunks(reparked, |_| 0) {
        let mut params = SqlParams::default();
        params.put(Type::TEXT, ownership.slot.as_ref());
        params.column(Type::TEXT_ARRAY, chunk.iter().map(|row| &*row.delivery.endpoint));
        params.column(Type::TEXT_ARRAY, chunk.iter().map(|row| row.delivery.event.to_string()));
        params.column(Type::INT4_ARRAY, chunk.iter().map(|row| int(row.history.attempts)));
        params.column(Type::TIMESTAMPTZ_ARRAY, chunk.iter().map(|row| row.next_attempt));
        params.column(Type::TEXT_ARRAY, chunk.iter().map(|row| row.reason.as_str()));
        let histories: Vec<&StoredHistory> = chunk.iter().map(|row| &row.history).collect();
        put_histories(&mut params, &histories, ownership.unicode);
        tx.execute_typed(&update, &params.list()).await?;
    }
    Ok(())
}

pub(crate) async fn finish(
    tx: &Transaction<'_>,
    ownership: &StateOwnership,
    finished: &[BacklogDelivery],
) -> Result<(), StateError> {
    let delete = format!(
        "DELETE FROM walhook.backlog b
          USING {rows} AS r (endpoint, event_id)
          WHERE {OF_EVENT}",
        rows = looked_up(&["text", "text"]),
    );
    for chunk in chunks(finished, |_| 0) {
        let mut params = SqlParams::default();
        params.put(Type::TEXT, ownership.slot.as_ref());
        params.column(Type::TEXT_ARRAY, chunk.iter().map(|row| &*row.endpoint));
        params.column(Type::TEXT_ARRAY, chunk.iter().map(|row| row.event.to_string()));
        tx.execute_typed(&delete, &params.list()).await?;
    }
    Ok(())
}
