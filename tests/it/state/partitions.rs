//! Several partitions of one source: each writes for itself, and what they share adds up.

use std::sync::Arc;

use walhook::flow::lsn::Position;
use walhook::flow::partition::PartitionNumber;
use walhook::flow::relation::TableName;
use walhook::flow::write_back::TargetRow;
use walhook::store::SqlSession;
use walhook::store::books::BookCount;
use walhook::store::books::CommonChange;
use walhook::store::flush::StateFlush;
use walhook::store::flush::commit;
use walhook::store::ownership::StateOwnership;
use walhook::store::progress::load;
use walhook::store::progress::load_ahead;
use walhook::store::progress::load_ahead_of;
use walhook::store::progress::take_partition;
use walhook::store::push_totals;
use walhook::store::push_totals::PushTotals;
use walhook::store::state_error::StateError;
use walhook::store::write_backs::OutcomeTally;

use super::NOW;
use super::SLOT;
use super::State;
use super::event;
use super::position;
use super::session;
use crate::support::postgres::Database;

/// Whoever owns a partition.
struct Owner {
    session: SqlSession,
    holding: StateOwnership,
}

impl Owner {
    async fn of(database: &Database, partition: u16) -> Self {
        let mut session = session(&database.url()).await;
        let partition = PartitionNumber::new(partition);
        let (holding, _) =
            take_partition(&mut session.client, SLOT, partition, "a member").await.unwrap();
        Self { session, holding }
    }

    async fn commit(&mut self, flush: &StateFlush) -> Result<(), StateError> {
        commit(&mut self.session.client, &mut self.holding, flush).await
    }
}

fn settled(at: Position) -> StateFlush {
    StateFlush { settled: Some(at), ..StateFlush::default() }
}

#[tokio::test]
async fn each_partition_has_an_epoch_and_a_prefix_of_its_own() {
    let mut state = State::create().await;
    let mut first = Owner::of(&state.database, 1).await;
    let mut second = Owner::of(&state.database, 2).await;
    let id = event(150, 0, "a").id;
    let ahead =
        |endpoint: &str| StateFlush { ahead: vec![(endpoint.into(), id)], ..StateFlush::default() };
    first.commit(&ahead("crm")).await.unwrap();
    state.commit(&ahead("erp")).await;
    // The second has passed it; the first has not.
    second.commit(&settled(position(200, 0))).await.unwrap();
    let kept = load_ahead_of(state.client(), SLOT, PartitionNumber::new(1)).await.unwrap();
    assert_eq!(kept, [("crm".into(), id)]);
    let kept = load_ahead(state.client(), SLOT).await.unwrap();
    assert_eq!(kept, [("erp".into(), id)]);
    first.commit(&settled(position(160, 0))).await.unwrap();
    let kept = load_ahead_of(state.client(), SLOT, PartitionNumber::new(1)).await.unwrap();
    assert_eq!(kept, []);
    // The source's row stands where it stood.
    assert_eq!(load(state.client(), SLOT).await.unwrap().unwrap().settled, None);
    // Somebody takes the first: its former owner writes no more, all others do.
    let mut heir = Owner::of(&state.database, 1).await;
    assert_eq!((heir.holding.epoch(), heir.holding.partition()), (2, PartitionNumber::new(1)));
    let refused = first.commit(&settled(position(170, 0))).await.unwrap_err();
    assert!(matches!(refused, StateError::Fenced { .. }), "{refused:?}");
    heir.commit(&settled(position(180, 0))).await.unwrap();
    second.commit(&settled(position(210, 0))).await.unwrap();
    state.commit(&settled(position(170, 0))).await;
}

#[tokio::test]
async fn no_partition_waits_for_anothers_transaction() {
    let state = State::create().await;
    let mut first = Owner::of(&state.database, 1).await;
    let mut second = Owner::of(&state.database, 2).await;
    let flush = StateFlush { totals: sums(1), common: common(&["crm"]), ..StateFlush::default() };
    second.commit(&flush).await.unwrap();
    // A flush of the second that stands still before its end: all that it wrote is locked.
    let tx = second.session.client.transaction().await.unwrap();
    for table in ["progress", "push_totals", "books_common"] {
        let lock = format!("SELECT FROM walhook.{table} WHERE partition = 2 FOR UPDATE");
        tx.batch_execute(&lock).await.unwrap();
    }
    first.commit(&flush).await.unwrap();
    tx.rollback().await.unwrap();
}

fn sums(succeeded: i64) -> PushTotals {
    PushTotals { succeeded, last_push: Some(NOW), ..PushTotals::default() }
}

fn common(joined: &[&str]) -> CommonChange {
    let table = Arc::new(TableName::new("public", "tasks"));
    let count = BookCount { captured: 3, filtered: 3, ..BookCount::default() };
    let joined = joined.iter().map(|name| Arc::from(*name)).collect();
    CommonChange { counts: vec![(table, count)], joined, left: Vec::new() }
}

#[tokio::test]
async fn what_they_count_adds_up() {
    let mut state = State::create().await;
    let mut first = Owner::of(&state.database, 1).await;
    let mut second = Owner::of(&state.database, 2).await;
    let flush = |joined: &[&str], totals| StateFlush {
        totals: sums(totals),
        common: common(joined),
        ..StateFlush::default()
    };
    first.commit(&flush(&["crm", "erp"], 2)).await.unwrap();
    second.commit(&flush(&["billing"], 5)).await.unwrap();
    second.commit(&flush(&[], 0)).await.unwrap();
    assert_eq!(push_totals::load(state.client(), SLOT).await.unwrap().succeeded, 7);
    let balance = "SELECT string_agg(concat_ws(' ', endpoint, captured, filtered, pending), ', '
                                     ORDER BY endpoint) FROM walhook.balance";
    assert_eq!(state.text(balance).await, "billing 6 6 0, crm 3 3 0, erp 3 3 0");
}

#[tokio::test]
async fn a_write_back_is_due_when_the_endpoints_of_all_partitions_have_an_outcome() {
    let state = State::create().await;
    let mut first = Owner::of(&state.database, 1).await;
    let mut second = Owner::of(&state.database, 2).await;
    let event = event(200, 0, "a");
    let tally = |delivered, failed| OutcomeTally {
        event: event.id,
        event_type: Arc::clone(&event.event_type),
        table: Arc::clone(&event.table),
        target: Some(TargetRow {
            key: vec!["id".into()],
            values: vec![("id".into(), Some("7".into())), ("status".into(), None)],
            owed: 3,
        }),
        delivered,
        failed,
    };
    let row = "SELECT concat_ws(' ', owed, delivered, failed, due_at IS NOT NULL)
                 FROM walhook.write_backs";
    let flush = |tally| StateFlush { write_backs: vec![tally], ..StateFlush::default() };
    first.commit(&flush(tally(1, 1))).await.unwrap();
    assert_eq!(state.text(row).await, "3 1 1 f");
    second.commit(&flush(tally(1, 0))).await.unwrap();
    assert_eq!(state.text(row).await, "3 2 1 t");
}
