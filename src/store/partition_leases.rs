//! Who owns which partition of a source: leases on the database's clock.
//!
//! ```text
//! at_source ─ give_out ─▶ free ─ take ─▶ leased ─ release, or not prolonged ─▶ free
//!     ▲                                    │
//!     └────────────── recall ◀─────────────┘
//! ```
//!
//! A lease says who may send; the epoch of the same row says who may write. The slot's holder can call all
//! partitions back: no lease is prolonged any more, and when the last one is over nobody but it may send.
//!
//! What is about several partitions locks their rows in the order of their numbers, as joined flushes do: in another
//! order the two would wait for each other.

use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::flow::lsn::Position;
use crate::flow::partition::PartitionNumber;
use crate::store::ownership::StateOwnership;
use crate::store::progress::StoredProgress;
use crate::store::progress::begin;
use crate::store::progress::guard;
use crate::store::progress::takeover;
use crate::store::sql::SqlParams;
use crate::store::sql::clean_ascii;
use crate::store::sql::read;
use crate::store::sql::unsigned;
use crate::store::state_error::StateError;

/// Between two looks whether the last lease is over.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The row of a partition.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct PartitionRow {
    pub(crate) partition: PartitionNumber,
    pub(crate) settled: Option<Position>,
    /// Who has it, or had it last.
    pub(crate) member: Option<String>,
    /// Whether a worker has it at this moment.
    pub(crate) is_leased: bool,
    /// How long the lease still lasts.
    pub(crate) leased_for: Duration,
    pub(crate) at_source: bool,
    /// How long nobody has had it.
    pub(crate) free_for: Duration,
    /// The epoch of the source whose messages have to come again.
    pub(crate) rewind: i64,
    /// The tail parks its events for now. The state knows nothing of it.
    pub(crate) is_parked: bool,
}

impl PartitionRow {
    /// Whether it was given out, and nobody has had it for so long.
    pub(crate) fn is_unowned(&self, patience: Duration) -> bool {
        !self.at_source && !self.is_leased && self.free_for >= patience
    }
}

/// The partitions of a source, by number; none where it was never shared.
///
/// # Errors
/// That the rows could not be read.
pub(crate) async fn rows(client: &Client, slot: &str) -> Result<Vec<PartitionRow>, StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    let query = "SELECT partition, settled_lsn, settled_ordinal, member, at_source, rewind,
                        coalesce(lease_until > clock_timestamp(), false) AS is_leased,
                        extract(epoch FROM lease_until - clock_timestamp())::float8 AS leased_for
                   FROM walhook.progress WHERE slot = $1 AND partition > 0 ORDER BY partition";
    let rows = client.query_typed(query, &params.list()).await?;
    rows.iter().map(row).collect()
}

fn row(row: &Row) -> Result<PartitionRow, StateError> {
    let number: i32 = read(row, "partition")?;
    let number =
        u16::try_from(number).map_err(|cause| StateError::unreadable("partition", cause))?;
    let settled = match read::<Option<_>>(row, "settled_lsn")? {
        Some(commit) => Some(Position { commit, ordinal: unsigned(row, "settled_ordinal")? }),
        None => None,
    };
    let leased_for = read::<Option<f64>>(row, "leased_for")?.unwrap_or_default();
    let seconds = |seconds: f64| Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or_default();
    Ok(PartitionRow {
        partition: PartitionNumber::new(number),
        settled,
        member: read(row, "member")?,
        is_leased: read(row, "is_leased")?,
        leased_for: seconds(leased_for),
        at_source: read(row, "at_source")?,
        free_for: seconds(-leased_for),
        rewind: read(row, "rewind")?,
        is_parked: false,
    })
}

/// The source's own row: how many partitions it has, its epoch, and how far it has settled everything.
///
/// # Errors
/// That the row could not be read.
pub(crate) async fn source(
    client: &Client,
    slot: &str,
) -> Result<Option<(Option<u16>, i64, Option<Position>)>, StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    let query = "SELECT partitions, epoch, settled_lsn, settled_ordinal FROM walhook.progress
                  WHERE slot = $1 AND partition = 0";
    let Some(row) = client.query_typed_opt(query, &params.list()).await? else { return Ok(None) };
    let count: Option<i32> = read(&row, "partitions")?;
    let settled = match read::<Option<_>>(&row, "settled_lsn")? {
        Some(commit) => Some(Position { commit, ordinal: unsigned(&row, "settled_ordinal")? }),
        None => None,
    };
    let count = count.and_then(|count| u16::try_from(count).ok());
    Ok(Some((count, read(&row, "epoch")?, settled)))
}

