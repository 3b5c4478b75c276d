//! A rule against one relation: its columns are looked up once, and a change then becomes an event, or
//! nothing, without a search by name.
//!
//! ```text
//! Rule + Relation ─▶ Plan;  Change ─▶ [plan] gate, age, dedupe, takers, bodies, keys ─▶ Routed
//! ```

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::Arc;

use crate::config::expression::Expression;
use crate::config::settings::EventRule;
use crate::config::settings::Filter;
use crate::config::settings::Payload;
use crate::event::dedupe::Sight;
use crate::event::dedupe::VALUES_MAX;
use crate::event::dedupe::Window;
use crate::event::expiry::Age;
use crate::event::image;
use crate::event::image::Image;
use crate::event::payload;
use crate::event::payload::Shape;
use crate::event::row_order::RowOrder;
use crate::event::scope::Fault;
use crate::event::scope::Scope;
use crate::event::subscribers::Choice;
use crate::event::subscribers::SubscriberIndex;
use crate::event::subscribers::Subscribers;
use crate::event::target::Target;
use crate::event::template::Faults;
use crate::event::writer::Writer;
use crate::flow::body::Body;
use crate::flow::change::Change;
use crate::flow::change::Tuple;
use crate::flow::change::Value;
use crate::flow::event::Event;
use crate::flow::event::EventId;
use crate::flow::event::Expiry;
use crate::flow::event::Facts;
use crate::flow::event::Origin;
use crate::flow::event::RuleIndex;
use crate::flow::key::Keys;
use crate::flow::relation::Relation;
use crate::flow::relation::TableName;
use crate::flow::seen::Fingerprint;
use crate::flow::seen::Seen;
use crate::flow::settlement::EndpointIndex;
use crate::flow::time::Timestamp;

/// What a change came to under one rule.
#[derive(Debug)]
pub enum Routed {
    /// To be handed to the lanes of everybody who takes all of the rule's events. `sequence` and
    /// `held` are still open.
    Event(Box<Event>),
    /// Likewise, but also for others, who choose by the row: they come behind those in `endpoints`. Or
    /// not for all of them in the same shape: those of `others` get another body than `event` has.
    /// Those of `costly` get a dead letter: their filters take more than an evaluation may.
    Partly {
        event: Box<Event>,
        endpoints: Vec<EndpointIndex>,
        others: Vec<Shaped>,
        costly: Vec<Shaped>,
    },
    /// The rule's filter takes more than an evaluation may: nobody knows whether this is an event.
    Costly(Box<Event>),
    /// The rule's filter does not let it through.
    Filtered,
    /// Its values were pushed before, within the window of the rule's `dedupe`.
    Repeat { id: EventId, facts: Facts },
    /// Too old when it was read: for everybody who takes all of the rule's events, and for those who
    /// would have chosen it.
    Expired { id: EventId, facts: Facts, chosen: Vec<EndpointIndex> },
    /// It cannot be rendered; the event has no body, and its keys and facts only if they can be told.
    Poison(Box<Event>),
}

/// A body in a shape of their own for some endpoints.
#[derive(Debug)]
pub struct Shaped {
    pub body: Body,
    pub endpoints: Vec<EndpointIndex>,
}

#[derive(Debug)]
pub(super) struct Rule {
    pub(super) settings: EventRule,
    pub(super) origin: Origin,
    pub(super) table: Arc<TableName>,
    pub(super) subscribers: Subscribers,
    /// Payloads other than the event's own.
    pub(super) others: Vec<Payload>,
    /// Which of them an endpoint asks for; those that are not here get the event's own.
    pub(super) shape_of: HashMap<EndpointIndex, usize>,
}

#[derive(Debug)]
pub(super) struct Compiled {
    pub(super) relation: Arc<Relation>,
    pub(super) plans: Vec<Plan>,
}

/// One rule against one relation.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) rule: RuleIndex,
    gate: Gate,
    choosing: SubscriberIndex,
    age: Option<Age>,
    order: RowOrder,
    shape: Shape,
    /// Of the rule's `others`, in their order.
    pub(super) others: Vec<Shape>,
    target: Option<Target>,
    /// The columns of the rule's `dedupe`.
    dedupe: Vec<usize>,
}

