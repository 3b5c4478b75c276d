//! Receivers for tests: one that books every request and then answers as told, and in [`raw`] one
//! that sends whatever bytes it is given.
//!
//! Each runs on a thread and a runtime of its own, on 127.0.0.1 and a free port, so that a test may
//! block, pause its clock or be busy without holding up the receiver. It ends when it is dropped.
#![expect(clippy::panic, reason = "a test may stop at once")]

mod http2;
pub(crate) mod proxy;
pub(crate) mod raw;
mod server;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use bytes::Bytes;
use bytes::BytesMut;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use self::server::LOOPBACK;
use self::server::Server;
use super::progress::reach;

/// The longest request head that is read.
const HEAD_MAX_BYTES: usize = 256 * 1024;

/// A request as it was booked.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// 1 for the first request that arrived, over all connections.
    pub(crate) number: usize,
    /// 1 for the first connection.
    pub(crate) connection: usize,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// When its last byte had been read.
    pub(crate) arrived: Instant,
}

impl Request {
    /// A header's value; empty if it is missing.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| {
            // Whose it was: a port that was another's just now may still be asked for that other.
            let Self { number, method, path, headers, .. } = self;
            panic!("request {number}, {method} {path} {headers:?}: {error}")
        })
    }
}

/// What a receiver does with a request after it has booked it.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Respond(Response),
    /// Keeps the connection open and says nothing.
    Hang,
    /// Closes the connection without a byte of an answer.
    Close,
    /// Resets the connection instead of answering (over TLS: closes it).
    Reset,
    /// 200, then a body without end: one byte each time.
    Drip {
        every: Duration,
    },
}

/// A response with its length, on a connection that stays open.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    status: u16,
    delay: Duration,
    headers: Vec<(String, String)>,
    body: Bytes,
}

impl Answer {
    pub(crate) fn status(status: u16) -> Self {
        let (delay, headers, body) = (Duration::ZERO, Vec::new(), Bytes::new());
        Self::Respond(Response { status, delay, headers, body })
    }

    /// The same, later. Only for responses, like the other two.
    pub(crate) fn after(self, delay: Duration) -> Self {
        self.changed(|response| response.delay = delay)
    }

    pub(crate) fn header(self, name: &str, value: &str) -> Self {
        self.changed(|response| response.headers.push((name.to_owned(), value.to_owned())))
    }

    pub(crate) fn body(self, body: impl Into<Bytes>) -> Self {
        self.changed(|response| response.body = body.into())
    }

    /// Whether it is a response with this status.
    pub(crate) fn is_status(&self, status: u16) -> bool {
        matches!(self, Self::Respond(response) if response.status == status)
    }

    fn changed(self, change: impl FnOnce(&mut Response)) -> Self {
        match self {
            Self::Respond(mut response) => {
                change(&mut response);
                Self::Respond(response)
            }
            other => panic!("{other:?} has nothing to change"),
        }
    }
}

/// Decides about each request.
pub(crate) type Behaviour = Arc<dyn Fn(&Request) -> Answer + Send + Sync>;

pub(crate) fn always(answer: Answer) -> Behaviour {
    Arc::new(move |_| answer.clone())
}

/// One answer after the other; the last one for ever.
pub(crate) fn in_turn(answers: Vec<Answer>) -> Behaviour {
    let given = Mutex::new(0);
    Arc::new(move |_| {
        let mut given = lock(&given);
        let answer = answers.get(*given).or(answers.last());
        *given += 1;
        answer.cloned().unwrap_or_else(|| panic!("at least one answer is needed"))
    })
}

/// Answers `bad` with this probability, else 200; the same for the same seed.
pub(crate) fn flaky(seed: u64, probability: f64, bad: Answer) -> Behaviour {
    let random = Mutex::new(fastrand::Rng::with_seed(seed));
    Arc::new(
        move |_| {
            if lock(&random).f64() < probability { bad.clone() } else { Answer::status(200) }
        },
    )
}

/// A receiver that books every request before it answers.
pub(crate) struct Receiver {
    server: Server,
    scheme: &'static str,
    books: Arc<Books>,
}

struct Books {
    /// Whether requests are kept.
    keeps: bool,
    requests: Mutex<Vec<Request>>,
    count: watch::Sender<usize>,
    behaviour: Mutex<Behaviour>,
}

impl Receiver {
    pub(crate) fn start(behaviour: Behaviour) -> Self {
        Self::start_on(LOOPBACK, behaviour)
    }

    /// On a given port: one that comes back after it was dropped.
    pub(crate) fn start_on(address: SocketAddr, behaviour: Behaviour) -> Self {
        Self::start_with(address, Books::new(behaviour))
    }

    fn start_with(address: SocketAddr, books: Books) -> Self {
        let books = Arc::new(books);
        let server = Server::start(address, {
            let books = Arc::clone(&books);
            move |stream, connection| converse(stream, connection, Arc::clone(&books))
        });
        Self { server, scheme: "http", books }
    }

    /// Counts requests and forgets them: for more than fits into memory.
    pub(crate) fn start_forgetful(behaviour: Behaviour) -> Self {
        Self::start_with(LOOPBACK, Books { keeps: false, ..Books::new(behaviour) })
    }

    /// Speaks TLS. A handshake that fails is no request.
    pub(crate) fn start_tls(config: rustls::ServerConfig, behaviour: Behaviour) -> Self {
        let books = Arc::new(Books::new(behaviour));
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let server = Server::start(LOOPBACK, {
            let books = Arc::clone(&books);
            move |stream, connection| {
                let (acceptor, books) = (acceptor.clone(), Arc::clone(&books));
                async move {
                    let stream = acceptor.accept(stream).await?;
                    converse(stream, connection, books).await
                }
            }
        });
        Self { server, scheme: "https", books }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address
    }

