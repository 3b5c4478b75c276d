//! Expressions: CEL, the language of `when` filters and of `{{ }}` in payloads.
//!
//! ```text
//! walhook.toml ─ text ─▶ [parse] ─ Expression ─▶ event, which evaluates it on rows
//! ```
//!
//! Parsed once, when the configuration is read. What an expression names is known from then on, so
//! that only those columns are turned into values, and once a table is known it can be said which
//! of them it does not have. Language: <https://github.com/google/cel-spec>, without `matches`. What a row gives
//! to its names is `event`'s.
//!
//! | file | holds |
//! | --- | --- |
//! | `column_equality` | Filters of the form `column == constant`, which are looked up instead of evaluated |
//! | `functions` | The functions that walhook adds to CEL's |
//! | `json_value` | JSON as an expression sees it |
//! | `meter` | Bounds on steps and memory of one evaluation |
//! | `named_columns` | Columns and built-in names that an expression names |
//! | `syntax` | From the text to the tree, and what stands in it |
//! | `template` | Templates: text and JSON with `{{ expressions }}` in them |
//! | `tree` | Walks the parts of an expression |

pub(crate) mod column_equality;
pub(crate) mod functions;
pub(crate) mod json_value;
pub(crate) mod meter;
pub(crate) mod named_columns;
mod syntax;
pub(crate) mod template;
#[cfg(test)]
mod tests;
mod tree;

use std::fmt;
use std::sync::Arc;

use cel::Context;
use cel::IdedExpr;
use cel::Program;
use cel::common::ast::Expr;
use cel::objects::ResolveResult;

use crate::expression::functions::ENVIRONMENT;
use crate::expression::functions::FUNCTIONS;
use crate::expression::meter::MeterExceeded;
use crate::expression::named_columns::ColumnReference;
use crate::expression::named_columns::ExpressionForm;
use crate::expression::named_columns::NamedColumns;
use crate::flow::nearest_name;

/// The longest expression. A longer one belongs into a view or a generated column.
pub(crate) const EXPRESSION_BYTES_MAX: usize = 4096;

/// How alike a function's name must be for an unknown one to be taken for a slip of it (Jaro-Winkler, 0 to 1).
const LIKENESS_MIN: f64 = 0.8;

/// An expression that parses, and what it names.
#[derive(Clone)]
pub struct Expression {
    source: Arc<str>,
    program: Arc<Program>,
    /// The program's tree, within bounds.
    metered: Arc<IdedExpr>,
    names: Arc<NamedColumns>,
}

impl Expression {
    /// # Errors
    /// What is wrong, then what to do.
    pub fn parse(source: &str) -> Result<Self, String> {
        let source = source.trim();
        if source.is_empty() {
            return Err("holds an empty expression: write one, such as `status == \"paid\"`".into());
        }
        if source.len() > EXPRESSION_BYTES_MAX {
            return Err(format!("is longer than {EXPRESSION_BYTES_MAX} bytes: shorten it"));
        }
        let program = syntax::parse(source)?;
        let (names, functions) = syntax::names(program.expression());
        if let Some(unknown) = functions.iter().find(|name| !FUNCTIONS.contains(name)) {
            let fix = match nearest_name::nearest(unknown, FUNCTIONS, LIKENESS_MIN) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "docs/events.md lists what there is".to_owned(),
            };
            return Err(format!("calls `{unknown}`, which is no function: {fix}"));
        }
        let metered = Arc::new(meter::metered(program.expression()));
        if syntax::constants(program.expression()).into_iter().any(is_too_much) {
            return Err(format!(
                "makes, from nothing, more than the {} MiB or {} steps that one evaluation may take: \
                 simplify it",
                meter::BYTES_MAX >> 20,
                meter::STEPS_MAX
            ));
        }
        let (source, program, names) = (Arc::from(source), Arc::new(program), Arc::new(names));
        Ok(Self { source, program, metered, names })
    }

    /// The text, which stands in the configuration and holds no row data.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Its value where `context` resolves what it names, for a row of so many bytes.
    ///
    /// # Errors
    /// It asked for more than an evaluation may take.
    pub fn evaluate(
        &self,
        context: &Context<'_, '_>,
        row_bytes: usize,
    ) -> Result<ResolveResult, MeterExceeded> {
        meter::within(row_bytes, || meter::value(&self.metered, context))
    }

    pub fn names(&self) -> &NamedColumns {
        &self.names
    }

    /// The syntax tree, as it was written.
    pub fn tree(&self) -> &IdedExpr {
        self.program.expression()
    }

    /// What a part of an expression names, if it is a name: `a`, `row.a`, `old["a b"]`.
    pub fn reference_of(part: &Expr) -> Option<ColumnReference<'_>> {
        syntax::reference(part)
    }

    /// What the expression names, if it does nothing else: such a one needs no evaluation.
    pub fn plain(&self) -> Option<(ColumnReference<'_>, ExpressionForm)> {
        let whole = self.program.expression();
        if let Some(reference) = syntax::reference(&whole.expr) {
            return Some((reference, ExpressionForm::AsIs));
        }
        let Expr::Call(call) = &whole.expr else { return None };
        let form = match call.func_name.as_str() {
            "string" => ExpressionForm::String,
            "int" => ExpressionForm::Int,
            _ => return None,
        };
        match (&call.target, call.args.as_slice()) {
            (None, [argument]) => Some((syntax::reference(&argument.expr)?, form)),
            _ => None,
        }
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Expression").field(&self.source).finish()
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for Expression {}

/// Whether a part that names nothing asks for more than an evaluation may take, whatever the row is.
fn is_too_much(constant: &IdedExpr) -> bool {
    let context = Context::with_env(Arc::clone(&ENVIRONMENT));
    meter::within(0, || drop(meter::value(&meter::metered(constant), &context))).is_err()
}
