//! Delivered events on their way out again: an operator's orders, worked off along the push log.
//!
//! ```text
//! order ─▶ walhook.replays ─ page of the push log ─▶ lane ─ outcomes ─▶ advance ─▶ next page
//! ```
//!
//! An order is one row, however many events it means: it says how far it has come, so that it goes
//! on after a crash and repeats at most the page that was under way. An event goes out once for each
//! order, from its first delivery in the range; what is sent by the order itself is not part of it.

mod deliveries;

use std::sync::Arc;

use tokio_postgres::Client;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::flow::event::EventId;
use crate::flow::time::Timestamp;
use crate::store::operator_orders::OrderTable;
use crate::store::ownership::StateOwnership;
use crate::store::progress::begin;
use crate::store::progress::guard;
use crate::store::sql::SqlParams;
use crate::store::sql::bigint;
use crate::store::sql::clean_unicode;
use crate::store::sql::int;
use crate::store::sql::read;
use crate::store::sql::unsigned;
use crate::store::sql::unsigned_int;
use crate::store::state_error::StateError;

pub(crate) use deliveries::LoggedDelivery;
pub(crate) use deliveries::ReplayShare;
pub(crate) use deliveries::kept_headers;
pub(crate) use deliveries::page;
pub(crate) use deliveries::survey;

/// Which deliveries are meant; a field that is `None` does not matter.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct ReplayFilter {
    pub endpoint: Option<String>,
    pub event: Option<EventId>,
    pub event_type: Option<String>,
    pub row_key: Option<String>,
    pub from: Option<Timestamp>,
    /// Never open: what an order sends is delivered as well.
    pub before: Timestamp,
}

/// How far an order may be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ReplayState {
    Running,
    /// Held back; it goes on where it is.
    Paused,
    Done,
    Cancelled,
}

impl ReplayState {
    pub(crate) const ALL: [Self; 4] = [Self::Running, Self::Paused, Self::Done, Self::Cancelled];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Done => "done",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What became of an order's events so far.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct ReplayTally {
    pub delivered: u64,
    pub expired: u64,
    pub failed: u64,
    pub without_body: u64,
}

/// How far an order has come in the push log.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct ReplayCursor {
    pub created_at: Timestamp,
    pub id: i64,
}

/// An order, for one endpoint.
#[derive(Clone, Debug)]
pub(crate) struct ReplayOrder {
    pub id: i64,
    /// Its endpoint is always there.
    pub filter: ReplayFilter,
    pub per_second: u32,
    pub state: ReplayState,
    pub created_at: Timestamp,
    pub finished_at: Option<Timestamp>,
    /// All attempts up to and including this one are dealt with.
    pub done: Option<ReplayCursor>,
    pub tally: ReplayTally,
}

const COLUMNS: &str = "id, endpoint, event_id, event_type, row_key, from_time, before_time, \
                       per_second, state, created_at, finished_at, done_time, done_id, delivered, \
                       expired, failed, without_body";

fn filter_params<'a>(slot: &'a str, filter: &ReplayFilter) -> SqlParams<'a> {
    let text = |text: &Option<String>| text.as_deref().map(|text| clean_unicode(text).into_owned());
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    params.put(Type::TEXT, text(&filter.endpoint));
    params.put(Type::TEXT, filter.event.map(|event| event.to_string()));
    params.put(Type::TEXT, text(&filter.event_type));
    params.put(Type::TEXT, text(&filter.row_key));
    params.put(Type::TIMESTAMPTZ, filter.from);
    params.put(Type::TIMESTAMPTZ, filter.before);
    params
}

/// Places an order for the endpoint of the filter, which has to be there.
///
/// # Errors
/// That the statement failed.
pub(crate) async fn order(
    client: &Client,
    slot: &str,
    filter: &ReplayFilter,
    per_second: u32,
    now: Timestamp,
) -> Result<ReplayOrder, StateError> {
    let mut params = filter_params(slot, filter);
    params.put(Type::INT4, int(per_second));
    params.put(Type::TIMESTAMPTZ, now);
    let insert = format!(
        "INSERT INTO walhook.replays (slot, endpoint, event_id, event_type, row_key, from_time,
                before_time, per_second, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING {COLUMNS}"
    );
    read_order(&client.query_typed_one(&insert, &params.list()).await?)
}

/// Orders, the newest first, at most `limit`; with an `id`, that one.
///
/// # Errors
/// That the rows could not be read.
pub(crate) async fn list(
    client: &Client,
    slot: &str,
    id: Option<i64>,
    limit: u32,
) -> Result<Vec<ReplayOrder>, StateError> {
    let table = OrderTable { name: "replays", columns: COLUMNS };
    table.list(client, slot, id, limit).await?.iter().map(read_order).collect()
}

