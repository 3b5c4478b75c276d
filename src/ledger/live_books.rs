//! The books at this moment, in the metrics: what the state held at the start, and what happened
//! since.
//!
//! ```text
//! state ─ BookEntry ─▶ [LiveBooks] ◀─ PumpReport, Settlement ─ pump, lanes
//!                       └─ gauges and counters ─▶ /metrics
//! ```
//!
//! `captured = delivered + filtered + expired + dead + pending` is true at every scrape: only the
//! ledger changes these numbers, a whole message at once, and it shares its thread with the HTTP
//! surface, which can look only in between. What was noted of changes for all endpoints alike is put
//! into their metrics when these are read. They run ahead of `walhook.balance` by what is not
//! flushed; what a kill takes back is captured again.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::Arc;

use crate::flow::pump_report::EndpointsVersion;
use crate::flow::pump_report::FilteredNote;
use crate::flow::pump_report::OpenedAs;
use crate::flow::pump_report::PumpReport;
use crate::flow::relation::TableName;
use crate::flow::settlement::DeliveryOutcome;
use crate::flow::settlement::DurableIn;
use crate::flow::settlement::EndpointIndex;
use crate::flow::settlement::RelayedDelivery;
use crate::flow::settlement::ReplayId;
use crate::flow::settlement::Settlement;
use crate::flow::watermark::EventTally;
use crate::ledger::endpoint_names::EndpointNames;
use crate::ledger::endpoint_names::ServingEndpoints;
use crate::ledger::postings::BookPosting;
use crate::ledger::postings::CommonBooks;
use crate::store::books::BookCount;
use crate::store::books::BookEntry;
use crate::telemetry::metrics::BalanceMetrics;
use crate::telemetry::metrics::EndpointMetrics;
use crate::telemetry::metrics::PlainCounter;
use crate::telemetry::metrics::PlainGauge;
use crate::telemetry::metrics::TableMetrics;
use crate::telemetry::metrics::WalhookMetrics;

/// Keeps `walhook_balance` and the other counts of deliveries current between flushes.
pub(crate) struct LiveBooks {
    metrics: WalhookMetrics,
    endpoints: BTreeMap<EndpointIndex, EndpointBooks>,
    /// What the state holds of endpoints that are not shown yet, or not any more.
    hidden: HashMap<Arc<str>, Vec<BookEntry>>,
    /// Dead letters of endpoints that are no more. Not all are in the table yet when one comes back.
    letters: HashMap<Arc<str>, i64>,
    /// Lines of endpoints that are shown and have no index yet.
    shown: HashMap<Arc<str>, BTreeMap<Arc<TableName>, LiveLine>>,
    /// Who is there, and who takes what.
    serving: Arc<ServingEndpoints>,
    /// Notes of this version that are not in the metrics yet.
    notes: EventTally,
    common: CommonBooks<EndpointIndex>,
}

/// The books of one endpoint.
struct EndpointBooks {
    name: Arc<str>,
    metrics: Arc<EndpointMetrics>,
    lines: BTreeMap<Arc<TableName>, LiveLine>,
    /// What notes have added and the counters do not show yet.
    filtered: i64,
    expired: i64,
}

/// The books of one table and endpoint.
struct LiveLine {
    balance: Arc<BalanceMetrics>,
    table: TableMetrics,
    /// What it shows of the common lines.
    common: BookCount,
    /// What was captured of the table itself. What is sent to an endpoint on an operator's word counts as
    /// captured for it as well.
    changes: i64,
}

impl LiveLine {
    fn new(metrics: &WalhookMetrics, endpoint: &str, table: &TableName) -> Self {
        Self {
            balance: metrics.balance(endpoint, table),
            table: metrics.table(table),
            common: BookCount::default(),
            changes: 0,
        }
    }

    /// Goes on with what another one shows.
    fn take_over(&mut self, before: &Self) {
        let BookCount { captured, delivered, filtered, expired, dead } = before.count();
        self.balance.captured.add(captured);
        self.balance.delivered.add(delivered);
        self.balance.filtered.add(filtered);
        self.balance.expired.add(expired);
        self.balance.dead.add(dead);
        self.balance.pending.add(before.count().pending());
        (self.common, self.changes) = (before.common, self.changes + before.changes);
    }

