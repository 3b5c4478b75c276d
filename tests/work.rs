//! Work, not time: what an event costs does not grow with the endpoints that do not take it.
//!
//! Evaluations are counted in `event::subscribers`, entries of the books in `ledger::postings`, rows of the state
//! in `many_endpoints::`; here allocations are.

#![expect(clippy::unwrap_used, reason = "a test may stop at once")]
#![expect(clippy::unreachable, reason = "a test may stop at once, and then shows what came")]

use std::fmt::Write;

use allocation_counter::AllocationInfo;
use allocation_counter::measure;
use bytes::BufMut;
use bytes::Bytes;
use bytes::BytesMut;
use walhook::testing::config;
use walhook::testing::event::plan::RoutedEvent;
use walhook::testing::event::route::EventRouter;
use walhook::testing::flow::change::CapturedItem;
use walhook::testing::flow::change::CommittedChange;
use walhook::testing::flow::time::Timestamp;
use walhook::testing::replication::assemble::ChangeAssembler;
use walhook::testing::replication::pgoutput;

/// Name, type and value of the row's columns.
const COLUMNS: [(&str, u32, &str); 3] = [("id", 20, "4711"), ("k", 20, "7"), ("note", 25, "paid")];

const OID: u32 = 16_384;

/// A router of so many endpoints, each with what its number says.
fn router(endpoints: usize, when: impl Fn(usize) -> String) -> EventRouter {
    let mut text = String::from(
        "postgres.url = 'postgres://walhook@localhost/app'\n[[event]]\ntype = 'item'\n\
         table = 'public.item'\non = ['insert']\n",
    );
    for number in 0..endpoints {
        let when = when(number);
        write!(text, "[[endpoint]]\nname = 'e{number}'\nurl = 'http://127.0.0.1:9/'\n{when}\n")
            .unwrap();
    }
    let settings = config::parse(&text, "the test's configuration", &|_| None).unwrap();
    EventRouter::new(7, &settings.events, &settings.endpoints)
}

/// The row, inserted.
fn change() -> CommittedChange {
    let mut begin = BytesMut::from(&b"B"[..]);
    begin.put_u64(0x16_B374_D848);
    begin.put_i64(0);
    begin.put_u32(7);
    let mut relation = BytesMut::from(&b"R"[..]);
    relation.put_u32(OID);
    relation.put_slice(b"public\0item\0d");
    relation.put_u16(u16::try_from(COLUMNS.len()).unwrap());
    let mut insert = BytesMut::from(&b"I"[..]);
    insert.put_u32(OID);
    insert.put_u8(b'N');
    insert.put_u16(u16::try_from(COLUMNS.len()).unwrap());
    for (name, type_oid, value) in COLUMNS {
        relation.put_u8(u8::from(name == "id"));
        relation.put_slice(name.as_bytes());
        relation.put_u8(0);
        relation.put_u32(type_oid);
        relation.put_i32(-1);
        insert.put_u8(b't');
        insert.put_u32(u32::try_from(value.len()).unwrap());
        insert.put_slice(value.as_bytes());
    }
    let (mut assembler, mut captured) = (ChangeAssembler::new(), Vec::new());
    for raw in [begin.freeze(), relation.freeze(), insert.freeze()] {
        take(&mut assembler, &raw, &mut captured);
    }
    match captured.pop() {
        Some(CapturedItem::Change(change)) => change,
        other => unreachable!("an insert is a change: {other:?}"),
    }
}

fn take(assembler: &mut ChangeAssembler, raw: &Bytes, captured: &mut Vec<CapturedItem>) {
    let message = pgoutput::decode(raw).unwrap();
    assembler.accept(message, raw, None, captured).unwrap();
}

/// What it takes to route the row, and how many endpoints get it. Not the first time, when filters are
/// compiled for the table.
fn cost(mut router: EventRouter) -> (AllocationInfo, usize) {
    let (change, mut takers) = (change(), 0);
    let mut route = || {
        router.route(&change, Timestamp::default(), |_, routed| {
            takers = match routed {
                RoutedEvent::Partly { endpoints, .. } => endpoints.len(),
                RoutedEvent::Filtered => 0,
                other => unreachable!("nobody takes everything: {other:?}"),
            };
        });
    };
    route();
    let info = measure(&mut route);
    (info, takers)
}

#[test]
fn an_event_allocates_nothing_for_endpoints_that_do_not_take_it() {
    let by_value = |number: usize| format!("when = 'k == {number}'");
    let (few, takers_of_few) = cost(router(10, by_value));
    let (many, takers_of_many) = cost(router(2000, by_value));
    assert_eq!((takers_of_few, takers_of_many), (1, 1));
    assert_eq!(few.count_total, many.count_total);
    assert_eq!(few.bytes_total, many.bytes_total);
}

#[test]
fn a_filter_that_many_endpoints_have_costs_an_event_once() {
    // Not an equality, so that it is evaluated; nobody's is true.
    let (one, _) = cost(router(1, |_| String::from("when = 'k > 100'")));
    let (many, takers) = cost(router(500, |_| String::from("when = 'k > 100'")));
    assert_eq!(takers, 0);
    assert_eq!(one.count_total, many.count_total);
}
