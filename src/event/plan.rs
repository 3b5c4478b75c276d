//! A rule against one relation: its columns are looked up once, and a change then becomes an event, or
//! nothing, without a search by name.
//!
//! ```text
//! RulePlan + Relation ─▶ TablePlan;  CommittedChange ─▶ [plan] filter, age, dedupe, takers, bodies, keys ─▶ RoutedEvent
//! ```

pub(crate) mod filter;

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::Arc;

use crate::config::settings::EventRule;
use crate::config::settings::PayloadSettings;
use crate::event::column_change;
use crate::event::column_change::RowImage;
use crate::event::dedupe::DedupeWindow;
use crate::event::dedupe::SeenSight;
use crate::event::dedupe::VALUES_MAX;
use crate::event::expiry::AgeSource;
use crate::event::expression_fault::EvaluationFault;
use crate::event::expression_fault::RenderFaults;
use crate::event::misfit_value;
use crate::event::payload::EndpointShape;
use crate::event::payload::PayloadShape;
use crate::event::plan::filter::RowFilter;
use crate::event::row_object;
use crate::event::row_order::RowOrder;
use crate::event::scope::EvaluationScope;
use crate::event::subscribers::EventSubscribers;
use crate::event::subscribers::SubscriberChoice;
use crate::event::subscribers::SubscriberIndex;
use crate::event::table_shape;
use crate::event::target::WriteBackTarget;
use crate::event::writer::JsonWriter;
use crate::event::writer_trace::WriterTrace;
use crate::flow::body::EventBody;
use crate::flow::change::ChangeOp;
use crate::flow::change::ColumnValue;
use crate::flow::change::CommittedChange;
use crate::flow::dead_letter_reason::PoisonReason;
use crate::flow::event::Event;
use crate::flow::event::EventExpiry;
use crate::flow::event::EventFacts;
use crate::flow::event::EventId;
use crate::flow::event::IdOrigin;
use crate::flow::event::RuleIndex;
use crate::flow::key::EventKeys;
use crate::flow::relation::Relation;
use crate::flow::relation::TableName;
use crate::flow::seen::SeenValues;
use crate::flow::seen::ValueFingerprint;
use crate::flow::settlement::EndpointIndex;
use crate::flow::time::Timestamp;

/// What a change came to under one rule.
#[derive(Debug)]
pub enum RoutedEvent {
    /// To be handed to the lanes of everybody who takes all of the rule's events. `sequence` and
    /// `held` are still open.
    Event(Box<Event>),
    /// Likewise, but also for others, who choose by the row: they come behind those in `endpoints`. Or
    /// not for all of them in the same shape: those of `others` get another body than `event` has.
    /// Those of `aside` get a dead letter: their filters or payloads take too much.
    Partly {
        event: Box<Event>,
        endpoints: Vec<EndpointIndex>,
        others: Vec<ShapedBody>,
        aside: Vec<AsideBody>,
    },
    /// The rule's filter takes more than an evaluation may: nobody knows whether this is an event.
    Costly(Box<Event>),
    /// The rule's filter does not let it through.
    Filtered,
    /// Its values were pushed before, within the window of the rule's `dedupe`.
    Repeat { id: EventId, facts: EventFacts },
    /// Too old when it was read: for everybody who takes all of the rule's events, and for those who
    /// would have chosen it.
    Expired { id: EventId, facts: EventFacts, chosen: Vec<EndpointIndex> },
    /// It cannot be rendered; the event has the row in the standard shape for a body, or none, and its keys and facts
    /// only if they can be told.
    Poison(Box<Event>),
}

/// A body in a shape of their own for some endpoints.
#[derive(Debug)]
pub struct ShapedBody {
    pub body: EventBody,
    pub endpoints: Vec<EndpointIndex>,
}

/// What is not sent to some endpoints, and why not.
#[derive(Debug)]
pub struct AsideBody {
    pub why: PoisonReason,
    pub shaped: ShapedBody,
}

#[derive(Debug)]
pub(super) struct RulePlan {
    pub(super) settings: EventRule,
    pub(super) origin: IdOrigin,
    pub(super) table: Arc<TableName>,
    pub(super) subscribers: EventSubscribers,
    /// Shapes other than the event's own.
    pub(super) others: Vec<EndpointShape>,
    /// Which of them an endpoint asks for; those that are not here get the event's own.
    pub(super) shape_of: HashMap<EndpointIndex, usize>,
}

