//! What one read has brought, on its way to the publishers of the partitions.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::HashSet;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::event::plan::ShapedBody;
use crate::flow::budget::HeldMemory;
use crate::flow::event::Event;
use crate::flow::event::RuleIndex;
use crate::flow::lsn::Lsn;
use crate::flow::park_reason::ParkReason;
use crate::flow::partition::PartitionNumber;
use crate::flow::report_queue::ReportSender;
use crate::flow::settlement::DeliveryOutcome;
use crate::flow::settlement::DurableIn;
use crate::flow::settlement::EndpointIndex;
use crate::flow::settlement::LaneReport;
use crate::flow::settlement::Settlement;
use crate::pipeline::endpoint_update::KnownVersion;
use crate::relay::outgoing::Outgoing;
use crate::relay::outgoing::OutgoingEvent;
use crate::relay::outgoing::UnsettledCount;
use crate::relay::place::MessagePlace;

/// While nothing comes for a partition, its owner hears so often how far the stream has come.
const MARK_EVERY: Duration = Duration::from_secs(1);

/// Rows of backfills wait while so many deliveries are not settled: what is live would wait behind them in the
/// broker, and what an endpoint does not take would fill the backlog.
const ROOMY_MAX: usize = 4_096;

/// Collects what one read brought, by partition.
pub(crate) struct RelayOutbox {
    partitions: BTreeMap<PartitionNumber, OutgoingPartition>,
    /// Of partitions that nobody delivers for.
    parked: Vec<Settlement>,
    /// To the ledger.
    reports: ReportSender,
    count: NonZeroU16,
    /// Names, and the partitions that they fall into.
    endpoints: HashMap<EndpointIndex, (Arc<str>, PartitionNumber)>,
    /// Those of them that no configuration file has.
    made: HashSet<EndpointIndex>,
    known: KnownVersion,
    /// What was handed to publishers and is not settled.
    unsettled: UnsettledCount,
    /// The stream holds nothing more before this.
    passed: Lsn,
}

struct OutgoingPartition {
    /// `None`: its events are parked.
    publisher: Option<mpsc::Sender<Vec<Outgoing>>>,
    collected: Vec<Outgoing>,
    /// How far its owner has been told, and when.
    marked: Lsn,
    marked_at: Instant,
    /// Whether an event has gone since.
    has_news: bool,
}

impl RelayOutbox {
    /// To the publishers of so many partitions. Those without one have their events parked, of which `reports`
    /// tells the ledger.
    pub(crate) fn new(
        count: NonZeroU16,
        publishers: impl Iterator<Item = (PartitionNumber, Option<mpsc::Sender<Vec<Outgoing>>>)>,
        reports: ReportSender,
        (known, unsettled): (KnownVersion, UnsettledCount),
    ) -> Self {
        let partition = |(number, publisher)| {
            let (marked_at, marked) = (Instant::now(), Lsn::ZERO);
            let collected = Vec::new();
            let partition =
                OutgoingPartition { publisher, collected, marked, marked_at, has_news: false };
            (number, partition)
        };
        let partitions = publishers.map(partition).collect();
        let (parked, endpoints, made) = (Vec::new(), HashMap::new(), HashSet::new());
        Self {
            partitions,
            parked,
            reports,
            count,
            endpoints,
            made,
            known,
            unsettled,
            passed: Lsn::ZERO,
        }
    }

    /// From here on these are the endpoints; those that were `made` no configuration file has.
    pub(super) fn know(&mut self, endpoints: &[(EndpointIndex, Arc<str>)], made: &[EndpointIndex]) {
        self.made = made.iter().copied().collect();
        let known = endpoints.iter().map(|(index, name)| {
            let partition = PartitionNumber::of_endpoint(name, self.count);
            (*index, (Arc::clone(name), partition))
        });
        self.endpoints = known.collect();
    }

