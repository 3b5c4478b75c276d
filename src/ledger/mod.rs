//! Outcomes: the state in Postgres, counters, log lines, the watermark.
//!
//! ```text
//! pump ─ PumpReport ─▶ [ledger] ─ StateFlush ─▶ schema walhook
//! lanes ─ LaneReport ─▶   │
//! registry ─ EndpointsEdit ─▶│
//!                      └ once committed: confirmed LSN ─▶ source
//! ```
//!
//! Outcomes are committed in groups, one transaction per flush, beside the deliveries and never in
//! their way; only then is anything confirmed to PostgreSQL. A quiet system writes nothing. The
//! ledger ends when the pump and all lanes have dropped their senders, and what it has published by
//! then is final.
//!
//! | file | holds |
//! | --- | --- |
//! | `attempt_rows` | The rows of the push log that an attempt makes, as far as it keeps them |
//! | `backfilled` | Tells the backfills which of their chunks are settled or parked |
//! | `endpoint_names` | What indexes of endpoints and versions of their set mean: names, and who took what |
//! | `flush_session` | The session that flushes are committed with, opened anew when it was lost |
//! | `flushing` | When the ledger flushes, and what follows |
//! | `joined_flushes` | Commits what is due in several partitions of a process in one transaction |
//! | `live_books` | The books at this moment, in the metrics |
//! | `live_feed` | Attempts as they are made, for the live view of API and page |
//! | `outcome_log` | One log line per final outcome |
//! | `pending` | What happened since the last flush began, collected to be committed as one `StateFlush` |
//! | `postings` | What notes come to in the books |
//! | `replayed` | Tells the redelivery which of its deliveries have come to their end |
//! | `reports` | Takes in what pump, lanes and registry report, as entries of the books |
//! | `seen_values` | Values that events were raised with, until the settled prefix has passed them |
//! | `standby_copies` | What of the state a standby has, too |
//! | `state_status` | Whether the state can be written, for readiness, status and metrics |
//! | `stats` | The counters behind `GET /api/v1/webhook/stats`, and how far behind we are |
//! | `write_back_counts` | Counts outcomes of events with a write-back between two flushes |
//! | `write_back` | Writes outcomes back into the source database, beside the flushes and never in their way |
//! | `writer` | Commits flushes, one after the other, for as long as the state's database takes |

mod attempt_rows;
pub(crate) mod backfilled;
pub(crate) mod endpoint_names;
mod flush_session;
mod flushing;
pub(crate) mod joined_flushes;
mod live_books;
pub(crate) mod live_feed;
pub(crate) mod outcome_log;
mod pending;
mod postings;
pub(crate) mod replayed;
mod reports;
mod seen_values;
pub(crate) mod standby_copies;
pub(crate) mod state_status;
pub(crate) mod stats;
pub(crate) mod write_back;
mod write_back_counts;
pub(crate) mod writer;

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use prometheus::Histogram;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::clock::DatabaseClock;
use crate::config::settings::LoggedOutcomes;
use crate::config::settings::PushLogSettings;
use crate::failpoint;
use crate::flow::commit_times::CommitTimes;
use crate::flow::endpoint_watermarks::EndpointWatermarks;
use crate::flow::lsn::Lsn;
use crate::flow::lsn::Position;
use crate::flow::pump_report::EndpointsVersion;
use crate::flow::pump_report::PumpReport;
use crate::flow::report_queue::ReportReceiver;
use crate::flow::settlement::EndpointIndex;
use crate::flow::settlement::LaneReport;
use crate::flow::time::Timestamp;
use crate::flow::watermark::Watermark;
use crate::ledger::backfilled::BackfillProgress;
use crate::ledger::endpoint_names::EndpointNames;
use crate::ledger::endpoint_names::ServingEndpoints;
use crate::ledger::joined_flushes::FlushTicks;
use crate::ledger::live_books::LiveBooks;
use crate::ledger::live_feed::AttemptFeed;
use crate::ledger::pending::PendingFlush;
use crate::ledger::replayed::ReplayProgress;
use crate::ledger::seen_values::RaisedValues;
use crate::ledger::standby_copies::StandbyCopies;
use crate::ledger::stats::PushStats;
use crate::ledger::writer::FlushTarget;
use crate::ledger::writer::StateConnection;
use crate::ledger::writer::StateWriter;
use crate::store::books::BookEntry;
use crate::store::books::CommonCounts;
use crate::store::push_totals::PushTotals;
use crate::store::renames::EndpointRename;
use crate::store::state_error::StateError;
use crate::telemetry::metrics::EndpointMetrics;
use crate::telemetry::metrics::WalhookMetrics;

