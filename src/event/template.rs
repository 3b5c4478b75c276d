//! A payload of the user's own against one relation: literal bytes, and places for values.
//!
//! ```text
//! Template (config) + Relation ─▶ [compile] ─ steps ─▶ [write] on each change ─ Body
//! ```
//!
//! What is a plain column or a built-in name is written from PostgreSQL's text by the writer; the
//! expression engine runs only where a real expression stands. Whatever the values are, a JSON
//! template gives one valid JSON value: literals are checked when the configuration is read, and
//! values go through the same escaping as everywhere.

use std::sync::Arc;

use crate::config::expression::BuiltIn;
use crate::config::expression::Expression;
use crate::config::expression::Form;
use crate::config::expression::Reference;
use crate::config::expression::meter;
use crate::config::template::Node;
use crate::config::template::Piece;
use crate::event::datum;
use crate::event::image;
use crate::event::image::Image;
use crate::event::payload;
use crate::event::scope;
use crate::event::scope::Fault;
use crate::event::scope::Scope;
use crate::event::value::write_value;
use crate::event::writer::NamedColumn;
use crate::event::writer::Writer;
use crate::flow::change::Op;
use crate::flow::change::Tuple;
use crate::flow::change::Value;
use crate::flow::relation::Relation;
use crate::flow::relation::SqlType;

/// An expression of a payload that had no value; null stands in its place.
pub(crate) type Faults = Vec<(Arc<str>, Fault)>;

#[derive(Debug)]
pub(crate) struct Template {
    steps: Vec<Step>,
    /// For `row`, `old` and `changes`.
    columns: Vec<NamedColumn>,
}

#[derive(Debug)]
enum Step {
    Raw(Vec<u8>),
    Value(Slot, Around),
    /// An object some of whose members may be left out.
    Object(Vec<Member>),
}

/// What stands around a value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Around {
    /// Nothing: the value is JSON.
    Json,
    /// A JSON string, of which it is a part.
    String,
    /// A text that is no JSON.
    Text,
}

#[derive(Debug)]
struct Member {
    /// `"name":`
    label: Vec<u8>,
    value: Vec<Step>,
    /// Left out when null; `value` is one [`Step::Value`].
    optional: bool,
}

#[derive(Debug)]
enum Slot {
    Column { index: usize, sql_type: Arc<SqlType>, old: bool, form: Form },
    BuiltIn(BuiltIn, Form),
    Evaluate(Expression),
}

/// What a body is written from and to.
struct Render<'a> {
    out: &'a mut Writer,
    scope: &'a Scope<'a>,
    columns: &'a [NamedColumn],
    faults: &'a mut Faults,
}

impl Template {
    pub(crate) fn json(root: &Node, relation: &Relation, columns: Vec<NamedColumn>) -> Self {
        let mut steps = Vec::new();
        compile(root, relation, &mut steps);
        Self { steps, columns }
    }

    pub(crate) fn text(pieces: &[Piece], relation: &Relation, columns: Vec<NamedColumn>) -> Self {
        let mut steps = Vec::new();
        for piece in pieces {
            match piece {
                Piece::Literal(text) => raw(&mut steps, text.as_bytes()),
                Piece::Value(expression) => {
                    steps.push(Step::Value(Slot::compile(expression, relation), Around::Text));
                }
            }
        }
        Self { steps, columns }
    }

    pub(crate) fn write(&self, out: &mut Writer, scope: &Scope<'_>, faults: &mut Faults) {
        // All of its expressions together make no more than one may: a body is one allocation.
        let row = scope.change.op.bytes();
        let within = meter::within(row, || {
            Render { out, scope, columns: &self.columns, faults }.steps(&self.steps);
        });
        debug_assert!(within.is_ok(), "each expression has steps of its own, and tells of them");
    }
}

