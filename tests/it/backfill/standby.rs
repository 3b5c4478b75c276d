//! Rows that are read on a standby: `[backfill] url`.

use std::collections::BTreeSet;
use std::time::Instant;

use serde_json::json;
use tokio::task::spawn_blocking;
use walhook::testing::sandbox::cluster::ClusterOptions;
use walhook::testing::sandbox::cluster::SandboxCluster;

use super::Bench;
use super::ITEMS;
use super::Kept;
use super::Place;
use super::RULE;
use super::ids;
use super::reads;
use super::writers::ROWS;
use super::writers::beside_writers_of;
use crate::failover::standby_of;
use crate::support::postgres::Sql;
use crate::support::postgres::start_cluster;
use crate::support::postgres::wait_for_text;
use crate::support::program::Program;
use crate::support::service::AMPLE;

/// walhook reads changes here, and rows on a standby of it.
struct StandbyBench {
    bench: Bench,
    standby: SandboxCluster,
    /// As superuser there.
    sql: Sql,
}

/// Two servers, without tables.
async fn pair() -> (SandboxCluster, SandboxCluster) {
    let primary = start_cluster(ClusterOptions::default()).await;
    spawn_blocking(move || {
        let mut primary = primary;
        let standby = standby_of(&mut primary);
        (primary, standby)
    })
    .await
    .unwrap()
}

async fn start(rows: u32) -> StandbyBench {
    let (primary, standby) = pair().await;
    let url = standby.url("postgres");
    let rules = format!("[backfill]\nurl = \"{url}\"\n\n{RULE}");
    let place = Place::Private(Box::new(primary));
    let bench = Bench::start_on(place, ITEMS, rows, &rules).await;
    StandbyBench { bench, standby, sql: Sql::connect(&url).await }
}

#[tokio::test]
async fn beside_writers_the_receiver_ends_with_the_table() {
    let StandbyBench { bench, sql, standby: _standby } = start(u32::try_from(ROWS).unwrap()).await;
    let by_place = json!({ "tables": ["public.items"], "by": "ctid" });
    beside_writers_of(&bench, vec![json!({ "tables": ["public.items"] }), by_place]).await;
    // The writers are on the source, so that nobody else has read there.
    let is_read = "SELECT idx_scan > 0 FROM pg_stat_user_tables WHERE relname = 'items'";
    wait_for_text(&sql, is_read, "t").await;
}

#[tokio::test]
async fn rows_of_a_standby_that_lags_are_as_the_stream_has_them() {
    let StandbyBench { bench, sql, standby: _standby } = start(60).await;
    let id = bench.order(json!({ "tables": ["public.items"], "rate": 20 })).await;
    bench.wait(id, |shown| shown["rows_sent"].as_i64().unwrap() > 0).await;
    sql.batch_execute("SELECT pg_wal_replay_pause()").await.unwrap();
    wait_for_text(&sql, "SELECT pg_get_wal_replay_pause_state()", "paused").await;
    let write = "UPDATE items SET version = 2 WHERE id > 55; DELETE FROM items WHERE id = 58;
                 INSERT INTO items VALUES (58, 7, 'again'); DELETE FROM items WHERE id = 59;
                 UPDATE items SET id = 61, version = 3 WHERE id = 60";
    bench.sql.batch_execute(write).await.unwrap();
    let shown = bench.done(id).await;
    assert_eq!(shown["state"], "done", "{shown}");
    assert_eq!(sql.text("SELECT max(version) FROM items").await, "1", "it has none of that");
    bench.drained().await;
    Kept::of(&bench.receiver.requests()).must_be(&bench.sql).await;
    // What was streamed before a backfill begins is waited for, and said.
    let id = bench.items().await;
    let waits = |shown: &serde_json::Value| {
        shown["reason"].as_str().unwrap_or_default().contains("waits for the standby")
    };
    bench.wait(id, waits).await;
    sql.batch_execute("SELECT pg_wal_replay_resume()").await.unwrap();
    assert_eq!(bench.done(id).await["state"], "done");
    bench.drained().await;
    Kept::of(&bench.receiver.requests()).must_be(&bench.sql).await;
    bench.balanced().await;
}

