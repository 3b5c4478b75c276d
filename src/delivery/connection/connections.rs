//! The connections to one endpoint, or to all of one host and port. Those of HTTP/1.1 are made when none is free, kept while they
//! are used, and driven by the attempts themselves; one of HTTP/2 is shared (`multiplexed`).
//!
//! ```text
//! attempt ─ request ─▶ [idle, else dial] ─▶ response ─▶ attempt
//!                        ▲                     │
//!                        └ if it can be used on ┘
//! ```
//!
//! There is no task for an HTTP/1.1 connection and no hand-over between tasks: the attempt that uses it
//! polls it. An idle one is not polled, so whether it was closed meanwhile is looked at before it is used, and
//! from time to time.

use std::error::Error;
use std::future::Future;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::HeaderValue;
use http::Request;
use http::Response;
use http::Uri;
use http::header::HOST;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use tokio::time::Instant;

use crate::delivery::connection::dial::DialedStream;
use crate::delivery::connection::dial::EndpointDialer;
use crate::delivery::connection::http1_connection::FailedRequest;
use crate::delivery::connection::http1_connection::HeaderRoom;
use crate::delivery::connection::http1_connection::HttpConnection;
use crate::delivery::connection::multiplexed::Http2Connection;
use crate::delivery::connection::multiplexed::MultiplexedReady;
use crate::delivery::connection::streams::StreamPermit;
use crate::delivery::connection::transport_trouble::TransportTrouble;
use crate::delivery::request::body::OutgoingBody;
use crate::flow::verdict::AttemptReach;

/// By up to this share a connection's age falls short of the maximum.
const AGE_SPREAD: f64 = 0.25;

/// How often a request is sent again at once that the peer did not process; after that it waits.
const RESENDS_MAX: usize = 3;

/// How often to look for connections that are over, so that a closed one holds no socket for long.
pub(crate) const TIDY_EVERY: Duration = Duration::from_secs(5);

/// The connections of one endpoint, or of several that share them.
pub(crate) struct ConnectionPool {
    dialer: EndpointDialer,
    /// The last used one last. Never longer than the number of requests in flight was. Held only to
    /// put one in or take one out, so nobody ever waits for it.
    idle: Mutex<Vec<HttpConnection>>,
    /// A response had more headers than there is usually room for: so may the next have.
    has_many_headers: AtomicBool,
    /// When it was looked through last.
    tidied: Mutex<Instant>,
    /// Where HTTP/2 may be spoken.
    shared: Option<PoolShared>,
    /// No connection is used for longer: a host name may lead elsewhere by then.
    max_age: Duration,
}

/// HTTP/2 to an endpoint, and how requests name it in either version.
pub(crate) struct PoolShared {
    multiplexed: Http2Connection,
    absolute: Uri,
    host: HeaderValue,
}

/// What carries a response: it comes only while this is driven.
pub(crate) enum ConnectionCarrier {
    Own(HttpConnection),
    /// With a permit for a stream of the connection, which others may have after this.
    Shared {
        _permit: StreamPermit,
    },
}

impl ConnectionPool {
    pub(crate) fn new(
        dialer: EndpointDialer,
        shared: Option<PoolShared>,
        max_age: Duration,
    ) -> Self {
        let tidied = Mutex::new(Instant::now());
        let has_many_headers = AtomicBool::new(false);
        Self { dialer, idle: Mutex::default(), has_many_headers, tidied, shared, max_age }
    }

