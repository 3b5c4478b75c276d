//! The table of write-backs: how many endpoints have an outcome, and what is still to be written.
//!
//! ```text
//! flush ─ OutcomeTally ─▶ [count] ─ complete ─▶ [due] ─▶ ledger::write_back ─▶ [written] | [failed]
//!          resends ─▶ [resent] ──────────▲
//! ```
//!
//! Counting belongs to the flush that commits the outcomes, so it counts once; writing is a
//! transaction of its own, whose to-do is the row. A row whose event has dead letters stays, so
//! that a resend can still turn it to the better.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use serde_json::json;
use tokio_postgres::Client;
use tokio_postgres::Row;
use tokio_postgres::Transaction;
use tokio_postgres::types::Type;

use crate::flow::event::EventId;
use crate::flow::key::KeyHash;
use crate::flow::relation::TableName;
use crate::flow::write_back::TargetRow;
use crate::store::ownership::StateOwnership;
use crate::store::resend::EndedLetter;
use crate::store::resend::ResentLetter;
use crate::store::session::prepared_statements::StateTransaction;
use crate::store::sql::SqlParams;
use crate::store::sql::chunks;
use crate::store::sql::int;
use crate::store::sql::looked_up;
use crate::store::sql::read;
use crate::store::state_error::StateError;
use crate::store::stored_event::read_table;

/// Dead letters that may still be delivered, found by the event and not by the slot, which all of them may have.
const OPEN_LETTERS: &str = "EXISTS (SELECT FROM walhook.dead_letters d
     WHERE d.slot || '' = w.slot AND d.event_id = w.event_id
       AND d.state IN ('dead', 'requested', 'resending'))";

/// What became of an event since the last flush.
#[derive(Clone, Debug)]
pub struct OutcomeTally {
    pub event: EventId,
    pub event_type: Arc<str>,
    pub table: Arc<TableName>,
    /// `None` for an event that was parked: its row is in the table since then.
    pub target: Option<TargetRow>,
    pub delivered: u32,
    pub failed: u32,
}

/// A write-back to do.
#[derive(Clone, Debug)]
pub(crate) struct DueWriteBack {
    pub event: EventId,
    pub event_type: Arc<str>,
    pub table: TableName,
    pub target: TargetRow,
    /// Whether every endpoint took the event.
    pub delivered: bool,
    /// Tries that failed.
    pub tries: u32,
}

/// What is left to do.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct WriteBackOutlook {
    /// Write-backs whose last try failed.
    pub failing: u64,
    /// Until the next one is due; `None` if there is none.
    pub next: Option<Duration>,
}

