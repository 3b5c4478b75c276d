//! Which changes become which events, and who gets them.
//!
//! ```text
//! Change ─▶ [EventRouter] ─▶ each rule's Plan for the relation ─▶ Routed
//! ```
//!
//! It alone remembers something between two changes: what is compiled, who takes what, which
//! values were pushed, and which faults were named.

use std::collections::HashMap;
use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::Arc;

use crate::config::settings::Endpoint;
use crate::config::settings::EventRule;
use crate::event::dedupe::DedupeWindow;
use crate::event::dedupe::VALUES_MAX;
use crate::event::expression_fault::EvaluationFault;
use crate::event::expression_fault::RenderFaults;
use crate::event::misfit_value::UnfitValues;
use crate::event::payload::EndpointShape;
use crate::event::plan::CompiledRule;
use crate::event::plan::RoutedEvent;
use crate::event::plan::RulePlan;
use crate::event::plan::TablePlan;
use crate::event::plan::compile;
use crate::event::subscribers::EventSubscribers;
use crate::event::table_shape;
use crate::event::writer::JsonWriter;
use crate::failpoint;
use crate::flow::change::ChangeOp;
use crate::flow::change::CommittedChange;
use crate::flow::event::IdOrigin;
use crate::flow::event::RuleIndex;
use crate::flow::lsn::Position;
use crate::flow::seen::SeenValues;
use crate::flow::seen::ValueFingerprint;
use crate::flow::settlement::EndpointIndex;
use crate::flow::time::Timestamp;

/// The rules, compiled for each relation as it comes by.
#[derive(Debug)]
pub struct EventRouter {
    rules: Vec<RulePlan>,
    /// By relation oid; compiled again when the relation has changed.
    compiled: HashMap<u32, CompiledRule>,
    writer: JsonWriter,
    faults: FaultReporter,
    unfit: UnfitValues,
    /// By rule index; only for rules with `dedupe`.
    windows: Vec<Option<DedupeWindow>>,
    /// The shape that the rule's table had last, for rules that tell of it.
    shapes: HashMap<RuleIndex, ValueFingerprint>,
    /// Noted in the windows or of shapes, and not taken yet.
    seen: Vec<SeenValues>,
}

/// Names each way in which an expression fails once, however many rows it fails on.
#[derive(Debug, Default)]
struct FaultReporter {
    /// Of the change at hand.
    faults: RenderFaults,
    /// As many as there are expressions in the configuration times kinds of faults, at most.
    named: HashSet<(RuleIndex, Arc<str>, EvaluationFault)>,
}

impl FaultReporter {
    fn report(&mut self, index: RuleIndex, rule: &RulePlan) {
        for (expression, fault) in self.faults.drain(..) {
            if self.named.insert((index, Arc::clone(&expression), fault)) {
                tracing::warn!(
                    event = %rule.settings.event_type,
                    table = %rule.table,
                    %expression,
                    error = fault.as_str(),
                    "expression has no value on a row; a filter counts as false, a place of a \
                     payload as null, and what needs it for a URL or a header becomes a dead letter; \
                     further rows are not named"
                );
            }
        }
    }
}

impl EventRouter {
    /// `system` is the database system identifier; it goes into the event ids.
    pub fn new(system: u64, rules: &[EventRule], endpoints: &[Endpoint]) -> Self {
        let rule = |settings: &EventRule| RulePlan {
            origin: IdOrigin::new(system, &settings.event_type),
            table: Arc::new(settings.table.clone()),
            subscribers: EventSubscribers::default(),
            others: Vec::new(),
            shape_of: HashMap::new(),
            settings: settings.clone(),
        };
        let mut router = Self {
            rules: rules.iter().map(rule).collect(),
            compiled: HashMap::new(),
            writer: JsonWriter::default(),
            faults: FaultReporter::default(),
            unfit: UnfitValues::default(),
            windows: rules.iter().map(window).collect(),
            shapes: HashMap::new(),
            seen: Vec::new(),
        };
        let indexes = (0..endpoints.len()).map(EndpointIndex);
        router.serve(indexes.zip(endpoints));
        router
    }

