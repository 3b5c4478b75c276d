//! The inbound listener: connections, TLS, the allow-list, and the order in which a callback is judged.
//!
//! A listener of its own, so that the management API need not be public. A connection that is
//! held open without a request is closed; bodies have a size and a deadline.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::HeaderValue;
use axum::http::Method;
use axum::http::Request;
use axum::http::Response;
use axum::http::StatusCode;
use axum::http::header;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::rt::TokioTimer;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;
use serde_json::json;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::clock::host_now;
use crate::config::secret::Secret;
use crate::config::settings::AddressList;
use crate::config::settings::InboundSettings;
use crate::inbound::callback_store::CallbackOutcome;
use crate::inbound::callback_store::CallbackWriter;
use crate::inbound::caller::caller;
use crate::inbound::refusal::InboundRefusal;
use crate::inbound::request::CallbackRequest;
use crate::inbound::request_body::BodyBudget;
use crate::inbound::source::RunningSource;
use crate::inbound::verify;
use crate::listen_socket;

const HEAD_TIME: Duration = Duration::from_secs(10);
const HANDSHAKE_TIME: Duration = Duration::from_secs(5);
/// Connections at once; further ones wait in the system's queue.
const CONNECTIONS_MAX: usize = 1024;
/// For what is being answered when walhook ends.
const END_TIME: Duration = Duration::from_secs(4);
/// Before the next try when the system gives no connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

const VERIFY: &str = "/verify";

/// What all connections share.
struct ListenerShared {
    sources: BTreeMap<String, Arc<RunningSource>>,
    allow: Option<AddressList>,
    trusted_proxies: AddressList,
    bodies: BodyBudget,
    writer: CallbackWriter,
    /// What `GET /api/v1/status` says, without anything secret.
    status: Box<dyn Fn() -> Value + Send + Sync>,
}

/// A listener that is open and serves nobody yet.
pub(crate) struct InboundListener {
    listener: TcpListener,
    acceptor: Option<TlsAcceptor>,
    shared: Arc<ListenerShared>,
}

