//! Which changes become which events, and who gets them.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::settings::Endpoint;
use crate::config::settings::EventRule;
use crate::config::settings::Filter;
use crate::config::settings::Operations;
use crate::event::expiry::Age;
use crate::event::payload;
use crate::event::payload::Shape;
use crate::event::writer::Writer;
use crate::flow::change::Change;
use crate::flow::change::Old;
use crate::flow::change::Op;
use crate::flow::change::Tuple;
use crate::flow::change::Value;
use crate::flow::event::Event;
use crate::flow::event::EventId;
use crate::flow::event::Expiry;
use crate::flow::event::Facts;
use crate::flow::event::Origin;
use crate::flow::event::RuleIndex;
use crate::flow::key::Key;
use crate::flow::key::Keys;
use crate::flow::relation::Relation;
use crate::flow::relation::TableName;
use crate::flow::settlement::EndpointIndex;
use crate::flow::time::Timestamp;

/// What a change came to under one rule.
#[derive(Debug)]
pub enum Routed {
    /// To be handed to the lanes of the rule's endpoints. `sequence` and `held` are still open.
    Event(Box<Event>),
    /// The rule's filter does not let it through.
    Filtered,
    /// Too old when it was read.
    Expired { id: EventId, facts: Facts },
}

/// The rules, compiled for each relation as it comes by.
#[derive(Debug)]
pub struct Router {
    rules: Vec<Rule>,
    /// By relation oid; compiled again when the relation has changed.
    compiled: HashMap<u32, Compiled>,
    writer: Writer,
}

#[derive(Debug)]
struct Rule {
    settings: EventRule,
    origin: Origin,
    table: Arc<TableName>,
    endpoints: Vec<EndpointIndex>,
}

#[derive(Debug)]
struct Compiled {
    relation: Arc<Relation>,
    plans: Vec<Plan>,
}

/// One rule against one relation.
#[derive(Debug)]
struct Plan {
    rule: RuleIndex,
    gate: Gate,
    age: Option<Age>,
    order_by: Vec<usize>,
    shape: Shape,
}

/// A [`Filter`] against one relation.
#[derive(Debug)]
enum Gate {
    Open,
    /// The column's index; `None` where the relation has no such column: nothing passes.
    NotBlank(Option<usize>),
}

impl Gate {
    fn admits(&self, row: Option<&Tuple>) -> bool {
        match (self, row) {
            (Self::Open, _) | (Self::NotBlank(_), None) => true,
            (Self::NotBlank(column), Some(row)) => column.is_some_and(|c| !is_blank(row, c)),
        }
    }
}

impl Router {
    /// `system` is the database system identifier; it goes into the event ids.
    pub fn new(system: u64, rules: &[EventRule], endpoints: &[Endpoint]) -> Self {
        let rule = |settings: &EventRule| {
            let endpoints = endpoints.iter().enumerate().filter(|(_, e)| e.takes(settings));
            Rule {
                origin: Origin::new(system, &settings.event_type),
                table: Arc::new(settings.table.clone()),
                endpoints: endpoints.map(|(index, _)| EndpointIndex(index)).collect(),
                settings: settings.clone(),
            }
        };
        Self {
            rules: rules.iter().map(rule).collect(),
            compiled: HashMap::new(),
            writer: Writer::default(),
        }
    }

    /// The endpoints that get the events of a rule.
    pub fn endpoints(&self, rule: RuleIndex) -> &[EndpointIndex] {
        self.rules.get(rule.0).map_or(&[], |rule| &rule.endpoints)
    }

    /// Calls `each` for every rule that the change falls under, in the order of the settings.
    /// `now` is on the database's clock.
    pub fn route(
        &mut self,
        change: &Change,
        now: Timestamp,
        mut each: impl FnMut(RuleIndex, Routed),
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
            if concerns(rule.settings.on, &change.op) {
                each(plan.rule, plan.apply(rule, change, now, &mut self.writer));
            }
        }
    }
}

