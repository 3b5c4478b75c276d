//! The syntax tree of an expression: parsed within bounds, and what it names.

use std::collections::BTreeSet;

use cel::Program;
use cel::common::ast::Expr;
use cel::common::ast::IdedExpr;
use cel::common::ast::LiteralValue;
use cel::common::ast::operators;

use crate::expression::functions::ENVIRONMENT;
use crate::expression::named_columns::BuiltInName;
use crate::expression::named_columns::ColumnReference;
use crate::expression::named_columns::NamedColumns;
use crate::expression::tree::children;

/// Levels of brackets, and of the syntax tree. The parser and the evaluation go down a level by
/// calling themselves: without limits a text could exhaust the stack, which ends the process.
pub(super) const NESTING_MAX: usize = 24;
pub(super) const DEPTH_MAX: usize = 32;

/// The parser needs about 100 KiB for a level of brackets in a debug build.
const PARSER_STACK_BYTES: usize = 16 * 1024 * 1024;

/// Names of types, which are values too: `type(id) == int`. A column of the same name comes first.
const TYPES: [&str; 10] =
    ["bool", "bytes", "double", "int", "list", "map", "null_type", "string", "type", "uint"];

/// Parses a text whose tree can be gone through and evaluated without exhausting a stack.
///
/// # Errors
/// What is wrong, then what to do.
pub(super) fn parse(source: &str) -> Result<Program, String> {
    if nesting(source) > NESTING_MAX {
        return Err(format!("is nested deeper than {NESTING_MAX} brackets: simplify it"));
    }
    let program = parse_apart(source)?;
    if depth(program.expression()) > DEPTH_MAX {
        return Err(format!("is nested deeper than {DEPTH_MAX} operations: simplify it"));
    }
    Ok(program)
}

/// What an expression names, and the functions that it calls.
pub(super) fn names(root: &IdedExpr) -> (NamedColumns, BTreeSet<&str>) {
    let mut walk = SyntaxWalk::default();
    walk.visit(root);
    (walk.names, walk.functions)
}

/// What an expression names, if it is a name: `a`, `row.a`, `old.a`, `old["a b"]`.
pub(super) fn reference(expr: &Expr) -> Option<ColumnReference<'_>> {
    let field_of = |operand: &IdedExpr| match &operand.expr {
        Expr::Ident(name) => BuiltInName::find(name),
        _ => None,
    };
    match expr {
        Expr::Ident(name) => Some(match BuiltInName::find(name) {
            Some(built_in) => ColumnReference::BuiltIn(built_in),
            None => ColumnReference::Column(name.trim_start_matches('.')),
        }),
        Expr::Select(select) => match field_of(&select.operand)? {
            BuiltInName::Row => Some(ColumnReference::Column(&select.field)),
            BuiltInName::Old => Some(ColumnReference::Old(&select.field)),
            _ => None,
        },
        Expr::Call(call) if call.func_name == operators::INDEX => {
            let [operand, index] = call.args.as_slice() else { return None };
            let Expr::Literal(LiteralValue::String(name)) = &index.expr else { return None };
            match field_of(operand)? {
                BuiltInName::Row => Some(ColumnReference::Column(name.inner())),
                BuiltInName::Old => Some(ColumnReference::Old(name.inner())),
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

/// The largest parts of a tree that call something and name nothing: they have one value for all rows.
pub(super) fn constants(root: &IdedExpr) -> Vec<&IdedExpr> {
    let is_atom = |node: &IdedExpr| matches!(node.expr, Expr::Literal(_));
    if names_nothing(root, &mut Vec::new()) {
        return if is_atom(root) { Vec::new() } else { vec![root] };
    }
    match &root.expr {
        // The rest of a loop is not to be had without its variable.
        Expr::Comprehension(around) => constants(&around.iter_range),
        _ => children(root).into_iter().flat_map(constants).collect(),
    }
}

fn names_nothing<'a>(node: &'a IdedExpr, bound: &mut Vec<&'a str>) -> bool {
    match &node.expr {
        Expr::Ident(name) => bound.contains(&name.as_str()),
        Expr::Comprehension(around) => {
            if !names_nothing(&around.iter_range, bound) {
                return false;
            }
            let before = bound.len();
            bound.extend([around.iter_var.as_str(), &around.accu_var]);
            bound.extend(around.iter_var2.as_deref());
            let nothing = names_nothing(&around.loop_step, bound);
            bound.truncate(before);
            nothing
        }
        _ => children(node).into_iter().all(|child| names_nothing(child, bound)),
    }
}

/// Goes through a syntax tree whose depth is within bounds.
#[derive(Default)]
struct SyntaxWalk<'a> {
    names: NamedColumns,
    functions: BTreeSet<&'a str>,
    /// Variables of the macros around the current place.
    bound: Vec<&'a str>,
}

impl<'a> SyntaxWalk<'a> {
    fn visit(&mut self, node: &'a IdedExpr) {
        let hidden = |name: &str| self.bound.contains(&name);
        match (&node.expr, reference(&node.expr)) {
            (Expr::Ident(name), _) if hidden(name) => {}
            (Expr::Ident(name), Some(ColumnReference::Column(_)))
                if TYPES.contains(&name.as_str()) => {}
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

/// Words that others have for operators, and what stands for them.
const OTHER_WORDS: [(&str, &str); 6] = [
    ("and", "`&&`"),
    ("or", "`||`"),
    ("not", "`!`"),
    ("is", "`== null` or `!= null`"),
    ("like", "contains(), startsWith() or endsWith()"),
    ("between", "`a <= x && x <= b`"),
];

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
        Some(at) if at.starts_with(|c: char| !c.is_ascii()) => {
            "a column with letters beyond a to z is written row[\"...\"]"
        }
        _ if message.contains("'<EOF>'") => "it ends too early",
        _ if source.contains("<>") => "`<>` is no operator (write `!=`)",
        _ => message,
    };
    // What SQL and Python would have there.
    let other = OTHER_WORDS.iter().find(|(word, _)| {
        let mut words = message.split('\'');
        words.any(|part| part.eq_ignore_ascii_case(word))
    });
    let other = other.map(|(word, here)| format!("`{word}` is no operator (write {here})"));
    let message = other.as_deref().unwrap_or(message);
    let (line, column) = first.pos;
    let place =
        if line > 1 { format!("line {line}, column {column}") } else { format!("column {column}") };
    format!("is not an expression: {message} at {place}")
}
