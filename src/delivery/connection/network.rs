//! The network of all endpoints: name resolution, trusted TLS roots, sockets, and what else they share of the outside.

use std::fmt;
use std::sync::Arc;
use std::sync::OnceLock;

use reqwest::dns::Resolve;
use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::sign::SingleCertAndKey;
use tokio::sync::watch;

use crate::config::sections::endpoint_connection::ConnectionLink;
use crate::config::settings::AddressPolicy;
use crate::config::settings::Endpoint;
use crate::delivery::begun_message::BegunMessages;
use crate::delivery::connection::dial::HTTP_2;
use crate::delivery::connection::guarded_resolver::GuardedResolver;
use crate::delivery::connection::lookup::Lookups;
use crate::delivery::connection::shared_pools::SharedPools;
use crate::delivery::connection::sockets::Sockets;
use crate::delivery::connection::stalled_bodies::StallRule;
use crate::delivery::connection::trust::EndpointTrust;
use crate::delivery::connection::write_gate::SendPermission;
use crate::delivery::error::DeliveryError;
use crate::delivery::request::token_registry::TokenRegistry;
use crate::delivery::trace::EndpointTracing;
use crate::delivery::trace::RequestTracing;
use crate::telemetry::metrics::ChannelErrorMetrics;

/// The way out. Clones share it.
#[derive(Clone)]
pub struct DeliveryNetwork {
    resolver: Arc<dyn Resolve>,
    /// Filled when the first https endpoint asks: plain http needs no roots.
    roots: Arc<OnceLock<Arc<RootCertStore>>>,
    may_send: SendPermission,
    tokens: TokenRegistry,
    begun: BegunMessages,
    channel_errors: Option<ChannelErrorMetrics>,
    sockets: Sockets,
    /// `None`: each endpoint has its connections to itself.
    pools: Option<SharedPools>,
    /// Changes while a large row waits in the memory budget for what is in flight.
    memory_wanted: Option<watch::Receiver<u64>>,
    tracing: Option<RequestTracing>,
}

impl DeliveryNetwork {
    /// The machine's own resolver and the certificate authorities that it trusts.
    pub fn system() -> Self {
        Self {
            resolver: Arc::new(Lookups::system()),
            roots: Arc::default(),
            may_send: Arc::new(|| true),
            tokens: TokenRegistry::default(),
            begun: BegunMessages::default(),
            channel_errors: None,
            sockets: Sockets::of_this_process(),
            pools: None,
            memory_wanted: None,
            tracing: None,
        }
    }

    /// Another resolver and other authorities.
    pub fn new(resolver: Arc<dyn Resolve>, roots: RootCertStore) -> Self {
        let roots = Arc::new(OnceLock::from(Arc::new(roots)));
        Self {
            resolver,
            roots,
            may_send: Arc::new(|| true),
            tokens: TokenRegistry::default(),
            begun: BegunMessages::default(),
            channel_errors: None,
            sockets: Sockets::of_this_process(),
            pools: None,
            memory_wanted: None,
            tracing: None,
        }
    }

    /// The same, writing to no socket while `may_send` says no.
    #[must_use]
    pub fn gated(self, may_send: SendPermission) -> Self {
        Self { may_send, ..self }
    }

    /// The same, counting what chat systems answer.
    #[must_use]
    pub fn counting(self, channel_errors: ChannelErrorMetrics) -> Self {
        Self { channel_errors: Some(channel_errors), ..self }
    }

    pub(crate) fn channel_errors(&self) -> Option<ChannelErrorMetrics> {
        self.channel_errors.clone()
    }

    /// Messages of which a part was taken, by whichever client of an endpoint.
    pub(crate) fn begun(&self) -> BegunMessages {
        self.begun.clone()
    }

    /// The access tokens of all applications that are reached by this way.
    pub(crate) fn tokens(&self) -> &TokenRegistry {
        &self.tokens
    }

    /// The same, with no more than these sockets.
    #[must_use]
    pub fn within(self, sockets: Sockets) -> Self {
        Self { sockets, ..self }
    }

    /// The same, for endpoints whose requests are made on one thread: those of one host and port share its
    /// connections.
    #[must_use]
    pub fn sharing(self) -> Self {
        Self { pools: Some(SharedPools::default()), ..self }
    }

    pub(crate) fn pools(&self) -> Option<&SharedPools> {
        self.pools.as_ref()
    }

    /// The same, giving up large bodies that do not move while their memory is wanted.
    #[must_use]
    pub fn yielding(self, memory_wanted: watch::Receiver<u64>) -> Self {
        Self { memory_wanted: Some(memory_wanted), ..self }
    }

    /// The same, telling receivers or a collector of traces.
    #[must_use]
    pub fn tracing(self, tracing: Option<RequestTracing>) -> Self {
        Self { tracing, ..self }
    }

    pub(crate) fn tracing_of(&self, endpoint: &Endpoint) -> Option<EndpointTracing> {
        self.tracing.clone().map(|tracing| EndpointTracing::new(tracing, endpoint))
    }

    pub(crate) fn stall_rule(&self) -> Option<StallRule> {
        self.memory_wanted.clone().map(StallRule::new)
    }

    pub(crate) fn sockets(&self) -> Sockets {
        self.sockets.clone()
    }

    pub(crate) fn may_send(&self) -> SendPermission {
        Arc::clone(&self.may_send)
    }

    /// The resolver as an endpoint of this policy may use it.
    pub(crate) fn resolver(&self, policy: AddressPolicy) -> GuardedResolver {
        GuardedResolver::new(Arc::clone(&self.resolver), policy)
    }

    /// TLS 1.2 and 1.3, HTTP/1.1 and also HTTP/2 if it is wanted, certificates always verified: by
    /// the link's own authorities where it has some, else by those of this machine.
    pub(crate) fn tls(&self, link: &ConnectionLink) -> Result<ClientConfig, DeliveryError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(DeliveryError::Tls)?;
        let builder = match &link.ca {
            Some(ca) => {
                let trust = EndpointTrust::new(ca, provider).map_err(DeliveryError::Tls)?;
                builder.dangerous().with_custom_certificate_verifier(Arc::new(trust))
            }
            None => builder.with_root_certificates(self.roots()?),
        };
        let mut config = builder.with_no_client_auth();
        if let Some(identity) = &link.client {
            let always = SingleCertAndKey::from(Arc::clone(identity));
            config.client_auth_cert_resolver = Arc::new(always);
        }
        if link.http2 {
            config.alpn_protocols.push(HTTP_2.to_vec());
        }
        config.alpn_protocols.push(b"http/1.1".to_vec());
        Ok(config)
    }

    fn roots(&self) -> Result<Arc<RootCertStore>, DeliveryError> {
        let roots = self.roots.get_or_init(|| {
            let mut roots = RootCertStore::empty();
            // A file that cannot be read, or a certificate that cannot be parsed, is no reason to
            // distrust the others.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            Arc::new(roots)
        });
        if roots.is_empty() {
            return Err(DeliveryError::NoTrustedRoots);
        }
        Ok(Arc::clone(roots))
    }
}

impl fmt::Debug for DeliveryNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network").finish_non_exhaustive()
    }
}