#[derive(Debug)]
pub(super) struct CompiledRule {
    pub(super) relation: Arc<Relation>,
    pub(super) plans: Vec<TablePlan>,
    /// Columns of row types.
    pub(super) composites: Vec<usize>,
}

/// One rule against one relation.
#[derive(Debug)]
pub(super) struct TablePlan {
    pub(super) rule: RuleIndex,
    gate: RowFilter,
    choosing: SubscriberIndex,
    age: Option<AgeSource>,
    order: RowOrder,
    shape: PayloadShape,
    /// Of the rule's `others`, in their order.
    pub(super) others: Vec<PayloadShape>,
    target: Option<WriteBackTarget>,
    /// The columns of the rule's `dedupe`.
    dedupe: Vec<usize>,
    trace: WriterTrace,
    /// For rules that tell of the table's shape.
    pub(super) table_shape: Option<ValueFingerprint>,
}

/// What the rules of the relation's table come to, in the order of the settings.
pub(super) fn compile(rules: &[RulePlan], relation: &Arc<Relation>) -> CompiledRule {
    let mine = rules.iter().enumerate().filter(|(_, rule)| *rule.table == relation.table);
    let plan = |(index, rule): (usize, &RulePlan)| {
        let settings = &rule.settings;
        TablePlan {
            rule: RuleIndex(index),
            gate: match &settings.filter {
                None => RowFilter::Open,
                Some(filter) => RowFilter::compile(filter, relation),
            },
            choosing: rule.subscribers.compile(relation),
            age: settings.expiry.as_ref().map(|rule| AgeSource::compile(rule, relation)),
            order: RowOrder::compile(&settings.order_by, relation),
            shape: PayloadShape::compile(
                &EndpointShape::of_rule(settings),
                &settings.event_type,
                relation,
            ),
            dedupe: settings
                .dedupe
                .iter()
                .flat_map(|dedupe| &dedupe.by)
                .filter_map(|name| relation.column(name))
                .collect(),
            target: settings
                .write_back
                .as_ref()
                .and_then(|w| WriteBackTarget::compile(w, relation)),
            trace: WriterTrace::compile(&settings.trace, relation),
            table_shape: settings
                .on
                .schema
                .then(|| table_shape::fingerprint(&settings.event_type, relation)),
            others: rule
                .others
                .iter()
                .map(|shape| PayloadShape::compile(shape, &settings.event_type, relation))
                .collect(),
        }
    };
    CompiledRule {
        relation: Arc::clone(relation),
        plans: mine.map(plan).collect(),
        composites: misfit_value::columns(relation),
    }
}