pub(crate) async fn count(
    tx: &StateTransaction<'_>,
    ownership: &StateOwnership,
    tallies: &[OutcomeTally],
) -> Result<(), StateError> {
    let known = tallies.iter().filter_map(|tally| Some((tally, tally.target.as_ref()?)));
    let known: Vec<(&OutcomeTally, &TargetRow)> = known.collect();
    for chunk in chunks(&known, |(_, row)| row.held_bytes()) {
        let targets = || chunk.iter().copied();
        let mut params = counts(ownership, targets().map(|(tally, _)| tally));
        params.column(Type::TEXT_ARRAY, targets().map(|(tally, _)| &*tally.event_type));
        params.column(Type::TEXT_ARRAY, targets().map(|(tally, _)| tally.table.schema.as_str()));
        params.column(Type::TEXT_ARRAY, targets().map(|(tally, _)| tally.table.name.as_str()));
        params.column(Type::INT8_ARRAY, targets().map(|(tally, row)| row_id(&tally.table, row)));
        params.column(Type::TEXT_ARRAY, targets().map(|(_, row)| encode(row)));
        params.column(Type::INT4_ARRAY, targets().map(|(_, row)| int(row.owed)));
        tx.execute(
            "INSERT INTO walhook.write_backs AS w (slot, event_id, delivered, failed, event_type,
                    table_schema, table_name, row_id, target, owed, due_at)
             SELECT $1, event_id, delivered, failed, event_type, table_schema, table_name, row_id,
                    target::json, owed, CASE WHEN delivered + failed >= owed THEN now() END
               FROM unnest($2::text[], $3::integer[], $4::integer[], $5::text[], $6::text[],
                           $7::text[], $8::bigint[], $9::text[], $10::integer[])
                    AS r (event_id, delivered, failed, event_type, table_schema, table_name,
                          row_id, target, owed)
             ON CONFLICT (slot, event_id) DO UPDATE
                SET owed = greatest(w.owed, excluded.owed),
                    delivered = w.delivered + excluded.delivered,
                    failed = w.failed + excluded.failed,
                    due_at = CASE WHEN w.delivered + w.failed + excluded.delivered
                        + excluded.failed >= greatest(w.owed, excluded.owed)
                        THEN coalesce(w.due_at, now()) END",
            &params,
        )
        .await?;
    }
    let parked: Vec<&OutcomeTally> =
        tallies.iter().filter(|tally| tally.target.is_none()).collect();
    let update = format!(
        "UPDATE walhook.write_backs w
            SET delivered = w.delivered + r.delivered, failed = w.failed + r.failed,
                due_at = CASE WHEN w.delivered + w.failed + r.delivered + r.failed >= w.owed
                    THEN coalesce(w.due_at, now()) END
           FROM {rows} AS r (event_id, delivered, failed)
          WHERE w.slot = $1 AND w.event_id = r.event_id",
        rows = looked_up(&["text", "integer", "integer"]),
    );
    for chunk in chunks(&parked, |_| 0) {
        let params = counts(ownership, chunk.iter().copied());
        tx.execute_typed(&update, &params.list()).await?;
    }
    Ok(())
}

fn counts<'a>(
    ownership: &'a StateOwnership,
    tallies: impl Iterator<Item = &'a OutcomeTally> + Clone,
) -> SqlParams<'a> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, ownership.slot.as_ref());
    params.column(Type::TEXT_ARRAY, tallies.clone().map(|tally| tally.event.to_string()));
    params.column(Type::INT4_ARRAY, tallies.clone().map(|tally| int(tally.delivered)));
    params.column(Type::INT4_ARRAY, tallies.map(|tally| int(tally.failed)));
    params
}

/// Counts dead letters that were delivered after all. To be sent after they are closed.
pub(crate) async fn resent(
    tx: &Transaction<'_>,
    ownership: &StateOwnership,
    resent: &[ResentLetter],
) -> Result<(), StateError> {
    let delivered = resent.iter().filter(|row| row.ended == EndedLetter::Delivered);
    let letters: Vec<i64> = delivered.map(|row| row.letter.0).collect();
    if letters.is_empty() {
        return Ok(());
    }
    let mut params = SqlParams::default();
    params.put(Type::TEXT, ownership.slot.as_ref());
    params.put(Type::INT8_ARRAY, letters);
    tx.execute_typed(
        "UPDATE walhook.write_backs w
            SET delivered = w.delivered + l.letters, failed = w.failed - l.letters,
                due_at = CASE WHEN w.failed <= l.letters AND w.delivered + w.failed >= w.owed
                    THEN coalesce(w.due_at, now()) ELSE w.due_at END
           FROM (SELECT event_id, count(*)::integer AS letters FROM walhook.dead_letters
                  WHERE slot = $1 AND id = ANY ($2) AND state = 'delivered'
                  GROUP BY event_id) l
          WHERE w.slot = $1 AND w.event_id = l.event_id AND w.failed >= l.letters",
        &params.list(),
    )
    .await?;
    Ok(())
}

