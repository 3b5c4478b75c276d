//! Tables and types that are altered while rows are read: a row has the shape that the table had when it was read,
//! and never an older one than an event of its key that went before it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::Map;
use serde_json::Value;
use serde_json::json;
use tokio::task::JoinSet;

use super::Bench;
use super::RULE;
use crate::support::postgres::Sql;

/// A row type, an enum, and a column that is now a number and now a text.
const TABLES: &str = "CREATE TYPE pair AS (a int, b text);
     CREATE TYPE mood AS ENUM ('m');
     CREATE TABLE items (id int PRIMARY KEY, version bigint NOT NULL DEFAULT 1, large text,
                         p pair, ps pair[], m mood, now_and_then int, name text);";

const ROWS: i64 = 600;

/// Of all backfills.
const ROWS_SENT: &str = "SELECT coalesce(sum(rows_sent), 0) FROM walhook.backfills";

/// Alters everything, again and again, and writes rows as they are then. Nothing is taken away that an event has
/// told of under the same number of its row.
async fn alter(url: String, rewrites: bool, stop: Arc<AtomicBool>) {
    let sql = Sql::connect(&url).await;
    let mut random = fastrand::Rng::with_seed(11);
    let mut turn = 0;
    while !stop.load(Ordering::Relaxed) {
        turn += 1;
        let (low, high) = (random.i64(1..=ROWS), random.i64(1..=ROWS));
        let some = format!(
            "version = version + 1 WHERE id BETWEEN {low} AND least({low} + 30, {high} + 60)"
        );
        let (kind, value) = if turn % 2 == 0 { ("int", "7") } else { ("text", "'t'") };
        let statements = [
            format!("ALTER TABLE items ADD COLUMN c{turn} int DEFAULT {turn}"),
            format!("UPDATE items SET c{turn} = id, {some}"),
            format!("ALTER TYPE pair ADD ATTRIBUTE d{turn} text"),
            format!("UPDATE items SET p.d{turn} = 'd', {some}"),
            format!("ALTER TYPE mood ADD VALUE 'm{turn}'"),
            format!("UPDATE items SET m = 'm{turn}', {some}"),
            format!("ALTER TABLE items ALTER now_and_then TYPE {kind} USING {value}::{kind}"),
            format!("ALTER TABLE items RENAME name TO name{turn}"),
            format!("UPDATE items SET name{turn} = 'n', {some}"),
            format!("ALTER TABLE items RENAME name{turn} TO name"),
            format!("ALTER TABLE items ADD COLUMN gone int; UPDATE items SET {some}"),
            format!("ALTER TABLE items DROP COLUMN gone; UPDATE items SET {some}"),
        ];
        for statement in statements {
            // By place, a table that is written anew is read anew.
            if !rewrites && statement.contains("ALTER now_and_then TYPE") {
                continue;
            }
            // Another session's locks may make a deadlock of it.
            sql.batch_execute(&statement).await.ok();
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        // A chunk needs a moment in which nothing is altered.
        let before = sql.text(ROWS_SENT).await;
        while !stop.load(Ordering::Relaxed) && sql.text(ROWS_SENT).await == before {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Whether all of a value is in a later one: row types may have more by then.
fn is_within(told: &Value, found: &Value) -> bool {
    match (told, found) {
        (Value::Object(told), Value::Object(found)) => told
            .iter()
            .all(|(name, value)| found.get(name).is_some_and(|found| is_within(value, found))),
        (Value::Array(told), Value::Array(found)) => {
            told.len() == found.len()
                && told.iter().zip(found).all(|(told, found)| is_within(told, found))
        }
        _ => told == found,
    }
}

/// The columns of an event that stay as they are while nobody writes the row.
fn lasting(data: &Map<String, Value>) -> Map<String, Value> {
    let is_lasting = |name: &str| !(name.starts_with('n') || ["gone", "large"].contains(&name));
    data.iter()
        .filter(|(name, _)| is_lasting(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

#[tokio::test]
async fn rows_have_the_shape_of_their_moment_while_everything_is_altered() {
    let bench = Bench::start_with(TABLES, 0, RULE).await;
    let fill = format!(
        "INSERT INTO items SELECT n, 1, 'x', ROW(n, 'b')::pair, ARRAY[ROW(n, 'b')::pair], 'm', 1, 'n' FROM generate_series(1, {ROWS}) n"
    );
    bench.sql.batch_execute(&fill).await.unwrap();
    bench.receiver.wait_for(usize::try_from(ROWS).unwrap(), crate::support::service::AMPLE).await;
    let before = bench.receiver.count();
    for by in ["key", "ctid"] {
        let stop = Arc::new(AtomicBool::new(false));
        let mut altering = JoinSet::new();
        altering.spawn(alter(bench.database.url(), by == "key", Arc::clone(&stop)));
        let id = bench.order(json!({ "tables": ["public.items"], "by": by, "rate": 50 })).await;
        let shown = bench.done(id).await;
        stop.store(true, Ordering::Relaxed);
        altering.join_next().await.unwrap().unwrap();
        assert_eq!(shown["state"], "done", "{by}: {shown}");
        // The next one begins with names that are not taken.
        let columns = "SELECT string_agg(format('ALTER TABLE items DROP COLUMN %I', attname), ';')
             FROM pg_attribute WHERE attrelid = 'items'::regclass AND attname ~ '^c[0-9]' AND NOT attisdropped";
        let columns = bench.sql.text(columns).await;
        bench.sql.batch_execute(&columns).await.unwrap();
        let attributes = "SELECT string_agg(format('ALTER TYPE pair DROP ATTRIBUTE %I', attname), ';')
             FROM pg_attribute WHERE attrelid = 'pair'::regclass AND attname ~ '^d[0-9]' AND NOT attisdropped";
        let attributes = bench.sql.text(attributes).await;
        bench.sql.batch_execute(&attributes).await.unwrap();
        bench
            .sql
            .batch_execute("UPDATE items SET version = version + 1, m = 'm', p = ROW(id, 'b')")
            .await
            .unwrap();
    }
    bench.drained().await;
    // What each row was under each of its numbers, as its changes told it.
    let mut told: BTreeMap<(i64, i64), Map<String, Value>> = BTreeMap::new();
    let mut newest: BTreeMap<i64, i64> = BTreeMap::new();
    let mut reads = 0;
    for request in &bench.receiver.requests()[before..] {
        let body = request.json();
        let data = body["data"].as_object().unwrap();
        if body["operation"] == "delete" {
            continue; // the bench's own row, by which it knows that all has come
        }
        let number = |column: &str| data.get(column).and_then(Value::as_i64);
        let (Some(id), Some(version)) = (number("id"), number("version")) else {
            panic!("no row: {body}");
        };
        let known = newest.entry(id).or_insert(version);
        assert!(version >= *known, "{body} after version {known}");
        *known = version;
        if body["operation"] == "read" {
            reads += 1;
            let of =
                |column: &str| data.get(column).unwrap_or_else(|| panic!("no {column}: {body}"));
            assert!(of("p").is_object() || of("p").is_null(), "{body}");
            assert!(of("ps").is_array() || id < 0, "{body}");
            let then = of("now_and_then");
            assert!(
                [json!(1), json!(7), json!("t"), json!("1")].contains(then) || id < 0,
                "{body}"
            );
            if let Some(told) = told.get(&(id, version)) {
                let (told, found) = (Value::from(told.clone()), Value::from(data.clone()));
                assert!(is_within(&told, &found), "{body} after {told}");
            }
        } else {
            told.insert((id, version), lasting(data));
        }
    }
    assert!(reads >= 2 * ROWS, "{reads}");
    bench.balanced().await;
}
