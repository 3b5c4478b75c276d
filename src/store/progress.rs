//! `walhook.progress`: how far a slot is settled and confirmed, and the epoch that fences writers.
//!
//! The row of a slot carries an epoch. Each walhook that takes the slot raises it, and each
//! transaction that writes state checks it under the row's lock: a walhook that was frozen, and has
//! been replaced meanwhile, writes nothing when it wakes up, but gets [`StateError::Fenced`].

pub(crate) mod lineage;
pub(crate) mod takeover;

use std::cmp::Ordering;
use std::sync::Arc;

use tokio_postgres::Client;
use tokio_postgres::IsolationLevel;
use tokio_postgres::Row;
use tokio_postgres::Transaction;
use tokio_postgres::types::Type;

use crate::flow::event::EventId;
use crate::flow::key::KeyHash;
use crate::flow::lsn::Lsn;
use crate::flow::lsn::Position;
use crate::flow::partition::PartitionNumber;
use crate::flow::time::Timestamp;
use crate::store::ownership::StateOwnership;
use crate::store::slot_owner::SlotOwner;
use crate::store::sql::SqlParams;
use crate::store::sql::read;
use crate::store::sql::unsigned;
use crate::store::state_error::StateError;

/// Events [`load_settled_ahead`] returns at most. More than fits into all lanes' memory was never open at
/// once; what lies beyond would be repeated, not lost.
const AHEAD_MAX: i64 = 1_000_000;

/// `to_jsonb` reads what a state that is not brought up to date yet does not have.
const COLUMNS: &str = "p.system_identifier, p.timeline, p.publication_oids, p.settled_lsn, \
                       p.settled_ordinal, p.confirmed_lsn, p.epoch, p.flush, p.holder, \
                       p.held_since, p.updated_at, \
                       (to_jsonb(p) ->> 'confirmed_at')::timestamptz AS confirmed_at, \
                       to_jsonb(p) ->> 'event_types' AS event_types, \
                       to_jsonb(p) ->> 'event_tables' AS event_tables, \
                       current_setting('server_encoding') AS encoding";

/// The stream that positions belong to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ServerLineage {
    /// The database system identifier.
    pub system: u64,
    pub timeline: u32,
    pub publications: Vec<u32>,
}

/// The row of a slot.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StoredProgress {
    /// `None` before the first start reached the stream.
    pub lineage: Option<ServerLineage>,
    /// All events up to and including this one are settled; `None` before the first.
    pub settled: Option<Position>,
    /// What was confirmed to the server or was about to be; `None` before the first flush.
    pub confirmed: Option<Lsn>,
    /// The commit time of the last transaction before that.
    pub confirmed_at: Option<Timestamp>,
    /// Whose slot it is; `None` if that was never noted.
    pub owner: Option<SlotOwner>,
    pub epoch: i64,
    pub holder: String,
    pub held_since: Timestamp,
    pub updated_at: Timestamp,
}

impl StoredProgress {
    /// Whether no walhook has come so far as to begin.
    pub fn is_new(&self) -> bool {
        self.confirmed.is_none() && self.settled.is_none()
    }
}

/// Reads where a slot stands, without taking it. `None` if no walhook ever took it.
///
/// # Errors
/// That the row could not be read.
pub async fn load(client: &Client, slot: &str) -> Result<Option<StoredProgress>, StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    // A state that is not brought up to date yet knows of no partitions.
    let query = format!(
        "SELECT {COLUMNS} FROM walhook.progress p
          WHERE slot = $1 AND coalesce((to_jsonb(p) ->> 'partition')::integer, 0) = 0"
    );
    let row = client.query_typed_opt(&query, &params.list()).await?;
    row.as_ref().map(progress).transpose()
}

/// Makes the row of a slot that is going to be read, before it is read: a slot that was read, and
/// that the state knows nothing of, was read with another state.
///
/// # Errors
/// That the statement failed.
pub(crate) async fn register(client: &Client, slot: &str) -> Result<(), StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    let insert = "INSERT INTO walhook.progress (slot, epoch, holder) VALUES ($1, 0, 'nobody yet')
                  ON CONFLICT (slot, partition) DO NOTHING";
    client.execute_typed(insert, &params.list()).await?;
    Ok(())
}

/// Deliveries of the source's own stream that were settled although an earlier event was not, by endpoint:
/// when they come again after a crash, they are settled already. What belongs to a partition that was called
/// back is the source's own.
///
/// # Errors
/// That the rows could not be read.
pub async fn load_settled_ahead(
    client: &Client,
    slot: &str,
) -> Result<Vec<(Arc<str>, EventId)>, StateError> {
    load_settled_ahead_of(client, slot, PartitionNumber::SOURCE).await
}

/// As [`load_settled_ahead`], for one partition's stream.
///
/// # Errors
/// As [`load_settled_ahead`].
pub async fn load_settled_ahead_of(
    client: &Client,
    slot: &str,
    partition: PartitionNumber,
) -> Result<Vec<(Arc<str>, EventId)>, StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    params.put(Type::INT8, AHEAD_MAX);
    params.put(Type::INT4, partition.raw());
    let rows = client
        .query_typed(
            "SELECT endpoint, event_id FROM walhook.settled_ahead
              WHERE slot = $1 AND partition = $3 ORDER BY event_id LIMIT $2",
            &params.list(),
        )
        .await?;
    let mut last: Arc<str> = Arc::from("");
    let mut settled_ahead = Vec::with_capacity(rows.len());
    for row in &rows {
        let endpoint: &str = read(row, "endpoint")?;
        if *last != *endpoint {
            last = endpoint.into();
        }
        let id = read::<&str>(row, "event_id")?
            .parse()
            .map_err(|cause| StateError::unreadable("settled_ahead", cause))?;
        settled_ahead.push((Arc::clone(&last), id));
    }
    Ok(settled_ahead)
}

