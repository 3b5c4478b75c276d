//! The sums of all pushes of a slot, kept through restarts.
//!
//! The ledger adds to them in the transaction of its flush, as it does to the books: what was not flushed
//! comes again, and is counted then.

use std::ops::AddAssign;
use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::flow::time::Timestamp;
use crate::store::ownership::StateOwnership;
use crate::store::session::prepared_statements::StateTransaction;
use crate::store::sql::SqlParams;
use crate::store::sql::read;
use crate::store::state_error::StateError;

/// The sums, or what is added to them.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct PushTotals {
    pub succeeded: i64,
    /// Given up, and expired while the endpoint was down.
    pub failed: i64,
    /// Those of `succeeded` whose response time is known.
    pub timed: i64,
    pub response_micros: i64,
    /// When the last outcome was final.
    pub last_push: Option<Timestamp>,
}

impl PushTotals {
    /// A push was taken; `took` is its response time.
    pub fn succeeded(&mut self, took: Duration, now: Timestamp) {
        self.succeeded += 1;
        self.timed += 1;
        self.response_micros += i64::try_from(took.as_micros()).unwrap_or(i64::MAX);
        self.last_push = self.last_push.max(Some(now));
    }

    /// A push was given up, or is too late since its endpoint was down.
    pub fn failed(&mut self, now: Timestamp) {
        self.failed += 1;
        self.last_push = self.last_push.max(Some(now));
    }

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl AddAssign for PushTotals {
    fn add_assign(&mut self, more: Self) {
        let Self { succeeded, failed, timed, response_micros, last_push } = more;
        self.succeeded += succeeded;
        self.failed += failed;
        self.timed += timed;
        self.response_micros += response_micros;
        self.last_push = self.last_push.max(last_push);
    }
}

pub(crate) async fn add(
    tx: &StateTransaction<'_>,
    ownership: &StateOwnership,
    more: &PushTotals,
) -> Result<(), StateError> {
    if more.is_empty() {
        return Ok(());
    }
    let mut params = SqlParams::default();
    params.put(Type::TEXT, ownership.slot.as_ref());
    for count in [more.succeeded, more.failed, more.timed, more.response_micros] {
        params.put(Type::INT8, count);
    }
    params.put(Type::TIMESTAMPTZ, more.last_push);
    tx.execute(
        "INSERT INTO walhook.push_totals AS t (slot, succeeded, failed, timed, response_micros,
                last_push_at)
         VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (slot) DO UPDATE
            SET succeeded = t.succeeded + excluded.succeeded, failed = t.failed + excluded.failed,
                timed = t.timed + excluded.timed,
                response_micros = t.response_micros + excluded.response_micros,
                last_push_at = greatest(t.last_push_at, excluded.last_push_at)",
        &params,
    )
    .await?;
    Ok(())
}

/// The sums of a slot; nothing for one that has pushed nothing.
///
/// # Errors
/// That the row could not be read.
pub(crate) async fn load(client: &Client, slot: &str) -> Result<PushTotals, StateError> {
    let mut params = SqlParams::default();
    params.put(Type::TEXT, slot);
    let query = "SELECT succeeded, failed, timed, response_micros, last_push_at
           FROM walhook.push_totals WHERE slot = $1";
    let row = client.query_typed_opt(query, &params.list()).await?;
    let Some(row) = row else { return Ok(PushTotals::default()) };
    Ok(PushTotals {
        succeeded: read(&row, "succeeded")?,
        failed: read(&row, "failed")?,
        timed: read(&row, "timed")?,
        response_micros: read(&row, "response_micros")?,
        last_push: read(&row, "last_push_at")?,
    })
}
