//! Takes in what pump, lanes and registry report, as entries of the books.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::failpoint;
use crate::flow::dead_letter_reason::DeathReason;
use crate::flow::dead_letter_reason::PoisonReason;
use crate::flow::event::Event;
use crate::flow::pump_report::PumpReport;
use crate::flow::settlement::DeliveryAttempt;
use crate::flow::settlement::DeliveryOutcome;
use crate::flow::settlement::DurableIn;
use crate::flow::settlement::EndpointIndex;
use crate::flow::settlement::LaneReport;
use crate::flow::settlement::Settlement;
use crate::flow::time::Timestamp;
use crate::flow::time::whole_millis;
use crate::ledger::EndpointsEdit;
use crate::ledger::Ledger;
use crate::ledger::lock;
use crate::ledger::outcome_log;
use crate::ledger::writer::FlushTarget;
use crate::store::renames::EndpointRename;

impl<T: FlushTarget + 'static> Ledger<T> {
    pub(super) fn open(&mut self, batch: Vec<PumpReport>) {
        for opened in batch {
            lock(&self.live).opened(&self.names, &opened);
            self.follow(&opened);
            if let PumpReport::Seen(seen) = &opened {
                self.sightings.note(*seen);
            }
            if let PumpReport::Untaken(event) = &opened
                && self.write_backs.is_some()
            {
                self.pending.untaken(event);
            }
            if let PumpReport::Moved(row) = opened {
                self.pending.moved(row);
                continue;
            }
            if let PumpReport::Poison { event, takers, why, .. } = &opened {
                let (event, takers, why) = (Arc::clone(event), Arc::clone(takers), *why);
                self.watermark.note(opened);
                self.set_aside(&event, &takers, why);
            } else {
                self.watermark.note(opened);
            }
        }
    }

    /// Notes what endpoints are owed, under the number that the watermark is about to give it.
    fn follow(&mut self, opened: &PumpReport) {
        let sequence = self.watermark.next_sequence();
        match opened {
            PumpReport::Event { position, takers, .. } => {
                self.endpoint_watermarks.open(sequence, *position, takers)
            }
            PumpReport::Poison { event, takers, .. } => {
                self.endpoint_watermarks.open(sequence, event.position, takers);
            }
            PumpReport::Through { position } => self.endpoint_watermarks.through(*position),
            PumpReport::Boundary { end, committed: Some(committed) } => {
                self.commit_times.note(*end, *committed);
                self.stats.committed(*committed);
            }
            PumpReport::Note(_)
            | PumpReport::Seen(_)
            | PumpReport::Untaken(_)
            | PumpReport::Backfilled(_)
            | PumpReport::Moved(_)
            | PumpReport::Boundary { committed: None, .. } => {}
        }
    }

    /// Nobody but us settles an event that no lane sees.
    fn set_aside(&mut self, event: &Arc<Event>, takers: &[EndpointIndex], why: PoisonReason) {
        let settlements = takers.iter().map(|&endpoint| Settlement {
            event: Arc::clone(event),
            endpoint,
            outcome: DeliveryOutcome::Dead { reason: DeathReason::Poison(why) },
            durable_in: DurableIn::Wal,
            attempts: 0,
            history: None,
        });
        let settlements = settlements.collect();
        self.book(LaneReport { settlements, ..LaneReport::default() });
    }

    /// Takes up another version of the endpoints. One that renames some waits for the next flush:
    /// all that is pending has the old names, and what comes next has the new ones.
    pub(super) fn edit(&mut self, edit: EndpointsEdit) {
        match edit.renamed.is_empty() {
            true => {
                let known = self.take_up(edit);
                known.send(()).ok(); // who made the edit may have ended
            }
            false => self.renaming = Some(edit),
        }
    }

    /// Carries out what waits for a flush, which has just been taken: from here on the endpoints have
    /// their new names.
    pub(super) fn rename(&mut self) -> Vec<EndpointRename> {
        let Some(mut edit) = self.renaming.take() else { return Vec::new() };
        let renames = std::mem::take(&mut edit.renamed);
        for rename in &renames {
            self.pending.renamed(&rename.from, &rename.to);
        }
        self.renamed = Some(self.take_up(edit));
        renames
    }

    fn take_up(&mut self, edit: EndpointsEdit) -> oneshot::Sender<()> {
        for (index, account) in edit.accounts {
            self.names.enter(index, Arc::clone(&account.name));
            lock(&self.live).enter(index, &account.name, &account.metrics);
            self.endpoints.insert(index, account);
        }
        if !edit.serving.rules.is_empty() {
            self.names.announce(edit.endpoints_version, edit.serving);
        }
        edit.known
    }

    /// Forgets the endpoints of which nothing comes any more.
    pub(super) fn retire(&mut self) {
        for index in self.retiring.drain(..) {
            self.endpoints.remove(&index);
            self.outages.remove(&index);
            self.endpoint_watermarks.retire(index);
            self.names.retire(index);
        }
    }

    pub(super) fn book(&mut self, report: LaneReport) {
        let now = self.clock.now();
        for attempt in report.attempts {
            self.attempted(&attempt);
            if attempt.exchange.failure.is_some() {
                self.outages.entry(attempt.endpoint).or_default().is_failing = true;
            } else if let Some(outage) = self.outages.get_mut(&attempt.endpoint) {
                outage.is_failing = false;
            }
            self.pending.attempted(&self.names, &self.push_log, attempt);
        }
        for settlement in report.settlements {
            if matches!(settlement.outcome, DeliveryOutcome::Delivered { .. }) {
                failpoint::reached("answered");
            }
            self.settled(&settlement, now);
            if self.write_backs.is_some() {
                self.pending.tally(&settlement);
            }
            self.pending.settled(&self.names, settlement, now);
        }
        for delivery in &report.relayed {
            self.watermark.settle(delivery.sequence);
            self.endpoint_watermarks.settle(delivery.endpoint, delivery.sequence);
            lock(&self.live).relayed(delivery);
        }
        if let Some(index) = report.retired {
            // Nothing more comes of it; one of the same name may come at any time.
            lock(&self.live).retire(index);
        }
        self.retiring.extend(report.retired);
    }

    fn attempted(&self, attempt: &DeliveryAttempt) {
        let Some(account) = self.endpoints.get(&attempt.endpoint) else { return };
        self.feed.note(&account.name, attempt);
        let failure = attempt.exchange.failure.as_ref();
        account.metrics.attempted(failure.map(|failure| failure.class), attempt.exchange.took);
        if attempt.lease.attempt == 1 && !attempt.lease.replay {
            for event in &attempt.lease.events {
                let waited = attempt.finished.since(event.committed);
                let waited = waited.saturating_sub(attempt.exchange.took);
                account.metrics.queue.observe(waited.as_secs_f64());
            }
        }
        if attempt.lease.attempt > 1 {
            account.metrics.retries.inc();
        }
        if let (Some(failure), Some(wait)) = (failure, attempt.retry_in) {
            tracing::debug!(
                endpoint = &*account.name,
                attempt = attempt.lease.attempt,
                events = attempt.lease.events.len(),
                failure = %failure,
                wait_ms = whole_millis(wait),
                "attempt failed, trying again"
            );
        }
    }

    fn settled(&mut self, settlement: &Settlement, now: Timestamp) {
        if settlement.durable_in == DurableIn::Wal {
            self.watermark.settle(settlement.event.sequence);
            self.endpoint_watermarks.settle(settlement.endpoint, settlement.event.sequence);
        }
        lock(&self.live).settled(settlement);
        let Some(account) = self.endpoints.get(&settlement.endpoint) else { return };
        let is_replay = matches!(settlement.durable_in, DurableIn::Replay(_));
        match &settlement.outcome {
            DeliveryOutcome::Delivered { took, .. } => {
                self.stats.succeeded(*took, now);
                self.pending.totals().succeeded(*took, now);
                if !is_replay {
                    let since_commit = now.since(settlement.event.committed);
                    account.metrics.commit_to_delivery.observe(since_commit.as_secs_f64());
                }
            }
            DeliveryOutcome::Dead { .. } => {
                self.stats.failed(now);
                self.pending.totals().failed(now);
            }
            // It was tried, or is held back since others were: the endpoint is why it is too old.
            DeliveryOutcome::Expired
                if settlement.attempts > 0
                    || account.metrics.breaker_open.get() != 0
                    || self.outages.get(&settlement.endpoint).is_some_and(|one| one.is_failing) =>
            {
                self.stats.failed(now);
                self.pending.totals().failed(now);
                let outage = self.outages.entry(settlement.endpoint).or_default();
                if let Some(events) = outage.expired(now) {
                    outcome_log::expired_in_outage(&account.name, &account.shown_url, events);
                }
            }
            DeliveryOutcome::Expired
            | DeliveryOutcome::Filtered
            | DeliveryOutcome::Parked { .. } => {}
        }
        outcome_log::settled(&account.name, &account.shown_url, settlement, self.outcomes);
    }
}
