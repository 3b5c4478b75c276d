//! Flushes: whole or not at all, once, and by the holder only.

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use tokio::task::JoinSet;
use walhook::testing::flow::lsn::Lsn;
use walhook::testing::flow::relation::TableName;
use walhook::testing::store::backlog::BacklogDelivery;
use walhook::testing::store::books;
use walhook::testing::store::books::BookCount;
use walhook::testing::store::books::BookEntry;
use walhook::testing::store::flush::StateFlush;
use walhook::testing::store::flush::commit;
use walhook::testing::store::partitions::ensure_ahead;
use walhook::testing::store::progress::ServerLineage;
use walhook::testing::store::progress::begin_anew;
use walhook::testing::store::progress::load;
use walhook::testing::store::progress::load_endpoint_watermarks;
use walhook::testing::store::progress::load_settled_ahead;
use walhook::testing::store::progress::set_lineage;
use walhook::testing::store::progress::take;
use walhook::testing::store::state_error::StateError;

use super::NOW;
use super::SLOT;
use super::State;
use super::event;
use super::letter;
use super::parked;
use super::position;
use super::push_log::attempt;
use super::session;

pub(super) const LEFT_ROWS: &str = "SELECT (SELECT count(*) FROM walhook.backlog) || ' ' || \
                         (SELECT count(*) FROM walhook.dead_letters) || ' ' || \
                         (SELECT count(*) FROM walhook.push_log) || ' ' || \
                         (SELECT coalesce(sum(captured), 0) FROM walhook.books)";

pub(super) fn count(endpoint: &str, count: BookCount) -> BookEntry {
    BookEntry {
        endpoint: endpoint.into(),
        table: Arc::new(TableName::new("public", "tasks")),
        count,
    }
}

/// One of everything.
pub(super) fn everything() -> StateFlush {
    StateFlush {
        settled: Some(position(100, 3)),
        confirmed: Some(Lsn::from_raw(90)),
        endpoint_watermarks: vec![("erp".into(), position(101, 7))],
        settled_ahead: vec![("crm".into(), event(101, 0, "a").id)],
        attempts: vec![attempt(event(100, 0, "a"), "crm")],
        parked: vec![parked(event(102, 0, "b"), "crm")],
        dead: vec![letter(event(103, 0, "c"), "crm")],
        books: vec![count(
            "crm",
            BookCount { captured: 3, delivered: 1, dead: 1, ..BookCount::default() },
        )],
        ..StateFlush::default()
    }
}

#[tokio::test]
async fn a_flush_is_read_back_as_it_was_written() {
    let mut state = State::create().await;
    ensure_ahead(state.client(), NOW).await.unwrap();
    state.commit(&everything()).await;
    let progress = load(state.client(), SLOT).await.unwrap().unwrap();
    assert_eq!(progress.settled, Some(position(100, 3)));
    assert_eq!(progress.confirmed, Some(Lsn::from_raw(90)));
    assert_eq!((progress.epoch, progress.holder.as_str()), (1, "the test"));
    let settled_ahead = load_settled_ahead(state.client(), SLOT).await.unwrap();
    assert_eq!(settled_ahead, [("crm".into(), event(101, 0, "a").id)]);
    let endpoint_watermarks = load_endpoint_watermarks(state.client(), SLOT).await.unwrap();
    assert_eq!(endpoint_watermarks, [("erp".into(), position(101, 7))]);
    assert_eq!(state.text(LEFT_ROWS).await, "1 1 1 3");
    // An empty field leaves things where they are.
    let parked = &everything().parked[0];
    let finished = BacklogDelivery { endpoint: parked.endpoint.clone(), event: parked.event.id };
    state.commit(&StateFlush { finished: vec![finished], ..StateFlush::default() }).await;
    let again = load(state.client(), SLOT).await.unwrap().unwrap();
    assert_eq!((again.settled, again.confirmed), (progress.settled, progress.confirmed));
    assert_eq!(state.text(LEFT_ROWS).await, "0 1 1 3");
    assert_eq!(load(state.client(), "other").await.unwrap(), None);
}

/// A run that has not seen the end of a transaction yet knows of no position that it could confirm. If the
/// state took that up, the slot would seem to have been moved by somebody else.
#[tokio::test]
async fn what_was_confirmed_never_goes_back() {
    let mut state = State::create().await;
    for (confirmed, stored) in [(90, 90), (0, 90), (80, 90), (100, 100)] {
        let confirmed = Some(Lsn::from_raw(confirmed));
        state.commit(&StateFlush { confirmed, ..StateFlush::default() }).await;
        let progress = load(state.client(), SLOT).await.unwrap().unwrap();
        assert_eq!(progress.confirmed, Some(Lsn::from_raw(stored)), "after {confirmed:?}");
    }
}

