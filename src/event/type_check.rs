//! Whether an expression's types fit a table's columns, before any row shows it.
//!
//! Pure. CEL evaluates without types: `v == '1'` on an integer column is false for ever, and
//! `when = "note"` on a text is neither true nor false. What the columns' types and the literals tell is
//! followed through the syntax tree; where they tell nothing (JSON, built-in maps, functions of several
//! results) nothing is said.

use cel::common::ast::CallExpr;
use cel::common::ast::Expr;
use cel::common::ast::IdedExpr;
use cel::common::ast::LiteralValue;
use cel::common::ast::operators;

use crate::expression::Expression;
use crate::expression::named_columns::BuiltInName;
use crate::expression::named_columns::ColumnReference;
use crate::flow::relation::Relation;
use crate::flow::relation::SqlType;

/// What kind of value a part of an expression has, as [`crate::event::scope`] makes it of columns.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum ValueKind {
    Bool,
    Number,
    String,
    Timestamp,
    Duration,
    Null,
    List,
    Map,
    /// Anything: only a row can tell.
    Unknown,
}

impl ValueKind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Bool => "a boolean",
            Self::Number => "a number",
            Self::String => "a text",
            Self::Timestamp => "a timestamp",
            Self::Duration => "a duration",
            Self::Null => "null",
            Self::List => "a list",
            Self::Map => "an object",
            Self::Unknown => "anything",
        }
    }

    /// Whether values of the two can be equal.
    fn meets(self, other: Self) -> bool {
        let either = |kind| self == kind || other == kind;
        self == other || either(Self::Unknown) || either(Self::Null)
    }
}

/// What the types say of a filter.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct TypeReport {
    /// Each place that does not fit, such as "compares column v, a number, with a text".
    pub misfits: Vec<String>,
    /// No row can make the filter true.
    pub is_never_true: bool,
}

/// Judges a filter on rows of `relation`.
pub(crate) fn check_filter(filter: &Expression, relation: &Relation) -> TypeReport {
    let mut checker = TypeChecker { relation, misfits: Vec::new() };
    let root = filter.tree();
    let kind = checker.kind(root);
    let is_no_boolean = !kind.meets(ValueKind::Bool) || kind == ValueKind::Null;
    if is_no_boolean {
        let kind = kind.as_str();
        checker.misfits.push(format!("is {kind}, and neither true nor false"));
    }
    let is_never_true = is_no_boolean || checker.is_never_true(root);
    TypeReport { misfits: checker.misfits, is_never_true }
}

/// The JSON type that an expression's value has on rows of `relation`, if the types tell.
pub(crate) fn json_type(expression: &Expression, relation: &Relation) -> Option<&'static str> {
    let mut checker = TypeChecker { relation, misfits: Vec::new() };
    match checker.kind(expression.tree()) {
        ValueKind::Bool => Some("boolean"),
        ValueKind::Number => Some("number"),
        ValueKind::String | ValueKind::Timestamp | ValueKind::Duration => Some("string"),
        ValueKind::List => Some("array"),
        ValueKind::Map => Some("object"),
        ValueKind::Null | ValueKind::Unknown => None,
    }
}

struct TypeChecker<'a> {
    relation: &'a Relation,
    misfits: Vec<String>,
}

