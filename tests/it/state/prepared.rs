//! What a session prepares for its flushes, and what comes of it where that goes wrong.

use std::time::Duration;

use walhook::testing::flow::lsn::Lsn;
use walhook::testing::store::flush::StateFlush;
use walhook::testing::store::flush::commit;
use walhook::testing::store::partitions::ensure_ahead;
use walhook::testing::store::progress::load;
use walhook::testing::store::progress::load_settled_ahead;
use walhook::testing::store::state_error::StateError;

use crate::poolers::IGNORED;
use crate::poolers::PgBouncer;
use crate::poolers::pgbouncer;

use super::NOW;
use super::SLOT;
use super::State;
use super::event;
use super::flushes::LEFT_ROWS;
use super::flushes::everything;
use super::position;
use super::push_log::attempt;
use super::session;

/// A flush as each is, at this commit.
fn usual(commit: u64) -> StateFlush {
    StateFlush {
        settled: Some(position(commit, 0)),
        confirmed: Some(Lsn::from_raw(commit)),
        settled_ahead: vec![("crm".into(), event(commit + 5, 0, "a").id)],
        attempts: vec![attempt(event(commit, 0, "a"), "crm")],
        books: everything().books,
        ..StateFlush::default()
    }
}

impl State {
    /// So many flushes, from this commit on in steps of ten.
    async fn flushes(&mut self, from: u64, count: u64) {
        for number in 0..count {
            self.commit(&usual(from + number * 10)).await;
        }
    }

    async fn prepared(&mut self) -> i64 {
        let count = "SELECT count(*) FROM pg_prepared_statements";
        self.client().query_typed_one(count, &[]).await.unwrap().get(0)
    }
}

#[tokio::test]
async fn what_is_sent_again_is_prepared_and_after_a_while_anew() {
    let mut state = State::create().await;
    ensure_ahead(state.client(), NOW).await.unwrap();
    state.flushes(100, 1).await;
    assert_eq!(state.prepared().await, 0, "what is sent once is not worth it");
    state.flushes(110, 3).await;
    let prepared = state.prepared().await;
    assert!((5..=32).contains(&prepared), "{prepared}");
    let named = "SELECT count(*), min(prepare_time)::text FROM pg_prepared_statements
                  WHERE statement LIKE '%walhook.progress%'";
    let fence = state.client().query_typed_one(named, &[]).await.unwrap();
    assert_eq!(fence.get::<_, i64>(0), 1);
    state.flushes(200, 510).await;
    assert_eq!(state.prepared().await, prepared);
    let anew = state.client().query_typed_one(named, &[]).await.unwrap();
    assert!(anew.get::<_, String>(1) > fence.get::<_, String>(1));
    assert_eq!(state.text("SELECT count(*) FROM walhook.push_log").await, "514");
    assert_eq!(state.text("SELECT captured FROM walhook.books").await, (514 * 3).to_string());
}

#[tokio::test]
async fn names_that_are_gone_cost_no_flush_and_are_not_used_again() {
    let mut state = State::create().await;
    ensure_ahead(state.client(), NOW).await.unwrap();
    state.flushes(100, 3).await;
    state.client().batch_execute("DEALLOCATE ALL").await.unwrap();
    state.flushes(200, 3).await;
    assert_eq!(state.prepared().await, 0);
    assert_eq!(state.text("SELECT count(*) FROM walhook.push_log").await, "6");
    assert_eq!(state.text("SELECT captured FROM walhook.books").await, "18");
}

/// A pooler that lets sessions in without their settings, as one that nobody refuses would be.
#[tokio::test]
async fn nothing_is_prepared_through_a_pooler() {
    let Some(program) = pgbouncer("nothing_is_prepared_through_a_pooler") else { return };
    let mut state = State::create().await;
    ensure_ahead(state.client(), NOW).await.unwrap();
    for mode in ["transaction", "session"] {
        let pooler = PgBouncer::start(&program, &state.database, mode, IGNORED).await;
        state.session = session(&pooler.url(&state.database)).await;
        state.flushes(100, 5).await;
        assert_eq!(state.prepared().await, 0, "{mode}");
    }
    assert_eq!(state.text("SELECT count(*) FROM walhook.push_log").await, "10");
    assert_eq!(state.text("SELECT captured FROM walhook.books").await, "30");
}

