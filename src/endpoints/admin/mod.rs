//! The administration: answers the calls of the API that make and change endpoints while walhook runs.
//!
//! ```text
//! api ─ AdminRequest ─▶ [admin] ─ changes and a row ─▶ registry ─▶ walhook.endpoints, then everybody else
//! ```
//!
//! It knows each endpoint that was made at run time as its maker wrote it. A change is read as the
//! configuration file is, its addresses are judged, and the registry writes it down before it holds.
//!
//! | file | holds |
//! | --- | --- |
//! | `address` | Judges the addresses of an endpoint when it is saved |
//! | `admit` | Whether an endpoint can be served and may be changed here |
//! | `changes` | The calls that change endpoints |
//! | `examine` | Looks without touching |
//! | `follow` | What other members have changed holds here as well |
//! | `pause` | A pause, the end of a 410, a try at once |
//! | `probe` | Sends a test event |
//! | `record` | One endpoint as its maker wrote it, and how that is stored |
//! | `refusals` | What a call is refused for |
//! | `reload` | The configuration was read again |
//! | `rename` | Another name for an endpoint |
//! | `rotation` | Secrets that take the place of others |
//! | `shared` | What a member knows of the endpoints that others change, too |
//! | `view` | How endpoints are shown |
//! | `webhook_api` | `wechat-messages`'s documents |

mod address;
mod admit;
mod changes;
mod examine;
mod follow;
mod pause;
mod probe;
pub(crate) mod record;
mod refusals;
mod reload;
mod rename;
mod rotation;
pub(crate) mod shared;
mod view;
mod webhook_api;

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::api::answers::admin_answer::AdminAnswer;
use crate::api::answers::endpoint_answers::TestReport;
use crate::api::requests::endpoint_calls::AdminCall;
use crate::api::requests::endpoint_calls::AdminOutcome;
use crate::api::requests::endpoint_calls::AdminRefusal;
use crate::api::requests::endpoint_calls::AdminRequest;
use crate::api::requests::endpoint_calls::TestWish;
use crate::clock::DatabaseClock;
use crate::clock::host_now;
use crate::config::configuration::Settings;
use crate::endpoints::admin::record::EndpointRecord;
use crate::endpoints::admin::record::NamedEventTypes;
use crate::endpoints::admin::record::RecordSeal;
use crate::endpoints::admin::refusals::PROBES_MAX;
use crate::endpoints::admin::refusals::busy;
use crate::endpoints::admin::refusals::no_client;
use crate::endpoints::admin::refusals::room_for;
use crate::endpoints::admin::refusals::unknown;
use crate::endpoints::admin::shared::LOOK_EVERY;
use crate::endpoints::admin::shared::SharedEndpoints;
use crate::endpoints::registry::InitialEndpoint;
use crate::endpoints::registry::RegistryHandle;
use crate::endpoints::registry::snapshot::EndpointOrigin;
use crate::flow::time::Timestamp;
use crate::pipeline::endpoint_update::LookOutcome;
use crate::pipeline::handles::SharedHandles;
use crate::store::endpoints::StoredEndpoint;
use crate::telemetry::metrics::WalhookMetrics;

/// Calls that wait for their turn.
pub(crate) const CALLS_MAX: usize = 16;

/// When a secret's time is over and that could not be written down, it is tried again after this.
const EXPIRY_RETRY: Duration = Duration::from_secs(1);

/// When secrets could not be sealed anew, it is tried again after this.
const SEAL_RETRY: Duration = Duration::from_secs(60);

/// Who takes back secrets whose time is over.
const OURSELVES: &str = "walhook";

/// The configuration as it was read last, if it was read again.
pub(crate) type ReloadedSettings = watch::Receiver<Option<Arc<Settings>>>;

/// Makes, changes and removes endpoints as the API asks for it.
pub(crate) struct EndpointAdmin {
    settings: Settings,
    current: Arc<watch::Sender<Arc<Settings>>>,
    clock: DatabaseClock,
    metrics: WalhookMetrics,
    seal: RecordSeal,
    records: BTreeMap<String, EndpointRecord>,
    /// Rows that were sealed with a key that is not the first any more.
    stale: Vec<String>,
    /// `None`: nobody else changes them.
    shared: Option<SharedEndpoints>,
}

