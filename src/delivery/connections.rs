//! The connections to one endpoint. Those of HTTP/1.1 are made when none is free, kept while they
//! are used, and driven by the attempts themselves; one of HTTP/2 is shared (`multiplexed`).
//!
//! ```text
//! attempt ─ request ─▶ [idle, else dial] ─▶ response ─▶ attempt
//!                        ▲                     │
//!                        └ if it can be used on ┘
//! ```
//!
//! There is no task for an HTTP/1.1 connection and no hand-over between tasks: whoever uses it polls
//! it. An idle one is not polled, so whether it was closed meanwhile is looked at before it is used, and
//! from time to time.

use std::future::Future;
use std::future::poll_fn;
use std::pin::Pin;
use std::pin::pin;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::task::Poll;
use std::time::Duration;

use http::HeaderValue;
use http::Request;
use http::Response;
use http::Uri;
use http::header::HOST;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1;
use hyper::client::conn::http2;
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use crate::delivery::body::OutgoingBody;
use crate::delivery::dial::DialError;
use crate::delivery::dial::DialedStream;
use crate::delivery::dial::EndpointDialer;
use crate::delivery::multiplexed::Http2Connection;
use crate::delivery::multiplexed::MultiplexedReady;

/// How long an unused connection is kept: less than the 60 s after which common load balancers
/// close theirs, so that a request seldom meets a connection that is just being closed.
const IDLE_MAX: Duration = Duration::from_secs(50);

/// How often to look for connections that are over, so that a closed one holds no socket for long.
pub(crate) const TIDY_EVERY: Duration = Duration::from_secs(5);

/// The longest head of a response, and the most that is read or buffered for sending at a time.
const BUFFER_MAX_BYTES: usize = 256 * 1024;

/// The most headers of a response: what is longer than [`BUFFER_MAX_BYTES`] is refused in any case.
const HEADERS_MAX: usize = 1000;

/// Why there is no response.
#[derive(Debug)]
pub(crate) enum TransportTrouble {
    /// No connection could be made.
    Connect(DialError),
    /// It broke, or what came was not HTTP.
    Exchange(hyper::Error),
}

/// The connections of one endpoint.
pub(crate) struct ConnectionPool {
    dialer: EndpointDialer,
    /// The last used one last. Never longer than the number of requests in flight was. Held only to
    /// put one in or take one out, so nobody ever waits for it.
    idle: Mutex<Vec<HttpConnection>>,
    /// Where HTTP/2 may be spoken.
    shared: Option<PoolShared>,
}

/// HTTP/2 to an endpoint, and how requests name it in either version.
pub(crate) struct PoolShared {
    multiplexed: Http2Connection,
    path: Uri,
    absolute: Uri,
    host: HeaderValue,
}

/// What carries a response: it comes only while this is driven.
pub(crate) enum ConnectionCarrier {
    Own(HttpConnection),
    Shared,
}

/// A connection, in use or idle.
pub(crate) struct HttpConnection {
    sender: http1::SendRequest<OutgoingBody>,
    driver: Pin<Box<ConnectionDriver>>,
    /// The driver has ended, and so has the connection.
    is_over: bool,
    used: Instant,
}

/// A request that got no response, and is given back if nothing of it was sent.
type FailedRequest = TrySendError<Request<OutgoingBody>>;

/// What moves the bytes.
type ConnectionDriver = http1::Connection<TokioIo<Box<dyn DialedStream>>, OutgoingBody>;

impl ConnectionPool {
    pub(crate) fn new(dialer: EndpointDialer, shared: Option<PoolShared>) -> Self {
        Self { dialer, idle: Mutex::default(), shared }
    }

    /// Sends a request, `now`, and waits for its response to begin. The connection is given back with
    /// it: the rest of the response comes only while it is driven.
    pub(crate) async fn send(
        &self,
        mut request: Request<OutgoingBody>,
        now: Instant,
    ) -> Result<(Response<Incoming>, ConnectionCarrier), TransportTrouble> {
        loop {
            // To make a connection is rare and takes far more memory than to use one: it is kept
            // apart, or each attempt would carry the room for it.
            let (connection, was_idle) = match (self.take_idle(now).await, &self.shared) {
                (Some(idle), _) => (idle, true),
                (None, None) => {
                    let dialed =
                        Box::pin(self.dialer.dial()).await.map_err(TransportTrouble::Connect)?;
                    (connect(dialed.stream).await?, false)
                }
                (None, Some(shared)) => {
                    match Box::pin(shared.multiplexed.ready(&self.dialer)).await? {
                        MultiplexedReady::Alone(stream) => (connect(stream).await?, false),
                        MultiplexedReady::Multiplexed { sender, is_new } => {
                            shared.as_version_2(&mut request);
                            match shared.send(sender, request).await {
                                Ok(response) => return Ok((response, ConnectionCarrier::Shared)),
                                Err(failed) => request = unsent(failed, !is_new)?,
                            }
                            continue;
                        }
                    }
                }
            };
            if let Some(shared) = &self.shared {
                shared.as_version_1(&mut request);
            }
            match connection.send(request).await {
                Ok((response, connection)) => {
                    return Ok((response, ConnectionCarrier::Own(connection)));
                }
                Err(failed) => request = unsent(failed, was_idle)?,
            }
        }
    }

