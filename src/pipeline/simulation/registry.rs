//! The endpoints of one run: starts their lanes, and changes them while the run goes on, in the order in
//! which `endpoints::registry` tells ledger, pump and lanes.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::clock::DatabaseClock;
use crate::config::configuration::Settings;
use crate::config::settings::Endpoint;
use crate::flow::backlog::BacklogPosition;
use crate::flow::backlog::RefilledRow;
use crate::flow::budget::MemoryBudget;
use crate::flow::lease::Lease;
use crate::flow::pump_report::EndpointsVersion;
use crate::flow::relation::TableName;
use crate::flow::report_queue::ReportSender;
use crate::flow::settlement::EndpointIndex;
use crate::flow::settlement::LaneReport;
use crate::flow::time::Timestamp;
use crate::flow::verdict::HttpExchange;
use crate::lane;
use crate::lane::in_flight_total::InFlightTotal;
use crate::lane::message::LaneChange;
use crate::lane::sender::LaneControl;
use crate::lane::sender::LaneSender;
use crate::lane::sender::ReplaySender;
use crate::lane::services::LaneServices;
use crate::lane::settings::LaneSettings;
use crate::ledger::EndpointAccount;
use crate::ledger::EndpointsEdit;
use crate::ledger::endpoint_names::ServingEndpoints;
use crate::pipeline::endpoint_update::EndpointUpdate;
use crate::pipeline::lanes::share_bytes;
use crate::pipeline::shutdown::ShutdownStages;
use crate::pipeline::simulation::connection;
use crate::pipeline::simulation::interleave::InterleavedStage;
use crate::pipeline::simulation::receiver;
use crate::pipeline::simulation::world::SharedWorld;
use crate::telemetry::metrics::WalhookMetrics;

/// How often the registry looks whether an endpoint is to be changed.
const LOOK_EVERY: Duration = Duration::from_millis(150);

/// The lanes' thread has no time to spare for half of each second.
fn busy_in(alive: Duration) -> Duration {
    let half = Duration::from_millis(500);
    let whole = u32::try_from(alive.as_secs()).unwrap_or(u32::MAX);
    half * whole + half.min(Duration::from_nanos(alive.subsec_nanos().into()))
}

/// What the lanes of a run have in common.
#[derive(Clone)]
pub(super) struct LaneTerms {
    pub(super) world: SharedWorld,
    pub(super) settings: Arc<Settings>,
    pub(super) metrics: WalhookMetrics,
    pub(super) clock: DatabaseClock,
    pub(super) budget: MemoryBudget,
    pub(super) may_send: Arc<dyn Fn() -> bool + Send + Sync>,
    pub(super) reports: ReportSender,
    pub(super) shutdown: ShutdownStages,
    /// Runs what is sent there.
    pub(super) stages: mpsc::Sender<InterleavedStage>,
    /// The endpoints that there are; `None`: those that the state has.
    pub(super) own: Option<Arc<[usize]>>,
}

pub(super) struct ModelMember {
    /// Its number in the scenario.
    pub(super) number: usize,
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) control: LaneControl,
    pub(super) replays: ReplaySender,
    pub(super) is_leaving: bool,
}

pub(super) struct ModelRegistry {
    pub(super) terms: LaneTerms,
    in_flight: InFlightTotal,
    ledger: mpsc::Sender<EndpointsEdit>,
    pump: mpsc::Sender<EndpointUpdate>,
    pub(super) members: BTreeMap<EndpointIndex, ModelMember>,
    next: usize,
    endpoints_version: u32,
    /// Dead letters that are on their way again.
    pub(super) resent: BTreeSet<i64>,
    ended: (mpsc::Sender<EndpointIndex>, mpsc::Receiver<EndpointIndex>),
}