impl EndpointAdmin {
    /// Reads what is stored; gives all endpoints that there are, those of the file first.
    ///
    /// # Errors
    /// A row cannot be opened or understood: without it, events for its endpoint would be skipped.
    pub(crate) fn open(
        settings: &Settings,
        handles: &SharedHandles,
        rows: Vec<StoredEndpoint>,
    ) -> anyhow::Result<(Self, Vec<InitialEndpoint>)> {
        let seal = RecordSeal::new(settings);
        let (clock, current) = (handles.clock.clone(), Arc::clone(&handles.current));
        let (mut records, mut stale) = (BTreeMap::new(), Vec::new());
        let mut starts: Vec<InitialEndpoint> =
            settings.endpoints.iter().map(InitialEndpoint::of_file).collect();
        let taken: HashSet<&str> = settings.endpoints.iter().map(|e| &*e.name).collect();
        for row in rows {
            let name = row.name.clone();
            if taken.contains(name.as_str()) {
                anyhow::bail!(
                    "endpoint {name} stands in the configuration, and one was made over the API \
                     under the same name: rename the one in the configuration"
                );
            }
            if row.sealed.as_ref().is_some_and(|sealed| !seal.keys.is_current(sealed)) {
                stale.push(name.clone());
            }
            let record = EndpointRecord::of_row(row, &seal)?;
            let endpoint = record
                .endpoint(settings, clock.now(), NamedEventTypes::MustExist)
                .or_else(|problems| {
                    let error = problems.to_string();
                    tracing::warn!(
                        endpoint = name,
                        error,
                        "asks for what the configuration has not"
                    );
                    record.endpoint(settings, clock.now(), NamedEventTypes::MayBeGone)
                });
            let endpoint = endpoint.with_context(|| format!("endpoint {name} cannot be read"))?;
            let is_leaving = record.is_leaving;
            starts.push(InitialEndpoint { endpoint, origin: EndpointOrigin::Api, is_leaving });
            records.insert(name, record);
        }
        let metrics = handles.metrics.clone();
        Ok((
            Self {
                settings: settings.clone(),
                current,
                clock,
                metrics,
                seal,
                records,
                stale,
                shared: None,
            },
            starts,
        ))
    }

    /// Other members change endpoints, too.
    pub(crate) fn sharing(self, shared: Option<SharedEndpoints>) -> Self {
        Self { shared, ..self }
    }