/// Says that the source has so many partitions, all of which are the source's own until they are given out.
/// Rows of others go: they have to be called back before, and what they had settled written down as fronts.
///
/// # Errors
/// [`StateError::Fenced`], or that a statement failed.
pub(crate) async fn define(
    client: &mut Client,
    source: &StateOwnership,
    count: u16,
) -> Result<(), StateError> {
    let tx = begin(client).await?;
    guard(&tx, source).await?;
    let mut params = SqlParams::default();
    params.put(Type::TEXT, source.slot.as_ref());
    params.put(Type::INT4, i32::from(count));
    for statement in [
        "DELETE FROM walhook.progress WHERE slot = $1 AND partition > $2",
        "INSERT INTO walhook.progress (slot, partition, epoch, holder, at_source)
         SELECT $1, number, 0, 'nobody yet', true FROM generate_series(1, $2) AS n (number)
         ON CONFLICT (slot, partition) DO NOTHING",
        "UPDATE walhook.progress SET partitions = $2 WHERE slot = $1 AND partition = 0",
    ] {
        tx.execute_typed(statement, &params.list()).await?;
    }
    Ok(tx.commit().await?)
}

/// Takes partitions back to the source, if they were given out: waits until nobody has the right to send
/// for one, and lets none of their owners write any more. `of` says which endpoints a partition has, so that
/// what it has settled goes on to count for each of them.
///
/// # Errors
/// [`StateError::Fenced`], or that a statement failed.
pub(crate) async fn recall(
    client: &mut Client,
    source: &StateOwnership,
    holder: &str,
    partitions: &[PartitionNumber],
    of: impl Fn(PartitionNumber) -> Vec<Arc<str>>,
) -> Result<(), StateError> {
    let slot = source.slot.as_ref();
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    params.column(Type::INT4_ARRAY, partitions.iter().map(|partition| partition.raw()));
    let stop = "WITH locked AS (
            SELECT partition FROM walhook.progress
             WHERE slot = $1 AND partition = ANY ($2::integer[])
             ORDER BY partition FOR NO KEY UPDATE)
         UPDATE walhook.progress p SET at_source = true
           FROM locked WHERE p.slot = $1 AND p.partition = locked.partition";
    takeover::change_rows(client, slot, partitions, stop, &params).await?;
    let is_theirs = |row: &PartitionRow| partitions.contains(&row.partition);
    while rows(client, slot).await?.iter().any(|row| row.is_leased && is_theirs(row)) {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let tx = begin(client).await?;
    guard(&tx, source).await?;
    // Their rows are locked first: a flush that is under way is counted, and no later one is taken.
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    params.column(Type::INT4_ARRAY, partitions.iter().map(|partition| partition.raw()));
    params.put(Type::TEXT, clean_ascii(holder));
    let raise = "WITH locked AS (
            SELECT partition FROM walhook.progress
             WHERE slot = $1 AND partition = ANY ($2::integer[])
             ORDER BY partition FOR NO KEY UPDATE)
         UPDATE walhook.progress p
            SET epoch = epoch + 1, holder = $3, held_since = now(), member = NULL,
                lease_until = NULL
           FROM locked WHERE p.slot = $1 AND p.partition = locked.partition
      RETURNING p.partition, settled_lsn, settled_ordinal, member, at_source, rewind,
                false AS is_leased, NULL::float8 AS leased_for";
    let raised = tx.query_typed(raise, &params.list()).await?;
    for found in &raised {
        let found = row(found)?;
        let Some(settled) = found.settled.map(Position::next) else { continue };
        let names = of(found.partition);
        let mut params = SqlParams::default();
        params.put(Type::TEXT, slot);
        params.column(Type::TEXT_ARRAY, names.iter().map(|name| &**name));
        params.put(Type::PG_LSN, settled.commit);
        params.put(Type::INT8, i64::from(settled.ordinal));
        tx.execute_typed(
            "INSERT INTO walhook.fronts AS f (slot, endpoint, before_lsn, before_ordinal)
             SELECT $1, endpoint, $3, $4 FROM unnest($2::text[]) AS r (endpoint)
             ON CONFLICT (slot, endpoint) DO UPDATE
                SET before_lsn = $3, before_ordinal = $4
              WHERE (f.before_lsn, f.before_ordinal) < ($3, $4)",
            &params.list(),
        )
        .await?;
    }
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    params.column(Type::INT4_ARRAY, partitions.iter().map(|partition| partition.raw()));
    for statement in [
        "UPDATE walhook.settled_ahead SET partition = 0
          WHERE slot = $1 AND partition = ANY ($2::integer[])",
        "UPDATE walhook.progress SET settled_lsn = NULL, settled_ordinal = NULL, rewind = 0
          WHERE slot = $1 AND partition = ANY ($2::integer[])",
    ] {
        tx.execute_typed(statement, &params.list()).await?;
    }
    Ok(tx.commit().await?)
}

