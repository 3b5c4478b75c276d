//! `walhook.backfills`: rows of tables that are to be sent as events, and how far that is.
//!
//! The cursor moves in the flush that settles or parks a chunk, and the counts with it. Until then what was
//! settled of the chunk is in `walhook.settled_ahead`, under ids that are the same when it is read again.

use std::sync::Arc;

use tokio_postgres::Client;
use tokio_postgres::GenericClient;
use tokio_postgres::Row;
use tokio_postgres::Transaction;
use tokio_postgres::types::Type;

use crate::flow::backfill::BackfillId;
use crate::flow::backfill::BackfillStep;
use crate::flow::backfill::ReadId;
use crate::flow::lsn::Lsn;
use crate::flow::relation::TableName;
use crate::flow::time::Timestamp;
use crate::store::backfill_moves;
use crate::store::operator_orders::OrderTable;
use crate::store::ownership::StateOwnership;
use crate::store::progress::ServerLineage;
use crate::store::progress::begin;
use crate::store::progress::guard;
use crate::store::progress::lineage::forget;
use crate::store::sql::SqlParams;
use crate::store::sql::bigint;
use crate::store::sql::clean_ascii;
use crate::store::sql::int;
use crate::store::sql::read;
use crate::store::sql::unsigned;
use crate::store::state_error::StateError;

/// In which order rows are read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ReadOrder {
    /// Along the primary key, or the index of the replica identity.
    Key,
    /// As they lie in the table's file.
    Ctid,
}

impl ReadOrder {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Ctid => "ctid",
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum BackfillState {
    Running,
    Paused,
    Done,
    Cancelled,
    Failed,
}

impl BackfillState {
    pub(crate) const ALL: [Self; 5] =
        [Self::Running, Self::Paused, Self::Done, Self::Cancelled, Self::Failed];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Done => "done",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
        }
    }
}

/// What a backfill is to send.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct BackfillWish {
    pub table: TableName,
    /// A condition in SQL.
    pub filter: Option<String>,
    /// Empty means all.
    pub endpoints: Vec<Arc<str>>,
    pub event_type: Option<Arc<str>>,
    pub per_second: Option<u32>,
    pub read_by: ReadOrder,
    pub estimate: Option<u64>,
}

/// A row of the table.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct StoredBackfill {
    pub id: BackfillId,
    pub wish: BackfillWish,
    pub state: BackfillState,
    pub reason: Option<String>,
    pub created_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub cursor: String,
    pub rows_read: u64,
    pub rows_sent: u64,
    pub tries: u32,
}

impl StoredBackfill {
    /// How much of it is done, from 0 to 1, as far as the planner's guess is right.
    pub(crate) fn progress(&self) -> f64 {
        if self.state == BackfillState::Done {
            return 1.0;
        }
        let estimate = self.wish.estimate.unwrap_or_default().max(1);
        #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
        let ratio = self.rows_read as f64 / estimate as f64;
        ratio.min(0.99)
    }
}

const COLUMNS: &str = "id, table_schema, table_name, filter, endpoints, event_type, per_second, \
                       read_by, state, reason, created_at, started_at, finished_at, cursor, \
                       estimate, rows_read, rows_sent, tries";

/// The first start of a slot: begins its books at `confirmed`, and orders what is to be sent of the tables.
/// Both or neither, so that it is ordered once, whatever ends walhook in between.
///
/// # Errors
/// [`StateError::Fenced`], or that a statement failed.
pub(crate) async fn begin_slot(
    client: &mut Client,
    ownership: &StateOwnership,
    (lineage, confirmed): (&ServerLineage, Option<Lsn>),
    wishes: &[BackfillWish],
    now: Timestamp,
) -> Result<Vec<StoredBackfill>, StateError> {
    let tx = begin(client).await?;
    guard(&tx, ownership).await?;
    forget(&tx, ownership, lineage, confirmed).await?;
    let mut ordered = Vec::new();
    for wish in wishes {
        ordered.push(order(&tx, &ownership.slot, wish, now).await?);
    }
    tx.commit().await?;
    Ok(ordered)
}