/// Write-backs that are due, at most `rows`, and locks them. Of each row of a table only the
/// oldest; `only` asks for a single one.
pub(crate) async fn due(
    tx: &Transaction<'_>,
    slot: &str,
    only: Option<EventId>,
    rows: i64,
) -> Result<Vec<DueWriteBack>, StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    params.put(Type::INT8, rows);
    params.put(Type::TEXT, only.map(|id| id.to_string()));
    let found = tx
        .query_typed(
            "SELECT event_id, event_type, table_schema, table_name, target::text AS target, owed,
                    failed = 0 AS all_took, tries
               FROM walhook.write_backs w
              WHERE slot = $1 AND due_at <= now() AND ($3::text IS NULL OR event_id = $3)
                AND NOT EXISTS (SELECT FROM walhook.write_backs o
                     WHERE o.slot = w.slot AND o.row_id = w.row_id AND o.event_id < w.event_id
                       AND o.due_at IS NOT NULL)
              ORDER BY due_at LIMIT $2 FOR UPDATE SKIP LOCKED",
            &params.list(),
        )
        .await?;
    found.iter().map(read_due).collect()
}

fn read_due(row: &Row) -> Result<DueWriteBack, StateError> {
    let event = read::<&str>(row, "event_id")?
        .parse()
        .map_err(|cause| StateError::unreadable("write_backs", cause))?;
    let target = decode(read(row, "target")?, read(row, "owed")?);
    Ok(DueWriteBack {
        event,
        event_type: read::<&str>(row, "event_type")?.into(),
        table: read_table(row)?,
        target: target.ok_or_else(|| {
            StateError::unreadable("write_backs", "the target is no key with values")
        })?,
        delivered: read(row, "all_took")?,
        tries: read::<i32>(row, "tries")?.unsigned_abs(),
    })
}

/// These are done; in the transaction that has locked them.
pub(crate) async fn written(
    tx: &Transaction<'_>,
    slot: &str,
    events: &[EventId],
) -> Result<(), StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    params.column(Type::TEXT_ARRAY, events.iter().map(ToString::to_string));
    let gone = format!(
        "DELETE FROM walhook.write_backs w
          WHERE slot = $1 AND event_id = ANY ($2) AND NOT (failed > 0 AND {OPEN_LETTERS})"
    );
    let kept = "UPDATE walhook.write_backs
            SET written = CASE WHEN failed = 0 THEN 'delivered' ELSE 'failed' END,
                due_at = NULL, tries = 0, last_error = NULL
          WHERE slot = $1 AND event_id = ANY ($2)";
    tx.execute_typed(&gone, &params.list()).await?;
    tx.execute_typed(kept, &params.list()).await?;
    Ok(())
}

/// This one could not be written, and is due again after `wait`.
pub(crate) async fn failed(
    client: &Client,
    slot: &str,
    event: EventId,
    error: &str,
    wait: Duration,
) -> Result<(), StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    params.put(Type::TEXT, event.to_string());
    params.put(Type::TEXT, ascii(error));
    params.put(Type::FLOAT8, wait.as_secs_f64());
    client
        .execute_typed(
            "UPDATE walhook.write_backs
                SET tries = tries + 1, last_error = $3, due_at = now() + $4 * interval '1 second'
              WHERE slot = $1 AND event_id = $2 AND due_at IS NOT NULL",
            &params.list(),
        )
        .await?;
    Ok(())
}

/// What is left to do.
pub(crate) async fn outlook(client: &Client, slot: &str) -> Result<WriteBackOutlook, StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    let row = client
        .query_typed_one(
            "SELECT count(*) FILTER (WHERE tries > 0) AS failing,
                    extract(epoch FROM min(due_at) - now())::float8 AS next
               FROM walhook.write_backs WHERE slot = $1 AND due_at IS NOT NULL",
            &params.list(),
        )
        .await?;
    let next: Option<f64> = read(&row, "next")?;
    Ok(WriteBackOutlook {
        failing: read::<i64>(&row, "failing")?.unsigned_abs(),
        next: next.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default()),
    })
}

