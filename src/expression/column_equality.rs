//! Filters of the form `column == constant` or `column in [...]`, whose endpoints are found through an index.
//!
//! `plan == "pro"`, `id in [1, 2]`, and whatever stands beside one of these with `&&`. Who takes
//! events by such an expression is found by the row's value, however many others there are.

use std::sync::Arc;

use cel::common::ast::Expr;
use cel::common::ast::IdedExpr;
use cel::common::ast::LiteralValue;
use cel::common::ast::operators;

use crate::expression::Expression;
use crate::expression::named_columns::ColumnReference;
use crate::expression::syntax;

/// An expression that is not true unless `column` has one of `values`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EqualityIndex<'a> {
    pub column: &'a str,
    pub values: Vec<ConstantValue>,
    /// Whether it is true then, without another condition.
    pub suffices: bool,
}

/// A value that an expression names.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum ConstantValue {
    Null,
    Bool(bool),
    Int(i64),
    Text(Arc<str>),
}

impl Expression {
    /// The column and values without which the expression is not true. `None` if there is none, or
    /// none that is compared with such constants.
    pub fn equality(&self) -> Option<EqualityIndex<'_>> {
        of(self.program.expression())
    }
}

fn of(node: &IdedExpr) -> Option<EqualityIndex<'_>> {
    let Expr::Call(call) = &node.expr else { return None };
    let (None, [left, right]) = (&call.target, call.args.as_slice()) else { return None };
    match call.func_name.as_str() {
        operators::EQUALS => {
            let (column, other) = match column(left) {
                Some(column) => (column, right),
                None => (column(right)?, left),
            };
            Some(EqualityIndex { column, values: vec![constant(other)?], suffices: true })
        }
        operators::IN => {
            let Expr::List(list) = &right.expr else { return None };
            if !list.optional_indices.is_empty() {
                return None;
            }
            let values = list.elements.iter().map(constant).collect::<Option<Vec<_>>>()?;
            Some(EqualityIndex { column: column(left)?, values, suffices: true })
        }
        // Whatever the other side is, also if it has no value: together they are not true.
        operators::LOGICAL_AND => {
            let found = of(left).or_else(|| of(right))?;
            Some(EqualityIndex { suffices: false, ..found })
        }
        operators::LOGICAL_OR => {
            let (one, other) = (of(left)?, of(right)?);
            if one.column != other.column {
                return None;
            }
            let suffices = one.suffices && other.suffices;
            let values = one.values.into_iter().chain(other.values).collect();
            Some(EqualityIndex { column: one.column, values, suffices })
        }
        _ => None,
    }
}

fn column(node: &IdedExpr) -> Option<&str> {
    match syntax::reference(&node.expr)? {
        ColumnReference::Column(name) => Some(name),
        ColumnReference::Old(_) | ColumnReference::BuiltIn(_) => None,
    }
}

/// `None` for what may equal values of another type, as `5.0` does `5`.
fn constant(node: &IdedExpr) -> Option<ConstantValue> {
    let Expr::Literal(literal) = &node.expr else { return None };
    match literal {
        LiteralValue::Null => Some(ConstantValue::Null),
        LiteralValue::Boolean(value) => Some(ConstantValue::Bool(*value.inner())),
        LiteralValue::Int(value) => Some(ConstantValue::Int(*value.inner())),
        LiteralValue::String(text) => Some(ConstantValue::Text(Arc::from(text.inner()))),
        LiteralValue::Bytes(_) | LiteralValue::Double(_) | LiteralValue::UInt(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_says_which_values_it_needs() {
        let text = |text: &str| ConstantValue::Text(Arc::from(text));
        let int = ConstantValue::Int;
        let found = |column, values, suffices| Some(EqualityIndex { column, values, suffices });
        let cases: [(&str, Option<EqualityIndex<'_>>); 22] = [
            ("plan == 'pro'", found("plan", vec![text("pro")], true)),
            ("'pro' == row.plan", found("plan", vec![text("pro")], true)),
            ("row['my plan'] == 'pro'", found("my plan", vec![text("pro")], true)),
            ("(k == -7)", found("k", vec![int(-7)], true)),
            ("k in [1, 2]", found("k", vec![int(1), int(2)], true)),
            ("k in []", found("k", vec![], true)),
            ("k == 1 || k == 2", found("k", vec![int(1), int(2)], true)),
            ("k == 1 || k == 2 && size(a) > 3", found("k", vec![int(1), int(2)], false)),
            ("k == null", found("k", vec![ConstantValue::Null], true)),
            ("gone == true", found("gone", vec![ConstantValue::Bool(true)], true)),
            ("k == 1 && total > 3.0", found("k", vec![int(1)], false)),
            ("total > 3.0 && op == 'insert' && k == 1", found("k", vec![int(1)], false)),
            ("total > 3.0", None),
            ("k == 1 || total > 3.0", None),
            ("k == 1 || j == 1", None),
            ("k == 1.0", None),
            ("k in [1, 2.0]", None),
            ("k == j", None),
            ("old.k == 1", None),
            ("op == 'insert'", None),
            ("!(k == 1)", None),
            ("k != 1", None),
        ];
        for (source, expected) in cases {
            let expression = Expression::parse(source).unwrap();
            assert_eq!(expression.equality(), expected, "case: {source}");
        }
    }
}
