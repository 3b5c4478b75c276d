//! Nothing that an expression does takes more than an evaluation may, and what it does is as before.

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use cel::Context;
use cel::Value;
use cel::context::VariableResolver;
use proptest::prelude::*;

use super::*;
use crate::expression::Expression;
use crate::expression::functions::ENVIRONMENT;

/// A column `text` and a column `list`.
struct Row {
    text: String,
    list: Vec<String>,
}

impl VariableResolver for Row {
    fn resolve<'b>(&'b self, name: &str) -> Option<CowVal<'b, 'b>> {
        match name {
            "text" => Some(CowVal::owned(CelString::from(self.text.as_str()))),
            "list" => {
                let item = |item: &String| Box::new(CelString::from(item.clone())) as Box<dyn Val>;
                Some(CowVal::owned(CelList::from(self.list.iter().map(item).collect::<Vec<_>>())))
            }
            _ => None,
        }
    }
}

fn evaluate(source: &str, row: &Row) -> Result<ResolveResult, MeterExceeded> {
    let expression = Expression::parse(source).expect(source);
    let mut context = Context::with_env(Arc::clone(&ENVIRONMENT));
    context.set_variable_resolver(row);
    expression.evaluate(&context, row.text.len())
}

fn row() -> Row {
    Row { text: "x".repeat(1000), list: (0..1000).map(|n| n.to_string()).collect() }
}

#[test]
fn what_grows_without_end_is_an_error_and_takes_no_time() {
    let tenfold = ".replace('x', 'xxxxxxxxxx')".repeat(13);
    let doubled = (0..22).fold(String::from("text"), |sum, _| format!("[{sum}].map(a, a + a)[0]"));
    let cases = [
        format!("text{tenfold} == ''"),
        format!("text{tenfold} == '' || true"),
        format!("size(text{tenfold}) > 0 ? true : true"),
        String::from("text.replace('', text).replace('', text) == ''"),
        String::from("list.join(list.join(text)) == ''"),
        String::from("list.map(a, list.map(b, list.map(c, 1))).size() > 0"),
        String::from("list.all(a, list.all(b, list.all(c, a != '?')))"),
        String::from("list.exists(a, list.exists(b, list.exists_one(c, a == b)))"),
        String::from("list.filter(a, list.filter(b, b == a).size() > 0).size() > 0"),
        String::from("list.map(a, [text, text, text, text].map(b, [b, b, b, b, b])).size() > 0"),
        String::from(
            "list.map(a, {'k': text + text + text}).map(a, [a, a, a, a, a, a]).size() > 0",
        ),
        String::from("list.map(a, text.split('')).size() > 0"),
        String::from("list.map(a, list + list + list + list).size() > 0"),
        String::from("list.map(a, '%s%s%s%s%s'.format([list, list, list, list, list])) == []"),
        String::from("list.all(a, list.all(b, text.indexOf('yyyyyyyy') == -1))"),
        doubled,
    ];
    for source in cases {
        if source.starts_with("[[") && Expression::parse(&source).is_err() {
            continue; // nested deeper than expressions may be
        }
        let began = Instant::now();
        assert_eq!(evaluate(&source, &row()).map(drop), Err(MeterExceeded), "case: {source}");
        // Milliseconds; the limit is for machines that are busy.
        assert!(began.elapsed() < Duration::from_secs(20), "case: {source}: {:?}", began.elapsed());
    }
}

#[test]
fn what_is_too_much_for_any_row_is_refused_when_it_is_read() {
    let tenfold = ".replace('x', 'xxxxxxxxxx')".repeat(13);
    let sources = [
        format!("'x'{tenfold} == ''"),
        format!("name == 'x'{tenfold}"),
        format!("size('x'{tenfold}) > 0 || name == 'b'"),
        format!("list.exists(a, a == '1') && ['x'].all(x, x{tenfold} == '')"),
    ];
    for source in sources {
        let refused = Expression::parse(&source).expect_err(&source);
        assert!(refused.contains("16 MiB"), "case: {source}: {refused}");
    }
    assert!(Expression::parse("name in ['a', 'b'].map(x, x + '1')").is_ok());
}

#[test]
fn what_an_evaluation_over_a_large_row_needs_it_gets() {
    let text = format!("{}needle", "hay ".repeat(3 << 20));
    let row = Row { text, list: (0..10_000).map(|n| n.to_string()).collect() };
    let cases = [
        "text.contains('needle') && text.endsWith('needle') && text.startsWith('hay')",
        "text.upperAscii().size() > 9000",
        "text.indexOf('needle') > 0 && text.lastIndexOf('hay') > 0",
        "list.exists(a, a == '9999') && list.filter(a, a.size() > 1).size() == 9990",
        "list.map(a, a + '!').join(',').size() > 9",
    ];
    for source in cases {
        assert_eq!(evaluate(source, &row), Ok(Ok(Value::Bool(true))), "case: {source}");
    }
}

