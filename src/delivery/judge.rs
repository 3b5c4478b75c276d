//! What follows from a reply. Pure.
//!
//! | reply | verdict |
//! | --- | --- |
//! | a status of the success rule (a list, else every 2xx), and a complete response | delivered |
//! | the same, but the response broke off or did not end in time | retry |
//! | 408, 425, 429, 5xx; a 2xx that the success list leaves out | retry, heeding `Retry-After` |
//! | 410 | gone |
//! | every other status, redirects among them | dead |
//! | network, DNS, TLS, timeout, no HTTP | retry |
//! | an address that is not dialled, a request that cannot be built | dead |

use std::time::Duration;
use std::time::UNIX_EPOCH;

use http::StatusCode;

use crate::flow::time::Timestamp;
use crate::flow::verdict::Failure;
use crate::flow::verdict::FailureClass;
use crate::flow::verdict::Verdict;

/// Whatever a receiver asks for, no wait is longer. The lane's own cap is far below; this one
/// keeps sums of times away from overflow.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// What came back.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    Response {
        status: StatusCode,
        /// What the receiver asked for; see [`retry_after`].
        retry_after: Option<Duration>,
        /// Why the rest of the response is missing.
        broken: Option<Failure>,
    },
    /// No response began.
    Nothing(Failure),
}

/// Decides about a reply under the endpoint's success rule.
pub(crate) fn judge(reply: Reply, success: &[u16]) -> (Verdict, Option<Failure>) {
    match reply {
        // A refusal stands, whether or not its text came to an end.
        Reply::Response { status, retry_after, broken: _ } if !is_success(status, success) => {
            let failure = Failure { class: FailureClass::Status, detail: describe(status) };
            (refused(status, retry_after), Some(failure))
        }
        Reply::Response { broken: None, .. } => (Verdict::Delivered, None),
        Reply::Response { broken: Some(failure), .. } | Reply::Nothing(failure) => {
            (failed(failure.class), Some(failure))
        }
    }
}

/// Reads a `Retry-After` header: seconds, or an HTTP date, which is taken against `now`. `None` if
/// it is neither.
pub(crate) fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // Only a number beyond 64 bits fails here.
        let seconds = value.parse().unwrap_or(u64::MAX);
        return Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    let since_epoch = date.duration_since(UNIX_EPOCH).ok()?;
    let at = Timestamp::from_seconds(i64::try_from(since_epoch.as_secs()).ok()?);
    Some(at.since(now).min(RETRY_AFTER_MAX))
}

fn is_success(status: StatusCode, success: &[u16]) -> bool {
    if success.is_empty() { status.is_success() } else { success.contains(&status.as_u16()) }
}

/// The verdict on a status that is no success.
fn refused(status: StatusCode, at_least: Option<Duration>) -> Verdict {
    match status.as_u16() {
        410 => Verdict::Gone,
        // A 2xx outside of the list is a receiver that is up and has not taken it.
        200..300 | 408 | 425 | 429 | 500..600 => Verdict::Retry { at_least },
        _ => Verdict::Dead,
    }
}

fn failed(class: FailureClass) -> Verdict {
    match class {
        FailureClass::Timeout
        | FailureClass::Dns
        | FailureClass::Connect
        | FailureClass::Tls
        | FailureClass::Protocol
        | FailureClass::Status => Verdict::Retry { at_least: None },
        FailureClass::Refused | FailureClass::Request => Verdict::Dead,
    }
}

fn describe(status: StatusCode) -> String {
    let code = status.as_str();
    match status.canonical_reason() {
        Some(_) if status.is_redirection() => format!("{code}, redirects are not followed"),
        Some(reason) => format!("{code} {reason}"),
        None => code.to_owned(),
    }
}

#[cfg(test)]
mod tests;
