//! The HTTP/2 connection to one endpoint: one for all of its requests, made by whoever needs it
//! first, while the others wait.
//!
//! Unlike those of HTTP/1.1 it is nobody's own, so it has tasks; they end with it.

use std::future::Future;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::Weak;
use std::time::Duration;

use hyper::client::conn::http2;
use hyper::client::conn::http2::SendRequest;
use hyper::rt::Executor;
use hyper_util::rt::TokioIo;
use hyper_util::rt::TokioTimer;
use tokio::task::JoinSet;

use crate::delivery::body::OutgoingBody;
use crate::delivery::connections::TransportTrouble;
use crate::delivery::dial::DialedStream;
use crate::delivery::dial::EndpointDialer;

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
    /// `is_new`: this request made it.
    Multiplexed { sender: SendRequest<OutgoingBody>, is_new: bool },
    /// The peer speaks HTTP/1.1 only.
    Alone(Box<dyn DialedStream>),
}

#[derive(Default)]
pub(crate) struct Http2Connection {
    current: tokio::sync::Mutex<Option<SendRequest<OutgoingBody>>>,
    tasks: Arc<Mutex<JoinSet<()>>>,
}

impl Http2Connection {
    /// The connection, made if there is none.
    pub(crate) async fn ready(
        &self,
        dialer: &EndpointDialer,
    ) -> Result<MultiplexedReady, TransportTrouble> {
        let mut current = self.current.lock().await;
        if let Some(sender) = current.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(MultiplexedReady::Multiplexed { sender: sender.clone(), is_new: false });
        }
        let dialed = dialer.dial().await.map_err(TransportTrouble::Connect)?;
        if !dialed.http2 {
            return Ok(MultiplexedReady::Alone(dialed.stream));
        }
        let spawner = Spawner(Arc::downgrade(&self.tasks));
        let (sender, connection) = http2::Builder::new(spawner.clone())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_EVERY)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_header_list_size(HEADERS_MAX_BYTES)
            .handshake(TokioIo::new(dialed.stream))
            .await
            .map_err(TransportTrouble::Exchange)?;
        spawner.execute(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "an HTTP/2 connection ended");
            }
        });
        *current = Some(sender.clone());
        Ok(MultiplexedReady::Multiplexed { sender, is_new: true })
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
