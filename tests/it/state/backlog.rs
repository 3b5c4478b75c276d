//! The backlog: in order, within bounds, and nothing leaves it without a trace.

use std::time::Duration;

use bytes::Bytes;
use walhook::flow::body::Body;
use walhook::flow::body::Part;
use walhook::flow::event::Event;
use walhook::flow::event::EventId;
use walhook::flow::event::Facts;
use walhook::flow::event::Origin;
use walhook::flow::key::Key;
use walhook::flow::key::Keys;
use walhook::flow::relation::TableName;
use walhook::flow::time::Timestamp;
use walhook::store::backlog::PageLimits;
use walhook::store::backlog::ParkReason;
use walhook::store::backlog::Parked;
use walhook::store::backlog::Reparked;
use walhook::store::backlog::Waiting;
use walhook::store::backlog::page;
use walhook::store::backlog::sizes;
use walhook::store::books;
use walhook::store::dead_letters;
use walhook::store::dead_letters::DeadLetterId;
use walhook::store::dead_letters::State as LetterState;
use walhook::store::flush::Flush;
use walhook::store::overdue::Overdue;
use walhook::store::overdue::bury_overdue;
use walhook::store::overdue::drop_expired;
use walhook::store::resend;
use walhook::store::stored_event::History;
use walhook::store::stored_event::Replay;

use super::HOSTILE;
use super::NOW;
use super::SLOT;
use super::State;
use super::after;
use super::event;
use super::expiring;
use super::failure;
use super::fields;
use super::letter;
use super::parked;
use super::sent;

const ALL: PageLimits = PageLimits { after: None, rows: 10_000, bytes: usize::MAX, due: None };

async fn park(state: &mut State, parked: Vec<Parked>) {
    state.commit(&Flush { parked, ..Flush::default() }).await;
}

async fn read(state: &mut State, limits: PageLimits) -> Vec<Waiting> {
    page(state.client(), SLOT, "crm", limits).await.unwrap()
}

/// Commit LSN and ordinal of each row, short.
fn places(rows: &[Waiting]) -> Vec<String> {
    rows.iter().map(|row| row.event.position.to_string().replace("0/", "")).collect()
}

#[tokio::test]
async fn a_parked_delivery_comes_back_as_it_went() {
    let mut state = State::create().await;
    let key = |text: &str| Key::of([Some(text.as_bytes())]);
    let hostile = Event {
        id: EventId::new(super::position(u64::MAX, u32::MAX), Origin::new(7, HOSTILE)),
        position: super::position(u64::MAX, u32::MAX),
        event_type: HOSTILE.into(),
        table: TableName::new(HOSTILE, "na.me").into(),
        keys: Keys::both(key("old"), key("new")),
        facts: Facts::new(vec![("id".into(), HOSTILE.to_owned()), ("b".into(), String::new())]),
        body: super::body(HOSTILE),
        ..expiring(event(1, 0, "x"), Duration::from_micros(1))
    };
    let history = History {
        attempts: 3,
        first_attempt: Some(after(-9)),
        last_attempt: Some(after(-1)),
        status: Some(503),
        failure: Some(failure()),
    };
    let row = Parked {
        row_key: Some(HOSTILE.to_owned()),
        history: history.clone(),
        next_attempt: Some(after(30)),
        reason: ParkReason::Retry,
        replay: Replay::Event,
        ..parked(hostile, HOSTILE)
    };
    park(&mut state, vec![row.clone()]).await;
    let found = page(state.client(), SLOT, HOSTILE, ALL).await.unwrap();
    let [read] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(fields(&read.event), fields(&row.event));
    assert_eq!(sent(&read.event), sent(&row.event));
    assert_eq!((&*read.endpoint, &read.row_key, &read.history), (HOSTILE, &row.row_key, &history));
    assert_eq!((read.next_attempt, read.parked_at), (Some(after(30)), NOW));
    assert_eq!((read.reason, read.replay), (ParkReason::Retry, Replay::Event));
    // The tables are still there, and another slot sees nothing.
    assert!(page(state.client(), "other", HOSTILE, ALL).await.unwrap().is_empty());
}

