//! The pump of a partition's owner: reads the stream of the partition and hands events to the lanes.
//!
//! ```text
//! feed ─ Event ─▶ [relay pump] ─▶ lanes
//!                     └─ PumpReport ─▶ ledger (first, so that it knows what is owed)
//! ```
//!
//! It does what [`crate::pipeline::pump`] does with changes, with events that the tail has made. It tells the ledger of no
//! end of a transaction: what may be confirmed is the tail's to know, and follows from what is settled. Nor does it of
//! what endpoints do not take: that is in the tail's books.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::Context;
use futures_util::FutureExt;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::event::plan::ShapedBody;
use crate::flow::budget::EVENT_OVERHEAD_BYTES;
use crate::flow::budget::HeldMemory;
use crate::flow::budget::MemoryBudget;
use crate::flow::dead_letter_reason::PoisonReason;
use crate::flow::lsn::Lsn;
use crate::flow::lsn::Position;
use crate::flow::settlement::EndpointIndex;
use crate::pipeline::already_settled::AlreadySettled;
use crate::pipeline::crash_guard::CrashGuard;
use crate::pipeline::crash_guard::SuspectLock;
use crate::pipeline::endpoint_update::EndpointLookup;
use crate::pipeline::endpoint_update::EndpointUpdate;
use crate::pipeline::pump::outbox::PumpOutbox;
use crate::pipeline::shutdown::is_stopped_soon;
use crate::relay::feed::FeedItem;
use crate::relay::feed::PartitionFeed;
use crate::relay::message::MessageError;
use crate::relay::message::RelayedEvent;
use crate::relay::message::RelayedShape;
use crate::relay::partition_stream::PartitionStream;

/// Items that are taken before lanes get what they brought.
const BATCH_MAX: usize = 256;

/// What the owner says when messages are missing: the state may know more, and else the tail has to begin again.
pub(crate) trait LackedMessages {
    /// Something is missing that was sent under `epoch`. What is settled by now, of the source or of the partition.
    fn lacking(&mut self, epoch: i64) -> impl Future<Output = Option<Position>> + Send;
}

/// Hands the events of one partition to its lanes.
pub(crate) struct RelayPump<S: PartitionStream, L> {
    feed: PartitionFeed<S>,
    lacked: L,
    outbox: PumpOutbox,
    budget: MemoryBudget,
    updates: mpsc::Receiver<EndpointUpdate>,
    /// Asks what endpoints are that are not known here.
    lookups: mpsc::Sender<EndpointLookup>,
    /// How much is known of the endpoints that several members change.
    known: i64,
    /// Deliveries that an earlier owner has settled.
    already_settled: AlreadySettled,
    /// The newest change of which something is parked: the lanes hear when the stream has passed it.
    parked: Option<Position>,
    names: HashMap<Arc<str>, EndpointIndex>,
    /// The change of the last event: more events may come of it.
    open: Option<Position>,
    guard: CrashGuard,
    suspect_lock: SuspectLock,
    /// The change that is set aside: each event that comes of it.
    set_aside: Option<Position>,
}

impl<S: PartitionStream, L: LackedMessages> RelayPump<S, L> {
    pub(crate) fn new(
        feed: PartitionFeed<S>,
        lacked: L,
        outbox: PumpOutbox,
        budget: MemoryBudget,
        (updates, lookups): (mpsc::Receiver<EndpointUpdate>, mpsc::Sender<EndpointLookup>),
        (already_settled, parked): (AlreadySettled, Option<Position>),
    ) -> Self {
        let names = HashMap::new();
        Self {
            feed,
            lacked,
            outbox,
            budget,
            updates,
            lookups,
            known: 0,
            already_settled,
            parked,
            names,
            open: None,
            guard: CrashGuard::None,
            suspect_lock: SuspectLock::default(),
            set_aside: None,
        }
    }

    /// With care where a member has crashed over what comes.
    pub(crate) fn cautious(self, guard: CrashGuard, suspect_lock: SuspectLock) -> Self {
        Self { guard, suspect_lock, ..self }
    }

