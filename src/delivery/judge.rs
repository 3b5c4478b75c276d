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
mod tests {
    use super::*;

    fn status(code: u16) -> Reply {
        let status = StatusCode::from_u16(code).unwrap();
        Reply::Response { status, retry_after: None, broken: None }
    }

    fn failure(class: FailureClass) -> Failure {
        Failure { class, detail: String::from("it broke") }
    }

    fn broken(code: u16, class: FailureClass) -> Reply {
        let status = StatusCode::from_u16(code).unwrap();
        Reply::Response { status, retry_after: None, broken: Some(failure(class)) }
    }

    const RETRY: Verdict = Verdict::Retry { at_least: None };

    #[test]
    fn each_status_has_one_verdict() {
        for code in 100..=999 {
            let expected = match code {
                200..=299 => Verdict::Delivered,
                408 | 425 | 429 | 500..=599 => RETRY,
                410 => Verdict::Gone,
                _ => Verdict::Dead,
            };
            let (verdict, failure) = judge(status(code), &[]);
            assert_eq!(verdict, expected, "case: {code}");
            assert_eq!(failure.is_none(), verdict == Verdict::Delivered, "case: {code}");
        }
    }

    #[test]
    fn a_success_list_replaces_the_rule_that_every_2xx_is_good() {
        let cases = [
            (200, Verdict::Delivered),
            (201, RETRY),
            (409, Verdict::Delivered),
            (404, Verdict::Dead),
            (500, RETRY),
        ];
        for (code, expected) in cases {
            assert_eq!(judge(status(code), &[200, 409]).0, expected, "case: {code}");
        }
    }

    #[test]
    fn a_success_counts_only_when_complete_and_a_refusal_in_any_case() {
        let cases = [
            ("2xx cut off", broken(200, FailureClass::Protocol), RETRY, FailureClass::Protocol),
            ("2xx dripping", broken(204, FailureClass::Timeout), RETRY, FailureClass::Timeout),
            ("404", broken(404, FailureClass::Timeout), Verdict::Dead, FailureClass::Status),
            ("410", broken(410, FailureClass::Protocol), Verdict::Gone, FailureClass::Status),
            ("500", broken(500, FailureClass::Timeout), RETRY, FailureClass::Status),
        ];
        for (name, reply, expected, class) in cases {
            let (verdict, failure) = judge(reply, &[]);
            assert_eq!((verdict, failure.unwrap().class), (expected, class), "case: {name}");
        }
    }

    #[test]
    fn each_failure_has_one_verdict() {
        let cases = [
            (FailureClass::Timeout, RETRY),
            (FailureClass::Dns, RETRY),
            (FailureClass::Connect, RETRY),
            (FailureClass::Tls, RETRY),
            (FailureClass::Protocol, RETRY),
            (FailureClass::Refused, Verdict::Dead),
            (FailureClass::Request, Verdict::Dead),
        ];
        for (class, expected) in cases {
            let (verdict, kept) = judge(Reply::Nothing(failure(class)), &[]);
            assert_eq!((verdict, kept), (expected, Some(failure(class))), "case: {class}");
        }
    }

    #[test]
    fn a_wait_that_the_receiver_asks_for_is_kept_with_a_retry_only() {
        let wait = Some(Duration::from_secs(7));
        let with_wait = |code| {
            let status = StatusCode::from_u16(code).unwrap();
            judge(Reply::Response { status, retry_after: wait, broken: None }, &[]).0
        };
        assert_eq!(with_wait(429), Verdict::Retry { at_least: wait });
        assert_eq!(with_wait(503), Verdict::Retry { at_least: wait });
        assert_eq!(with_wait(404), Verdict::Dead);
    }

    #[test]
    fn retry_after_is_read_in_both_forms() {
        // 1994-11-06 08:49:37 UTC, the date of RFC 9110's examples.
        let now = Timestamp::from_micros(784_111_777_000_000 - 90_500_000);
        let seconds = |n| Some(Duration::from_secs(n));
        let cases = [
            ("120", seconds(120)),
            (" 0 ", seconds(0)),
            ("99999999999999999999999999", Some(RETRY_AFTER_MAX)),
            ("18446744073709551615", Some(RETRY_AFTER_MAX)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(Duration::from_millis(90_500))),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(Duration::from_millis(90_500))),
            ("Sun Nov  6 08:49:37 1994", Some(Duration::from_millis(90_500))),
            ("Sun, 06 Nov 1994 08:00:00 GMT", seconds(0)),
            ("Fri, 31 Dec 9999 23:59:59 GMT", Some(RETRY_AFTER_MAX)),
            ("-1", None),
            ("1.5", None),
            ("", None),
            ("soon", None),
        ];
        for (value, expected) in cases {
            assert_eq!(retry_after(value, now), expected, "case: {value:?}");
        }
    }
}