    fn add(&mut self, count: BookCount) {
        self.balance.delivered.add(count.delivered);
        self.balance.filtered.add(count.filtered);
        self.balance.expired.add(count.expired);
        self.balance.dead.add(count.dead);
        self.balance.pending.add(count.pending());
        self.captured(count.captured);
    }

    fn count(&self) -> BookCount {
        let balance = &self.balance;
        BookCount {
            captured: balance.captured.get(),
            delivered: balance.delivered.get(),
            filtered: balance.filtered.get(),
            expired: balance.expired.get(),
            dead: balance.dead.get(),
        }
    }

    /// All endpoints capture the same, but those that came later less: the most is the table's.
    fn captured(&mut self, times: i64) {
        self.balance.captured.add(times);
        self.changes += times;
        let most = u64::try_from(self.changes).unwrap_or(0);
        self.table.captured.inc_by(most.saturating_sub(self.table.captured.get()));
    }
}

impl LiveBooks {
    /// Goes on from `entries`, and shows those of the endpoints in `shown` at once. What is parked
    /// has to be in the gauges already.
    pub(crate) fn new(
        metrics: &WalhookMetrics,
        shown: &[Arc<str>],
        entries: Vec<BookEntry>,
    ) -> Self {
        let mut books = Self {
            metrics: metrics.clone(),
            endpoints: BTreeMap::new(),
            hidden: HashMap::new(),
            letters: HashMap::new(),
            shown: HashMap::new(),
            serving: Arc::default(),
            notes: EventTally::new(),
            common: CommonBooks::default(),
        };
        for entry in entries {
            books.hidden.entry(Arc::clone(&entry.endpoint)).or_default().push(entry);
        }
        for name in shown {
            books.show(name, &metrics.endpoint(name));
        }
        books
    }

    /// An endpoint has an index from here on.
    pub(crate) fn enter(
        &mut self,
        index: EndpointIndex,
        name: &Arc<str>,
        endpoint: &Arc<EndpointMetrics>,
    ) {
        self.show(name, endpoint);
        if let Some(known) = self.endpoints.get_mut(&index) {
            if known.name == *name {
                known.metrics = Arc::clone(endpoint); // it is shown in another way
            } else {
                self.rename(index, name, endpoint);
            }
            return;
        }
        if let Some(letters) = self.letters.remove(name) {
            endpoint.dead_letters.set(letters);
        }
        let books = EndpointBooks {
            name: Arc::clone(name),
            metrics: Arc::clone(endpoint),
            lines: self.shown.remove(name).unwrap_or_default(),
            filtered: 0,
            expired: 0,
        };
        self.endpoints.insert(index, books);
    }

    /// An endpoint is no more. One of the same name that comes later goes on with its books.
    pub(crate) fn retire(&mut self, index: EndpointIndex) {
        self.refresh();
        let Some(books) = self.endpoints.remove(&index) else { return };
        let EndpointBooks { name, lines, metrics, .. } = books;
        self.letters.insert(Arc::clone(&name), metrics.dead_letters.get());
        let kept = self.hidden.entry(Arc::clone(&name)).or_default();
        kept.extend(lines.into_iter().map(|(table, line)| {
            let count = line.count();
            BookEntry { endpoint: Arc::clone(&name), table, count }
        }));
    }

    /// What is shown under the old name is shown under the new one, with what was kept under that.
    fn rename(&mut self, index: EndpointIndex, name: &Arc<str>, endpoint: &Arc<EndpointMetrics>) {
        self.refresh();
        let Some(books) = self.endpoints.remove(&index) else { return };
        let EndpointBooks { name: before, metrics, lines, filtered, expired } = books;
        self.letters.remove(name);
        endpoint.go_on_from(&metrics);
        let mut own = self.shown.remove(name).unwrap_or_default();
        for (table, line) in lines {
            let new = || LiveLine::new(&self.metrics, name, &table);
            own.entry(Arc::clone(&table)).or_insert_with(new).take_over(&line);
        }
        let (name, metrics) = (Arc::clone(name), Arc::clone(endpoint));
        let books = EndpointBooks { name, metrics, lines: own, filtered, expired };
        self.metrics.rename_endpoint(&before, &books.name);
        self.endpoints.insert(index, books);
    }