impl TablePlan {
    pub(super) fn apply(
        &self,
        rule: &RulePlan,
        change: &CommittedChange,
        now: Timestamp,
        writer: &mut JsonWriter,
        faults: &mut RenderFaults,
        sightings: Option<(&mut DedupeWindow, &mut Vec<SeenValues>)>,
    ) -> RoutedEvent {
        let row = row_object::row_of(&change.op);
        let id = change.event_id(rule.origin);
        let expiry = self.age.as_ref().map(|age| age.of(change, row));
        let born = expiry.map_or(change.committed, |expiry| expiry.born);
        let scope =
            EvaluationScope { change, event_type: &rule.settings.event_type, id, now, born };
        // Another shape is no row, so no filter of rows is asked.
        let is_schema = matches!(change.op, ChangeOp::Schema);
        let admitted = is_schema || self.gate.admits(&scope, faults);
        let is_costly = !admitted && matches!(faults.last(), Some((_, EvaluationFault::TooMuch)));
        if !admitted && !is_costly {
            return RoutedEvent::Filtered;
        }
        // With a write-back, a lane has to say that it was too old: the row is told so.
        let expires = self.target.is_none();
        if expires && expiry.is_some_and(|expiry: EventExpiry| expiry.is_over(now)) {
            let SubscriberChoice { mut takers, costly } = self.choosing.choose(&scope, faults);
            takers.extend(costly);
            return RoutedEvent::Expired { id, facts: self.shape.facts(row), chosen: takers };
        }
        if let Some((window, seen)) = sightings
            && !is_costly
            // A row that is read tells nothing of what was pushed, and comes again after a crash.
            && !matches!(change.op, ChangeOp::Read { .. })
            && self.is_repeat(rule, change, window, seen)
        {
            return RoutedEvent::Repeat { id, facts: self.shape.facts(row) };
        }
        let trace = self.trace.of(change);
        let mut render = |shape: &PayloadShape, faults: &mut RenderFaults| {
            let fits = shape.write(writer.with_form(rule.settings.json), &scope, faults);
            let body = writer.finish();
            fits.then(|| {
                let mut headers = shape.headers(&scope);
                headers.extend(trace.clone());
                let body = body.with_headers(headers);
                body.with_values(shape.values(&scope, faults))
            })
        };
        let event = |body| {
            Box::new(Event {
                id,
                sequence: 0,
                position: change.position,
                event_type: Arc::clone(&rule.settings.event_type),
                table: Arc::clone(&rule.table),
                committed: change.committed,
                keys: self.order.keys(&rule.table, change),
                expiry,
                body,
                facts: self.shape.facts(row),
                write_back: self.target.as_ref().and_then(|target| target.of(change)),
                held: None,
            })
        };
        if is_costly {
            // A letter without a body says as much.
            return RoutedEvent::Costly(event(render(&self.shape, faults).unwrap_or_default()));
        }
        let choice = self.choosing.choose(&scope, faults);
        if choice.is_empty()
            && rule.others.is_empty()
            && !rule.subscribers.is_for_nobody()
            && let Some(body) = render(&self.shape, faults)
        {
            return RoutedEvent::Event(event(body));
        }
        self.shaped(rule, choice, |shape| render(shape, faults), event)
    }

    /// The event in the shapes of all who get it.
    fn shaped(
        &self,
        rule: &RulePlan,
        choice: SubscriberChoice,
        mut render: impl FnMut(&PayloadShape) -> Option<EventBody>,
        event: impl Fn(EventBody) -> Box<Event>,
    ) -> RoutedEvent {
        let SubscriberChoice { takers, costly } = choice;
        let everybody = rule.subscribers.everybody.iter().copied();
        let mut endpoints: Vec<_> = everybody.chain(takers).collect();
        let (own, others) = self.by_shape(rule, &endpoints);
        let (costly_own, costly) = self.by_shape(rule, &costly);
        let shape_of = |shape: usize| self.others.get(shape).unwrap_or(&self.shape);
        let mut oversize = Vec::new();
        let mut shaped = Vec::new();
        for (shape, takers) in others {
            match render(shape_of(shape)) {
                Some(body) => shaped.push(ShapedBody { body, endpoints: takers }),
                None => oversize.extend(takers),
            }
        }
        let costly = costly.into_iter().map(|(shape, takers)| (shape_of(shape), takers));
        let costly = costly.chain((!costly_own.is_empty()).then_some((&self.shape, costly_own)));
        let mut aside: Vec<AsideBody> = costly
            .map(|(shape, endpoints)| {
                let body = render(shape).unwrap_or_default();
                AsideBody { why: PoisonReason::Costly, shaped: ShapedBody { body, endpoints } }
            })
            .collect();
        // What nobody gets is not rendered.
        let body = if own.is_empty() { Some(EventBody::default()) } else { render(&self.shape) };
        if body.is_none() {
            oversize.extend(own);
        }
        if !oversize.is_empty() {
            endpoints.retain(|taker| !oversize.contains(taker));
            let shaped = ShapedBody { body: EventBody::default(), endpoints: oversize };
            aside.push(AsideBody { why: PoisonReason::Oversize, shaped });
        }
        let event = event(body.unwrap_or_default());
        RoutedEvent::Partly { event, endpoints, others: shaped, aside }
    }

