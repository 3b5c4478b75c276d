//! An HTTP server that takes whatever comes, answers as told and hands on what it saw.
//!
//! ```text
//! socket ─ request ─▶ [server] ─ Received ─▶ bounded channel ─▶ receive, demo
//!        ◀─ status ──
//! ```
//!
//! A request is handed on before it is answered, so a sender never counts something as delivered
//! that its reader did not get. A reader that falls behind slows the answers down.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::extract::State;
use axum::serve::ListenerExt as _;
use bytes::Bytes;
use bytes::BytesMut;
use http::HeaderMap;
use http::Method;
use http::StatusCode;
use http_body::Body as _;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::cli::receive::signature::ID_HEADER;
use crate::cli::receive::signature::SignatureCheck;
use crate::cli::receive::signature::SignatureVerdict;
use crate::cli::receive::signature::VerificationKey;
use crate::flow::time::Timestamp;
use crate::listen_socket;

/// Requests that wait to be looked at. Each holds up to [`BODY_KEPT_BYTES`].
pub(crate) const RECEIVED_MAX: usize = 64;

/// How much of a body is handed on. All of it is read and counts for the signature.
pub(crate) const BODY_KEPT_BYTES: usize = 64 * 1024;

/// How requests are answered and checked.
#[derive(Clone, Debug)]
pub(crate) struct ReceiverBehaviour {
    pub status: StatusCode,
    /// Wait between the end of a request and its answer.
    pub delay: Duration,
    /// Secrets to check signatures with; none: signatures are not checked.
    pub keys: Vec<VerificationKey>,
    /// The time that signatures and [`ReceivedRequest::at`] are judged by.
    pub clock: fn() -> Timestamp,
}

/// One request, as it came.
#[derive(Clone, Debug)]
pub(crate) struct ReceivedRequest {
    /// When its last byte had come.
    pub at: Timestamp,
    pub method: Method,
    /// Path and query.
    pub path: String,
    pub headers: HeaderMap,
    /// The body's first [`BODY_KEPT_BYTES`].
    pub body: Bytes,
    /// The whole body's length.
    pub body_bytes: u64,
    /// Whether the request came to its end; if not, the sender cut it off.
    pub complete: bool,
    pub signature: SignatureVerdict,
    /// What it is answered with.
    pub status_answered: StatusCode,
}

impl ReceivedRequest {
    /// The event's id, if the request carries one.
    pub(crate) fn id(&self) -> Option<&str> {
        self.headers.get(ID_HEADER).and_then(|value| value.to_str().ok())
    }
}

/// A receiver that is bound and not serving yet.
#[derive(Debug)]
pub(crate) struct ReceiverServer {
    listener: TcpListener,
    address: SocketAddr,
}