impl ModelRegistry {
    /// Starts the lanes of the endpoints that the state knows, and tells ledger and pump of them.
    pub(super) async fn start(
        terms: LaneTerms,
        ledger: mpsc::Sender<EndpointsEdit>,
        pump: mpsc::Sender<EndpointUpdate>,
    ) -> anyhow::Result<Self> {
        let (present, leaving, paused) = {
            let world = terms.world.lock();
            let state = &world.state;
            (state.present.clone(), state.leaving.clone(), state.paused.clone())
        };
        let is_own = |number: &usize| terms.own.as_ref().is_none_or(|own| own.contains(number));
        let present: Vec<usize> = present.into_iter().filter(is_own).collect();
        let mut registry = Self {
            terms,
            in_flight: InFlightTotal::timed_by(busy_in),
            ledger,
            pump,
            members: BTreeMap::new(),
            next: 0,
            endpoints_version: 0,
            resent: BTreeSet::new(),
            ended: mpsc::channel(64),
        };
        let mut opened = Vec::new();
        for number in present.into_iter().chain(leaving.iter().copied()) {
            let (index, lane) = registry.add(number)?;
            let Some(member) = registry.members.get_mut(&index) else { continue };
            member.is_leaving = leaving.contains(&number);
            if member.is_leaving {
                member.control.change(LaneChange::Delete).await?;
                continue;
            }
            opened.push((index, lane));
            if paused.contains(&number) {
                member.control.change(LaneChange::Pause).await?;
            }
        }
        let everybody = registry.members.keys().copied().collect::<Vec<_>>();
        let (edit, _known) = registry.edit(&everybody);
        registry.ledger.send(edit).await.ok().context("the ledger has ended")?;
        let (update, _taken) = registry.update(opened, Vec::new());
        registry.pump.send(update).await.ok().context("the pump has ended")?;
        Ok(registry)
    }

    /// The number that an endpoint of this name has, if it is there.
    pub(super) fn index(&self, name: &str) -> Option<EndpointIndex> {
        let mut members = self.members.iter();
        members.find(|(_, member)| *member.endpoint.name == *name).map(|(index, _)| *index)
    }