/// So much is committed without waiting: rows, two for most deliveries, each of which holds its event,
/// and what was answered. Twice as much is not taken in while a flush is under way.
const FLUSH_ROWS: usize = 2048;

/// Rows of tables that backfills read and that have got other keys: more wait until these are written.
const MOVES_MAX: usize = 2 * FLUSH_ROWS;
const FLUSH_ANSWER_BYTES: usize = 4 * 1024 * 1024;

/// What the ledger is told at its start.
pub(crate) struct LedgerParts<T = StateConnection> {
    pub push_log: PushLogSettings,
    /// Which outcomes have a line of the log.
    pub outcomes: LoggedOutcomes,
    pub stats: Arc<PushStats>,
    pub clock: DatabaseClock,
    pub confirmed: watch::Sender<Lsn>,
    /// What the state says was confirmed.
    pub stored: Lsn,
    /// Where standbys keep slot and state: nothing is confirmed before they have what was written of it.
    pub copies: Option<StandbyCopies>,
    pub writer: StateWriter<T>,
    /// By rule index.
    pub event_types: Vec<Arc<str>>,
    /// Hears of flushes after which something may have to be written back. Its end is the ledger's.
    pub write_backs: Option<watch::Sender<()>>,
    /// Told how far everything is settled, whether it is flushed or not.
    pub settled: watch::Sender<Option<Position>>,
    /// Endpoints that are there from the start.
    pub shown: Vec<Arc<str>>,
    /// The books as the state holds them.
    pub books: Vec<BookEntry>,
    /// What it holds for all endpoints alike, which is in `books`, too.
    pub common: CommonCounts,
    /// The sums of all pushes as it holds them.
    pub totals: PushTotals,
    pub replayed: ReplayProgress,
    /// Told which chunks of backfills are done.
    pub backfills: BackfillProgress,
    /// Gets each attempt, for the live view.
    pub feed: AttemptFeed,
    /// Another process waits for what is settled: it is written down soon, also where nothing else is to be.
    pub settled_is_awaited: bool,
    /// When other ledgers of the process flush, too; without it an outcome waits for as long as it may.
    pub ticks: Option<FlushTicks>,
}

/// How often an endpoint's outage is told.
const OUTAGE_LINE_EVERY_MICROS: i64 = 60_000_000;

/// Events that expire because of their endpoint.
#[derive(Debug, Default)]
struct EndpointOutage {
    /// The last attempt failed.
    is_failing: bool,
    told: Option<Timestamp>,
    untold: u64,
}

impl EndpointOutage {
    /// One more; how many a line that is due is about.
    fn expired(&mut self, now: Timestamp) -> Option<u64> {
        self.untold += 1;
        let is_due = self.told.is_none_or(|told| now >= told.shifted(OUTAGE_LINE_EVERY_MICROS));
        if !is_due {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.untold))
    }
}

