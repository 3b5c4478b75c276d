//! The backlog: in order, within bounds, and nothing leaves it without a trace.

use std::time::Duration;

use bytes::Bytes;
use walhook::testing::flow::body::BodyPart;
use walhook::testing::flow::body::EventBody;
use walhook::testing::flow::event::Event;
use walhook::testing::flow::event::EventFacts;
use walhook::testing::flow::event::EventId;
use walhook::testing::flow::event::IdOrigin;
use walhook::testing::flow::key::EventKeys;
use walhook::testing::flow::key::KeyHash;
use walhook::testing::flow::park_reason::ParkReason;
use walhook::testing::flow::relation::TableName;
use walhook::testing::flow::time::Timestamp;
use walhook::testing::store::backlog::BacklogDelivery;
use walhook::testing::store::backlog::PageLimits;
use walhook::testing::store::backlog::ParkedDelivery;
use walhook::testing::store::backlog::ReparkedDelivery;
use walhook::testing::store::backlog::WaitingRow;
use walhook::testing::store::backlog::page;
use walhook::testing::store::backlog::sizes;
use walhook::testing::store::flush::StateFlush;
use walhook::testing::store::stored_event::ReplayRow;
use walhook::testing::store::stored_event::StoredHistory;

use super::HOSTILE;
use super::NOW;
use super::SLOT;
use super::State;
use super::after;
use super::event;
use super::expiring;
use super::failure;
use super::fields;
use super::parked;
use super::sent;

const ALL: PageLimits = PageLimits { after: None, rows: 10_000, bytes: usize::MAX };

async fn park(state: &mut State, parked: Vec<ParkedDelivery>) {
    state.commit(&StateFlush { parked, ..StateFlush::default() }).await;
}

async fn read(state: &mut State, limits: PageLimits) -> Vec<WaitingRow> {
    page(state.client(), SLOT, "crm", limits).await.unwrap()
}

/// Commit LSN and ordinal of each row, short.
fn places(rows: &[WaitingRow]) -> Vec<String> {
    rows.iter().map(|row| row.event.position.to_string().replace("0/", "")).collect()
}

#[tokio::test]
async fn a_parked_delivery_comes_back_as_it_went() {
    let mut state = State::create().await;
    let key = |text: &str| KeyHash::of([Some(text.as_bytes())]);
    let hostile = Event {
        id: EventId::new(super::position(u64::MAX, u32::MAX), IdOrigin::new(7, HOSTILE)),
        position: super::position(u64::MAX, u32::MAX),
        event_type: HOSTILE.into(),
        table: TableName::new(HOSTILE, "na.me").into(),
        keys: EventKeys::both(key("old"), key("new")),
        facts: EventFacts::new(vec![
            ("id".into(), HOSTILE.to_owned()),
            ("b".into(), String::new()),
        ]),
        body: super::body(HOSTILE),
        ..expiring(event(1, 0, "x"), Duration::from_micros(1))
    };
    let history = StoredHistory {
        attempts: 3,
        first_attempt: Some(after(-9)),
        last_attempt: Some(after(-1)),
        status: Some(503),
        failure: Some(failure()),
    };
    let row = ParkedDelivery {
        row_key: Some(HOSTILE.to_owned()),
        history: history.clone(),
        next_attempt: Some(after(30)),
        reason: ParkReason::Retry,
        replay: ReplayRow::Event,
        ..parked(hostile, HOSTILE)
    };
    park(&mut state, vec![row.clone()]).await;
    let found = page(state.client(), SLOT, HOSTILE, ALL).await.unwrap();
    let [read] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(fields(&read.event), fields(&row.event));
    assert_eq!(sent(&read.event), sent(&row.event));
    assert_eq!((&*read.endpoint, &read.row_key, &read.history), (HOSTILE, &row.row_key, &history));
    assert_eq!((read.next_attempt, read.parked_at), (Some(after(30)), NOW));
    assert_eq!((read.reason, read.replay), (ParkReason::Retry, ReplayRow::Event));
    // The tables are still there, and another slot sees nothing.
    assert!(page(state.client(), "other", HOSTILE, ALL).await.unwrap().is_empty());
}

#[tokio::test]
async fn an_endless_expiry_and_an_absurd_birth_can_be_parked() {
    let mut state = State::create().await;
    let mut one = expiring(event(1, 0, "a"), Duration::MAX);
    park(&mut state, vec![parked(event(2, 0, "b"), "crm"), parked(one, "crm")]).await;
    one = event(3, 0, "c");
    one.expiry = Some(walhook::testing::flow::event::EventExpiry {
        born: Timestamp::from_micros(i64::MIN),
        max_age: Duration::from_secs(1),
    });
    park(&mut state, vec![parked(one, "crm")]).await;
    let found = read(&mut state, ALL).await;
    let over: Vec<bool> =
        found.iter().map(|row| row.event.expiry.is_some_and(|e| e.is_over(NOW))).collect();
    assert_eq!(over, [false, false, true]);
    assert_eq!(found[1].event.expiry, None);
}

