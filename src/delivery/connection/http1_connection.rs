//! One HTTP/1.1 connection, driven by the attempt that uses it.
//!
//! hyper makes the room for a response's headers before it reads them. For its usual number that room is on the
//! stack; for more it is 64 bytes a header, written to with each response. So a connection has the usual room,
//! and a response that does not fit is read once more, from the bytes that came: nothing is sent again.

use std::future::Future;
use std::future::poll_fn;
use std::io;
use std::io::Cursor;
use std::pin::Pin;
use std::pin::pin;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::Response;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::io::ReadBuf;
use tokio::time::Instant;

use crate::delivery::connection::dial::DialedStream;
use crate::delivery::connection::transport_trouble::TransportTrouble;
use crate::delivery::request::body::OutgoingBody;

/// How long an unused connection is kept: less than the 60 s after which common load balancers
/// close theirs, so that a request seldom meets a connection that is just being closed.
const IDLE_MAX: Duration = Duration::from_secs(50);

/// The longest head of a response, and the most that is read or buffered for sending at a time.
const BUFFER_MAX_BYTES: usize = 256 * 1024;

/// The most headers of a response: what is longer than [`BUFFER_MAX_BYTES`] is refused in any case.
const HEADERS_MAX: usize = 1000;

/// How many headers of a response there is room for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum HeaderRoom {
    /// hyper's own number, 100.
    Usual,
    /// [`HEADERS_MAX`].
    Most,
}

/// A connection, in use or idle.
pub(crate) struct HttpConnection {
    sender: http1::SendRequest<OutgoingBody>,
    driver: Box<ConnectionDriver>,
    room: HeaderRoom,
    /// The driver has ended, and so has the connection.
    is_over: bool,
    used: Instant,
    /// It carries no further request from then on.
    until: Instant,
}

/// A request that got no response, and is given back if nothing of it was sent.
pub(crate) type FailedRequest = TrySendError<Request<OutgoingBody>>;

/// What moves the bytes.
type ConnectionDriver = http1::Connection<TokioIo<Box<dyn DialedStream>>, OutgoingBody>;

/// Bytes that can be read at the second try. hyper looks for bytes before it writes a request, and takes those
/// that are there for a response to nothing.
struct DeferredReader<R> {
    was_asked: bool,
    rest: R,
}

impl HttpConnection {
    /// Over a stream that is there. It carries no further request after `age`.
    pub(crate) async fn over(
        stream: Box<dyn DialedStream>,
        room: HeaderRoom,
        age: Duration,
    ) -> Result<Self, TransportTrouble> {
        Self::handshake(stream, room, age).await.map_err(TransportTrouble::Exchange)
    }

    async fn handshake(
        stream: Box<dyn DialedStream>,
        room: HeaderRoom,
        age: Duration,
    ) -> hyper::Result<Self> {
        let mut http = http1::Builder::new();
        http.max_buf_size(BUFFER_MAX_BYTES);
        if room == HeaderRoom::Most {
            http.max_headers(HEADERS_MAX);
        }
        // What curl takes as well, from servers that do not keep to the letter: `Name : value`, a value
        // that goes on in the next line.
        http.allow_spaces_after_header_name_in_responses(true);
        http.allow_obsolete_multiline_headers_in_responses(true);
        // A line that is no header says nothing: it is passed over.
        http.ignore_invalid_headers_in_responses(true);
        let (sender, driver) = http.handshake(TokioIo::new(stream)).await?;
        let (used, driver) = (Instant::now(), Box::new(driver));
        Ok(Self { sender, driver, room, is_over: false, used, until: used + age })
    }

    /// Sends a request and waits for its response to begin. The connection comes back with it: the rest of the
    /// response comes only while it is driven.
    pub(crate) async fn send(
        mut self,
        request: Request<OutgoingBody>,
    ) -> Result<(Response<Incoming>, Self), FailedRequest> {
        let sent = self.sender.try_send_request(request);
        match self.drive(sent).await {
            Ok(response) => Ok((response, self)),
            Err(failed)
                if self.room == HeaderRoom::Usual && failed.error().is_parse_too_large() =>
            {
                // Rare, and far larger than to send a request: kept apart from it.
                Box::pin(self.read_again(failed)).await
            }
            Err(failed) => Err(failed),
        }
    }

    /// Reads a response with all the room, from the bytes that came of it and those that still come. What is
    /// written, which is a request that only makes hyper read, goes nowhere, so the connection is not kept.
    async fn read_again(
        self,
        failed: FailedRequest,
    ) -> Result<(Response<Incoming>, Self), FailedRequest> {
        let parts = self.driver.into_parts();
        let rest = Cursor::new(parts.read_buf).chain(parts.io.into_inner());
        let stream = Box::new(tokio::io::join(DeferredReader::new(rest), tokio::io::sink()));
        let Ok(mut again) = Self::handshake(stream, HeaderRoom::Most, Duration::ZERO).await else {
            return Err(failed);
        };
        let sent = again.sender.try_send_request(Request::new(OutgoingBody::Whole(Bytes::new())));
        match again.drive(sent).await {
            Ok(response) => Ok((response, again)),
            Err(mut failed) => {
                // It is not the attempt's request.
                failed.take_message();
                Err(failed)
            }
        }
    }

    /// Waits for `work`, which needs this connection, and keeps it going meanwhile.
    pub(crate) async fn drive<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Pending if !self.is_over => {
                // Without a shutdown at its end: a head that is read again may still be on its way.
                self.is_over = self.driver.poll_without_shutdown(cx).is_ready();
                work.as_mut().poll(cx)
            }
            outcome => outcome,
        })
        .await
    }

    /// Does what can be done at once, and tells whether a request can be sent now. Never waits.
    pub(crate) async fn is_usable(&mut self) -> bool {
        poll_fn(|cx| {
            self.is_over = self.is_over || self.driver.poll_without_shutdown(cx).is_ready();
            Poll::Ready(!self.is_over && self.sender.is_ready())
        })
        .await
    }

    /// Whether it is neither too old nor unused for too long.
    pub(crate) fn is_recent(&self, now: Instant) -> bool {
        now < self.until && now.saturating_duration_since(self.used) < IDLE_MAX
    }

    /// A request has been carried, `now`.
    pub(crate) fn note_used(&mut self, now: Instant) {
        self.used = now;
    }

    /// Whether a response came that had more headers than there is usually room for.
    pub(crate) fn has_most_room(&self) -> bool {
        self.room == HeaderRoom::Most
    }
}

impl<R> DeferredReader<R> {
    fn new(rest: R) -> Self {
        Self { was_asked: false, rest }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for DeferredReader<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if std::mem::replace(&mut self.was_asked, true) {
            return Pin::new(&mut self.rest).poll_read(cx, buffer);
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
