//! The verdict on a response, by its status and body: delivered, to be tried again, dead. Pure.
//!
//! | reply | verdict |
//! | --- | --- |
//! | a status of the success rule (a list, else every 2xx), and a complete response | delivered |
//! | the same, but the response broke off or did not end in time | retry |
//! | 408, 425, 429, 5xx, or what `retry.on` lists; a 2xx that the rule refuses | retry, heeding `Retry-After` |
//! | 410 | gone, or dead where `gone` says so |
//! | every other status, redirects among them | dead |
//! | network, DNS, TLS, timeout, no HTTP; walhook's own means used up | retry |
//! | an address that is not dialled, a request that cannot be built | dead |

use std::time::Duration;

use http::StatusCode;

use crate::config::settings::AnswerRule;
use crate::config::settings::BodyRule;
use crate::config::settings::GoneMeaning;
use crate::config::settings::RetryOn;
use crate::flow::verdict::AttemptFailure;
use crate::flow::verdict::AttemptVerdict;
use crate::flow::verdict::FailureClass;

/// What came back.
#[derive(Clone, Debug)]
pub(crate) enum ResponseReply {
    Response {
        status: StatusCode,
        /// What the receiver asked for; see `retry_after`.
        retry_after: Option<Duration>,
        /// Why the rest of the response is missing.
        broken: Option<AttemptFailure>,
    },
    /// No response began.
    Nothing(AttemptFailure),
}

/// Decides about a reply under the endpoint's rule. `body` is as much of the response's as was
/// read; it counts only where the rule asks for it.
pub(crate) fn judge(
    reply: ResponseReply,
    body: &[u8],
    rule: &AnswerRule,
) -> (AttemptVerdict, Option<AttemptFailure>) {
    let failure = |detail| Some(AttemptFailure { class: FailureClass::Status, detail });
    match reply {
        // A refusal stands, whether or not its text came to an end.
        ResponseReply::Response { status, retry_after, broken: _ }
            if !is_success(status, &rule.success) =>
        {
            (refused(status, retry_after, rule), failure(describe(status)))
        }
        ResponseReply::Response { status, retry_after, broken: None } => match &rule.body {
            Some(expected) if !says(body, expected) => {
                // What the body says instead is the receiver's data, and stays out of logs.
                let detail = format!(
                    "{}, but its body does not say {} = {}",
                    describe(status),
                    expected.pointer,
                    expected.equals
                );
                (refused(status, retry_after, rule), failure(detail))
            }
            _ => (AttemptVerdict::Delivered, None),
        },
        ResponseReply::Response { broken: Some(failure), .. } | ResponseReply::Nothing(failure) => {
            (failed(failure.class), Some(failure))
        }
    }
}

fn is_success(status: StatusCode, success: &[u16]) -> bool {
    if success.is_empty() { status.is_success() } else { success.contains(&status.as_u16()) }
}

/// Whether an answer is JSON and says what it must. Numbers are compared by value: `0` and `0.0`
/// are one.
fn says(body: &[u8], rule: &BodyRule) -> bool {
    let answer: Option<serde_json::Value> = serde_json::from_slice(without_mark(body)).ok();
    let found = answer.as_ref().and_then(|answer| answer.pointer(&rule.pointer));
    found.is_some_and(|found| {
        *found == rule.equals || found.as_f64().is_some_and(|n| rule.equals.as_f64() == Some(n))
    })
}

/// The text without the byte order mark that some servers put before it.
pub(crate) fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text)
}

/// The verdict on an answer that is no success.
fn refused(status: StatusCode, at_least: Option<Duration>, rule: &AnswerRule) -> AttemptVerdict {
    let code = status.as_u16();
    let again = match &rule.retry {
        // A 2xx outside of the list is a receiver that is up and has not taken it.
        RetryOn::Usual => matches!(code, 200..300 | 408 | 425 | 429 | 500..600),
        RetryOn::Everything => true,
        RetryOn::Statuses(listed) => {
            status.is_success() || listed.iter().any(|range| range.contains(&code))
        }
    };
    match code {
        _ if again => AttemptVerdict::Retry { at_least },
        410 if rule.gone == GoneMeaning::Disable => AttemptVerdict::Gone,
        _ => AttemptVerdict::Dead,
    }
}

fn failed(class: FailureClass) -> AttemptVerdict {
    match class {
        FailureClass::Timeout
        | FailureClass::Dns
        | FailureClass::Connect
        | FailureClass::Tls
        | FailureClass::Protocol
        | FailureClass::Status
        | FailureClass::Local => AttemptVerdict::Retry { at_least: None },
        FailureClass::Refused | FailureClass::Request => AttemptVerdict::Dead,
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
