//! What became of an event at an endpoint.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::flow::event::Event;
use crate::flow::lease::Lease;
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
    pub holding: DurableIn,
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

/// Why a delivery was parked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ParkReason {
    /// Its next attempt is far away, or it was parked before and has failed again.
    Retry,
    /// An earlier delivery that it has to follow is parked.
    Behind,
    /// The endpoint is out of order.
    Outage,
    /// The lane had no room for it.
    Full,
    /// The endpoint is disabled.
    Disabled,
    /// An operator has paused the endpoint.
    Paused,
    /// Nobody delivers for the endpoint's partition.
    Unowned,
}

impl ParkReason {
    pub const ALL: [Self; 7] = [
        Self::Retry,
        Self::Behind,
        Self::Outage,
        Self::Full,
        Self::Disabled,
        Self::Paused,
        Self::Unowned,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Behind => "behind",
            Self::Outage => "outage",
            Self::Full => "full",
            Self::Disabled => "disabled",
            Self::Paused => "paused",
            Self::Unowned => "unowned",
        }
    }
}

/// Why a delivery was given up.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum DeathReason {
    /// The last retry failed.
    RetriesExhausted(AttemptFailure),
    /// The receiver refused it for good.
    Rejected(AttemptFailure),
    /// The endpoint said 410, now or earlier, and has not been enabled or changed since.
    EndpointGone,
    /// The endpoint was removed while the delivery waited.
    EndpointDeleted,
    /// The endpoint's backlog had more rows than its limit, and this was the oldest.
    BacklogFull,
    /// It was in the backlog for longer than the limit.
    BacklogTooOld,
    Poison(PoisonReason),
}

/// What is kept of an event whose body cannot be made.
const KEPT: &str = " in its own shape: what is kept, and sent if you send it again, is the row in the standard shape";

/// Why an event was set aside without an attempt.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PoisonReason {
    /// It cannot be rendered.
    Unrenderable,
    /// walhook has crashed over it again and again.
    Crashes,
    /// The same, while its body was made.
    CrashesInRendering,
    /// A filter takes more than one evaluation may, so nobody knows whether it is to be sent.
    Costly,
    /// A payload makes more of the row than a body may have.
    Oversize,
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
    pub fn is_empty(&self) -> bool {
        self.attempts.is_empty()
            && self.settlements.is_empty()
            && self.relayed.is_empty()
            && self.retired.is_none()
    }
}

impl fmt::Display for DeathReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RetriesExhausted(failure) => write!(f, "retries exhausted, last {failure}"),
            Self::Rejected(failure) => write!(f, "rejected, {failure}"),
            Self::EndpointGone => f.write_str("endpoint is gone (410)"),
            Self::EndpointDeleted => f.write_str("endpoint deleted"),
            Self::BacklogFull => f.write_str("the endpoint's backlog is full"),
            Self::BacklogTooOld => f.write_str("too long in the endpoint's backlog"),
            Self::Poison(PoisonReason::Unrenderable) => write!(f, "it cannot be rendered{KEPT}"),
            Self::Poison(PoisonReason::Costly) => f.write_str(
                "its filter takes more steps or memory than one evaluation may: simplify `when`, \
                 then send this again or discard it",
            ),
            Self::Poison(PoisonReason::Oversize) => f.write_str(
                "its payload makes more of this row than a body may have, 16 MiB and four times the \
                 row: name fewer columns, or each fewer times, in `payload`",
            ),
            Self::Poison(PoisonReason::Crashes) => {
                f.write_str("walhook crashed over it again and again")
            }
            Self::Poison(PoisonReason::CrashesInRendering) => {
                write!(f, "walhook crashed again and again when it was rendered{KEPT}")
            }
        }
    }
}
