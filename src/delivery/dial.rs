//! Makes connections to one endpoint: guarded name, TCP, and TLS where the URL says so.
//!
//! What comes out is a stream of bytes; which HTTP is spoken over it is not decided here.

use std::error::Error;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns;
use reqwest::dns::Addrs;
use reqwest::dns::Resolve;
use reqwest::dns::Resolving;
use rustls::pki_types::ServerName;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio_rustls::TlsConnector;
use tower_service::Service;

use crate::delivery::network::Guarded;

/// Probes of a connection on which nothing moves, so that an idle one whose peer is gone is noticed
/// and one that a firewall would forget is kept.
const KEEPALIVE: Duration = Duration::from_secs(15);
const KEEPALIVE_PROBES_MAX: u32 = 3;

/// Why there is no connection. What is known of the reason is in its chain of causes.
pub(crate) type DialError = Box<dyn Error + Send + Sync>;

/// A connection's bytes, with or without TLS.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Where an endpoint is, and how to get there.
pub(crate) struct Dialer {
    /// Scheme, host and port.
    target: Uri,
    tcp: HttpConnector<Names>,
    tls: Option<Tls>,
}

/// How an endpoint proves who it is.
pub(crate) struct Tls {
    pub(crate) connector: TlsConnector,
    /// The name that its certificate has to bear.
    pub(crate) host: ServerName<'static>,
}

impl Dialer {
    /// To the host and port of `target`, over TLS if there is any. Of several addresses, each gets
    /// its share of `timeout`.
    pub(crate) fn new(target: Uri, names: Guarded, tls: Option<Tls>, timeout: Duration) -> Self {
        let mut tcp = HttpConnector::new_with_resolver(Names(Arc::new(names)));
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(timeout));
        tcp.set_keepalive(Some(KEEPALIVE));
        tcp.set_keepalive_interval(Some(KEEPALIVE));
        tcp.set_keepalive_retries(Some(KEEPALIVE_PROBES_MAX));
        Self { target, tcp, tls }
    }

    /// Makes a connection.
    ///
    /// # Errors
    /// The name has no address that may be dialled, nobody answers, or TLS does not come about.
    pub(crate) async fn dial(&self) -> Result<Box<dyn Stream>, DialError> {
        let mut tcp = self.tcp.clone();
        poll_fn(|cx| tcp.poll_ready(cx)).await?;
        let tcp = tcp.call(self.target.clone()).await?.into_inner();
        Ok(match &self.tls {
            Some(tls) => Box::new(tls.connector.connect(tls.host.clone(), tcp).await?),
            None => Box::new(tcp),
        })
    }
}

/// Names become addresses as the endpoint's guard allows.
#[derive(Clone)]
struct Names(Arc<Guarded>);

impl Service<dns::Name> for Names {
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
