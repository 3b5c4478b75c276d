//! `walhook.backfill_moves`: rows that have got another key while a backfill reads their table.
//!
//! Written by the flush that settles their changes at the latest, so that none is forgotten, whatever ends walhook.

use tokio_postgres::Client;
use tokio_postgres::Row;
use tokio_postgres::Transaction;
use tokio_postgres::types::Type;

use crate::flow::backfill::BackfillId;
use crate::flow::backfill::BackfillStep;
use crate::flow::backfill::MovedRow;
use crate::flow::lsn::Lsn;
use crate::flow::lsn::Position;
use crate::flow::relation::TableName;
use crate::store::ownership::StateOwnership;
use crate::store::sql::SqlParams;
use crate::store::sql::chunks;
use crate::store::sql::read;
use crate::store::sql::unsigned;
use crate::store::state_error::StateError;

/// The backfills whose rows must not move unseen: all by key that may go on, with their tables.
///
/// # Errors
/// That the rows could not be read.
pub(crate) async fn watched(
    client: &Client,
    slot: &str,
) -> Result<Vec<(BackfillId, TableName)>, StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    let query = "SELECT id, table_schema, table_name FROM walhook.backfills
          WHERE slot = $1 AND read_by = 'key' AND state IN ('running', 'paused', 'failed')";
    let rows = client.query_typed(query, &params.list()).await?;
    let one = |row: &Row| -> Result<_, StateError> {
        let (schema, name): (&str, &str) = (read(row, "table_schema")?, read(row, "table_name")?);
        Ok((BackfillId(read(row, "id")?), TableName::new(schema, name)))
    };
    rows.iter().map(one).collect()
}

/// The first ones, in the order of the stream, after one of them and up to a place of it.
///
/// # Errors
/// That the rows could not be read.
pub(crate) async fn first(
    client: &Client,
    id: BackfillId,
    (after, up_to): (Option<Position>, Lsn),
    limit: u32,
) -> Result<Vec<MovedRow>, StateError> {
    let after = after.unwrap_or(Position { commit: Lsn::ZERO, ordinal: 0 });
    let mut params = SqlParams::default();
    params.put(Type::INT8, id.0);
    params.put(Type::PG_LSN, up_to);
    params.put(Type::INT8, i64::from(limit));
    params.put(Type::PG_LSN, after.commit);
    params.put(Type::INT8, i64::from(after.ordinal));
    let query = "SELECT commit_lsn, ordinal, xid, row_key, old_key FROM walhook.backfill_moves
          WHERE backfill = $1 AND commit_lsn <= $2 AND (commit_lsn, ordinal) > ($4, $5)
          ORDER BY commit_lsn, ordinal LIMIT $3";
    let rows = client.query_typed(query, &params.list()).await?;
    rows.iter().map(|row| stored(id, row)).collect()
}

fn stored(backfill: BackfillId, row: &Row) -> Result<MovedRow, StateError> {
    let key = |column| {
        serde_json::from_str(read(row, column)?)
            .map_err(|error| StateError::unreadable("a row with another key", error))
    };
    let (key, old_key) = (key("row_key")?, key("old_key")?);
    let position =
        Position { commit: read(row, "commit_lsn")?, ordinal: unsigned(row, "ordinal")? };
    Ok(MovedRow { backfill, position, xid: unsigned(row, "xid")?, key, old_key })
}

/// As JSON that every database takes, whatever its encoding.
fn in_ascii(key: &[String]) -> String {
    let mut text = String::new();
    for c in serde_json::Value::from(key).to_string().chars() {
        match c.is_ascii() {
            true => text.push(c),
            false => {
                let units = c.encode_utf16(&mut [0; 2]).to_vec();
                text.extend(units.iter().map(|unit| format!("\\u{unit:04x}")));
            }
        }
    }
    text
}

/// Notes those of backfills that are not over.
pub(crate) async fn add(
    tx: &Transaction<'_>,
    ownership: &StateOwnership,
    rows: &[MovedRow],
) -> Result<(), StateError> {
    for chunk in chunks(rows, |row| row.key.iter().chain(&row.old_key).map(String::len).sum()) {
        let mut params = SqlParams::default();
        params.put(Type::TEXT, ownership.slot.as_ref());
        params.column(Type::INT8_ARRAY, chunk.iter().map(|row| row.backfill.0));
        params.column(Type::PG_LSN_ARRAY, chunk.iter().map(|row| row.position.commit));
        params.column(Type::INT8_ARRAY, chunk.iter().map(|row| i64::from(row.position.ordinal)));
        params.column(Type::INT8_ARRAY, chunk.iter().map(|row| i64::from(row.xid)));
        params.column(Type::TEXT_ARRAY, chunk.iter().map(|row| in_ascii(&row.key)));
        params.column(Type::TEXT_ARRAY, chunk.iter().map(|row| in_ascii(&row.old_key)));
        tx.execute_typed(
            "INSERT INTO walhook.backfill_moves (backfill, commit_lsn, ordinal, xid, row_key, old_key)
             SELECT r.* FROM unnest($2::bigint[], $3::pg_lsn[], $4::bigint[], $5::bigint[], $6::text[],
                    $7::text[])
                 AS r (backfill, commit_lsn, ordinal, xid, row_key, old_key)
               JOIN walhook.backfills b ON b.id = r.backfill
              WHERE b.slot = $1 AND b.state IN ('running', 'paused', 'failed')
             ON CONFLICT DO NOTHING",
            &params.list(),
        )
        .await?;
    }
    Ok(())
}

/// Forgets those that a step has looked for.
pub(crate) async fn passed(tx: &Transaction<'_>, step: &BackfillStep) -> Result<(), StateError> {
    let Some(moved) = step.moved else { return Ok(()) };
    let mut params = SqlParams::default();
    params.put(Type::INT8, step.id.0);
    params.put(Type::PG_LSN, moved.commit);
    params.put(Type::INT8, i64::from(moved.ordinal));
    tx.execute_typed(
        "DELETE FROM walhook.backfill_moves
          WHERE backfill = $1 AND (commit_lsn, ordinal) <= ($2, $3)",
        &params.list(),
    )
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back_from_ascii() {
        let key = ["é\"\\", "", "\u{1F600}{1,2}"].map(ToOwned::to_owned);
        let text = in_ascii(&key);
        assert!(text.is_ascii(), "{text}");
        assert_eq!(serde_json::from_str::<Vec<String>>(&text).expect("it is JSON"), key);
    }
}