    /// Makes a connection, and closes it.
    pub(crate) async fn reach(&self) -> Result<(), TransportTrouble> {
        self.dialer.dial().await.map(drop).map_err(TransportTrouble::Connect)
    }

    /// Keeps a connection for the next request, if it can carry one; `now` it carried one.
    pub(crate) async fn keep(&self, carrier: ConnectionCarrier, now: Instant) {
        let ConnectionCarrier::Own(mut connection) = carrier else { return };
        // The first turn reads the end of the response, the second makes ready for a request.
        if connection.is_usable().await || connection.is_usable().await {
            connection.used = now;
            self.idle().push(connection);
        }
    }

    /// Closes connections that the peer has closed or that have not been used for [`IDLE_MAX`].
    pub(crate) async fn tidy(&self) {
        let (all, now) = (std::mem::take(&mut *self.idle()), Instant::now());
        for mut connection in all {
            if connection.is_recent(now) && connection.is_usable().await {
                self.idle().push(connection);
            }
        }
    }

    /// The one that was used last, if it is still good.
    async fn take_idle(&self, now: Instant) -> Option<HttpConnection> {
        loop {
            let mut connection = self.idle().pop()?;
            if connection.is_recent(now) && connection.is_usable().await {
                return Some(connection);
            }
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<HttpConnection>> {
        // Nothing can panic while it is held; the list is whole in any case.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn connect(stream: Box<dyn DialedStream>) -> Result<HttpConnection, TransportTrouble> {
    let mut http = http1::Builder::new();
    http.max_buf_size(BUFFER_MAX_BYTES).max_headers(HEADERS_MAX);
    // What curl takes as well, from servers that do not keep to the letter: `Name : value`, and a value
    // that goes on in the next line.
    http.allow_spaces_after_header_name_in_responses(true);
    http.allow_obsolete_multiline_headers_in_responses(true);
    let made = http.handshake(TokioIo::new(stream)).await.map_err(TransportTrouble::Exchange)?;
    let (sender, driver) = made;
    Ok(HttpConnection { sender, driver: Box::pin(driver), is_over: false, used: Instant::now() })
}

/// The request, if nothing of it was sent and another connection may do: this one was made for an
/// earlier request, and closed since.
fn unsent(
    mut failed: FailedRequest,
    was_used: bool,
) -> Result<Request<OutgoingBody>, TransportTrouble> {
    match failed.take_message() {
        Some(unsent) if was_used => Ok(unsent),
        _ => Err(TransportTrouble::Exchange(failed.into_error())),
    }
}

impl PoolShared {
    pub(crate) fn new(path: Uri, absolute: Uri, host: HeaderValue) -> Self {
        Self { multiplexed: Http2Connection::default(), path, absolute, host }
    }

    /// In HTTP/2 the target holds the host.
    fn as_version_2(&self, request: &mut Request<OutgoingBody>) {
        *request.uri_mut() = self.absolute.clone();
        request.headers_mut().remove(HOST);
    }

    fn as_version_1(&self, request: &mut Request<OutgoingBody>) {
        *request.uri_mut() = self.path.clone();
        request.headers_mut().insert(HOST, self.host.clone());
    }

    async fn send(
        &self,
        mut sender: http2::SendRequest<OutgoingBody>,
        request: Request<OutgoingBody>,
    ) -> Result<Response<Incoming>, FailedRequest> {
        // What is not ready has ended, and gives the request back.
        let _ended = sender.ready().await;
        sender.try_send_request(request).await
    }
}

impl ConnectionCarrier {
    /// Waits for `work`, which needs this connection, and keeps it going meanwhile.
    pub(crate) async fn drive<T>(&mut self, work: impl Future<Output = T>) -> T {
        match self {
            Self::Own(connection) => connection.drive(work).await,
            Self::Shared => work.await,
        }
    }
}

impl HttpConnection {
    async fn send(
        mut self,
        request: Request<OutgoingBody>,
    ) -> Result<(Response<Incoming>, Self), FailedRequest> {
        let sent = self.sender.try_send_request(request);
        self.drive(sent).await.map(|response| (response, self))
    }

    async fn drive<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Pending if !self.is_over => {
                self.is_over = self.driver.as_mut().poll(cx).is_ready();
                work.as_mut().poll(cx)
            }
            outcome => outcome,
        })
        .await
    }

    /// Does what can be done at once, and tells whether a request can be sent now. Never waits.
    async fn is_usable(&mut self) -> bool {
        poll_fn(|cx| {
            self.is_over = self.is_over || self.driver.as_mut().poll(cx).is_ready();
            Poll::Ready(!self.is_over && self.sender.is_ready())
        })
        .await
    }

    fn is_recent(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.used) < IDLE_MAX
    }
}