impl TypeChecker<'_> {
    /// The kind of a part; notes what does not fit within it.
    fn kind(&mut self, part: &IdedExpr) -> ValueKind {
        if matches!(&part.expr, Expr::Select(select) if select.test) {
            return ValueKind::Bool; // has(x.y)
        }
        if let Some(reference) = reference(&part.expr) {
            return self.kind_of_reference(&reference);
        }
        match &part.expr {
            Expr::Literal(literal) => kind_of_literal(literal),
            Expr::List(list) => {
                for element in &list.elements {
                    self.kind(element);
                }
                ValueKind::List
            }
            Expr::Map(_) => ValueKind::Map,
            Expr::Call(call) => self.kind_of_call(call),
            // Their variables are not columns.
            Expr::Comprehension(_)
            | Expr::Ident(_)
            | Expr::Select(_)
            | Expr::Struct(_)
            | Expr::Unspecified => ValueKind::Unknown,
        }
    }

    fn kind_of_reference(&self, reference: &ColumnReference<'_>) -> ValueKind {
        let column = match reference {
            ColumnReference::Column(name) | ColumnReference::Old(name) => name,
            ColumnReference::BuiltIn(built_in) => return kind_of_built_in(*built_in),
        };
        let index = self.relation.column(column);
        let column = index.and_then(|index| self.relation.columns.get(index));
        column.map_or(ValueKind::Unknown, |column| kind_of_column(&column.sql_type))
    }

    fn kind_of_call(&mut self, call: &CallExpr) -> ValueKind {
        let name = call.func_name.as_str();
        match (name, call.args.as_slice()) {
            (operators::EQUALS | operators::NOT_EQUALS, [left, right]) => {
                self.compared(left, right);
                ValueKind::Bool
            }
            (
                operators::LESS
                | operators::LESS_EQUALS
                | operators::GREATER
                | operators::GREATER_EQUALS,
                [left, right],
            ) => {
                self.compared(left, right);
                ValueKind::Bool
            }
            (operators::IN, [element, list]) => {
                self.looked_up(element, list);
                ValueKind::Bool
            }
            (operators::LOGICAL_AND | operators::LOGICAL_OR | operators::LOGICAL_NOT, args) => {
                for arg in args {
                    let kind = self.kind(arg);
                    if !kind.meets(ValueKind::Bool) {
                        let (named, kind) = (self.named(arg), kind.as_str());
                        self.misfits.push(format!("takes {named}, {kind}, for true or false"));
                    }
                }
                ValueKind::Bool
            }
            (_, args) => {
                let target = call.target.as_deref();
                for arg in target.into_iter().chain(args) {
                    self.kind(arg);
                }
                kind_of_result(name)
            }
        }
    }

    fn compared(&mut self, left: &IdedExpr, right: &IdedExpr) {
        let (one, other) = (self.kind(left), self.kind(right));
        if !one.meets(other) {
            let (left, right) = (self.named(left), self.named(right));
            let (one, other) = (one.as_str(), other.as_str());
            self.misfits.push(format!("compares {left}, {one}, with {right}, {other}"));
        }
    }

    fn looked_up(&mut self, element: &IdedExpr, list: &IdedExpr) {
        let one = self.kind(element);
        let Expr::List(list) = &list.expr else {
            self.kind(list);
            return;
        };
        let others: Vec<ValueKind> = list.elements.iter().map(|item| self.kind(item)).collect();
        if let Some(other) = others.into_iter().find(|other| !one.meets(*other)) {
            let element = self.named(element);
            let (one, other) = (one.as_str(), other.as_str());
            self.misfits.push(format!("looks for {element}, {one}, in a list with {other}"));
        }
    }

    /// Whether no row can make this part true, as far as the types tell.
    fn is_never_true(&mut self, part: &IdedExpr) -> bool {
        let noted = self.misfits.len();
        let answer = match &part.expr {
            Expr::Literal(LiteralValue::Boolean(value)) => !*value.inner(),
            Expr::Call(call) => match (call.func_name.as_str(), call.args.as_slice()) {
                (operators::LOGICAL_AND, args) => args.iter().any(|arg| self.is_never_true(arg)),
                (operators::LOGICAL_OR, args) => args.iter().all(|arg| self.is_never_true(arg)),
                (operators::NOT_EQUALS, _) => false,
                (
                    operators::EQUALS
                    | operators::LESS
                    | operators::LESS_EQUALS
                    | operators::GREATER
                    | operators::GREATER_EQUALS,
                    [left, right],
                ) => {
                    let (one, other) = (self.kind(left), self.kind(right));
                    !one.meets(other)
                }
                (operators::IN, [element, list]) => {
                    let one = self.kind(element);
                    match &list.expr {
                        Expr::List(list) => {
                            list.elements.iter().all(|item| !one.meets(self.kind(item)))
                        }
                        _ => false,
                    }
                }
                _ => !self.kind(part).meets(ValueKind::Bool),
            },
            _ => !self.kind(part).meets(ValueKind::Bool),
        };
        // They are noted already.
        self.misfits.truncate(noted);
        answer
    }

    fn named(&self, part: &IdedExpr) -> String {
        match reference(&part.expr) {
            Some(ColumnReference::Column(name)) => format!("column {name}"),
            Some(ColumnReference::Old(name)) => format!("old.{name}"),
            Some(ColumnReference::BuiltIn(_)) | None => match &part.expr {
                Expr::Literal(_) => String::from("a constant"),
                Expr::Ident(name) => name.clone(),
                _ => String::from("a part"),
            },
        }
    }
}

fn reference(expr: &Expr) -> Option<ColumnReference<'_>> {
    Expression::reference_of(expr)
}

fn kind_of_literal(literal: &LiteralValue) -> ValueKind {
    match literal {
        LiteralValue::Boolean(_) => ValueKind::Bool,
        LiteralValue::Int(_) | LiteralValue::UInt(_) | LiteralValue::Double(_) => ValueKind::Number,
        LiteralValue::String(_) => ValueKind::String,
        LiteralValue::Null => ValueKind::Null,
        _ => ValueKind::Unknown,
    }
}

fn kind_of_built_in(built_in: BuiltInName) -> ValueKind {
    match built_in {
        BuiltInName::Op | BuiltInName::Event | BuiltInName::EventId | BuiltInName::Table => {
            ValueKind::String
        }
        BuiltInName::Committed | BuiltInName::Now => ValueKind::Timestamp,
        BuiltInName::Age => ValueKind::Duration,
        BuiltInName::Row | BuiltInName::Changes | BuiltInName::Metadata => ValueKind::Map,
        // Null where there was no old row.
        BuiltInName::Old => ValueKind::Unknown,
    }
}

/// As [`crate::event::scope`] turns a column's text into a value.
fn kind_of_column(sql_type: &SqlType) -> ValueKind {
    match sql_type {
        SqlType::Bool => ValueKind::Bool,
        SqlType::Integer | SqlType::Float | SqlType::Numeric => ValueKind::Number,
        SqlType::Timestamp | SqlType::TimestampTz => ValueKind::Timestamp,
        SqlType::Text | SqlType::Date => ValueKind::String,
        SqlType::Vector { .. } | SqlType::Array { .. } => ValueKind::List,
        SqlType::Composite { .. } => ValueKind::Map,
        _ => ValueKind::Unknown,
    }
}

/// What functions of one kind of result give.
fn kind_of_result(function: &str) -> ValueKind {
    match function {
        "contains" | "startsWith" | "endsWith" | "bool" => ValueKind::Bool,
        "int" | "uint" | "double" | "size" | "indexOf" | "lastIndexOf" => ValueKind::Number,
        "string" | "lowerAscii" | "upperAscii" | "trim" | "replace" | "substring" | "join"
        | "charAt" => ValueKind::String,
        "timestamp" => ValueKind::Timestamp,
        "duration" => ValueKind::Duration,
        "split" => ValueKind::List,
        _ => ValueKind::Unknown,
    }
}

#[cfg(test)]
mod tests;
