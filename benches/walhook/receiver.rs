//! The receiver: a plain hyper server on a thread of its own that takes everything with 200.
//!
//! It is also what the comparison clients post to, so that its own cost is in both figures.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use bytes::Bytes;
use futures_util::future;
use http::HeaderMap;
use http::Request;
use http::Response;
use http::StatusCode;
use http_body_util::BodyExt;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use walhook::testing::listen_socket;

use crate::identity::Identity;

/// Endpoints that are counted apart: `/in/0` to `/in/15`.
pub(crate) const PATHS_MAX: usize = 16;

/// `/slow/N` answers after N milliseconds, and counts like `/in/0`.
pub(crate) const SLOW: &str = "/slow/";

/// Counts like `/in/0` while [`Receiver::open_gate`] says so, and refuses with 503 otherwise.
pub(crate) const GATE: &str = "/gate";

/// Takes requests but never answers them.
pub(crate) const HANG: &str = "/hang";

/// Counts like `/in/0` and measures the time since the row's `sent_at`.
pub(crate) const TIMED: &str = "/timed";

/// How the rows say when their statement began; see [`Receiver::clock`].
const SENT_AT: &[u8] = b"\"sent_at\":";

/// So many ports beside, for endpoints of which each has a host of its own.
pub(crate) const HOSTS: usize = 200;

/// Runs until the process ends.
#[derive(Clone)]
pub(crate) struct Receiver {
    address: SocketAddr,
    hosts: Vec<SocketAddr>,
    tls_address: SocketAddr,
    books: Arc<Books>,
}

struct Books {
    /// The next request is kept as a sample.
    wants_sample: AtomicBool,
    /// The zero of `sent_at`.
    epoch: Instant,
    is_gate_open: AtomicBool,
    events: AtomicU64,
    by_path: [AtomicU64; PATHS_MAX],
    latencies: Mutex<Vec<Duration>>,
    sample: Mutex<Option<Sample>>,
}