/// The fence of a session whose statements are prepared, and of one whose are not.
#[tokio::test]
async fn each_refusal_has_its_reason_and_leaves_nothing() {
    const TOLD: [(&str, &str); 6] = [
        ("epoch = epoch + 1, holder = 'the heir'", "Fenced the heir"),
        ("epoch = epoch - 1", "SetBack"),
        ("flush = flush - 2", "SetBack"),
        ("flush = flush + 3", "OutOfOrder"),
        ("flush = flush + 1", "committed"),
        ("slot = 'renamed'", "Fenced nobody (its row is gone)"),
    ];
    for (change, told) in TOLD {
        for before in [2, 8] {
            let mut state = State::create().await;
            ensure_ahead(state.client(), NOW).await.unwrap();
            state.flushes(10, before).await;
            if before == 2 {
                state.session = session(&state.database.url()).await;
            }
            let change = format!("UPDATE walhook.progress SET {change} WHERE slot = '{SLOT}'");
            state.sql().await.batch_execute(&change).await.unwrap();
            let left = state.text(LEFT_ROWS).await;
            let progress = load(state.client(), SLOT).await.unwrap();
            let outcome = commit(&mut state.session, &mut state.ownership, &everything()).await;
            let said = match outcome {
                Ok(()) => "committed".to_owned(),
                Err(StateError::Fenced { holder, .. }) => format!("Fenced {holder}"),
                Err(StateError::SetBack { .. }) => "SetBack".to_owned(),
                Err(StateError::OutOfOrder { .. }) => "OutOfOrder".to_owned(),
                Err(error) => format!("{error:?}"),
            };
            assert_eq!(said, told, "{change} after {before} flushes");
            assert_eq!(state.text(LEFT_ROWS).await, left, "{change}");
            assert_eq!(load(state.client(), SLOT).await.unwrap(), progress, "{change}");
            // The session is as good as before.
            assert_eq!(state.prepared().await > 0, before == 8);
        }
    }
}

/// A table that was read as a whole while it had three rows is not, when it has many.
#[tokio::test]
async fn a_plan_that_is_kept_does_not_read_a_table_that_has_grown() {
    const ROWS: usize = 50_000;
    let mut state = State::create().await;
    ensure_ahead(state.client(), NOW).await.unwrap();
    let insert = |from: u64, count: usize| {
        let ids = (0..count).map(|row| {
            let ordinal = u32::try_from(row).unwrap();
            ("crm".into(), event(from, ordinal, "a").id)
        });
        StateFlush { settled_ahead: ids.collect(), ..StateFlush::default() }
    };
    state.commit(&insert(1_000_000, 3)).await;
    let sql = state.sql().await;
    sql.batch_execute("ANALYZE walhook.settled_ahead").await.unwrap();
    state.flushes(100, 20).await;
    state.commit(&insert(2_000_000, ROWS)).await;
    state.flushes(1_000, 20).await;
    assert!(load_settled_ahead(state.client(), SLOT).await.unwrap().len() > ROWS);
    let pid = "SELECT pg_backend_pid()";
    let pid: i32 = state.client().query_typed_one(pid, &[]).await.unwrap().get(0);
    // A session tells what it has read when it ends, if not before.
    state.session = session(&state.database.url()).await;
    let alive = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}");
    while sql.text(&alive).await != "0" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let of = "FROM pg_stat_user_tables WHERE relid = 'walhook.settled_ahead'::regclass";
    while sql.text(&format!("SELECT n_tup_ins > {ROWS} {of}")).await != "t" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Loading them, above, may read them all; each flush may not.
    let read = sql.text(&format!("SELECT seq_tup_read {of}")).await;
    assert!(read.parse::<usize>().unwrap() < 3 * ROWS, "{read} rows were read");
}
