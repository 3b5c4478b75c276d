//! The push log's days: partitions are made ahead of time and dropped when their time is over.
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
use crate::store::sql::Params;
use crate::store::sql::read;
use crate::store::state_error::StateError;

const DAY_MICROS: i64 = 86_400_000_000;

/// A day in UTC: days since the Unix epoch.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Day(i64);

impl Day {
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

    /// The name of the day's partition, without its schema.
    pub fn partition(self) -> String {
        self.format("push_log_%Y%m%d")
    }
}

/// As SQL writes a date.
impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.format("%Y-%m-%d"))
    }
}

/// Makes the partitions of today and tomorrow where they are missing; one read if they are there.
/// Returns the days that it made.
///
/// # Errors
/// That a statement failed.
pub async fn ensure_ahead(client: &mut Client, now: Timestamp) -> Result<Vec<Day>, StateError> {
    let today = Day::of(now);
    ensure(client, &BTreeSet::from([today, today.shifted(1)])).await
}

/// Makes the partitions of these days where they are missing.
///
/// # Errors
/// That a statement failed.
pub async fn ensure(client: &mut Client, days: &BTreeSet<Day>) -> Result<Vec<Day>, StateError> {
    let found = names(client).await?;
    let mut made = Vec::new();
    for &day in days.iter().filter(|day| !found.contains(&day.partition())) {
        if make(client, day).await? {
            made.push(day);
        }
    }
    Ok(made)
}

async fn make(client: &mut Client, day: Day) -> Result<bool, StateError> {
    let tx = begin(client).await?;
    let mut lock = Params::default();
    lock.put(Type::INT8, SCHEMA_LOCK);
    tx.execute_typed("SELECT pg_advisory_xact_lock($1)", &lock.list()).await?;
    if names(tx.client()).await?.contains(&day.partition()) {
        return Ok(false); // another walhook was quicker
    }
    let (name, next) = (day.partition(), day.shifted(1));
    tx.batch_execute(&format!(
        "CREATE TABLE walhook.{name} (LIKE walhook.push_log INCLUDING DEFAULTS);
         ALTER TABLE walhook.push_log ATTACH PARTITION walhook.{name}
             FOR VALUES FROM ('{day} 00:00+00') TO ('{next} 00:00+00');"
    ))
    .await?;
    tx.commit().await?;
    Ok(true)
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
    let first_kept = Day::of(now).shifted(-i64::from(keep)).partition();
    let mut dropped = Vec::new();
    // Names of days sort as the days do.
    for name in names(client).await?.into_iter().filter(|name| *name < first_kept) {
        match attachment(client, &name).await? {
            Attachment::Attached => {
                let detach = format!(
                    "ALTER TABLE walhook.push_log DETACH PARTITION walhook.{name} CONCURRENTLY"
                );
                client.batch_execute(&detach).await?;
            }
            // Somebody died in the middle of it.
            Attachment::Leaving => {
                let detach = format!(
                    "ALTER TABLE walhook.push_log DETACH PARTITION walhook.{name} FINALIZE"
                );
                client.batch_execute(&detach).await?;
            }
            Attachment::Loose => {}
        }
        client.batch_execute(&format!("DROP TABLE IF EXISTS walhook.{name}")).await?;
        dropped.push(name);
    }
    Ok(dropped)
}

enum Attachment {
    Attached,
    Leaving,
    Loose,
}

async fn attachment(client: &Client, name: &str) -> Result<Attachment, StateError> {
    let mut params = Params::default();
    params.put(Type::TEXT, format!("walhook.{name}"));
    let row = client
        .query_typed_opt(
            "SELECT inhdetachpending FROM pg_inherits
              WHERE inhrelid = to_regclass($1) AND inhparent = 'walhook.push_log'::regclass",
            &params.list(),
        )
        .await?;
    Ok(match row {
        None => Attachment::Loose,
        Some(row) if read(&row, "inhdetachpending")? => Attachment::Leaving,
        Some(_) => Attachment::Attached,
    })
}

/// The tables that are named like a day's partition, attached or not.
async fn names(client: &Client) -> Result<BTreeSet<String>, StateError> {
    let rows = client
        .query_typed(
            "SELECT relname::text AS name FROM pg_class
              WHERE relnamespace = 'walhook'::regnamespace AND relkind = 'r'
                AND relname ~ '^push_log_[0-9]{8}$'",
            &[],
        )
        .await?;
    rows.iter().map(|row| read(row, "name")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_cut_at_midnight_utc() {
        let cases = [
            (0, "push_log_19700101", "1970-01-01"),
            (-1, "push_log_19691231", "1969-12-31"),
            (1_763_769_599_999_999, "push_log_20251121", "2025-11-21"),
            (1_763_769_600_000_000, "push_log_20251122", "2025-11-22"),
            (i64::MAX, "push_log_99991231", "9999-12-31"),
            (i64::MIN, "push_log_00010101", "0001-01-01"),
        ];
        for (micros, name, date) in cases {
            let day = Day::of(Timestamp::from_micros(micros));
            assert_eq!((day.partition().as_str(), day.to_string().as_str()), (name, date));
        }
        assert_eq!(Day::of(Timestamp::default()).shifted(31).to_string(), "1970-02-01");
    }
}
