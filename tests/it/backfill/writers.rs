//! Beside transactions that change everything.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use serde_json::json;
use tokio::task::JoinSet;

use super::Bench;
use super::Kept;
use crate::support::postgres::Sql;

/// Rows that are there before.
pub(super) const ROWS: i64 = 600;

/// Writes until it is told to stop: new rows, new values with and without the large one, rows that go and
/// come back, other keys, several rows in a transaction, transactions that are taken back.
async fn write(url: String, seed: u64, stop: Arc<AtomicBool>) {
    let sql = Sql::connect(&url).await;
    let mut random = fastrand::Rng::with_seed(seed);
    let mut next = 100_000 + i64::try_from(seed).unwrap() * 10_000;
    while !stop.load(Ordering::Relaxed) {
        let id = random.i64(1..=ROWS);
        let count = "version = version + 1";
        next += 1;
        let statement = match random.u32(0..10) {
            0..3 => format!("UPDATE items SET {count} WHERE id = {id}"),
            3 => format!("UPDATE items SET {count}, large = repeat('{next}', 500) WHERE id = {id}"),
            4 => format!("DELETE FROM items WHERE id = {id}"),
            5 => format!(
                "INSERT INTO items VALUES ({id}, nextval('clock') * 1000000, repeat('{next}', 500)) ON CONFLICT DO NOTHING"
            ),
            6 => format!("UPDATE items SET id = {next}, {count} WHERE id = {id}"),
            7 => format!("UPDATE items SET {count} WHERE id BETWEEN {id} AND {id} + 20"),
            8 => format!(
                "BEGIN; UPDATE items SET {count} WHERE id = {id}; SAVEPOINT s;
                 UPDATE items SET {count} WHERE id = {id}; ROLLBACK TO s;
                 SAVEPOINT t; UPDATE items SET {count} WHERE id = {id}; COMMIT"
            ),
            _ => format!("BEGIN; UPDATE items SET {count} WHERE id = {id}; ROLLBACK"),
        };
        // A deadlock, or a key that is taken: it is tried again with another row.
        if sql.batch_execute(&statement).await.is_err() {
            sql.batch_execute("ROLLBACK").await.ok();
        }
        // Whoever has to deliver it may be slow, too.
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        while !stop.load(Ordering::Relaxed) && is_behind(&sql).await {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }
}

/// Whether so much waits to be delivered that rows would wait long behind it.
async fn is_behind(sql: &Sql) -> bool {
    sql.text("SELECT coalesce(sum(pending), 0) > 200 FROM walhook.balance").await == "t"
}

async fn beside_writers(wishes: Vec<serde_json::Value>) {
    let bench = Bench::start(u32::try_from(ROWS).unwrap()).await;
    beside_writers_of(&bench, wishes).await;
}

/// Backfills of a table of [`ROWS`] rows, while others write to it: the receiver ends with the table.
pub(super) async fn beside_writers_of(bench: &Bench, wishes: Vec<serde_json::Value>) {
    bench.sql.batch_execute("CREATE SEQUENCE clock START 10").await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = JoinSet::new();
    for seed in 1..=3 {
        writers.spawn(write(bench.database.url(), seed, Arc::clone(&stop)));
    }
    let mut ordered = Vec::new();
    for wish in wishes {
        ordered.push(bench.order(wish).await);
    }
    for id in ordered {
        let shown = bench.done(id).await;
        assert_eq!(shown["state"], "done", "{shown}");
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = writers.join_next().await {
        ended.unwrap();
    }
    bench.drained().await;
    Kept::of(&bench.receiver.requests()).must_be(&bench.sql).await;
    bench.balanced().await;
}

#[tokio::test]
async fn by_key_the_receiver_ends_with_the_table() {
    beside_writers(vec![json!({ "tables": ["public.items"] })]).await;
}

#[tokio::test]
async fn by_place_and_twice_at_once_it_does_as_well() {
    let by_place = json!({ "tables": ["public.items"], "by": "ctid" });
    beside_writers(vec![by_place, json!({ "tables": ["public.items"], "rate": 2000 })]).await;
}
