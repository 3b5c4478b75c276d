//! The syntax tree that is evaluated: as written, with what can grow going through the meter.
//!
//! | written | evaluated |
//! | --- | --- |
//! | `a + b` | `@add(a, b)` |
//! | `a.replace(b, c)`, and whatever else makes more than it is given | `@replace(a, b, c)` |
//! | `a.trim()`, and whatever else makes a text or a list | `@made(a.trim())` |
//! | `[a, 1]`, `{"k": a}` | `[@kept(a), 1]`, `{"k": @kept(a)}` |
//! | `list.all(x, x > 1)` | `@range(list, 4).all(x, @touched(x) > 1)` |
//!
//! Columns are charged where they are read. What has no size (numbers, comparisons) is as it was.

use cel::common::ast::CallExpr;
use cel::common::ast::ComprehensionExpr;
use cel::common::ast::EntryExpr;
use cel::common::ast::Expr;
use cel::common::ast::IdedEntryExpr;
use cel::common::ast::IdedExpr;
use cel::common::ast::LiteralValue;
use cel::common::ast::operators;

/// Functions that can make more than they are given, or search for long: each has its own, `@name`.
const GROWING: [&str; 5] = ["indexOf", "join", "lastIndexOf", "replace", "split"];
/// Functions that make a text, list or map of about what they are given.
const MAKING: [&str; 8] =
    ["format", "json", "lowerAscii", "reverse", "string", "substring", "trim", "upperAscii"];

/// The tree to be evaluated instead of this one.
pub(crate) fn metered(root: &IdedExpr) -> IdedExpr {
    MeterRewrite::default().node(root)
}

#[derive(Default)]
struct MeterRewrite {
    /// The variables of the macros around the current place.
    bound: Vec<String>,
}

impl MeterRewrite {
    fn node(&mut self, node: &IdedExpr) -> IdedExpr {
        let expr = match &node.expr {
            Expr::Call(call) => self.call(call, node.id),
            Expr::Comprehension(around) => {
                Expr::Comprehension(Box::new(self.comprehension(around, node.id)))
            }
            Expr::List(list) => {
                let mut list = list.clone();
                list.elements = list.elements.iter().map(|item| self.kept(item)).collect();
                Expr::List(list)
            }
            Expr::Map(map) => {
                let mut map = map.clone();
                map.entries = map.entries.iter().map(|entry| self.entry(entry)).collect();
                Expr::Map(map)
            }
            Expr::Struct(object) => {
                let mut object = object.clone();
                object.entries = object.entries.iter().map(|entry| self.entry(entry)).collect();
                Expr::Struct(object)
            }
            Expr::Select(_) | Expr::Ident(_) if self.is_bound(&node.expr) => {
                call("@touched", vec![node.clone()])
            }
            Expr::Select(select) if !is_name(&select.operand.expr) => {
                let mut select = select.clone();
                select.operand = Box::new(self.node(&select.operand));
                Expr::Select(select)
            }
            Expr::Select(_) | Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => {
                node.expr.clone()
            }
        };
        IdedExpr { id: node.id, expr }
    }

    fn call(&mut self, written: &CallExpr, id: u64) -> Expr {
        let arguments: Vec<IdedExpr> = written.args.iter().map(|arg| self.node(arg)).collect();
        let target = written.target.as_ref().map(|target| self.node(target));
        let name = written.func_name.as_str();
        if name == operators::ADD && target.is_none() {
            return call("@add", arguments);
        }
        if GROWING.contains(&name) && target.is_some() {
            return call(&format!("@{name}"), target.into_iter().chain(arguments).collect());
        }
        let same = Expr::Call(CallExpr {
            func_name: written.func_name.clone(),
            target: target.map(Box::new),
            args: arguments,
        });
        match MAKING.contains(&name) {
            true => call("@made", vec![IdedExpr { id, expr: same }]),
            false => same,
        }
    }

    /// The engine makes a list in place where it finds a loop just as the macros write it, so their own
    /// parts stay as they are.
    fn comprehension(&mut self, around: &ComprehensionExpr, id: u64) -> ComprehensionExpr {
        let mut same = around.clone();
        let operations = i64::try_from(nodes(&around.loop_step)).unwrap_or(i64::MAX);
        let operations = IdedExpr { id, expr: Expr::Literal(LiteralValue::Int(operations.into())) };
        let range = self.node(&around.iter_range);
        same.iter_range = IdedExpr { id, expr: call("@range", vec![range, operations]) };
        let before = self.bound.len();
        self.bound.push(around.iter_var.clone());
        self.bound.extend(around.iter_var2.clone());
        same.loop_step = self.step(&around.loop_step, &around.accu_var);
        self.bound.truncate(before);
        same
    }

    /// Of `@result + [x]`, `c ? @result + [x] : @result` and `@result && x`, what was written: `c` and `x`.
    fn step(&mut self, step: &IdedExpr, result: &str) -> IdedExpr {
        let is_result = |node: &IdedExpr| matches!(&node.expr, Expr::Ident(name) if name == result);
        if is_result(step) {
            return step.clone();
        }
        let Expr::Call(written) = &step.expr else { return self.node(step) };
        let of_macro = written.args.iter().any(is_result)
            || written.func_name == operators::CONDITIONAL
                && written.args.iter().any(|arg| of_result(arg, result));
        if !of_macro {
            return self.node(step);
        }
        let mut same = written.clone();
        same.args = written.args.iter().map(|arg| self.step(arg, result)).collect();
        IdedExpr { id: step.id, expr: Expr::Call(same) }
    }

    fn kept(&mut self, item: &IdedExpr) -> IdedExpr {
        if let Expr::Literal(_) = item.expr {
            return item.clone();
        }
        let item = self.node(item);
        IdedExpr { id: item.id, expr: call("@kept", vec![item]) }
    }

    fn entry(&mut self, entry: &IdedEntryExpr) -> IdedEntryExpr {
        let mut entry = entry.clone();
        match &mut entry.expr {
            EntryExpr::StructField(field) => field.value = self.kept(&field.value),
            EntryExpr::MapEntry(member) => {
                member.key = self.kept(&member.key);
                member.value = self.kept(&member.value);
            }
        }
        entry
    }

    /// Whether this is a variable of a macro, or a field of one.
    fn is_bound(&self, expr: &Expr) -> bool {
        match expr {
            Expr::Ident(name) => self.bound.contains(name),
            Expr::Select(select) => self.is_bound(&select.operand.expr),
            _ => false,
        }
    }
}

/// `a`, `a.b`, `a.b.c`: the engine looks such a one up as a whole.
fn is_name(expr: &Expr) -> bool {
    match expr {
        Expr::Ident(_) => true,
        Expr::Select(select) => is_name(&select.operand.expr),
        _ => false,
    }
}

/// Whether this is `@result + ...`.
fn of_result(node: &IdedExpr, result: &str) -> bool {
    match &node.expr {
        Expr::Call(call) => {
            let first = call.args.first().map(|arg| &arg.expr);
            matches!(first, Some(Expr::Ident(name)) if name == result)
        }
        _ => false,
    }
}

fn call(name: &str, args: Vec<IdedExpr>) -> Expr {
    Expr::Call(CallExpr { func_name: name.to_owned(), target: None, args })
}

/// The operations of a tree.
fn nodes(node: &IdedExpr) -> usize {
    let children = crate::expression::tree::children(node);
    1 + children.into_iter().map(nodes).sum::<usize>()
}