/// # Errors
/// That the statement failed.
pub(crate) async fn order(
    client: &(impl GenericClient + Sync),
    slot: &str,
    wish: &BackfillWish,
    now: Timestamp,
) -> Result<StoredBackfill, StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    params.put(Type::TEXT, wish.table.schema.as_str());
    params.put(Type::TEXT, wish.table.name.as_str());
    params.put(Type::TEXT, wish.filter.as_deref());
    let endpoints: Vec<&str> = wish.endpoints.iter().map(|name| &**name).collect();
    params.put(Type::TEXT_ARRAY, Some(endpoints).filter(|names| !names.is_empty()));
    params.put(Type::TEXT, wish.event_type.as_deref());
    params.put(Type::INT4, wish.per_second.map(int));
    params.put(Type::TEXT, wish.read_by.as_str());
    params.put(Type::INT8, wish.estimate.map(bigint));
    params.put(Type::TIMESTAMPTZ, now);
    let insert = format!(
        "INSERT INTO walhook.backfills (slot, table_schema, table_name, filter, endpoints,
                event_type, per_second, read_by, estimate, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) RETURNING {COLUMNS}"
    );
    stored(&client.query_typed_one(&insert, &params.list()).await?)
}

/// The newest first, at most `limit`; with an `id`, that one.
///
/// # Errors
/// That the rows could not be read.
pub(crate) async fn list(
    client: &Client,
    slot: &str,
    id: Option<i64>,
    limit: u32,
) -> Result<Vec<StoredBackfill>, StateError> {
    let table = OrderTable { name: "backfills", columns: COLUMNS };
    table.list(client, slot, id, limit).await?.iter().map(stored).collect()
}

/// Those that run or are paused, the oldest first.
///
/// # Errors
/// That the rows could not be read.
pub(crate) async fn open(client: &Client, slot: &str) -> Result<Vec<StoredBackfill>, StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    let query = format!(
        "SELECT {COLUMNS} FROM walhook.backfills
          WHERE slot = $1 AND state IN ('running', 'paused') ORDER BY id"
    );
    let rows = client.query_typed(&query, &params.list()).await?;
    rows.iter().map(stored).collect()
}

/// Takes it from one of the states `from` to another, and says whether it was in one.
///
/// # Errors
/// That the statement failed.
pub(crate) async fn switch(
    client: &Client,
    slot: &str,
    id: BackfillId,
    (from, to): (&[BackfillState], BackfillState),
    reason: Option<&str>,
    now: Timestamp,
) -> Result<bool, StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    params.put(Type::INT8, id.0);
    params.column(Type::TEXT_ARRAY, from.iter().map(|state| state.as_str()));
    params.put(Type::TEXT, to.as_str());
    params.put(Type::TEXT, reason.map(|reason| clean_ascii(reason)));
    params.put(Type::TIMESTAMPTZ, now);
    // What is over looks for no row any more.
    let update = "WITH gone AS (DELETE FROM walhook.backfill_moves
          WHERE backfill = $2 AND $4 IN ('done', 'cancelled') AND EXISTS (
                SELECT FROM walhook.backfills WHERE slot = $1 AND id = $2 AND state = ANY ($3)))
        UPDATE walhook.backfills
            SET state = $4, reason = $5,
                tries = CASE WHEN $4 = 'running' THEN 0 ELSE tries END,
                finished_at = CASE WHEN $4 IN ('running', 'paused') THEN finished_at ELSE $6 END
          WHERE slot = $1 AND id = $2 AND state = ANY ($3)";
    Ok(client.execute_typed(update, &params.list()).await? == 1)
}

/// Notes that this walhook goes on with it, and returns how often one has since a chunk was done.
///
/// # Errors
/// [`StateError::Fenced`], or that a statement failed.
pub(crate) async fn begin_try(
    client: &mut Client,
    ownership: &StateOwnership,
    id: BackfillId,
    now: Timestamp,
) -> Result<u32, StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, ownership.slot.as_ref());
    params.put(Type::INT8, id.0);
    params.put(Type::TIMESTAMPTZ, now);
    let tx = begin(client).await?;
    guard(&tx, ownership).await?;
    let row = tx
        .query_typed_opt(
            "UPDATE walhook.backfills
                SET tries = tries + 1, started_at = coalesce(started_at, $3)
              WHERE slot = $1 AND id = $2 RETURNING tries::bigint",
            &params.list(),
        )
        .await?;
    tx.commit().await?;
    row.as_ref().map_or(Ok(0), |row| unsigned(row, "tries"))
}

