//! The source's thread: attaches to the slot, waits for the other stages, then pumps.

use anyhow::Context;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::backfill::pump_orders::BackfillOrder;
use crate::config::configuration::Settings;
use crate::event::route::EventRouter;
use crate::flow::backfill::BackfillId;
use crate::flow::budget::MemoryBudget;
use crate::flow::event::RuleIndex;
use crate::flow::lsn::Lsn;
use crate::flow::lsn::Position;
use crate::flow::pump_report::PumpReport;
use crate::flow::relation::TableName;
use crate::pipeline::already_settled::AlreadySettled;
use crate::pipeline::crash_guard::CrashGuard;
use crate::pipeline::endpoint_update::EndpointUpdate;
use crate::pipeline::endpoint_update::WatchedTables;
use crate::pipeline::free_memory::given_back_during;
use crate::pipeline::handles::SharedHandles;
use crate::pipeline::pump::EventPump;
use crate::pipeline::pump::outbox::PumpOutbox;
use crate::pipeline::pump::relay_outbox::RelayOutbox;
use crate::pipeline::pump::spans::ChangeSpans;
use crate::pipeline::shutdown::ShutdownStages;
use crate::pipeline::table_counters::TableCounters;
use crate::replication::connection::SlotClaim;
use crate::replication::connection::SlotUse;
use crate::replication::connection::SourceTerms;
use crate::replication::stream::ReplicationSource;
use crate::replication::wire::command::SystemIdentity;
use crate::store::seen_values::SeenValue;

/// What the thread needs to begin.
#[derive(Clone)]
pub(crate) struct SourceThread {
    pub(crate) budget: MemoryBudget,
    pub(crate) settings: Settings,
    pub(crate) handles: SharedHandles,
    pub(crate) confirmed: watch::Receiver<Lsn>,
    pub(crate) writable: watch::Receiver<bool>,
    /// The commit of a transaction to go on without, if it cannot be sent.
    pub(crate) skip_transaction: Option<Lsn>,
    pub(crate) stop: CancellationToken,
    pub(crate) shutdown: ShutdownStages,
    /// The runtime of all the rest.
    pub(crate) main: Handle,
}

/// The stages behind the pump, and what was settled before. They are built when the slot is ours.
pub(crate) struct PumpParts {
    pub(crate) updates: mpsc::Receiver<EndpointUpdate>,
    pub(crate) opened: mpsc::Sender<Vec<PumpReport>>,
    /// The ledger has ended: all is committed.
    pub(crate) ledger_ended: oneshot::Receiver<()>,
    pub(crate) epoch: i64,
    pub(crate) seen: Option<Position>,
    pub(crate) already_settled: AlreadySettled,
    /// The newest change of which something is parked.
    pub(crate) parked: Option<Position>,
    /// Values that events were raised with, by rule, the oldest first.
    pub(crate) remembered: Vec<(RuleIndex, SeenValue)>,
    pub(crate) watched: Option<WatchedTables>,
    pub(crate) crash_guard: CrashGuard,
    pub(crate) backfills: mpsc::Receiver<BackfillOrder>,
    /// Backfills by key that are not over.
    pub(crate) moving: Vec<(BackfillId, TableName)>,
    /// To the publishers of the partitions, in a tail.
    pub(crate) relay: Option<RelayOutbox>,
    /// What backfills read stands behind this.
    pub(crate) rows_beyond: Lsn,
}

/// A thread whose slot is ours. It reads nothing before it has its stages.
pub(crate) struct AttachedSource {
    pub(crate) identity: SystemIdentity,
    /// Taken when the stages are handed over.
    stages: Option<oneshot::Sender<PumpParts>>,
    ended: oneshot::Receiver<anyhow::Result<()>>,
}

impl AttachedSource {
    /// Lets the thread read.
    pub(crate) fn begin(&mut self, stages: PumpParts) {
        if let Some(waiting) = self.stages.take() {
            // A thread that has failed meanwhile says so when it is waited for.
            drop(waiting.send(stages));
        }
    }

