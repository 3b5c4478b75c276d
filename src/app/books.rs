//! What the pump counts: what becomes of changes before they reach a lane. The books of deliveries
//! are the ledger's.

use std::sync::Arc;

use crate::config::settings::Endpoint;
use crate::config::settings::EventRule;
use crate::flow::event::EventId;
use crate::flow::event::Facts;
use crate::flow::event::RuleIndex;
use crate::flow::settlement::EndpointIndex;
use crate::telemetry::metrics::EventMetrics;
use crate::telemetry::metrics::Metrics;

/// Handles to the counters, resolved once.
pub(crate) struct Books {
    rules: Vec<(Arc<str>, EventMetrics)>,
    endpoints: Vec<Arc<str>>,
}

impl Books {
    pub(crate) fn new(metrics: &Metrics, rules: &[EventRule], endpoints: &[Endpoint]) -> Self {
        let rule =
            |rule: &EventRule| (Arc::clone(&rule.event_type), metrics.event(&rule.event_type));
        Self {
            rules: rules.iter().map(rule).collect(),
            endpoints: endpoints.iter().map(|endpoint| Arc::clone(&endpoint.name)).collect(),
        }
    }

    /// The rule's filter kept a change back from every endpoint.
    pub(crate) fn filtered(&self, rule: RuleIndex) {
        if let Some((_, event)) = self.rules.get(rule.0) {
            event.filtered.inc();
        }
    }

    /// A change became an event.
    pub(crate) fn raised(&self, rule: RuleIndex) {
        if let Some((_, event)) = self.rules.get(rule.0) {
            event.raised.inc();
        }
    }

    /// It did, and was too old for `takers` when it was read.
    pub(crate) fn expired(
        &self,
        rule: RuleIndex,
        takers: &[EndpointIndex],
        id: EventId,
        facts: &Facts,
    ) {
        self.raised(rule);
        let event_type = self.rules.get(rule.0).map_or("", |(event_type, _)| event_type);
        for name in takers.iter().filter_map(|taker| self.endpoints.get(taker.0)) {
            crate::ledger::outcome_log::expired(name, event_type, id, facts);
        }
    }
}
