//! Bodies in the endpoints' own shapes.

use super::tests::COMMITTED;
use super::tests::ORDER;
use super::tests::change;
use super::tests::endpoint;
use super::tests::orders;
use super::tests::row;
use super::tests::rule;
use super::*;
use crate::config::settings::CloudEventsMode;
use crate::config::settings::PayloadSettings;
use crate::expression::Expression;
use crate::flow::body::EventBody;
use crate::flow::relation::ReplicaIdentity;

fn in_shape(payload: &PayloadSettings) -> Endpoint {
    Endpoint { payload: Some(payload.clone()), ..endpoint("*") }
}

fn refusing(endpoint: Endpoint) -> Endpoint {
    Endpoint { filter: Some(Expression::parse("total < 1").unwrap()), ..endpoint }
}

/// What an insert into orders becomes: the endpoints of each body, the event's own first. `None`
/// for the own body if it is not rendered.
fn bodies(endpoints: &[Endpoint]) -> Vec<(Option<String>, Vec<usize>)> {
    let rule = rule("orders", PayloadSettings::Standard);
    let mut router = EventRouter::new(7, std::slice::from_ref(&rule), endpoints);
    let insert = ChangeOp::Insert { new: row(&ORDER) };
    let mut seen = Vec::new();
    let text = |body: &EventBody| {
        let text = String::from_utf8(body.complete(COMMITTED).to_vec()).unwrap();
        (!body.parts().is_empty()).then_some(text)
    };
    let numbers = |list: &[EndpointIndex]| list.iter().map(|index| index.0).collect();
    let change = change(&orders(ReplicaIdentity::Default), insert);
    router.route(&change, COMMITTED, |_, routed| match routed {
        RoutedEvent::Event(event) => seen.push((text(&event.body), Vec::new())),
        RoutedEvent::Partly { event, endpoints, others, .. } => {
            seen.push((text(&event.body), numbers(&endpoints)));
            seen.extend(others.iter().map(|one| (text(&one.body), numbers(&one.endpoints))));
        }
        other => panic!("{other:?}"),
    });
    seen
}

#[test]
fn endpoints_with_one_payload_share_one_body() {
    let cloud = in_shape(&PayloadSettings::CloudEvents(CloudEventsMode::Structured));
    let debezium = in_shape(&PayloadSettings::Debezium);
    let endpoints = [cloud.clone(), endpoint("*"), debezium.clone(), cloud.clone()];
    let seen = bodies(&endpoints);
    let [(own, all), (cloud_body, clouds), (debezium_body, debeziums)] = seen.as_slice() else {
        panic!("three shapes: {seen:?}")
    };
    assert_eq!((all, clouds, debeziums), (&vec![0, 1, 2, 3], &vec![0, 3], &vec![2]));
    assert!(own.as_ref().unwrap().starts_with("{\"type\":"), "{own:?}");
    assert!(cloud_body.as_ref().unwrap().starts_with("{\"specversion\""), "{cloud_body:?}");
    assert!(debezium_body.as_ref().unwrap().starts_with("{\"before\""), "{debezium_body:?}");
}

#[test]
fn what_nobody_gets_is_not_rendered() {
    let debezium = || in_shape(&PayloadSettings::Debezium);
    let standard = || in_shape(&PayloadSettings::Standard);
    let cases = [
        ("the usual way", vec![endpoint("*"), standard()], vec![(true, vec![])]),
        ("nobody in the own shape", vec![debezium()], vec![(false, vec![0]), (true, vec![0])]),
        ("refused", vec![endpoint("*"), refusing(debezium())], vec![(true, vec![0])]),
        ("all refused", vec![refusing(endpoint("*")), refusing(debezium())], vec![(false, vec![])]),
        (
            "one of two refused",
            vec![debezium(), refusing(debezium()), refusing(endpoint("*"))],
            vec![(false, vec![0]), (true, vec![0])],
        ),
    ];
    for (name, endpoints, expected) in cases {
        let seen: Vec<_> =
            bodies(&endpoints).into_iter().map(|(body, to)| (body.is_some(), to)).collect();
        assert_eq!(seen, expected, "case: {name}");
    }
}