/// Appends to the last step where that is literal too, so that a body is few copies.
fn raw(steps: &mut Vec<Step>, text: &[u8]) {
    match steps.last_mut() {
        Some(Step::Raw(before)) => before.extend_from_slice(text),
        _ => steps.push(Step::Raw(text.to_vec())),
    }
}

fn compile(node: &Node, relation: &Relation, steps: &mut Vec<Step>) {
    match node {
        Node::Literal(json) => raw(steps, json.as_bytes()),
        Node::Value(expression) => {
            steps.push(Step::Value(Slot::compile(expression, relation), Around::Json));
        }
        Node::Text(pieces) => {
            raw(steps, b"\"");
            for piece in pieces {
                match piece {
                    Piece::Literal(text) => {
                        let mut escaped = Vec::new();
                        crate::flow::body::escape_into(&mut escaped, text.as_bytes());
                        raw(steps, &escaped);
                    }
                    Piece::Value(expression) => {
                        let slot = Slot::compile(expression, relation);
                        steps.push(Step::Value(slot, Around::String));
                    }
                }
            }
            raw(steps, b"\"");
        }
        Node::List(items) => {
            raw(steps, b"[");
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    raw(steps, b",");
                }
                compile(item, relation, steps);
            }
            raw(steps, b"]");
        }
        Node::Object(members) if members.iter().any(|member| member.optional) => {
            let members = members.iter().map(|member| {
                let mut value = Vec::new();
                compile(&member.value, relation, &mut value);
                Member { label: label(&member.name), value, optional: member.optional }
            });
            steps.push(Step::Object(members.collect()));
        }
        Node::Object(members) => {
            raw(steps, b"{");
            for (index, member) in members.iter().enumerate() {
                if index > 0 {
                    raw(steps, b",");
                }
                raw(steps, &label(&member.name));
                compile(&member.value, relation, steps);
            }
            raw(steps, b"}");
        }
    }
}

fn label(name: &str) -> Vec<u8> {
    let mut label = Vec::new();
    datum::write_string(&mut label, name.as_bytes());
    label.push(b':');
    label
}

impl Slot {
    /// A plain name where there is one, else the expression: also for a column that the relation
    /// does not have, so that its evaluation says so.
    fn compile(expression: &Expression, relation: &Relation) -> Self {
        let evaluate = || Self::Evaluate(expression.clone());
        let Some((reference, form)) = expression.plain() else { return evaluate() };
        let (name, old) = match reference {
            Reference::Column(name) => (name, false),
            Reference::Old(name) => (name, true),
            Reference::BuiltIn(name) => return Self::built_in(name, form).unwrap_or_else(evaluate),
        };
        let column =
            relation.column(name).and_then(|index| Some((index, relation.columns.get(index)?)));
        let Some((index, column)) = column else { return evaluate() };
        let sql_type = Arc::clone(&column.sql_type);
        let form = match (form, &*sql_type) {
            (Form::Int, SqlType::Timestamp | SqlType::TimestampTz) => Form::Int,
            (Form::Int, SqlType::Integer) => Form::AsIs,
            (Form::Int, _) => return evaluate(),
            (form, _) => form,
        };
        Self::Column { index, sql_type, old, form }
    }

    fn built_in(name: BuiltIn, form: Form) -> Option<Self> {
        let simple = match name {
            BuiltIn::Now | BuiltIn::Committed => true,
            BuiltIn::Op | BuiltIn::Event | BuiltIn::EventId | BuiltIn::Table | BuiltIn::Age => {
                form != Form::Int
            }
            BuiltIn::Row | BuiltIn::Old | BuiltIn::Changes | BuiltIn::Metadata => {
                form == Form::AsIs
            }
        };
        simple.then_some(Self::BuiltIn(name, form))
    }
}

