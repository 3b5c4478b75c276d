//! Several partitions of one source: each writes for itself, and what they share adds up.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use walhook::testing::flow::lsn::Position;
use walhook::testing::flow::partition::PartitionNumber;
use walhook::testing::flow::write_back::TargetRow;
use walhook::testing::store::SqlSession;
use walhook::testing::store::books::BookCount;
use walhook::testing::store::flush::StateFlush;
use walhook::testing::store::flush::commit;
use walhook::testing::store::ownership::StateOwnership;
use walhook::testing::store::partition_leases;
use walhook::testing::store::progress::load;
use walhook::testing::store::progress::load_settled_ahead;
use walhook::testing::store::progress::load_settled_ahead_of;
use walhook::testing::store::progress::take_partition;
use walhook::testing::store::state_error::StateError;
use walhook::testing::store::write_backs::OutcomeTally;

use super::SLOT;
use super::State;
use super::event;
use super::flushes::count;
use super::position;
use super::session;
use crate::support::postgres::Database;

/// Whoever owns a partition.
struct Owner {
    session: SqlSession,
    ownership: StateOwnership,
}

impl Owner {
    async fn of(database: &Database, partition: u16) -> Self {
        let mut session = session(&database.url()).await;
        let partition = PartitionNumber::new(partition);
        let (ownership, _) =
            take_partition(&mut session.client, SLOT, partition, "a member").await.unwrap();
        Self { session, ownership }
    }

    async fn commit(&mut self, flush: &StateFlush) -> Result<(), StateError> {
        commit(&mut self.session, &mut self.ownership, flush).await
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
    let settled_ahead = |endpoint: &str| StateFlush {
        settled_ahead: vec![(endpoint.into(), id)],
        ..StateFlush::default()
    };
    first.commit(&settled_ahead("crm")).await.unwrap();
    state.commit(&settled_ahead("erp")).await;
    // The second has passed it; the first has not.
    second.commit(&settled(position(200, 0))).await.unwrap();
    let kept = load_settled_ahead_of(state.client(), SLOT, PartitionNumber::new(1)).await.unwrap();
    assert_eq!(kept, [("crm".into(), id)]);
    let kept = load_settled_ahead(state.client(), SLOT).await.unwrap();
    assert_eq!(kept, [("erp".into(), id)]);
    first.commit(&settled(position(160, 0))).await.unwrap();
    let kept = load_settled_ahead_of(state.client(), SLOT, PartitionNumber::new(1)).await.unwrap();
    assert_eq!(kept, []);
    // The source's row stands where it stood.
    assert_eq!(load(state.client(), SLOT).await.unwrap().unwrap().settled, None);
    // Somebody takes the first: its former owner writes no more, all others do.
    let mut heir = Owner::of(&state.database, 1).await;
    assert_eq!((heir.ownership.epoch(), heir.ownership.partition()), (2, PartitionNumber::new(1)));
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
    // A flush of the second that stands still before its end: its progress is locked.
    let tx = second.session.client.transaction().await.unwrap();
    tx.batch_execute("SELECT FROM walhook.progress WHERE partition = 2 FOR UPDATE").await.unwrap();
    first.commit(&settled(position(160, 0))).await.unwrap();
    tx.rollback().await.unwrap();
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

/// A worker that is frozen in the middle of a flush holds its partition's row, also when its lease is over.
#[tokio::test]
async fn a_partition_is_taken_from_a_worker_that_froze_in_the_middle_of_a_flush() {
    let state = State::create().await;
    let mut frozen = Owner::of(&state.database, 1).await;
    let blocker = state.sql().await;
    let over = "UPDATE walhook.progress SET member = 'frozen', at_source = false,
                       lease_until = now() - interval '1s' WHERE partition = 1";
    blocker.batch_execute(over).await.unwrap();
    let block = "BEGIN; LOCK TABLE walhook.books IN ACCESS EXCLUSIVE MODE";
    blocker.batch_execute(block).await.unwrap();
    let mut flushing = JoinSet::new();
    flushing.spawn(async move {
        let books = vec![count("crm", BookCount::default())];
        frozen.commit(&StateFlush { books, ..StateFlush::default() }).await
    });
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
                 AND datname = current_database()";
    while blocker.text(waits).await == "0" {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut heir = session(&state.database.url()).await;
    let (partition, lease) = (PartitionNumber::new(1), Duration::from_secs(6));
    let who = ("heir", "the heir");
    let taken = partition_leases::take(&mut heir.client, SLOT, partition, who, lease);
    let taken = tokio::time::timeout(Duration::from_secs(60), taken).await;
    let (ownership, progress) = taken.expect("it waits for ever").unwrap().unwrap();
    assert_eq!((ownership.epoch(), progress.holder.as_str()), (2, "the heir"));
    assert!(flushing.join_next().await.unwrap().unwrap().is_err());
    // While its lease lasts nobody is ended for it, and nobody else gets it.
    let mut third = session(&state.database.url()).await;
    let taken = partition_leases::take(&mut third.client, SLOT, partition, ("c", "c"), lease).await;
    assert!(taken.unwrap().is_none());
}