    /// Ends with the thread.
    ///
    /// # Errors
    /// Why the source or the pump could not go on.
    pub(crate) async fn ended(self) -> anyhow::Result<()> {
        self.ended.await.context("the source's thread panicked")?
    }
}

impl SourceThread {
    /// Starts the thread and waits until it has the slot.
    ///
    /// # Errors
    /// Why it cannot have it.
    pub(crate) async fn attach(self) -> anyhow::Result<AttachedSource> {
        let (attached_in, attached) = oneshot::channel();
        let (stages, stages_out) = oneshot::channel();
        let (ended_in, ended) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name(String::from("source"));
        thread.spawn(move || {
            let run = self.run(attached_in, stages_out);
            // Nobody waits any more if the grace period is over.
            drop(ended_in.send(runtime.block_on(given_back_during(run))));
        })?;
        match attached.await {
            Ok(identity) => Ok(AttachedSource { identity, stages: Some(stages), ended }),
            Err(_) => {
                ended.await.context("the source's thread panicked")??;
                anyhow::bail!("the source's thread ended before it had begun")
            }
        }
    }

    async fn run(
        self,
        attached: oneshot::Sender<SystemIdentity>,
        stages: oneshot::Receiver<PumpParts>,
    ) -> anyhow::Result<()> {
        let skip_transaction = self.skip_transaction;
        let Self { budget, settings, handles, confirmed, writable, stop, shutdown, main, .. } =
            self;
        let terms = SourceTerms {
            settings: settings.postgres.clone(),
            slot_use: SlotUse::Lasting,
            own_slot: settings.postgres.slot.clone(),
            budget: budget.clone(),
            status: handles.status.clone(),
            start: Lsn::ZERO,
            skip_transaction,
            tables: settings.events.iter().map(|event| event.table.clone()).collect(),
            confirmed,
            writable,
            let_go: handles.let_go.clone(),
            slot_ownership: handles.slot_ownership.clone(),
            feedback_on: main,
        };
        let mut source = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            opened = ReplicationSource::open(terms) => opened?,
        };
        let system = source.identity().system;
        attached.send(source.identity().clone()).ok();
        // The start has failed if there are none.
        let Ok(stages) = stages.await else { return Ok(()) };
        // Nobody takes anything before the first update.
        let mut router = EventRouter::new(system, &settings.events, &[]);
        let books = TableCounters::new(&handles.metrics, &settings.events);
        let PumpParts {
            mut updates,
            opened,
            ledger_ended,
            epoch,
            seen,
            already_settled,
            parked,
            remembered,
            watched,
            crash_guard,
            backfills,
            moving,
            relay,
            rows_beyond,
        } = stages;
        for (rule, value) in remembered {
            router.remember(rule, value.fingerprint, value.position, value.committed);
        }
        source.claim(SlotClaim { state: settings.state.clone(), epoch });
        let Some(first) = updates.recv().await else { return Ok(()) };
        let outbox = PumpOutbox::new(opened, handles.wal_hold.clone()).relaying(relay);
        let pump = EventPump::new(router, books, handles.clock.clone(), budget, updates, outbox);
        let pump =
            pump.resumed(seen, already_settled, parked).watching(watched).cautious(crash_guard);
        let spans = handles.tracer.clone();
        let spans = spans.map(|tracer| ChangeSpans::new(tracer, handles.clock.clone()));
        let mut pump = pump
            .telling_untaken(settings.enabled)
            .recording(spans)
            .backfilling(backfills, moving)
            .sending_rows_beyond(rows_beyond);
        pump.take_update(first);
        // Half of the grace period to finish reading a transaction, the other half to deliver it.
        Box::pin(pump.run(&mut source, stop, settings.grace / 2)).await?;
        // An error of the sender means that it has ended, too.
        drop(ledger_ended.await);
        shutdown.finished.cancel();
        source.finish().await;
        Ok(())
    }
}