#[tokio::test]
async fn a_flush_whose_answer_got_lost_is_committed_once() {
    let mut state = State::create().await;
    ensure_ahead(state.client(), NOW).await.unwrap();
    // The server commits, and the answer never reaches the one who asked: it does not know the
    // new number, on its side nothing happened.
    let mut session = session(&state.database.url()).await;
    let (mut unaware, _) = take(&mut session.client, SLOT, "unaware").await.unwrap();
    for flush in [everything(), everything()] {
        let mut answered = clone_of(&unaware, &mut session.client).await;
        commit(&mut session, &mut answered, &flush).await.unwrap();
        commit(&mut state.session, &mut unaware, &flush).await.unwrap();
    }
    let dead_twice = "SELECT attempts FROM walhook.dead_letters";
    assert_eq!(state.text(dead_twice).await, "8", "two flushes, four attempts each");
    assert_eq!(state.text(LEFT_ROWS).await, "1 1 2 6");
}

/// The same right again, as a process has it that does not know what the server committed.
async fn clone_of(
    ownership: &walhook::testing::store::ownership::StateOwnership,
    client: &mut tokio_postgres::Client,
) -> walhook::testing::store::ownership::StateOwnership {
    client
        .batch_execute(&format!(
            "UPDATE walhook.progress SET epoch = epoch - 1 WHERE slot = '{}'",
            ownership.slot()
        ))
        .await
        .unwrap();
    let (again, _) = take(client, ownership.slot(), "again").await.unwrap();
    assert_eq!(again.epoch(), ownership.epoch());
    again
}

