//! `config::expression`, by cases.

use super::syntax::DEPTH_MAX;
use super::syntax::NESTING_MAX;
use super::*;
use crate::expression::named_columns::BuiltInName;

fn parsed(source: &str) -> Expression {
    Expression::parse(source).unwrap_or_else(|message| panic!("{source} {message}"))
}

#[test]
fn an_expression_knows_what_it_names() {
    let cases: [(&str, &[&str], &[&str]); 13] = [
        ("status == \"paid\"", &["status"], &[]),
        ("status != old.status && status == 'approved'", &["status"], &["status"]),
        ("row.event == event", &["event"], &[]),
        ("row[\"my column\"] == old['other']", &["my column"], &["other"]),
        ("has(old.a) ? old.a : b", &["b"], &["a"]),
        ("result.items[0].price > limits[kind]", &["kind", "limits", "result"], &[]),
        ("tags.exists(tag, tag == name)", &["name", "tags"], &[]),
        ("op == 'insert' && event_id != '' && table != ''", &[], &[]),
        ("{'k': a}['k'] in [b, 1]", &["a", "b"], &[]),
        ("type(id) == int", &["id"], &[]),
        ("size(name.trim()) > 0 && name.startsWith(prefix)", &["name", "prefix"], &[]),
        ("metadata.user_id == owner", &["owner"], &[]),
        ("now - created < duration('5m') && age < duration('1h')", &["created"], &[]),
    ];
    for (source, columns, old) in cases {
        let expression = parsed(source);
        let names = expression.names();
        assert_eq!(names.columns.iter().collect::<Vec<_>>(), columns, "case: {source}");
        assert_eq!(names.old.iter().collect::<Vec<_>>(), old, "case: {source}");
        assert_eq!(names.loops, source.contains("exists"), "case: {source}");
        assert_eq!(names.moment, source.contains("now"), "case: {source}");
        assert!(!names.whole && !names.whole_old, "case: {source}");
    }
    assert!(parsed("size(row) > 3").names().whole);
    assert!(parsed("'status' in changes").names().whole_old);
}

#[test]
fn what_is_no_expression_is_told_why() {
    let cases = [
        ("", "empty expression"),
        ("a = 1", "at column 3"),
        ("a &&", "is not an expression: "),
        ("status == \"x", "is not an expression: "),
        ("package == 1", "reserved identifier: package"),
        ("starts_with(a, 'b')", "calls `starts_with`, which is no function: did you mean"),
        ("a.matches('b')", "calls `matches`, which is no function"),
        ("a.?b", "is not an expression: "),
        ("n\u{e4}me == 'x'", "is written row[\"...\"] at column 2"),
    ];
    for (source, expected) in cases {
        let message = Expression::parse(source).unwrap_err();
        assert!(message.contains(expected), "case: {source}: {message}");
        assert!(!message.contains('\n'), "case: {source}: {message}");
    }
    let long = format!("a == {:?}", "x".repeat(EXPRESSION_BYTES_MAX));
    assert!(Expression::parse(&long).unwrap_err().contains("longer than"));
}

#[test]
fn an_expression_that_would_exhaust_the_stack_is_refused() {
    let nested = |open: &str, close: &str| {
        [open.repeat(1000), String::from("a"), close.repeat(1000)].concat()
    };
    let cases = [
        nested("(", ")"),
        nested("[", "]"),
        nested("f(", ")"),
        "(".repeat(2000),
        vec!["a"; 1000].join("+"),
        vec!["a"; 1000].join("<"),
        format!("a{}", "[0]".repeat(1000)),
        format!("a{}", ".trim()".repeat(500)),
        "a?b:".repeat(1000),
    ];
    for case in cases {
        let message = Expression::parse(&case).unwrap_err();
        assert!(message.contains("nested") || message.contains("no expression"), "{message}");
    }
}

/// As deep as is let through, in the stack of a thread as it is by default.
#[test]
fn an_expression_that_is_let_through_can_be_evaluated() {
    let cases = [
        vec!["a"; DEPTH_MAX - 1].join("+"),
        format!("{}a{}", "(".repeat(NESTING_MAX), ")".repeat(NESTING_MAX)),
        format!("a{}", "[0]".repeat(DEPTH_MAX - 2)),
        vec!["a == 1"; 300].join("||"),
        format!("{}a{}", "[".repeat(NESTING_MAX), "]".repeat(NESTING_MAX)),
        format!("{}[a]{}", "[a].map(x, ".repeat(9), ")".repeat(9)),
    ];
    for case in cases {
        let expression = parsed(&case);
        let evaluate = move || {
            let mut context = cel::Context::with_env(Arc::clone(&ENVIRONMENT));
            context.add_variable_from_value("a", 1_i64);
            expression.evaluate(&context, 0).is_ok_and(|value| value.is_ok())
        };
        std::thread::spawn(evaluate).join().unwrap();
    }
}

#[test]
fn a_plain_name_needs_no_evaluation() {
    let cases = [
        ("id", Some((ColumnReference::Column("id"), ExpressionForm::AsIs))),
        ("string(id)", Some((ColumnReference::Column("id"), ExpressionForm::String))),
        ("int(create_time)", Some((ColumnReference::Column("create_time"), ExpressionForm::Int))),
        ("old.status", Some((ColumnReference::Old("status"), ExpressionForm::AsIs))),
        ("row['a b']", Some((ColumnReference::Column("a b"), ExpressionForm::AsIs))),
        ("int(now)", Some((ColumnReference::BuiltIn(BuiltInName::Now), ExpressionForm::Int))),
        ("metadata", Some((ColumnReference::BuiltIn(BuiltInName::Metadata), ExpressionForm::AsIs))),
        ("id + 1", None),
        ("result.a", None),
        ("string(id, 2)", None),
        ("id.string()", None),
        ("size(name)", None),
    ];
    for (source, expected) in cases {
        assert_eq!(parsed(source).plain(), expected, "case: {source}");
    }
}

#[test]
fn every_function_that_is_known_exists() {
    // A call with arguments that no function takes fails for its types, not for its name.
    for name in FUNCTIONS {
        let calls = [format!("{name}(null, null, null)"), format!("null.{name}(null, null, null)")];
        let exists = calls.iter().any(|call| {
            let program = ENVIRONMENT.compile(call).unwrap();
            let context = cel::Context::with_env(Arc::clone(&ENVIRONMENT));
            !matches!(program.execute(&context), Err(cel::ExecutionError::UndeclaredReference(_)))
        });
        assert!(exists, "case: {name}");
    }
}
