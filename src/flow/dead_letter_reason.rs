//! Why a delivery was given up and is a dead letter, in the words of log, dead letter and page.

use std::fmt;

use crate::flow::verdict::AttemptFailure;

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