    /// Shows what the state holds of an endpoint, if it is not shown yet.
    fn show(&mut self, name: &Arc<str>, endpoint: &EndpointMetrics) {
        let Some(own) = self.hidden.remove(name) else { return };
        let number = |count: i64| u64::try_from(count).unwrap_or(0);
        for BookEntry { table, count, .. } in own {
            endpoint.delivered.inc_by(number(count.delivered));
            endpoint.filtered.inc_by(number(count.filtered));
            endpoint.expired.inc_by(number(count.expired));
            endpoint.dead.inc_by(number(count.dead));
            endpoint.pending_memory.add(count.pending());
            let mut line = LiveLine::new(&self.metrics, name, &table);
            line.add(count);
            self.shown.entry(Arc::clone(name)).or_default().insert(table, line);
        }
        endpoint.pending_memory.sub(endpoint.pending_backlog.get());
    }

    /// Takes in what the pump says of a change.
    pub(crate) fn opened(&mut self, names: &EndpointNames, opened: &PumpReport) {
        match opened {
            PumpReport::Event { table, takers, .. } => self.owed(table, takers),
            PumpReport::Poison { event, takers, .. } => self.owed(&event.table, takers),
            PumpReport::Note(note) => self.noted(names, *note),
            PumpReport::Through { .. }
            | PumpReport::Boundary { .. }
            | PumpReport::Seen(_)
            | PumpReport::Untaken(_)
            | PumpReport::Backfilled(_)
            | PumpReport::Moved(_) => {}
        }
    }

    fn owed(&mut self, table: &Arc<TableName>, takers: &[EndpointIndex]) {
        for &index in takers {
            if let Some(books) = self.endpoints.get_mut(&index) {
                books.metrics.pending_memory.inc();
                let line = books.line(&self.metrics, table);
                line.balance.pending.inc();
                line.captured(1);
            }
        }
    }

    fn noted(&mut self, names: &EndpointNames, note: FilteredNote) {
        if note.opened_as == OpenedAs::Begun {
            self.begin(names, note.endpoints_version);
            return;
        }
        if self.serving.endpoints.is_empty()
            && let OpenedAs::Filtered | OpenedAs::Expired | OpenedAs::Raised = note.opened_as
            && let Some((table, _)) = self.serving.rule(note.rule)
        {
            self.metrics.table(table).captured.inc();
        }
        *self.notes.entry(note).or_default() += 1;
    }

    /// Another version of the endpoints begins: what was noted before it is of the one before.
    fn begin(&mut self, names: &EndpointNames, endpoints_version: EndpointsVersion) {
        self.refresh();
        self.serving = names.serving(endpoints_version).map(Arc::clone).unwrap_or_default();
        let present = self.serving.endpoints.iter().copied().collect();
        let mut common = std::mem::take(&mut self.common);
        common.begin(present, |posting| self.post(posting));
        self.common = common;
        self.show_common();
    }

    /// Brings the metrics up to date with what was noted: to be done before they are read, so that it
    /// costs nothing while nobody reads them.
    pub(crate) fn refresh(&mut self) {
        if self.notes.is_empty() {
            return;
        }
        let notes = std::mem::take(&mut self.notes);
        let serving = Arc::clone(&self.serving);
        let mut common = std::mem::take(&mut self.common);
        common.post(&serving, notes.into_iter(), Some, |posting| self.post(posting));
        self.common = common;
        self.show_common();
    }

    fn post(&mut self, posting: BookPosting<EndpointIndex>) {
        match posting {
            BookPosting::All(..) | BookPosting::Joined(_) => {} // see `show_common`
            BookPosting::One(index, table, count) => {
                if let Some(books) = self.endpoints.get_mut(&index) {
                    books.add(&self.metrics, &table, count);
                }
            }
            BookPosting::Left(index) => {
                if let Some(books) = self.endpoints.get_mut(&index) {
                    books.forget_common();
                }
            }
        }
    }

    /// Shows the common lines with those of each endpoint for which they count.
    fn show_common(&mut self) {
        for index in &self.common.members {
            let Some(books) = self.endpoints.get_mut(index) else { continue };
            for (table, count) in &self.common.counts {
                books.show_common(&self.metrics, table, *count);
            }
        }
        self.endpoints.values_mut().for_each(EndpointBooks::show_outcomes);
    }

    /// Another member has captured and settled it: it stands in the books of that one.
    pub(crate) fn relayed(&mut self, delivery: &RelayedDelivery) {
        let Some(books) = self.endpoints.get_mut(&delivery.endpoint) else { return };
        books.metrics.pending_memory.dec();
        let line = books.line(&self.metrics, &delivery.table);
        line.balance.pending.dec();
        line.balance.captured.dec();
    }

