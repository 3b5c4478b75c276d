//! A connection to the broker. It is made anew by itself for as long as it is kept.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use async_nats::Client;
use async_nats::ConnectErrorKind;
use async_nats::ConnectOptions;
use async_nats::Event;
use async_nats::ServerAddr;
use async_nats::ServerError;
use async_nats::jetstream;
use async_nats::jetstream::Context;
use percent_encoding::percent_decode_str;
use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::sign::SingleCertAndKey;

use crate::config::settings::RelaySettings;
use crate::relay::error::RelayError;

/// For one server of the list.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long JetStream may take to answer. A cluster that elects a leader takes seconds.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Messages of a partition that are on their way at once.
pub(super) const UNACKED_MAX: usize = 512;

/// How often what a partition has on its way may be sent anew, before the client has given up on what was sent
/// before. Each publisher keeps to a limit of its own: one that had to wait for acknowledgements of others, which
/// wait for it, would stand still.
const SENT_ANEW_MAX: usize = 4;

/// The first version that checks expected sequences under concurrent publishers, as we publish.
pub(crate) const VERSION_NEEDED: (i64, i64) = (2, 12);

/// What the broker said of permissions, the last time.
type Refusals = Arc<Mutex<Option<String>>>;

/// A connection, and JetStream over it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct BrokerConnection {
    client: Client,
    pub(super) jetstream: Context,
    /// A refused publish or subscription has no answer of its own: the broker says so on the side.
    refusals: Refusals,
}

impl BrokerConnection {
    /// Connects as `name`, which the broker's lists show.
    ///
    /// # Errors
    /// No server lets us in, or it is too old.
    pub(crate) async fn open(settings: &RelaySettings, name: &str) -> Result<Self, RelayError> {
        let refusals = Refusals::default();
        let options = options(settings, name, &refusals)?;
        let servers = settings.servers.iter().filter_map(|url| {
            // The settings took no other scheme than these.
            ServerAddr::from_url(url.reveal().clone()).ok()
        });
        let servers: Vec<ServerAddr> = servers.collect();
        let shown = shown(settings);
        let client = options.connect(servers).await.map_err(|cause| match cause.kind() {
            ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
                RelayError::NotAllowed { servers: shown, cause }
            }
            ConnectErrorKind::Tls => RelayError::Tls { servers: shown, cause },
            _ => RelayError::Unreachable { servers: shown, cause },
        })?;
        let (major, minor) = VERSION_NEEDED;
        if !client.is_server_compatible(major, minor, 0) {
            let version = client.server_info().version;
            return Err(RelayError::TooOld { version, needed: VERSION_NEEDED });
        }
        let jetstream = jetstream::ContextBuilder::new()
            .timeout(ANSWER_MAX)
            .max_ack_inflight(UNACKED_MAX * SENT_ANEW_MAX * usize::from(settings.partitions.get()))
            .ack_timeout(ANSWER_MAX)
            .backpressure_on_inflight(true)
            .build(client.clone());
        Ok(Self { client, jetstream, refusals })
    }

    /// Whether it has said that it is one of several servers.
    pub(super) fn is_clustered(&self) -> bool {
        self.client.server_info().cluster.is_some()
    }

    /// The version of the server that we are connected to.
    pub(crate) fn version(&self) -> String {
        self.client.server_info().version
    }

    /// The largest message that it takes.
    pub(crate) fn message_bytes_max(&self) -> usize {
        self.client.server_info().max_payload
    }

    /// What it has said of permissions since the last call.
    pub(super) fn take_refusal(&self) -> Option<String> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The servers, without what is secret in their URLs.
pub(crate) fn shown(settings: &RelaySettings) -> String {
    let shown = settings.servers.iter().map(|url| {
        let url = url.reveal();
        format!("{}:{}", url.host_str().unwrap_or_default(), url.port().unwrap_or(4222))
    });
    shown.collect::<Vec<_>>().join(", ")
}

fn options(
    settings: &RelaySettings,
    name: &str,
    refusals: &Refusals,
) -> Result<ConnectOptions, RelayError> {
    let told = Arc::clone(refusals);
    let mut options = ConnectOptions::new()
        .name(name)
        .connection_timeout(CONNECT_TIMEOUT)
        .request_timeout(Some(ANSWER_MAX))
        .event_callback(move |event| {
            tell(&event, &told);
            async {}
        });
    let mut named = settings.servers.iter().map(|url| url.reveal());
    let is_tls = named.clone().any(|url| url.scheme() == "tls");
    if let Some(url) = named.find(|url| !url.username().is_empty()) {
        // Those of one server are those of its cluster.
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        options = match url.password() {
            Some(password) => options.user_and_password(decoded(url.username()), decoded(password)),
            None => options.token(decoded(url.username())),
        };
    }
    if let Some(credentials) = &settings.credentials {
        options = options.credentials(credentials.reveal()).map_err(RelayError::Credentials)?;
    }
    if settings.needs_tls || is_tls {
        options = options.require_tls(true).tls_client_config(tls(settings)?);
    }
    Ok(options)
}

/// Notes what the broker says on the side.
fn tell(event: &Event, refusals: &Refusals) {
    match event {
        Event::ServerError(ServerError::Other(said)) => {
            tracing::warn!(said, "the broker refuses something");
            *refusals.lock().unwrap_or_else(PoisonError::into_inner) = Some(said.clone());
        }
        Event::Disconnected => tracing::warn!("the connection to the broker is lost"),
        Event::Connected => tracing::info!("connected to the broker"),
        other => tracing::debug!(event = %other, "the broker"),
    }
}

fn tls(settings: &RelaySettings) -> Result<ClientConfig, RelayError> {
    let link = &settings.link;
    let roots = match &link.ca {
        Some(authorities) => Arc::clone(&authorities.roots),
        None => {
            let mut system = RootCertStore::empty();
            system.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            Arc::new(system)
        }
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(RelayError::TlsSettings)?
        .with_root_certificates(roots);
    Ok(match &link.client {
        Some(identity) => {
            let resolver = SingleCertAndKey::from(Arc::clone(identity));
            config.with_client_cert_resolver(Arc::new(resolver))
        }
        None => config.with_no_client_auth(),
    })
}