#[tokio::test]
async fn a_connection_cut_in_the_middle_leaves_nothing_behind() {
    let mut state = State::create().await;
    ensure_ahead(state.client(), NOW).await.unwrap();
    let sql = state.sql().await;
    // The flush hangs at the push log, after everything else was written.
    sql.batch_execute("BEGIN; LOCK TABLE walhook.push_log IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let cutter = state.sql().await;
    let cut = async {
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
                     AND datname = current_database()";
        while cutter.text(waits).await == "0" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                    WHERE wait_event_type = 'Lock' AND datname = current_database()";
        assert_eq!(cutter.text(kill).await, "1");
    };
    let flush = everything();
    let flushing = commit(&mut state.session, &mut state.ownership, &flush);
    let (outcome, ()) = tokio::join!(flushing, cut);
    assert!(outcome.unwrap_err().is_transient());
    sql.batch_execute("COMMIT").await.unwrap();
    assert_eq!(state.text(LEFT_ROWS).await, "0 0 0 0");
    // The same flush goes through on a new session.
    state.session = session(&state.database.url()).await;
    state.commit(&everything()).await;
    assert_eq!(state.text(LEFT_ROWS).await, "1 1 1 3");
}

#[tokio::test]
async fn who_lost_the_slot_writes_nothing() {
    let mut state = State::create().await;
    ensure_ahead(state.client(), NOW).await.unwrap();
    state.commit(&StateFlush { settled: Some(position(5, 0)), ..StateFlush::default() }).await;
    let mut session = session(&state.database.url()).await;
    let (mut heir, found) = take(&mut session.client, SLOT, "the heir").await.unwrap();
    assert_eq!(found.settled, Some(position(5, 0)), "the heir goes on where the first stopped");
    let error = commit(&mut state.session, &mut state.ownership, &everything()).await.unwrap_err();
    let StateError::Fenced { slot, holder } = &error else { panic!("{error:?}") };
    assert_eq!((slot.as_str(), holder.as_str()), (SLOT, "the heir"));
    assert!(!error.is_transient());
    assert_eq!(state.text(LEFT_ROWS).await, "0 0 0 0");
    let lineage = ServerLineage { system: u64::MAX, timeline: 1, publications: vec![] };
    let State { session: old, ownership, .. } = &mut state;
    let error = set_lineage(&mut old.client, ownership, &lineage).await.unwrap_err();
    assert!(matches!(error, StateError::Fenced { .. }), "{error:?}");
    commit(&mut session, &mut heir, &everything()).await.unwrap();
    assert_eq!(state.text(LEFT_ROWS).await, "1 1 1 3");
    // Other slots are other people's.
    let (mut other, _) = take(&mut session.client, "other", "another").await.unwrap();
    commit(&mut session, &mut other, &everything()).await.unwrap();
    commit(&mut session, &mut heir, &StateFlush::default()).await.unwrap();
}

#[tokio::test]
async fn a_holder_that_froze_in_the_middle_of_a_flush_does_not_keep_the_slot() {
    let mut state = State::create().await;
    // A transaction that holds the slot and is never ended: what a frozen process leaves.
    let frozen = session(&state.database.url()).await;
    let mut clone = clone_of(&state.ownership, &mut state.session.client).await;
    let mut frozen_task = JoinSet::new();
    let blocker = state.sql().await;
    blocker
        .batch_execute("BEGIN; LOCK TABLE walhook.books IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    frozen_task.spawn(async move {
        let mut frozen = frozen;
        let flush =
            StateFlush { books: vec![count("crm", BookCount::default())], ..StateFlush::default() };
        commit(&mut frozen, &mut clone, &flush).await
    });
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
                 AND datname = current_database()";
    while blocker.text(waits).await == "0" {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let begun = Instant::now();
    let (_, progress) = take(state.client(), SLOT, "the heir").await.unwrap();
    assert_eq!(progress.holder, "the heir");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert!(frozen_task.join_next().await.unwrap().unwrap().is_err());
}

#[tokio::test]
async fn flushes_that_do_not_follow_one_another_are_refused() {
    let mut state = State::create().await;
    let mut stale = clone_of(&state.ownership, &mut state.session.client).await;
    for _ in 0..2 {
        state.commit(&StateFlush::default()).await;
    }
    let flush = everything_but_attempts();
    let error = commit(&mut state.session, &mut stale, &flush).await.unwrap_err();
    assert!(matches!(error, StateError::OutOfOrder { number: 1, stored: 2, .. }), "{error:?}");
    assert_eq!(state.text(LEFT_ROWS).await, "0 0 0 0");
}

#[tokio::test]
async fn what_was_settled_ahead_is_forgotten_once_it_is_passed() {
    let mut state = State::create().await;
    let ids: Vec<_> = [(10, 0), (10, 1), (10, 2), (11, 0)]
        .iter()
        .map(|&(commit, ordinal)| ("crm".into(), event(commit, ordinal, "a").id))
        .collect();
    state.commit(&StateFlush { settled_ahead: ids.clone(), ..StateFlush::default() }).await;
    state.commit(&StateFlush { settled_ahead: ids.clone(), ..StateFlush::default() }).await;
    assert_eq!(load_settled_ahead(state.client(), SLOT).await.unwrap(), ids);
    state.commit(&StateFlush { settled: Some(position(10, 1)), ..StateFlush::default() }).await;
    assert_eq!(load_settled_ahead(state.client(), SLOT).await.unwrap(), ids[2..]);
    assert_eq!(load_settled_ahead(state.client(), "other").await.unwrap(), []);
    state.commit(&StateFlush { settled: Some(position(11, 0)), ..StateFlush::default() }).await;
    assert_eq!(load_settled_ahead(state.client(), SLOT).await.unwrap(), []);
}

#[tokio::test]
async fn a_front_has_one_row_and_moves() {
    let mut state = State::create().await;
    for front in [position(10, 1), position(12, 0)] {
        let endpoint_watermarks = vec![("crm".into(), front), ("erp".into(), position(9, 0))];
        state.commit(&StateFlush { endpoint_watermarks, ..StateFlush::default() }).await;
    }
    let mut endpoint_watermarks = load_endpoint_watermarks(state.client(), SLOT).await.unwrap();
    endpoint_watermarks.sort();
    assert_eq!(
        endpoint_watermarks,
        [("crm".into(), position(12, 0)), ("erp".into(), position(9, 0))]
    );
    assert_eq!(load_endpoint_watermarks(state.client(), "other").await.unwrap(), []);
}

#[tokio::test]
async fn the_books_add_up_and_come_back() {
    let mut state = State::create().await;
    let one = BookCount { captured: 5, delivered: 2, filtered: 1, expired: 1, dead: 1 };
    // Twice the same line in one flush, more lines than one statement takes, and one taken back.
    let mut lines = vec![count("crm", one), count("crm", one)];
    lines.extend((0..1100).map(|n| count(&format!("endpoint {n:04}"), one)));
    lines.push(count("crm", BookCount { dead: -1, ..BookCount::default() }));
    state.commit(&StateFlush { books: lines, ..StateFlush::default() }).await;
    let loaded = books::load(state.client(), SLOT).await.unwrap();
    assert_eq!(loaded.len(), 1101);
    let total = BookCount { captured: 10, delivered: 4, filtered: 2, expired: 2, dead: 1 };
    assert_eq!(loaded[0], count("crm", total));
    assert_eq!(total.pending(), 1);
    let pending = "SELECT pending FROM walhook.balance WHERE endpoint = 'crm'";
    assert_eq!(state.text(pending).await, "1");
}

#[tokio::test]
async fn the_stream_is_remembered_until_a_gap_is_accepted() {
    let mut state = State::create().await;
    let lineage =
        ServerLineage { system: u64::MAX - 1, timeline: 3, publications: vec![16_384, u32::MAX] };
    let State { session, ownership, .. } = &mut state;
    set_lineage(&mut session.client, ownership, &lineage).await.unwrap();
    state.commit(&everything_but_attempts()).await;
    let stored = load(state.client(), SLOT).await.unwrap().unwrap();
    assert_eq!((stored.lineage.as_ref(), stored.settled.is_some()), (Some(&lineage), true));
    let other = ServerLineage { system: 1, timeline: 1, publications: vec![] };
    let State { session, ownership, .. } = &mut state;
    begin_anew(&mut session.client, ownership, &other, None).await.unwrap();
    let stored = load(state.client(), SLOT).await.unwrap().unwrap();
    assert_eq!((stored.lineage, stored.settled, stored.confirmed), (Some(other), None, None));
    assert_eq!(load_settled_ahead(state.client(), SLOT).await.unwrap(), []);
    assert_eq!(load_endpoint_watermarks(state.client(), SLOT).await.unwrap(), []);
    assert_eq!(state.text("SELECT count(*) FROM walhook.backlog").await, "1");
}

fn everything_but_attempts() -> StateFlush {
    StateFlush { attempts: Vec::new(), ..everything() }
}
