//! The same receiver over HTTP/2.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use http::HeaderMap;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioIo;
use tokio_rustls::TlsAcceptor;

use super::Answer;
use super::Behaviour;
use super::Books;
use super::LOOPBACK;
use super::Receiver;
use super::Request;
use super::Server;
use super::Stream;

/// The longest request that is taken.
const BODY_MAX_BYTES: usize = 64 * 1024 * 1024;

impl Receiver {
    /// Speaks HTTP/2 alone: without TLS from the first byte on, with it if the client offers it.
    /// An answer that is none ends the stream with an error.
    pub(crate) fn start_http2(config: Option<rustls::ServerConfig>, behaviour: Behaviour) -> Self {
        Self::start_http2_on(LOOPBACK, config, behaviour)
    }

    pub(crate) fn start_http2_on(
        address: SocketAddr,
        config: Option<rustls::ServerConfig>,
        behaviour: Behaviour,
    ) -> Self {
        let scheme = if config.is_some() { "https" } else { "http" };
        let books = Arc::new(Books::new(behaviour));
        let acceptor = config.map(|mut config| {
            config.alpn_protocols = vec![b"h2".to_vec()];
            TlsAcceptor::from(Arc::new(config))
        });
        let server = Server::start(address, {
            let books = Arc::clone(&books);
            move |stream, connection| {
                let (acceptor, books) = (acceptor.clone(), Arc::clone(&books));
                async move {
                    match acceptor {
                        Some(acceptor) => {
                            converse(acceptor.accept(stream).await?, connection, books).await
                        }
                        None => converse(stream, connection, books).await,
                    }
                }
            }
        });
        Self { server, scheme, books }
    }
}

async fn converse<S: Stream>(stream: S, connection: usize, books: Arc<Books>) -> io::Result<()> {
    let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let books = Arc::clone(&books);
        async move {
            let (head, body) = request.into_parts();
            let body = axum::body::to_bytes(Body::new(body), BODY_MAX_BYTES).await;
            let mut headers: HeaderMap = head.headers;
            if let Some(at) = head.uri.authority().and_then(|at| at.as_str().parse().ok()) {
                headers.insert("x-authority", at);
            }
            let path = head.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
            let request = Request {
                number: 0,
                connection,
                method: head.method.to_string(),
                path,
                headers,
                body: body.map_err(io::Error::other)?,
                arrived: Instant::now(),
            };
            match books.enter(request) {
                Answer::Respond(response) => {
                    tokio::time::sleep(response.delay).await;
                    let mut answer = http::Response::builder().status(response.status);
                    for (name, value) in &response.headers {
                        answer = answer.header(name, value);
                    }
                    answer.body(Body::from(response.body)).map_err(io::Error::other)
                }
                Answer::Hang => std::future::pending().await,
                _ => Err(io::Error::other("no answer")),
            }
        }
    });
    let http = http2::Builder::new(TokioExecutor::new());
    http.serve_connection(TokioIo::new(stream), service).await.map_err(io::Error::other)
}