    pub(crate) fn url(&self) -> String {
        format!("{}://{}/hooks", self.scheme, self.address())
    }

    /// From the next request on.
    pub(crate) fn behave(&self, behaviour: Behaviour) {
        *lock(&self.books.behaviour) = behaviour;
    }

    /// All requests so far, in the order of arrival.
    pub(crate) fn requests(&self) -> Vec<Request> {
        lock(&self.books.requests).clone()
    }

    pub(crate) fn count(&self) -> usize {
        *self.books.count.borrow()
    }

    /// The requests, once there are at least `count`. Panics when none comes for `patience` before.
    pub(crate) async fn wait_for(&self, count: usize, patience: Duration) -> Vec<Request> {
        let came = reach(self.books.count.subscribe(), count, patience).await;
        assert!(came, "{} of {count} requests came, and none for {patience:?}", self.count());
        self.requests()
    }
}

impl Books {
    fn new(behaviour: Behaviour) -> Self {
        let (requests, behaviour) = (Mutex::default(), Mutex::new(behaviour));
        Self { keeps: true, requests, count: watch::Sender::new(0), behaviour }
    }

    /// Books the request and decides about it.
    fn enter(&self, mut request: Request) -> Answer {
        let mut requests = lock(&self.requests);
        // Before anybody hears of it: who waits for it may change what becomes of those behind it.
        let behaviour = Arc::clone(&lock(&self.behaviour));
        request.number = *self.count.borrow() + 1;
        if self.keeps {
            requests.push(request.clone());
        }
        self.count.send_replace(request.number);
        drop(requests);
        behaviour(&request)
    }
}

/// One connection, request after request.
async fn converse<S: Stream>(
    mut stream: S,
    connection: usize,
    books: Arc<Books>,
) -> io::Result<()> {
    let mut read = BytesMut::new();
    while let Some(request) = read_request(&mut stream, &mut read, connection).await? {
        if is_astray(&request) {
            return Ok(());
        }
        match books.enter(request) {
            Answer::Respond(response) => {
                tokio::time::sleep(response.delay).await;
                stream.write_all(&encode(&response)).await?;
                stream.flush().await?;
            }
            Answer::Hang => std::future::pending().await,
            Answer::Close => return Ok(()),
            Answer::Reset => return stream.reset(),
            Answer::Drip { every } => {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n").await?;
                loop {
                    stream.write_all(b".").await?;
                    stream.flush().await?;
                    tokio::time::sleep(every).await;
                }
            }
        }
    }
    Ok(())
}

/// A page of walhook in a browser goes on asking when its walhook has ended, and the port may be ours by now.
fn is_astray(request: &Request) -> bool {
    request.path.starts_with("/api/v1/") && request.headers.contains_key("sec-fetch-mode")
}

/// Reads one request with a `Content-Length`; `None` at the end of the connection.
async fn read_request<S: AsyncRead + Unpin>(
    stream: &mut S,
    read: &mut BytesMut,
    connection: usize,
) -> io::Result<Option<Request>> {
    let bad = |what: &'static str| io::Error::new(io::ErrorKind::InvalidData, what);
    let end = loop {
        if let Some(at) = memchr::memmem::find(read, b"\r\n\r\n") {
            break at + 4;
        }
        if read.len() > HEAD_MAX_BYTES {
            return Err(bad("the request's head is too long"));
        }
        if stream.read_buf(read).await? == 0 {
            return Ok(None);
        }
    };
    let head = String::from_utf8(read.split_to(end).to_vec()).map_err(|_| bad("not text"))?;
    let mut lines = head.lines();
    let mut first = lines.next().unwrap_or_default().split(' ');
    let (method, path) = (first.next().unwrap_or_default(), first.next().unwrap_or_default());
    let mut headers = HeaderMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let name = HeaderName::try_from(name).map_err(|_| bad("a header's name"))?;
        let value = HeaderValue::from_str(value.trim()).map_err(|_| bad("a header's value"))?;
        headers.append(name, value);
    }
    let length = headers.get("content-length").and_then(|value| value.to_str().ok());
    // Whoever only asks has nothing to say.
    let length = if method == "GET" { length.or(Some("0")) } else { length };
    let length = length.and_then(|text| text.parse().ok()).ok_or_else(|| bad("no length"))?;
    while read.len() < length {
        if stream.read_buf(read).await? == 0 {
            return Ok(None);
        }
    }
    let body = read.split_to(length).freeze();
    let (method, path) = (method.to_owned(), path.to_owned());
    let arrived = Instant::now();
    Ok(Some(Request { number: 0, connection, method, path, headers, body, arrived }))
}

fn encode(response: &Response) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {} Told\r\n", response.status);
    for (name, value) in &response.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    // 1xx, 204 and 304 end with their head.
    if !matches!(response.status, 100..=199 | 204 | 304) {
        head.push_str(&format!("content-length: {}\r\n", response.body.len()));
    }
    head.push_str("\r\n");
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(&response.body);
    bytes
}

/// A connection, with or without TLS.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Ends it with RST instead of FIN, where it can.
    fn reset(self) -> io::Result<()>;
}

impl Stream for TcpStream {
    fn reset(self) -> io::Result<()> {
        self.set_zero_linger()
    }
}

impl Stream for tokio_rustls::server::TlsStream<TcpStream> {
    fn reset(self) -> io::Result<()> {
        self.get_ref().0.set_zero_linger()
    }
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