    /// From the next change on, events are for these endpoints, as far as they take them.
    pub fn serve<'e>(
        &mut self,
        endpoints: impl Iterator<Item = (EndpointIndex, &'e Endpoint)> + Clone,
    ) {
        for rule in &mut self.rules {
            let takers = endpoints.clone().filter(|(_, endpoint)| endpoint.takes(&rule.settings));
            rule.subscribers = EventSubscribers::new(takers.clone());
            (rule.others, rule.shape_of) = others(&rule.settings, takers);
        }
        // What is compiled for a relation has the shapes in this order, and knows who chooses.
        self.compiled.clear();
    }

    /// From the next change on, events have these filters, ages and payloads. All else is as it
    /// was: the rules are the same in number, order, types and tables.
    pub fn rewrite(&mut self, rules: &[EventRule]) {
        for (rule, settings) in self.rules.iter_mut().zip(rules) {
            rule.settings = settings.clone();
        }
        self.compiled.clear();
    }

    /// The endpoints that get every event of a rule.
    pub fn everybody(&self, rule: RuleIndex) -> Arc<[EndpointIndex]> {
        let everybody = |rule: &RulePlan| Arc::clone(&rule.subscribers.everybody);
        self.rules.get(rule.0).map_or_else(Arc::default, everybody)
    }

    /// The endpoints that are told of an event that cannot be rendered: those that may have got it.
    /// They begin with those that get every event.
    pub fn of_unknown(&self, rule: RuleIndex) -> Arc<[EndpointIndex]> {
        self.rules.get(rule.0).map_or_else(Arc::default, |rule| rule.subscribers.of_unknown())
    }

    /// Remembers values of an earlier run, the oldest first.
    pub fn remember(
        &mut self,
        rule: RuleIndex,
        fingerprint: ValueFingerprint,
        position: Position,
        committed: Timestamp,
    ) {
        if let Some(Some(window)) = self.windows.get_mut(rule.0) {
            window.note(fingerprint, position, committed);
        } else {
            self.shapes.insert(rule, fingerprint);
        }
    }

    /// What was noted since the last call, to be written down.
    pub fn take_seen(&mut self) -> impl Iterator<Item = SeenValues> + '_ {
        self.seen.drain(..)
    }

    /// Calls `each` for every rule that the change falls under, in the order of the settings.
    /// `now` is on the database's clock.
    pub fn route(
        &mut self,
        change: &CommittedChange,
        now: Timestamp,
        mut each: impl FnMut(RuleIndex, RoutedEvent),
    ) {
        let relation = &change.relation;
        let known = self.compiled.get(&relation.oid);
        if !known.is_some_and(|known| Arc::ptr_eq(&known.relation, relation)) {
            let compiled = compile(&self.rules, relation);
            self.compiled.insert(relation.oid, compiled);
        }
        let Some(compiled) = self.compiled.get(&relation.oid) else { return };
        for plan in &compiled.plans {
            let Some(rule) = self.rules.get(plan.rule.0) else { continue };
            if let Some(shape) = plan.table_shape
                && !matches!(change.op, ChangeOp::Read { .. })
                && self.shapes.insert(plan.rule, shape) != Some(shape)
            {
                let (position, committed) = (change.position, change.committed);
                self.seen.push(SeenValues {
                    rule: plan.rule,
                    fingerprint: shape,
                    position,
                    committed,
                    oldest: committed,
                });
                let told = table_shape::change(change);
                let tools = (&mut self.writer, &mut self.faults.faults);
                let routed = applied(plan, rule, (&told, now), tools, None);
                each(plan.rule, routed);
                self.faults.report(plan.rule, rule);
            }
            if concerns(&rule.settings, &change.op) {
                let window = self.windows.get_mut(plan.rule.0).and_then(Option::as_mut);
                let sightings = window.map(|window| (window, &mut self.seen));
                let tools = (&mut self.writer, &mut self.faults.faults);
                let routed = applied(plan, rule, (change, now), tools, sightings);
                self.faults.report(plan.rule, rule);
                each(plan.rule, routed);
            }
        }
    }

    /// How many values of a change that was routed are sent as their text, since their row type was altered
    /// after they had been written. The first of each column is named in the log.
    pub fn unfit(&mut self, change: &CommittedChange) -> u64 {
        let Some(compiled) = self.compiled.get(&change.relation.oid) else { return 0 };
        if compiled.composites.is_empty() || compiled.plans.is_empty() {
            return 0;
        }
        self.unfit.count(change, &compiled.composites)
    }

    /// As [`EventRouter::route`], for a change that must not be rendered: all of its rules' events are
    /// poison. `keeps_row`: with the row in the standard shape.
    pub fn set_aside(
        &self,
        change: &CommittedChange,
        keeps_row: bool,
        mut each: impl FnMut(RuleIndex, RoutedEvent),
    ) {
        let compiled = compile(&self.rules, &change.relation);
        for plan in &compiled.plans {
            let Some(rule) = self.rules.get(plan.rule.0) else { continue };
            if concerns(&rule.settings, &change.op) {
                each(plan.rule, RoutedEvent::Poison(plan.set_aside(rule, change, keeps_row)));
            }
        }
    }
}

