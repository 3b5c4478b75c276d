//! Handles through which the HTTP surface reads and changes what it shows.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use axum::http::StatusCode;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::api::allowed_hosts::AllowedHosts;
use crate::api::answers::problem::ProblemResponse;
use crate::api::live_readers::LiveReaders;
use crate::api::refusals::RefusalCounter;
use crate::api::requests::backfill_calls::BackfillRequestSender;
use crate::api::requests::endpoint_calls::AdminSender;
use crate::api::requests::fields::unknown;
use crate::api::requests::message_queries::MessageQueries;
use crate::api::requests::state_queries::StateQueries;
use crate::clock::DatabaseClock;
use crate::config::configuration::Settings;
use crate::config::secret::Secret;
use crate::delivery::connection::sockets::Sockets;
use crate::flow::time::Timestamp;
use crate::ledger::live_feed::AttemptFeed;
use crate::ledger::state_status::StateStatus;
use crate::ledger::stats::PushStats;
use crate::ledger::write_back::status::WriteBackStatus;
use crate::replication::status::StatusHandle;
use crate::telemetry::metrics::WalhookMetrics;
use crate::telemetry::obstacles::NamedObstacles;
use crate::telemetry::samples::SampleHistory;

/// Endpoints that do not get what is meant for them: their names, and why. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct RequestRefused(Arc<Mutex<Vec<(String, String)>>>);

impl RequestRefused {
    pub(crate) fn set(&self, refused: Vec<(String, String)>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = refused;
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    pub(crate) fn list(&self) -> Vec<(String, String)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What the surface shows, by handles to the parts that know it.
#[derive(Clone)]
pub(crate) struct HttpSurface {
    pub metrics: WalhookMetrics,
    pub stats: Arc<PushStats>,
    pub source: StatusHandle,
    /// Of all deliveries.
    pub sockets: Sockets,
    pub clock: DatabaseClock,
    pub write_backs: WriteBackStatus,
    /// Rows that were to be endpoints and are none.
    pub refused: RequestRefused,
    /// Endpoints that something waits for and that are not configured.
    pub missing: RequestRefused,
    pub state: StateStatus,
    pub obstacles: NamedObstacles,
    /// Brings the gauges up to date; called before they are read.
    pub refresh: Arc<dyn Fn() + Send + Sync>,
    /// The event types of the configuration.
    pub events: Arc<[Arc<str>]>,
    /// The endpoints as they are now.
    pub endpoints: Arc<dyn Fn() -> Vec<EndpointView> + Send + Sync>,
    /// Makes and changes endpoints.
    pub admin: AdminSender,
    /// Reads rows that were there before.
    pub backfills: BackfillRequestSender,
    pub token: Option<Secret<String>>,
    /// By which names it may be asked without one.
    pub hosts: AllowedHosts,
    pub refusals: RefusalCounter,
    pub queries: Arc<StateQueries>,
    pub messages: MessageQueries,
    /// Attempts as they are made.
    pub feed: AttemptFeed,
    pub samples: SampleHistory,
    /// Who reads `/api/v1/live`.
    pub live: LiveReaders,
    /// The configuration as it holds.
    pub current: watch::Receiver<Arc<Settings>>,
}

impl HttpSurface {
    /// What stands in the way at this moment, the gravest first: while the state cannot be written, the
    /// stream is closed, so that is the cause and not the stream.
    pub(crate) fn in_the_way(&self) -> Vec<String> {
        let now = Instant::now();
        let state = self.state.readiness(now).err();
        let source = self.source.readiness(now).err();
        let others = self.obstacles.list().into_iter().map(|(_, what)| what);
        let lack = self.sockets.lack(now).map(|why| format!("deliveries wait: {why}"));
        state.into_iter().chain(source).chain(others).chain(lack).collect()
    }

    /// Whether there is such an endpoint.
    pub(crate) fn knows(&self, endpoint: &str) -> bool {
        (self.endpoints)().iter().any(|view| &*view.name == endpoint)
    }

    /// # Errors
    /// 409, if there is no such endpoint: nothing can be sent to it.
    pub(crate) fn require_endpoint(&self, endpoint: &str) -> Result<(), ProblemResponse> {
        if self.knows(endpoint) {
            return Ok(());
        }
        let endpoints = (self.endpoints)();
        let names: Vec<&str> = endpoints.iter().map(|view| &*view.name).collect();
        let detail = format!(
            "endpoint {endpoint:?} is not configured, so nothing can be sent to it; there are: {}",
            names.join(", ")
        );
        Err(ProblemResponse::new(StatusCode::CONFLICT, detail))
    }

    /// Where nothing was found: whether the names that were asked for are names of something at all.
    ///
    /// # Errors
    /// 400, if one of them is not.
    pub(crate) fn refuse_strangers(
        &self,
        endpoint: Option<&str>,
        event_type: Option<&str>,
    ) -> Result<(), ProblemResponse> {
        let endpoints = (self.endpoints)();
        let endpoints: Vec<&str> = endpoints.iter().map(|view| &*view.name).collect();
        let events: Vec<&str> = self.events.iter().map(|event| &**event).collect();
        for (what, name, known) in
            [("endpoint", endpoint, endpoints), ("event_type", event_type, events)]
        {
            if let Some(name) = name.filter(|name| !known.contains(name)) {
                return Err(unknown(what, name, &known));
            }
        }
        Ok(())
    }
}

/// An endpoint as the status shows it.
#[derive(Clone, Debug)]
pub(crate) struct EndpointView {
    pub name: Arc<str>,
    /// Without what could be a secret.
    pub url: String,
    /// `enabled`, `disabled`, `paused`, `gone` (it said 410), `refused` (it cannot be used) or
    /// `removing`.
    pub state: &'static str,
    /// Since when and by whom it is paused.
    pub paused: Option<(Timestamp, String)>,
    /// It failed of late, and is asked with one request at a time.
    pub is_slowed: bool,
    /// Where it was made.
    pub source: &'static str,
}
