//! What one attempt came to.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;

/// What follows from an attempt.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
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
}

impl FailureClass {
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
pub struct Failure {
    pub class: FailureClass,
    pub detail: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.class, self.detail)
    }
}

/// Everything worth knowing about one attempt.
#[derive(Clone, Debug)]
pub struct Exchange {
    pub verdict: Verdict,
    pub failure: Option<Failure>,
    /// HTTP status, if a response began.
    pub status: Option<u16>,
    /// From the start of the attempt to the last byte of the response.
    pub took: Duration,
    /// As sent, with secret values masked.
    pub request_headers: Headers,
    pub response_headers: Headers,
    /// The first bytes of the response, up to the endpoint's limit.
    pub response_body: Bytes,
}

/// Names and values of headers, for people to read, in one piece of memory: they are kept for each
/// attempt, and read for few. Secret values are masked by whoever puts them in.
#[derive(Clone, Default, Eq, PartialEq)]
pub struct Headers {
    /// Name and value in turn, each with a NUL behind it, which neither can hold.
    text: String,
}

impl Headers {
    /// With room for this many bytes of names and values.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { text: String::with_capacity(bytes) }
    }

    /// Appends one. Of a value that is not UTF-8, the wrong bytes become U+FFFD.
    pub fn push(&mut self, name: &str, value: &[u8]) {
        // Checking a whole value is several times as fast as looking for its valid chunks.
        let value = match std::str::from_utf8(value) {
            Ok(text) => Cow::Borrowed(text),
            Err(_) => String::from_utf8_lossy(value),
        };
        debug_assert!(!name.contains('\0') && !value.contains('\0'), "no header holds a NUL");
        for piece in [name, "\0", &value, "\0"] {
            self.text.push_str(piece);
        }
    }

    /// In the order in which they were put in.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut pieces = self.text.split_terminator('\0');
        std::iter::from_fn(move || Some((pieces.next()?, pieces.next()?)))
    }

    /// Bytes of all names and values, and two more for each.
    pub fn len(&self) -> usize {
        self.text.len()
    }

    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_back_as_they_were_put_in() {
        let mut headers = Headers::default();
        let given =
            [("date", "Tue: today"), ("x-empty", ""), ("date", " : "), ("x-odd", "\u{FFFD}")];
        for (name, value) in given {
            let value = if name == "x-odd" { b"\xFF" } else { value.as_bytes() };
            headers.push(name, value);
        }
        assert_eq!(headers.iter().collect::<Vec<_>>(), given);
    }
}
