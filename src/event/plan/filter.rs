//! The row filter (`when`) of a rule, compiled for one table.

use crate::config::settings::EventFilter;
use crate::event::expression_fault::RenderFaults;
use crate::event::row_object;
use crate::event::scope::EvaluationScope;
use crate::expression::Expression;
use crate::flow::change::ColumnValue;
use crate::flow::change::RowTuple;
use crate::flow::relation::Relation;

/// A [`EventFilter`] against one relation.
#[derive(Debug)]
pub(crate) enum RowFilter {
    Open,
    /// The column's index; `None` where the relation has no such column: nothing passes.
    NotBlank(Option<usize>),
    When(Expression),
    Both(Box<RowFilter>, Box<RowFilter>),
}

impl RowFilter {
    pub(crate) fn compile(filter: &EventFilter, relation: &Relation) -> Self {
        match filter {
            EventFilter::NotBlank { column } => Self::NotBlank(relation.column(column)),
            EventFilter::When(expression) => Self::When(expression.clone()),
            EventFilter::Both(one, other) => {
                let compile = |filter| Box::new(Self::compile(filter, relation));
                Self::Both(compile(one), compile(other))
            }
        }
    }

    pub(crate) fn admits(&self, scope: &EvaluationScope<'_>, faults: &mut RenderFaults) -> bool {
        match self {
            Self::Open => true,
            Self::NotBlank(column) => match row_object::row_of(&scope.change.op) {
                None => true,
                Some(row) => column.is_some_and(|column| !is_blank(row, column)),
            },
            Self::When(expression) => scope.holds(expression, faults),
            Self::Both(one, other) => one.admits(scope, faults) && other.admits(scope, faults),
        }
    }
}

/// Null, or nothing but white space. A value that PostgreSQL did not send was there before.
fn is_blank(row: &RowTuple, column: usize) -> bool {
    match row.value(column) {
        ColumnValue::Null => true,
        ColumnValue::Unchanged => false,
        ColumnValue::Text(text) => {
            std::str::from_utf8(text).is_ok_and(|text| text.trim().is_empty())
        }
    }
}
