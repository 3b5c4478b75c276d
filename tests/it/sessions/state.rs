//! The state's database goes dead without a word, away, read-only or locked.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]

use std::time::Instant;

use rustix::process::Signal;
use tokio::task::spawn_blocking;
use walhook::testing::sandbox::cluster::ClusterOptions;
use walhook::testing::sandbox::cluster::SandboxCluster;

use super::TABLE;
use super::by_way_of;
use super::insert;
use super::quoted;
use super::taking;
use super::toml;
use super::wait_until_named;
use crate::failover::standby_of;
use crate::support::postgres::Sql;
use crate::support::postgres::processes_of;
use crate::support::postgres::signal_all;
use crate::support::postgres::start_cluster;
use crate::support::postgres::wait_for_text;
use crate::support::receiver::Receiver;
use crate::support::relay::Relay;
use crate::support::service::AMPLE;
use crate::support::service::Service;

const STATE: &str = "schema walhook";

/// The source, a state in a server of its own behind a relay, and a walhook that runs.
struct Course {
    source: SandboxCluster,
    state: SandboxCluster,
    relay: Relay,
    receiver: Receiver,
    service: Service,
}

async fn started() -> Course {
    let (source, state) = tokio::join!(
        start_cluster(ClusterOptions::default()),
        start_cluster(ClusterOptions::default())
    );
    Sql::connect(&source.url("postgres")).await.batch_execute(TABLE).await.unwrap();
    let relay = Relay::start(state.port()).await;
    let receiver = taking();
    let of_state = format!("[state]\nurl = \"{}\"\n", by_way_of(&state, relay.port()));
    let url = quoted(&source.url("postgres"));
    let service = Service::start(&toml(&url, &of_state, &receiver)).await;
    insert(&source, 1).await;
    receiver.wait_for(1, AMPLE).await;
    Course { source, state, relay, receiver, service }
}

/// Waits until so many deliveries are in the state's books.
async fn wait_for_booked(state: &SandboxCluster, count: u32) {
    let sql = Sql::connect(&state.url("postgres")).await;
    let booked = "SELECT coalesce(sum(delivered), 0)::text FROM walhook.balance";
    wait_for_text(&sql, booked, &count.to_string()).await;
}

#[tokio::test]
async fn sessions_that_go_dead_without_a_word_are_replaced() {
    let mut course = started().await;
    wait_for_booked(&course.state, 1).await;
    course.relay.swallow();
    insert(&course.source, 2).await;
    course.receiver.wait_for(2, AMPLE).await;
    let dead = Instant::now();
    let named = wait_until_named(&course.service, STATE).await;
    assert!(!named.contains("replication"), "{named}");
    wait_for_booked(&course.state, 2).await;
    course.service.wait_for_status("/ready", 200).await;
    assert!(dead.elapsed() < AMPLE, "{:?}", dead.elapsed());
    insert(&course.source, 3).await;
    wait_for_booked(&course.state, 3).await;
    assert_eq!(course.service.metric("walhook_obstacle{what=\"state\"}").await, 0.0);
    course.service.stop().await;
}

#[tokio::test]
async fn a_lost_session_in_the_middle_of_a_flush_does_not_block_the_next_one() {
    let mut course = started().await;
    wait_for_booked(&course.state, 1).await;
    let sql = Sql::connect(&course.state.url("postgres")).await;
    // The flush waits for this lock when its session goes dead, and would have its own locks then.
    sql.batch_execute("BEGIN; LOCK TABLE walhook.books").await.unwrap();
    insert(&course.source, 2).await;
    let waiting = "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted";
    let looker = Sql::connect(&course.state.url("postgres")).await;
    wait_for_text(&looker, waiting, "t").await;
    course.relay.swallow();
    wait_until_named(&course.service, STATE).await;
    sql.batch_execute("ROLLBACK").await.unwrap();
    wait_for_booked(&course.state, 2).await;
    course.service.wait_for_status("/ready", 200).await;
    course.service.stop().await;
}

#[tokio::test]
async fn a_state_that_takes_no_writes_for_a_while_is_waited_for() {
    let Course { source, state, relay, receiver, mut service } = started().await;
    wait_for_booked(&state, 1).await;
    let (state, standby) = spawn_blocking(move || {
        let mut state = state;
        let standby = standby_of(&mut state);
        (state, standby)
    })
    .await
    .unwrap();
    service.wait_for_status("/ready", 200).await;
    relay.lead_to(standby.port());
    relay.cut();
    insert(&source, 2).await;
    wait_until_named(&service, STATE).await;
    assert_eq!(service.metric("walhook_obstacle{what=\"state\"}").await, 1.0);
    let status = service.get("/api/v1/status").await.json();
    assert_eq!(status.pointer("/state/writable"), Some(&false.into()), "{status}");
    relay.lead_to(state.port());
    relay.cut();
    wait_for_booked(&state, 2).await;
    service.wait_for_status("/ready", 200).await;
    receiver.wait_for(2, AMPLE).await;
    service.stop().await;
}