/// How far endpoints have come that are ahead of the settled prefix, or were: all that each was owed
/// of the changes before this one is settled.
///
/// # Errors
/// That the rows could not be read.
pub async fn load_endpoint_watermarks(
    client: &Client,
    slot: &str,
) -> Result<Vec<(Arc<str>, Position)>, StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    let query = "SELECT endpoint, before_lsn, before_ordinal FROM walhook.fronts WHERE slot = $1";
    let rows = client.query_typed(query, &params.list()).await?;
    let front = |row: &Row| {
        let ordinal = unsigned(row, "before_ordinal")?;
        let position = Position { commit: read(row, "before_lsn")?, ordinal };
        Ok((read::<&str>(row, "endpoint")?.into(), position))
    };
    rows.iter().map(front).collect()
}

pub(crate) async fn begin(client: &mut Client) -> Result<Transaction<'_>, StateError> {
    Ok(client.build_transaction().isolation_level(IsolationLevel::ReadCommitted).start().await?)
}

/// The advisory lock that every transaction for a partition holds; see `end_holders`.
pub(crate) async fn lock(
    tx: &Transaction<'_>,
    slot: &str,
    partition: PartitionNumber,
) -> Result<(), StateError> {
    let lock = "SELECT pg_advisory_xact_lock($1)";
    tx.execute_typed(lock, &lock_params(slot, partition).list()).await?;
    Ok(())
}

/// Its number.
pub(crate) fn lock_params(slot: &str, partition: PartitionNumber) -> SqlParams<'static> {
    let mut params = SqlParams::default();
    params.put(Type::INT8, lock_key(slot, partition));
    params
}

fn lock_key(slot: &str, partition: PartitionNumber) -> i64 {
    let number = partition.raw().to_be_bytes();
    // Versions without partitions lock the slot's name alone, and may still be at work.
    let part = (partition != PartitionNumber::SOURCE).then_some(Some(number.as_slice()));
    let source = [Some(b"walhook slot".as_slice()), Some(slot.as_bytes())];
    KeyHash::of(source.into_iter().chain(part)).raw().cast_signed()
}

/// Locks the slot's row and checks that it is still ours.
pub(crate) async fn guard(
    tx: &Transaction<'_>,
    ownership: &StateOwnership,
) -> Result<(), StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, ownership.slot.as_ref());
    params.put(Type::INT4, ownership.partition.raw());
    let query = "SELECT epoch, holder FROM walhook.progress
                  WHERE slot = $1 AND partition = $2 FOR UPDATE";
    let list = params.list();
    let ((), row) = tokio::try_join!(biased; lock(tx, &ownership.slot, ownership.partition), async {
        Ok(tx.query_typed_opt(query, &list).await?)
    })?;
    let Some(row) = row else { return Err(fenced(ownership, None)) };
    not_ours(ownership, read(&row, "epoch")?, read(&row, "holder")?)
}

/// Compares the epoch of the slot's row with ours.
///
/// # Errors
/// [`StateError::Fenced`] if another walhook has taken the slot since, [`StateError::SetBack`] if the row is older
/// than we are.
pub(crate) fn not_ours(
    ownership: &StateOwnership,
    epoch: i64,
    holder: String,
) -> Result<(), StateError> {
    match epoch.cmp(&ownership.epoch) {
        Ordering::Equal => Ok(()),
        Ordering::Greater => Err(fenced(ownership, Some(holder))),
        Ordering::Less => Err(StateError::SetBack { slot: ownership.slot.to_string() }),
    }
}

pub(crate) fn fenced(ownership: &StateOwnership, holder: Option<String>) -> StateError {
    let holder = holder.unwrap_or_else(|| "nobody (its row is gone)".to_owned());
    StateError::Fenced { slot: ownership.slot.to_string(), holder }
}

fn progress(row: &Row) -> Result<StoredProgress, StateError> {
    let system: Option<i64> = read(row, "system_identifier")?;
    let timeline: Option<i32> = read(row, "timeline")?;
    let publications = read(row, "publication_oids")?;
    let lineage = system.zip(timeline).map(|(system, timeline)| ServerLineage {
        system: system.cast_unsigned(),
        timeline: timeline.cast_unsigned(),
        publications,
    });
    let settled = match read::<Option<Lsn>>(row, "settled_lsn")? {
        Some(commit) => Some(Position { commit, ordinal: unsigned(row, "settled_ordinal")? }),
        None => None,
    };
    Ok(StoredProgress {
        lineage,
        settled,
        confirmed: read(row, "confirmed_lsn")?,
        confirmed_at: read(row, "confirmed_at")?,
        owner: SlotOwner::read(row)?,
        epoch: read(row, "epoch")?,
        holder: read(row, "holder")?,
        held_since: read(row, "held_since")?,
        updated_at: read(row, "updated_at")?,
    })
}