/// The owner of the books.
pub(crate) struct Ledger<T = StateConnection> {
    watermark: Watermark,
    endpoint_watermarks: EndpointWatermarks,
    pending: PendingFlush,
    /// When the oldest outcome of `pending` has to be committed.
    due: Option<Instant>,
    /// `None` while it is with `flushing`.
    writer: Option<StateWriter<T>>,
    flushing: Option<FlushUnderway<T>>,
    /// When the next housekeeping is due.
    housekeeping: Instant,
    /// By endpoint index.
    endpoints: HashMap<EndpointIndex, EndpointAccount>,
    live: Arc<Mutex<LiveBooks>>,
    names: EndpointNames,
    /// Endpoints whose names are needed until the next flush has begun.
    retiring: Vec<EndpointIndex>,
    outcomes: LoggedOutcomes,
    /// Of endpoints that let events expire.
    outages: HashMap<EndpointIndex, EndpointOutage>,
    push_log: PushLogSettings,
    stats: Arc<PushStats>,
    clock: DatabaseClock,
    /// Of what is not confirmed yet.
    commit_times: CommitTimes,
    confirmed: watch::Sender<Lsn>,
    /// Nothing beyond is confirmed before it is written down: a slot that stands further was made
    /// by another.
    stored: Lsn,
    copies: Option<StandbyCopies>,
    settled: watch::Sender<Option<Position>>,
    replayed: ReplayProgress,
    backfills: BackfillProgress,
    feed: AttemptFeed,
    settled_is_awaited: bool,
    ticks: Option<FlushTicks>,
    /// What the last flush said is settled.
    written: Option<Position>,
    flush_seconds: Histogram,
    sightings: RaisedValues,
    /// By rule index.
    event_types: Vec<Arc<str>>,
    write_backs: Option<watch::Sender<()>>,
    /// Whether the flush under way may have completed a write-back.
    completes: bool,
    /// An edit that renames endpoints: it holds from the next flush on, which carries it out.
    renaming: Option<EndpointsEdit>,
    /// Told when that flush is committed.
    renamed: Option<oneshot::Sender<()>>,
}

/// A flush under way: gives the writer back, and what may be confirmed.
type FlushUnderway<T> = Pin<Box<dyn Future<Output = FlushOutcome<T>> + Send>>;

type FlushOutcome<T> = (StateWriter<T>, Result<FlushEnd, StateError>);

/// What follows from a flush that is committed.
#[derive(Clone, Copy, Debug)]
struct FlushEnd {
    confirmable: Lsn,
    /// The stream's connection when it began, and how far the WAL is written with it; if standbys are
    /// waited for and it could be asked.
    wal_end: Option<(u64, Lsn)>,
}

/// One endpoint's name, URL as it may be shown, and counters.
#[derive(Debug)]
pub(crate) struct EndpointAccount {
    pub name: Arc<str>,
    pub shown_url: String,
    pub metrics: Arc<EndpointMetrics>,
}

/// Another version of the endpoints. The ledger hears of it before the pump does.
#[derive(Debug)]
pub(crate) struct EndpointsEdit {
    pub endpoints_version: EndpointsVersion,
    pub serving: ServingEndpoints,
    /// Endpoints that are new, or shown in another way.
    pub accounts: Vec<(EndpointIndex, EndpointAccount)>,
    /// Endpoints of `accounts` that had another name.
    pub renamed: Vec<EndpointRename>,
    /// Told once the ledger knows of it, and the state has the new names.
    pub known: oneshot::Sender<()>,
}