fn compile(rules: &[Rule], relation: &Arc<Relation>) -> Compiled {
    let mine = rules.iter().enumerate().filter(|(_, rule)| *rule.table == relation.table);
    let plan = |(index, rule): (usize, &Rule)| {
        let settings = &rule.settings;
        let named = settings.order_by.iter().filter_map(|name| relation.column(name));
        let order_by: Vec<usize> = named.collect();
        Plan {
            rule: RuleIndex(index),
            gate: match &settings.filter {
                None => Gate::Open,
                Some(Filter::NotBlank { column }) => Gate::NotBlank(relation.column(column)),
            },
            age: settings.expiry.as_ref().map(|rule| Age::compile(rule, relation)),
            order_by: if order_by.is_empty() { relation.key.clone() } else { order_by },
            shape: Shape::compile(settings.payload, &settings.event_type, relation),
        }
    };
    Compiled { relation: Arc::clone(relation), plans: mine.map(plan).collect() }
}

fn concerns(on: Operations, op: &Op) -> bool {
    match op {
        Op::Insert { .. } => on.insert,
        Op::Update { .. } => on.update,
        Op::Delete { .. } => on.delete,
        Op::Truncate => on.truncate,
    }
}

impl Plan {
    fn apply(&self, rule: &Rule, change: &Change, now: Timestamp, writer: &mut Writer) -> Routed {
        let row = payload::row_of(&change.op);
        if !self.gate.admits(row) {
            return Routed::Filtered;
        }
        let id = EventId::new(change.position, rule.origin);
        let expiry = self.age.as_ref().map(|age| age.of(change, row));
        if expiry.is_some_and(|expiry: Expiry| expiry.is_over(now)) {
            return Routed::Expired { id, facts: self.shape.facts(row) };
        }
        let born = expiry.map_or(change.committed, |expiry| expiry.born);
        self.shape.write(writer, change, born);
        Routed::Event(Box::new(Event {
            id,
            sequence: 0,
            position: change.position,
            event_type: Arc::clone(&rule.settings.event_type),
            table: Arc::clone(&rule.table),
            committed: change.committed,
            keys: self.keys(rule, change),
            expiry,
            body: writer.finish(),
            facts: self.shape.facts(row),
            held: None,
        }))
    }

    /// The order keys: of the row, and of the old row where the update changed them.
    fn keys(&self, rule: &Rule, change: &Change) -> Keys {
        if self.order_by.is_empty() {
            return Keys::NONE;
        }
        match &change.op {
            Op::Insert { new } | Op::Update { new, old: None } => {
                Keys::one(self.key(rule, |column| new.value(column)))
            }
            Op::Update { new, old: Some(old) } => {
                // What one image does not carry, the update did not change.
                let carried = |column| match (old, new.value(column)) {
                    (Old::Key(_), value) if !is_identity(change, column) => value,
                    (_, _) => old.tuple().value(column),
                };
                let current = |column| match new.value(column) {
                    Value::Unchanged => carried(column),
                    value => value,
                };
                Keys::both(self.key(rule, carried), self.key(rule, current))
            }
            Op::Delete { old } => Keys::one(self.key(rule, |column| old.tuple().value(column))),
            Op::Truncate => Keys::NONE,
        }
    }

    fn key<'a>(&self, rule: &'a Rule, value: impl Fn(usize) -> Value<'a>) -> Key {
        let table = [Some(rule.table.schema.as_bytes()), Some(rule.table.name.as_bytes())];
        let values = self.order_by.iter().map(|&column| match value(column) {
            Value::Text(text) => Some(text),
            Value::Null | Value::Unchanged => None,
        });
        Key::of(table.into_iter().chain(values))
    }
}

fn is_identity(change: &Change, column: usize) -> bool {
    change.relation.columns.get(column).is_some_and(|column| column.identity)
}

/// Null, or nothing but white space. A value that PostgreSQL did not send was there before.
fn is_blank(row: &Tuple, column: usize) -> bool {
    match row.value(column) {
        Value::Null => true,
        Value::Unchanged => false,
        Value::Text(text) => std::str::from_utf8(text).is_ok_and(|text| text.trim().is_empty()),
    }
}

#[cfg(test)]
mod tests;