/// What the change comes to under the plan; poison where that panics.
fn applied(
    plan: &TablePlan,
    rule: &RulePlan,
    (change, now): (&CommittedChange, Timestamp),
    (writer, faults): (&mut JsonWriter, &mut RenderFaults),
    sightings: Option<(&mut DedupeWindow, &mut Vec<SeenValues>)>,
) -> RoutedEvent {
    let applied = catch_unwind(AssertUnwindSafe(|| {
        failpoint::reached_over("rendering", || plan.about(change));
        plan.apply(rule, change, now, writer, faults, sightings)
    }));
    applied.unwrap_or_else(|_panic| {
        // Both may hold half of something.
        (*writer, *faults) = (JsonWriter::default(), RenderFaults::default());
        RoutedEvent::Poison(plan.set_aside(rule, change, true))
    })
}

fn window(rule: &EventRule) -> Option<DedupeWindow> {
    rule.dedupe.as_ref().map(|dedupe| DedupeWindow::new(dedupe.window, VALUES_MAX))
}

/// The shapes of endpoints that want another one than the rule's, and who wants which.
fn others<'e>(
    rule: &EventRule,
    takers: impl Iterator<Item = (EndpointIndex, &'e Endpoint)>,
) -> (Vec<EndpointShape>, HashMap<EndpointIndex, usize>) {
    let (mut others, mut shape_of) = (Vec::new(), HashMap::new());
    for (index, endpoint) in takers {
        let Some(own) = EndpointShape::other(rule, endpoint) else { continue };
        let known = others.iter().position(|shape| *shape == own);
        shape_of.insert(index, known.unwrap_or(others.len()));
        if known.is_none() {
            others.push(own);
        }
    }
    (others, shape_of)
}

fn concerns(rule: &EventRule, op: &ChangeOp) -> bool {
    let on = rule.on;
    match op {
        ChangeOp::Insert { .. } => on.insert,
        ChangeOp::Update { .. } => on.update,
        ChangeOp::Delete { .. } => on.delete,
        ChangeOp::Truncate => on.truncate,
        ChangeOp::Schema => on.schema,
        ChangeOp::Read { read, .. } => match &read.target.event_type {
            Some(event_type) => *event_type == rule.event_type,
            None => on.read,
        },
    }
}

#[cfg(test)]
mod shape_tests;
#[cfg(test)]
pub(crate) mod tests;
