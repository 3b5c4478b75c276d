//! The registry: the endpoints as they are now, and the only place where they change.
//!
//! ```text
//! orders ─ EndpointChange ─▶ [registry] ─ EndpointsEdit ─▶ ledger      first, so that it knows whom events are for
//!                       ├──── LaneChange ─▶ lanes      another client, other settings, pause, delete
//!                       ├──── EndpointUpdate ─▶ pump       between two changes of the stream
//!                       └──── EndpointSnapshot ─▶ api, scrape
//! ```
//!
//! Changes are made one after the other; the changes of one order are made all or none. Nothing
//! that is under way at another endpoint hears of them. An endpoint that is removed gets no more
//! events; what waits for it becomes dead letters, and then its lane ends.
//!
//! The registry owns the lanes' tasks: a lane that ends without having been told to is a failure.

mod apply_change;
pub(crate) mod change;
pub(crate) mod partition_snapshots;
mod pauses;
mod plan;
mod renames;
pub(crate) mod snapshot;
pub(crate) mod store;
mod target;

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::Arc;

use anyhow::Context;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::sync::DropGuard;

use crate::config::configuration::Settings;
use crate::config::settings::Endpoint;
use crate::config::settings::EventRule;
use crate::endpoints::registry::change::EndpointChange;
use crate::endpoints::registry::change::RegistryError;
use crate::endpoints::registry::snapshot::EndpointOrigin;
use crate::endpoints::registry::snapshot::EndpointSnapshot;
use crate::endpoints::registry::snapshot::ListedEndpoint;
use crate::endpoints::registry::store::EndpointStore;
use crate::flow::backlog::BacklogStanding;
use crate::flow::pump_report::EndpointsVersion;
use crate::flow::relation::TableName;
use crate::flow::settlement::EndpointIndex;
use crate::flow::settlement::LaneReport;
use crate::lane;
use crate::lane::cell::LaneOpener;
use crate::lane::cell::LaneView;
use crate::lane::message::LaneChange;
use crate::lane::sender::LaneControl;
use crate::lane::sender::LaneSender;
use crate::lane::sender::ReplaySender;
use crate::ledger::EndpointAccount;
use crate::ledger::EndpointsEdit;
use crate::ledger::endpoint_names::ServingEndpoints;
use crate::pipeline::endpoint_update::EndpointUpdate;
use crate::pipeline::lanes;
use crate::pipeline::lanes::EndedLane;
use crate::pipeline::lanes::LaneContext;
use crate::pipeline::lanes::LaneRunner;
use crate::store::endpoint_states::EndpointPause;
use crate::store::endpoint_states::EndpointState;
use crate::store::endpoints::StoredEndpoint;
use crate::telemetry::metrics::EndpointMetrics;

/// Changes of the endpoints on their way to ledger and pump: they are made one after the other.
const EDITS_MAX: usize = 2;

/// Orders that wait for their turn. A caller with one more waits.
const ORDERS_MAX: usize = 16;

/// An endpoint that is there when walhook starts.
pub(crate) struct InitialEndpoint {
    pub(crate) endpoint: Endpoint,
    pub(crate) origin: EndpointOrigin,
    /// It was removed, and some of what waited for it is still in the backlog.
    pub(crate) is_leaving: bool,
}

impl InitialEndpoint {
    /// An endpoint of the configuration file.
    pub(crate) fn of_file(endpoint: &Endpoint) -> Self {
        Self { endpoint: endpoint.clone(), origin: EndpointOrigin::File, is_leaving: false }
    }
}

/// What the registry tells to whom.
pub(crate) struct UpdateSenders {
    pub(crate) ledger: mpsc::Sender<EndpointsEdit>,
    pub(crate) pump: mpsc::Sender<EndpointUpdate>,
}

/// Gives orders to the registry. Cheap to clone.
#[derive(Clone)]
pub(crate) struct RegistryHandle {
    orders: mpsc::Sender<RegistryRequest>,
    snapshot: watch::Receiver<Arc<EndpointSnapshot>>,
}

struct RegistryRequest {
    changes: Vec<EndpointChange>,
    /// What is to be remembered of it.
    save: Option<StoredEndpoint>,
    made: oneshot::Sender<RequestResult>,
}

/// The row as it was saved, if there was one to save.
type RequestResult = Result<Option<StoredEndpoint>, RegistryError>;

