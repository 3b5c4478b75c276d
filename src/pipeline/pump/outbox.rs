//! What one read has brought, on its way to the lanes and the ledger.
//!
//! The ledger is told first: a lane's report then finds the event open.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::sync::Arc;

use anyhow::Context;
use tokio::sync::mpsc;

use crate::event::plan::ShapedBody;
use crate::flow::budget::HeldMemory;
use crate::flow::budget::MemoryBudget;
use crate::flow::budget::MemoryPermit;
use crate::flow::dead_letter_reason::DeathReason;
use crate::flow::dead_letter_reason::PoisonReason;
use crate::flow::event::Event;
use crate::flow::event::RuleIndex;
use crate::flow::lsn::Lsn;
use crate::flow::lsn::Position;
use crate::flow::pump_report::FilteredNote;
use crate::flow::pump_report::PumpReport;
use crate::flow::report_queue::ReportSender;
use crate::flow::settlement::DeliveryOutcome;
use crate::flow::settlement::DurableIn;
use crate::flow::settlement::EndpointIndex;
use crate::flow::settlement::LaneReport;
use crate::flow::settlement::Settlement;
use crate::flow::time::Timestamp;
use crate::lane::overflow_delay::WalHold;
use crate::lane::sender::LaneSender;
use crate::lane::sender::hand_over;
use crate::pipeline::pump::relay_outbox::RelayOutbox;

/// Collects what one read brought, so that each lane gets it in one piece.
pub(crate) struct PumpOutbox {
    pub(super) lanes: BTreeMap<EndpointIndex, LaneSender>,
    /// By endpoint index.
    batches: Vec<Vec<Arc<Event>>>,
    /// Those of the batches that hold something, in the order in which they began.
    filled: Vec<EndpointIndex>,
    /// Lanes that make batches and have got events, but have not been told that nothing more comes.
    gathering: BTreeSet<EndpointIndex>,
    wal_hold: WalHold,
    ledger: mpsc::Sender<Vec<PumpReport>>,
    pub(super) opened: Vec<PumpReport>,
    /// Endpoints that are no more, where others have removed them: what comes for them becomes dead letters.
    tombstones: Option<TombstoneDeliveries>,
    /// Where the events go instead of the lanes, in a tail.
    pub(super) relay: Option<RelayOutbox>,
    /// Counts events as the watermark does.
    next_sequence: u64,
}

/// What comes for endpoints that are no more.
struct TombstoneDeliveries {
    endpoints: BTreeSet<EndpointIndex>,
    collected: Vec<Settlement>,
    /// To the ledger, which hears of the events first.
    reports: ReportSender,
}

impl PumpOutbox {
    pub(crate) fn new(ledger: mpsc::Sender<Vec<PumpReport>>, wal_hold: WalHold) -> Self {
        Self {
            lanes: BTreeMap::new(),
            batches: Vec::new(),
            filled: Vec::new(),
            gathering: BTreeSet::new(),
            wal_hold,
            ledger,
            opened: Vec::new(),
            tombstones: None,
            relay: None,
            next_sequence: 0,
        }
    }

    /// Events go to the publishers of their partitions.
    pub(crate) fn relaying(self, relay: Option<RelayOutbox>) -> Self {
        Self { relay, ..self }
    }

    /// Tells `reports` of what comes for endpoints that are no more.
    pub(crate) fn with_tombstones(self, reports: ReportSender) -> Self {
        let (endpoints, collected) = (BTreeSet::new(), Vec::new());
        Self { tombstones: Some(TombstoneDeliveries { endpoints, collected, reports }), ..self }
    }

    /// From here on these are the endpoints that are no more.
    pub(super) fn set_tombstones(&mut self, endpoints: impl Iterator<Item = EndpointIndex>) {
        if let Some(tombstones) = &mut self.tombstones {
            tombstones.endpoints = endpoints.collect();
        }
    }

    pub(super) fn open(&mut self, index: EndpointIndex, lane: LaneSender) {
        self.lanes.insert(index, lane);
        if self.batches.len() <= index.0 {
            self.batches.resize_with(index.0 + 1, Vec::new);
        }
    }

    /// The endpoints for which something is collected.
    pub(super) fn filled(&self) -> &[EndpointIndex] {
        &self.filled
    }

    /// As [`Self::add`], or to the publishers of the takers' partitions. The rule tells the events of a change apart.
    pub(super) fn raise(
        &mut self,
        rule: RuleIndex,
        mut event: Box<Event>,
        takers: Arc<[EndpointIndex]>,
        others: Vec<ShapedBody>,
    ) {
        let Some(relay) = &mut self.relay else { return self.add(event, takers, others) };
        event.sequence = self.next_sequence;
        self.next_sequence += 1;
        let (position, committed) = (event.position, event.committed);
        let table = Arc::clone(&event.table);
        relay.add((rule, Arc::new(*event)), &takers, others);
        self.opened.push(PumpReport::Event { position, committed, table, takers });
    }