    /// Pumps until `stop` is cancelled. Drops the lanes' senders when it ends.
    ///
    /// # Errors
    /// The stream holds what this walhook does not understand, or a lane or the ledger has ended.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        loop {
            let item = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                Some(update) = self.updates.recv() => {
                    self.take_update(update);
                    continue;
                }
                item = self.feed.next() => item?,
            };
            let pumped = tokio::select! {
                biased;
                // What was not handed over comes again to the next owner.
                () = stop.cancelled() => return Ok(()),
                pumped = self.pump(item) => pumped,
            };
            if pumped.is_err() && is_stopped_soon(&stop).await {
                return Ok(());
            }
            pumped?;
        }
    }

    /// Takes an item, and what is at hand behind it.
    async fn pump(&mut self, first: FeedItem) -> anyhow::Result<()> {
        let mut next = Some(first);
        let mut taken = 0;
        let _pass = match self.guard.is_one_by_one() {
            true => None,
            false => Some(self.suspect_lock.pass().await),
        };
        while let Some(item) = next.take() {
            self.take(item).await?;
            taken += 1;
            if taken < BATCH_MAX && !self.guard.is_one_by_one() {
                let more: Option<Result<FeedItem, MessageError>> = self.feed.next().now_or_never();
                next = more.transpose()?;
            }
        }
        self.outbox.hand_over().await
    }

    async fn take(&mut self, item: FeedItem) -> anyhow::Result<()> {
        match item {
            FeedItem::Event(event) if self.guard.is_one_by_one() => self.event_alone(event).await,
            FeedItem::Event(event) => self.event(event).await,
            FeedItem::Mark(end) => self.mark(end).await,
            FeedItem::Lacking { epoch } => {
                if let Some(settled) = self.lacked.lacking(epoch).await {
                    self.feed.pass(settled);
                }
                Ok(())
            }
        }
    }

    /// Between two events. No note begins a version: nothing is noted here that would need its meaning.
    fn take_update(&mut self, update: EndpointUpdate) {
        // Of an endpoint that was made anew the name is the new one's.
        let known = update.tombstones.iter().chain(&update.counted);
        self.names = known.map(|(index, name)| (Arc::clone(name), *index)).collect();
        self.outbox.set_tombstones(update.tombstones.iter().map(|(index, _)| *index));
        for (index, lane) in update.opened {
            self.outbox.open(index, lane);
        }
        for index in update.closed {
            self.outbox.lanes.remove(&index);
        }
        update.taken.send(()).ok(); // the registry may not wait for it
    }

    async fn event(&mut self, relayed: RelayedEvent) -> anyhow::Result<()> {
        let RelayedEvent { mut event, takers, others, made, known, .. } = relayed;
        self.look_up(made, known).await?;
        if self.open.is_some_and(|open| open != event.position) {
            self.close();
        }
        self.open = Some(event.position);
        let takers = takers.iter().map(|name| self.index(name)).collect::<Result<Vec<_>, _>>()?;
        let takers = self.already_settled.owed(takers.into(), event.id);
        let is_convicted = self.guard.convicts(event.position).is_some();
        self.set_aside = if is_convicted { Some(event.position) } else { self.set_aside };
        if takers.is_empty() {
            return Ok(());
        }
        let shaped = |RelayedShape { body, takers }: RelayedShape| {
            let endpoints = takers.iter().map(|name| self.index(name)).collect::<Result<_, _>>()?;
            Ok(ShapedBody { body, endpoints })
        };
        let others = others.into_iter().map(shaped).collect::<anyhow::Result<Vec<_>>>()?;
        if self.set_aside == Some(event.position) {
            // The tail has made its body, so that is kept in any case.
            self.outbox.set_aside_shaped(event, &takers, others, PoisonReason::Crashes);
            return Ok(());
        }
        let bodies = others.iter().map(|other| other.body.held_bytes());
        let row = event.write_back.as_ref().map_or(0, |row| row.held_bytes());
        let bytes = event.body.held_bytes() + bodies.sum::<usize>() + row + EVENT_OVERHEAD_BYTES;
        let permit = self.outbox.share(&self.budget, bytes).await?;
        event.held = Some(match others.is_empty() {
            true => HeldMemory::Own(permit),
            false => HeldMemory::Row(Arc::new(permit)),
        });
        self.outbox.add(event, takers, others);
        Ok(())
    }

    /// One of the events among which a member has crashed.
    async fn event_alone(&mut self, relayed: RelayedEvent) -> anyhow::Result<()> {
        let position = relayed.event.position;
        if self.open.is_some_and(|open| open != position) {
            self.close(); // it can be waited for
        }
        self.outbox.hand_over().await?;
        self.guard.approach(position).await;
        let pass = match self.guard.holds_suspect_lock() {
            true => None,
            false => Some(self.suspect_lock.pass().await),
        };
        self.guard.before_rendering(position).await;
        self.event(relayed).await?;
        self.guard.before_sending(position).await;
        self.outbox.hand_over().await?;
        self.guard.wait(position).await;
        drop(pass);
        Ok(())
    }

    /// Has the mirror find out what the tail that routed the event knew of the endpoints.
    async fn look_up(&mut self, made: Vec<Arc<str>>, version: i64) -> anyhow::Result<()> {
        let unknown = made.into_iter().filter(|name| !self.names.contains_key(name));
        let names: Vec<Arc<str>> = unknown.collect();
        if names.is_empty() && version <= self.known {
            return Ok(());
        }
        // What was read before is for the endpoints as they were.
        self.outbox.hand_over().await?;
        let (done_in, mut done) = oneshot::channel();
        let lookup = EndpointLookup { names, version, done: done_in };
        if self.lookups.send(lookup).await.is_err() {
            return Ok(()); // it ends only with everything else
        }
        loop {
            tokio::select! {
                biased;
                Some(update) = self.updates.recv() => self.take_update(update),
                found = &mut done => {
                    let found = found.context("the endpoints are not followed any more")?;
                    self.known = version.max(self.known);
                    return found.map_err(anyhow::Error::msg);
                }
            }
        }
    }

    fn index(&self, name: &Arc<str>) -> anyhow::Result<EndpointIndex> {
        self.names.get(name).copied().with_context(|| {
            format!(
                "an event is for endpoint {name}, which this configuration does not have: give all \
                 members of the source the same configuration, and restart them"
            )
        })
    }

    async fn mark(&mut self, end: Lsn) -> anyhow::Result<()> {
        // The first mark of a tail knows of nothing yet: the one before may have died between two events of a change.
        if self.open.is_some_and(|open| open.commit < end) {
            self.close();
        }
        self.outbox.hand_over().await?;
        self.outbox.rest().await?;
        if self.parked.is_some_and(|parked| end > parked.commit) {
            self.parked = None;
            for lane in self.outbox.lanes.values() {
                lane.caught_up().await?;
            }
        }
        Ok(())
    }

    /// Nothing more comes of the change that is open.
    fn close(&mut self) {
        if let Some(position) = self.open.take() {
            self.outbox.close(Vec::new(), position);
        }
    }
}
