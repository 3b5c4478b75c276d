//! `event::subscribers`, by cases and properties.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::config::settings::EventRule;
use crate::config::settings::PayloadSettings;
use crate::event::plan::RoutedEvent;
use crate::event::route::EventRouter;
use crate::event::route::tests::COMMITTED;
use crate::event::route::tests::change;
use crate::event::route::tests::endpoint;
use crate::event::route::tests::relation;
use crate::event::route::tests::row;
use crate::event::route::tests::rule;
use crate::event::scope::EVALUATIONS;
use crate::flow::change::ChangeOp;
use crate::flow::change::CommittedChange;

fn items() -> Arc<Relation> {
    let columns = [
        ("id", SqlType::Integer),
        ("k", SqlType::Integer),
        ("plan", SqlType::Text),
        ("paid", SqlType::Bool),
        ("total", SqlType::Numeric),
    ];
    relation("items", &columns)
}

fn when(source: &str) -> Endpoint {
    Endpoint { filter: Some(Expression::parse(source).unwrap()), ..endpoint("*") }
}

fn matching(column: &str, values: &[&str]) -> Endpoint {
    let values = values.iter().map(|value| (*value).to_owned()).collect();
    Endpoint { only: Some(ValueMatch { column: column.to_owned(), values }), ..endpoint("*") }
}

fn items_rule() -> EventRule {
    rule("items", PayloadSettings::Standard)
}

/// Who gets the event of this change.
fn takers(router: &mut EventRouter, change: &CommittedChange) -> Vec<usize> {
    let mut found = Vec::new();
    router.route(change, COMMITTED, |rule, routed| match routed {
        RoutedEvent::Event(_) => {}
        RoutedEvent::Partly { endpoints, .. } => found = endpoints.iter().map(|e| e.0).collect(),
        other => panic!("{other:?} of {rule:?}"),
    });
    found.sort_unstable();
    found
}

fn insert(values: &[Option<&str>]) -> CommittedChange {
    change(&items(), ChangeOp::Insert { new: row(values) })
}

/// One of each form of filter that is looked up by a value, and some that are not.
const FILTERS: [&str; 22] = [
    "k == 1",
    "2 == row.k",
    "k == null",
    "k in [1, 3]",
    "k in [1, 1]",
    "k == 1 || k == 4",
    "k == 'a'",
    "plan == 'a'",
    "plan == 1",
    "plan in ['a', null]",
    "paid == true",
    "false == paid",
    "paid == 't'",
    "k == 1 && total > 2.0",
    "total > 2.0 && plan == 'a'",
    "k == 1 && 10 / id > 2",
    "k == 1 && plan == 'a' || k == 2",
    "total == 2",
    "total > 2.0",
    "k != 1",
    "missing == 1",
    "plan == 'b' && size(plan) == k",
];

fn value(known: &'static [&'static str]) -> impl Strategy<Value = Option<&'static str>> {
    let known = prop::sample::select(known);
    prop_oneof![1 => Just(None), 1 => Just(Some("\0")), 6 => known.prop_map(Some)]
}

proptest! {
    /// The index finds whom the evaluation of every filter finds.
    #[test]
    fn who_takes_an_event_is_what_all_filters_say(
        id in value(&["0", "3", "7"]),
        k in value(&["0", "1", "2", "3", "4"]),
        plan in value(&["a", "b", "1", ""]),
        paid in value(&["t", "f"]),
        total in value(&["1.5", "2", "3.25"]),
    ) {
        let endpoints: Vec<_> = FILTERS.iter().map(|source| when(source)).collect();
        let change = insert(&[id, k, plan, paid, total]);
        let mut router = EventRouter::new(7, &[items_rule()], &endpoints);
        let scope = EvaluationScope {
            change: &change,
            event_type: "thing.changed",
            id: crate::flow::event::EventId::new(
                change.position,
                crate::flow::event::IdOrigin::new(7, "thing.changed"),
            ),
            now: COMMITTED,
            born: COMMITTED,
        };
        let is_true = |endpoint: &Endpoint| scope.is_true(endpoint.filter.as_ref().unwrap());
        let expected: Vec<usize> = (0..endpoints.len())
            .filter(|&index| is_true(&endpoints[index]) == Ok(true))
            .collect();
        prop_assert_eq!(takers(&mut router, &change), expected);
    }
}

#[test]
fn an_event_evaluates_no_filter_of_those_that_do_not_take_it() {
    let mut endpoints: Vec<_> = (0..2000).map(|k| when(&format!("k == {k}"))).collect();
    endpoints.extend((0..2000).map(|k| when(&format!("k == {k} && total > 1.0"))));
    let mut router = EventRouter::new(7, &[items_rule()], &endpoints);
    let change = insert(&[Some("1"), Some("77"), Some("a"), Some("t"), Some("2")]);
    let before = EVALUATIONS.with(std::cell::Cell::get);
    assert_eq!(takers(&mut router, &change), [77, 2077]);
    let evaluated = EVALUATIONS.with(std::cell::Cell::get) - before;
    assert_eq!(evaluated, 1, "of the one whose value fits and who asks for more");
}

#[test]
fn a_filter_of_many_endpoints_is_evaluated_once() {
    let endpoints: Vec<_> = (0..500).map(|_| when("total > 1.0")).collect();
    let mut router = EventRouter::new(7, &[items_rule()], &endpoints);
    let change = insert(&[Some("1"), Some("7"), Some("a"), Some("t"), Some("2")]);
    let before = EVALUATIONS.with(std::cell::Cell::get);
    assert_eq!(takers(&mut router, &change).len(), 500);
    assert_eq!(EVALUATIONS.with(std::cell::Cell::get) - before, 1);
}

#[test]
fn a_match_and_a_filter_hold_both() {
    let both = |source| Endpoint { filter: when(source).filter, ..matching("plan", &["a", "b"]) };
    let endpoints = [
        matching("plan", &["a"]),
        both("total > 1.0"),
        both("total > 9.0"),
        matching("k", &["7", "7"]),
        matching("plan", &["c"]),
        matching("missing", &["a"]),
    ];
    let mut router = EventRouter::new(7, &[items_rule()], &endpoints);
    let change = insert(&[Some("1"), Some("7"), Some("a"), Some("t"), Some("2")]);
    assert_eq!(takers(&mut router, &change), [0, 1, 3]);
}
