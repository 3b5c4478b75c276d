//! Outcomes: counters, log lines, the watermark.
//!
//! ```text
//! pump ─ Opened ─▶ [ledger] ─ confirmed LSN ─▶ source
//! lanes ─ Report ─▶
//! ```
//!
//! One task owns the watermark. It ends when the pump and all lanes have dropped their senders, and
//! what it has published by then is final.

pub mod outcome_log;
pub mod stats;

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::sync::watch;

use crate::clock::DatabaseClock;
use crate::config::settings::Endpoint;
use crate::flow::lsn::Lsn;
use crate::flow::settlement::Attempt;
use crate::flow::settlement::Holding;
use crate::flow::settlement::Outcome;
use crate::flow::settlement::Report;
use crate::flow::settlement::Settlement;
use crate::flow::watermark::Opened;
use crate::flow::watermark::Watermark;
use crate::ledger::stats::Stats;
use crate::telemetry::metrics::EndpointMetrics;
use crate::telemetry::metrics::Metrics;

/// Reports taken per turn: one confirmation covers them all.
const REPORTS_MAX: usize = 64;

/// The owner of the books.
pub struct Ledger {
    watermark: Watermark,
    /// By endpoint index.
    endpoints: Vec<Account>,
    stats: Arc<Stats>,
    clock: DatabaseClock,
    confirmed: watch::Sender<Lsn>,
}

/// One endpoint's name, URL as it may be shown, and counters.
struct Account {
    name: Arc<str>,
    shown_url: String,
    metrics: EndpointMetrics,
}

impl Ledger {
    pub fn new(
        endpoints: &[Endpoint],
        metrics: &Metrics,
        stats: Arc<Stats>,
        clock: DatabaseClock,
        confirmed: watch::Sender<Lsn>,
    ) -> Self {
        let account = |endpoint: &Endpoint| Account {
            name: Arc::clone(&endpoint.name),
            shown_url: endpoint.shown_url(),
            metrics: metrics.endpoint(&endpoint.name),
        };
        Self {
            watermark: Watermark::default(),
            endpoints: endpoints.iter().map(account).collect(),
            stats,
            clock,
            confirmed,
        }
    }

    /// Runs until both channels are closed and empty.
    pub async fn run(
        mut self,
        mut opened: mpsc::Receiver<Vec<Opened>>,
        mut reports: mpsc::Receiver<Report>,
    ) {
        let mut arrived = Vec::with_capacity(REPORTS_MAX);
        let (mut pump_lives, mut lanes_live) = (true, true);
        while pump_lives || lanes_live {
            tokio::select! {
                biased; // an event is opened before anything can be reported of it
                batch = opened.recv(), if pump_lives => match batch {
                    Some(batch) => self.open(batch),
                    None => pump_lives = false,
                },
                count = reports.recv_many(&mut arrived, REPORTS_MAX), if lanes_live => {
                    lanes_live = count > 0;
                    // The pump tells us first, but the two channels are two: look again.
                    while let Ok(batch) = opened.try_recv() {
                        self.open(batch);
                    }
                    arrived.drain(..).for_each(|report| self.book(&report));
                }
            }
            self.confirm();
            self.stats.set_oldest_open(self.watermark.oldest());
        }
    }

    fn open(&mut self, batch: Vec<Opened>) {
        batch.into_iter().for_each(|opened| self.watermark.note(opened));
    }

    fn book(&mut self, report: &Report) {
        report.attempts.iter().for_each(|attempt| self.attempted(attempt));
        report.settlements.iter().for_each(|settlement| self.settled(settlement));
    }

    fn attempted(&self, attempt: &Attempt) {
        let Some(account) = self.endpoints.get(attempt.endpoint.0) else { return };
        let failure = attempt.exchange.failure.as_ref();
        account.metrics.attempted(failure.map(|failure| failure.class), attempt.exchange.took);
        if attempt.lease.attempt > 1 {
            account.metrics.retries.inc();
        }
        if let (Some(failure), Some(wait)) = (failure, attempt.retry_in) {
            tracing::debug!(
                endpoint = &*account.name,
                attempt = attempt.lease.attempt,
                events = attempt.lease.events.len(),
                failure = %failure,
                wait_ms = wait.as_millis(),
                "attempt failed, trying again"
            );
        }
    }

    fn settled(&mut self, settlement: &Settlement) {
        if settlement.holding == Holding::Wal {
            self.watermark.settle(settlement.event.sequence);
        }
        let Some(account) = self.endpoints.get(settlement.endpoint.0) else { return };
        account.metrics.pending_memory.dec();
        let now = self.clock.now();
        match &settlement.outcome {
            Outcome::Delivered { took, .. } => {
                self.stats.succeeded(*took, now);
                account.metrics.delivered.inc();
                let since_commit = now.since(settlement.event.committed);
                account.metrics.commit_to_delivery.observe(since_commit.as_secs_f64());
            }
            Outcome::Dead { .. } => {
                self.stats.failed(now);
                account.metrics.dead.inc();
            }
            Outcome::Expired => account.metrics.expired.inc(),
            Outcome::Filtered => account.metrics.filtered.inc(),
            Outcome::Parked { .. } => {}
        }
        outcome_log::settled(&account.name, &account.shown_url, settlement);
    }

    /// Publishes what may be confirmed, if it moved.
    fn confirm(&self) {
        let confirmable = self.watermark.confirmable();
        self.confirmed.send_if_modified(|confirmed| {
            let moved = *confirmed < confirmable;
            *confirmed = confirmable.max(*confirmed);
            moved
        });
    }
}
