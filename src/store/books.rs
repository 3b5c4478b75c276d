//! The books: what became of the deliveries of each table and endpoint, through restarts.
//!
//! `captured = delivered + filtered + expired + dead + pending`. What is pending is not stored: it
//! is what the other numbers leave. The ledger adds to the books in the transaction of its flush, so
//! they are true after every kill: what was not flushed was not captured either, as it comes again.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::ops::AddAssign;
use std::ops::Neg;
use std::sync::Arc;

use tokio_postgres::Client;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::flow::relation::TableName;
use crate::store::ownership::StateOwnership;
use crate::store::session::prepared_statements::StateTransaction;
use crate::store::sql::SqlParams;
use crate::store::sql::chunks;
use crate::store::sql::read;
use crate::store::state_error::StateError;
use crate::store::stored_event;

/// One line of the books, or what is added to it. Signed: a dead letter that is sent again is dead
/// no more.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct BookCount {
    pub captured: i64,
    pub delivered: i64,
    pub filtered: i64,
    pub expired: i64,
    pub dead: i64,
}

impl AddAssign for BookCount {
    fn add_assign(&mut self, other: Self) {
        self.captured += other.captured;
        self.delivered += other.delivered;
        self.filtered += other.filtered;
        self.expired += other.expired;
        self.dead += other.dead;
    }
}

impl Neg for BookCount {
    type Output = Self;

    fn neg(self) -> Self {
        Self {
            captured: -self.captured,
            delivered: -self.delivered,
            filtered: -self.filtered,
            expired: -self.expired,
            dead: -self.dead,
        }
    }
}

impl BookCount {
    /// What is neither here nor there yet.
    pub fn pending(&self) -> i64 {
        self.captured - self.delivered - self.filtered - self.expired - self.dead
    }
}

/// A line of the books and whose it is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BookEntry {
    pub endpoint: Arc<str>,
    pub table: Arc<TableName>,
    pub count: BookCount,
}

/// What all endpoints that are counted have in common: kept once, however many they are, so that an
/// event costs no row for an endpoint that does not take it.
///
/// An endpoint that is counted has its own lines, and with each table's these. When it comes, they are
/// taken off its own lines, and when it leaves they are added.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct CommonCounts {
    pub counts: BTreeMap<Arc<TableName>, BookCount>,
    /// The endpoints that are counted.
    pub members: BTreeSet<Arc<str>>,
}

/// What is added to the common lines and to their members.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct CommonChange {
    pub counts: Vec<(Arc<TableName>, BookCount)>,
    pub joined: Vec<Arc<str>>,
    pub left: Vec<Arc<str>>,
}

impl CommonChange {
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty() && self.joined.is_empty() && self.left.is_empty()
    }
}

pub(crate) async fn change_common(
    tx: &StateTransaction<'_>,
    ownership: &StateOwnership,
    change: &CommonChange,
) -> Result<(), StateError> {
    for chunk in chunks(&change.left, |_| 0) {
        let mut params = SqlParams::default();
        params.put(Type::TEXT, ownership.slot.as_ref());
        params.column(Type::TEXT_ARRAY, chunk.iter().map(|name| &**name));
        tx.execute_typed(
            "DELETE FROM walhook.counted WHERE slot = $1 AND endpoint = ANY ($2::text[])",
            &params.list(),
        )
        .await?;
    }
    for chunk in chunks(&change.joined, |_| 0) {
        let mut params = SqlParams::default();
        params.put(Type::TEXT, ownership.slot.as_ref());
        params.column(Type::TEXT_ARRAY, chunk.iter().map(|name| &**name));
        tx.execute_typed(
            "INSERT INTO walhook.counted (slot, endpoint)
             SELECT $1, endpoint FROM unnest($2::text[]) AS r (endpoint)
             ON CONFLICT DO NOTHING",
            &params.list(),
        )
        .await?;
    }
    for chunk in chunks(&change.counts, |_| 0) {
        let counts = || chunk.iter().map(|(_, count)| count);
        let mut params = SqlParams::default();
        params.put(Type::TEXT, ownership.slot.as_ref());
        params.column(Type::TEXT_ARRAY, chunk.iter().map(|(table, _)| table.schema.as_str()));
        params.column(Type::TEXT_ARRAY, chunk.iter().map(|(table, _)| table.name.as_str()));
        params.column(Type::INT8_ARRAY, counts().map(|count| count.captured));
        params.column(Type::INT8_ARRAY, counts().map(|count| count.filtered));
        tx.execute(
            "INSERT INTO walhook.books_common AS b (slot, table_schema, table_name, captured,
                    filtered)
             SELECT $1, * FROM unnest($2::text[], $3::text[], $4::bigint[], $5::bigint[])
             ON CONFLICT (slot, table_schema, table_name) DO UPDATE
                SET captured = b.captured + excluded.captured,
                    filtered = b.filtered + excluded.filtered",
            &params,
        )
        .await?;
    }
    Ok(())
}