    /// Takes in what became of a delivery.
    pub(crate) fn settled(&mut self, settlement: &Settlement) {
        let Some(books) = self.endpoints.get_mut(&settlement.endpoint) else { return };
        let endpoint = &books.metrics;
        let parked = matches!(settlement.outcome, DeliveryOutcome::Parked { .. });
        match settlement.durable_in {
            DurableIn::Wal => {
                endpoint.pending_memory.dec();
                endpoint.pending_backlog.add(i64::from(parked));
            }
            DurableIn::Backlog => endpoint.pending_backlog.sub(i64::from(!parked)),
            DurableIn::Replay(_) => endpoint.pending_memory.sub(i64::from(!parked)),
        }
        let is_letter = matches!(settlement.durable_in, DurableIn::Replay(ReplayId::Letter(_)));
        let is_replay = matches!(settlement.durable_in, DurableIn::Replay(_));
        match &settlement.outcome {
            DeliveryOutcome::Delivered { .. } => {
                endpoint.delivered.inc();
                one_less(&endpoint.dead_letters, is_letter);
            }
            DeliveryOutcome::Dead { .. } => {
                endpoint.dead.inc();
                endpoint.dead_letters.add(i64::from(!is_replay));
            }
            DeliveryOutcome::Expired => {
                endpoint.expired.inc();
                one_less(&endpoint.dead_letters, is_letter);
            }
            DeliveryOutcome::Filtered => endpoint.filtered.inc(),
            DeliveryOutcome::Parked { .. } => return,
        }
        if matches!(settlement.durable_in, DurableIn::Replay(ReplayId::Logged(_))) {
            return; // the books have it already, and what fails stays as delivered as it was
        }
        let line = books.line(&self.metrics, &settlement.event.table);
        line.balance.pending.dec();
        match &settlement.outcome {
            DeliveryOutcome::Delivered { .. } => line.balance.delivered.inc(),
            DeliveryOutcome::Dead { .. } => line.balance.dead.inc(),
            DeliveryOutcome::Expired => line.balance.expired.inc(),
            DeliveryOutcome::Filtered => line.balance.filtered.inc(),
            DeliveryOutcome::Parked { .. } => {}
        }
    }
}

impl EndpointBooks {
    fn line(&mut self, metrics: &WalhookMetrics, table: &Arc<TableName>) -> &mut LiveLine {
        // Not `entry`, which takes a key of its own: it is asked twice for each delivery.
        if !self.lines.contains_key(table) {
            self.lines.insert(Arc::clone(table), LiveLine::new(metrics, &self.name, table));
        }
        self.lines.get_mut(table).expect("it was put in if it was not there")
    }

    /// Adds what notes came to. Counters only go up, and are shown when all of it is added.
    fn add(&mut self, metrics: &WalhookMetrics, table: &Arc<TableName>, count: BookCount) {
        self.filtered += count.filtered;
        self.expired += count.expired;
        self.line(metrics, table).add(count);
    }

    /// The common line of a table, with what is shown of it already.
    fn show_common(&mut self, metrics: &WalhookMetrics, table: &Arc<TableName>, common: BookCount) {
        let line = self.line(metrics, table);
        let mut more = common;
        more += -line.common;
        if more != BookCount::default() {
            line.common = common;
            self.add(metrics, table, more);
        }
    }

    /// The common lines are not this endpoint's any more.
    fn forget_common(&mut self) {
        for line in self.lines.values_mut() {
            let common = std::mem::take(&mut line.common);
            self.filtered -= common.filtered;
            line.add(-common);
        }
    }

    fn show_outcomes(&mut self) {
        let more = |counter: &PlainCounter, sum: &mut i64| {
            if let Ok(more @ 1..) = u64::try_from(*sum) {
                counter.inc_by(more);
                *sum = 0;
            }
        };
        more(&self.metrics.filtered, &mut self.filtered);
        more(&self.metrics.expired, &mut self.expired);
    }
}

/// A letter is no more. One that was deleted in SQL meanwhile is not counted already.
fn one_less(letters: &PlainGauge, is_letter: bool) {
    if is_letter && letters.get() > 0 {
        letters.dec();
    }
}