    /// Runs until `stop`.
    pub(super) async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                Some(index) = self.ended.1.recv() => self.retire(index).await?,
                () = tokio::time::sleep(LOOK_EVERY) => {
                    tokio::select! {
                        biased;
                        () = stop.cancelled() => return Ok(()),
                        changed = self.look() => changed?,
                    }
                }
            }
        }
    }

    pub(super) async fn join(&mut self, number: usize) -> anyhow::Result<()> {
        self.terms.world.pass(0..5).await;
        self.terms.world.lock().state.present.insert(number);
        self.terms.world.point("an endpoint was saved").await;
        let (index, lane) = self.add(number)?;
        let (edit, known) = self.edit(&[index]);
        self.ledger.send(edit).await.ok().context("the ledger has ended")?;
        known.await.context("the ledger has ended")?;
        let (update, taken) = self.update(vec![(index, lane)], Vec::new());
        self.pump.send(update).await.ok().context("the pump has ended")?;
        taken.await.context("the pump has ended")?;
        let mut world = self.terms.world.lock();
        world.note(|_| format!("e{number} is there"));
        let handed = world.handed;
        world.oracle.added(number, handed);
        Ok(())
    }

    pub(super) async fn leave(&mut self, number: usize) -> anyhow::Result<()> {
        self.terms.world.pass(0..5).await;
        {
            let mut world = self.terms.world.lock();
            world.note(|_| format!("e{number} is removed"));
            world.state.present.remove(&number);
            world.state.removed.insert(number);
            world.state.leaving.insert(number);
            world.oracle.removed(number);
        }
        self.terms.world.point("a removal was saved").await;
        let found = self.members.iter_mut().find(|(_, member)| member.number == number);
        let Some((&index, member)) = found else { return Ok(()) };
        member.is_leaving = true;
        let (edit, known) = self.edit(&[]);
        self.ledger.send(edit).await.ok().context("the ledger has ended")?;
        known.await.context("the ledger has ended")?;
        let (update, taken) = self.update(Vec::new(), vec![index]);
        self.pump.send(update).await.ok().context("the pump has ended")?;
        taken.await.context("the pump has ended")?;
        match self.members.get(&index) {
            Some(member) => Ok(member.control.change(LaneChange::Delete).await?),
            None => Ok(()),
        }
    }

    async fn retire(&mut self, index: EndpointIndex) -> anyhow::Result<()> {
        let member = self.members.remove(&index).filter(|member| member.is_leaving);
        let member = member.context("a lane ended without having been told to")?;
        let last = LaneReport { retired: Some(index), ..LaneReport::default() };
        self.terms.reports.send(last).await.ok().context("the ledger has ended")?;
        self.terms.metrics.forget_endpoint(&member.endpoint.name);
        let mut world = self.terms.world.lock();
        world.note(|_| format!("the lane of e{} has ended", member.number));
        Ok(())
    }

    fn add(&mut self, number: usize) -> anyhow::Result<(EndpointIndex, LaneSender)> {
        let index = EndpointIndex(self.next);
        self.next += 1;
        let terms = self.terms.clone();
        let endpoint = Arc::new(terms.settings.endpoints[number].clone());
        let standing = terms.world.lock().state.standing(&endpoint.name);
        let settings = LaneSettings::with_backlog(index, &endpoint, standing);
        let (queued, lanes) = (terms.budget_bytes(), terms.settings.endpoints.len());
        let (sender, task) = lane::open(settings.within(share_bytes(queued, lanes)));
        let task = task.pressed_by(terms.budget.pressure()).counted_in(&self.in_flight);
        let (control, replays) = (sender.control(), sender.replays());
        terms.world.lock().show_lane(terms.world.run, number, sender.view());
        let (name, ended) = (Arc::clone(&endpoint.name), self.ended.0.clone());
        let LaneTerms { world, clock, budget, may_send, reports, shutdown, stages, .. } = terms;
        let shared = world.clone();
        let run = async move {
            let services = ModelServices { world, number, name, clock, may_send, budget };
            let run = task.run(&services, reports, shutdown.stop_intake);
            tokio::select! {
                run = run => run?,
                () = shutdown.abort_requests.cancelled() => return Ok(()),
            }
            ended.send(index).await.ok(); // the registry may have ended
            Ok(())
        };
        let stage = InterleavedStage::new(&shared, "a lane", run);
        stages.try_send(stage).ok().context("too many lanes")?;
        let member = ModelMember { number, endpoint, control, replays, is_leaving: false };
        self.members.insert(index, member);
        Ok((index, sender))
    }

    fn edit(&mut self, listed: &[EndpointIndex]) -> (EndpointsEdit, oneshot::Receiver<()>) {
        self.endpoints_version += 1;
        let account = |index: &EndpointIndex| {
            let member = self.members.get(index)?;
            let name = Arc::clone(&member.endpoint.name);
            let metrics = self.terms.metrics.endpoint(&name);
            let shown_url = member.endpoint.shown_url();
            Some((*index, EndpointAccount { name, shown_url, metrics }))
        };
        let accounts = listed.iter().filter_map(account).collect();
        let rules = self.terms.settings.events.iter().map(|rule| {
            let takes = |e: &Endpoint| e.only.is_none() && e.filter.is_none() && e.takes(rule);
            let takers = self.present().filter(|(_, member)| takes(&member.endpoint));
            let table: Arc<TableName> = Arc::new(rule.table.clone());
            (table, takers.map(|(index, _)| index).collect())
        });
        let rules = rules.collect();
        let endpoints = self.present().map(|(index, _)| index).collect();
        let (known_in, known) = oneshot::channel();
        let edit = EndpointsEdit {
            endpoints_version: EndpointsVersion(self.endpoints_version),
            serving: ServingEndpoints { endpoints, rules },
            accounts,
            renamed: Vec::new(),
            known: known_in,
        };
        (edit, known)
    }

    fn update(
        &self,
        opened: Vec<(EndpointIndex, LaneSender)>,
        closed: Vec<EndpointIndex>,
    ) -> (EndpointUpdate, oneshot::Receiver<()>) {
        let (taken_in, taken) = oneshot::channel();
        let takers = self.present().map(|(index, member)| (index, Arc::clone(&member.endpoint)));
        let counted =
            self.present().map(|(index, member)| (index, Arc::clone(&member.endpoint.name)));
        let update = EndpointUpdate {
            endpoints_version: EndpointsVersion(self.endpoints_version),
            takers: takers.collect(),
            counted: counted.collect(),
            made: Vec::new(),
            tombstones: Vec::new(),
            opened,
            closed,
            events: None,
            taken: taken_in,
        };
        (update, taken)
    }

    fn present(&self) -> impl Iterator<Item = (EndpointIndex, &ModelMember)> {
        let members = self.members.iter().map(|(index, member)| (*index, member));
        members.filter(|(_, member)| !member.is_leaving)
    }
}

/// What the lane of an endpoint asks of the run.
struct ModelServices {
    world: SharedWorld,
    number: usize,
    name: Arc<str>,
    clock: DatabaseClock,
    may_send: Arc<dyn Fn() -> bool + Send + Sync>,
    budget: MemoryBudget,
}

impl LaneServices for ModelServices {
    type BacklogError = String;

    fn attempt(&self, lease: Lease) -> impl Future<Output = (Lease, HttpExchange)> + Send {
        receiver::attempt(self.world.clone(), self.number, lease)
    }

    fn database_now(&self) -> Timestamp {
        self.clock.now()
    }

    fn may_send(&self) -> bool {
        (self.may_send)()
    }

    fn read_backlog(
        &self,
        after: Option<BacklogPosition>,
        rows: usize,
    ) -> impl Future<Output = Result<Vec<RefilledRow>, String>> + Send {
        let (world, name) = (self.world.clone(), Arc::clone(&self.name));
        connection::page(world, name, after, rows, self.budget.clone())
    }
}

impl LaneTerms {
    fn budget_bytes(&self) -> usize {
        self.world.lock().scenario.budget_bytes
    }
}