/// What the endpoints of a slot have in common.
///
/// # Errors
/// That the rows could not be read.
pub(crate) async fn load_common(client: &Client, slot: &str) -> Result<CommonCounts, StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    let members = "SELECT endpoint FROM walhook.counted WHERE slot = $1";
    let members = client.query_typed(members, &params.list()).await?;
    let counts = "SELECT table_schema, table_name, captured, filtered
           FROM walhook.books_common WHERE slot = $1";
    let counts = client.query_typed(counts, &params.list()).await?;
    let member = |row: &Row| Ok(read::<&str>(row, "endpoint")?.into());
    let count = |row: &Row| {
        let (captured, filtered) = (read(row, "captured")?, read(row, "filtered")?);
        let count = BookCount { captured, filtered, ..BookCount::default() };
        Ok((Arc::new(stored_event::read_table(row)?), count))
    };
    Ok(CommonCounts {
        counts: counts.iter().map(count).collect::<Result<_, StateError>>()?,
        members: members.iter().map(member).collect::<Result<_, StateError>>()?,
    })
}

pub(crate) async fn add(
    tx: &StateTransaction<'_>,
    ownership: &StateOwnership,
    entries: &[BookEntry],
) -> Result<(), StateError> {
    for chunk in chunks(entries, |_| 0) {
        let counts = || chunk.iter().map(|entry| entry.count);
        let mut params = SqlParams::default();
        params.put(Type::TEXT, ownership.slot.as_ref());
        params.column(Type::TEXT_ARRAY, chunk.iter().map(|entry| &*entry.endpoint));
        params.column(Type::TEXT_ARRAY, chunk.iter().map(|entry| entry.table.schema.as_str()));
        params.column(Type::TEXT_ARRAY, chunk.iter().map(|entry| entry.table.name.as_str()));
        params.column(Type::INT8_ARRAY, counts().map(|count| count.captured));
        params.column(Type::INT8_ARRAY, counts().map(|count| count.delivered));
        params.column(Type::INT8_ARRAY, counts().map(|count| count.filtered));
        params.column(Type::INT8_ARRAY, counts().map(|count| count.expired));
        params.column(Type::INT8_ARRAY, counts().map(|count| count.dead));
        // Summed first: one statement may not change a row twice.
        tx.execute(
            "INSERT INTO walhook.books AS b (slot, endpoint, table_schema, table_name, captured,
                    delivered, filtered, expired, dead)
             SELECT $1, endpoint, table_schema, table_name, sum(captured), sum(delivered),
                    sum(filtered), sum(expired), sum(dead)
               FROM unnest($2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[],
                           $7::bigint[], $8::bigint[], $9::bigint[])
                    AS r (endpoint, table_schema, table_name, captured, delivered, filtered,
                          expired, dead)
              GROUP BY endpoint, table_schema, table_name
             ON CONFLICT (slot, endpoint, table_schema, table_name) DO UPDATE
                SET captured = b.captured + excluded.captured,
                    delivered = b.delivered + excluded.delivered,
                    filtered = b.filtered + excluded.filtered,
                    expired = b.expired + excluded.expired, dead = b.dead + excluded.dead",
            &params,
        )
        .await?;
    }
    Ok(())
}

/// All lines of a slot, ordered by endpoint and table, those in common included.
///
/// # Errors
/// That the rows could not be read.
pub async fn load(client: &Client, slot: &str) -> Result<Vec<BookEntry>, StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    let rows = client
        .query_typed(
            "SELECT endpoint, table_schema, table_name, captured, delivered, filtered, expired,
                    dead
               FROM walhook.balance WHERE slot = $1 ORDER BY endpoint, table_schema, table_name",
            &params.list(),
        )
        .await?;
    let entry = |row: &Row| {
        Ok(BookEntry {
            endpoint: read::<&str>(row, "endpoint")?.into(),
            table: Arc::new(stored_event::read_table(row)?),
            count: BookCount {
                captured: read(row, "captured")?,
                delivered: read(row, "delivered")?,
                filtered: read(row, "filtered")?,
                expired: read(row, "expired")?,
                dead: read(row, "dead")?,
            },
        })
    };
    rows.iter().map(entry).collect()
}