#[tokio::test]
async fn a_body_of_five_megabytes_fits_and_several_go_in_several_statements() {
    let mut state = State::create().await;
    let large = |commit| {
        let text = HOSTILE.repeat(5 * 1024 * 1024 / HOSTILE.len() + 1);
        let body = EventBody::new(vec![BodyPart::Escaped(Bytes::from(text))]);
        Event { body, ..event(commit, 0, "a") }
    };
    let rows: Vec<ParkedDelivery> = (1..=4).map(|commit| parked(large(commit), "crm")).collect();
    let expected = sent(&rows[0].event);
    park(&mut state, rows).await;
    let found = read(&mut state, ALL).await;
    assert_eq!(found.len(), 4);
    assert!(found.iter().all(|row| sent(&row.event) == expected));
    // A page takes what its bytes allow, and one row in any case.
    for (bytes, expected) in [(1, 1), (6 << 20, 1), (11 << 20, 2), (64 << 20, 4)] {
        let page = read(&mut state, PageLimits { bytes, ..ALL }).await;
        assert_eq!(page.len(), expected, "case: {bytes} bytes");
    }
}

#[tokio::test]
async fn the_order_is_that_of_the_changes_however_late_they_were_parked() {
    let mut state = State::create().await;
    let row = |commit, ordinal| parked(event(commit, ordinal, "a"), "crm");
    park(&mut state, vec![row(20, 1), row(20, 0)]).await;
    park(&mut state, vec![row(9, 7), row(0x1_0000_0000, 0)]).await;
    // Two events of one change keep the order in which they were raised.
    let twin = |event_type: &str| Event {
        id: EventId::new(super::position(30, 0), IdOrigin::new(7, event_type)),
        event_type: event_type.into(),
        ..event(30, 0, "a")
    };
    for event_type in ["updated", "changed", "approved", "closed"] {
        park(&mut state, vec![parked(twin(event_type), "crm")]).await;
    }
    // Parked again: it stays where and what it is.
    let again = ParkedDelivery { parked_at: after(99), ..row(20, 0) };
    park(&mut state, vec![again, parked(event(1, 0, "a"), "erp")]).await;
    let found = read(&mut state, ALL).await;
    let expected = ["9+7", "14+0", "14+1", "1E+0", "1E+0", "1E+0", "1E+0", "1/0+0"];
    assert_eq!(places(&found), expected);
    let types: Vec<&str> = found[3..7].iter().map(|row| &*row.event.event_type).collect();
    assert_eq!(types, ["updated", "changed", "approved", "closed"]);
    assert!(found.iter().all(|row| row.parked_at == NOW));
    // Page by page it is the same, each once.
    let mut paged = Vec::new();
    let mut after = None;
    loop {
        let page = read(&mut state, PageLimits { after, rows: 3, ..ALL }).await;
        let Some(last) = page.last() else { break };
        after = Some(last.cursor());
        paged.extend(places(&page));
    }
    assert_eq!(paged, expected);
}

#[tokio::test]
async fn a_row_goes_back_with_its_history_and_leaves_when_it_is_finished() {
    let mut state = State::create().await;
    park(&mut state, (1..=3).map(|n| parked(event(n, 0, "a"), "crm")).collect()).await;
    let delivery = |n| BacklogDelivery { endpoint: "crm".into(), event: event(n, 0, "a").id };
    let history = StoredHistory {
        attempts: 2,
        first_attempt: Some(after(1)),
        last_attempt: Some(after(2)),
        status: None,
        failure: Some(failure()),
    };
    let reparked = ReparkedDelivery {
        delivery: delivery(2),
        history: history.clone(),
        next_attempt: Some(after(10)),
        reason: ParkReason::Retry,
    };
    let finished = vec![delivery(1)];
    let flush = StateFlush { finished, reparked: vec![reparked], ..StateFlush::default() };
    state.commit(&flush).await;
    let left = read(&mut state, ALL).await;
    assert_eq!(places(&left), ["2+0", "3+0"]);
    assert_eq!((&left[0].history, left[0].next_attempt), (&history, Some(after(10))));
    assert_eq!((&left[1].history, left[1].next_attempt), (&StoredHistory::default(), None));
    // Finished and parked anew by one flush: it is there.
    let flush = StateFlush {
        finished: vec![delivery(3)],
        parked: vec![parked(event(3, 0, "a"), "crm")],
        ..StateFlush::default()
    };
    state.commit(&flush).await;
    assert_eq!(places(&read(&mut state, ALL).await), ["2+0", "3+0"]);
}

#[tokio::test]
async fn the_size_of_a_backlog_is_counted_by_endpoint() {
    let mut state = State::create().await;
    let old = ParkedDelivery { parked_at: after(-50), ..parked(event(1, 0, "a"), "crm") };
    park(&mut state, vec![old, parked(event(2, 0, "a"), "crm"), parked(event(2, 0, "a"), "erp")])
        .await;
    let found = sizes(state.client(), SLOT).await.unwrap();
    let short: Vec<_> = found.iter().map(|s| (&*s.endpoint, s.rows, s.oldest)).collect();
    assert_eq!(short, [("crm", 2, after(-50)), ("erp", 1, NOW)]);
    assert_eq!(found[0].bytes, 2 * found[1].bytes);
    assert_eq!(read(&mut state, ALL).await[0].body_bytes as u64, found[1].bytes);
}