/// All endpoints with their lanes; the only one who adds, changes or removes one.
pub(crate) struct EndpointRegistry {
    common: Arc<LaneContext>,
    senders: UpdateSenders,
    endpoint_store: EndpointStore,
    rules: Vec<RegisteredRule>,
    /// `[webhook] enabled`: if not, nobody takes anything.
    is_pushing: bool,
    /// Endpoints that there can be.
    most: usize,
    members: BTreeMap<EndpointIndex, RegisteredEndpoint>,
    /// Names for which something may still come, and becomes dead letters.
    tombstones: BTreeMap<EndpointIndex, Arc<str>>,
    next: EndpointIndex,
    endpoints_version: EndpointsVersion,
    ended: mpsc::Receiver<EndedLane>,
    /// Lanes do not outlive it, wherever they wait.
    _lanes_end: [DropGuard; 2],
    orders: mpsc::Receiver<RegistryRequest>,
    snapshot: watch::Sender<Arc<EndpointSnapshot>>,
}

struct RegisteredRule {
    settings: EventRule,
    table: Arc<TableName>,
}

struct RegisteredEndpoint {
    endpoint: Arc<Endpoint>,
    origin: EndpointOrigin,
    /// It was removed, and its lane has not ended yet.
    is_leaving: bool,
    /// The name that it has until the state has the other one.
    renaming: Option<Arc<str>>,
    paused: Option<EndpointPause>,
    control: LaneControl,
    runner: Arc<LaneRunner>,
    replays: ReplaySender,
    lane: LaneView,
    metrics: Arc<EndpointMetrics>,
}

impl UpdateSenders {
    /// The senders, and where they lead: to the ledger and to the pump.
    pub(crate) fn open() -> (Self, mpsc::Receiver<EndpointsEdit>, mpsc::Receiver<EndpointUpdate>) {
        let (ledger, edits) = mpsc::channel(EDITS_MAX);
        let (pump, updates) = mpsc::channel(EDITS_MAX);
        (Self { ledger, pump }, edits, updates)
    }
}

impl RegistryHandle {
    /// Makes the changes, all or none, and returns when they hold: the next change that is read
    /// from PostgreSQL goes to the endpoints as they are then.
    ///
    /// `save` is written down before they are made, and given back with the times of the database.
    ///
    /// # Errors
    /// Why none of them was made.
    pub(crate) async fn give(
        &self,
        changes: Vec<EndpointChange>,
        save: Option<StoredEndpoint>,
    ) -> RequestResult {
        let (made_in, made) = oneshot::channel();
        let order = RegistryRequest { changes, save, made: made_in };
        self.orders.send(order).await.map_err(|_ended| RegistryError::Stopping)?;
        made.await.map_err(|_ended| RegistryError::Stopping)?
    }

    /// The endpoints as they are now.
    pub(crate) fn snapshot(&self) -> Arc<EndpointSnapshot> {
        Arc::clone(&self.snapshot.borrow())
    }

    /// The endpoints as they are from now on.
    pub(crate) fn snapshots(&self) -> watch::Receiver<Arc<EndpointSnapshot>> {
        self.snapshot.clone()
    }
}

impl EndpointRegistry {
    /// Builds the lanes of the endpoints that are there, with what the backlog holds for each, and
    /// tells ledger and pump of them. The indexes are given out in the order of `starts`.
    ///
    /// # Errors
    /// An endpoint cannot be built.
    pub(crate) async fn start(
        (common, ended): (LaneContext, mpsc::Receiver<EndedLane>),
        senders: UpdateSenders,
        endpoint_store: EndpointStore,
        settings: &Settings,
        starts: Vec<InitialEndpoint>,
        (standings, states): (&HashMap<Arc<str>, BacklogStanding>, &[EndpointState]),
    ) -> anyhow::Result<(Self, RegistryHandle)> {
        let (orders_in, orders) = mpsc::channel(ORDERS_MAX);
        let (snapshot, shown) = watch::channel(Arc::default());
        let rule = |settings: &EventRule| RegisteredRule {
            table: Arc::new(settings.table.clone()),
            settings: settings.clone(),
        };
        let lanes_end = common.shutdown.end_requests_when_dropped();
        let mut registry = Self {
            common: Arc::new(common),
            senders,
            endpoint_store,
            rules: settings.events.iter().map(rule).collect(),
            is_pushing: settings.enabled,
            most: settings.memory.endpoints_max,
            members: BTreeMap::new(),
            tombstones: BTreeMap::new(),
            next: EndpointIndex(0),
            endpoints_version: EndpointsVersion::default(),
            ended,
            _lanes_end: lanes_end,
            orders,
            snapshot,
        };
        let mut opened = Vec::new();
        for InitialEndpoint { endpoint, origin, is_leaving } in starts {
            lanes::client(&endpoint, &registry.common)?; // whether one can be built
            let standing = standings.get(&endpoint.name).copied();
            let (index, lane) = registry.add(Arc::new(endpoint), origin);
            if standing.is_some() {
                lane.begin(standing);
            }
            let Some(member) = registry.members.get_mut(&index) else { continue };
            member.is_leaving = is_leaving;
            if is_leaving {
                // The pump never hears of it.
                if let Some(control) = registry.control_of_leaving(index) {
                    control.change(LaneChange::Delete).await?;
                }
                continue;
            }
            if !member.endpoint.enabled {
                member.control.change(LaneChange::Disable).await?;
            }
            opened.push((index, lane));
        }
        registry.take_up(states).await?;
        // Neither is waited for: both begin with what they find.
        let everybody: Vec<_> = registry.members.keys().copied().collect();
        let (edit, _known) = registry.edit(&everybody);
        registry.senders.ledger.send(edit).await.context("the ledger has ended")?;
        let (update, _taken) = registry.update(opened, Vec::new(), None);
        registry.senders.pump.send(update).await.context("the source has ended")?;
        registry.show();
        Ok((registry, RegistryHandle { orders: orders_in, snapshot: shown }))
    }