impl InboundListener {
    /// Opens the address and reads the certificate.
    ///
    /// # Errors
    /// The address is in use, or the certificate or key cannot be used.
    pub(crate) fn open(
        settings: &InboundSettings,
        sources: &[Arc<RunningSource>],
        writer: CallbackWriter,
        status: impl Fn() -> Value + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        let listen = settings.listen;
        let listener = listen_socket::open(listen).with_context(|| {
            format!("cannot listen on {listen}: free it, or change [inbound] listen")
        })?;
        let acceptor = settings.tls.as_ref().map(|(cert, key)| acceptor(cert, key)).transpose()?;
        let by_path =
            sources.iter().map(|source| (source.settings.path.clone(), Arc::clone(source)));
        let shared = ListenerShared {
            sources: by_path.collect(),
            allow: settings.allow.clone(),
            trusted_proxies: settings.trusted_proxies.clone(),
            bodies: BodyBudget::default(),
            writer,
            status: Box::new(status),
        };
        Ok(Self { listener, acceptor, shared: Arc::new(shared) })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop`, and a moment longer what is being answered then.
    pub(crate) async fn serve(self, stop: CancellationToken) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut tasks = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(_ended) = tasks.join_next() => continue,
                accepted = self.accept(&places) => accepted,
            };
            let Some((place, stream, peer)) = accepted else { continue };
            let (acceptor, shared) = (self.acceptor.clone(), Arc::clone(&self.shared));
            let stop = stop.clone();
            tasks.spawn(async move {
                stream.set_nodelay(true).ok();
                match acceptor {
                    None => converse(stream, peer, shared, stop).await,
                    Some(acceptor) => {
                        // What does not shake hands is a scanner, and there is nobody to tell.
                        let shaken = timeout(HANDSHAKE_TIME, acceptor.accept(stream)).await;
                        if let Ok(Ok(stream)) = shaken {
                            converse(stream, peer, shared, stop).await;
                        }
                    }
                }
                drop(place);
            });
        }
        drop(self.listener);
        let rest = async { while tasks.join_next().await.is_some() {} };
        drop(timeout(END_TIME, rest).await);
    }

    async fn accept(
        &self,
        places: &Arc<Semaphore>,
    ) -> Option<(tokio::sync::OwnedSemaphorePermit, tokio::net::TcpStream, SocketAddr)> {
        let place = Arc::clone(places).acquire_owned().await.ok()?;
        match self.listener.accept().await {
            Ok((stream, peer)) => Some((place, stream, peer)),
            Err(error) => {
                tracing::debug!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                None
            }
        }
    }
}

fn acceptor(cert: &Secret<String>, key: &Secret<String>) -> anyhow::Result<TlsAcceptor> {
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(cert.reveal().as_bytes())
            .collect::<Result<_, _>>()
            .context("cannot use [inbound] tls.cert: give a PEM file with the chain")?;
    let key = PrivateKeyDer::from_pem_slice(key.reveal().as_bytes())
        .context("cannot use [inbound] tls.key: give a PEM file with the private key")?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("cannot set TLS up")?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .context("cannot use [inbound] tls: the key does not belong to the certificate")?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn converse<S>(
    stream: S,
    peer: SocketAddr,
    shared: Arc<ListenerShared>,
    stop: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(shared.answer(request, peer.ip()).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an inbound connection ended");
    }
}

impl ListenerShared {
    async fn answer(&self, request: Request<Incoming>, peer: IpAddr) -> Response<Body> {
        let path = request.uri().path();
        match path {
            "/health" => return plain(StatusCode::OK, "ok"),
            "/api/v1/status" => return as_json(&(self.status)()),
            "/api/v1/webhooks/handlers" => {
                let sources: Vec<Value> = self.sources.values().map(|one| one.shown()).collect();
                return as_json(&json!({ "success": true, "data": sources }));
            }
            _ => {}
        }
        let (is_get, is_post) = (request.method() == Method::GET, request.method() == Method::POST);
        let source = self.sources.get(path).or_else(|| {
            let path = path.strip_suffix(VERIFY).filter(|_| is_get)?;
            self.sources.get(path)
        });
        let Some(source) = source.map(Arc::clone) else {
            return plain(StatusCode::NOT_FOUND, "");
        };
        if !is_get && !is_post {
            return plain(StatusCode::METHOD_NOT_ALLOWED, "");
        }
        let begun = Instant::now();
        match self.judged(&source, request, peer).await {
            Ok(None) => {}
            // Nothing around it: no quotes, BOM or newline.
            Ok(Some(echo)) => return text(StatusCode::OK, Body::from(echo)),
            Err(refusal) => {
                source.refused(refusal);
                let mut response = plain(refusal.status(), "");
                if refusal == InboundRefusal::Unavailable {
                    let soon = HeaderValue::from_static("1");
                    response.headers_mut().insert(header::RETRY_AFTER, soon);
                }
                return response;
            }
        }
        source.answered_within(begun.elapsed());
        plain(StatusCode::OK, "")
    }

    /// Judges a request to a source: the answer to WeCom's check of the URL, or nothing for a callback
    /// that is kept.
    async fn judged(
        &self,
        source: &RunningSource,
        request: Request<Incoming>,
        peer: IpAddr,
    ) -> Result<Option<Vec<u8>>, InboundRefusal> {
        let is_callback = request.method() == Method::POST;
        if is_callback {
            source.received(host_now());
        }
        if !self.is_allowed(peer, request.headers()) {
            return Err(InboundRefusal::Address);
        }
        let (head, body) = request.into_parts();
        let body = match is_callback {
            true => self.bodies.read(body).await?,
            false => bytes::Bytes::new(),
        };
        let request = CallbackRequest {
            query: CallbackRequest::query_of(head.uri.query()),
            headers: head.headers,
            body,
            now: host_now().seconds(),
        };
        if !is_callback {
            return verify::echo(&source.settings, &request).map(Some);
        }
        let callback = verify::callback(&source.settings, &request)?;
        match self.writer.keep(&source.tables, callback).await {
            Some(CallbackOutcome::Kept) => source.kept(),
            Some(CallbackOutcome::Repeated) => source.repeated(),
            Some(CallbackOutcome::NonceSeen) => return Err(InboundRefusal::Nonce),
            None => return Err(InboundRefusal::Unavailable),
        }
        Ok(None)
    }

    fn is_allowed(&self, peer: IpAddr, headers: &HeaderMap) -> bool {
        let Some(allow) = &self.allow else { return true };
        let caller = caller(peer, headers, &self.trusted_proxies);
        caller.is_some_and(|caller| allow.contains(caller))
    }
}

fn plain(status: StatusCode, body: &'static str) -> Response<Body> {
    text(status, Body::from(body))
}

fn text(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn as_json(value: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(value.to_string()));
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
