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

use cel::Env;
use cel::Program;
use cel::common::ast::EntryExpr;
use cel::common::ast::Expr;
use cel::common::ast::IdedEntryExpr;
use cel::common::ast::IdedExpr;
use cel::common::ast::LiteralValue;
use cel::common::ast::operators;
use cel::common::types::CelString;
use cel::common::value::CowVal;

use crate::config::reader::nearest;

/// The longest expression. A longer one belongs into a view or a generated column.
pub const EXPRESSION_BYTES_MAX: usize = 4096;

/// Levels of brackets, and of the syntax tree. The parser and the evaluation go down a level by
/// calling themselves: without limits a text could exhaust the stack, which ends the process.
const NESTING_MAX: usize = 24;
const DEPTH_MAX: usize = 32;

/// The parser needs about 100 KiB for a level of brackets in a debug build.
const PARSER_STACK_BYTES: usize = 16 * 1024 * 1024;

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

/// Names of types, which are values too: `type(id) == int`. A column of the same name comes first.
const TYPES: [&str; 10] =
    ["bool", "bytes", "double", "int", "list", "map", "null_type", "string", "type", "uint"];

/// The functions that expressions may call.
pub static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut env = Env::stdlib().with_optional_support(false);
    // Each name is declared once, here, so neither can clash.
    let strings = env.add_extension(cel::extensions::strings);
    let json = env.add_overload("json", "json_string", vec![cel::common::types::STRING_TYPE], json);
    debug_assert!(strings.is_ok() && json.is_ok(), "{strings:?} {json:?}");
    Arc::new(env)
});

/// An expression that parses, and what it names.
#[derive(Clone)]
pub struct Expression {
    source: Arc<str>,
    program: Arc<Program>,
    names: Arc<Names>,
}

