//! What the pump counts: everything that is captured and never reaches a lane.

use std::sync::Arc;

use crate::config::settings::EventRule;
use crate::flow::event::EventId;
use crate::flow::event::Facts;
use crate::flow::event::RuleIndex;
use crate::flow::settlement::EndpointIndex;
use crate::telemetry::metrics::EndpointMetrics;
use crate::telemetry::metrics::EventMetrics;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::metrics::TableMetrics;

/// Handles to the counters, resolved once.
pub(crate) struct Books {
    rules: Vec<RuleBooks>,
    /// Those that there are.
    endpoints: Vec<(EndpointIndex, Arc<str>, EndpointMetrics)>,
}

struct RuleBooks {
    event_type: Arc<str>,
    table: TableMetrics,
    event: EventMetrics,
}

impl Books {
    pub(crate) fn new(metrics: &Metrics, rules: &[EventRule]) -> Self {
        let rule = |rule: &EventRule| RuleBooks {
            event_type: Arc::clone(&rule.event_type),
            table: metrics.table(&rule.table),
            event: metrics.event(&rule.event_type),
        };
        Self { rules: rules.iter().map(rule).collect(), endpoints: Vec::new() }
    }

    /// From here on these are the endpoints, taking events or not.
    pub(crate) fn keep_for(&mut self, endpoints: Vec<(EndpointIndex, Arc<str>, EndpointMetrics)>) {
        self.endpoints = endpoints;
    }

    pub(crate) fn endpoints(&self) -> usize {
        self.endpoints.len()
    }

    /// A change fell under a rule.
    pub(crate) fn captured(&self, rule: RuleIndex) {
        if let Some(rule) = self.rules.get(rule.0) {
            rule.table.captured.inc();
        }
    }

    /// The rule's filter kept it back from every endpoint.
    pub(crate) fn filtered(&self, rule: RuleIndex) {
        if let Some(rule) = self.rules.get(rule.0) {
            rule.event.filtered.inc();
        }
        for (_, _, endpoint) in &self.endpoints {
            endpoint.filtered.inc();
        }
    }

    /// It became an event for `takers`, to whom it is owed from here on; the ledger takes it off
    /// again. The other endpoints do not want it.
    pub(crate) fn raised(&self, rule: RuleIndex, takers: &[EndpointIndex]) {
        self.shared_out(rule, takers, |endpoint| endpoint.pending_memory.inc());
    }

    /// It was too old when it was read; see [`Self::raised`] for the endpoints that do not want it.
    pub(crate) fn expired(
        &self,
        rule: RuleIndex,
        takers: &[EndpointIndex],
        id: EventId,
        facts: &Facts,
    ) {
        self.shared_out(rule, takers, |endpoint| endpoint.expired.inc());
        let event_type = self.rules.get(rule.0).map_or("", |rule| &rule.event_type);
        let taking = self.endpoints.iter().filter(|(index, ..)| takers.contains(index));
        for (_, name, _) in taking {
            crate::ledger::outcome_log::expired(name, event_type, id, facts);
        }
    }

    fn shared_out(
        &self,
        rule: RuleIndex,
        takers: &[EndpointIndex],
        taken: impl Fn(&EndpointMetrics),
    ) {
        if let Some(rule) = self.rules.get(rule.0) {
            rule.event.raised.inc();
        }
        for (index, _, endpoint) in &self.endpoints {
            if takers.contains(index) {
                taken(endpoint);
            } else {
                endpoint.filtered.inc();
            }
        }
    }
}