#[tokio::test]
async fn a_state_that_is_locked_or_away_is_named_although_nothing_is_to_be_written() {
    let Course { source, mut state, relay: _relay, receiver, mut service } = started().await;
    wait_for_booked(&state, 1).await;
    let sql = Sql::connect(&state.url("postgres")).await;
    sql.batch_execute("BEGIN; LOCK TABLE walhook.progress").await.unwrap();
    let named = wait_until_named(&service, STATE).await;
    assert!(!named.contains("replication"), "{named}");
    insert(&source, 2).await;
    receiver.wait_for(2, AMPLE).await;
    sql.batch_execute("ROLLBACK").await.unwrap();
    wait_for_booked(&state, 2).await;
    service.wait_for_status("/ready", 200).await;
    drop(sql);

    let mut state = spawn_blocking(move || {
        state.stop().unwrap();
        state
    })
    .await
    .unwrap();
    wait_until_named(&service, STATE).await;
    let state = spawn_blocking(move || {
        state.start_again().unwrap();
        state
    })
    .await
    .unwrap();
    service.wait_for_status("/ready", 200).await;
    insert(&source, 3).await;
    wait_for_booked(&state, 3).await;
    service.stop().await;
}

/// A flush writes more tables than those that are asked now and then.
#[tokio::test]
async fn a_lock_on_any_table_that_is_written_is_named() {
    let Course { source, state, relay: _relay, receiver, mut service } = started().await;
    wait_for_booked(&state, 1).await;
    let mut rows = 1;
    for table in ["books", "push_log_events"] {
        let sql = Sql::connect(&state.url("postgres")).await;
        sql.batch_execute(&format!("BEGIN; LOCK TABLE walhook.{table}")).await.unwrap();
        rows += 1;
        insert(&source, rows.into()).await;
        let named = wait_until_named(&service, STATE).await;
        assert!(!named.contains("replication"), "{table}: {named}");
        sql.batch_execute("ROLLBACK").await.unwrap();
        wait_for_booked(&state, rows).await;
        service.wait_for_status("/ready", 200).await;
    }
    receiver.wait_for(rows as usize, AMPLE).await;
    service.stop().await;
}

/// What PostgreSQL says when its disk is full.
#[tokio::test]
async fn a_state_whose_disk_is_full_is_named_until_there_is_room() {
    let Course { source, state, relay: _relay, receiver, mut service } = started().await;
    wait_for_booked(&state, 1).await;
    let sql = Sql::connect(&state.url("postgres")).await;
    sql.batch_execute(
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             RAISE EXCEPTION 'could not extend file: No space left on device'
                   USING ERRCODE = '53100';
         END $$;
         CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE ON walhook.books
             EXECUTE FUNCTION full_disk()",
    )
    .await
    .unwrap();
    insert(&source, 2).await;
    let named = wait_until_named(&service, STATE).await;
    assert!(named.contains("No space left"), "{named}");
    let status = service.get("/api/v1/status").await.json();
    assert_eq!(status.pointer("/state/writable"), Some(&false.into()), "{status}");
    sql.batch_execute("DROP FUNCTION full_disk CASCADE").await.unwrap();
    wait_for_booked(&state, 2).await;
    service.wait_for_status("/ready", 200).await;
    receiver.wait_for(2, AMPLE).await;
    service.stop().await;
}

/// All of its processes stand still: it takes connections, since the kernel does, and says nothing.
#[tokio::test]
async fn a_frozen_state_is_named_and_taken_up_again() {
    let Course { source, state, relay: _relay, receiver, mut service } = started().await;
    wait_for_booked(&state, 1).await;
    let processes = processes_of(&state).await;
    signal_all(&processes, Signal::STOP);
    insert(&source, 2).await;
    let named = wait_until_named(&service, STATE).await;
    signal_all(&processes, Signal::CONT);
    assert!(!named.contains("replication"), "{named}");
    wait_for_booked(&state, 2).await;
    service.wait_for_status("/ready", 200).await;
    receiver.wait_for(2, AMPLE).await;
    service.stop().await;
}
