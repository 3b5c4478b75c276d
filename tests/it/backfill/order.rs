//! What a snapshot does not see, and where rows wait.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;
use serde_json::json;
use tokio::task::JoinSet;
use walhook::testing::backfill::wal_end;
use walhook::testing::sandbox::cluster::ClusterOptions;
use walhook::testing::sandbox::cluster::SandboxCluster;

use super::Bench;
use super::ITEMS;
use super::Kept;
use super::RULE;
use super::ids;
use super::reads;
use crate::support::postgres::Database;
use crate::support::postgres::Sql;
use crate::support::postgres::start_cluster;
use crate::support::postgres::wait_for_text;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::Request;
use crate::support::receiver::always;
use crate::support::service::AMPLE;
use crate::support::service::Service;

/// A server on which a commit is streamed and not visible for as long as nobody answers as its standby, and a
/// backfill of sixty rows that has begun on it.
struct UnansweredCommit {
    _cluster: SandboxCluster,
    sql: Sql,
    receiver: Receiver,
    service: Service,
    /// Of the backfill.
    path: String,
    waiting: JoinSet<Result<(), tokio_postgres::Error>>,
}

impl UnansweredCommit {
    /// Has `update` committed in vain while the backfill is under way, and streamed.
    async fn of(update: &'static str) -> Self {
        let cluster = start_cluster(ClusterOptions::default()).await;
        let url = cluster.url("postgres");
        let sql = Sql::connect(&url).await;
        sql.batch_execute(ITEMS).await.unwrap();
        let fill = "INSERT INTO items (id, large) SELECT n, repeat(n::text, 3000) FROM generate_series(1, 60) n";
        sql.batch_execute(fill).await.unwrap();
        // Only who asks for it waits for the standby.
        sql.batch_execute("ALTER DATABASE postgres SET synchronous_commit = local").await.unwrap();
        sql.batch_execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'").await.unwrap();
        sql.batch_execute("SELECT pg_reload_conf()").await.unwrap();
        wait_for_text(&sql, "SHOW synchronous_standby_names", "nobody").await;
        let receiver = Receiver::start(always(Answer::status(200)));
        let toml = format!(
            "[postgres]\nurl = \"{url}\"\n[http]\nlisten = \"127.0.0.1:0\"\n[log]\nfilter = \"walhook=debug\"\n\
             {RULE}[[endpoint]]\nname = \"all\"\nurl = \"{}\"\n",
            receiver.url()
        );
        let service = Service::start(&toml).await;
        let ordered = json!({ "tables": ["public.items"], "rate": 10 });
        let ordered = service.post("/api/v1/backfills", &ordered).await.json();
        let id = ordered["backfills"][0]["id"].as_i64().unwrap();
        let path = format!("/api/v1/backfills/{id}");
        receiver.wait_for(1, AMPLE).await;
        let writer = Sql::connect(&url).await;
        let mut waiting = JoinSet::new();
        waiting.spawn(async move {
            writer.batch_execute(&format!("SET synchronous_commit = on; {update}")).await
        });
        let is_updated = |request: &Request| request.json()["operation"] == "update";
        let deadline = Instant::now() + AMPLE;
        while !receiver.requests().iter().any(is_updated) {
            assert!(Instant::now() < deadline);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Self { _cluster: cluster, sql, receiver, service, path, waiting }
    }

    /// The backfill, once `is_so`.
    async fn wait_for(&self, path: &str, is_so: impl Fn(&Value) -> bool) {
        let deadline = Instant::now() + AMPLE;
        loop {
            let answer = self.service.get(path).await;
            if is_so(&answer.json()) {
                return;
            }
            assert!(Instant::now() < deadline, "{}", answer.body);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn answer(&mut self) {
        self.sql.batch_execute("ALTER SYSTEM RESET synchronous_standby_names").await.unwrap();
        self.sql.batch_execute("SELECT pg_reload_conf()").await.unwrap();
        self.waiting.join_next().await.unwrap().unwrap().unwrap();
    }
}

fn reason_of(backfill: &Value) -> &str {
    backfill["reason"].as_str().unwrap_or_default()
}

/// Without a standby that answers, a commit is streamed and nobody sees it.
#[tokio::test]
async fn a_commit_that_is_streamed_and_not_visible_is_not_undone_by_a_row() {
    let mut stage = UnansweredCommit::of("UPDATE items SET version = 2 WHERE id = 60").await;
    let version = "SELECT version FROM items WHERE id = 60";
    assert_eq!(stage.sql.text(version).await, "1", "nobody sees it");
    stage.wait_for(&stage.path, |backfill| backfill["state"] != "running").await;
    assert_eq!(stage.sql.text(version).await, "1", "nobody sees it yet");
    let found = reads(&stage.receiver.requests());
    let last = found.iter().find(|body| body["data"]["id"] == 60).unwrap();
    assert_eq!(last["data"]["version"], 2, "the row is as the stream left it");
    assert_eq!(last["data"]["large"], "60".repeat(3000), "what the update did not bring is there");
    // What was streamed before a backfill began is waited for.
    let again = json!({ "tables": ["public.items"] });
    let again = stage.service.post("/api/v1/backfills", &again).await.json();
    let path = format!("/api/v1/backfills/{}", again["backfills"][0]["id"]);
    stage.wait_for(&path, |backfill| reason_of(backfill).contains("waits for 1 ")).await;
    stage.answer().await;
    stage.wait_for(&path, |backfill| backfill["state"] == "done").await;
    Kept::of(&stage.receiver.requests()).must_be(&stage.sql).await;
}

/// Of a change that is more than is remembered, a chunk that does not see it is read again from where it was.
#[tokio::test]
async fn a_chunk_that_is_read_again_leaves_no_row_out() {
    let update = "UPDATE items SET version = 2, large = repeat('x', 5 * 1024 * 1024) WHERE id = 60";
    let mut stage = UnansweredCommit::of(update).await;
    let waits = |backfill: &Value| reason_of(backfill).contains("committed and not visible yet");
    stage.wait_for(&stage.path, waits).await;
    stage.answer().await;
    stage.wait_for(&stage.path, |backfill| backfill["state"] == "done").await;
    Kept::of(&stage.receiver.requests()).must_be(&stage.sql).await;
}

#[tokio::test]
async fn an_endpoint_that_is_down_gets_the_rows_later_and_in_order() {
    let bench = Bench::start(40).await;
    let is_up = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&is_up);
    bench.receiver.behave(Arc::new(move |_: &Request| {
        Answer::status(if asked.load(Ordering::Relaxed) { 200 } else { 503 })
    }));
    let id = bench.items().await;
    // Settled or parked, the backfill goes on; what it has not sent waits in the backlog.
    assert_eq!(bench.done(id).await["state"], "done");
    bench
        .sql
        .batch_execute(
            "UPDATE items SET version = 2 WHERE id <= 20; DELETE FROM items WHERE id = 30",
        )
        .await
        .unwrap();
    bench.balanced().await;
    let before = bench.receiver.count();
    is_up.store(true, Ordering::Relaxed);
    bench.service.post("/api/v1/endpoints/all/try-now", &serde_json::Value::Null).await;
    let open = "SELECT sum(pending) || ' ' || sum(dead) FROM walhook.balance";
    wait_for_text(&bench.sql, open, "0 0").await;
    let requests = bench.receiver.requests();
    let accepted = &requests[before..];
    let found: std::collections::BTreeSet<i64> = ids(&reads(accepted)).into_iter().collect();
    assert!(found.len() >= 39, "{found:?}");
    Kept::of(accepted).must_be(&bench.sql).await;
    bench.balanced().await;
}

/// A transaction that is prepared is no part of what others see; its commit is.
#[tokio::test]
async fn prepared_transactions_are_put_in_order() {
    let options = ClusterOptions {
        settings: vec![("max_prepared_transactions".into(), "5".into())],
        ..ClusterOptions::default()
    };
    let cluster = start_cluster(options).await;
    let url = cluster.url("postgres");
    let sql = Sql::connect(&url).await;
    sql.batch_execute(ITEMS).await.unwrap();
    sql.batch_execute("INSERT INTO items (id, large) SELECT n, 'x' FROM generate_series(1, 40) n")
        .await
        .unwrap();
    let receiver = Receiver::start(always(Answer::status(200)));
    let toml = format!(
        "[postgres]\nurl = \"{url}\"\n[http]\nlisten = \"127.0.0.1:0\"\n{RULE}\
         [[endpoint]]\nname = \"all\"\nurl = \"{}\"\n",
        receiver.url()
    );
    let service = Service::start(&toml).await;
    let ordered = json!({ "tables": ["public.items"], "rate": 10 });
    let ordered = service.post("/api/v1/backfills", &ordered).await.json();
    let id = ordered["backfills"][0]["id"].as_i64().unwrap();
    receiver.wait_for(1, AMPLE).await;
    sql.batch_execute(
        "BEGIN; UPDATE items SET version = 2 WHERE id IN (1, 40); PREPARE TRANSACTION 'p'",
    )
    .await
    .unwrap();
    receiver.wait_for(15, AMPLE).await;
    sql.batch_execute("COMMIT PREPARED 'p'").await.unwrap();
    let path = format!("/api/v1/backfills/{id}");
    let deadline = Instant::now() + AMPLE;
    while service.get(&path).await.json()["state"] != "done" {
        assert!(Instant::now() < deadline, "{}", service.get(&path).await.body);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let count = 42;
    receiver.wait_for(count, AMPLE).await;
    Kept::of(&receiver.requests()).must_be(&sql).await;
}

#[tokio::test]
async fn where_nothing_else_happens_keepalives_let_rows_go() {
    // The state is in another database, and nobody writes to this one.
    let state = Database::create().await;
    let bench = Bench::start(5).await;
    let Bench { database, sql, receiver, toml, mut service } = bench;
    service.stop().await;
    let toml = toml.replace("[http]", &format!("[state]\nurl = \"{}\"\n\n[http]", state.url()));
    let toml = toml.replace("slot = \"", "slot = \"other_");
    let service = Service::start(&toml).await;
    let bench = Bench { database, sql, receiver, toml, service };
    let id = bench.items().await;
    assert_eq!(bench.done(id).await["state"], "done");
    assert_eq!(ids(&reads(&bench.receiver.requests())).len(), 5);
}

/// Where a page of the WAL ends, the next record begins behind a header, and the stream of an idle server
/// never comes there: rows would wait for whatever is written next.
#[tokio::test]
async fn the_end_of_the_wal_is_that_of_its_last_record() {
    let cluster = start_cluster(ClusterOptions::default().with("autovacuum", "off")).await;
    let sql = Sql::connect(&cluster.url("postgres")).await;
    let offset = "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint % 8192";
    let deadline = Instant::now() + AMPLE;
    let mut overhead = 0_i64;
    loop {
        assert!(Instant::now() < deadline, "no record ends with its page");
        let before: i64 = sql.text(offset).await.parse().unwrap();
        let left = 8192 - before;
        let bytes = if overhead > 0 && left < 6000 { left - overhead } else { 1000 };
        let pad = format!("SELECT pg_logical_emit_message(false, 'pad', repeat('x', {bytes}))");
        if bytes < 600 {
            sql.batch_execute("SELECT pg_logical_emit_message(false, 'pad', repeat('x', 1000))")
                .await
                .unwrap();
            continue;
        }
        sql.batch_execute(&pad).await.unwrap();
        let after: i64 = sql.text(offset).await.parse().unwrap();
        if after == 24 {
            break;
        }
        if after > before && bytes == 1000 {
            overhead = after - before - 1000;
        }
    }
    let is_flushed = "SELECT pg_current_wal_flush_lsn() >= pg_current_wal_insert_lsn() - 24";
    wait_for_text(&sql, is_flushed, "t").await;
    let flushed = sql.text("SELECT pg_current_wal_flush_lsn()").await;
    assert_eq!(wal_end::position(&sql).await.unwrap().lsn.to_string(), flushed);
}