/// Says what it waits for; `None`: nothing.
///
/// # Errors
/// That the statement failed.
pub(crate) async fn explain(
    client: &Client,
    slot: &str,
    id: BackfillId,
    reason: Option<&str>,
) -> Result<(), StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    params.put(Type::INT8, id.0);
    params.put(Type::TEXT, reason.map(|reason| clean_ascii(reason)));
    let update = "UPDATE walhook.backfills SET reason = $3
                   WHERE slot = $1 AND id = $2 AND state = 'running'
                     AND reason IS DISTINCT FROM $3";
    client.execute_typed(update, &params.list()).await?;
    Ok(())
}

/// Moves the cursors of those of which a chunk is settled or parked. What was noted of the chunk's
/// deliveries is not needed any more.
pub(crate) async fn step(
    tx: &Transaction<'_>,
    ownership: &StateOwnership,
    steps: &[BackfillStep],
) -> Result<(), StateError> {
    for step in steps {
        let mut params = SqlParams::default();
        params.put(Type::TEXT, ownership.slot.as_ref());
        params.put(Type::INT8, step.id.0);
        params.put(Type::TEXT, step.cursor.as_ref());
        params.put(Type::INT8, bigint(step.read));
        params.put(Type::INT8, bigint(step.sent));
        tx.execute_typed(
            "UPDATE walhook.backfills
                SET cursor = $3, rows_read = rows_read + $4, rows_sent = rows_sent + $5, tries = 0
              WHERE slot = $1 AND id = $2",
            &params.list(),
        )
        .await?;
        backfill_moves::passed(tx, step).await?;
        let prefix = ReadId::prefix(step.id);
        let mut params = SqlParams::default();
        params.put(Type::TEXT, ownership.slot.as_ref());
        // In the order of bytes, a tilde comes after all digits.
        params.put(Type::TEXT, format!("{prefix}~"));
        params.put(Type::TEXT, prefix);
        tx.execute_typed(
            "DELETE FROM walhook.settled_ahead
              WHERE slot = $1 AND event_id >= $3 AND event_id < $2",
            &params.list(),
        )
        .await?;
    }
    Ok(())
}

fn stored(row: &Row) -> Result<StoredBackfill, StateError> {
    let state: &str = read(row, "state")?;
    let state = BackfillState::ALL.into_iter().find(|known| known.as_str() == state);
    let names: Option<Vec<&str>> = read(row, "endpoints")?;
    let estimate: Option<i64> = read(row, "estimate")?;
    let rate: Option<i32> = read(row, "per_second")?;
    let tries: i32 = read(row, "tries")?;
    Ok(StoredBackfill {
        id: BackfillId(read(row, "id")?),
        wish: BackfillWish {
            table: TableName::new(
                read::<&str>(row, "table_schema")?,
                read::<&str>(row, "table_name")?,
            ),
            filter: read(row, "filter")?,
            endpoints: names.unwrap_or_default().into_iter().map(Arc::from).collect(),
            event_type: read::<Option<&str>>(row, "event_type")?.map(Arc::from),
            per_second: rate.and_then(|rate| u32::try_from(rate).ok()),
            read_by: match read(row, "read_by")? {
                "ctid" => ReadOrder::Ctid,
                _ => ReadOrder::Key,
            },
            estimate: estimate.and_then(|rows| u64::try_from(rows).ok()),
        },
        state: state.ok_or_else(|| StateError::unreadable("a backfill", "its state is unknown"))?,
        reason: read(row, "reason")?,
        created_at: read(row, "created_at")?,
        started_at: read(row, "started_at")?,
        finished_at: read(row, "finished_at")?,
        cursor: read(row, "cursor")?,
        rows_read: unsigned(row, "rows_read")?,
        rows_sent: unsigned(row, "rows_sent")?,
        tries: u32::try_from(tries).unwrap_or_default(),
    })
}