impl ReceiverServer {
    /// Takes the address; port 0 takes any free one.
    ///
    /// # Errors
    /// If the address is in use or not this machine's.
    pub(crate) fn bind(listen: SocketAddr) -> io::Result<Self> {
        let listener = listen_socket::open(listen)?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop`, then answers what is open and ends. If nobody takes from `received`
    /// any more, requests are answered all the same.
    ///
    /// # Errors
    /// If the listening socket fails.
    pub(crate) async fn serve(
        self,
        behaviour: ReceiverBehaviour,
        received: mpsc::Sender<ReceivedRequest>,
        stop: CancellationToken,
    ) -> io::Result<()> {
        let shared = Arc::new(ReceiverShared { behaviour, received });
        let router = Router::new().fallback(take).with_state(shared);
        // Answers are small: waiting to fill a packet would only add to what senders measure.
        let listener = self.listener.tap_io(|socket| drop(socket.set_nodelay(true)));
        axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await
    }
}

struct ReceiverShared {
    behaviour: ReceiverBehaviour,
    received: mpsc::Sender<ReceivedRequest>,
}

async fn take(State(shared): State<Arc<ReceiverShared>>, request: Request) -> StatusCode {
    let ReceiverBehaviour { status, delay, ref keys, clock } = shared.behaviour;
    let (head, mut body) = request.into_parts();
    let mut check = SignatureCheck::begin(keys, &head.headers, clock());
    let taken = read(&mut body, &mut check).await;
    let received = ReceivedRequest {
        at: clock(),
        method: head.method,
        path: head.uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string),
        headers: head.headers,
        body: taken.kept.freeze(),
        body_bytes: taken.bytes,
        complete: taken.complete,
        signature: check.finish(),
        status_answered: status,
    };
    // An error says that the reader has gone, which is no business of the sender's.
    drop(shared.received.send(received).await);
    // A timer fires in the next millisecond at the soonest, which senders would measure.
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    status
}

#[derive(Default)]
struct BodyTaken {
    kept: BytesMut,
    bytes: u64,
    complete: bool,
}

async fn read(body: &mut Body, check: &mut SignatureCheck) -> BodyTaken {
    let mut taken = BodyTaken::default();
    loop {
        let frame = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await;
        let data = match frame {
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(), // trailers hold no data
            Some(Err(_cut_off)) => return taken,
            None => {
                taken.complete = true;
                return taken;
            }
        };
        check.update(&data);
        taken.bytes += data.len() as u64;
        let room = BODY_KEPT_BYTES.saturating_sub(taken.kept.len());
        taken.kept.extend_from_slice(data.get(..room).unwrap_or(&data));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpStream;

    fn noon() -> Timestamp {
        Timestamp::from_seconds(1_700_000_000)
    }

    fn behaviour(status: u16) -> ReceiverBehaviour {
        let status = StatusCode::from_u16(status).unwrap();
        ReceiverBehaviour { status, delay: Duration::ZERO, keys: Vec::new(), clock: noon }
    }

    /// Sends `request` to a fresh server, and ends the sending if it is to be `cut_off`; gives
    /// what was handed on and the whole answer.
    async fn exchange(
        behaviour: ReceiverBehaviour,
        request: &[u8],
        cut_off: bool,
    ) -> (Option<ReceivedRequest>, String) {
        let server = ReceiverServer::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = server.address();
        let (to, mut received) = mpsc::channel(RECEIVED_MAX);
        let stop = CancellationToken::new();
        let client = async {
            let mut socket = TcpStream::connect(address).await.unwrap();
            socket.write_all(request).await.unwrap();
            if cut_off {
                socket.shutdown().await.unwrap();
            }
            let mut answer = String::new();
            socket.read_to_string(&mut answer).await.unwrap();
            stop.cancel();
            answer
        };
        let (served, answer) = tokio::join!(server.serve(behaviour, to, stop.clone()), client);
        served.unwrap();
        (received.recv().await, answer)
    }

    #[tokio::test]
    async fn a_request_is_handed_on_and_answered_as_told() {
        let request = b"PUT /a/b?c=d HTTP/1.1\r\nhost: x\r\nwebhook-id: evt_1\r\n\
            content-length: 2\r\nconnection: close\r\n\r\n{}";
        let (received, answer) = exchange(behaviour(503), request, false).await;
        let received = received.unwrap();
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert_eq!((received.method.as_str(), received.path.as_str()), ("PUT", "/a/b?c=d"));
        assert_eq!((received.id(), &received.body[..]), (Some("evt_1"), &b"{}"[..]));
        assert_eq!((received.at, received.complete), (noon(), true));
    }

    #[tokio::test]
    async fn of_a_large_body_the_start_is_kept_and_all_is_checked() {
        let key =
            VerificationKey::parse("whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap();
        let raw: Vec<u8> = (0..32).collect();
        let body = vec![b'x'; BODY_KEPT_BYTES * 3 + 1];
        let content = [b"evt_1.1700000000.".as_slice(), &body].concat();
        let mac = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &raw);
        let signature = base64::Engine::encode(
            &base64::engine::general_purpose::STANDARD,
            ring::hmac::sign(&mac, &content),
        );
        let head = format!(
            "POST / HTTP/1.1\r\nhost: x\r\nwebhook-id: evt_1\r\nwebhook-timestamp: 1700000000\r\n\
             webhook-signature: v1,{signature}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        let checking = ReceiverBehaviour { keys: vec![key], ..behaviour(200) };
        let (received, _) = exchange(checking, &[head.as_bytes(), &body].concat(), false).await;
        let received = received.unwrap();
        assert_eq!(received.signature, SignatureVerdict::Ok);
        assert_eq!(received.body.len(), BODY_KEPT_BYTES);
        assert_eq!(received.body_bytes, body.len() as u64);
    }

    #[tokio::test]
    async fn a_request_that_is_cut_off_is_handed_on_as_such() {
        let request = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nshort";
        let (received, _) = exchange(behaviour(200), request, true).await;
        let received = received.unwrap();
        assert!(!received.complete);
        assert_eq!(received.body, "short");
    }

    #[tokio::test]
    async fn a_reader_that_has_gone_does_not_keep_senders_waiting() {
        let server = ReceiverServer::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = server.address();
        let (to, received) = mpsc::channel(1);
        drop(received);
        let stop = CancellationToken::new();
        let client = async {
            let mut socket = TcpStream::connect(address).await.unwrap();
            let request = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
            socket.write_all(request).await.unwrap();
            let mut answer = String::new();
            socket.read_to_string(&mut answer).await.unwrap();
            stop.cancel();
            answer
        };
        let (_, answer) = tokio::join!(server.serve(behaviour(204), to, stop.clone()), client);
        assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
    }
}