    /// Runs until `stop`, and then until all lanes have ended.
    ///
    /// # Errors
    /// A lane failed, or ended without having been told to.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some((index, ended)) = self.ended.recv() => {
                    ended?;
                    self.retire(index).await?;
                }
                Some(RegistryRequest { changes, save, made }) = self.orders.recv() => {
                    let outcome = tokio::select! {
                        // What is half done ends with the process. First, since the pump ends by the same
                        // token: that it is gone is no failure then.
                        biased;
                        () = stop.cancelled() => break,
                        outcome = self.make(changes, save) => outcome?,
                    };
                    made.send(outcome).ok(); // who gave the order may not wait any more
                }
            }
        }
        // The lanes drain when nobody can tell them anything any more, and then the ledger ends.
        let Self { mut ended, common, members, .. } = self;
        drop((common, members));
        while let Some((_, ended)) = ended.recv().await {
            ended?;
        }
        Ok(())
    }

    /// Starts a lane. What the pump needs of it is to be part of the next update.
    fn add(
        &mut self,
        endpoint: Arc<Endpoint>,
        origin: EndpointOrigin,
    ) -> (EndpointIndex, LaneSender) {
        let index = self.next;
        self.next = EndpointIndex(index.0 + 1);
        let runner = LaneRunner::new(index, Arc::clone(&endpoint), &self.common);
        let opener: Arc<dyn LaneOpener> = Arc::<LaneRunner>::clone(&runner);
        let lane = lane::on_demand(Arc::clone(&endpoint.name), opener);
        let metrics = match origin {
            EndpointOrigin::File => self.common.handles.metrics.endpoint_of_file(&endpoint.name),
            EndpointOrigin::Api | EndpointOrigin::Table => {
                self.common.handles.metrics.endpoint(&endpoint.name)
            }
        };
        let (control, view, replays) = (lane.control(), lane.view(), lane.replays());
        let (is_leaving, paused) = (false, None);
        let member = RegisteredEndpoint {
            endpoint,
            origin,
            is_leaving,
            renaming: None,
            paused,
            control,
            runner,
            replays,
            lane: view,
            metrics,
        };
        self.members.insert(index, member);
        (index, lane)
    }

    /// Whether an endpoint that is removed stays until the owner of its partition says that it is gone.
    fn is_kept(&self, index: EndpointIndex) -> bool {
        let member = self.members.get(&index);
        self.endpoint_store.is_of_member()
            && member.is_some_and(|one| one.origin == EndpointOrigin::Api)
    }

    fn control_of_leaving(&self, index: EndpointIndex) -> Option<&LaneControl> {
        let member = self.members.get(&index).filter(|_| !self.is_kept(index));
        member.map(|member| &member.control)
    }

    /// A lane has ended: nothing is owed to its endpoint any more.
    async fn retire(&mut self, index: EndpointIndex) -> anyhow::Result<()> {
        let member = self.members.remove(&index);
        let member = member.filter(|member| member.is_leaving);
        let member = member.context("a lane ended without having been told to")?;
        let last = LaneReport { retired: Some(index), ..LaneReport::default() };
        self.common.reports.send(last).await.context("the ledger has ended")?;
        self.common.handles.metrics.forget_endpoint(&member.endpoint.name);
        let is_stored = member.origin == EndpointOrigin::Api;
        if let Err(error) = self.endpoint_store.remove(&member.endpoint.name, is_stored).await {
            // The next start finds it empty, and tries again.
            let (endpoint, error) =
                (&member.endpoint.name, format!("{:#}", anyhow::Error::new(error)));
            tracing::warn!(%endpoint, error, "cannot forget a removed endpoint");
        }
        tracing::info!(endpoint = %member.endpoint.name, "endpoint is removed");
        self.show();
        Ok(())
    }

    /// What the ledger is to know of the endpoints as they are now; `listed` are new to it or are
    /// shown in another way.
    fn edit(&mut self, listed: &[EndpointIndex]) -> (EndpointsEdit, oneshot::Receiver<()>) {
        self.endpoints_version = EndpointsVersion(self.endpoints_version.0 + 1);
        let account = |index: &EndpointIndex| {
            if let Some(name) = self.tombstones.get(index) {
                let metrics = self.common.handles.metrics.endpoint(name);
                let (name, shown_url) = (Arc::clone(name), String::new());
                return Some((*index, EndpointAccount { name, shown_url, metrics }));
            }
            let member = self.members.get(index)?;
            let (name, metrics) = (Arc::clone(&member.endpoint.name), member.metrics.clone());
            Some((
                *index,
                EndpointAccount { name, shown_url: member.endpoint.shown_url(), metrics },
            ))
        };
        let accounts = listed.iter().filter_map(account).collect();
        let takers = |rule: &RegisteredRule| {
            // An endpoint that chooses is named with each event.
            let takes_all = |e: &Endpoint| e.only.is_none() && e.filter.is_none();
            let takes = |e: &Endpoint| takes_all(e) && e.takes(&rule.settings);
            let takers = self.takers().filter(|(_, member)| takes(&member.endpoint));
            (Arc::clone(&rule.table), takers.map(|(index, _)| index).collect())
        };
        let serving = match self.endpoint_store.is_of_partition() {
            true => ServingEndpoints::default(),
            false => ServingEndpoints {
                rules: self.rules.iter().map(takers).collect(),
                endpoints: self.present().map(|(index, _)| index).collect(),
            },
        };
        let (known_in, known) = oneshot::channel();
        let (endpoints_version, renamed) = (self.endpoints_version, Vec::new());
        (EndpointsEdit { endpoints_version, serving, accounts, renamed, known: known_in }, known)
    }

    fn update(
        &self,
        opened: Vec<(EndpointIndex, LaneSender)>,
        closed: Vec<EndpointIndex>,
        events: Option<Arc<[EventRule]>>,
    ) -> (EndpointUpdate, oneshot::Receiver<()>) {
        let taker =
            |(index, member): (_, &RegisteredEndpoint)| (index, Arc::clone(&member.endpoint));
        let counted =
            |(index, member): (_, &RegisteredEndpoint)| (index, Arc::clone(&member.endpoint.name));
        let is_made =
            |(_, member): &(_, &RegisteredEndpoint)| member.origin != EndpointOrigin::File;
        let (taken_in, taken) = oneshot::channel();
        let update = EndpointUpdate {
            endpoints_version: self.endpoints_version,
            takers: self.takers().map(taker).collect(),
            counted: self.present().map(counted).collect(),
            made: self.present().filter(is_made).map(|(index, _)| index).collect(),
            tombstones: self
                .tombstones
                .iter()
                .map(|(index, name)| (*index, Arc::clone(name)))
                .collect(),
            opened,
            closed,
            events,
            taken: taken_in,
        };
        (update, taken)
    }

    /// Those that are not being removed.
    fn present(&self) -> impl Iterator<Item = (EndpointIndex, &RegisteredEndpoint)> {
        let members = self.members.iter().map(|(index, member)| (*index, member));
        members.filter(|(_, member)| !member.is_leaving)
    }

    /// Those that take events.
    fn takers(&self) -> impl Iterator<Item = (EndpointIndex, &RegisteredEndpoint)> {
        self.present().filter(|(_, member)| self.is_pushing && member.endpoint.enabled)
    }

    fn show(&self) {
        let shown = |(index, member): (&EndpointIndex, &RegisteredEndpoint)| ListedEndpoint {
            index: *index,
            endpoint: Arc::clone(&member.endpoint),
            origin: member.origin,
            is_leaving: member.is_leaving,
            renaming: member.renaming.clone(),
            paused: member.paused.clone(),
            runner: Arc::clone(&member.runner),
            replays: member.replays.clone(),
            lane: member.lane.clone(),
            metrics: member.metrics.clone(),
        };
        let listed = self.members.iter().map(shown).collect();
        self.snapshot.send_replace(Arc::new(EndpointSnapshot::new(listed)));
    }
}