#[test]
fn an_evaluation_within_another_shares_its_bytes_only() {
    let make = || evaluate("text + text", &Row { text: "x".repeat(3 << 20), list: vec![] });
    let together = within(0, || (0..4).map(|_| make().is_ok()).collect::<Vec<bool>>());
    assert_eq!(together, Ok(vec![true, false, false, false]));
    assert!(make().is_ok(), "what was used up was the other one's");
}

#[test]
fn the_functions_that_are_metered_give_what_they_gave() {
    let cases = [
        ("'abc' + 'd'", "'abcd'"),
        ("[1] + [2]", "[1, 2]"),
        ("1 + 2", "3"),
        ("1.5 + 2.0", "3.5"),
        ("'aXbX'.replace('X', '--')", "'a--b--'"),
        ("'aXbX'.replace('X', '-', 1)", "'a-bX'"),
        ("'aXbX'.replace('X', '-', 0)", "'aXbX'"),
        ("'aXbX'.replace('X', '-', -1)", "'a-b-'"),
        ("'ab'.replace('', '-')", "'-a-b-'"),
        ("['a', 'b'].join()", "'ab'"),
        ("['a', 'b'].join(', ')", "'a, b'"),
        ("[].join(', ')", "''"),
        ("'a,b,c'.split(',')", "['a', 'b', 'c']"),
        ("'a,b,c'.split(',', 2)", "['a', 'b,c']"),
        ("'a,b,c'.split(',', 0)", "[]"),
        ("'a,b,c'.split(',', -1)", "['a', 'b', 'c']"),
        ("'äb'.split('')", "['ä', 'b']"),
        ("'äbc'.split('', 2)", "['ä', 'bc']"),
        ("''.split(',')", "['']"),
        ("''.split('')", "[]"),
        ("'hällo'.indexOf('l')", "2"),
        ("'hällo'.indexOf('l', 3)", "3"),
        ("'hällo'.indexOf('x')", "-1"),
        ("'hällo'.indexOf('', 9)", "5"),
        ("'hällo'.lastIndexOf('l')", "3"),
        ("'hällo'.lastIndexOf('l', 2)", "2"),
        ("'hällo'.lastIndexOf('lo', 3)", "3"),
        ("'hällo'.lastIndexOf('lo', 2)", "-1"),
        ("'ta©o©αT'.lastIndexOf('©', 3)", "2"),
        ("'bananananana'.lastIndexOf('nana', 7)", "6"),
        ("'hällo'.lastIndexOf('')", "5"),
        ("[1, 2, 3].map(x, x * 2)", "[2, 4, 6]"),
        ("[1, 2, 3].map(x, x > 1, x + 1)", "[3, 4]"),
        ("[1, 2, 3].filter(x, x > 1)", "[2, 3]"),
        ("[1, 2, 3].exists_one(x, x > 2)", "true"),
        ("[{'a': 1}].exists(x, has(x.a) && x.a == 1)", "true"),
        ("[{'a': {'b': [1]}}].map(x, x.a.b[0])", "[1]"),
        ("{'a': 1, 'b': 2}.all(k, k in ['a', 'b'])", "true"),
        ("[[1, 2], [3]].map(x, x.map(y, y + 1))", "[[2, 3], [4]]"),
        ("[1, 2].map(x, [3].map(y, x + y))", "[[4], [5]]"),
        ("json('{\"a\": [1, 2]}').a[1]", "2"),
    ];
    for (source, expected) in cases {
        let value = |source| evaluate(source, &row()).expect("little").expect(source);
        assert_eq!(value(source), value(expected), "case: {source}");
    }
    for source in ["'a' + 1", "'a'.replace('b', 1)", "['a', 1].join()", "null + 'a'"] {
        let error = evaluate(source, &row()).expect("little").expect_err(source);
        assert!(!matches!(error, ExecutionError::FunctionError { .. }), "case: {source}: {error}");
    }
    for source in ["'abc'.indexOf('b', 3)", "'abc'.indexOf('b', -1)", "'a'.lastIndexOf('a', 1)"] {
        let error = evaluate(source, &row()).expect("little").expect_err(source);
        assert!(matches!(error, ExecutionError::FunctionError { .. }), "case: {source}: {error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Against the crate's own functions, which are right and slow.
    #[test]
    fn searches_find_what_the_engine_finds(
        text in "[aä©b]{0,12}", searched in "[aä©b]{0,3}", from in 0_usize..14
    ) {
        let quoted = |text: &str| format!("'{text}'");
        for function in ["indexOf", "lastIndexOf"] {
            for last in [String::new(), format!(", {from}")] {
                let source = format!("{}.{function}({}{last})", quoted(&text), quoted(&searched));
                let program = ENVIRONMENT.compile(&source).expect("it parses");
                let context = Context::with_env(Arc::clone(&ENVIRONMENT));
                let theirs = program.execute(&context).ok();
                let ours = evaluate(&source, &row()).expect("little").ok();
                prop_assert_eq!(ours, theirs, "{}", source);
            }
        }
    }
}
