//! The HTTP surface: health, readiness, metrics, stats, status; endpoints, dead letters, push log,
//! replay.
//!
//! Reads copies through handles, and hands what changes something to those who may; it never holds
//! up the flow of events. With a token set, everything but `/health`, `/ready` and `/metrics` needs
//! `Authorization: Bearer`; without one, only the names of the loopback are answered.
//!
//! | file | holds |
//! | --- | --- |
//! | `backfills` | `/api/v1/backfills` |
//! | `condition` | How an endpoint does, in words, and what is to be done about it |
//! | `connections` | The connections of the HTTP surface |
//! | `dead_letters` | `/api/v1/dead-letters` |
//! | `endpoints` | `/api/v1/endpoints` |
//! | `events` | `GET /api/v1/events/{event_id}` |
//! | `fields` | Parameters of a request, from its query or its JSON body |
//! | `guard` | Who may ask |
//! | `host` | By which names walhook may be asked while there is no token |
//! | `letter_bulk` | Dead letters by the filter rather than by the page |
//! | `live` | `GET /api/v1/live`, server-sent events |
//! | `message_queries` | `GET /api/v1/messages/{message_id}/status` and `/history` |
//! | `openapi` | `GET /api/v1/openapi.json` |
//! | `overview` | The last hour and day in numbers |
//! | `page` | The page that an operator looks at, and how it gets in |
//! | `problem` | Errors as `application/problem+json` (RFC 9457) |
//! | `push_logs` | `GET /api/v1/push-logs` |
//! | `refusals` | What the surface refuses, seen |
//! | `replay` | `/api/v1/replay` |
//! | `request` | What a request brings |
//! | `routes` | Every path of the surface |
//! | `source` | The database behind the events: its slot, tables, findings; a row to try |
//! | `state_queries` | What the surface can look up and ask for in the state, beside the deliveries |
//! | `stats` | `GET /api/v1/webhook/stats`, contract 1 |
//! | `status` | `/health`, `/ready`, `/metrics` and `GET /api/v1/status` |
//! | `webhook_api` | Contract 4's calls, at the paths and with the field names that its clients have |

pub mod backfills;
mod condition;
mod connections;
mod dead_letters;
pub mod endpoints;
mod events;
mod fields;
mod guard;
pub mod host;
mod letter_bulk;
pub mod live;
pub mod message_queries;
mod openapi;
mod overview;
mod page;
mod problem;
mod push_logs;
pub mod refusals;
mod replay;
mod request;
mod routes;
mod source;
pub mod state_queries;
mod stats;
mod status;
mod webhook_api;

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use axum::http::StatusCode;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::backfills::BackfillDesk;
use crate::api::endpoints::AdminSender;
use crate::api::host::AllowedHosts;
use crate::api::live::LiveReaders;
use crate::api::message_queries::MessageQueries;
use crate::api::problem::ProblemResponse;
use crate::api::refusals::RefusalCounter;
use crate::api::state_queries::StateQueries;
use crate::clock::DatabaseClock;
use crate::config::configuration::Settings;
use crate::config::secret::Secret;
use crate::delivery::sockets::Sockets;
use crate::flow::time::Timestamp;
use crate::ledger::live_feed::AttemptFeed;
use crate::ledger::state_status::StateStatus;
use crate::ledger::stats::PushStats;
use crate::ledger::write_back::WriteBackStatus;
use crate::replication::status::StatusHandle;
use crate::telemetry::metrics::WalhookMetrics;
use crate::telemetry::obstacles::NamedObstacles;
use crate::telemetry::samples::SampleHistory;

/// Endpoints that do not get what is meant for them: their names, and why. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct RequestRefused(Arc<Mutex<Vec<(String, String)>>>);

impl RequestRefused {
    pub fn set(&self, refused: Vec<(String, String)>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = refused;
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    pub(crate) fn list(&self) -> Vec<(String, String)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What the surface shows, by handles to those who know it.
#[derive(Clone)]
pub struct HttpSurface {
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
    pub desk: AdminSender,
    /// Reads rows that were there before.
    pub backfills: BackfillDesk,
    pub token: Option<Secret<String>>,
    /// By which names it may be asked without one.
    pub hosts: AllowedHosts,
    pub refusals: RefusalCounter,
    pub office: Arc<StateQueries>,
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
                return Err(fields::unknown(what, name, &known));
            }
        }
        Ok(())
    }
}

/// An endpoint as the status shows it.
#[derive(Clone, Debug)]
pub struct EndpointView {
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

/// Serves until `stop` is cancelled.
pub async fn serve(listener: TcpListener, surface: HttpSurface, stop: CancellationToken) {
    let refusals = surface.refusals.clone();
    connections::serve(listener, routes::router(surface), refusals, stop).await;
}