impl Render<'_> {
    fn steps(&mut self, steps: &[Step]) {
        for step in steps {
            match step {
                Step::Raw(text) => self.out.raw(text),
                Step::Value(slot, around) => self.slot(slot, *around),
                Step::Object(members) => self.object(members),
            }
        }
    }

    fn object(&mut self, members: &[Member]) {
        let mut separator = "{";
        for member in members {
            let mut evaluated = None;
            if let (true, [Step::Value(slot, _)]) = (member.optional, member.value.as_slice()) {
                match slot {
                    Slot::Evaluate(expression) => evaluated = Some(self.json_of(expression)),
                    _ if self.is_null(slot) => continue,
                    _ => {}
                }
            }
            if evaluated.as_deref() == Some(b"null") {
                continue;
            }
            self.out.raw(separator);
            separator = ",";
            self.out.raw(&member.label);
            match evaluated {
                Some(json) => self.out.json(&json),
                None => self.steps(&member.value),
            }
        }
        self.out.raw(if separator == "{" { "{}" } else { "}" });
    }

    fn is_null(&self, slot: &Slot) -> bool {
        let change = self.scope.change;
        match slot {
            Slot::Column { index, old, sql_type, form } => match self.value(*index, *old) {
                Some((_, Value::Text(text))) => {
                    *form == Form::Int && datum::epoch_seconds(sql_type, text).is_none()
                }
                _ => true,
            },
            Slot::BuiltIn(BuiltIn::Metadata, _) => change.metadata.is_none(),
            Slot::BuiltIn(BuiltIn::Row, _) => matches!(change.op, Op::Truncate),
            Slot::BuiltIn(BuiltIn::Old, _) => payload::old_of(&change.op).is_none(),
            Slot::BuiltIn(BuiltIn::Changes, _) => !matches!(change.op, Op::Update { .. }),
            Slot::BuiltIn(..) | Slot::Evaluate(_) => false,
        }
    }

    /// A column's value and the row that it is in; `None` if PostgreSQL did not send it.
    fn value(&self, index: usize, old: bool) -> Option<(&Tuple, Value<'_>)> {
        let change = self.scope.change;
        let place =
            if old { image::previous(change, index) } else { image::current(change, index) };
        match place {
            Image::In(row) => Some((row, row.value(index))),
            Image::None | Image::Unknown => None,
        }
    }

    fn slot(&mut self, slot: &Slot, around: Around) {
        match slot {
            Slot::Column { index, sql_type, old, form } => {
                self.column(*index, sql_type, *old, *form, around);
            }
            Slot::BuiltIn(name, form) => self.built_in(*name, *form, around),
            Slot::Evaluate(expression) => {
                let json = self.json_of(expression);
                self.json(&json, around);
            }
        }
    }

    fn column(&mut self, index: usize, sql_type: &SqlType, old: bool, form: Form, around: Around) {
        let change = self.scope.change;
        let place =
            if old { image::previous(change, index) } else { image::current(change, index) };
        let row = match place {
            Image::In(row) => row,
            Image::None | Image::Unknown => return self.json(b"null", around),
        };
        let Value::Text(text) = row.value(index) else { return self.json(b"null", around) };
        match (form, around, sql_type) {
            (Form::Int, _, _) => match datum::epoch_seconds(sql_type, text) {
                Some(seconds) => self.out.raw(seconds.to_string()),
                None => self.json(b"null", around),
            },
            (Form::AsIs, Around::Json, _) | (Form::String, Around::Json, SqlType::Text) => {
                self.out.column(row, index, sql_type);
            }
            (_, Around::String, SqlType::Text) => self.out.escaped_column(row, index),
            (_, Around::Text, SqlType::Text) => self.out.raw_column(row, index),
            (_, _, _) => {
                let mut json = Vec::new();
                datum::write_json(&mut json, sql_type, text);
                match (around, json.first()) {
                    // `string(id)`: what is no string yet becomes one.
                    (Around::Json, Some(b'"')) => self.out.json(&json),
                    (Around::Json, _) => self.out.string(&json),
                    (Around::String | Around::Text, _) => self.json(&json, around),
                }
            }
        }
    }

    fn built_in(&mut self, name: BuiltIn, form: Form, around: Around) {
        let change = self.scope.change;
        let quote = if around == Around::Json { "\"" } else { "" };
        match (name, form) {
            (BuiltIn::Now, Form::Int) => self.out.attempt_seconds(),
            (BuiltIn::Now, _) => {
                self.out.raw(quote);
                self.out.attempt_iso();
                self.out.raw(quote);
            }
            (BuiltIn::Age, Form::AsIs) => self.out.age_seconds(self.scope.born),
            (BuiltIn::Age, _) => {
                self.out.raw(quote);
                self.out.age_seconds(self.scope.born);
                self.out.raw(quote);
            }
            (BuiltIn::Committed, Form::Int) => {
                self.out.raw(change.committed.seconds().to_string());
            }
            (BuiltIn::Committed, _) => self.text(&change.committed.iso_millis(), around),
            (BuiltIn::Op, _) => self.text(scope::op(&change.op), around),
            (BuiltIn::Event, _) => self.text(self.scope.event_type, around),
            (BuiltIn::EventId, _) => self.text(&self.scope.id.to_string(), around),
            (BuiltIn::Table, _) => self.text(&change.relation.table.to_string(), around),
            (BuiltIn::Row | BuiltIn::Old | BuiltIn::Changes | BuiltIn::Metadata, _) => {
                if around == Around::Json {
                    return whole(self.out, name, self.columns, self.scope);
                }
                let mut apart = Writer::default();
                whole(&mut apart, name, self.columns, self.scope);
                let json = apart.finish().complete(self.scope.now);
                self.json(&json, around);
            }
        }
    }

    /// Writes a text that is not JSON yet.
    fn text(&mut self, text: &str, around: Around) {
        match around {
            Around::Json => self.out.string(text.as_bytes()),
            Around::String => self.out.escaped(text.as_bytes()),
            Around::Text => self.out.raw(text),
        }
    }

    /// Writes a JSON value; within a text null is nothing, and a string is what is between its quotes.
    fn json(&mut self, json: &[u8], around: Around) {
        match (around, json) {
            (Around::Json, json) => self.out.json(json),
            (_, b"null") => {}
            // Its inside is escaped as it has to be.
            (Around::String, [b'"', inside @ .., b'"']) => self.out.raw(inside),
            (Around::String, json) => self.out.escaped(json),
            (Around::Text, [b'"', ..]) => match serde_json::from_slice::<String>(json) {
                Ok(text) => self.out.raw(text),
                // A lone surrogate has no text.
                Err(_) => self.out.raw(json),
            },
            (Around::Text, json) => self.out.raw(json),
        }
    }

    /// The value of an expression; null if it has none.
    fn json_of(&mut self, expression: &Expression) -> Vec<u8> {
        let mut json = Vec::new();
        let value = self.scope.evaluate(expression);
        let written = value.and_then(|value| write_value(&mut json, &value));
        if let Err(fault) = written {
            self.faults.push((Arc::from(expression.source()), fault));
            json = b"null".to_vec();
        }
        json
    }
}

/// Writes `row`, `old`, `changes` or `metadata`.
fn whole(out: &mut Writer, name: BuiltIn, columns: &[NamedColumn], scope: &Scope<'_>) {
    let change = scope.change;
    match name {
        BuiltIn::Row => payload::data(out, columns, change),
        BuiltIn::Old => match payload::old_of(&change.op) {
            Some(old) => payload::old_object(out, columns, old, change),
            None => out.raw("null"),
        },
        BuiltIn::Changes => match &change.op {
            Op::Update { .. } => payload::changes(out, columns, change),
            _ => out.raw("null"),
        },
        _ => match &change.metadata {
            Some(metadata) => payload::metadata(out, metadata),
            None => out.raw("null"),
        },
    }
}

#[cfg(test)]
mod tests;
