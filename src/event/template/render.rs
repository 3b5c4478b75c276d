//! Writes a body from a compiled template and a row.

use std::sync::Arc;

use crate::event::column_change;
use crate::event::column_change::RowImage;
use crate::event::datum;
use crate::event::expression_fault::RenderFaults;
use crate::event::row_object;
use crate::event::scope::EvaluationScope;
use crate::event::template::steps::AroundText;
use crate::event::template::steps::CompiledMember;
use crate::event::template::steps::RenderStep;
use crate::event::template::steps::ValueSlot;
use crate::event::value::write_value;
use crate::event::writer::JsonWriter;
use crate::event::writer::NamedColumn;
use crate::expression::Expression;
use crate::expression::named_columns::BuiltInName;
use crate::expression::named_columns::ExpressionForm;
use crate::flow::change::ChangeOp;
use crate::flow::change::ColumnValue;
use crate::flow::change::RowTuple;
use crate::flow::relation::SqlType;

/// What a body is written from and to.
pub(super) struct RenderState<'a> {
    pub(super) out: &'a mut JsonWriter,
    pub(super) scope: &'a EvaluationScope<'a>,
    pub(super) columns: &'a [NamedColumn],
    pub(super) faults: &'a mut RenderFaults,
    /// Bytes at which the body is given up.
    pub(super) most: usize,
}

/// A body may have the row so many times, in copies or slices, beside what an evaluation may make.
pub(super) const ROWS_MAX: usize = 4;

impl RenderState<'_> {
    pub(super) fn is_over(&self) -> bool {
        self.out.written() > self.most
    }

    pub(super) fn steps(&mut self, steps: &[RenderStep]) {
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

    pub(super) fn object(&mut self, members: &[CompiledMember]) {
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
    pub(super) fn value(&self, index: usize, old: bool) -> Option<(&RowTuple, ColumnValue<'_>)> {
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

    pub(super) fn slot(&mut self, slot: &ValueSlot, around: AroundText) {
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

    pub(super) fn column(
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

    pub(super) fn built_in(&mut self, name: BuiltInName, form: ExpressionForm, around: AroundText) {
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
    pub(super) fn text(&mut self, text: &str, around: AroundText) {
        match around {
            AroundText::Json => self.out.string(text.as_bytes()),
            AroundText::String => self.out.escaped(text.as_bytes()),
            AroundText::Text => self.out.raw(text),
        }
    }

    /// Writes a JSON value; within a text null is nothing, and a string is what is between its quotes.
    pub(super) fn json(&mut self, json: &[u8], around: AroundText) {
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