    /// Those of the endpoints that get the event's own shape, and those of each other one.
    fn by_shape(
        &self,
        rule: &RulePlan,
        endpoints: &[EndpointIndex],
    ) -> (Vec<EndpointIndex>, Vec<(usize, Vec<EndpointIndex>)>) {
        if rule.others.is_empty() {
            return (endpoints.to_vec(), Vec::new());
        }
        let (mut own, mut sharing) = (Vec::new(), vec![Vec::new(); self.others.len()]);
        for taker in endpoints {
            let shape = rule.shape_of.get(taker).and_then(|&shape| sharing.get_mut(shape));
            shape.unwrap_or(&mut own).push(*taker);
        }
        let others = sharing.into_iter().enumerate().filter(|(_, takers)| !takers.is_empty());
        (own, others.collect())
    }

    /// Whether the values of `dedupe` were pushed before; notes them if not.
    fn is_repeat(
        &self,
        rule: &RulePlan,
        change: &CommittedChange,
        window: &mut DedupeWindow,
        seen: &mut Vec<SeenValues>,
    ) -> bool {
        let value = |&column: &usize| match column_change::current(change, column) {
            RowImage::In(row) => match row.value(column) {
                ColumnValue::Text(text) => Some(text),
                ColumnValue::Null | ColumnValue::Unchanged => None,
            },
            RowImage::None | RowImage::Unknown => None,
        };
        let Some(values) = self.dedupe.iter().map(value).collect::<Option<Vec<&[u8]>>>() else {
            return false;
        };
        if values.is_empty() {
            return false; // the table has lost the columns
        }
        let event_type = rule.settings.event_type.as_bytes();
        let fingerprint = ValueFingerprint::of([event_type].into_iter().chain(values));
        let (position, committed) = (change.position, change.committed);
        match window.see(fingerprint, position, committed) {
            SeenSight::Repeat => return true,
            SeenSight::Same => {}
            SeenSight::New => {
                let oldest = window.oldest().unwrap_or(committed);
                seen.push(SeenValues { rule: self.rule, fingerprint, position, committed, oldest });
                if window.take_overflowed() && !std::mem::replace(&mut window.told, true) {
                    tracing::warn!(
                        event = %rule.settings.event_type,
                        max = VALUES_MAX,
                        "more values than dedupe remembers within its window: the oldest are \
                         forgotten early, and their repeats are pushed"
                    );
                }
            }
        }
        false
    }

    pub(super) fn about(&self, change: &CommittedChange) -> String {
        let facts = self.shape.facts(row_object::row_of(&change.op));
        facts.iter().map(|(column, value)| format!("{column}={value} ")).collect()
    }

    /// The event of a change that cannot be rendered. `keeps_row`: with the row in the standard shape, which
    /// evaluates nothing of the user's, so that it can be sent again.
    pub(super) fn set_aside(
        &self,
        rule: &RulePlan,
        change: &CommittedChange,
        keeps_row: bool,
    ) -> Box<Event> {
        let body = match keeps_row {
            true => catch_unwind(AssertUnwindSafe(|| self.in_standard_shape(rule, change))),
            false => Ok(EventBody::default()),
        };
        let body = body.unwrap_or_default();
        let known = catch_unwind(AssertUnwindSafe(|| {
            (self.order.keys(&rule.table, change), self.shape.facts(row_object::row_of(&change.op)))
        }));
        let (keys, facts) = known.unwrap_or_else(|_panic| (EventKeys::NONE, EventFacts::default()));
        Box::new(Event {
            id: change.event_id(rule.origin),
            sequence: 0,
            position: change.position,
            event_type: Arc::clone(&rule.settings.event_type),
            table: Arc::clone(&rule.table),
            committed: change.committed,
            keys,
            expiry: None,
            body,
            facts,
            write_back: self.target.as_ref().and_then(|target| target.of(change)),
            held: None,
        })
    }
}

impl TablePlan {
    fn in_standard_shape(&self, rule: &RulePlan, change: &CommittedChange) -> EventBody {
        let shape = EndpointShape { payload: PayloadSettings::Standard, values: Vec::new() };
        let event_type = &rule.settings.event_type;
        let shape = PayloadShape::compile(&shape, event_type, &change.relation);
        let id = change.event_id(rule.origin);
        let (now, born) = (change.committed, change.committed);
        let scope = EvaluationScope { change, event_type, id, now, born };
        let mut writer = JsonWriter::default();
        shape.write(writer.with_form(rule.settings.json), &scope, &mut RenderFaults::new());
        writer.finish()
    }
}