#[tokio::test]
async fn a_chunk_that_recovery_cancels_is_read_again_and_counted() {
    let StandbyBench { bench, sql, standby: _standby } = start(60).await;
    let set = |value: &str| format!("ALTER SYSTEM SET max_standby_streaming_delay = {value}");
    sql.batch_execute(&set("0")).await.unwrap();
    sql.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    wait_for_text(&sql, "SHOW max_standby_streaming_delay", "0").await;
    // Each chunk takes its time, once.
    let slow = json!({
        "tables": ["public.items"], "where": "(SELECT count(*) FROM pg_sleep(0.5)) = 1"
    });
    let id = bench.order(slow).await;
    let series = "walhook_backfill_rereads_total{reason=\"conflict\",table=\"public.items\"}";
    let deadline = Instant::now() + AMPLE;
    while !bench.service.get("/metrics").await.body.contains(series) {
        let write = "UPDATE items SET version = version + 1 WHERE id <= 20";
        bench.sql.batch_execute(write).await.unwrap();
        bench.sql.batch_execute("VACUUM items").await.unwrap();
        assert!(Instant::now() < deadline, "{}", bench.service.program.output().join("\n"));
    }
    assert!(bench.service.metric(series).await >= 1.0);
    sql.batch_execute(&set("-1")).await.unwrap();
    sql.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    let shown = bench.done(id).await;
    assert_eq!(shown["state"], "done", "{shown}");
    let found = ids(&reads(&bench.receiver.requests()));
    assert!(found.into_iter().collect::<BTreeSet<_>>().is_superset(&(21..=60).collect()));
    bench.drained().await;
    Kept::of(&bench.receiver.requests()).must_be(&bench.sql).await;
    bench.balanced().await;
}

#[tokio::test]
async fn the_first_start_reads_on_a_standby_that_does_not_know_of_the_slot_yet() {
    let (primary, standby) = pair().await;
    let url = standby.url("postgres");
    let sql = Sql::connect(&url).await;
    sql.batch_execute("SELECT pg_wal_replay_pause()").await.unwrap();
    wait_for_text(&sql, "SELECT pg_get_wal_replay_pause_state()", "paused").await;
    let rules = format!(
        "[backfill]\nurl = \"{url}\"\n\n[[event]]\ntype = \"item\"\ntable = \"public.items\"\nbackfill = true\n"
    );
    let place = Place::Private(Box::new(primary));
    let bench = Bench::start_on(place, ITEMS, 25, &rules).await;
    let id = 1;
    let waits = |shown: &serde_json::Value| {
        shown["reason"].as_str().unwrap_or_default().contains("waits for the standby")
    };
    bench.wait(id, waits).await;
    sql.batch_execute("SELECT pg_wal_replay_resume()").await.unwrap();
    assert_eq!(bench.done(id).await["state"], "done");
    assert_eq!(reads(&bench.receiver.requests()).len(), 25);
}

#[tokio::test]
async fn a_server_that_is_no_standby_of_the_source_is_named() {
    let StandbyBench { bench, sql, standby } = start(100).await;
    let check = async |toml: &str| {
        let mut program = Program::start(&["check"], toml, &[]);
        let code = program.wait(AMPLE).await;
        (code, program.output().join("\n"))
    };
    let (code, said) = check(&bench.toml).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("[backfill] url is a standby of the source"), "{said}");
    sql.batch_execute("ALTER SYSTEM SET max_standby_streaming_delay = 0").await.unwrap();
    sql.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    wait_for_text(&sql, "SHOW max_standby_streaming_delay", "0").await;
    let (code, said) = check(&bench.toml).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("hot_standby_feedback"), "{said}");

    let to_source = bench.toml.replace(&standby.url("postgres"), &bench.database.url());
    let (code, said) = check(&to_source).await;
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("it is no standby but takes writes itself"), "{said}");
    let other = start_cluster(ClusterOptions { own_identifier: true, ..ClusterOptions::default() });
    let other = other.await;
    let to_other = bench.toml.replace(&standby.url("postgres"), &other.url("postgres"));
    let (code, said) = check(&to_other).await;
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("of another database system"), "{said}");

    let limited = "CREATE ROLE limited LOGIN";
    bench.sql.batch_execute(limited).await.unwrap();
    wait_for_text(&sql, "SELECT count(*) FROM pg_roles WHERE rolname = 'limited'", "1").await;
    let theirs = standby.url("postgres").replace("postgres://postgres@", "postgres://limited@");
    let (code, said) = check(&bench.toml.replace(&standby.url("postgres"), &theirs)).await;
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("role limited may not read"), "{said}");

    // One that is promoted meanwhile: what it holds from then on is not the source's.
    let id = bench.order(json!({ "tables": ["public.items"], "rate": 10 })).await;
    bench.wait(id, |shown| shown["rows_sent"].as_i64().unwrap() > 0).await;
    sql.batch_execute("SELECT pg_promote()").await.unwrap();
    sql.batch_execute("UPDATE items SET version = 1000000").await.unwrap();
    let is_named = |shown: &serde_json::Value| {
        shown["reason"].as_str().unwrap_or_default().contains("it is no standby")
    };
    let shown = bench.wait(id, is_named).await;
    assert_eq!(shown["state"], "running", "{shown}");
    let found = reads(&bench.receiver.requests());
    assert!(found.iter().all(|body| body["data"]["version"] == 1), "{found:?}");
}
