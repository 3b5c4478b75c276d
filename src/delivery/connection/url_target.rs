//! Where a URL leads, and by which way: what has to be dialled, and how a request names it.
//!
//! | URL | without a proxy | with one |
//! | --- | --- | --- |
//! | https | dialled; `/path` | through a tunnel; `/path` |
//! | http | dialled; `/path` | by the proxy itself: `http://host/path` |
//!
//! The guard judges every address that is dialled. Behind a proxy that is the proxy's own, under the
//! operator's policy, since only the operator can write one; which address a name leads to is then
//! the proxy's to judge. A host that is an address is judged in any case.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http::HeaderValue;
use http::Uri;
use http::header::HOST;
use http::header::PROXY_AUTHORIZATION;
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;
use url::Host;
use url::Position;
use url::Url;

use crate::config::sections::endpoint_connection::ConnectionLink;
use crate::config::settings::AddressPolicy;
use crate::delivery::connection::address_guard;
use crate::delivery::connection::address_guard::AddressRefusal;
use crate::delivery::connection::connections::ConnectionPool;
use crate::delivery::connection::connections::PoolShared;
use crate::delivery::connection::dial::EndpointDialer;
use crate::delivery::connection::dial::ProxyTunnel;
use crate::delivery::connection::dial::TlsDialer;
use crate::delivery::connection::network::DeliveryNetwork;
use crate::delivery::connection::shared_pools::PoolTerms;
use crate::delivery::error::DeliveryError;
use crate::delivery::request::auth;

/// A place to send requests to.
pub(crate) struct EndpointSite {
    /// Other endpoints may have them, too.
    pub(crate) connections: Arc<ConnectionPool>,
    /// The target of a request.
    pub(crate) path: Uri,
    /// What every request carries because of its way: `Host`, the proxy's credentials.
    pub(crate) headers: HeaderMap,
    /// It, or its proxy, is an address that must not be dialled.
    pub(crate) refusal: Option<AddressRefusal>,
}

impl EndpointSite {
    /// # Errors
    /// The URL or the proxy's cannot be used, or TLS cannot be set up.
    pub(crate) fn new(
        url: &Url,
        policy: AddressPolicy,
        link: &ConnectionLink,
        network: &DeliveryNetwork,
        timeout: Duration,
        endpoint: &Arc<str>,
    ) -> Result<Self, DeliveryError> {
        let unusable = || DeliveryError::Url { endpoint: Arc::clone(endpoint) };
        if !matches!(url.scheme(), "http" | "https") {
            return Err(DeliveryError::Scheme { endpoint: Arc::clone(endpoint) });
        }
        let is_https = url.scheme() == "https";
        let proxy = link.proxy.as_ref().map(|proxy| proxy.reveal());
        let authorization = match proxy.and_then(auth::of_url) {
            Some(auth) => auth::header(&auth, endpoint)?.map(|(_, value)| value),
            None => None,
        };
        let at = &url[Position::BeforeHost..Position::AfterPort];
        let path = &url[Position::BeforePath..Position::AfterQuery];
        let origin = format!("{}://{at}", url.scheme());
        let absolute: Uri = format!("{origin}{path}").parse().map_err(|_| unusable())?;
        let path: Uri = path.parse().map_err(|_| unusable())?;
        let host: HeaderValue = at.parse().map_err(|_| unusable())?;
        let mut headers = HeaderMap::from_iter([(HOST, host.clone())]);
        let is_by_proxy = proxy.is_some() && !is_https;
        if let Some(value) = authorization.clone().filter(|_| is_by_proxy) {
            headers.insert(PROXY_AUTHORIZATION, value);
        }
        let make = || {
            let dialer = dialer(url, policy, link, network, timeout, authorization);
            let dialer = dialer?.ok_or_else(unusable)?;
            let origin: Uri = origin.parse().map_err(|_| unusable())?;
            let shared = link.http2.then(|| PoolShared::new(origin, host));
            Ok(ConnectionPool::new(dialer, shared, link.max_age))
        };
        let connections = match (network.pools(), PoolTerms::of(policy, link, timeout)) {
            (Some(pools), Some(terms)) => pools.pool(&origin, &terms, make)?,
            _ => Arc::new(make()?),
        };
        let judged = address_guard::check_host(url, policy).and_then(|()| {
            proxy.map_or(Ok(()), |p| address_guard::check_host(p, AddressPolicy::Operator))
        });
        let path = if is_by_proxy { absolute } else { path };
        Ok(Self { connections, path, headers, refusal: judged.err() })
    }
}

/// What makes connections for `url`; `None` if its host is no name that can be dialled.
fn dialer(
    url: &Url,
    policy: AddressPolicy,
    link: &ConnectionLink,
    network: &DeliveryNetwork,
    timeout: Duration,
    authorization: Option<HeaderValue>,
) -> Result<Option<EndpointDialer>, DeliveryError> {
    let mut tls = None;
    if url.scheme() == "https" {
        let Some(host) = url.host().and_then(server_name) else { return Ok(None) };
        let connector = TlsConnector::from(Arc::new(network.tls(link)?));
        tls = Some(TlsDialer { connector, host });
    }
    let proxy = link.proxy.as_ref().map(|proxy| proxy.reveal());
    let mut tunnel = None;
    if proxy.is_some() && tls.is_some() {
        let Some(port) = url.port_or_known_default() else { return Ok(None) };
        let at = format!("{}:{port}", url.host_str().unwrap_or_default());
        tunnel = Some(ProxyTunnel { at, authorization });
    }
    let names = network.resolver(if proxy.is_some() { AddressPolicy::Operator } else { policy });
    let to = proxy.unwrap_or(url);
    let target = format!("{}://{}", to.scheme(), &to[Position::BeforeHost..Position::AfterPort]);
    let Ok(target) = target.parse() else { return Ok(None) };
    let dialer = EndpointDialer::new(target, names, tunnel, tls, link.http2, timeout);
    Ok(Some(dialer.gated(network.may_send()).within(network.sockets())))
}

/// As TLS names it.
fn server_name(host: Host<&str>) -> Option<ServerName<'static>> {
    match host {
        Host::Domain(name) => ServerName::try_from(name.to_owned()).ok(),
        Host::Ipv4(address) => Some(ServerName::from(IpAddr::V4(address))),
        Host::Ipv6(address) => Some(ServerName::from(IpAddr::V6(address))),
    }
}