    /// Those of `others` among the takers get the event with their own body.
    pub(super) fn add(
        &mut self,
        (rule, event): (RuleIndex, Arc<Event>),
        takers: &[EndpointIndex],
        others: Vec<ShapedBody>,
    ) {
        let place = MessagePlace::of(event.position, rule);
        let mut shapes: Vec<(_, Vec<EndpointIndex>)> =
            others.into_iter().map(|other| (other.body, other.endpoints)).collect();
        let is_other =
            |taker: &&EndpointIndex| shapes.iter().any(|(_, theirs)| theirs.contains(*taker));
        let own: Vec<EndpointIndex> =
            takers.iter().filter(|taker| !is_other(taker)).copied().collect();
        shapes.insert(0, (event.body.clone(), own));
        let known = self.known.stamped();
        // Few: one for most events.
        let mut outgoing: Vec<(PartitionNumber, OutgoingEvent)> = Vec::with_capacity(1);
        for (nth, (body, theirs)) in shapes.into_iter().enumerate() {
            for taker in theirs.into_iter().filter(|taker| takers.contains(taker)) {
                let Some((name, partition)) = self.endpoints.get(&taker) else { continue };
                let found = outgoing.iter().position(|(number, _)| number == partition);
                let at = found.unwrap_or_else(|| {
                    outgoing.push((*partition, OutgoingEvent::new(place, &event, known)));
                    outgoing.len() - 1
                });
                if let Some((_, entry)) = outgoing.get_mut(at) {
                    entry.add((nth, &body), (taker, Arc::clone(name)));
                    if self.made.contains(&taker) {
                        entry.made.push(Arc::clone(name));
                    }
                }
            }
        }
        for (number, event) in outgoing {
            let Some(partition) = self.partitions.get_mut(&number) else { continue };
            if partition.publisher.is_some() {
                self.unsettled.add(event.endpoints.len());
                partition.collected.push(Outgoing::Event(event));
                partition.has_news = true;
            } else {
                self.park(&event);
            }
        }
    }

    /// Nobody delivers for its partition: the backlog owes it.
    fn park(&mut self, outgoing: &OutgoingEvent) {
        let mut endpoints = outgoing.endpoints.iter();
        for shape in &outgoing.shapes {
            let held = outgoing.event.held.as_ref().and_then(HeldMemory::shared);
            let event = Arc::new(outgoing.event.shaped(shape.body.clone(), held));
            for endpoint in endpoints.by_ref().take(shape.takers.len()) {
                self.parked.push(Settlement {
                    event: Arc::clone(&event),
                    endpoint: *endpoint,
                    outcome: DeliveryOutcome::Parked {
                        next_attempt: None,
                        reason: ParkReason::Unowned,
                    },
                    durable_in: DurableIn::Wal,
                    attempts: 0,
                    history: None,
                });
            }
        }
    }

    /// Whether the owners of the partitions have settled most of what they were given.
    pub(super) fn is_roomy(&self) -> bool {
        self.unsettled.get() < ROOMY_MAX
    }

    /// Nothing more comes of what is before `end`.
    pub(super) fn passed(&mut self, end: Lsn) {
        self.passed = end;
    }

    /// Waits until all publishers have taken theirs.
    pub(super) async fn hand_over(&mut self) -> anyhow::Result<()> {
        if !self.parked.is_empty() {
            let settlements = std::mem::take(&mut self.parked);
            let report = LaneReport { settlements, ..LaneReport::default() };
            self.reports.send(report).await.context("the ledger has ended")?;
        }
        for partition in self.partitions.values_mut() {
            let collected = std::mem::take(&mut partition.collected);
            if let Some(publisher) = partition.publisher.as_ref().filter(|_| !collected.is_empty())
            {
                publisher.send(collected).await.context("a partition's publisher has ended")?;
            }
        }
        Ok(())
    }

    /// Nothing more is on its way: owners hear how far everything has come.
    pub(super) async fn rest(&mut self) -> anyhow::Result<()> {
        let published = self.partitions.values_mut().filter(|one| one.publisher.is_some());
        for partition in published {
            let is_due = partition.has_news || partition.marked_at.elapsed() >= MARK_EVERY;
            // Rows of backfills stand before what is passed: only a mark closes the last one.
            if is_due && (partition.has_news || partition.marked < self.passed) {
                partition.collected.push(Outgoing::Mark(self.passed));
                partition.marked = self.passed;
                (partition.marked_at, partition.has_news) = (Instant::now(), false);
            }
        }
        self.hand_over().await
    }
}
