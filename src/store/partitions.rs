//! The push log's days: partitions are made ahead of time and dropped when their time is over.
//!
//! Each of the push log's [`TABLES`] has one for each day, `push_log_events_20251122` and
//! `push_log_batches_20251122`, and they come and go together.
//!
//! A partition is made beside the push log and then attached, and detached before it is dropped:
//! unlike `CREATE TABLE ... PARTITION OF` and `DROP TABLE`, that does not wait for readers of the
//! push log, nor make its writers wait.

use std::collections::BTreeSet;
use std::fmt;

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::flow::time::Timestamp;
use crate::store::migrate::SCHEMA_LOCK;
use crate::store::progress::begin;
use crate::store::sql::SqlParams;
use crate::store::sql::read;
use crate::store::state_error::StateError;

const DAY_MICROS: i64 = 86_400_000_000;

/// The tables behind the view `walhook.push_log`.
const TABLES: [&str; 2] = [BATCHES, "push_log_events"];
const BATCHES: &str = "push_log_batches";

/// A row of 100 events is about 7 KB, and stays in its page as it is: to compress it, and to put aside
/// what is left, costs PostgreSQL as much again as to write it, and the walsender more. What elements
/// the arrays have in common is of no use to anybody, and takes ANALYZE seconds to find out.
const BATCHES_STORAGE: &str = "SET (toast_tuple_target = 8160), \
                               ALTER event_ids SET STATISTICS 0, ALTER row_keys SET STATISTICS 0";

/// A day in UTC: days since the Unix epoch.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PartitionDay(i64);

impl PartitionDay {
    /// The day of `time`. A time that no calendar shows is taken for the nearest day that one does.
    pub fn of(time: Timestamp) -> Self {
        // 0001-01-01 and 9999-12-31.
        Self(time.micros().div_euclid(DAY_MICROS).clamp(-719_162, 2_932_896))
    }

    fn shifted(self, days: i64) -> Self {
        Self::of(Timestamp::from_micros(self.0.saturating_add(days).saturating_mul(DAY_MICROS)))
    }

    fn format(self, format: &str) -> String {
        let time = chrono::DateTime::from_timestamp_micros(self.0.saturating_mul(DAY_MICROS));
        time.unwrap_or_default().format(format).to_string()
    }

    /// The day's partition of `table`.
    fn partition(self, table: &'static str) -> LogPartition {
        LogPartition { day: self.format("%Y%m%d"), table }
    }
}

/// As SQL writes a date.
impl fmt::Display for PartitionDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.format("%Y-%m-%d"))
    }
}

/// A partition of one of the [`TABLES`]. They sort by day.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct LogPartition {
    /// As `YYYYMMDD`.
    day: String,
    table: &'static str,
}

/// Its name, without its schema.
impl fmt::Display for LogPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", self.table, self.day)
    }
}

/// Makes the partitions of today and tomorrow where they are missing; one read if they are there.
/// Returns the days that it made.
///
/// # Errors
/// That a statement failed.
pub async fn ensure_ahead(
    client: &mut Client,
    now: Timestamp,
) -> Result<Vec<PartitionDay>, StateError> {
    let today = PartitionDay::of(now);
    ensure(client, &BTreeSet::from([today, today.shifted(1)])).await
}

/// Makes the partitions of these days where they are missing.
///
/// # Errors
/// That a statement failed.
pub(crate) async fn ensure(
    client: &mut Client,
    days: &BTreeSet<PartitionDay>,
) -> Result<Vec<PartitionDay>, StateError> {
    let found = partitions(client).await?;
    let mut made = Vec::new();
    for &day in days {
        let is_there = TABLES.iter().all(|table| found.contains(&day.partition(table)));
        if !is_there && make(client, day).await? {
            made.push(day);
        }
    }
    Ok(made)
}

