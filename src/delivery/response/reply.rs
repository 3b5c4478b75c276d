//! What is read of a response, within limits whatever the receiver sends.
//!
//! The body is read to its end, since the deadline covers it, but only the first bytes are kept.
//! One that is longer than [`READ_MAX_BYTES`] is not read on: the connection is closed, and the
//! status decides as if it had ended. A slow one without end runs into the deadline instead.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http::StatusCode;
use http::header::RETRY_AFTER;
use http_body::Body;
use hyper::body::Incoming;

use crate::delivery::connection::transport_failure::classify;
use crate::delivery::connection::transport_trouble::TransportTrouble;
use crate::delivery::request::headers;
use crate::delivery::response::reply_verdict::ResponseReply;
use crate::delivery::response::retry_after::retry_after;
use crate::flow::headers::HeaderLines;
use crate::flow::time::Timestamp;
use crate::flow::verdict::AttemptFailure;
use crate::flow::verdict::FailureClass;

/// The longest body that is read to its end. Reading on costs less than a new connection up to
/// about this size; beyond, it is a download page.
const READ_MAX_BYTES: usize = 1024 * 1024;

/// How much of the response's headers is kept.
const HEADERS_MAX_BYTES: usize = 16 * 1024;

/// As much as has arrived of a response. It outlives the reading, which the deadline may end.
#[derive(Debug, Default)]
pub(crate) struct SeenResponse {
    pub(crate) status: Option<StatusCode>,
    pub(crate) headers: HeaderLines,
    /// The first bytes, up to the endpoint's limit.
    pub(crate) body: Vec<u8>,
    retry_after: Option<Duration>,
}

impl SeenResponse {
    /// Reads a response into `self`, keeping up to `limit` bytes of its body.
    pub(crate) async fn read(
        &mut self,
        response: Response<Incoming>,
        limit: usize,
        now: Timestamp,
    ) -> Result<(), AttemptFailure> {
        self.status = Some(response.status());
        self.headers = headers::shown(response.headers(), HEADERS_MAX_BYTES);
        let asked = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        self.retry_after = asked.and_then(|value| retry_after(value, now));
        let mut read = 0;
        let mut body = response.into_body();
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            let frame = frame.map_err(|error| classify(&TransportTrouble::Exchange(error)))?;
            // What is not data are trailers, which nobody asked for.
            let Ok(chunk) = frame.into_data() else { continue };
            read += chunk.len();
            let room = limit.saturating_sub(self.body.len()).min(chunk.len());
            self.body.extend_from_slice(chunk.get(..room).unwrap_or_default());
            if read > READ_MAX_BYTES.max(limit) {
                break;
            }
        }
        Ok(())
    }

    /// What came back, given how the exchange ended. The body stays behind for the books.
    pub(crate) fn reply(&self, ended: Result<(), AttemptFailure>) -> ResponseReply {
        match (self.status, ended) {
            (Some(status), ended) => ResponseReply::Response {
                status,
                retry_after: self.retry_after,
                broken: ended.err(),
            },
            (None, Err(failure)) => ResponseReply::Nothing(failure),
            (None, Ok(())) => ResponseReply::Nothing(AttemptFailure {
                class: FailureClass::Protocol,
                detail: String::from("no response began"),
            }),
        }
    }

    /// The first bytes of the body, up to `limit`.
    pub(crate) fn into_body(mut self, limit: usize) -> Bytes {
        self.body.truncate(limit);
        Bytes::from(self.body)
    }
}
