//! Expressions: CEL, the language of `when` filters and of `{{ }}` in payloads.
//!
//! ```text
//! walhook.toml ─ text ─▶ [parse] ─ Expression ─▶ event, which evaluates it on rows
//! ```
//!
//! Parsed once, when the configuration is read. What an expression names is known from then on, so
//! that only those columns are turned into values, and whoever knows a table can say which of them
//! it does not have. Language: <https://github.com/google/cel-spec>, without `matches`.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::LazyLock;

use cel::Context;
use cel::Env;
use cel::IdedExpr;
use cel::Program;
use cel::common::ast::Expr;
use cel::common::types::CelString;
use cel::common::value::CowVal;
use cel::objects::ResolveResult;

use crate::config::expression::meter::MeterExceeded;
use crate::config::json_value;
use crate::config::reader::nearest;

/// The longest expression. A longer one belongs into a view or a generated column.
pub const EXPRESSION_BYTES_MAX: usize = 4096;

/// Every function that a call may name.
const FUNCTIONS: [&str; 36] = [
    "bool",
    "charAt",
    "contains",
    "double",
    "duration",
    "dyn",
    "endsWith",
    "format",
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getFullYear",
    "getHours",
    "getMilliseconds",
    "getMinutes",
    "getMonth",
    "getSeconds",
    "indexOf",
    "int",
    "join",
    "json",
    "lastIndexOf",
    "lowerAscii",
    "replace",
    "reverse",
    "size",
    "split",
    "startsWith",
    "string",
    "substring",
    "timestamp",
    "trim",
    "type",
    "uint",
    "upperAscii",
];

/// The functions that expressions may call.
pub static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut env = Env::stdlib().with_optional_support(false);
    // Each name is declared once, here, so neither can clash.
    let strings = env.add_extension(cel::extensions::strings);
    let json = env.add_overload("json", "json_string", vec![cel::common::types::STRING_TYPE], json);
    let metered = meter::declare(&mut env);
    debug_assert!(
        strings.is_ok() && json.is_ok() && metered.is_ok(),
        "{strings:?} {json:?} {metered:?}"
    );
    Arc::new(env)
});

/// An expression that parses, and what it names.
#[derive(Clone)]
pub struct Expression {
    source: Arc<str>,
    program: Arc<Program>,
    /// The program's tree, within bounds.
    metered: Arc<IdedExpr>,
    names: Arc<NamedColumns>,
}

/// What an expression asks for.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct NamedColumns {
    /// Columns of the row.
    pub columns: BTreeSet<String>,
    /// Columns of the old row.
    pub old: BTreeSet<String>,
    /// `row`, `old` or `changes` as a whole: every column there is.
    pub whole: bool,
    /// `old` or `changes` as a whole.
    pub whole_old: bool,
    /// `now` or `age`: what differs from attempt to attempt.
    pub moment: bool,
    /// A macro that goes through a list or map.
    pub loops: bool,
}

/// Something that an expression can name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ColumnReference<'a> {
    /// `name` or `row.name`.
    Column(&'a str),
    /// `old.name`.
    Old(&'a str),
    BuiltIn(BuiltInName),
}

/// The names that are not columns. A column that is called like one of them is `row.name`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BuiltInName {
    /// All columns of the row.
    Row,
    /// All columns of the old row, as far as PostgreSQL sent it; null if there was none.
    Old,
    /// The previous values of the columns that an update changed.
    Changes,
    /// `insert`, `update`, `delete` or `truncate`.
    Op,
    /// The event's type.
    Event,
    EventId,
    /// `schema.table`.
    Table,
    /// What the application attached to the transaction.
    Metadata,
    /// When the transaction was committed.
    Committed,
    /// In a filter when the row was read; in a payload when it is sent.
    Now,
    /// `now` less the time when the row was born.
    Age,
}

/// How a plain expression shows what it names.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ExpressionForm {
    AsIs,
    /// `string(x)`
    String,
    /// `int(x)`
    Int,
}

impl BuiltInName {
    const ALL: [(&'static str, Self); 11] = [
        ("row", Self::Row),
        ("old", Self::Old),
        ("changes", Self::Changes),
        ("op", Self::Op),
        ("event", Self::Event),
        ("event_id", Self::EventId),
        ("table", Self::Table),
        ("metadata", Self::Metadata),
        ("committed", Self::Committed),
        ("now", Self::Now),
        ("age", Self::Age),
    ];

    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, found)| *found)
    }
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
            let fix = match nearest(unknown, FUNCTIONS) {
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

impl NamedColumns {
    pub fn join(&mut self, other: &Self) {
        self.columns.extend(other.columns.iter().cloned());
        self.old.extend(other.old.iter().cloned());
        self.whole |= other.whole;
        self.whole_old |= other.whole_old;
        self.moment |= other.moment;
        self.loops |= other.loops;
    }

    pub fn add(&mut self, reference: ColumnReference<'_>) {
        match reference {
            ColumnReference::Column(name) => drop(self.columns.insert(name.to_owned())),
            ColumnReference::Old(name) => drop(self.old.insert(name.to_owned())),
            ColumnReference::BuiltIn(BuiltInName::Row) => self.whole = true,
            ColumnReference::BuiltIn(BuiltInName::Old | BuiltInName::Changes) => {
                self.whole = true;
                self.whole_old = true;
            }
            ColumnReference::BuiltIn(BuiltInName::Now | BuiltInName::Age) => self.moment = true,
            ColumnReference::BuiltIn(_) => {}
        }
    }
}

/// `json(text)`: the value that a JSON text stands for.
fn json<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, cel::ExecutionError> {
    let refused = |why: &str| cel::ExecutionError::function_error("json", why);
    let text = arguments.first().and_then(|text| text.downcast_ref::<CelString<'_>>());
    let text = text.ok_or_else(|| refused("no text"))?;
    meter::parses(text.inner())?;
    let read = json_value::read(text.inner().as_bytes()).ok_or_else(|| refused("not JSON"))?;
    let value: Box<dyn cel::common::value::Val> = read.try_into()?;
    Ok(CowVal::Owned(value))
}

/// Whether a part that names nothing asks for more than an evaluation may take, whatever the row is.
fn is_too_much(constant: &IdedExpr) -> bool {
    let context = Context::with_env(Arc::clone(&ENVIRONMENT));
    meter::within(0, || drop(meter::value(&meter::metered(constant), &context))).is_err()
}

pub mod equality;
pub mod meter;
mod syntax;
#[cfg(test)]
mod tests;
