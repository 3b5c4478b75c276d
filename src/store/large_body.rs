//! Large bodies on their way into the state and out again: in pieces.
//!
//! A row of 100 MB in one message would be in memory several times, here and in the driver, whose
//! buffers stay as large. Going in, the pieces gather in `walhook.body_pieces`, and the statement that
//! writes the row joins them; all of it is one transaction. Coming out, the server cuts them.

use std::pin::pin;

use bytes::Bytes;
use futures_util::TryStreamExt;
use tokio_postgres::Client;
use tokio_postgres::Transaction;
use tokio_postgres::types::Type;

use crate::flow::body::EventBody;
use crate::store::body_codec;
use crate::store::body_codec::BodyError;
use crate::store::sql;
use crate::store::sql::SqlParams;
use crate::store::sql::bigint;
use crate::store::sql::read;
use crate::store::state_error::StateError;
use crate::store::stored_event;

/// A longer body goes in pieces. It is alone in its statement: see [`sql::chunks`].
pub(crate) const LARGE_BYTES: usize = sql::CHUNK_BYTES;

/// Of a body that comes out.
const PIECE_BYTES: usize = 1024 * 1024;

/// Whether a body of so many encoded bytes goes in pieces.
pub(crate) fn is_large(encoded: usize) -> bool {
    encoded > LARGE_BYTES
}

/// [`stored_event::COLUMNS`] as they are selected from the rows to be written: with the body from the
/// pieces, where it has gathered there.
pub(crate) fn selected(large: bool) -> String {
    let gathered = "(SELECT string_agg(piece, ''::bytea ORDER BY number)
                       FROM walhook.body_pieces WHERE slot = $1)";
    match (large, stored_event::COLUMNS.strip_suffix("body")) {
        (true, Some(others)) => format!("{others}{gathered}"),
        _ => stored_event::COLUMNS.to_owned(),
    }
}

/// Gathers a body.
pub(crate) async fn gather(
    tx: &Transaction<'_>,
    slot: &str,
    body: &EventBody,
) -> Result<(), StateError> {
    for (number, piece) in (0_i32..).zip(body_codec::pieces(body)) {
        let mut params = SqlParams::default();
        params.put(Type::TEXT, slot);
        params.put(Type::INT4, number);
        params.put(Type::BYTEA, piece);
        let insert = "INSERT INTO walhook.body_pieces (slot, number, piece) VALUES ($1, $2, $3)";
        tx.execute_typed(insert, &params.list()).await?;
    }
    Ok(())
}

/// Removes what was gathered: it is in its row.
pub(crate) async fn clear(tx: &Transaction<'_>, slot: &str) -> Result<(), StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    tx.execute_typed("DELETE FROM walhook.body_pieces WHERE slot = $1", &params.list()).await?;
    Ok(())
}

/// The body of a row of this table, which has so many bytes; `None` if the row is gone.
pub(crate) async fn fetch(
    client: &Client,
    table: &str,
    id: i64,
    bytes: usize,
) -> Result<Option<EventBody>, StateError> {
    let mut params = SqlParams::default();
    params.put(Type::INT8, id);
    params.put(Type::INT8, bigint(PIECE_BYTES as u64));
    // Put together once, by the inner query, and then cut.
    let query = format!(
        "SELECT piece FROM (SELECT body || ''::bytea AS body FROM {table} WHERE id = $1 OFFSET 0) AS whole
           CROSS JOIN LATERAL (
               SELECT substring(body FROM (n * $2 + 1)::int FOR $2::int) AS piece
                 FROM generate_series(0, (octet_length(body) - 1) / $2) AS n) AS pieces"
    );
    let rows = client.query_typed_raw(&query, params.list()).await?;
    let mut rows = pin!(rows);
    let mut whole = Vec::with_capacity(bytes);
    while let Some(row) = rows.try_next().await? {
        whole.extend_from_slice(read(&row, "piece")?);
    }
    if whole.is_empty() {
        return Ok(None);
    }
    let body = if whole.len() == bytes {
        body_codec::decode(Bytes::from(whole))
    } else {
        Err(BodyError::Short)
    };
    body.map(Some).map_err(|cause| StateError::unreadable("the body of an event", cause))
}
