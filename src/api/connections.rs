//! The connections of the HTTP surface: how many, for how long, and how they end.
//!
//! ```text
//! accept ─▶ [connections] ─▶ a task for each ─▶ routes
//! ```
//!
//! A client that holds half a request open must not keep `/health` from being answered, nor a shutdown
//! from ending. So heads have a deadline; where the limit is reached, the connection that has been
//! waiting for a request for the longest makes room; and where all of them are being answered, the
//! last few places are for [`ESSENTIAL`] alone.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::IntoResponse;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::rt::TokioTimer;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tower_service::Service;

use crate::api::answers::problem::ProblemResponse;
use crate::api::refusals::RefusalCounter;

/// Connections at a time: half of the files that a process may have open by default.
const CONNECTIONS_MAX: usize = 512;
/// Further ones, for what looks after the process.
const RESERVE: usize = 32;
/// What those may ask.
const ESSENTIAL: [&str; 2] = ["/health", "/ready"];

/// From one request, or from the start, to the last byte of the next one's head.
const HEAD_TIME: Duration = Duration::from_secs(30);
/// For what is being answered when walhook ends; the rest is closed at once.
const END_TIME: Duration = Duration::from_millis(500);
/// Before the next try when the system gives no connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a connection is doing, as a number: the least is the first to make room.
const WAITS_FOR_FIRST: u8 = 0;
const WAITS: u8 = 1;
const ANSWERS: u8 = 2;

/// The state of the connection that a request came by; an extension of the request.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionLink {
    state: Arc<AtomicU8>,
    /// One of the last few places.
    reserved: bool,
}

/// A handler is at work for a connection, which is left alone until this is dropped.
#[derive(Debug)]
pub(crate) struct AnsweringGuard(ConnectionLink);

impl ConnectionLink {
    pub(crate) fn answering(&self) -> AnsweringGuard {
        self.state.store(ANSWERS, Ordering::Relaxed);
        AnsweringGuard(self.clone())
    }
}

impl Drop for AnsweringGuard {
    fn drop(&mut self) {
        self.0.state.store(WAITS, Ordering::Relaxed);
    }
}

/// The open connections, in the order in which they came.
#[derive(Debug, Default)]
struct OpenConnections(Mutex<BTreeMap<u64, (Arc<AtomicU8>, CancellationToken)>>);

impl OpenConnections {
    fn enter(&self, number: u64, state: &Arc<AtomicU8>, close: &CancellationToken) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.insert(number, (Arc::clone(state), close.clone()));
    }

    fn leave(&self, number: u64) -> bool {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.remove(&number).is_some()
    }

    fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Closes the connection that can best be spared; `false` if all are being answered.
    fn make_room(&self) -> bool {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let state = |state: &Arc<AtomicU8>| state.load(Ordering::Relaxed);
        let spared = open.iter().map(|(number, (of, _))| (state(of), *number)).min();
        let Some((_, number)) = spared.filter(|(state, _)| *state != ANSWERS) else { return false };
        // No longer counted from here on, though its task ends a moment later.
        if let Some((_, close)) = open.remove(&number) {
            close.cancel();
        }
        true
    }
}

/// Serves until `stop` is cancelled, and a moment longer what is being answered then.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    refusals: RefusalCounter,
    stop: CancellationToken,
) {
    let open = Arc::new(OpenConnections::default());
    let mut tasks = JoinSet::new();
    let mut number = 0_u64;
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_ended) = tasks.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            // There are no files left, or the peer has gone: an idle connection may help.
            Err(error) => {
                tracing::debug!(%error, "cannot accept a connection");
                open.make_room();
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let full = open.count() >= CONNECTIONS_MAX;
        let made_room = full && open.make_room();
        if full {
            refusals.note_of("connections", Some(peer));
        }
        if full && !made_room && open.count() >= CONNECTIONS_MAX + RESERVE {
            continue;
        }
        let link = ConnectionLink { state: Arc::default(), reserved: full && !made_room };
        number += 1;
        let close = CancellationToken::new();
        open.enter(number, &link.state, &close);
        let (open, own, router, stop) = (Arc::clone(&open), number, router.clone(), stop.clone());
        let refusals = refusals.clone();
        tasks.spawn(async move {
            let first = Arc::clone(&link.state);
            let serve = converse(stream, peer, link, router, stop);
            tokio::select! {
                ended = serve => {
                    let too_late = ended.is_err_and(|error| error.is_timeout());
                    if too_late && first.load(Ordering::Relaxed) == WAITS_FOR_FIRST {
                        refusals.note_of("slow", Some(peer));
                    }
                }
                () = close.cancelled() => {}
            }
            open.leave(own);
        });
    }
    drop(listener);
    let rest = async { while tasks.join_next().await.is_some() {} };
    // What is left is of peers that do not go on.
    drop(timeout(END_TIME, rest).await);
}

/// One connection, until its peer leaves it, its deadline is over or walhook ends.
async fn converse(
    stream: TcpStream,
    peer: SocketAddr,
    link: ConnectionLink,
    router: Router,
    stop: CancellationToken,
) -> hyper::Result<()> {
    // Answers are written whole.
    stream.set_nodelay(true).ok();
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        request.extensions_mut().insert(link.clone());
        link.state.fetch_max(WAITS, Ordering::Relaxed);
        router.clone().call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}

/// Keeps the last few places for [`ESSENTIAL`].
pub(crate) async fn keep_reserve(request: Request, next: Next) -> Response {
    let link = request.extensions().get::<ConnectionLink>();
    if link.is_some_and(|link| link.reserved) && !ESSENTIAL.contains(&request.uri().path()) {
        let detail =
            "too many connections are open: close those that are not needed, and ask again";
        let close = [(axum::http::header::CONNECTION, "close")];
        let problem = ProblemResponse::new(StatusCode::SERVICE_UNAVAILABLE, detail);
        return (close, problem).into_response();
    }
    next.run(request).await
}