/// Lets workers take the partition.
///
/// # Errors
/// That the statement failed.
pub(crate) async fn give_out(
    client: &Client,
    source: &StateOwnership,
    partition: PartitionNumber,
) -> Result<(), StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, source.slot.as_ref());
    params.put(Type::INT4, partition.raw());
    params.put(Type::INT8, source.epoch);
    // From here on it is counted how long nobody takes it.
    let update = "UPDATE walhook.progress SET at_source = false, lease_until = clock_timestamp()
                   WHERE slot = $1 AND partition = $2 AND EXISTS (SELECT FROM walhook.progress
                         WHERE slot = $1 AND partition = 0 AND epoch = $3)";
    client.execute_typed(update, &params.list()).await?;
    Ok(())
}

/// Takes a partition that nobody has, for as long as `lease`; `None` if a worker has it, or the slot's holder.
///
/// # Errors
/// As [`takeover::take`].
pub async fn take(
    client: &mut Client,
    slot: &str,
    partition: PartitionNumber,
    (member, holder): (&str, &str),
    lease: Duration,
) -> Result<Option<(StateOwnership, StoredProgress)>, StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    params.put(Type::INT4, partition.raw());
    params.put(Type::TEXT, member);
    params.put(Type::FLOAT8, lease.as_secs_f64());
    let claim = "UPDATE walhook.progress
            SET member = $3, lease_until = clock_timestamp() + make_interval(secs => $4)
          WHERE slot = $1 AND partition = $2 AND NOT at_source
            AND coalesce(lease_until < clock_timestamp(), true)";
    if takeover::change_rows(client, slot, &[partition], claim, &params).await? == 0 {
        return Ok(None);
    }
    takeover::take_partition(client, slot, partition, holder).await.map(Some)
}

/// Prolongs the leases of these partitions, and returns those that are this member's still.
///
/// # Errors
/// That the statement failed.
pub async fn prolong(
    client: &Client,
    (slot, member): (&str, &str),
    owned: &[(PartitionNumber, i64)],
    lease: Duration,
) -> Result<Vec<PartitionNumber>, StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    params.put(Type::TEXT, member);
    params.column(Type::INT4_ARRAY, owned.iter().map(|(partition, _)| partition.raw()));
    params.column(Type::INT8_ARRAY, owned.iter().map(|(_, epoch)| *epoch));
    params.put(Type::FLOAT8, lease.as_secs_f64());
    let update = "WITH locked AS (
            SELECT p.partition
              FROM walhook.progress p
              JOIN unnest($3::integer[], $4::bigint[]) AS o (partition, epoch)
                ON p.partition = o.partition AND p.epoch = o.epoch
             WHERE p.slot = $1 AND p.member = $2 AND NOT p.at_source
             ORDER BY p.partition FOR NO KEY UPDATE OF p)
         UPDATE walhook.progress p
            SET lease_until = clock_timestamp() + make_interval(secs => $5)
           FROM locked WHERE p.slot = $1 AND p.partition = locked.partition
      RETURNING p.partition";
    let rows = client.query_typed(update, &params.list()).await?;
    let kept = rows.iter().map(|row| {
        let number: i32 = read(row, "partition")?;
        let number = u16::try_from(number);
        let number = number.map_err(|cause| StateError::unreadable("partition", cause))?;
        Ok(PartitionNumber::new(number))
    });
    kept.collect()
}

/// Gives a partition back: another worker may take it at once. Nothing may be sent for it any more.
///
/// # Errors
/// That the statement failed: then the lease runs out by itself.
pub(crate) async fn release(client: &Client, ownership: &StateOwnership) -> Result<(), StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, ownership.slot.as_ref());
    params.put(Type::INT4, ownership.partition.raw());
    params.put(Type::INT8, ownership.epoch);
    let update = "UPDATE walhook.progress SET member = NULL, lease_until = clock_timestamp()
                   WHERE slot = $1 AND partition = $2 AND epoch = $3";
    client.execute_typed(update, &params.list()).await?;
    Ok(())
}

/// Asks the source to send again what it sent under `epoch`: not all of it came.
///
/// # Errors
/// That the statement failed.
pub(crate) async fn ask_rewind(
    client: &Client,
    ownership: &StateOwnership,
    epoch: i64,
) -> Result<(), StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, ownership.slot.as_ref());
    params.put(Type::INT4, ownership.partition.raw());
    params.put(Type::INT8, ownership.epoch);
    params.put(Type::INT8, epoch);
    let update = "UPDATE walhook.progress SET rewind = $4
                   WHERE slot = $1 AND partition = $2 AND epoch = $3 AND rewind < $4";
    client.execute_typed(update, &params.list()).await?;
    Ok(())
}