#[tokio::test]
async fn an_endless_expiry_and_an_absurd_birth_can_be_parked() {
    let mut state = State::create().await;
    let mut one = expiring(event(1, 0, "a"), Duration::MAX);
    park(&mut state, vec![parked(event(2, 0, "b"), "crm"), parked(one, "crm")]).await;
    one = event(3, 0, "c");
    one.expiry = Some(walhook::flow::event::Expiry {
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
        let body = Body::new(vec![Part::Escaped(Bytes::from(text))]);
        Event { body, ..event(commit, 0, "a") }
    };
    let rows: Vec<Parked> = (1..=4).map(|commit| parked(large(commit), "crm")).collect();
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
        id: EventId::new(super::position(30, 0), Origin::new(7, event_type)),
        event_type: event_type.into(),
        ..event(30, 0, "a")
    };
    for event_type in ["updated", "changed", "approved", "closed"] {
        park(&mut state, vec![parked(twin(event_type), "crm")]).await;
    }
    // Parked again: it stays where and what it is.
    let again = Parked { parked_at: after(99), ..row(20, 0) };
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
async fn a_failing_key_holds_up_only_itself() {
    let mut state = State::create().await;
    let wait = |row: Parked| Parked { next_attempt: Some(after(60)), ..row };
    let key = |text: &str| Key::of([Some(text.as_bytes())]);
    let moved = Event { keys: Keys::both(key("b"), key("a")), ..event(5, 0, "a") };
    let keyless = Event { keys: Keys::NONE, ..event(6, 0, "none") };
    let rows = vec![
        parked(event(1, 0, "a"), "crm"),
        wait(parked(event(2, 0, "b"), "crm")),
        parked(event(3, 0, "b"), "crm"), // behind 2
        parked(event(4, 0, "c"), "crm"),
        parked(moved, "crm"), // has b, too
        wait(parked(keyless, "crm")),
        parked(Event { keys: Keys::NONE, ..event(7, 0, "none") }, "crm"),
        parked(event(8, 0, "a"), "crm"),
        wait(parked(event(1, 1, "d"), "erp")),
        parked(event(9, 0, "d"), "crm"), // its key waits at another endpoint
    ];
    park(&mut state, rows).await;
    let due = |time| PageLimits { due: Some(time), ..ALL };
    assert_eq!(
        places(&read(&mut state, due(after(59))).await),
        ["1+0", "4+0", "7+0", "8+0", "9+0"]
    );
    assert_eq!(read(&mut state, due(after(60))).await.len(), 9);
    assert_eq!(read(&mut state, ALL).await.len(), 9);
}

#[tokio::test]
async fn a_row_goes_back_with_its_history_and_leaves_when_it_is_finished() {
    let mut state = State::create().await;
    park(&mut state, (1..=3).map(|n| parked(event(n, 0, "a"), "crm")).collect()).await;
    let found = read(&mut state, ALL).await;
    let history = History {
        attempts: 2,
        first_attempt: Some(after(1)),
        last_attempt: Some(after(2)),
        status: None,
        failure: Some(failure()),
    };
    let reparked = Reparked {
        id: found[1].id,
        history: history.clone(),
        next_attempt: Some(after(10)),
        reason: ParkReason::Retry,
    };
    let finished = vec![found[0].id];
    let flush = Flush { finished, reparked: vec![reparked], ..Flush::default() };
    state.commit(&flush).await;
    let left = read(&mut state, ALL).await;
    assert_eq!(places(&left), ["2+0", "3+0"]);
    assert_eq!((&left[0].history, left[0].next_attempt), (&history, Some(after(10))));
    assert_eq!((&left[1].history, left[1].next_attempt), (&History::default(), None));
    // Finished and parked anew by one flush: it is there.
    let flush = Flush {
        finished: vec![left[1].id],
        parked: vec![parked(event(3, 0, "a"), "crm")],
        ..Flush::default()
    };
    state.commit(&flush).await;
    assert_eq!(places(&read(&mut state, ALL).await), ["2+0", "3+0"]);
}

#[tokio::test]
async fn the_size_of_a_backlog_is_counted_by_endpoint() {
    let mut state = State::create().await;
    let old = Parked { parked_at: after(-50), ..parked(event(1, 0, "a"), "crm") };
    park(&mut state, vec![old, parked(event(2, 0, "a"), "crm"), parked(event(2, 0, "a"), "erp")])
        .await;
    let found = sizes(state.client(), SLOT).await.unwrap();
    let short: Vec<_> = found.iter().map(|s| (&*s.endpoint, s.rows, s.oldest)).collect();
    assert_eq!(short, [("crm", 2, after(-50)), ("erp", 1, NOW)]);
    assert_eq!(found[0].bytes, 2 * found[1].bytes);
    assert_eq!(read(&mut state, ALL).await[0].body_bytes as u64, found[1].bytes);
}

#[tokio::test]
async fn rows_beyond_the_limit_become_dead_letters_with_that_reason() {
    let mut state = State::create().await;
    let tried = History {
        attempts: 5,
        first_attempt: Some(NOW),
        last_attempt: Some(after(5)),
        status: Some(503),
        failure: Some(failure()),
    };
    let mut rows: Vec<Parked> = (1..=10).map(|n| parked(event(n, 0, "a"), "crm")).collect();
    rows[1].history = tried;
    rows.push(parked(event(11, 0, "a"), "erp"));
    let count = books::Count { captured: 10, ..Default::default() };
    let entry = books::Entry { endpoint: "crm".into(), table: rows[0].event.table.clone(), count };
    state.commit(&Flush { parked: rows, books: vec![entry], ..Flush::default() }).await;
    let in_memory = [read(&mut state, ALL).await[0].id];
    let State { session, holding, .. } = &mut state;
    let moved = bury_overdue(
        &mut session.client,
        holding,
        "crm",
        Overdue::Rows(6),
        &in_memory,
        100,
        after(9),
    );
    let moved = moved.await.unwrap();
    assert_eq!((moved.len(), moved[0].rows, moved[0].booked), (1, 4, 4));
    // The first in order went, but not what is in memory.
    assert_eq!(places(&read(&mut state, ALL).await), ["1+0", "6+0", "7+0", "8+0", "9+0", "A+0"]);
    let any = dead_letters::Filter::default();
    let letters = dead_letters::list(state.client(), SLOT, &any, None, 10).await.unwrap();
    assert_eq!(letters.len(), 4);
    assert!(letters.iter().all(|letter| letter.class == "backlog_rows"));
    let second = letters.iter().find(|l| l.event.id == event(2, 0, "a").id).unwrap();
    let reason = "the backlog of the endpoint is limited to 6 rows, last status: 503";
    assert_eq!((second.reason.as_str(), second.attempts), (reason, 5));
    let whole = dead_letters::whole(state.client(), SLOT, second.id).await.unwrap().unwrap();
    assert_eq!(sent(&whole.event), sent(&event(2, 0, "a")));
    assert_eq!(fields(&whole.event), fields(&event(2, 0, "a")));
    let book = books::load(state.client(), SLOT).await.unwrap();
    assert_eq!((book[0].count.dead, book[0].count.pending()), (4, 6));
    // Once more there is nothing to move.
    let State { session, holding, .. } = &mut state;
    let again =
        bury_overdue(&mut session.client, holding, "crm", Overdue::Rows(6), &[], 100, NOW).await;
    assert_eq!(again.unwrap(), []);
}

#[tokio::test]
async fn rows_that_waited_for_too_long_become_dead_letters_in_portions() {
    let mut state = State::create().await;
    let rows = (1..=5).map(|n| Parked {
        parked_at: after(i64::try_from(n).unwrap()),
        ..parked(event(n, 0, "a"), "crm")
    });
    park(&mut state, rows.collect()).await;
    for expected in [2, 1, 0] {
        let State { session, holding, .. } = &mut state;
        let overdue = Overdue::ParkedBefore(after(4));
        let moved =
            bury_overdue(&mut session.client, holding, "crm", overdue, &[], 2, after(9)).await;
        assert_eq!(moved.unwrap().iter().map(|m| m.rows).sum::<u64>(), expected);
    }
    assert_eq!(places(&read(&mut state, ALL).await), ["4+0", "5+0"]);
    let class = "SELECT DISTINCT failure_class FROM walhook.dead_letters";
    assert_eq!(state.text(class).await, "backlog_age");
}

#[tokio::test]
async fn what_expired_is_counted_and_gone() {
    let mut state = State::create().await;
    let aged = |n, seconds| expiring(event(n, 0, "a"), Duration::from_secs(seconds));
    // A dead letter that is being sent again and was parked, and the replay of a settled event.
    state.commit(&Flush { dead: vec![letter(aged(5, 10), "crm")], ..Flush::default() }).await;
    let everything = dead_letters::Filter::default();
    resend::request(state.client(), SLOT, &everything).await.unwrap();
    let State { session, holding, .. } = &mut state;
    let claimed = resend::claim(&mut session.client, holding, &[], 10, 1 << 20).await.unwrap();
    let letter = claimed[0].letter.id;
    let rows = vec![
        parked(aged(1, 9), "crm"),
        parked(aged(2, 10), "crm"),
        parked(aged(3, 11), "crm"),
        parked(aged(1, 1), "erp"),
        parked(event(4, 0, "a"), "crm"),
        Parked { replay: Replay::DeadLetter(letter), ..parked(aged(5, 1), "crm") },
        Parked { replay: Replay::Event, ..parked(aged(6, 1), "crm") },
    ];
    park(&mut state, rows).await;
    let in_memory = [read(&mut state, ALL).await[0].id];
    let State { session, holding, .. } = &mut state;
    let moved = drop_expired(&mut session.client, holding, &in_memory, 100, after(10)).await;
    let moved = moved.unwrap();
    let short: Vec<_> = moved.iter().map(|m| (&*m.endpoint, m.rows, m.booked)).collect();
    assert_eq!(short, [("crm", 2, 1), ("erp", 1, 1)]);
    // The one of exactly ten seconds is at its last moment, and the first is in memory.
    assert_eq!(places(&read(&mut state, ALL).await), ["1+0", "2+0", "3+0", "4+0"]);
    let whole = dead_letters::whole(state.client(), SLOT, letter).await.unwrap().unwrap();
    assert_eq!((whole.state, whole.closed_at), (LetterState::Expired, Some(after(10))));
    let book = "SELECT string_agg(endpoint || expired || dead, ' ' ORDER BY endpoint) \
                FROM walhook.books";
    assert_eq!(state.text(book).await, "crm1-1 erp10");
    assert_eq!(letter, DeadLetterId(1));
}