/// A request as walhook makes it.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Receiver {
    /// Over TLS it shows the certificate of `identity`.
    pub(crate) fn start(identity: &Identity) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let entered = runtime.enter();
        let listen = || listen_socket::open((Ipv4Addr::LOCALHOST, 0).into());
        let (listener, tls_listener) = (listen()?, listen()?);
        let (address, tls_address) = (listener.local_addr()?, tls_listener.local_addr()?);
        let apart = (0..HOSTS).map(|_| listen()).collect::<Result<Vec<_>, _>>()?;
        drop(entered);
        let hosts = apart.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?;
        let acceptor = identity.acceptor()?;
        let books = Arc::new(Books {
            wants_sample: AtomicBool::new(false),
            epoch: Instant::now(),
            is_gate_open: AtomicBool::new(false),
            events: AtomicU64::new(0),
            by_path: Default::default(),
            latencies: Mutex::default(),
            sample: Mutex::default(),
        });
        let kept = Arc::clone(&books);
        let thread = thread::Builder::new().name(String::from("receiver"));
        thread.spawn(move || {
            let plain = serve(&listener, None, &books);
            let tls = serve(&tls_listener, Some(acceptor), &books);
            let apart = future::join_all(apart.iter().map(|host| serve(host, None, &books)));
            runtime.block_on(future::join3(plain, tls, apart))
        })?;
        Ok(Self { address, hosts, tls_address, books: kept })
    }

    pub(crate) fn https(&self, path: &str) -> String {
        format!("https://{}{path}", self.tls_address)
    }

    /// From now on, [`GATE`] takes everything, or nothing.
    pub(crate) fn open_gate(&self, is_open: bool) {
        self.books.is_gate_open.store(is_open, Ordering::Relaxed);
    }

    /// The next request is what [`Self::sample`] gives.
    pub(crate) fn sample_anew(&self) {
        self.books.wants_sample.store(true, Ordering::Relaxed);
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The same at one of [`HOSTS`] others.
    pub(crate) fn url_of_host(&self, host: usize, path: &str) -> String {
        let address = self.hosts.get(host % HOSTS).unwrap_or(&self.address);
        format!("http://{address}{path}")
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Microseconds since the receiver's start: what a row's `sent_at` holds.
    pub(crate) fn clock(&self) -> i64 {
        i64::try_from(self.books.epoch.elapsed().as_micros()).unwrap_or(i64::MAX)
    }

    /// Events in the requests that were answered.
    pub(crate) fn events(&self) -> u64 {
        self.books.events.load(Ordering::Relaxed)
    }

    /// Events that came to `/in/N`, by N.
    pub(crate) fn by_path(&self) -> [u64; PATHS_MAX] {
        std::array::from_fn(|at| {
            self.books.by_path.get(at).map_or(0, |n| n.load(Ordering::Relaxed))
        })
    }

    /// The latencies since the last call, sorted.
    pub(crate) fn take_latencies(&self) -> Vec<Duration> {
        let mut latencies = std::mem::take(&mut *lock(&self.books.latencies));
        latencies.sort_unstable();
        latencies
    }

    /// The request that was kept last.
    pub(crate) fn sample(&self) -> anyhow::Result<Sample> {
        lock(&self.books.sample).clone().context("no request has come yet")
    }

    /// Waits until this many events have come in all.
    pub(crate) fn wait_for(&self, events: u64, limit: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + limit;
        while self.events() < events {
            if Instant::now() > deadline {
                let missing = events - self.events();
                anyhow::bail!("{missing} events did not come within {limit:?}");
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

async fn serve(listener: &TcpListener, acceptor: Option<TlsAcceptor>, books: &Arc<Books>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        while connections.try_join_next().is_some() {}
        drop(stream.set_nodelay(true));
        let (books, acceptor) = (Arc::clone(books), acceptor.clone());
        connections.spawn(async move {
            let answer = service_fn(|request| answer(request, &books));
            let http = http1::Builder::new();
            // A client that is killed in the middle of a request is part of the measurements.
            match acceptor {
                None => drop(http.serve_connection(TokioIo::new(stream), answer).await),
                Some(acceptor) => {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    drop(http.serve_connection(TokioIo::new(stream), answer).await);
                }
            }
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    books: &Books,
) -> Result<Response<Empty<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let path = head.uri.path();
    if path == HANG {
        std::future::pending::<()>().await;
    }
    let events = head.headers.get("walhook-event-ids");
    let events = events.map_or(1, |ids| memchr::memchr_iter(b',', ids.as_bytes()).count() + 1);
    let is_sample = books.wants_sample.load(Ordering::Relaxed);
    if path == TIMED || is_sample {
        let now = books.epoch.elapsed();
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        books.time(&body, now);
        if books.wants_sample.swap(false, Ordering::Relaxed) {
            *lock(&books.sample) = Some(Sample { headers: head.headers.clone(), body });
        }
    } else {
        let mut body = pin!(body);
        while let Some(Ok(_)) = body.frame().await {}
    }
    if path == GATE && !books.is_gate_open.load(Ordering::Relaxed) {
        let mut refused = Response::new(Empty::new());
        *refused.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        return Ok(refused);
    }
    if let Some(millis) = path.strip_prefix(SLOW).and_then(|millis| millis.parse().ok()) {
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }
    let number = path.strip_prefix("/in/").and_then(|number| number.parse::<usize>().ok());
    let events = events as u64;
    if let Some(count) = books.by_path.get(number.unwrap_or_default()) {
        count.fetch_add(events, Ordering::Relaxed);
    }
    books.events.fetch_add(events, Ordering::Relaxed);
    Ok(Response::new(Empty::new()))
}

impl Books {
    fn time(&self, body: &[u8], now: Duration) {
        for at in memchr::memmem::find_iter(body, SENT_AT) {
            let digits = body.get(at + SENT_AT.len()..).unwrap_or_default();
            let digits = digits.iter().take_while(|byte| byte.is_ascii_digit());
            let sent = digits.fold(0, |sent, digit| sent * 10 + u64::from(digit - b'0'));
            if sent == 0 {
                continue; // it was there before
            }
            lock(&self.latencies).push(now.saturating_sub(Duration::from_micros(sent)));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
