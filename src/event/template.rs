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

use crate::config::expression::Expression;
use crate::config::expression::meter;
use crate::config::expression::named_columns::BuiltInName;
use crate::config::expression::named_columns::ColumnReference;
use crate::config::expression::named_columns::ExpressionForm;
use crate::config::template::TemplateNode;
use crate::config::template::TemplatePiece;
use crate::event::column_change;
use crate::event::column_change::RowImage;
use crate::event::datum;
use crate::event::expression_fault::RenderFaults;
use crate::event::row_object;
use crate::event::scope::EvaluationScope;
use crate::event::value::write_value;
use crate::event::writer::JsonWriter;
use crate::event::writer::NamedColumn;
use crate::flow::body::BODY_BYTES_MAX;
use crate::flow::change::ChangeOp;
use crate::flow::change::ColumnValue;
use crate::flow::change::RowTuple;
use crate::flow::relation::Relation;
use crate::flow::relation::SqlType;

#[derive(Debug)]
pub(crate) struct CompiledTemplate {
    steps: Vec<RenderStep>,
    /// For `row`, `old` and `changes`.
    columns: Vec<NamedColumn>,
}

#[derive(Debug)]
enum RenderStep {
    Raw(Vec<u8>),
    Value(ValueSlot, AroundText),
    /// An object some of whose members may be left out.
    Object(Vec<CompiledMember>),
}

/// What stands around a value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum AroundText {
    /// Nothing: the value is JSON.
    Json,
    /// A JSON string, of which it is a part.
    String,
    /// A text that is no JSON.
    Text,
}

#[derive(Debug)]
struct CompiledMember {
    /// `"name":`
    label: Vec<u8>,
    value: Vec<RenderStep>,
    /// Left out when null; `value` is one [`RenderStep::Value`].
    optional: bool,
}

#[derive(Debug)]
enum ValueSlot {
    Column { index: usize, sql_type: Arc<SqlType>, old: bool, form: ExpressionForm },
    BuiltIn(BuiltInName, ExpressionForm),
    Evaluate(Expression),
}

/// What a body is written from and to.
struct RenderState<'a> {
    out: &'a mut JsonWriter,
    scope: &'a EvaluationScope<'a>,
    columns: &'a [NamedColumn],
    faults: &'a mut RenderFaults,
    /// Bytes at which the body is given up.
    most: usize,
}

/// A body may have the row so many times, in copies or slices, beside what an evaluation may make.
const ROWS_MAX: usize = 4;

/// The longest body that a template may make of a row of so many bytes. A payload of some kilobytes that
/// names a column a thousand times would else make gigabytes of one row.
fn longest_body(row_bytes: usize) -> usize {
    let made = usize::try_from(meter::BYTES_MAX).unwrap_or(usize::MAX);
    row_bytes.saturating_mul(ROWS_MAX).saturating_add(made).min(BODY_BYTES_MAX)
}

impl CompiledTemplate {
    pub(crate) fn json(
        root: &TemplateNode,
        relation: &Relation,
        columns: Vec<NamedColumn>,
    ) -> Self {
        let mut steps = Vec::new();
        compile(root, relation, &mut steps);
        Self { steps, columns }
    }

    pub(crate) fn text(
        pieces: &[TemplatePiece],
        relation: &Relation,
        columns: Vec<NamedColumn>,
    ) -> Self {
        let mut steps = Vec::new();
        for piece in pieces {
            match piece {
                TemplatePiece::Literal(text) => raw(&mut steps, text.as_bytes()),
                TemplatePiece::Value(expression) => {
                    steps.push(RenderStep::Value(
                        ValueSlot::compile(expression, relation),
                        AroundText::Text,
                    ));
                }
            }
        }
        Self { steps, columns }
    }

