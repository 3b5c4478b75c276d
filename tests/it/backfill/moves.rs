//! Rows whose keys change while their table is read, for whoever does not take updates: from beyond the place
//! that was reached to before it, where nobody would look for them again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::Value;
use serde_json::json;
use tokio::task::JoinSet;

use super::Bench;
use super::ITEMS;
use super::Kept;
use super::RULE;
use super::ids;
use super::reads;
use crate::support::postgres::Sql;
use crate::support::postgres::wait_for_text;
use crate::support::receiver::Request;
use crate::support::service::AMPLE;
use crate::support::service::Service;

/// Has updates and deletes published, and takes none of them.
const PUBLISHED: &str = "[[event]]\ntype = \"other\"\ntable = \"public.items\"\non = [\"update\", \"delete\"]\n\
     when = \"id < -1000000\"\n";

/// Takes rows that are there, and new ones, and no updates.
const NO_UPDATES: &str =
    "[[event]]\ntype = \"item\"\ntable = \"public.items\"\non = [\"insert\", \"read\"]\n";

/// The same by a filter.
const NO_UPDATES_BY_FILTER: &str = "[[event]]\ntype = \"item\"\ntable = \"public.items\"\n\
     on = [\"insert\", \"update\", \"read\"]\nwhen = \"op != 'update'\"\n";

/// Rows that are read in pieces of a second each.
async fn slowly(bench: &Bench, rate: u32) -> i64 {
    let id = bench.order(json!({ "tables": ["public.items"], "rate": rate })).await;
    bench.wait(id, |shown| shown["rows_sent"].as_i64().unwrap() > 0).await;
    id
}

