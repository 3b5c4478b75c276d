//! The ledger of the slot's holder, or of a partition, as a task: what it is built of, its channels, and how long it is waited for.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::configuration::Settings;
use crate::endpoints::registry::snapshot::EndpointSnapshot;
use crate::flow::lsn::Lsn;
use crate::flow::lsn::Position;
use crate::ha::state::TakenState;
use crate::ledger;
use crate::ledger::Ledger;
use crate::ledger::joined_flushes::FlushTicks;
use crate::ledger::standby_copies::HeardStream;
use crate::ledger::standby_copies::StandbyCopies;
use crate::ledger::writer::StateWriter;
use crate::pipeline::handles::SharedHandles;
use crate::store::books::BookEntry;
use crate::store::books::CommonCounts;
use crate::store::push_totals::PushTotals;
use crate::store::state_error::StateError;

/// Messages between the pump and the ledger; each is what one read from PostgreSQL brought.
pub(super) const OPENED_MAX: usize = 64;

/// Runs the ledger while patience lasts.
pub(super) async fn run_ledger(
    run: impl Future<Output = Result<(), StateError>>,
    last_flush_deadline: impl Future<Output = ()>,
    ended: oneshot::Sender<()>,
    done: CancellationToken,
) -> anyhow::Result<()> {
    let outcome = tokio::select! {
        outcome = run => outcome,
        () = last_flush_deadline => Ok(()),
    };
    if outcome.is_ok() {
        // Nobody listens any more if the source has failed.
        ended.send(()).ok();
    }
    // Whatever the outcome, nothing is sent any more.
    done.cancel();
    Ok(outcome?)
}

/// What the ledger tells the source and the pump.
pub(super) struct LedgerOutputs {
    confirmed: watch::Sender<Lsn>,
    /// What the state says was confirmed.
    stored: Lsn,
    copies: Option<StandbyCopies>,
    settled: watch::Sender<Option<Position>>,
    /// When the partitions of a process flush; `None` where it has the slot.
    ticks: Option<FlushTicks>,
}

impl LedgerOutputs {
    pub(super) fn of(
        handles: &SharedHandles,
        confirmed: watch::Sender<Lsn>,
        taken: &TakenState,
        settled: watch::Sender<Option<Position>>,
    ) -> Self {
        let copies = taken.wal_end.map(|end| standby_copies(handles, end, taken.confirmed));
        Self { confirmed, stored: taken.confirmed, copies, settled, ticks: None }
    }

    /// Those of a partition: its tail confirms, and waits for what is settled.
    pub(super) fn of_partition(
        settled: watch::Sender<Option<Position>>,
        ticks: FlushTicks,
    ) -> Self {
        let confirmed = watch::Sender::new(Lsn::ZERO);
        Self { confirmed, stored: Lsn::ZERO, copies: None, settled, ticks: Some(ticks) }
    }
}

/// What standbys have of the state, which was read when the WAL ended at `end`.
fn standby_copies(handles: &SharedHandles, end: Lsn, stored: Lsn) -> StandbyCopies {
    let status = handles.status.clone();
    let listener = move || {
        let (connection, received) = status.heard();
        HeardStream { connection, received }
    };
    StandbyCopies::new(Arc::new(listener), end, stored)
}

/// The ledger of the slot's holder, or of a partition.
pub(super) fn ledger(
    settings: &Settings,
    handles: &SharedHandles,
    published: LedgerOutputs,
    snapshot: &EndpointSnapshot,
    (writer, books, common, totals): (StateWriter, Vec<BookEntry>, CommonCounts, PushTotals),
    write_backs: Option<watch::Sender<()>>,
) -> Ledger {
    let terms = ledger::LedgerParts {
        push_log: settings.push_log,
        outcomes: settings.log.outcomes,
        stats: Arc::clone(&handles.stats),
        clock: handles.clock.clone(),
        confirmed: published.confirmed,
        stored: published.stored,
        copies: published.copies,
        settled: published.settled,
        writer,
        event_types: settings.events.iter().map(|rule| Arc::clone(&rule.event_type)).collect(),
        write_backs,
        shown: snapshot.listed.iter().map(|shown| Arc::clone(&shown.endpoint.name)).collect(),
        books,
        common,
        totals,
        replayed: handles.replayed.clone(),
        backfills: handles.backfills.clone(),
        feed: handles.feed.clone(),
        settled_is_awaited: published.ticks.is_some(),
        ticks: published.ticks,
    };
    Ledger::new(&handles.metrics, terms)
}
