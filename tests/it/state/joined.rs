//! Flushes of several partitions in one transaction: all of them or none, and each once.

use std::time::Duration;

use walhook::testing::flow::lsn::Position;
use walhook::testing::flow::partition::PartitionNumber;
use walhook::testing::store::SqlSession;
use walhook::testing::store::books::BookCount;
use walhook::testing::store::flush::JoinedFlush;
use walhook::testing::store::flush::PartitionFlush;
use walhook::testing::store::flush::StateFlush;
use walhook::testing::store::flush::commit;
use walhook::testing::store::flush::commit_joined;
use walhook::testing::store::ownership::StateOwnership;
use walhook::testing::store::partition_leases::prolong;
use walhook::testing::store::partitions::ensure_ahead;
use walhook::testing::store::progress::load_settled_ahead_of;
use walhook::testing::store::progress::take_partition;
use walhook::testing::store::push_totals::PushTotals;
use walhook::testing::store::state_error::StateError;

use super::NOW;
use super::SLOT;
use super::State;
use super::event;
use super::flushes::count;
use super::position;
use super::push_log::attempt;
use super::session;

/// What the server has: push log, books, pushes, and how far the partitions are, with their flushes.
const WRITTEN: &str = "SELECT (SELECT count(*) FROM walhook.push_log) || ' ' ||
    (SELECT coalesce(sum(delivered), 0) FROM walhook.books) || ' ' ||
    (SELECT coalesce(sum(succeeded), 0) FROM walhook.push_totals) || ' ' ||
    (SELECT string_agg(coalesce(settled_ordinal, -1) || '/' || flush, ' ' ORDER BY partition)
       FROM walhook.progress WHERE partition > 0)";

/// One delivery to an endpoint of the partition, with all that may go together.
fn delivery(endpoint: &str, at: Position) -> StateFlush {
    let ahead = event(at.commit.raw(), at.ordinal + 5, "ahead");
    StateFlush {
        settled: Some(at),
        endpoint_watermarks: vec![(endpoint.into(), at)],
        settled_ahead: vec![(endpoint.into(), ahead.id)],
        attempts: vec![attempt(event(at.commit.raw(), at.ordinal, "a"), endpoint)],
        books: vec![count(endpoint, BookCount { delivered: 1, ..BookCount::default() })],
        totals: PushTotals { succeeded: 1, ..PushTotals::default() },
        ..StateFlush::default()
    }
}

async fn own(session: &mut SqlSession, partition: u16) -> StateOwnership {
    let partition = PartitionNumber::new(partition);
    take_partition(&mut session.client, SLOT, partition, "a member").await.unwrap().0
}

fn joined(parts: [(&StateOwnership, &StateFlush); 2]) -> JoinedFlush {
    let part = |(ownership, flush): (&StateOwnership, &StateFlush)| PartitionFlush {
        ownership: ownership.clone(),
        flush: flush.clone(),
    };
    JoinedFlush::of(parts.map(part).into())
}

#[tokio::test]
async fn two_partitions_come_further_by_one_transaction() {
    let mut state = State::create().await;
    ensure_ahead(state.client(), NOW).await.unwrap();
    let mut first = own(&mut state.session, 1).await;
    let mut second = own(&mut state.session, 2).await;
    let flushes = [delivery("crm", position(100, 1)), delivery("erp", position(100, 2))];
    commit_joined(&mut state.session, &joined([(&second, &flushes[1]), (&first, &flushes[0])]))
        .await
        .unwrap();
    assert_eq!(state.text(WRITTEN).await, "2 2 2 1/1 2/1");
    let by_transactions = "SELECT count(DISTINCT xmin::text)::text FROM walhook.progress
                            WHERE partition > 0";
    assert_eq!(state.text(by_transactions).await, "1");
    for (partition, endpoint) in [(1, "crm"), (2, "erp")] {
        let number = PartitionNumber::new(partition);
        let ahead = load_settled_ahead_of(state.client(), SLOT, number).await.unwrap();
        let endpoints: Vec<_> = ahead.iter().map(|(endpoint, _)| &**endpoint).collect();
        assert_eq!(endpoints, [endpoint], "partition {partition}");
    }
    // Whoever did not hear of it gives each of them again, and none counts twice.
    commit(&mut state.session, &mut first, &flushes[0]).await.unwrap();
    commit(&mut state.session, &mut second, &flushes[1]).await.unwrap();
    assert_eq!(state.text(WRITTEN).await, "2 2 2 1/1 2/1");
    let next = [delivery("crm", position(200, 3)), delivery("erp", position(200, 4))];
    commit_joined(&mut state.session, &joined([(&first, &next[0]), (&second, &next[1])]))
        .await
        .unwrap();
    assert_eq!(state.text(WRITTEN).await, "4 4 4 3/2 4/2");
}

#[tokio::test]
async fn a_partition_that_is_not_ours_any_more_fails_it_for_all_and_each_is_told_by_itself() {
    let mut state = State::create().await;
    ensure_ahead(state.client(), NOW).await.unwrap();
    let mut lost = own(&mut state.session, 1).await;
    let mut kept = own(&mut state.session, 2).await;
    let mut heir = own(&mut state.session, 1).await;
    let flushes = [delivery("crm", position(100, 1)), delivery("erp", position(100, 2))];
    let parts = joined([(&lost, &flushes[0]), (&kept, &flushes[1])]);
    commit_joined(&mut state.session, &parts).await.unwrap_err();
    assert_eq!(state.text(WRITTEN).await, "0 0 0 -1/0 -1/0");
    let refused = commit(&mut state.session, &mut lost, &flushes[0]).await.unwrap_err();
    assert!(matches!(refused, StateError::Fenced { .. }), "{refused:?}");
    commit(&mut state.session, &mut kept, &flushes[1]).await.unwrap();
    assert_eq!(state.text(WRITTEN).await, "1 1 1 -1/0 2/1");
    commit(&mut state.session, &mut heir, &flushes[0]).await.unwrap();
    assert_eq!(state.text(WRITTEN).await, "2 2 2 1/1 2/1");
}

/// A joined flush locks the partitions' rows by their numbers. Whatever else locks several does so, too: in another
/// order each would wait for a row that the other has.
#[tokio::test]
async fn leases_are_prolonged_in_the_order_in_which_flushes_lock() {
    let mut state = State::create().await;
    // The second lies before the first in the table.
    let second = own(&mut state.session, 2).await;
    let first = own(&mut state.session, 1).await;
    let give = "UPDATE walhook.progress SET at_source = false, member = 'm' WHERE partition > 0";
    state.sql().await.batch_execute(give).await.unwrap();
    let flush = state.sql().await;
    let lock = "SELECT FROM walhook.progress WHERE partition = 1 FOR NO KEY UPDATE";
    flush.batch_execute(&format!("BEGIN; {lock}")).await.unwrap();
    let looker = state.sql().await;
    let member = session(&state.database.url()).await;
    let owned = [&second, &first].map(|own| (own.partition(), own.epoch()));
    let prolonged = prolong(&member.client, (SLOT, "m"), &owned, Duration::from_secs(6));
    let next = async {
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
                     AND datname = current_database()";
        while looker.text(waits).await == "0" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let next =
            "SELECT FROM walhook.progress WHERE partition = 2 FOR NO KEY UPDATE NOWAIT; COMMIT";
        flush.batch_execute(next).await
    };
    let (prolonged, next) = tokio::join!(prolonged, next);
    next.unwrap();
    let mut prolonged = prolonged.unwrap();
    prolonged.sort();
    assert_eq!(prolonged, [first.partition(), second.partition()]);
}