    /// Those of `others` among the takers get the event with their own body.
    pub(super) fn add(
        &mut self,
        mut event: Box<Event>,
        takers: Arc<[EndpointIndex]>,
        others: Vec<ShapedBody>,
    ) {
        event.sequence = self.next_sequence;
        self.next_sequence += 1;
        let (position, committed) = (event.position, event.committed);
        let table = Arc::clone(&event.table);
        let mut shaped = HashMap::new();
        for ShapedBody { body, endpoints } in others {
            let held = event.held.as_ref().and_then(HeldMemory::shared);
            let event = Arc::new(event.shaped(body, held));
            shaped.extend(endpoints.into_iter().map(|taker| (taker, Arc::clone(&event))));
        }
        let event = Arc::new(*event);
        for taker in takers.iter() {
            let event = shaped.get(taker).unwrap_or(&event);
            if let Some(tombstones) = &mut self.tombstones
                && tombstones.endpoints.contains(taker)
            {
                tombstones.collected.push(Settlement {
                    event: Arc::clone(event),
                    endpoint: *taker,
                    outcome: DeliveryOutcome::Dead { reason: DeathReason::EndpointDeleted },
                    durable_in: DurableIn::Wal,
                    attempts: 0,
                    history: None,
                });
                continue;
            }
            let Some(batch) = self.batches.get_mut(taker.0) else { continue };
            if batch.is_empty() {
                self.filled.push(*taker);
            }
            batch.push(Arc::clone(event));
        }
        self.opened.push(PumpReport::Event { position, committed, table, takers });
    }

    /// The same in all of its shapes, each for those of the takers that get it.
    pub(super) fn set_aside_shaped(
        &mut self,
        event: Box<Event>,
        takers: &[EndpointIndex],
        others: Vec<ShapedBody>,
        why: PoisonReason,
    ) {
        let mut own: Vec<EndpointIndex> = takers.to_vec();
        for ShapedBody { body, endpoints } in others {
            let theirs: Vec<_> = own.extract_if(.., |taker| endpoints.contains(taker)).collect();
            if !theirs.is_empty() {
                self.set_aside(Box::new(event.shaped(body, None)), theirs.into(), why);
            }
        }
        if !own.is_empty() {
            self.set_aside(event, own.into(), why);
        }
    }

    /// The ledger buries it; no lane hears of it.
    pub(super) fn set_aside(
        &mut self,
        mut event: Box<Event>,
        takers: Arc<[EndpointIndex]>,
        why: PoisonReason,
    ) {
        if matches!(why, PoisonReason::Crashes | PoisonReason::CrashesInRendering) {
            tracing::error!(
                event = &*event.event_type,
                table = %event.table,
                event_id = %event.id,
                id = event.facts.find("id"),
                "walhook crashed with this event in hand again and again: it becomes a dead letter"
            );
        }
        event.sequence = self.next_sequence;
        self.next_sequence += 1;
        self.opened.push(PumpReport::Poison { event: Arc::new(*event), takers, why });
    }

    pub(super) fn boundary(&mut self, end: Lsn, committed: Option<Timestamp>) {
        if let Some(relay) = &mut self.relay {
            relay.passed(end);
        }
        // Of boundaries without an event between them only the last matters.
        match self.opened.last_mut() {
            Some(PumpReport::Boundary { end: last, committed: at }) => {
                (*last, *at) = (end, committed.or(*at));
            }
            Some(_) | None => self.opened.push(PumpReport::Boundary { end, committed }),
        }
    }

    /// Nothing more comes of the change at `position`. Its notes come last, so that they are never
    /// committed without its position.
    pub(super) fn close(&mut self, notes: Vec<FilteredNote>, position: Position) {
        self.opened.extend(notes.into_iter().map(PumpReport::Note));
        match self.opened.last_mut() {
            Some(last @ PumpReport::Through { .. }) => *last = PumpReport::Through { position },
            Some(_) | None => self.opened.push(PumpReport::Through { position }),
        }
    }

    /// Waits until all lanes have taken theirs; a full one does not keep the others waiting.
    pub(super) async fn hand_over(&mut self) -> anyhow::Result<()> {
        if !self.opened.is_empty() {
            let opened = std::mem::take(&mut self.opened);
            self.ledger.send(opened).await.context("the ledger has ended")?;
        }
        if let Some(relay) = &mut self.relay {
            return relay.hand_over().await;
        }
        if let Some(tombstones) = &mut self.tombstones
            && !tombstones.collected.is_empty()
        {
            let settlements = std::mem::take(&mut tombstones.collected);
            let report = LaneReport { settlements, ..LaneReport::default() };
            tombstones.reports.send(report).await.context("the ledger has ended")?;
        }
        let (batches, lanes) = (&mut self.batches, &self.lanes);
        let gathers = |index: &EndpointIndex| lanes.get(index).is_some_and(LaneSender::gathers);
        self.gathering.extend(self.filled.iter().copied().filter(gathers));
        let shares = self.filled.drain(..).filter_map(|index| {
            let batch = std::mem::take(batches.get_mut(index.0)?);
            Some((lanes.get(&index)?, batch))
        });
        let is_any_idle = || lanes.values().any(LaneSender::is_idle);
        hand_over(shares, &self.wal_hold, &is_any_idle).await.context("a lane has ended")
    }

    /// Nothing more is on its way: batches need not wait for it.
    pub(super) async fn rest(&mut self) -> anyhow::Result<()> {
        if let Some(relay) = &mut self.relay {
            return relay.rest().await;
        }
        while let Some(index) = self.gathering.pop_first() {
            if let Some(lane) = self.lanes.get(&index) {
                lane.rest().await.context("a lane has ended")?;
            }
        }
        Ok(())
    }

    /// Takes a share of the budget. Hands over what is collected before it waits: the shares that it
    /// waits for may be held by just that.
    pub(super) async fn share(
        &mut self,
        budget: &MemoryBudget,
        bytes: usize,
    ) -> anyhow::Result<MemoryPermit> {
        if let Some(permit) = budget.try_take(bytes) {
            return Ok(permit);
        }
        self.hand_over().await?;
        Ok(budget.take_large(bytes).await)
    }
}
