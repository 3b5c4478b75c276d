//! Settings: the sections of the configuration as the rest of walhook sees them. Every value is valid.
//!
//! | file | holds |
//! | --- | --- |
//! | `addresses` | Addresses that endpoints may have |
//! | `channel_presets` | `channel`: chat systems as data |
//! | `endpoint` | `[[endpoint]]` |
//! | `event` | `[[event]]` |
//! | `hosts` | The hosts of a connection URL, one by one |
//! | `inbound` | `[inbound]` |
//! | `messages` | `[messages]` |
//! | `ocr_wallet` | The preset `ocr-wallet` |
//! | `places` | Where keys stand in a configuration file |
//! | `relay` | `[relay]` |
//! | `request_template` | What of an endpoint's requests is evaluated for each event |
//! | `telemetry` | `[telemetry]` |

mod addresses;
mod channel_presets;
mod endpoint;
mod event;
mod hosts;
mod inbound;
mod messages;
pub(crate) mod ocr_wallet;
mod places;
mod relay;
mod request_template;
mod telemetry;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::config::TargetSessionAttrs;

use crate::config::secret::Secret;
use crate::flow::verdict::AttemptVerdict;

pub(crate) use crate::config::settings::addresses::AddressBlock;
pub(crate) use crate::config::settings::addresses::AddressList;
pub use crate::config::settings::addresses::AddressPolicy;
pub(crate) use crate::config::settings::addresses::AllowedBlocks;
pub(crate) use crate::config::settings::addresses::BLOCKS_MAX;
pub use crate::config::settings::channel_presets::Channel;
pub(crate) use crate::config::settings::channel_presets::ChannelAnswer;
pub(crate) use crate::config::settings::channel_presets::ChannelSignature;
pub use crate::config::settings::channel_presets::Overflow;
pub use crate::config::settings::channel_presets::PRESETS;
pub(crate) use crate::config::settings::channel_presets::Preset;
pub use crate::config::settings::channel_presets::WecomApp;
pub use crate::config::settings::endpoint::AnswerRule;
pub use crate::config::settings::endpoint::Auth;
pub(crate) use crate::config::settings::endpoint::BacklogLimits;
pub use crate::config::settings::endpoint::BatchSettings;
pub use crate::config::settings::endpoint::BodyRule;
pub(crate) use crate::config::settings::endpoint::BreakerSettings;
pub use crate::config::settings::endpoint::Endpoint;
pub(crate) use crate::config::settings::endpoint::EventGlob;
pub(crate) use crate::config::settings::endpoint::GoneMeaning;
pub(crate) use crate::config::settings::endpoint::HmacScheme;
pub use crate::config::settings::endpoint::KeyOrdering;
pub use crate::config::settings::endpoint::OAuth2;
pub use crate::config::settings::endpoint::ParkingSettings;
pub use crate::config::settings::endpoint::RetryDelays;
pub(crate) use crate::config::settings::endpoint::RetryOn;
pub use crate::config::settings::endpoint::RetrySettings;
pub(crate) use crate::config::settings::endpoint::SignatureEncoding;
pub(crate) use crate::config::settings::endpoint::SignedPart;
pub use crate::config::settings::endpoint::Signing;
pub use crate::config::settings::endpoint::StandardKey;
pub(crate) use crate::config::settings::endpoint::ValueMatch;
pub(crate) use crate::config::settings::event::CloudEventsMode;
pub(crate) use crate::config::settings::event::DedupeSettings;
pub(crate) use crate::config::settings::event::EventFilter;
pub(crate) use crate::config::settings::event::EventRule;
pub(crate) use crate::config::settings::event::ExpiryRule;
pub(crate) use crate::config::settings::event::JsonForm;
pub use crate::config::settings::event::Operations;
pub(crate) use crate::config::settings::event::PayloadSettings;
pub(crate) use crate::config::settings::event::RowChangeSql;
pub(crate) use crate::config::settings::event::SqlPiece;
pub(crate) use crate::config::settings::event::TraceSource;
pub(crate) use crate::config::settings::event::WriteBackSettings;
pub(crate) use crate::config::settings::inbound::CallbackKind;
pub(crate) use crate::config::settings::inbound::HmacCallbacks;
pub(crate) use crate::config::settings::inbound::InboundScheme;
pub(crate) use crate::config::settings::inbound::InboundSettings;
pub(crate) use crate::config::settings::inbound::InboundSource;
pub(crate) use crate::config::settings::inbound::StatusFields;
pub(crate) use crate::config::settings::inbound::WecomKeys;
pub(crate) use crate::config::settings::messages::MessageTables;
pub use crate::config::settings::places::SourcePlaces;
pub(crate) use crate::config::settings::relay::RelaySettings;
pub(crate) use crate::config::settings::request_template::HeaderTemplate;
pub use crate::config::settings::request_template::RequestTemplate;
pub(crate) use crate::config::settings::request_template::TargetPiece;

pub(crate) use crate::config::settings::telemetry::CollectorSettings;
pub(crate) use crate::config::settings::telemetry::TelemetrySettings;
pub(crate) use crate::config::settings::telemetry::TraceSampling;

