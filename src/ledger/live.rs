//! The books at this moment, in the metrics: what the state held at the start, and what happened
//! since.
//!
//! ```text
//! state ─ Entry ─▶ [LiveBooks] ◀─ Opened, Settlement ─ pump, lanes
//!                       └─ gauges and counters ─▶ /metrics
//! ```
//!
//! `captured = delivered + filtered + expired + dead + pending` is true at every scrape: only the
//! ledger changes these numbers, a whole message at once, and it shares its thread with the HTTP
//! surface, which can look only in between. They run ahead of `walhook.balance` by what is not
//! flushed; what a kill takes back is captured again.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::flow::relation::TableName;
use crate::flow::settlement::EndpointIndex;
use crate::flow::settlement::Holding;
use crate::flow::settlement::Outcome;
use crate::flow::settlement::ReplayId;
use crate::flow::settlement::Settlement;
use crate::flow::watermark::Fate;
use crate::flow::watermark::Note;
use crate::flow::watermark::Opened;
use crate::ledger::names::Names;
use crate::store::books::Entry;
use crate::telemetry::metrics::BalanceMetrics;
use crate::telemetry::metrics::EndpointMetrics;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::metrics::TableMetrics;

/// See the module's header.
pub(crate) struct LiveBooks {
    metrics: Metrics,
    endpoints: BTreeMap<EndpointIndex, EndpointBooks>,
    /// What the state holds of endpoints that are not shown yet.
    hidden: Vec<Entry>,
    /// Endpoints for which the next `Raised` does not count.
    chosen: Vec<EndpointIndex>,
}

/// The books of one endpoint.
struct EndpointBooks {
    name: Arc<str>,
    metrics: EndpointMetrics,
    lines: BTreeMap<Arc<TableName>, Line>,
}

/// The books of one table and endpoint.
struct Line {
    balance: BalanceMetrics,
    table: TableMetrics,
}

impl Line {
    fn new(metrics: &Metrics, endpoint: &str, table: &TableName) -> Self {
        Self { balance: metrics.balance(endpoint, table), table: metrics.table(table) }
    }

    /// All endpoints capture the same, but those that came later less: the most is the table's.
    fn captured(&self, times: i64) {
        self.balance.captured.add(times);
        let most = u64::try_from(self.balance.captured.get()).unwrap_or(0);
        self.table.captured.inc_by(most.saturating_sub(self.table.captured.get()));
    }
}

impl LiveBooks {
    /// Goes on from `entries`, and shows those of the endpoints in `shown` at once. What is parked
    /// has to be in the gauges already.
    pub(crate) fn new(metrics: &Metrics, shown: &[Arc<str>], entries: Vec<Entry>) -> Self {
        let mut books = Self {
            metrics: metrics.clone(),
            endpoints: BTreeMap::new(),
            hidden: entries,
            chosen: Vec::new(),
        };
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
        endpoint: &EndpointMetrics,
    ) {
        self.show(name, endpoint);
        let (name, metrics) = (Arc::clone(name), endpoint.clone());
        self.endpoints.insert(index, EndpointBooks { name, metrics, lines: BTreeMap::new() });
    }

    pub(crate) fn retire(&mut self, index: EndpointIndex) {
        self.endpoints.remove(&index);
    }

    /// Shows what the state holds of an endpoint, if it is not shown yet.
    fn show(&mut self, name: &Arc<str>, endpoint: &EndpointMetrics) {
        let own = self.hidden.extract_if(.., |entry| entry.endpoint == *name);
        let own: Vec<Entry> = own.collect();
        if own.is_empty() {
            return;
        }
        let number = |count: i64| u64::try_from(count).unwrap_or(0);
        for Entry { table, count, .. } in own {
            endpoint.delivered.inc_by(number(count.delivered));
            endpoint.filtered.inc_by(number(count.filtered));
            endpoint.expired.inc_by(number(count.expired));
            endpoint.dead.inc_by(number(count.dead));
            endpoint.pending_memory.add(count.pending());
            let line = Line::new(&self.metrics, name, &table);
            line.balance.delivered.add(count.delivered);
            line.balance.filtered.add(count.filtered);
            line.balance.expired.add(count.expired);
            line.balance.dead.add(count.dead);
            line.balance.pending.add(count.pending());
            line.captured(count.captured);
        }
        endpoint.pending_memory.sub(endpoint.pending_backlog.get());
    }