/// Pauses an order that is running, or resumes one that is paused: from the one state to the other. Says
/// whether it was in the first. What is in a lane is still sent.
///
/// # Errors
/// That the statement failed.
pub(crate) async fn change_state(
    client: &Client,
    slot: &str,
    id: i64,
    (before, after): (ReplayState, ReplayState),
) -> Result<bool, StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    params.put(Type::INT8, id);
    params.put(Type::TEXT, before.as_str());
    params.put(Type::TEXT, after.as_str());
    let update = "UPDATE walhook.replays SET state = $4 WHERE slot = $1 AND id = $2 AND state = $3";
    Ok(client.execute_typed(update, &params.list()).await? == 1)
}

/// Stops an order that is running or held back, and says whether it was. What is in a lane is still sent.
///
/// # Errors
/// That the statement failed.
pub(crate) async fn cancel(
    client: &Client,
    slot: &str,
    id: i64,
    now: Timestamp,
) -> Result<bool, StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    params.put(Type::INT8, id);
    params.put(Type::TIMESTAMPTZ, now);
    let update = "UPDATE walhook.replays SET state = 'cancelled', finished_at = $3
                   WHERE slot = $1 AND id = $2 AND state IN ('running', 'paused')";
    Ok(client.execute_typed(update, &params.list()).await? == 1)
}

/// The endpoints with an order that is running.
///
/// # Errors
/// That the rows could not be read.
pub(crate) async fn waiting(client: &Client, slot: &str) -> Result<Vec<Arc<str>>, StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    let query = "SELECT DISTINCT endpoint FROM walhook.replays
                  WHERE slot = $1 AND state = 'running'";
    let rows = client.query_typed(query, &params.list()).await?;
    rows.iter().map(|row| Ok(read::<&str>(row, "endpoint")?.into())).collect()
}

/// The oldest running order of an endpoint.
///
/// # Errors
/// That the row could not be read.
pub(crate) async fn next(
    client: &Client,
    slot: &str,
    endpoint: &str,
) -> Result<Option<ReplayOrder>, StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    params.put(Type::TEXT, endpoint);
    let query = format!(
        "SELECT {COLUMNS} FROM walhook.replays
          WHERE slot = $1 AND endpoint = $2 AND state = 'running' ORDER BY id LIMIT 1"
    );
    let row = client.query_typed_opt(&query, &params.list()).await?;
    row.as_ref().map(read_order).transpose()
}

/// Notes what became of a page, or with `done` = `None` that there was nothing left.
///
/// # Errors
/// [`StateError::Fenced`], or that a statement failed.
pub(crate) async fn advance(
    client: &mut Client,
    ownership: &StateOwnership,
    id: i64,
    done: Option<ReplayCursor>,
    tally: ReplayTally,
    now: Timestamp,
) -> Result<(), StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, ownership.slot.as_ref());
    params.put(Type::INT8, id);
    params.put(Type::TIMESTAMPTZ, done.map(|done| done.created_at));
    params.put(Type::INT8, done.map(|done| done.id));
    for count in [tally.delivered, tally.expired, tally.failed, tally.without_body] {
        params.put(Type::INT8, bigint(count));
    }
    params.put(Type::TIMESTAMPTZ, now);
    let tx = begin(client).await?;
    guard(&tx, ownership).await?;
    tx.execute_typed(
        "UPDATE walhook.replays
            SET done_time = coalesce($3, done_time), done_id = coalesce($4, done_id),
                delivered = delivered + $5, expired = expired + $6, failed = failed + $7,
                without_body = without_body + $8,
                state = CASE WHEN $4::bigint IS NULL AND state = 'running' THEN 'done'
                             ELSE state END,
                finished_at = CASE WHEN $4::bigint IS NULL AND state = 'running' THEN $9
                                   ELSE finished_at END
          WHERE slot = $1 AND id = $2",
        &params.list(),
    )
    .await?;
    tx.commit().await?;
    Ok(())
}

fn read_order(row: &Row) -> Result<ReplayOrder, StateError> {
    let state: &str = read(row, "state")?;
    let event: Option<&str> = read(row, "event_id")?;
    let event = event.map(str::parse).transpose();
    let done: Option<(Timestamp, i64)> =
        read::<Option<Timestamp>>(row, "done_time")?.zip(read(row, "done_id")?);
    Ok(ReplayOrder {
        id: read(row, "id")?,
        filter: ReplayFilter {
            endpoint: read(row, "endpoint")?,
            event: event.map_err(|cause| StateError::unreadable("an event id", cause))?,
            event_type: read(row, "event_type")?,
            row_key: read(row, "row_key")?,
            from: read(row, "from_time")?,
            before: read(row, "before_time")?,
        },
        per_second: unsigned_int(row, "per_second")?,
        state: ReplayState::ALL
            .into_iter()
            .find(|known| known.as_str() == state)
            .ok_or_else(|| StateError::unreadable("a replay", "its state is unknown"))?,
        created_at: read(row, "created_at")?,
        finished_at: read(row, "finished_at")?,
        done: done.map(|(created_at, id)| ReplayCursor { created_at, id }),
        tally: ReplayTally {
            delivered: unsigned(row, "delivered")?,
            expired: unsigned(row, "expired")?,
            failed: unsigned(row, "failed")?,
            without_body: unsigned(row, "without_body")?,
        },
    })
}
