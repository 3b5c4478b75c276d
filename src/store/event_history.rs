//! One event wherever it is: what waits for it, and which other events its row had before and after.

use tokio_postgres::Client;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::flow::event::EventId;
use crate::flow::time::Timestamp;
use crate::store::push_log::PushLogEntry;
use crate::store::sql::SqlParams;
use crate::store::sql::read;
use crate::store::sql::unsigned_int;
use crate::store::state_error::StateError;

/// Neighbours that are told on each side.
const NEIGHBOURS_MAX: i64 = 10;
/// How many of an event's deliveries are looked at.
const WAITING_MAX: i64 = 200;

/// A delivery of the event that waits in the backlog.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct WaitingDelivery {
    pub endpoint: String,
    pub attempts: u32,
    /// `None`: as soon as there is room.
    pub next_attempt: Option<Timestamp>,
    pub parked_at: Timestamp,
    pub committed: Timestamp,
    /// See [`crate::flow::park_reason::ParkReason::as_str`].
    pub reason: String,
    /// What came of the last attempt.
    pub failure: Option<String>,
    pub replay: bool,
}

/// What waits for an event in the backlog, at each endpoint.
///
/// # Errors
/// That the rows could not be read.
pub(crate) async fn waiting(
    client: &Client,
    slot: &str,
    event: EventId,
) -> Result<Vec<WaitingDelivery>, StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    params.put(Type::TEXT, event.to_string());
    params.put(Type::INT8, WAITING_MAX);
    let rows = client
        .query_typed(
            "SELECT b.endpoint, b.attempts, b.next_attempt_at, b.parked_at, b.committed, b.reason,
                    concat_ws(': ', b.failure_class, b.failure_detail) AS failure, b.replay
               FROM walhook.backlog b
              WHERE b.slot || '' = $1 AND b.event_id = $2
              ORDER BY b.endpoint, b.replay LIMIT $3",
            &params.list(),
        )
        .await?;
    let delivery = |row: &Row| {
        let failure = read::<&str>(row, "failure")?;
        Ok(WaitingDelivery {
            endpoint: read(row, "endpoint")?,
            attempts: unsigned_int(row, "attempts")?,
            next_attempt: read(row, "next_attempt_at")?,
            parked_at: read(row, "parked_at")?,
            committed: read(row, "committed")?,
            reason: read(row, "reason")?,
            failure: (!failure.is_empty()).then(|| failure.to_owned()),
            replay: read(row, "replay")?,
        })
    };
    rows.iter().map(delivery).collect()
}

/// Another event of the same row.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct NeighbourEvent {
    pub event: String,
    pub event_type: String,
    /// When it was first tried, as far as was looked.
    pub at: Timestamp,
    pub outcome: String,
}

/// The events of the same row that were tried before and after: those next to it, in the order of
/// their ids, which is that of their commits. Those that share a row of the push log are not found.
///
/// # Errors
/// That the rows could not be read.
pub(crate) async fn neighbours(
    client: &Client,
    slot: &str,
    of: &PushLogEntry,
) -> Result<(Vec<NeighbourEvent>, Vec<NeighbourEvent>), StateError> {
    let Some(row_key) = &of.row_key else { return Ok((Vec::new(), Vec::new())) };
    let earlier = side(client, slot, of, row_key, true).await?;
    Ok((earlier, side(client, slot, of, row_key, false).await?))
}

async fn side(
    client: &Client,
    slot: &str,
    of: &PushLogEntry,
    row_key: &str,
    is_earlier: bool,
) -> Result<Vec<NeighbourEvent>, StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    params.put(Type::TEXT, row_key);
    params.put(Type::TEXT, of.event.to_string());
    params.put(Type::TEXT, &of.table.schema);
    params.put(Type::TEXT, &of.table.name);
    params.put(Type::INT8, NEIGHBOURS_MAX);
    let (than, order) = if is_earlier { ("<", "DESC") } else { (">", "ASC") };
    let query = format!(
        "SELECT DISTINCT ON (event_id) event_id, event_type, created_at, outcome
           FROM walhook.push_log_events
          WHERE slot = $1 AND row_key = $2 AND event_id {than} $3
            AND table_schema = $4 AND table_name = $5
          ORDER BY event_id {order}, created_at DESC LIMIT $6"
    );
    let rows = client.query_typed(&query, &params.list()).await?;
    let neighbour = |row: &Row| {
        Ok(NeighbourEvent {
            event: read(row, "event_id")?,
            event_type: read(row, "event_type")?,
            at: read(row, "created_at")?,
            outcome: read(row, "outcome")?,
        })
    };
    rows.iter().map(neighbour).collect()
}
