//! `event::type_check`, by cases.

use super::*;
use crate::event::route::tests::relation;

fn report(filter: &str) -> TypeReport {
    let columns = [
        ("id", SqlType::Integer),
        ("total", SqlType::Numeric),
        ("note", SqlType::Text),
        ("paid", SqlType::Bool),
        ("doc", SqlType::Json),
        ("at", SqlType::TimestampTz),
    ];
    let filter = Expression::parse(filter).unwrap();
    check_filter(&filter, &relation("orders", &columns))
}

#[test]
fn what_fits_or_cannot_be_known_is_left_alone() {
    let filters = [
        "id == 1",
        "total > 5",
        "total > 5.0 && note != null",
        "note in ['a', 'b']",
        "paid",
        "!paid || note.startsWith('x')",
        "doc.kind == 'a'",
        "doc.n > 1",
        "doc == null",
        "at > timestamp('2026-01-01T00:00:00Z')",
        "now - at < duration('1h')",
        "age < duration('5m')",
        "old.note != note",
        "string(id) == '1'",
        "has(doc.a) && doc.a == 1",
        "has(row.id) && has(old.note)",
        "['a'].exists(x, x == note)",
        "paid ? note == 'a' : id == 1",
        "no_such_column == 1",
        "op == 'insert'",
    ];
    for filter in filters {
        assert_eq!(report(filter), TypeReport::default(), "case: {filter}");
    }
}

#[test]
fn what_can_never_be_true_is_told_with_its_reason() {
    let cases = [
        ("note", "is a text, and neither true nor false"),
        ("id", "is a number, and neither true nor false"),
        ("id == '1'", "compares column id, a number, with a constant, a text"),
        ("'1' == id", "compares a constant, a text, with column id, a number"),
        ("note > 5", "compares column note, a text, with a constant, a number"),
        ("paid == 'true'", "compares column paid, a boolean, with a constant, a text"),
        ("paid && id == 'x'", "compares column id, a number, with a constant, a text"),
        ("id in ['1', '2']", "looks for column id, a number, in a list with a text"),
        ("note && paid", "takes column note, a text, for true or false"),
        ("at == '2026-01-01'", "compares column at, a timestamp, with a constant, a text"),
        ("id == 'a' || note == 1", "compares column id, a number, with a constant, a text"),
        ("old.id == '1'", "compares old.id, a number, with a constant, a text"),
        ("row['id'] == '1'", "compares column id, a number, with a constant, a text"),
    ];
    for (filter, expected) in cases {
        let report = report(filter);
        assert!(report.is_never_true, "case: {filter}: {report:?}");
        assert_eq!(report.misfits.first().map(String::as_str), Some(expected), "case: {filter}");
    }
    assert!(report("false").is_never_true && report("paid && false").is_never_true);
}

#[test]
fn numbers_of_all_kinds_are_compared_and_other_types_are_not() {
    let value = |text: &str| {
        let program = cel::Program::compile(text).unwrap();
        program.execute(&cel::Context::default()).ok()
    };
    for text in ["1.5 > 1", "1 == 1.0", "2u > 1", "1 in [1.0]"] {
        assert_eq!(value(text), Some(cel::Value::Bool(true)), "case: {text}");
    }
    for text in ["1 == '1'", "'a' == true", "1 in ['1']", "'2' > 1"] {
        assert_ne!(value(text), Some(cel::Value::Bool(true)), "case: {text}");
    }
}

#[test]
fn a_misfit_beside_what_can_be_true_is_told_and_no_more() {
    for filter in ["id == '1' || paid", "id != '1'", "id in [1, '2']"] {
        let report = report(filter);
        assert_eq!((report.misfits.len(), report.is_never_true), (1, false), "case: {filter}");
    }
}