/// Every row of the table has been told of: each has a text of its own.
async fn must_know_all(bench: &Bench, since: usize) {
    let requests = bench.receiver.requests();
    let text = |request: &Request| request.json()["data"]["large"].as_str().map(ToOwned::to_owned);
    let known: BTreeSet<String> = requests[since..].iter().filter_map(text).collect();
    let rows = bench.sql.query("SELECT id::bigint, large FROM items", &[]).await.unwrap();
    let rows = rows.iter().map(|row| (row.get::<_, i64>(0), row.get::<_, String>(1)));
    let missing: Vec<i64> =
        rows.filter(|(_, text)| !known.contains(text)).map(|(id, _)| id).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

fn read_of(requests: &[Request], id: i64) -> Option<Value> {
    reads(requests).into_iter().rfind(|body| body["data"]["id"] == id)
}

#[tokio::test]
async fn a_key_that_moves_behind_the_reader_is_read_where_it_is() {
    for rules in [format!("{NO_UPDATES}{PUBLISHED}"), NO_UPDATES_BY_FILTER.to_owned()] {
        let bench = Bench::start_with(ITEMS, 160, &rules).await;
        let id = slowly(&bench, 20).await;
        for moved in [
            "UPDATE items SET id = -300, version = 2 WHERE id = 158",
            "UPDATE items SET id = -400 WHERE id = 159",
            "UPDATE items SET id = -500 WHERE id = -400",
            "BEGIN; UPDATE items SET id = -600 WHERE id = 160; ROLLBACK",
            "BEGIN; UPDATE items SET id = -700 WHERE id = 157; DELETE FROM items WHERE id = -700; COMMIT",
        ] {
            bench.sql.batch_execute(moved).await.unwrap();
        }
        let shown = bench.done(id).await;
        assert_eq!(shown["state"], "done", "{shown}");
        bench.drained().await;
        must_know_all(&bench, 0).await;
        let requests = bench.receiver.requests();
        let found = read_of(&requests, -300).unwrap();
        assert_eq!(
            (&found["data"]["version"], &found["data"]["large"]),
            (&json!(2), &json!("158".repeat(3000)))
        );
        assert_eq!(read_of(&requests, -400), None, "it went on");
        assert!(read_of(&requests, 160).is_some() && read_of(&requests, -600).is_none());
        assert_eq!(read_of(&requests, -700), None, "it is not there");
        assert_eq!(bench.sql.text("SELECT count(*) FROM walhook.backfill_moves").await, "0");
        bench.balanced().await;
    }
}

/// An update that moves a row does not bring what PostgreSQL stores apart.
#[tokio::test]
async fn whoever_takes_updates_gets_the_whole_of_a_row_that_moves() {
    let bench = Bench::start(160).await;
    let id = slowly(&bench, 20).await;
    bench
        .sql
        .batch_execute("UPDATE items SET id = -300, version = 2 WHERE id = 160")
        .await
        .unwrap();
    assert_eq!(bench.done(id).await["state"], "done");
    bench.drained().await;
    Kept::of(&bench.receiver.requests()).must_be(&bench.sql).await;
    let found = read_of(&bench.receiver.requests(), -300).unwrap();
    assert_eq!(found["data"]["large"], "160".repeat(3000));
    bench.balanced().await;
}

/// What moves while nobody reads on is not forgotten: neither in a pause, nor by a kill, nor by both.
#[tokio::test]
async fn a_key_that_moves_in_a_pause_or_before_a_kill_is_read_afterwards() {
    let bench = Bench::start_with(ITEMS, 160, &format!("{NO_UPDATES}{PUBLISHED}")).await;
    let id = slowly(&bench, 20).await;
    bench.act(id, "pause").await;
    bench.sql.batch_execute("UPDATE items SET id = -300 WHERE id = 160").await.unwrap();
    // It has come, and what was before it.
    bench.drained().await;
    bench.balanced().await;
    let Bench { database, sql, receiver, toml, service: mut killed } = bench;
    killed.program.kill();
    killed.program.wait(AMPLE).await;
    sql.batch_execute("UPDATE items SET id = -301 WHERE id = 159").await.unwrap();
    let service = Service::start(&toml).await;
    let bench = Bench { database, sql, receiver, toml, service };
    bench.drained().await;
    bench.act(id, "resume").await;
    assert_eq!(bench.done(id).await["state"], "done");
    bench.drained().await;
    must_know_all(&bench, 0).await;
    let requests = bench.receiver.requests();
    assert!(read_of(&requests, -300).is_some() && read_of(&requests, -301).is_some());
    bench.balanced().await;
}

/// A row that goes to another partition is deleted here and inserted there.
#[tokio::test]
async fn a_row_that_moves_to_a_partition_that_is_read_is_read_again() {
    let tables = "CREATE TABLE items (id int, version bigint NOT NULL DEFAULT 1, large text, PRIMARY KEY (id))
                      PARTITION BY RANGE (id);
                  CREATE TABLE items_a PARTITION OF items FOR VALUES FROM (-1000) TO (50);
                  CREATE TABLE items_b PARTITION OF items FOR VALUES FROM (50) TO (1000);";
    let rules =
        "[[event]]\ntype = \"item\"\ntable = \"public.items\"\non = [\"update\", \"read\"]\n";
    // Its two halves are published for another type.
    let rules = &format!("{rules}{}", PUBLISHED.replace("\"update\"", "\"insert\""));
    let bench = Bench::start_with(tables, 160, rules).await;
    let id = slowly(&bench, 20).await;
    bench.sql.batch_execute("UPDATE items SET id = -300 WHERE id = 160").await.unwrap();
    assert_eq!(bench.done(id).await["state"], "done");
    must_know_all(&bench, 0).await;
    assert!(read_of(&bench.receiver.requests(), -300).is_some());
    bench.balanced().await;
}

/// Moves rows to and fro over the whole of the table.
async fn scatter(url: String, seed: u64, stop: Arc<AtomicBool>) {
    let sql = Sql::connect(&url).await;
    let mut random = fastrand::Rng::with_seed(seed);
    while !stop.load(Ordering::Relaxed) {
        let (from, to) = (random.i64(1..=2000), random.i64(1..=2000));
        let statement = match random.u32(0..6) {
            0 => format!("DELETE FROM items WHERE id = {from}"),
            1 => format!(
                "INSERT INTO items VALUES ({to}, 1, 'new ' || random()) ON CONFLICT DO NOTHING"
            ),
            2 => format!("BEGIN; UPDATE items SET id = {to} WHERE id = {from}; ROLLBACK"),
            3 => format!(
                "BEGIN; DELETE FROM items WHERE id = {to}; SAVEPOINT s;
                 UPDATE items SET id = {to} WHERE id = {from}; RELEASE s; COMMIT"
            ),
            _ => format!("UPDATE items SET id = {to} WHERE id = {from}"),
        };
        // A key that is taken.
        if sql.batch_execute(&statement).await.is_err() {
            sql.batch_execute("ROLLBACK").await.ok();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Beside writers that move keys, under kills and pauses: who takes no updates knows each row in the end.
#[tokio::test]
async fn beside_keys_that_move_all_the_time_each_row_is_told_of() {
    // By its primary key; by another index as identity; by the whole row.
    for identity in ["DEFAULT", "USING INDEX items_other", "FULL"] {
        let tables = format!(
            "CREATE TABLE items (id int NOT NULL, version bigint NOT NULL DEFAULT 1, large text);
             {};
             ALTER TABLE items REPLICA IDENTITY {identity}",
            match identity {
                "USING INDEX items_other" =>
                    "ALTER TABLE items ADD serial bigserial PRIMARY KEY; CREATE UNIQUE INDEX items_other ON items (id)",
                _ => "ALTER TABLE items ADD PRIMARY KEY (id)",
            }
        );
        let mut bench = Bench::start_with(&tables, 0, &format!("{NO_UPDATES}{PUBLISHED}")).await;
        bench
            .sql
            .batch_execute(
                "INSERT INTO items (id, large) SELECT n * 4, 'row ' || n FROM generate_series(1, 500) n",
            )
            .await
            .unwrap();
        let before = bench.receiver.wait_for(500, AMPLE).await.len();
        let stop = Arc::new(AtomicBool::new(false));
        let mut writers = JoinSet::new();
        for seed in 1..=2 {
            writers.spawn(scatter(bench.database.url(), seed, Arc::clone(&stop)));
        }
        let id = slowly(&bench, 80).await;
        bench.service.program.kill();
        bench.service.program.wait(AMPLE).await;
        bench.service = Service::start(&bench.toml).await;
        let sent = bench.show(id).await["rows_sent"].as_i64().unwrap();
        let is_further = |shown: &Value, sent| {
            shown["state"] != "running" || shown["rows_sent"].as_i64().unwrap() > sent
        };
        bench.wait(id, |shown| is_further(shown, sent)).await;
        // Unless it is done by now.
        for what in ["pause", "resume"] {
            bench.service.post(&format!("/api/v1/backfills/{id}/{what}"), &Value::Null).await;
        }
        bench.wait(id, |shown| is_further(shown, 350)).await;
        stop.store(true, Ordering::Relaxed);
        while let Some(ended) = writers.join_next().await {
            ended.unwrap();
        }
        let shown = bench.done(id).await;
        assert_eq!(shown["state"], "done", "{identity}: {shown}");
        bench.drained().await;
        must_know_all(&bench, before).await;
        wait_for_text(&bench.sql, "SELECT count(*) FROM walhook.backfill_moves", "0").await;
        bench.balanced().await;
    }
}

#[tokio::test]
async fn a_backfill_that_is_cancelled_leaves_no_moves_behind() {
    let bench = Bench::start_with(ITEMS, 160, RULE).await;
    let id = slowly(&bench, 20).await;
    bench.sql.batch_execute("UPDATE items SET id = -300 WHERE id = 160").await.unwrap();
    wait_for_text(&bench.sql, "SELECT count(*) FROM walhook.backfill_moves", "1").await;
    bench.act(id, "cancel").await;
    bench.sql.batch_execute("UPDATE items SET id = -301 WHERE id = 159").await.unwrap();
    bench.drained().await;
    bench.balanced().await;
    assert_eq!(bench.sql.text("SELECT count(*) FROM walhook.backfill_moves").await, "0");
    assert!(!ids(&reads(&bench.receiver.requests())).contains(&-300));
}