    /// `false` if the body would be longer than one may be.
    pub(crate) fn write(
        &self,
        out: &mut JsonWriter,
        scope: &EvaluationScope<'_>,
        faults: &mut RenderFaults,
    ) -> bool {
        // All of its expressions together make no more than one may: a body is one allocation.
        let row = scope.change.op.bytes();
        let mut state =
            RenderState { out, scope, columns: &self.columns, faults, most: longest_body(row) };
        let within = meter::within(row, || state.steps(&self.steps));
        debug_assert!(within.is_ok(), "each expression has steps of its own, and tells of them");
        !state.is_over()
    }
}

/// Appends to the last step where that is literal too, so that a body is few copies.
fn raw(steps: &mut Vec<RenderStep>, text: &[u8]) {
    match steps.last_mut() {
        Some(RenderStep::Raw(before)) => before.extend_from_slice(text),
        _ => steps.push(RenderStep::Raw(text.to_vec())),
    }
}

fn compile(node: &TemplateNode, relation: &Relation, steps: &mut Vec<RenderStep>) {
    match node {
        TemplateNode::Literal(json) => raw(steps, json.as_bytes()),
        TemplateNode::Value(expression) => {
            steps.push(RenderStep::Value(
                ValueSlot::compile(expression, relation),
                AroundText::Json,
            ));
        }
        TemplateNode::Text(pieces) => {
            raw(steps, b"\"");
            for piece in pieces {
                match piece {
                    TemplatePiece::Literal(text) => {
                        let mut escaped = Vec::new();
                        crate::flow::body::escape_into(&mut escaped, text.as_bytes());
                        raw(steps, &escaped);
                    }
                    TemplatePiece::Value(expression) => {
                        let slot = ValueSlot::compile(expression, relation);
                        steps.push(RenderStep::Value(slot, AroundText::String));
                    }
                }
            }
            raw(steps, b"\"");
        }
        TemplateNode::List(items) => {
            raw(steps, b"[");
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    raw(steps, b",");
                }
                compile(item, relation, steps);
            }
            raw(steps, b"]");
        }
        TemplateNode::Object(members) if members.iter().any(|member| member.optional) => {
            let members = members.iter().map(|member| {
                let mut value = Vec::new();
                compile(&member.value, relation, &mut value);
                CompiledMember { label: label(&member.name), value, optional: member.optional }
            });
            steps.push(RenderStep::Object(members.collect()));
        }
        TemplateNode::Object(members) => {
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

impl ValueSlot {
    /// A plain name where there is one, else the expression: also for a column that the relation
    /// does not have, so that its evaluation says so.
    fn compile(expression: &Expression, relation: &Relation) -> Self {
        let evaluate = || Self::Evaluate(expression.clone());
        let Some((reference, form)) = expression.plain() else { return evaluate() };
        let (name, old) = match reference {
            ColumnReference::Column(name) => (name, false),
            ColumnReference::Old(name) => (name, true),
            ColumnReference::BuiltIn(name) => {
                return Self::built_in(name, form).unwrap_or_else(evaluate);
            }
        };
        let column =
            relation.column(name).and_then(|index| Some((index, relation.columns.get(index)?)));
        let Some((index, column)) = column else { return evaluate() };
        let sql_type = Arc::clone(&column.sql_type);
        let form = match (form, &*sql_type) {
            (ExpressionForm::Int, SqlType::Timestamp | SqlType::TimestampTz) => ExpressionForm::Int,
            (ExpressionForm::Int, SqlType::Integer) => ExpressionForm::AsIs,
            (ExpressionForm::Int, _) => return evaluate(),
            (form, _) => form,
        };
        Self::Column { index, sql_type, old, form }
    }

    fn built_in(name: BuiltInName, form: ExpressionForm) -> Option<Self> {
        let simple = match name {
            BuiltInName::Now | BuiltInName::Committed => true,
            BuiltInName::Op
            | BuiltInName::Event
            | BuiltInName::EventId
            | BuiltInName::Table
            | BuiltInName::Age => form != ExpressionForm::Int,
            BuiltInName::Row | BuiltInName::Old | BuiltInName::Changes | BuiltInName::Metadata => {
                form == ExpressionForm::AsIs
            }
        };
        simple.then_some(Self::BuiltIn(name, form))
    }
}

impl RenderState<'_> {
    fn is_over(&self) -> bool {
        self.out.written() > self.most
    }

    fn steps(&mut self, steps: &[RenderStep]) {
        for step in steps {
            if self.is_over() {
                return;
            }
            match step {
                RenderStep::Raw(text) => self.out.raw(text),
                RenderStep::Value(slot, around) => self.slot(slot, *around),
                RenderStep::Object(members) => self.object(members),
            }
        }
    }

    fn object(&mut self, members: &[CompiledMember]) {
        let mut separator = "{";
        for member in members {
            let mut evaluated = None;
            if let (true, [RenderStep::Value(slot, _)]) = (member.optional, member.value.as_slice())
            {
                match slot {
                    ValueSlot::Evaluate(expression) => evaluated = Some(self.json_of(expression)),
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

    fn is_null(&self, slot: &ValueSlot) -> bool {
        let change = self.scope.change;
        match slot {
            ValueSlot::Column { index, old, sql_type, form } => match self.value(*index, *old) {
                Some((_, ColumnValue::Text(text))) => {
                    *form == ExpressionForm::Int && datum::epoch_seconds(sql_type, text).is_none()
                }
                _ => true,
            },
            ValueSlot::BuiltIn(BuiltInName::Metadata, _) => change.metadata.is_none(),
            ValueSlot::BuiltIn(BuiltInName::Row, _) => {
                matches!(change.op, ChangeOp::Truncate | ChangeOp::Schema)
            }
            ValueSlot::BuiltIn(BuiltInName::Old, _) => row_object::old_of(&change.op).is_none(),
            ValueSlot::BuiltIn(BuiltInName::Changes, _) => {
                !matches!(change.op, ChangeOp::Update { .. })
            }
            ValueSlot::BuiltIn(..) | ValueSlot::Evaluate(_) => false,
        }
    }

    /// A column's value and the row that it is in; `None` if PostgreSQL did not send it.
    fn value(&self, index: usize, old: bool) -> Option<(&RowTuple, ColumnValue<'_>)> {
        let change = self.scope.change;
        let place = if old {
            column_change::previous(change, index)
        } else {
            column_change::current(change, index)
        };
        match place {
            RowImage::In(row) => Some((row, row.value(index))),
            RowImage::None | RowImage::Unknown => None,
        }
    }

    fn slot(&mut self, slot: &ValueSlot, around: AroundText) {
        match slot {
            ValueSlot::Column { index, sql_type, old, form } => {
                self.column(*index, sql_type, *old, *form, around);
            }
            ValueSlot::BuiltIn(name, form) => self.built_in(*name, *form, around),
            ValueSlot::Evaluate(expression) => {
                let json = self.json_of(expression);
                self.json(&json, around);
            }
        }
    }

    fn column(
        &mut self,
        index: usize,
        sql_type: &SqlType,
        old: bool,
        form: ExpressionForm,
        around: AroundText,
    ) {
        let change = self.scope.change;
        let place = if old {
            column_change::previous(change, index)
        } else {
            column_change::current(change, index)
        };
        let row = match place {
            RowImage::In(row) => row,
            RowImage::None | RowImage::Unknown => return self.json(b"null", around),
        };
        let ColumnValue::Text(text) = row.value(index) else { return self.json(b"null", around) };
        match (form, around, sql_type) {
            (ExpressionForm::Int, _, _) => match datum::epoch_seconds(sql_type, text) {
                Some(seconds) => self.out.raw(seconds.to_string()),
                None => self.json(b"null", around),
            },
            (ExpressionForm::AsIs, AroundText::Json, _)
            | (ExpressionForm::String, AroundText::Json, SqlType::Text) => {
                self.out.column(row, index, sql_type);
            }
            (_, AroundText::String, SqlType::Text) => self.out.escaped_column(row, index),
            (_, AroundText::Text, SqlType::Text) => self.out.raw_column(row, index),
            (_, _, _) => {
                let mut json = Vec::new();
                datum::write_json(&mut json, sql_type, text);
                match (around, json.first()) {
                    // `string(id)`: what is no string yet becomes one.
                    (AroundText::Json, Some(b'"')) => self.out.json(&json),
                    (AroundText::Json, _) => self.out.string(&json),
                    (AroundText::String | AroundText::Text, _) => self.json(&json, around),
                }
            }
        }
    }

    fn built_in(&mut self, name: BuiltInName, form: ExpressionForm, around: AroundText) {
        let change = self.scope.change;
        let quote = if around == AroundText::Json { "\"" } else { "" };
        match (name, form) {
            (BuiltInName::Now, ExpressionForm::Int) => self.out.attempt_seconds(),
            (BuiltInName::Now, _) => {
                self.out.raw(quote);
                self.out.attempt_iso();
                self.out.raw(quote);
            }
            (BuiltInName::Age, ExpressionForm::AsIs) => self.out.age_seconds(self.scope.born),
            (BuiltInName::Age, _) => {
                self.out.raw(quote);
                self.out.age_seconds(self.scope.born);
                self.out.raw(quote);
            }
            (BuiltInName::Committed, ExpressionForm::Int) => {
                self.out.raw(change.committed.seconds().to_string());
            }
            (BuiltInName::Committed, _) => self.text(&change.committed.iso_millis(), around),
            (BuiltInName::Op, _) => self.text(row_object::op(&change.op), around),
            (BuiltInName::Event, _) => self.text(self.scope.event_type, around),
            (BuiltInName::EventId, _) => self.text(&self.scope.id.to_string(), around),
            (BuiltInName::Table, _) => self.text(&change.relation.table.to_string(), around),
            (
                BuiltInName::Row | BuiltInName::Old | BuiltInName::Changes | BuiltInName::Metadata,
                _,
            ) => {
                if around == AroundText::Json {
                    return whole(self.out, name, self.columns, self.scope);
                }
                let mut apart = JsonWriter::default();
                whole(&mut apart, name, self.columns, self.scope);
                let json = apart.finish().complete(self.scope.now);
                self.json(&json, around);
            }
        }
    }

    /// Writes a text that is not JSON yet.
    fn text(&mut self, text: &str, around: AroundText) {
        match around {
            AroundText::Json => self.out.string(text.as_bytes()),
            AroundText::String => self.out.escaped(text.as_bytes()),
            AroundText::Text => self.out.raw(text),
        }
    }

    /// Writes a JSON value; within a text null is nothing, and a string is what is between its quotes.
    fn json(&mut self, json: &[u8], around: AroundText) {
        match (around, json) {
            (AroundText::Json, json) => self.out.json(json),
            (_, b"null") => {}
            // Its inside is escaped as it has to be.
            (AroundText::String, [b'"', inside @ .., b'"']) => self.out.raw(inside),
            (AroundText::String, json) => self.out.escaped(json),
            (AroundText::Text, [b'"', ..]) => match serde_json::from_slice::<String>(json) {
                Ok(text) => self.out.raw(text),
                // A lone surrogate has no text.
                Err(_) => self.out.raw(json),
            },
            (AroundText::Text, json) => self.out.raw(json),
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
fn whole(
    out: &mut JsonWriter,
    name: BuiltInName,
    columns: &[NamedColumn],
    scope: &EvaluationScope<'_>,
) {
    let change = scope.change;
    match name {
        BuiltInName::Row => row_object::data(out, columns, change),
        BuiltInName::Old => match row_object::old_of(&change.op) {
            Some(old) => row_object::old_object(out, columns, old, change),
            None => out.raw("null"),
        },
        BuiltInName::Changes => match &change.op {
            ChangeOp::Update { .. } => row_object::changes(out, columns, change),
            _ => out.raw("null"),
        },
        _ => match &change.metadata {
            Some(metadata) => row_object::metadata(out, metadata),
            None => out.raw("null"),
        },
    }
}

#[cfg(test)]
mod tests;