    /// Sends a request, `now`, and waits for its response to begin. The connection is given back with
    /// it: the rest of the response comes only while it is driven. `reach` says when it was not sent,
    /// or not processed.
    pub(crate) async fn send(
        &self,
        mut request: Request<OutgoingBody>,
        now: Instant,
        reach: &mut AttemptReach,
    ) -> Result<(Response<Incoming>, ConnectionCarrier), TransportTrouble> {
        let mut resends = 0;
        loop {
            // To make a connection is rare and takes far more memory than to use one: it is kept
            // apart, or each attempt would carry the room for it.
            let (connection, was_idle) = match (self.take_idle(now).await, &self.shared) {
                (Some(idle), _) => (idle, true),
                (None, None) => {
                    let dialed =
                        Box::pin(self.dialer.dial()).await.map_err(TransportTrouble::Connect)?;
                    (self.connect(dialed.stream).await?, false)
                }
                (None, Some(shared)) => {
                    let ready = shared.multiplexed.ready(&self.dialer, self.age(), reach);
                    match Box::pin(ready).await? {
                        MultiplexedReady::Alone(stream) => (self.connect(stream).await?, false),
                        MultiplexedReady::Multiplexed { sender, permit, number, is_new } => {
                            shared.as_version_2(&mut request);
                            let again = (resends < RESENDS_MAX).then(|| copy(&request));
                            let failed = match shared.send(sender, request).await {
                                Ok(response) => {
                                    return Ok((
                                        response,
                                        ConnectionCarrier::Shared { _permit: permit },
                                    ));
                                }
                                Err(failed) => failed,
                            };
                            request = match (refusal(failed.error()), again) {
                                // A new connection may be one that is being closed already.
                                (None, again) => {
                                    resends += usize::from(is_new);
                                    unsent(failed, !is_new || again.is_some())?
                                }
                                (Some(refusal), Some(again)) => {
                                    if refusal == Refusal::OfAll {
                                        shared.multiplexed.discard(number).await;
                                    }
                                    resends += 1;
                                    again
                                }
                                (Some(_), None) => {
                                    *reach = AttemptReach::Unprocessed;
                                    return Err(TransportTrouble::Unprocessed(failed.into_error()));
                                }
                            };
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
                    if connection.has_most_room() {
                        self.has_many_headers.store(true, Ordering::Relaxed);
                    }
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
        if !connection.is_recent(now) || self.dialer.is_scarce() {
            return;
        }
        // The first turn reads the end of the response, the second makes ready for a request.
        if connection.is_usable().await || connection.is_usable().await {
            connection.note_used(now);
            self.idle().push(connection);
        }
    }

    /// Closes connections that the peer has closed, that are too old, or that have not been used for
    /// longer than any may be. Each endpoint asks for it; once is enough.
    pub(crate) async fn tidy(&self) {
        if !self.is_untidy() {
            return;
        }
        if let Some(shared) = &self.shared {
            shared.multiplexed.tidy(self.dialer.is_scarce());
        }
        let (all, now) = (std::mem::take(&mut *self.idle()), Instant::now());
        for mut connection in all {
            let is_kept = connection.is_recent(now) && !self.dialer.is_scarce();
            if is_kept && connection.is_usable().await {
                self.idle().push(connection);
            }
        }
    }

    /// Closes all that are not used.
    pub(crate) fn close_idle(&self) {
        if let Some(shared) = &self.shared {
            shared.multiplexed.tidy(true);
        }
        self.idle().clear();
    }

    /// Whether nobody has tidied for [`TIDY_EVERY`], nearly: whoever asks first is the one.
    fn is_untidy(&self) -> bool {
        let (now, mut tidied) =
            (Instant::now(), self.tidied.lock().unwrap_or_else(PoisonError::into_inner));
        let is_due = now.saturating_duration_since(*tidied) >= TIDY_EVERY / 2;
        if is_due {
            *tidied = now;
        }
        is_due
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

    /// A new connection over a stream that is there.
    async fn connect(
        &self,
        stream: Box<dyn DialedStream>,
    ) -> Result<HttpConnection, TransportTrouble> {
        let room = match self.has_many_headers.load(Ordering::Relaxed) {
            true => HeaderRoom::Most,
            false => HeaderRoom::Usual,
        };
        HttpConnection::over(stream, room, self.age()).await
    }

    /// How old the next connection may become: endpoints that began together do not dial together.
    fn age(&self) -> Duration {
        self.max_age.mul_f64(1.0 - AGE_SPREAD * fastrand::f64())
    }

    fn idle(&self) -> MutexGuard<'_, Vec<HttpConnection>> {
        // Nothing can panic while it is held; the list is whole in any case.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the peer says that it did not process.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Refusal {
    /// This request.
    OfOne,
    /// All that comes: the connection is being closed.
    OfAll,
}

/// Whether the peer says that it did not process a request (RFC 9113, 8.7), or nobody can say.
fn refusal(error: &hyper::Error) -> Option<Refusal> {
    let said = error.source().and_then(|cause| cause.downcast_ref::<h2::Error>());
    match said {
        // Streams that it has processed, or still does, do not fail by this.
        Some(said) if said.is_remote() && said.is_go_away() => Some(Refusal::OfAll),
        Some(said) if said.is_remote() && said.reason() == Some(h2::Reason::REFUSED_STREAM) => {
            Some(Refusal::OfOne)
        }
        // The connection went while the request was on its way to it.
        None if error.is_user() => Some(Refusal::OfAll),
        _ => None,
    }
}

/// The same request once more. A body is shared, not copied.
fn copy(request: &Request<OutgoingBody>) -> Request<OutgoingBody> {
    let mut copy = Request::new(request.body().clone());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    copy
}

/// The request, if nothing of it was sent and another connection may do: this one was made for an
/// earlier request, and closed since.
fn unsent(
    mut failed: FailedRequest,
    may_repeat: bool,
) -> Result<Request<OutgoingBody>, TransportTrouble> {
    match failed.take_message() {
        Some(unsent) if may_repeat => Ok(unsent),
        _ => Err(TransportTrouble::Exchange(failed.into_error())),
    }
}

impl PoolShared {
    pub(crate) fn new(absolute: Uri, host: HeaderValue) -> Self {
        Self { multiplexed: Http2Connection::default(), absolute, host }
    }

    /// In HTTP/2 the target holds the host.
    fn as_version_2(&self, request: &mut Request<OutgoingBody>) {
        let mut parts = self.absolute.clone().into_parts();
        parts.path_and_query = request.uri().path_and_query().cloned().or(parts.path_and_query);
        // Scheme and authority are there, so it is one.
        *request.uri_mut() = Uri::from_parts(parts).unwrap_or_else(|_| self.absolute.clone());
        request.headers_mut().remove(HOST);
    }

    fn as_version_1(&self, request: &mut Request<OutgoingBody>) {
        if let Some(path) = request.uri().path_and_query().cloned() {
            *request.uri_mut() = Uri::from(path);
        }
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
            Self::Shared { .. } => work.await,
        }
    }
}