impl<T: FlushTarget + 'static> Ledger<T> {
    /// Takes up the books where the state left them, so that the metrics go on from there; the gauges
    /// of what is parked have to be set. Knows no endpoint by its index before its first [`EndpointsEdit`].
    pub(crate) fn new(metrics: &WalhookMetrics, terms: LedgerParts<T>) -> Self {
        // Nothing is known here of sums that several ledgers of one process add to.
        if !terms.totals.is_empty() {
            terms.stats.resume(&terms.totals);
        }
        let live = LiveBooks::new(metrics, &terms.shown, terms.books);
        let live = Arc::new(Mutex::new(live));
        let looked_at = Arc::downgrade(&live);
        metrics.before_each_look(move || {
            if let Some(live) = looked_at.upgrade() {
                lock(&live).refresh();
            }
        });
        Self {
            watermark: Watermark::default(),
            endpoint_watermarks: EndpointWatermarks::default(),
            commit_times: CommitTimes::default(),
            pending: PendingFlush::new(terms.common),
            due: None,
            writer: Some(terms.writer),
            flushing: None,
            housekeeping: Instant::now(),
            endpoints: HashMap::new(),
            live,
            names: EndpointNames::default(),
            retiring: Vec::new(),
            push_log: terms.push_log,
            outcomes: terms.outcomes,
            outages: HashMap::new(),
            stats: terms.stats,
            clock: terms.clock,
            confirmed: terms.confirmed,
            stored: terms.stored,
            copies: terms.copies,
            settled: terms.settled,
            replayed: terms.replayed,
            backfills: terms.backfills,
            feed: terms.feed,
            settled_is_awaited: terms.settled_is_awaited,
            ticks: terms.ticks,
            written: None,
            flush_seconds: metrics.ledger_flush(),
            sightings: RaisedValues::default(),
            event_types: terms.event_types,
            write_backs: terms.write_backs,
            completes: false,
            renaming: None,
            renamed: None,
        }
    }

    /// Runs until pump and lanes have closed their channels and everything is committed.
    ///
    /// # Errors
    /// [`StateError::Fenced`], or another error that waiting cannot mend: nothing more is confirmed.
    pub(crate) async fn run(
        mut self,
        mut opened: mpsc::Receiver<Vec<PumpReport>>,
        mut reports: ReportReceiver,
        mut edits: mpsc::Receiver<EndpointsEdit>,
    ) -> Result<(), StateError> {
        let (mut pump_lives, mut lanes_live) = (true, true);
        loop {
            let ending = !pump_lives && !lanes_live;
            self.start_flush(ending);
            if ending && self.flushing.is_none() {
                if let Some(writer) = &mut self.writer {
                    writer.say_stopped().await;
                }
                return Ok(());
            }
            let (deadline, is_flushing) = (self.next_deadline(), self.flushing.is_some());
            tokio::select! {
                biased; // an event is opened before anything can be reported of it
                Some(edit) = edits.recv() => self.edit(edit),
                // Of what else is opened, lanes and memory bound how much there is.
                batch = opened.recv(), if pump_lives && self.has_room_for_moves() => match batch {
                    Some(batch) => self.open(batch),
                    None => pump_lives = false,
                },
                (writer, flushed) = flushed(&mut self.flushing), if is_flushing => {
                    self.flushing = None;
                    self.writer = Some(writer);
                    failpoint::reached("flushed");
                    let FlushEnd { confirmable, wal_end } = flushed?;
                    self.stored = self.stored.max(confirmable);
                    if let (Some(copies), Some((connection, end))) = (&mut self.copies, wal_end) {
                        copies.wrote(connection, end, confirmable);
                    }
                    self.publish(self.stored);
                    self.wake_write_backs();
                    if let Some(renamed) = self.renamed.take() {
                        renamed.send(()).ok(); // who made the edit may have ended
                    }
                }
                report = reports.recv(), if lanes_live && self.has_room() => match report {
                    Some(report) => self.take_in(report, &mut reports, &mut opened, pump_lives),
                    None => lanes_live = false,
                },
                () = tokio::time::sleep_until(deadline), if !is_flushing => {}
            }
            self.after_reports();
        }
    }

    /// Takes in the reports that are there, one by one: each may be of hundreds of rows.
    fn take_in(
        &mut self,
        first: LaneReport,
        reports: &mut ReportReceiver,
        opened: &mut mpsc::Receiver<Vec<PumpReport>>,
        pump_lives: bool,
    ) {
        let mut next = Some(first);
        while let Some(report) = next {
            // The pump tells us first, but the two channels are two: look again.
            while let Ok(batch) = opened.try_recv() {
                self.open(batch);
            }
            if !pump_lives {
                failpoint::reached("draining");
            }
            self.book(report);
            next = if self.has_room() { reports.try_recv() } else { None };
        }
    }

    fn has_room(&self) -> bool {
        !self.fills(2)
    }

    /// Whether rows that a transaction moves by the million may come: they are nobody else's to bound.
    fn has_room_for_moves(&self) -> bool {
        self.pending.moves() < MOVES_MAX
    }

    /// Whether what is pending fills so many flushes.
    fn fills(&self, flushes: usize) -> bool {
        self.pending.len() >= flushes * FLUSH_ROWS
            || self.pending.answer_bytes() >= flushes * FLUSH_ANSWER_BYTES
    }
}

/// The books as the metrics show them. A panic while they were held ends the process anyway.
fn lock(live: &Mutex<LiveBooks>) -> MutexGuard<'_, LiveBooks> {
    live.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for the flush under way; for ever if there is none.
async fn flushed<T>(flushing: &mut Option<FlushUnderway<T>>) -> FlushOutcome<T> {
    match flushing {
        Some(flushing) => flushing.await,
        None => std::future::pending().await,
    }
}