    /// Takes in what the pump says of a change.
    pub(crate) fn opened(&mut self, names: &Names, opened: &Opened) {
        match opened {
            Opened::Event { table, takers, .. } => self.owed(table, takers),
            Opened::Poison { event, takers, .. } => self.owed(&event.table, takers),
            Opened::Note(note) => self.noted(names, *note),
            Opened::Through { .. } | Opened::Boundary { .. } | Opened::Seen(_) => {}
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

    fn noted(&mut self, names: &Names, note: Note) {
        let Some(serving) = names.serving(note.edition) else { return };
        let Some((table, takers)) = serving.rule(note.rule) else { return };
        if let Fate::Chosen(taker) = note.fate {
            self.chosen.push(taker);
            return;
        }
        let chosen = match note.fate {
            Fate::Raised => std::mem::take(&mut self.chosen),
            _ => Vec::new(),
        };
        if serving.endpoints.is_empty() && note.fate != Fate::Begun {
            self.metrics.table(table).captured.inc();
        }
        for &index in &serving.endpoints {
            let takes = takers.contains(&index);
            if !note.fate.concerns(index, takes) || chosen.contains(&index) {
                continue;
            }
            let is_expired = takes && note.fate == Fate::Expired;
            if let Some(books) = self.endpoints.get_mut(&index) {
                let endpoint = &books.metrics;
                if is_expired {
                    endpoint.expired.inc()
                } else {
                    endpoint.filtered.inc()
                }
                let line = books.line(&self.metrics, table);
                let balance = &line.balance;
                if is_expired {
                    balance.expired.inc()
                } else {
                    balance.filtered.inc()
                }
                line.captured(1);
            }
        }
    }

    /// Takes in what became of a delivery.
    pub(crate) fn settled(&mut self, settlement: &Settlement) {
        let Some(books) = self.endpoints.get_mut(&settlement.endpoint) else { return };
        let endpoint = &books.metrics;
        let parked = matches!(settlement.outcome, Outcome::Parked { .. });
        match settlement.holding {
            Holding::Wal => {
                endpoint.pending_memory.dec();
                endpoint.pending_backlog.add(i64::from(parked));
            }
            Holding::Backlog => endpoint.pending_backlog.sub(i64::from(!parked)),
            Holding::Replay(_) => endpoint.pending_memory.sub(i64::from(!parked)),
        }
        let is_letter = matches!(settlement.holding, Holding::Replay(ReplayId::Letter(_)));
        let is_replay = matches!(settlement.holding, Holding::Replay(_));
        match &settlement.outcome {
            Outcome::Delivered { .. } => {
                endpoint.delivered.inc();
                endpoint.dead_letters.sub(i64::from(is_letter));
            }
            Outcome::Dead { .. } => {
                endpoint.dead.inc();
                endpoint.dead_letters.add(i64::from(!is_replay));
            }
            Outcome::Expired => {
                endpoint.expired.inc();
                endpoint.dead_letters.sub(i64::from(is_letter));
            }
            Outcome::Filtered => endpoint.filtered.inc(),
            Outcome::Parked { .. } => return,
        }
        if matches!(settlement.holding, Holding::Replay(ReplayId::Logged(_))) {
            return; // the books have it already, and what fails stays as delivered as it was
        }
        let line = books.line(&self.metrics, &settlement.event.table);
        line.balance.pending.dec();
        match &settlement.outcome {
            Outcome::Delivered { .. } => line.balance.delivered.inc(),
            Outcome::Dead { .. } => line.balance.dead.inc(),
            Outcome::Expired => line.balance.expired.inc(),
            Outcome::Filtered => line.balance.filtered.inc(),
            Outcome::Parked { .. } => {}
        }
    }
}

impl EndpointBooks {
    fn line(&mut self, metrics: &Metrics, table: &Arc<TableName>) -> &Line {
        // Not `entry`, which takes a key of its own: it is asked twice for each delivery.
        if !self.lines.contains_key(table) {
            self.lines.insert(Arc::clone(table), Line::new(metrics, &self.name, table));
        }
        self.lines.get(table).expect("it was put in if it was not there")
    }
}