/// A [`Filter`] against one relation.
#[derive(Debug)]
pub(crate) enum Gate {
    Open,
    /// The column's index; `None` where the relation has no such column: nothing passes.
    NotBlank(Option<usize>),
    When(Expression),
    Both(Box<Gate>, Box<Gate>),
}

impl Gate {
    pub(crate) fn compile(filter: &Filter, relation: &Relation) -> Self {
        match filter {
            Filter::NotBlank { column } => Self::NotBlank(relation.column(column)),
            Filter::When(expression) => Self::When(expression.clone()),
            Filter::Both(one, other) => {
                let compile = |filter| Box::new(Self::compile(filter, relation));
                Self::Both(compile(one), compile(other))
            }
        }
    }

    pub(crate) fn admits(&self, scope: &Scope<'_>, faults: &mut Faults) -> bool {
        match self {
            Self::Open => true,
            Self::NotBlank(column) => match payload::row_of(&scope.change.op) {
                None => true,
                Some(row) => column.is_some_and(|column| !is_blank(row, column)),
            },
            Self::When(expression) => scope.holds(expression, faults),
            Self::Both(one, other) => one.admits(scope, faults) && other.admits(scope, faults),
        }
    }
}

/// What the rules of the relation's table come to, in the order of the settings.
pub(super) fn compile(rules: &[Rule], relation: &Arc<Relation>) -> Compiled {
    let mine = rules.iter().enumerate().filter(|(_, rule)| *rule.table == relation.table);
    let plan = |(index, rule): (usize, &Rule)| {
        let settings = &rule.settings;
        Plan {
            rule: RuleIndex(index),
            gate: match &settings.filter {
                None => Gate::Open,
                Some(filter) => Gate::compile(filter, relation),
            },
            choosing: rule.subscribers.compile(relation),
            age: settings.expiry.as_ref().map(|rule| Age::compile(rule, relation)),
            order: RowOrder::compile(&settings.order_by, relation),
            shape: Shape::compile(&settings.payload, &settings.event_type, relation),
            dedupe: settings
                .dedupe
                .iter()
                .flat_map(|dedupe| &dedupe.by)
                .filter_map(|name| relation.column(name))
                .collect(),
            target: settings.write_back.as_ref().and_then(|w| Target::compile(w, relation)),
            others: rule
                .others
                .iter()
                .map(|payload| Shape::compile(payload, &settings.event_type, relation))
                .collect(),
        }
    };
    Compiled { relation: Arc::clone(relation), plans: mine.map(plan).collect() }
}

impl Plan {
    pub(super) fn apply(
        &self,
        rule: &Rule,
        change: &Change,
        now: Timestamp,
        writer: &mut Writer,
        faults: &mut Faults,
        sightings: Option<(&mut Window, &mut Vec<Seen>)>,
    ) -> Routed {
        let row = payload::row_of(&change.op);
        let id = EventId::new(change.position, rule.origin);
        let expiry = self.age.as_ref().map(|age| age.of(change, row));
        let born = expiry.map_or(change.committed, |expiry| expiry.born);
        let scope = Scope { change, event_type: &rule.settings.event_type, id, now, born };
        let admitted = self.gate.admits(&scope, faults);
        let is_costly = !admitted && matches!(faults.last(), Some((_, Fault::TooMuch)));
        if !admitted && !is_costly {
            return Routed::Filtered;
        }
        // With a write-back, a lane has to say that it was too old: the row is told so.
        let expires = self.target.is_none();
        if expires && expiry.is_some_and(|expiry: Expiry| expiry.is_over(now)) {
            let Choice { mut takers, costly } = self.choosing.choose(&scope, faults);
            takers.extend(costly);
            return Routed::Expired { id, facts: self.shape.facts(row), chosen: takers };
        }
        if let Some((window, seen)) = sightings
            && !is_costly
            && self.is_repeat(rule, change, window, seen)
        {
            return Routed::Repeat { id, facts: self.shape.facts(row) };
        }
        let mut render = |shape: &Shape, faults: &mut Faults| {
            shape.write(writer.with_form(rule.settings.json), &scope, faults);
            writer.finish().with_headers(shape.headers(&scope))
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
            return Routed::Costly(event(render(&self.shape, faults)));
        }
        let choice = self.choosing.choose(&scope, faults);
        if choice.is_empty() && rule.others.is_empty() && !rule.subscribers.is_for_nobody() {
            return Routed::Event(event(render(&self.shape, faults)));
        }
        self.shaped(rule, choice, |shape| render(shape, faults), event)
    }

