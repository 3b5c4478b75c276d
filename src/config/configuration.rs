//! `Settings`: the whole configuration, read and checked.

use std::time::Duration;

use crate::config::sections::endpoints_from::EndpointsFrom;
use crate::config::sections::run_time_endpoints::RunTimeSettings;
use crate::config::settings::DeadLetterSettings;
use crate::config::settings::Endpoint;
use crate::config::settings::EventRule;
use crate::config::settings::HttpSettings;
use crate::config::settings::InboundSettings;
use crate::config::settings::LogSettings;
use crate::config::settings::MemorySettings;
use crate::config::settings::MessageTables;
use crate::config::settings::MetricsSettings;
use crate::config::settings::PostgresSettings;
use crate::config::settings::PushLogSettings;
use crate::config::settings::RelaySettings;
use crate::config::settings::ServerSettings;
use crate::config::settings::TelemetrySettings;

/// A whole, checked configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    pub postgres: PostgresSettings,
    /// `[state] url`: where walhook keeps its own state; the source database unless told otherwise.
    pub state: ServerSettings,
    /// `[backfill] url`: a standby on which backfills read their rows; `None`: on the source.
    pub backfill_standby: Option<ServerSettings>,
    pub push_log: PushLogSettings,
    pub dead_letters: DeadLetterSettings,
    pub http: HttpSettings,
    /// `[webhook] enabled`: if not, tables are tailed and accounted for, and nothing is pushed.
    pub enabled: bool,
    pub events: Vec<EventRule>,
    pub endpoints: Vec<Endpoint>,
    pub endpoints_from: Option<EndpointsFrom>,
    pub memory: MemorySettings,
    pub metrics: MetricsSettings,
    pub log: LogSettings,
    /// `[telemetry]`.
    pub telemetry: TelemetrySettings,
    /// How long a shutdown may take before what is left is cut off.
    pub grace: Duration,
    pub run_time: RunTimeSettings,
    /// `[messages]`, if there is one.
    pub messages: Option<MessageTables>,
    /// `[inbound]`, if there is one.
    pub inbound: Option<InboundSettings>,
    /// `[relay]`, if there is one: only `run --role` uses it.
    pub relay: Option<RelaySettings>,
}

impl Settings {
    /// The longest time after which an event is too old to be sent; zero if none ever is.
    pub fn longest_life(&self) -> Duration {
        let lives = self.events.iter().filter_map(|rule| Some(rule.expiry.as_ref()?.max_age));
        lives.max().unwrap_or_default()
    }
}
