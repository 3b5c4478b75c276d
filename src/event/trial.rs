//! What one change would come to, without anything being sent: for the administration, which tries a row.
//!
//! Goes the way of the stream, through a router of its own, so that what it says is what would happen;
//! but it remembers nothing, so that no row is a repeat of another.

use std::sync::Arc;

use crate::config::settings::Endpoint;
use crate::config::settings::EventRule;
use crate::event::plan::RoutedEvent;
use crate::event::plan::ShapedBody;
use crate::event::route::EventRouter;
use crate::flow::change::CommittedChange;
use crate::flow::event::Event;
use crate::flow::event::RuleIndex;
use crate::flow::settlement::EndpointIndex;
use crate::flow::time::Timestamp;

/// What a change comes to under one rule.
#[derive(Debug)]
pub(crate) struct TriedRule {
    pub rule: RuleIndex,
    /// `raised`, `filtered`, `expired`, `unrenderable` or `costly`.
    pub verdict: &'static str,
    /// Who gets it, and as what; by index of the endpoints that were given.
    pub takers: Vec<(EndpointIndex, Arc<Event>)>,
}

/// Tries a change on the rules of its table.
pub(crate) fn try_change(
    system: u64,
    rules: &[EventRule],
    endpoints: &[Endpoint],
    change: &CommittedChange,
    now: Timestamp,
) -> Vec<TriedRule> {
    let mut router = EventRouter::new(system, rules, endpoints);
    let mut routed = Vec::new();
    // What an expression lacks stands in the answer, and is no line of the log.
    let silent = tracing::subscriber::NoSubscriber::default();
    tracing::subscriber::with_default(silent, || {
        router.route(change, now, |rule, event| routed.push((rule, event)));
    });
    let tried = routed.into_iter().map(|(rule, event)| {
        let everybody = router.everybody(rule);
        tried(rule, event, &everybody)
    });
    tried.collect()
}

fn tried(rule: RuleIndex, event: RoutedEvent, everybody: &[EndpointIndex]) -> TriedRule {
    let nobody = |verdict| TriedRule { rule, verdict, takers: Vec::new() };
    match event {
        RoutedEvent::Event(event) => {
            let event: Arc<Event> = Arc::from(event);
            let takers = everybody.iter().map(|taker| (*taker, Arc::clone(&event))).collect();
            TriedRule { rule, verdict: "raised", takers }
        }
        RoutedEvent::Partly { event, endpoints, others, .. } => {
            let event: Arc<Event> = Arc::from(event);
            let mut takers: Vec<(EndpointIndex, Arc<Event>)> =
                endpoints.into_iter().map(|taker| (taker, Arc::clone(&event))).collect();
            for ShapedBody { body, endpoints } in others {
                let own = Arc::new(event.shaped(body, None));
                for (taker, event) in &mut takers {
                    if endpoints.contains(taker) {
                        *event = Arc::clone(&own);
                    }
                }
            }
            TriedRule { rule, verdict: "raised", takers }
        }
        RoutedEvent::Filtered => nobody("filtered"),
        // A router that has seen nothing knows no repeats.
        RoutedEvent::Repeat { .. } => nobody("filtered"),
        RoutedEvent::Expired { .. } => nobody("expired"),
        RoutedEvent::Poison(_) => nobody("unrenderable"),
        RoutedEvent::Costly(_) => nobody("costly"),
    }
}