    /// Answers until `stop`. It cannot fail: the signature is that of a task.
    pub(crate) async fn run(
        mut self,
        orders: RegistryHandle,
        mut calls: mpsc::Receiver<AdminRequest>,
        mut reloads: ReloadedSettings,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let mut probes: FuturesUnordered<BoxFuture<'static, ()>> = FuturesUnordered::new();
        // Once is enough: the slot's holder does it.
        let keeps_secrets = self.shared.as_ref().is_none_or(SharedEndpoints::has_slot);
        self.stale.retain(|_| keeps_secrets);
        let (mut not_before, mut seal_at) = (Instant::now(), Instant::now());
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let expiry = self.next_expiry().filter(|_| keeps_secrets);
            let expiry = expiry.map(|wait| (Instant::now() + wait).max(not_before));
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                Some(()) = probes.next() => {}
                () = tokio::time::sleep_until(expiry.unwrap_or(not_before)), if expiry.is_some() => {
                    self.expire(&orders).await;
                    not_before = Instant::now() + EXPIRY_RETRY;
                }
                () = tokio::time::sleep_until(seal_at), if !self.stale.is_empty() => {
                    tokio::select! {
                        () = self.seal_stale(&orders) => {}
                        () = stop.cancelled() => return Ok(()),
                    }
                    seal_at = Instant::now() + SEAL_RETRY;
                }
                Ok(()) = reloads.changed() => {
                    let read = reloads.borrow_and_update().clone();
                    tokio::select! {
                        () = self.reload(&orders, read) => {}
                        () = stop.cancelled() => return Ok(()),
                    }
                }
                Some(done) = asked_to_follow(&mut self.shared) => {
                    let found = tokio::select! {
                        found = self.look_for(&orders) => found,
                        () = stop.cancelled() => return Ok(()),
                    };
                    drop(done.send(found)); // the mirror may not wait any more
                }
                _ = looks.tick(), if self.shared.is_some() => {
                    tokio::select! {
                        followed = self.follow(&orders) => drop(followed), // the log was told
                        () = stop.cancelled() => return Ok(()),
                    }
                }
                Some(AdminRequest { call, who, outcome }) = calls.recv() => {
                    let answer = tokio::select! {
                        answer = Box::pin(self.answer(&orders, call, &who, probes.len())) => answer,
                        () = stop.cancelled() => return Ok(()),
                    };
                    match answer {
                        AdminResult::Now(answer) => drop(outcome.send(answer)),
                        AdminResult::Later(probe) => probes.push(Box::pin(async move {
                            drop(outcome.send(Ok(probe.await)));
                        })),
                        AdminResult::Answer(_) if probes.len() >= PROBES_MAX => {
                            drop(outcome.send(Err(busy())));
                        }
                        AdminResult::Answer(answer) => probes.push(Box::pin(async move {
                            drop(outcome.send(answer.await));
                        })),
                    }
                }
            }
        }
    }

    async fn answer_alone(
        &mut self,
        orders: &RegistryHandle,
        call: AdminCall,
        who: &str,
        probes: usize,
    ) -> AdminResult {
        // What has been removed entirely since the last time.
        let snapshot = orders.snapshot();
        if self.shared.is_none() {
            self.records.retain(|name, record| !record.is_leaving || snapshot.find(name).is_some());
        }
        let outcome = match call {
            AdminCall::List { page } => Ok(AdminAnswer::Endpoints(self.list(orders, &page))),
            AdminCall::Show { name } => self.show(orders, &name),
            AdminCall::Create { document } => self.create(orders, document, who).await,
            AdminCall::Replace { name, document } => {
                self.replace(orders, &name, document, who).await
            }
            AdminCall::Patch { name, patch } => self.patch(orders, &name, &patch, who).await,
            AdminCall::Delete { name } => self.delete(orders, &name, who).await,
            AdminCall::Switch { name, enabled } => self.switch(orders, &name, enabled, who).await,
            AdminCall::Pause { name, paused } => self.pause(orders, &name, paused, who).await,
            AdminCall::Rename { name, to } => self.rename(orders, &name, &to, who).await,
            AdminCall::TryNow { name } => self.try_now(orders, &name, who).await,
            AdminCall::Rotate { name, body } => self.rotate(orders, &name, &body, who).await,
            AdminCall::Test { name, wish } => return self.test(orders, &name, wish, probes),
            AdminCall::EventTypes => return AdminResult::Answer(self.event_types(orders)),
            AdminCall::Check => return AdminResult::Answer(self.check()),
            AdminCall::Try { trial } => {
                return AdminResult::Answer(self.try_row(orders, trial));
            }
            AdminCall::WebhookConfig { document } => {
                self.webhook_config(orders, &document, who).await
            }
            AdminCall::WebhookList => self.webhook_list(orders),
            AdminCall::WebhookUpdate { document } => {
                self.webhook_update(orders, &document, who).await
            }
            AdminCall::WebhookTest { which } => {
                match self.webhook_test(orders, which.as_deref(), probes) {
                    Ok(tests) => return AdminResult::Later(tests),
                    Err(refused) => Err(refused),
                }
            }
        };
        AdminResult::Now(outcome)
    }

    fn test(
        &self,
        orders: &RegistryHandle,
        name: &str,
        wish: TestWish,
        probes: usize,
    ) -> AdminResult {
        if wish != TestWish::default() {
            return match room_for(probes) {
                Ok(()) => AdminResult::Answer(self.trigger(orders, name, wish)),
                Err(refused) => AdminResult::Now(Err(refused)),
            };
        }
        match room_for(probes).and_then(|()| self.probe(orders, name)) {
            Ok(probe) => {
                AdminResult::Later(Box::pin(async move { AdminAnswer::Test(probe.await) }))
            }
            Err(refused) => AdminResult::Now(Err(refused)),
        }
    }

    fn probe(
        &self,
        orders: &RegistryHandle,
        name: &str,
    ) -> Result<BoxFuture<'static, TestReport>, AdminRefusal> {
        let snapshot = orders.snapshot();
        let shown = snapshot.find(name).ok_or_else(|| unknown(name))?;
        let body = self.test_body(name);
        let (client, endpoint) = (shown.runner.client(), Arc::clone(&shown.endpoint));
        let client = client.map_err(no_client)?;
        let settings = Arc::new(self.settings.clone());
        Ok(Box::pin(probe::probe(client, endpoint, settings, body, host_now())))
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

/// What a request comes to.
enum AdminResult {
    Now(AdminOutcome),
    /// A request to the endpoint is under way.
    Later(BoxFuture<'static, AdminAnswer>),
    /// The database is being asked.
    Answer(BoxFuture<'static, AdminOutcome>),
}

/// Waits until a mirror wants to know what other members have changed.
async fn asked_to_follow(
    shared: &mut Option<SharedEndpoints>,
) -> Option<oneshot::Sender<LookOutcome>> {
    match shared {
        Some(shared) => shared.follows.recv().await,
        None => None,
    }
}
