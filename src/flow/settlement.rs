//! Settlements: what became of an event at an endpoint, and what keeps it until then.

use std::sync::Arc;
use std::time::Duration;

use crate::flow::dead_letter_reason::DeathReason;
use crate::flow::event::Event;
use crate::flow::lease::Lease;
use crate::flow::park_reason::ParkReason;
use crate::flow::relation::TableName;
use crate::flow::time::Timestamp;
use crate::flow::verdict::AttemptFailure;
use crate::flow::verdict::HttpExchange;

/// Names an endpoint while walhook runs: a dense number, given out when the endpoint is added, that
/// is never given out again.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct EndpointIndex(pub usize);

/// Names a delivery that an operator sends again.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum ReplayId {
    /// A dead letter, by its number. Its outcome counts in the books.
    Letter(i64),
    /// A delivery of the push log, by the number of its attempt. The books have it already.
    Logged(i64),
}

/// What keeps a delivery while it is owed, should walhook end: from there it comes again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DurableIn {
    /// The source's WAL, which cannot be confirmed before the delivery is settled or parked.
    Wal,
    /// Its row in the backlog.
    Backlog,
    /// The dead letter, or the row of the push log, that is sent again.
    Replay(ReplayId),
}

/// For this event and endpoint the WAL is owed nothing more.
///
/// All outcomes but [`DeliveryOutcome::Parked`] are final, and come once. A delivery that is parked stays
/// with its lane and is reported again: when another attempt has failed, and with its final outcome.
#[derive(Clone, Debug)]
pub struct Settlement {
    pub event: Arc<Event>,
    pub endpoint: EndpointIndex,
    pub outcome: DeliveryOutcome,
    /// What kept the delivery until this outcome: only what was held by the WAL is a step of the
    /// watermark, and only what was in the backlog has a row there.
    pub durable_in: DurableIn,
    /// Attempts that were made.
    pub attempts: u32,
    /// What failed attempts left behind; `None` if none failed.
    pub history: Option<Arc<AttemptHistory>>,
}

/// The failed attempts of a delivery, on the database's clock.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AttemptHistory {
    /// When the first attempt began.
    pub first_attempt: Timestamp,
    /// When the last failed attempt began.
    pub last_attempt: Timestamp,
    /// HTTP status of the last failure, if a response began.
    pub status: Option<u16>,
    /// The last failure.
    pub failure: AttemptFailure,
}

#[derive(Clone, Debug)]
pub enum DeliveryOutcome {
    /// `took` is the response time of the attempt that succeeded.
    Delivered { status: u16, took: Duration },
    /// Too old to be sent.
    Expired,
    /// The endpoint does not take it.
    Filtered,
    /// Given up.
    Dead { reason: DeathReason },
    /// It cannot be made promptly, and is kept in the backlog; `next_attempt` is on the database's
    /// clock, `None` means as soon as the endpoint takes it.
    Parked { next_attempt: Option<Timestamp>, reason: ParkReason },
}

/// One finished attempt, whatever came of it: for the push log and the metrics.
#[derive(Clone, Debug)]
pub struct DeliveryAttempt {
    pub endpoint: EndpointIndex,
    /// What was sent, and the number of the attempt.
    pub lease: Lease,
    pub exchange: HttpExchange,
    /// When its outcome was known, on the database's clock.
    pub finished: Timestamp,
    /// The wait before the next attempt, if there is one.
    pub retry_in: Option<Duration>,
}

/// A delivery that another member has settled: the WAL is owed nothing more for it.
#[derive(Clone, Debug)]
pub struct RelayedDelivery {
    /// Of the event.
    pub sequence: u64,
    pub endpoint: EndpointIndex,
    pub table: Arc<TableName>,
}

/// Bytes of a response that take as much room as an outcome with its event.
const ANSWER_BYTES_PER_ROW: usize = 4096;

/// What a lane has to tell the ledger at once. The attempts come before the settlements that
/// follow from them, both in the order in which they happened.
#[derive(Debug, Default)]
pub struct LaneReport {
    pub attempts: Vec<DeliveryAttempt>,
    pub settlements: Vec<Settlement>,
    /// What was handed over to the owner of a partition, who has settled it in books of its own.
    pub relayed: Vec<RelayedDelivery>,
    /// An endpoint that is no more: nothing is told of it after this.
    pub retired: Option<EndpointIndex>,
}

impl LaneReport {
    /// The room that it takes while it waits for the ledger: one for each attempt or outcome, and one for each
    /// [`ANSWER_BYTES_PER_ROW`] of their responses.
    pub fn room(&self) -> usize {
        let rows = self.attempts.len().max(self.settlements.len()).max(self.relayed.len());
        let answers = self.attempts.iter().map(|attempt| attempt.exchange.response_body.len());
        rows + answers.sum::<usize>() / ANSWER_BYTES_PER_ROW
    }

    pub fn is_empty(&self) -> bool {
        self.attempts.is_empty()
            && self.settlements.is_empty()
            && self.relayed.is_empty()
            && self.retired.is_none()
    }
}