    /// The event in the shapes of all who get it.
    fn shaped(
        &self,
        rule: &Rule,
        choice: Choice,
        mut render: impl FnMut(&Shape) -> Body,
        event: impl Fn(Body) -> Box<Event>,
    ) -> Routed {
        let Choice { takers, costly } = choice;
        let endpoints: Vec<_> = rule.subscribers.everybody.iter().copied().chain(takers).collect();
        let (own, others) = self.by_shape(rule, &endpoints);
        let (costly_own, costly) = self.by_shape(rule, &costly);
        let mut in_shape = |sharing: Vec<(usize, Vec<EndpointIndex>)>| {
            let shaped = |(shape, endpoints): (usize, _)| {
                Some(Shaped { body: render(self.others.get(shape)?), endpoints })
            };
            sharing.into_iter().filter_map(shaped).collect::<Vec<_>>()
        };
        let (others, mut costly) = (in_shape(others), in_shape(costly));
        if !costly_own.is_empty() {
            costly.push(Shaped { body: render(&self.shape), endpoints: costly_own });
        }
        // What nobody gets is not rendered.
        let body = if own.is_empty() { Body::default() } else { render(&self.shape) };
        Routed::Partly { event: event(body), endpoints, others, costly }
    }

    /// Those of the endpoints that get the event's own shape, and those of each other one.
    fn by_shape(
        &self,
        rule: &Rule,
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
        rule: &Rule,
        change: &Change,
        window: &mut Window,
        seen: &mut Vec<Seen>,
    ) -> bool {
        let value = |&column: &usize| match image::current(change, column) {
            Image::In(row) => match row.value(column) {
                Value::Text(text) => Some(text),
                Value::Null | Value::Unchanged => None,
            },
            Image::None | Image::Unknown => None,
        };
        let Some(values) = self.dedupe.iter().map(value).collect::<Option<Vec<&[u8]>>>() else {
            return false;
        };
        if values.is_empty() {
            return false; // the table has lost the columns
        }
        let event_type = rule.settings.event_type.as_bytes();
        let fingerprint = Fingerprint::of([event_type].into_iter().chain(values));
        let (position, committed) = (change.position, change.committed);
        match window.see(fingerprint, position, committed) {
            Sight::Repeat => return true,
            Sight::Same => {}
            Sight::New => {
                let oldest = window.oldest().unwrap_or(committed);
                seen.push(Seen { rule: self.rule, fingerprint, position, committed, oldest });
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

    pub(super) fn about(&self, change: &Change) -> String {
        let facts = self.shape.facts(payload::row_of(&change.op));
        facts.iter().map(|(column, value)| format!("{column}={value} ")).collect()
    }

    pub(super) fn without_body(&self, rule: &Rule, change: &Change) -> Box<Event> {
        let known = catch_unwind(AssertUnwindSafe(|| {
            (self.order.keys(&rule.table, change), self.shape.facts(payload::row_of(&change.op)))
        }));
        let (keys, facts) = known.unwrap_or_else(|_panic| (Keys::NONE, Facts::default()));
        Box::new(Event {
            id: EventId::new(change.position, rule.origin),
            sequence: 0,
            position: change.position,
            event_type: Arc::clone(&rule.settings.event_type),
            table: Arc::clone(&rule.table),
            committed: change.committed,
            keys,
            expiry: None,
            body: Body::new(Vec::new()),
            facts,
            write_back: self.target.as_ref().and_then(|target| target.of(change)),
            held: None,
        })
    }
}

/// Null, or nothing but white space. A value that PostgreSQL did not send was there before.
fn is_blank(row: &Tuple, column: usize) -> bool {
    match row.value(column) {
        Value::Null => true,
        Value::Unchanged => false,
        Value::Text(text) => std::str::from_utf8(text).is_ok_and(|text| text.trim().is_empty()),
    }
}
