//! What the pump counts: what becomes of changes before they reach a lane. The books of deliveries
//! are the ledger's.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::sync::Arc;

use crate::config::settings::EventRule;
use crate::flow::event::EventFacts;
use crate::flow::event::EventId;
use crate::flow::event::RuleIndex;
use crate::flow::relation::TableName;
use crate::flow::settlement::EndpointIndex;
use crate::telemetry::metrics::EventMetrics;
use crate::telemetry::metrics::WalhookMetrics;

/// Handles to the counters, resolved once.
pub(crate) struct TableCounters {
    rules: Vec<(Arc<str>, EventMetrics)>,
    metrics: WalhookMetrics,
    /// Those that there are.
    endpoints: HashMap<EndpointIndex, Arc<str>>,
}

impl TableCounters {
    pub(crate) fn new(metrics: &WalhookMetrics, rules: &[EventRule]) -> Self {
        let rule =
            |rule: &EventRule| (Arc::clone(&rule.event_type), metrics.event(&rule.event_type));
        let rules = rules.iter().map(rule).collect();
        Self { rules, metrics: metrics.clone(), endpoints: HashMap::new() }
    }

    /// From here on these are the endpoints, taking events or not.
    pub(crate) fn keep_for(&mut self, endpoints: Vec<(EndpointIndex, Arc<str>)>) {
        self.endpoints = endpoints.into_iter().collect();
    }

    /// Those of these names that there are.
    pub(crate) fn indexes(&self, names: &[Arc<str>]) -> BTreeSet<EndpointIndex> {
        let named = self.endpoints.iter().filter(|(_, name)| names.contains(name));
        named.map(|(index, _)| *index).collect()
    }

    pub(crate) fn endpoints(&self) -> usize {
        self.endpoints.len()
    }

    /// The rule's filter kept a change back from every endpoint.
    pub(crate) fn filtered(&self, rule: RuleIndex) {
        if let Some((_, event)) = self.rules.get(rule.0) {
            event.filtered.inc();
        }
    }

    /// Its values were pushed before: kept back from every endpoint.
    pub(crate) fn repeated(&self, rule: RuleIndex, id: EventId, facts: &EventFacts) {
        self.filtered(rule);
        let Some((event_type, metrics)) = self.rules.get(rule.0) else { return };
        metrics.repeated.inc();
        tracing::debug!(
            event = &**event_type,
            event_id = %id,
            id = facts.find("id"),
            "not pushed: its values were pushed before"
        );
    }

    /// So many values of a row were none of their type any more.
    pub(crate) fn sent_as_text(&self, table: &TableName, values: u64) {
        if values > 0 {
            self.metrics.values_as_text(table).inc_by(values);
        }
    }

    /// A change became an event.
    pub(crate) fn raised(&self, rule: RuleIndex) {
        if let Some((_, event)) = self.rules.get(rule.0) {
            event.raised.inc();
        }
    }

    /// It did, and was too old for `takers` when it was read.
    pub(crate) fn expired<'t>(
        &self,
        rule: RuleIndex,
        takers: impl Iterator<Item = &'t EndpointIndex>,
        id: EventId,
        facts: &EventFacts,
    ) {
        self.raised(rule);
        let event_type = self.rules.get(rule.0).map_or("", |(event_type, _)| event_type);
        for name in takers.filter_map(|taker| self.endpoints.get(taker)) {
            crate::ledger::outcome_log::expired(name, event_type, id, facts);
        }
    }
}
