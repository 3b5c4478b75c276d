//! Inserts the dead letters of a flush.

use tokio_postgres::Transaction;
use tokio_postgres::types::Type;

use crate::store::body_codec;
use crate::store::body_codec::STORED_BYTES_MAX;
use crate::store::dead_letters::DeadLetter;
use crate::store::large_body;
use crate::store::ownership::StateOwnership;
use crate::store::sql::SqlParams;
use crate::store::sql::chunks;
use crate::store::sql::clean;
use crate::store::sql::int;
use crate::store::state_error::StateError;
use crate::store::stored_event;
use crate::store::stored_event::StoredSubject;

pub(crate) async fn insert(
    tx: &Transaction<'_>,
    ownership: &StateOwnership,
    letters: &[DeadLetter],
) -> Result<(), StateError> {
    let rest = "endpoint, reason, failure_class, http_status, attempts, first_attempt_at, \
                last_attempt_at, died_at";
    let event = stored_event::COLUMNS;
    // A letter twice in one statement: the last one counts, and one statement may not change a row
    // twice. Then in the order in which they died.
    let insert = |selected: &str| {
        format!(
            "INSERT INTO walhook.dead_letters AS d (slot, {event}, {rest})
         SELECT $1, {selected}, {rest} FROM (
             SELECT DISTINCT ON (event_id, endpoint) *
               FROM unnest({arrays}, $16::text[], $17::text[], $18::text[], $19::int[],
                           $20::int[], $21::timestamptz[], $22::timestamptz[],
                           $23::timestamptz[])
                    WITH ORDINALITY AS rows ({event}, {rest}, number)
              ORDER BY event_id, endpoint, number DESC
         ) AS letters ORDER BY number
         ON CONFLICT (slot, endpoint, event_id) DO UPDATE
            SET reason = excluded.reason, failure_class = excluded.failure_class,
                http_status = excluded.http_status, attempts = d.attempts + excluded.attempts,
                first_attempt_at = least(d.first_attempt_at, excluded.first_attempt_at),
                last_attempt_at = coalesce(excluded.last_attempt_at, d.last_attempt_at),
                died_at = excluded.died_at, state = 'dead', closed_at = NULL",
            arrays = stored_event::ARRAYS,
        )
    };
    for chunk in chunks(letters, |row| body_codec::encoded_len(&row.event.body)) {
        // One that could not be rendered has no body to send again.
        let kept = |row: &DeadLetter| match row.event.body.parts() {
            [] => None,
            _ if large_body::is_large(body_codec::encoded_len(&row.event.body)) => None,
            _ => body_codec::encode(&row.event.body),
        };
        let bodies = chunk.iter().map(kept).collect();
        let length = |row: &DeadLetter| body_codec::encoded_len(&row.event.body);
        let large = match chunk {
            [row] if large_body::is_large(length(row)) && length(row) <= STORED_BYTES_MAX => {
                Some(&row.event.body)
            }
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
        let reasons = chunk.iter().map(|row| clean(&row.reason, ownership.unicode));
        params.column(Type::TEXT_ARRAY, reasons);
        params.column(Type::TEXT_ARRAY, chunk.iter().map(|row| row.class.as_str()));
        params.column(Type::INT4_ARRAY, chunk.iter().map(|row| row.status.map(i32::from)));
        params.column(Type::INT4_ARRAY, chunk.iter().map(|row| int(row.attempts)));
        params.column(Type::TIMESTAMPTZ_ARRAY, chunk.iter().map(|row| row.first_attempt));
        params.column(Type::TIMESTAMPTZ_ARRAY, chunk.iter().map(|row| row.last_attempt));
        params.column(Type::TIMESTAMPTZ_ARRAY, chunk.iter().map(|row| row.died_at));
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
