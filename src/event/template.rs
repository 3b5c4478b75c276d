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

mod render;
mod steps;

use crate::event::expression_fault::RenderFaults;
use crate::event::scope::EvaluationScope;
use crate::event::template::render::ROWS_MAX;
use crate::event::template::render::RenderState;
use crate::event::template::steps::AroundText;
use crate::event::template::steps::RenderStep;
use crate::event::template::steps::ValueSlot;
use crate::event::template::steps::compile;
use crate::event::template::steps::raw;
use crate::event::writer::JsonWriter;
use crate::event::writer::NamedColumn;
use crate::expression::meter;
use crate::expression::template::TemplateNode;
use crate::expression::template::TemplatePiece;
use crate::flow::body::BODY_BYTES_MAX;
use crate::flow::relation::Relation;

#[derive(Debug)]
pub(crate) struct CompiledTemplate {
    steps: Vec<RenderStep>,
    /// For `row`, `old` and `changes`.
    columns: Vec<NamedColumn>,
}

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

#[cfg(test)]
mod tests;
