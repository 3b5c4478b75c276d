//! A template as it is written out: each expression is compiled for the columns of its relation.

use std::sync::Arc;

use crate::event::datum;
use crate::expression::Expression;
use crate::expression::named_columns::BuiltInName;
use crate::expression::named_columns::ColumnReference;
use crate::expression::named_columns::ExpressionForm;
use crate::expression::template::TemplateNode;
use crate::expression::template::TemplatePiece;
use crate::flow::relation::Relation;
use crate::flow::relation::SqlType;

#[derive(Debug)]
pub(super) enum RenderStep {
    Raw(Vec<u8>),
    Value(ValueSlot, AroundText),
    /// An object some of whose members may be left out.
    Object(Vec<CompiledMember>),
}

/// What stands around a value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum AroundText {
    /// Nothing: the value is JSON.
    Json,
    /// A JSON string, of which it is a part.
    String,
    /// A text that is no JSON.
    Text,
}

#[derive(Debug)]
pub(super) struct CompiledMember {
    /// `"name":`
    pub(super) label: Vec<u8>,
    pub(super) value: Vec<RenderStep>,
    /// Left out when null; `value` is one [`RenderStep::Value`].
    pub(super) optional: bool,
}

#[derive(Debug)]
pub(super) enum ValueSlot {
    Column { index: usize, sql_type: Arc<SqlType>, old: bool, form: ExpressionForm },
    BuiltIn(BuiltInName, ExpressionForm),
    Evaluate(Expression),
}

/// Appends to the last step where that is literal too, so that a body is few copies.
pub(super) fn raw(steps: &mut Vec<RenderStep>, text: &[u8]) {
    match steps.last_mut() {
        Some(RenderStep::Raw(before)) => before.extend_from_slice(text),
        _ => steps.push(RenderStep::Raw(text.to_vec())),
    }
}

pub(super) fn compile(node: &TemplateNode, relation: &Relation, steps: &mut Vec<RenderStep>) {
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

pub(super) fn label(name: &str) -> Vec<u8> {
    let mut label = Vec::new();
    datum::write_string(&mut label, name.as_bytes());
    label.push(b':');
    label
}

impl ValueSlot {
    /// A plain name where there is one, else the expression: also for a column that the relation
    /// does not have, so that its evaluation says so.
    pub(super) fn compile(expression: &Expression, relation: &Relation) -> Self {
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

    pub(super) fn built_in(name: BuiltInName, form: ExpressionForm) -> Option<Self> {
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