/// What an expression asks for.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Names {
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
pub enum Reference<'a> {
    /// `name` or `row.name`.
    Column(&'a str),
    /// `old.name`.
    Old(&'a str),
    BuiltIn(BuiltIn),
}

/// The names that are not columns. A column that is called like one of them is `row.name`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BuiltIn {
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
pub enum Form {
    AsIs,
    /// `string(x)`
    String,
    /// `int(x)`
    Int,
}

impl BuiltIn {
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
        if nesting(source) > NESTING_MAX {
            return Err(format!("is nested deeper than {NESTING_MAX} brackets: simplify it"));
        }
        let program = parse_apart(source)?;
        if depth(program.expression()) > DEPTH_MAX {
            return Err(format!("is nested deeper than {DEPTH_MAX} operations: simplify it"));
        }
        let mut walk = Walk::default();
        walk.visit(program.expression());
        if let Some(unknown) = walk.functions.iter().find(|name| !FUNCTIONS.contains(name)) {
            let fix = match nearest(unknown, FUNCTIONS) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "docs/events.md lists what there is".to_owned(),
            };
            return Err(format!("calls `{unknown}`, which is no function: {fix}"));
        }
        let names = Arc::new(walk.names);
        Ok(Self { source: Arc::from(source), program: Arc::new(program), names })
    }

    /// The text, which stands in the configuration and holds no row data.
    pub fn source(&self) -> &str {
        &self.source
    }

    pub fn program(&self) -> &Program {
        &self.program
    }

    pub fn names(&self) -> &Names {
        &self.names
    }

    /// What the expression names, if it does nothing else: such a one needs no evaluation.
    pub fn plain(&self) -> Option<(Reference<'_>, Form)> {
        let whole = self.program.expression();
        if let Some(reference) = reference(&whole.expr) {
            return Some((reference, Form::AsIs));
        }
        let Expr::Call(call) = &whole.expr else { return None };
        let form = match call.func_name.as_str() {
            "string" => Form::String,
            "int" => Form::Int,
            _ => return None,
        };
        match (&call.target, call.args.as_slice()) {
            (None, [argument]) => Some((reference(&argument.expr)?, form)),
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

impl Names {
    pub fn join(&mut self, other: &Self) {
        self.columns.extend(other.columns.iter().cloned());
        self.old.extend(other.old.iter().cloned());
        self.whole |= other.whole;
        self.whole_old |= other.whole_old;
        self.moment |= other.moment;
        self.loops |= other.loops;
    }

    pub fn add(&mut self, reference: Reference<'_>) {
        match reference {
            Reference::Column(name) => drop(self.columns.insert(name.to_owned())),
            Reference::Old(name) => drop(self.old.insert(name.to_owned())),
            Reference::BuiltIn(BuiltIn::Row) => self.whole = true,
            Reference::BuiltIn(BuiltIn::Old | BuiltIn::Changes) => {
                self.whole = true;
                self.whole_old = true;
            }
            Reference::BuiltIn(BuiltIn::Now | BuiltIn::Age) => self.moment = true,
            Reference::BuiltIn(_) => {}
        }
    }
}

/// What an expression names, if it is a name: `a`, `row.a`, `old.a`, `old["a b"]`.
fn reference(expr: &Expr) -> Option<Reference<'_>> {
    let field_of = |operand: &IdedExpr| match &operand.expr {
        Expr::Ident(name) => BuiltIn::find(name),
        _ => None,
    };
    match expr {
        Expr::Ident(name) => Some(match BuiltIn::find(name) {
            Some(built_in) => Reference::BuiltIn(built_in),
            None => Reference::Column(name.trim_start_matches('.')),
        }),
        Expr::Select(select) => match field_of(&select.operand)? {
            BuiltIn::Row => Some(Reference::Column(&select.field)),
            BuiltIn::Old => Some(Reference::Old(&select.field)),
            _ => None,
        },
        Expr::Call(call) if call.func_name == operators::INDEX => {
            let [operand, index] = call.args.as_slice() else { return None };
            let Expr::Literal(LiteralValue::String(name)) = &index.expr else { return None };
            match field_of(operand)? {
                BuiltIn::Row => Some(Reference::Column(name.inner())),
                BuiltIn::Old => Some(Reference::Old(name.inner())),
                _ => None,
            }
        }
        _ => None,
    }
}

/// Parses on a thread of its own, whose stack is large enough for [`NESTING_MAX`].
fn parse_apart(source: &str) -> Result<Program, String> {
    let parse = || ENVIRONMENT.compile(source).map_err(|errors| describe(source, &errors));
    let parsed = std::thread::scope(|scope| {
        let parser = std::thread::Builder::new().stack_size(PARSER_STACK_BYTES);
        let parser = parser.spawn_scoped(scope, parse).map_err(|error| error.to_string())?;
        // The parser is generated code: should it ever panic, only the expression is refused.
        parser.join().map_err(|_| String::from("cannot be parsed: write it in another way"))
    });
    parsed?
}

/// The most brackets that are open at once. Those within strings count too: a few are no harm.
fn nesting(source: &str) -> usize {
    let mut open = 0_usize;
    let mut most = 0;
    for byte in source.bytes() {
        match byte {
            b'(' | b'[' | b'{' => open += 1,
            b')' | b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        most = most.max(open);
    }
    most
}

/// The levels of a syntax tree, counted without recursion. Goes on no further than the limit.
fn depth(root: &IdedExpr) -> usize {
    let mut deepest = 0;
    let mut left = vec![(root, 1)];
    while let Some((node, depth)) = left.pop() {
        deepest = deepest.max(depth);
        if depth <= DEPTH_MAX {
            left.extend(children(node).into_iter().map(|child| (child, depth + 1)));
        }
    }
    deepest
}

fn children(node: &IdedExpr) -> Vec<&IdedExpr> {
    match &node.expr {
        Expr::Call(call) => call.target.iter().map(Box::as_ref).chain(&call.args).collect(),
        Expr::Select(select) => vec![&select.operand],
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Map(map) => map.entries.iter().flat_map(entry).collect(),
        Expr::Struct(object) => object.entries.iter().flat_map(entry).collect(),
        Expr::Comprehension(around) => vec![
            &around.iter_range,
            &around.accu_init,
            &around.loop_cond,
            &around.loop_step,
            &around.result,
        ],
        Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => Vec::new(),
    }
}

fn entry(entry: &IdedEntryExpr) -> Vec<&IdedExpr> {
    match &entry.expr {
        EntryExpr::StructField(field) => vec![&field.value],
        EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
    }
}

/// Goes through a syntax tree whose depth is within bounds.
#[derive(Default)]
struct Walk<'a> {
    names: Names,
    functions: BTreeSet<&'a str>,
    /// Variables of the macros around the current place.
    bound: Vec<&'a str>,
}

impl<'a> Walk<'a> {
    fn visit(&mut self, node: &'a IdedExpr) {
        let hidden = |name: &str| self.bound.contains(&name);
        match (&node.expr, reference(&node.expr)) {
            (Expr::Ident(name), _) if hidden(name) => {}
            (Expr::Ident(name), Some(Reference::Column(_))) if TYPES.contains(&name.as_str()) => {}
            (_, Some(found)) => self.names.add(found),
            (Expr::Comprehension(around), None) => {
                self.names.loops = true;
                self.visit(&around.iter_range);
                self.visit(&around.accu_init);
                let before = self.bound.len();
                let second = around.iter_var2.as_deref();
                self.bound.extend([around.iter_var.as_str(), &around.accu_var]);
                self.bound.extend(second);
                self.visit(&around.loop_cond);
                self.visit(&around.loop_step);
                self.visit(&around.result);
                self.bound.truncate(before);
            }
            (expr, None) => {
                // Operators have names that nobody can write.
                if let Expr::Call(call) = expr
                    && call.func_name.starts_with(char::is_alphabetic)
                {
                    self.functions.insert(&call.func_name);
                }
                children(node).into_iter().for_each(|child| self.visit(child));
            }
        }
    }
}

/// The first error of the parser, on one line.
fn describe(source: &str, errors: &cel::ParseErrors) -> String {
    let Some(first) = errors.errors.first() else {
        return format!("{source:?} is not an expression");
    };
    if first.msg.contains("Recursion limit") {
        return "is nested too deep: simplify it".to_owned();
    }
    let message = first.msg.lines().next().unwrap_or_default();
    let message = message.strip_prefix("Syntax error: ").unwrap_or(message);
    // What the parser's generator would say next is a list of its tokens.
    let message = message.split_once(" expecting ").map_or(message, |(said, _)| said);
    let message = match message.strip_prefix("token recognition error at: '") {
        Some(at) if at.starts_with('=') => "a single `=` is no operator (write `==`)",
        Some(at) if at.starts_with(['\'', '"']) => "a string is not closed",
        _ if message.contains("'<EOF>'") => "it ends too early",
        _ => message,
    };
    let (line, column) = first.pos;
    let place =
        if line > 1 { format!("line {line}, column {column}") } else { format!("column {column}") };
    format!("is not an expression: {message} at {place}")
}

/// `json(text)`: the value that a JSON text stands for.
fn json<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, cel::ExecutionError> {
    let refused = |why: &str| cel::ExecutionError::function_error("json", why);
    let text = arguments.first().and_then(|text| text.downcast_ref::<CelString<'_>>());
    let text = text.ok_or_else(|| refused("no text"))?;
    let parsed: serde_json::Value =
        serde_json::from_str(text.inner()).map_err(|_| refused("not JSON"))?;
    let value: Box<dyn cel::common::value::Val> = value_of_json(&parsed).try_into()?;
    Ok(CowVal::Owned(value))
}

/// JSON as a value: numbers without a fraction that fit are `int`, all others `double`.
pub fn value_of_json(json: &serde_json::Value) -> cel::Value {
    match json {
        serde_json::Value::Null => cel::Value::Null,
        serde_json::Value::Bool(bool) => cel::Value::Bool(*bool),
        serde_json::Value::Number(number) => match number.as_i64() {
            Some(whole) => cel::Value::Int(whole),
            None => cel::Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        serde_json::Value::String(text) => cel::Value::from(text.as_str()),
        serde_json::Value::Array(items) => {
            cel::Value::List(Arc::new(items.iter().map(value_of_json).collect()))
        }
        serde_json::Value::Object(members) => {
            let members = members.iter().map(|(name, value)| {
                (cel::objects::Key::from(name.as_str()), value_of_json(value))
            });
            cel::Value::Map(cel::objects::Map { map: Arc::new(members.collect()) })
        }
    }
}

#[cfg(test)]
mod tests;