/// Completes what nobody owes any more although not every endpoint has an outcome: an endpoint that
/// was removed never gets one. Forgets what can change no more.
pub(crate) async fn sweep(client: &Client, slot: &str) -> Result<(), StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    let final_ones = format!(
        "DELETE FROM walhook.write_backs w
          WHERE slot = $1 AND written IS NOT NULL AND due_at IS NULL AND NOT {OPEN_LETTERS}"
    );
    client.execute_typed(&final_ones, &params.list()).await?;
    // Ids sort by position: the last one that an event at the settled position could have.
    let orphans = "w.slot = $1 AND w.written IS NULL AND w.due_at IS NULL
            AND w.event_id <= (SELECT 'evt_' ||
                    lpad(to_hex((settled_lsn - '0/0'::pg_lsn)::bigint), 16, '0') ||
                    lpad(to_hex(settled_ordinal::bigint), 8, '0') || repeat('f', 16)
                FROM walhook.progress WHERE slot = $1 AND partition = 0)
            AND NOT EXISTS (SELECT FROM walhook.backlog b
                WHERE b.slot = w.slot AND b.event_id = w.event_id)";
    let empty =
        format!("DELETE FROM walhook.write_backs w WHERE {orphans} AND delivered + failed = 0");
    let complete = format!(
        "UPDATE walhook.write_backs w SET owed = delivered + failed, due_at = now()
          WHERE {orphans}"
    );
    client.execute_typed(&empty, &params.list()).await?;
    client.execute_typed(&complete, &params.list()).await?;
    Ok(())
}

fn row_id(table: &TableName, row: &TargetRow) -> i64 {
    let table = [Some(table.schema.as_bytes()), Some(table.name.as_bytes())];
    let value = |column: &Arc<str>| row.value(column).flatten().map(str::as_bytes);
    KeyHash::of(table.into_iter().chain(row.key.iter().map(value))).raw().cast_signed()
}

fn encode(row: &TargetRow) -> String {
    let values: serde_json::Map<String, Value> = row
        .values
        .iter()
        .map(|(name, value)| (name.to_string(), value.clone().map_or(Value::Null, Value::String)))
        .collect();
    let key: Vec<&str> = row.key.iter().map(|column| &**column).collect();
    ascii(&json!({ "key": key, "values": values }).to_string())
}

/// Everything beyond ASCII as JSON escapes it: the database of the state may have no place for it.
fn ascii(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut units = [0; 2];
    for c in text.chars() {
        match c {
            '\0' => out.push_str("\\u0000"),
            c if c.is_ascii() => out.push(c),
            c => {
                for unit in c.encode_utf16(&mut units) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    out
}

fn decode(text: &str, owed: i32) -> Option<TargetRow> {
    let json: Value = serde_json::from_str(text).ok()?;
    let key = json.get("key")?.as_array()?.iter();
    let key = key.map(|column| column.as_str().map(Arc::from)).collect::<Option<_>>()?;
    let value = |(name, value): (&String, &Value)| {
        (Arc::from(name.as_str()), value.as_str().map(ToOwned::to_owned))
    };
    let values = json.get("values")?.as_object()?.iter().map(value).collect();
    Some(TargetRow { key, values, owed: owed.unsigned_abs() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_target_reads_back_as_it_was_and_is_plain_ascii(
            names in prop::collection::hash_set("[a-z\"张]{1,4}", 1..4),
            text: Option<String>,
        ) {
            let names: Vec<Arc<str>> = names.iter().map(|name| Arc::from(name.as_str())).collect();
            let mut values: Vec<_> = names.iter().map(|n| (Arc::clone(n), text.clone())).collect();
            values.sort();
            let row = TargetRow { key: names, values, owed: 3 };
            let encoded = encode(&row);
            prop_assert!(encoded.is_ascii() && !encoded.contains('\0'));
            prop_assert_eq!(decode(&encoded, 3), Some(row));
        }
    }
}
