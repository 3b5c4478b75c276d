//! The verdict of one attempt, with the class and text of a failure.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use crate::flow::headers::HeaderLines;

/// What follows from an attempt.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum AttemptVerdict {
    Delivered,
    /// Try again, not sooner than `at_least` if the receiver asked for a wait.
    Retry {
        at_least: Option<Duration>,
    },
    /// Trying again cannot help.
    Dead,
    /// The receiver said that it is gone for good (410): dead, and so is the endpoint.
    Gone,
}

/// How far an attempt came, and so whether it is one of those that the endpoint's retries allow.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum AttemptReach {
    /// To the endpoint, or to what answers for its name and address: it counts.
    #[default]
    Endpoint,
    /// To the endpoint, which takes nothing more for as long as it says: it counts, and the endpoint
    /// is left alone.
    Throttled,
    /// The endpoint's side says that it was not processed, or nothing was there to be sent it with,
    /// as a token that has run out: it does not count.
    Unprocessed,
    /// Not out of walhook, which has no means left: it does not count, and says nothing of the
    /// endpoint.
    Nowhere,
}

/// Why an attempt failed, in a few words that dashboards can group by.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum FailureClass {
    /// Any status that the success rule refuses.
    Status,
    /// The deadline passed before the response was complete.
    Timeout,
    /// Name resolution failed.
    Dns,
    /// The connection could not be made.
    Connect,
    /// The TLS handshake or certificate was refused.
    Tls,
    /// The connection broke, or what came was not HTTP.
    Protocol,
    /// The address is one that walhook does not dial.
    Refused,
    /// The request could not be built.
    Request,
    /// walhook has no means left to make it: file descriptors, or look-ups.
    Local,
}

impl FailureClass {
    /// What [`FailureClass::as_str`] can give.
    pub const NAMES: [&str; 9] =
        ["status", "timeout", "dns", "connect", "tls", "protocol", "refused", "request", "local"];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Timeout => "timeout",
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Protocol => "protocol",
            Self::Refused => "refused",
            Self::Request => "request",
            Self::Local => "local",
        }
    }
}

impl fmt::Display for FailureClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why an attempt failed. `detail` holds no URL, secret or row data.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AttemptFailure {
    pub class: FailureClass,
    pub detail: String,
}

impl fmt::Display for AttemptFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.class, self.detail)
    }
}

/// Everything worth knowing about one attempt.
#[derive(Clone, Debug)]
pub struct HttpExchange {
    pub verdict: AttemptVerdict,
    /// Of no meaning but for [`AttemptVerdict::Retry`].
    pub reach: AttemptReach,
    /// How many requests were made: a message of a channel may go in several pieces.
    pub requests: u32,
    pub failure: Option<AttemptFailure>,
    /// HTTP status, if a response began.
    pub status: Option<u16>,
    /// From the start of the attempt to the last byte of the response.
    pub took: Duration,
    /// As sent, with secret values masked.
    pub request_headers: HeaderLines,
    pub response_headers: HeaderLines,
    /// The first bytes of the response, up to the endpoint's limit.
    pub response_body: Bytes,
}
