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

use std::collections::HashMap;
use std::sync::Arc;

use crate::flow::event::RuleIndex;
use crate::flow::relation::TableName;
use crate::flow::settlement::EndpointIndex;
use crate::flow::settlement::Holding;
use crate::flow::settlement::Outcome;
use crate::flow::settlement::Settlement;
use crate::flow::watermark::Fate;
use crate::flow::watermark::Opened;
use crate::ledger::pending::Names;
use crate::store::books::Entry;
use crate::telemetry::metrics::BalanceMetrics;
use crate::telemetry::metrics::EndpointMetrics;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::metrics::TableMetrics;

/// See the module's header.
pub(crate) struct LiveBooks {
    metrics: Metrics,
    /// By endpoint index.
    endpoints: Vec<(Arc<str>, EndpointMetrics)>,
    lines: HashMap<(EndpointIndex, Arc<TableName>), Line>,
}

/// The books of one table and endpoint.
struct Line {
    balance: BalanceMetrics,
    table: TableMetrics,
}

impl Line {
    /// All endpoints capture the same, but those that came later less: the most is the table's.
    fn captured(&self, times: i64) {
        self.balance.captured.add(times);
        let most = u64::try_from(self.balance.captured.get()).unwrap_or(0);
        self.table.captured.inc_by(most.saturating_sub(self.table.captured.get()));
    }
}

impl LiveBooks {
    /// Goes on from `entries`. What is parked has to be in the gauges already.
    pub(crate) fn new(metrics: &Metrics, names: &[Arc<str>], entries: &[Entry]) -> Self {
        let endpoint = |name: &Arc<str>| (Arc::clone(name), metrics.endpoint(name));
        let endpoints = names.iter().map(endpoint).collect();
        let mut books = Self { metrics: metrics.clone(), endpoints, lines: HashMap::new() };
        for Entry { endpoint, table, count } in entries {
            let Some(index) = names.iter().position(|name| name == endpoint) else { continue };
            let Some((_, shown)) = books.endpoints.get(index) else { continue };
            let number = |count: i64| u64::try_from(count).unwrap_or(0);
            shown.delivered.inc_by(number(count.delivered));
            shown.filtered.inc_by(number(count.filtered));
            shown.expired.inc_by(number(count.expired));
            shown.dead.inc_by(number(count.dead));
            shown.pending_memory.add(count.pending());
            let Some(line) = books.line(EndpointIndex(index), table) else { continue };
            line.balance.delivered.add(count.delivered);
            line.balance.filtered.add(count.filtered);
            line.balance.expired.add(count.expired);
            line.balance.dead.add(count.dead);
            line.balance.pending.add(count.pending());
            line.captured(count.captured);
        }
        for (_, shown) in &books.endpoints {
            shown.pending_memory.sub(shown.pending_backlog.get());
        }
        books
    }

    /// Takes in what the pump says of a change.
    pub(crate) fn opened(&mut self, names: &Names, opened: &Opened) {
        match opened {
            Opened::Event { rule, takers, .. } | Opened::Poison { rule, takers, .. } => {
                let Some((table, _)) = names.rules.get(rule.0) else { return };
                for &index in takers.iter() {
                    if let Some((_, endpoint)) = self.endpoints.get(index.0) {
                        endpoint.pending_memory.inc();
                    }
                    if let Some(line) = self.line(index, table) {
                        line.balance.pending.inc();
                        line.captured(1);
                    }
                }
            }
            Opened::Note(note) => self.noted(names, note.rule, note.fate),
            Opened::Through { .. } | Opened::Boundary { .. } => {}
        }
    }

    fn noted(&mut self, names: &Names, rule: RuleIndex, fate: Fate) {
        let Some((table, takers)) = names.rules.get(rule.0) else { return };
        if self.endpoints.is_empty() {
            self.metrics.table(table).captured.inc();
        }
        for index in (0..self.endpoints.len()).map(EndpointIndex) {
            let takes = takers.contains(&index);
            if !fate.concerns(index, takes) {
                continue;
            }
            let is_expired = takes && fate == Fate::Expired;
            if let Some((_, endpoint)) = self.endpoints.get(index.0) {
                if is_expired { endpoint.expired.inc() } else { endpoint.filtered.inc() }
            }
            if let Some(line) = self.line(index, table) {
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
        let Some((_, endpoint)) = self.endpoints.get(settlement.endpoint.0) else { return };
        let parked = matches!(settlement.outcome, Outcome::Parked { .. });
        match settlement.holding {
            Holding::Wal => {
                endpoint.pending_memory.dec();
                endpoint.pending_backlog.add(i64::from(parked));
            }
            Holding::Backlog => endpoint.pending_backlog.sub(i64::from(!parked)),
            Holding::DeadLetter(_) => endpoint.pending_memory.sub(i64::from(!parked)),
        }
        match &settlement.outcome {
            Outcome::Delivered { .. } => endpoint.delivered.inc(),
            Outcome::Dead { .. } => {
                endpoint.dead.inc();
                let again = matches!(settlement.holding, Holding::DeadLetter(_));
                endpoint.dead_letters.add(i64::from(!again));
            }
            Outcome::Expired => endpoint.expired.inc(),
            Outcome::Filtered => endpoint.filtered.inc(),
            Outcome::Parked { .. } => return,
        }
        let Some(line) = self.line(settlement.endpoint, &settlement.event.table) else { return };
        line.balance.pending.dec();
        match &settlement.outcome {
            Outcome::Delivered { .. } => line.balance.delivered.inc(),
            Outcome::Dead { .. } => line.balance.dead.inc(),
            Outcome::Expired => line.balance.expired.inc(),
            Outcome::Filtered => line.balance.filtered.inc(),
            Outcome::Parked { .. } => {}
        }
    }

    fn line(&mut self, index: EndpointIndex, table: &Arc<TableName>) -> Option<&Line> {
        let (name, _) = self.endpoints.get(index.0)?;
        let line = self.lines.entry((index, Arc::clone(table)));
        Some(line.or_insert_with(|| Line {
            balance: self.metrics.balance(name, table),
            table: self.metrics.table(table),
        }))
    }
}
