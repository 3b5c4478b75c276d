//! The HTTP/2 connection to one endpoint: one for all of its requests, made by the first that
//! needs it, while the others wait.
//!
//! Unlike those of HTTP/1.1 it is nobody's own, so it has tasks; they end with it. It has a maximum age
//! as those have: what is in flight on an old one ends there, and what comes next makes another.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::Weak;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::client::conn::http2;
use hyper::client::conn::http2::SendRequest;
use hyper::rt::Executor;
use hyper_util::rt::TokioIo;
use hyper_util::rt::TokioTimer;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::delivery::connection::dial::DialedStream;
use crate::delivery::connection::dial::EndpointDialer;
use crate::delivery::connection::streams::STREAMS_AT_FIRST;
use crate::delivery::connection::streams::StreamPermit;
use crate::delivery::connection::streams::Streams;
use crate::delivery::connection::transport_trouble::TransportTrouble;
use crate::delivery::request::body::OutgoingBody;
use crate::flow::verdict::AttemptReach;

/// While requests are in flight, the peer is asked whether it is there, and given as long to answer:
/// otherwise a connection that has died would be noticed by all their deadlines only.
const PING_EVERY: Duration = Duration::from_secs(10);

/// What a peer may send before it is read. Responses are short.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;

/// The headers of a response in all.
const HEADERS_MAX_BYTES: u32 = 256 * 1024;

/// What a request waits for before it can be sent.
pub(crate) enum MultiplexedReady {
    /// `is_new`: this request made it. `number` names the connection.
    Multiplexed {
        sender: SendRequest<OutgoingBody>,
        permit: StreamPermit,
        number: u64,
        is_new: bool,
    },
    /// The peer speaks HTTP/1.1 only.
    Alone(Box<dyn DialedStream>),
}

#[derive(Default)]
pub(crate) struct Http2Connection {
    current: tokio::sync::Mutex<Option<Current>>,
    tasks: Arc<Mutex<JoinSet<()>>>,
    made: AtomicU64,
}

/// A connection that takes requests.
#[derive(Clone)]
struct Current {
    sender: SendRequest<OutgoingBody>,
    streams: Arc<Streams>,
    number: u64,
    /// It takes none from then on.
    until: Instant,
}

enum Connection {
    /// By this request, which has a permit for a stream of it.
    Made(MultiplexedReady),
    Open(Current),
}

impl Http2Connection {
    /// A permit for a stream of the connection, which is made if there is none. While the request waits
    /// for it, `reach` says that it was not sent.
    pub(crate) async fn ready(
        &self,
        dialer: &EndpointDialer,
        max_age: Duration,
        reach: &mut AttemptReach,
    ) -> Result<MultiplexedReady, TransportTrouble> {
        loop {
            let Current { sender, streams, number, .. } =
                match self.connection(dialer, max_age).await? {
                    Connection::Made(ready) => return Ok(ready),
                    Connection::Open(current) => current,
                };
            let before = std::mem::replace(reach, AttemptReach::Unprocessed);
            let permit = streams.enter().await;
            *reach = before;
            let is_new = false;
            match permit {
                Some(permit) => {
                    return Ok(MultiplexedReady::Multiplexed { sender, permit, number, is_new });
                }
                // It ended while this waited.
                None => self.discard(number).await,
            }
        }
    }

    /// Gives up a connection that has ended or come to its age, or that nobody uses while sockets
    /// are scarce. What is in flight on it ends there.
    pub(crate) fn tidy(&self, is_scarce: bool) {
        // The request that holds it is making one.
        let Ok(mut current) = self.current.try_lock() else { return };
        if current.as_ref().is_some_and(|c| !c.is_good() || (is_scarce && c.streams.is_idle())) {
            *current = None;
        }
    }

    /// No request is sent over this connection any more.
    pub(crate) async fn discard(&self, number: u64) {
        let mut current = self.current.lock().await;
        if current.as_ref().is_some_and(|current| current.number == number) {
            *current = None;
        }
    }

    /// The connection, which is made if there is none that takes requests.
    async fn connection(
        &self,
        dialer: &EndpointDialer,
        max_age: Duration,
    ) -> Result<Connection, TransportTrouble> {
        let mut current = self.current.lock().await;
        if let Some(current) = current.as_ref().filter(|current| current.is_good()) {
            return Ok(Connection::Open(current.clone()));
        }
        *current = None;
        let dialed = dialer.dial().await.map_err(TransportTrouble::Connect)?;
        if !dialed.http2 {
            return Ok(Connection::Made(MultiplexedReady::Alone(dialed.stream)));
        }
        let spawner = Spawner(Arc::downgrade(&self.tasks));
        let (sender, connection) = http2::Builder::new(spawner.clone())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_EVERY)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_header_list_size(HEADERS_MAX_BYTES)
            .initial_max_send_streams(STREAMS_AT_FIRST)
            .handshake(TokioIo::new(dialed.stream))
            .await
            .map_err(TransportTrouble::Exchange)?;
        let (streams, permit) = Streams::begin();
        let driven = Arc::clone(&streams);
        spawner.execute(async move {
            let mut connection = pin!(connection);
            let ended = loop {
                tokio::select! {
                    ended = &mut connection => break ended,
                    () = driven.wanted() => driven.allow(connection.current_max_send_streams()),
                }
            };
            driven.end();
            if let Err(error) = ended {
                tracing::debug!(%error, "an HTTP/2 connection ended");
            }
        });
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let until = Instant::now() + max_age;
        *current = Some(Current { sender: sender.clone(), streams, number, until });
        Ok(Connection::Made(MultiplexedReady::Multiplexed { sender, permit, number, is_new: true }))
    }
}

impl Current {
    fn is_good(&self) -> bool {
        !self.sender.is_closed() && Instant::now() < self.until
    }
}

/// Runs what belongs to the connection. Weak, because the tasks hold it themselves.
#[derive(Clone)]
struct Spawner(Weak<Mutex<JoinSet<()>>>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Spawner {
    fn execute(&self, future: F) {
        let Some(tasks) = self.0.upgrade() else { return };
        let mut tasks = tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(future);
    }
}