/// Returns whether there was anything to make.
async fn make(client: &mut Client, day: PartitionDay) -> Result<bool, StateError> {
    let tx = begin(client).await?;
    let mut lock = SqlParams::default();
    lock.put(Type::INT8, SCHEMA_LOCK);
    tx.execute_typed("SELECT pg_advisory_xact_lock($1)", &lock.list()).await?;
    let found = partitions(tx.client()).await?; // another walhook may have been quicker
    let next = day.shifted(1);
    let missing: Vec<LogPartition> = TABLES
        .iter()
        .map(|table| day.partition(table))
        .filter(|partition| !found.contains(partition))
        .collect();
    for partition in &missing {
        let table = partition.table;
        tx.batch_execute(&format!(
            "CREATE TABLE walhook.{partition} (LIKE walhook.{table} INCLUDING DEFAULTS);"
        ))
        .await?;
        if table == BATCHES {
            tx.batch_execute(&format!("ALTER TABLE walhook.{partition} {BATCHES_STORAGE}")).await?;
        }
        tx.batch_execute(&format!(
            "ALTER TABLE walhook.{table} ATTACH PARTITION walhook.{partition}
                 FOR VALUES FROM ('{day} 00:00+00') TO ('{next} 00:00+00')"
        ))
        .await?;
    }
    tx.commit().await?;
    Ok(!missing.is_empty())
}

/// Drops the partitions of days before the last `keep` whole days; today is kept in any case.
/// Returns their names.
///
/// Waits for transactions that still read the push log: to be called where nothing waits for it, on
/// a session of its own.
///
/// # Errors
/// That a statement failed; the next call goes on from there.
pub async fn drop_old(
    client: &Client,
    now: Timestamp,
    keep: u32,
) -> Result<Vec<String>, StateError> {
    let first_kept = PartitionDay::of(now).shifted(-i64::from(keep)).format("%Y%m%d");
    let mut dropped = Vec::new();
    // Days as they are written here sort as the days do.
    for partition in partitions(client).await?.into_iter().filter(|p| p.day < first_kept) {
        let table = partition.table;
        let detach = match attachment(client, &partition).await? {
            PartitionAttachment::Attached => Some("CONCURRENTLY"),
            // A walhook died in the middle of it.
            PartitionAttachment::Leaving => Some("FINALIZE"),
            PartitionAttachment::Loose => None,
        };
        if let Some(how) = detach {
            let detach =
                format!("ALTER TABLE walhook.{table} DETACH PARTITION walhook.{partition} {how}");
            client.batch_execute(&detach).await?;
        }
        client.batch_execute(&format!("DROP TABLE IF EXISTS walhook.{partition}")).await?;
        dropped.push(partition.to_string());
    }
    Ok(dropped)
}

enum PartitionAttachment {
    Attached,
    Leaving,
    Loose,
}

async fn attachment(
    client: &Client,
    partition: &LogPartition,
) -> Result<PartitionAttachment, StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, format!("walhook.{partition}"));
    params.put(Type::TEXT, format!("walhook.{}", partition.table));
    let row = client
        .query_typed_opt(
            "SELECT inhdetachpending FROM pg_inherits
              WHERE inhrelid = to_regclass($1) AND inhparent = to_regclass($2)",
            &params.list(),
        )
        .await?;
    Ok(match row {
        None => PartitionAttachment::Loose,
        Some(row) if read(&row, "inhdetachpending")? => PartitionAttachment::Leaving,
        Some(_) => PartitionAttachment::Attached,
    })
}

/// The tables that are named like a day's partition, attached or not.
async fn partitions(client: &Client) -> Result<BTreeSet<LogPartition>, StateError> {
    let rows = client
        .query_typed(
            "SELECT relname::text AS name FROM pg_class
              WHERE relnamespace = 'walhook'::regnamespace AND relkind = 'r'
                AND relname ~ '^push_log_(batches|events)_[0-9]{8}$'",
            &[],
        )
        .await?;
    let mut found = BTreeSet::new();
    for row in &rows {
        let name: &str = read(row, "name")?;
        found.extend(TABLES.iter().filter_map(|table| {
            let day = name.strip_prefix(table)?.strip_prefix('_')?.to_owned();
            Some(LogPartition { day, table })
        }));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_cut_at_midnight_utc() {
        let cases = [
            (0, "push_log_events_19700101", "1970-01-01"),
            (-1, "push_log_events_19691231", "1969-12-31"),
            (1_763_769_599_999_999, "push_log_events_20251121", "2025-11-21"),
            (1_763_769_600_000_000, "push_log_events_20251122", "2025-11-22"),
            (i64::MAX, "push_log_events_99991231", "9999-12-31"),
            (i64::MIN, "push_log_events_00010101", "0001-01-01"),
        ];
        for (micros, name, date) in cases {
            let day = PartitionDay::of(Timestamp::from_micros(micros));
            let partition = day.partition("push_log_events");
            assert_eq!((partition.to_string().as_str(), day.to_string().as_str()), (name, date));
        }
        assert_eq!(PartitionDay::of(Timestamp::default()).shifted(31).to_string(), "1970-02-01");
    }
}