#[derive(Clone, Debug, PartialEq)]
pub struct PostgresSettings {
    pub server: ServerSettings,
    pub slot: String,
    pub publication: String,
    /// What walhook asks of the server for its replication connection; also how soon the server
    /// frees the slot of a walhook that froze.
    pub wal_sender_timeout: Duration,
    /// Whether standbys keep the slot, so that it outlives a promotion (PostgreSQL 17).
    pub failover: bool,
}

/// Where PostgreSQL is and how to get in: a parsed connection URL.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerSettings {
    /// Hosts, ports, user, password, database, time limits. Its `Debug` hides the password. Its own
    /// SSL mode and `target_session_attrs` are not used: `tls` and `attrs` are.
    pub params: tokio_postgres::Config,
    pub tls: TlsSettings,
    /// `target_session_attrs`.
    pub attrs: SessionAttrs,
    /// The file that the URL came from. User and password are read from it anew for each connection.
    pub url_file: Option<PathBuf>,
    /// libpq's password file, looked at for each connection when there is no password.
    pub password_file: Option<PathBuf>,
}

impl ServerSettings {
    /// The user to log in as: the URL's, else the environment's, as libpq would take the system's.
    /// `None` if neither names one.
    pub fn user(&self) -> Option<String> {
        let given = self.params.get_user().map(ToOwned::to_owned);
        given.or_else(|| std::env::var("USER").ok()).filter(|user| !user.is_empty())
    }

    /// A server with nothing but these.
    pub fn new(params: tokio_postgres::Config, tls: TlsSettings) -> Self {
        let attrs = match params.get_target_session_attrs() {
            TargetSessionAttrs::ReadWrite => SessionAttrs::ReadWrite,
            TargetSessionAttrs::ReadOnly => SessionAttrs::ReadOnly,
            _ => SessionAttrs::Any,
        };
        Self { params, tls, attrs, url_file: None, password_file: None }
    }
}

/// libpq's target_session_attrs: which servers of the list will do.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum SessionAttrs {
    #[default]
    Any,
    ReadWrite,
    ReadOnly,
    Primary,
    Standby,
    /// A standby, or else any.
    PreferStandby,
}

#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TlsSettings {
    pub mode: TlsMode,
    /// `sslrootcert`: a PEM file; `None` means the system's roots.
    pub root_cert: Option<String>,
    /// `sslcert` and `sslkey`: PEM files.
    pub client: Option<(String, String)>,
}

/// libpq's sslmode.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum TlsMode {
    Disable,
    Allow,
    #[default]
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

#[derive(Clone, Debug, PartialEq)]
pub struct HttpSettings {
    pub listen: SocketAddr,
    /// Names that are answered without a token, besides those of the loopback; in lower case.
    pub hosts: Vec<String>,
    pub token: Option<Secret<String>>,
}

/// `[push_log]`: what is kept of every attempt.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PushLogSettings {
    pub attempts: LoggedAttempts,
    pub bodies: LoggedBodies,
    /// Bytes kept of each body.
    pub body_limit: usize,
    /// Whole days; older partitions are dropped.
    pub retention_days: u32,
}

/// `[dead_letters]`: what becomes of deliveries that were given up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DeadLetterSettings {
    /// Whole days; letters that were closed before are removed.
    pub retention_days: u32,
    /// Deliveries sent again per second and endpoint; the endpoint's own limits hold as well.
    pub resend_rate: u32,
}

/// Which attempts are kept at all.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LoggedAttempts {
    All,
    Failures,
    Off,
}

impl LoggedAttempts {
    /// Whether an attempt is kept that ended like this.
    pub fn keep(self, verdict: &AttemptVerdict) -> bool {
        match self {
            Self::All => true,
            Self::Failures => *verdict != AttemptVerdict::Delivered,
            Self::Off => false,
        }
    }
}

/// Of which attempts the request and response bodies are kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LoggedBodies {
    All,
    Failures,
    None,
}

impl LoggedBodies {
    /// Whether those of an attempt are kept that ended like this.
    pub fn are_kept_of(self, verdict: &AttemptVerdict) -> bool {
        match self {
            Self::All => true,
            Self::Failures => *verdict != AttemptVerdict::Delivered,
            Self::None => false,
        }
    }
}

/// `[memory]`: limits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MemorySettings {
    /// Rows and events in memory at once, over all lanes.
    pub queued_bytes: usize,
    /// Endpoints at once, wherever they come from.
    pub endpoints_max: usize,
    /// WAL that may wait for endpoints that answer, but slowly, before their events go by way of the
    /// backlog.
    pub hold_wal_bytes: u64,
    /// How long other endpoints may have nothing to do meanwhile.
    pub hold_wal_time: Duration,
}

/// `[metrics]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MetricsSettings {
    /// Endpoints with series of their own that are not of the configuration file.
    pub endpoint_series_max: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub struct LogSettings {
    pub format: LogFormat,
    /// A `tracing_subscriber` filter, such as `info` or `walhook=debug`.
    pub filter: String,
    /// Whether each delivery has a line, or only what was given up.
    pub outcomes: LoggedOutcomes,
}

/// Which outcomes of deliveries have a line of the log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LoggedOutcomes {
    All,
    Failures,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LogFormat {
    Text,
    Json,
}
