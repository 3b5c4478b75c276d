//! Makes connections to one endpoint: guarded name, TCP, the proxy's tunnel if there is one, and TLS
//! where the URL says so.

use std::error::Error;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use http::HeaderValue;
use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns;
use reqwest::dns::Addrs;
use reqwest::dns::Resolve;
use reqwest::dns::Resolving;
use rustls::pki_types::ServerName;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tower_service::Service;

use crate::delivery::connection::guarded_resolver::GuardedResolver;
use crate::delivery::connection::own_shortage;
use crate::delivery::connection::sockets::Sockets;
use crate::delivery::connection::tunnel;
use crate::delivery::connection::write_gate::FencedStream;
use crate::delivery::connection::write_gate::SendPermission;

/// HTTP/2 over TLS, by its name in ALPN (RFC 9113, 3.2).
pub(crate) const HTTP_2: &[u8] = b"h2";

/// Probes of a connection on which nothing moves, so that an idle one whose peer is gone is noticed
/// and one that a firewall would forget is kept.
const KEEPALIVE: Duration = Duration::from_secs(15);
const KEEPALIVE_PROBES_MAX: u32 = 3;

/// Why there is no connection. What is known of the reason is in its chain of causes.
pub(crate) type DialError = Box<dyn Error + Send + Sync>;

/// A connection's bytes, with or without TLS.
pub(crate) trait DialedStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> DialedStream for S {}

/// Where an endpoint is, and how to get there.
pub(crate) struct EndpointDialer {
    /// Scheme, host and port of what is dialled: the endpoint, or its proxy.
    target: Uri,
    tcp: HttpConnector<PeerNames>,
    tunnel: Option<ProxyTunnel>,
    tls: Option<TlsDialer>,
    /// Without TLS, what is spoken; with it, what is offered.
    http2: bool,
    may_send: SendPermission,
    sockets: Sockets,
    timeout: Duration,
}

/// Through a proxy.
pub(crate) struct ProxyTunnel {
    /// Host and port of the endpoint.
    pub(crate) at: String,
    /// The credentials for the proxy.
    pub(crate) authorization: Option<HeaderValue>,
}

/// A connection, and whether it is one for HTTP/2.
pub(crate) struct DialedPeer {
    pub(crate) stream: Box<dyn DialedStream>,
    pub(crate) http2: bool,
}

/// How an endpoint proves who it is.
pub(crate) struct TlsDialer {
    pub(crate) connector: TlsConnector,
    /// The name that its certificate has to bear.
    pub(crate) host: ServerName<'static>,
}

impl EndpointDialer {
    /// To the host and port of `target`, through the tunnel and over TLS if there are any. Of several addresses, each gets
    /// its share of `timeout`.
    pub(crate) fn new(
        target: Uri,
        names: GuardedResolver,
        tunnel: Option<ProxyTunnel>,
        tls: Option<TlsDialer>,
        http2: bool,
        timeout: Duration,
    ) -> Self {
        let mut tcp = HttpConnector::new_with_resolver(PeerNames(Arc::new(names)));
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(timeout));
        tcp.set_keepalive(Some(KEEPALIVE));
        tcp.set_keepalive_interval(Some(KEEPALIVE));
        tcp.set_keepalive_retries(Some(KEEPALIVE_PROBES_MAX));
        let (may_send, sockets): (SendPermission, _) =
            (Arc::new(|| true), Sockets::of_this_process());
        Self { target, tcp, tunnel, tls, http2, may_send, sockets, timeout }
    }

    /// The same, writing to no socket while `may_send` says no.
    pub(crate) fn gated(self, may_send: SendPermission) -> Self {
        Self { may_send, ..self }
    }

    /// The same, with no more than these sockets.
    pub(crate) fn within(self, sockets: Sockets) -> Self {
        Self { sockets, ..self }
    }

    /// Whether connections that are not in use should be given up for others.
    pub(crate) fn is_scarce(&self) -> bool {
        self.sockets.is_scarce()
    }

    /// Makes a connection.
    ///
    /// # Errors
    /// The name has no address that may be dialled, nobody answers, or TLS does not come about.
    pub(crate) async fn dial(&self) -> Result<DialedPeer, DialError> {
        let dialed = self.connect().await;
        if let Err(error) = &dialed
            && let Some(lack) = own_shortage::of_descriptors(error.as_ref())
        {
            self.sockets.note_lack(Instant::now(), &lack);
        }
        dialed
    }

    async fn connect(&self) -> Result<DialedPeer, DialError> {
        let socket = self.sockets.take(self.timeout).await?;
        let mut tcp = self.tcp.clone();
        poll_fn(|cx| tcp.poll_ready(cx)).await?;
        let mut tcp = tcp.call(self.target.clone()).await?.into_inner();
        if let Some(ProxyTunnel { at, authorization }) = &self.tunnel {
            tunnel::open(&mut tcp, at, authorization.as_ref()).await?;
        }
        let tcp = FencedStream::new(tcp, Arc::clone(&self.may_send), socket);
        let Some(tls) = &self.tls else {
            return Ok(DialedPeer { stream: Box::new(tcp), http2: self.http2 });
        };
        let stream = tls.connector.connect(tls.host.clone(), tcp).await?;
        let http2 = stream.get_ref().1.alpn_protocol() == Some(HTTP_2);
        Ok(DialedPeer { stream: Box::new(stream), http2 })
    }
}

/// Names become addresses as the endpoint's guard allows.
#[derive(Clone)]
struct PeerNames(Arc<GuardedResolver>);

impl Service<dns::Name> for PeerNames {
    type Response = Addrs;
    type Error = DialError;
    type Future = Resolving;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: dns::Name) -> Resolving {
        match name.as_str().parse() {
            Ok(name) => self.0.resolve(name),
            Err(error) => Box::pin(async move { Err(Box::from(error)) }),
        }
    }
}
