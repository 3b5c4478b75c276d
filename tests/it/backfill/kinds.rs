//! Keys of every type, tables that inherit, partitions that come and go, and what a key can do meanwhile.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;
use tokio_postgres::error::SqlState;

use super::Bench;
use super::ITEMS;
use super::Kept;
use super::RULE;
use super::ids;
use super::reads;
use crate::support::postgres::Sql;
use crate::support::postgres::wait_for_text;
use crate::support::receiver::Answer;
use crate::support::receiver::Request;
use crate::support::service::AMPLE;
use crate::types::samples;

/// So many rows have each value of a key's first column: more than the first chunk holds.
const EACH: usize = 10;

/// Types of which there are no samples, with values.
const MADE: &str = "
    CREATE TYPE mood AS ENUM ('zest', 'anger', 'it''s', 'a,b(c)');
    CREATE TYPE pair AS (a int, b text);
    CREATE DOMAIN short AS text COLLATE \"C\" CHECK (length(VALUE) < 100);
    CREATE DOMAIN shorter AS short;";

/// Some fetched servers are built without ICU, and refuse it.
const OF_ICU: &str =
    "CREATE COLLATION odd (provider = icu, locale = 'und-u-ks-level2', deterministic = false);";

/// By a name for the table.
fn keys() -> Vec<(String, String, Vec<String>)> {
    let mut keys = Vec::new();
    for (name, values) in samples::built_in() {
        keys.push((format!("built in {name}"), name.to_owned(), values));
    }
    let texts = samples::of("text");
    let list = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect();
    for (name, column, values) in [
        ("enum", "mood", list(&["zest", "anger", "it's", "a,b(c)"])),
        ("composite", "pair", list(&["(1,x)", "(1,)", "(2,\"a\"\"b,)\")", "(,)", "(-5,\"\\\\\")"])),
        ("domain", "shorter", texts.clone()),
        ("domain with another collation", "short COLLATE \"de-x-icu\"", texts.clone()),
        ("icu", "text COLLATE \"de-x-icu\"", texts.clone()),
        ("not deterministic", "text COLLATE odd", list(&["a", "A", "ä", "Ä", "b", "B", "ß", "ss"])),
        ("array", "int[]", list(&["{}", "{1,2}", "{NULL}", "[0:1]={1,2}"])),
        ("array of composites", "pair[]", list(&["{\"(1,x)\"}", "{}"])),
        ("range", "numrange", list(&["empty", "[1,2)", "(,)"])),
        ("padded", "char(5)", list(&["a", "", "a  b", "abcde"])),
        ("bits", "bit(3)", list(&["000", "101", "111"])),
    ] {
        keys.push((name.to_owned(), column.to_owned(), values));
    }
    keys
}

#[expect(clippy::print_stdout, reason = "a skipped part must not look like a passed one")]
#[tokio::test]
async fn along_keys_of_every_type_each_row_is_read_once() {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
    let bench = Bench::start_with(ITEMS, 0, RULE).await;
    bench.sql.batch_execute(MADE).await.unwrap();
    let has_icu = match bench.sql.batch_execute(OF_ICU).await {
        Ok(()) => true,
        Err(refused) => {
            assert_eq!(refused.code(), Some(&SqlState::FEATURE_NOT_SUPPORTED), "{refused:?}");
            false
        }
    };
    let (mut tables, mut rules) = (Vec::new(), String::new());
    for (name, column, values) in keys() {
        if !has_icu && (column.contains("icu") || column.contains("odd")) {
            println!("SKIP keys of {column}: needs a PostgreSQL with ICU");
            continue;
        }
        let table = format!("key {}", name.replace('"', ""));
        let create = format!("CREATE TABLE \"{table}\" (k {column}, n int, PRIMARY KEY (k, n))");
        // A type without an order is no key.
        if bench.sql.batch_execute(&create).await.is_err() {
            continue;
        }
        for value in values {
            // What another value is equal to, or this server does not take, is left out.
            let insert = format!(
                "INSERT INTO \"{table}\" SELECT {}, n FROM generate_series(1, {EACH}) n",
                quoted(&value)
            );
            bench.sql.batch_execute(&insert).await.ok();
        }
        write!(
            rules,
            "[[event]]\ntype = \"{}\"\ntable = 'public.\"{table}\"'\non = [\"insert\", \"read\"]\n",
            table.replace(|c: char| !c.is_ascii_alphanumeric(), "_")
        )
        .unwrap();
        tables.push(table);
    }
    for kind in ["bytea", "uuid", "numeric", "text", "timestamp with time zone", "date", "boolean"]
    {
        assert!(tables.iter().any(|table| table.ends_with(kind)), "{kind}: {tables:?}");
    }
    assert!(tables.len() > 35, "{tables:?}");
    let Bench { database, sql, receiver, toml, mut service } = bench;
    service.stop().await;
    let toml = toml.replace("[[endpoint]]", &format!("{rules}[[endpoint]]"));
    let service = crate::support::service::Service::start(&toml).await;
    let bench = Bench { database, sql, receiver, toml, service };
    for table in tables {
        let before = bench.receiver.count();
        let id = bench.order(json!({ "tables": [format!("public.\"{table}\"")] })).await;
        let shown = bench.done(id).await;
        assert_eq!(
            (&shown["state"], &shown["by"]),
            (&json!("done"), &json!("key")),
            "{table}: {shown}"
        );
        let count = bench.sql.text(&format!("SELECT count(*) FROM \"{table}\"")).await;
        let count: usize = count.parse().unwrap();
        assert!(count >= EACH, "{table} has {count} rows");
        let requests = bench.receiver.requests();
        // As text: a number of jsonb may be larger than whoever reads it bears.
        let body = |request: &Request| String::from_utf8(request.body.to_vec()).unwrap();
        let found: Vec<String> = requests[before..].iter().map(body).collect();
        let id = |request: &Request| request.header("webhook-id").to_owned();
        let all: BTreeSet<String> = requests[before..].iter().map(id).collect();
        assert!(found.iter().all(|body| body.contains("\"operation\":\"read\"")), "{found:?}");
        assert_eq!((found.len(), all.len()), (count, count), "{table}: {shown}");
    }
    bench.balanced().await;
}

#[tokio::test]
async fn tables_that_inherit_are_read_under_their_own_names() {
    let tables =
        format!("{ITEMS} CREATE TABLE heirs (note text, PRIMARY KEY (id)) INHERITS (items);");
    let rules = format!("{RULE}{}", RULE.replace("\"item\"", "\"heir\"").replace("items", "heirs"));
    let bench = Bench::start_with(&tables, 20, &rules).await;
    bench.sql.batch_execute("INSERT INTO heirs VALUES (1000, 1, 'x', 'y')").await.unwrap();
    let streamed = bench.receiver.wait_for(1, AMPLE).await[0].json();
    assert_eq!(streamed["type"], "heir");
    for by in ["key", "ctid"] {
        let before = bench.receiver.count();
        let id = bench.order(json!({ "tables": ["public.items"], "by": by })).await;
        assert_eq!(bench.done(id).await["rows_read"], 20, "by {by}: what the parent itself holds");
        let id = bench.order(json!({ "tables": ["public.heirs"], "by": by })).await;
        assert_eq!(bench.done(id).await["rows_read"], 1, "by {by}");
        let requests = bench.receiver.requests();
        let heirs =
            requests[before..].iter().map(Request::json).filter(|body| body["type"] == "heir");
        let heirs: Vec<_> = heirs.collect();
        assert_eq!(heirs.len(), 1, "by {by}");
        assert_eq!(heirs[0]["data"], streamed["data"], "by {by}");
    }
    bench.balanced().await;
}

#[tokio::test]
async fn partitions_that_come_are_read_and_those_that_go_are_left() {
    let tables = "CREATE TABLE items (id int, version bigint NOT NULL DEFAULT 1, large text, PRIMARY KEY (id))
                      PARTITION BY RANGE (id);
                  CREATE TABLE items_a PARTITION OF items FOR VALUES FROM (-10) TO (100);
                  CREATE TABLE items_b PARTITION OF items FOR VALUES FROM (100) TO (200);
                  CREATE TABLE items_c (LIKE items INCLUDING ALL);
                  INSERT INTO items_c SELECT n, 1, 'c' FROM generate_series(200, 219) n;";
    let bench = Bench::start_with(tables, 139, RULE).await;
    let id = bench.order(json!({ "tables": ["public.items"], "rate": 40 })).await;
    bench.wait(id, |shown| shown["rows_sent"].as_i64().unwrap() > 0).await;
    bench
        .sql
        .batch_execute(
            "ALTER TABLE items ATTACH PARTITION items_c FOR VALUES FROM (200) TO (300);
             ALTER TABLE items DETACH PARTITION items_b;
             UPDATE items SET version = 2 WHERE id IN (1, 99, 205)",
        )
        .await
        .unwrap();
    let shown = bench.done(id).await;
    assert_eq!(shown["state"], "done", "{shown}");
    bench.drained().await;
    let requests = bench.receiver.requests();
    let found: BTreeSet<i64> = ids(&reads(&requests)).into_iter().collect();
    assert_eq!(found, (1..100).chain(200..220).collect());
    Kept::of(&requests).must_be(&bench.sql).await;
    bench.balanced().await;
}

/// The rows of a transaction are its subtransactions' as well: the stream names the one, a tuple the others.
#[tokio::test]
async fn what_subtransactions_did_is_put_in_order_with_their_transaction() {
    let bench = Bench::start(120).await;
    let id = bench.order(json!({ "tables": ["public.items"], "rate": 30 })).await;
    bench.wait(id, |shown| shown["rows_sent"].as_i64().unwrap() > 0).await;
    let other = Sql::connect(&bench.database.url()).await;
    other.batch_execute("BEGIN").await.unwrap();
    // More than a snapshot lists by themselves, a third of them taken back.
    for id in (1..=120).rev() {
        let end = if id % 3 == 0 { "ROLLBACK TO s" } else { "RELEASE s" };
        let one = format!("SAVEPOINT s; UPDATE items SET version = 5 WHERE id = {id}; {end}");
        other.batch_execute(&one).await.unwrap();
    }
    // Chunks are read while it is under way.
    let sent = bench.show(id).await["rows_sent"].as_i64().unwrap();
    bench
        .wait(id, |shown| {
            shown["state"] != "running" || shown["rows_sent"].as_i64().unwrap() > sent
        })
        .await;
    other.batch_execute("COMMIT").await.unwrap();
    assert_eq!(bench.done(id).await["state"], "done");
    bench.drained().await;
    Kept::of(&bench.receiver.requests()).must_be(&bench.sql).await;
    bench.balanced().await;
}

/// Two rows that have each other's keys from now on, again and again.
async fn swap(url: String, stop: Arc<AtomicBool>) {
    let sql = Sql::connect(&url).await;
    let mut random = fastrand::Rng::with_seed(7);
    while !stop.load(Ordering::Relaxed) {
        let (one, other) = (random.i64(1..=600), random.i64(1..=600));
        // A place of its own: one for all would have each swap wait for all before it.
        let aside = random.i64(-1_000_000..-1000);
        let swap = format!(
            "BEGIN; UPDATE items SET id = {aside}, version = nextval('clock') WHERE id = {one};
             UPDATE items SET id = {one}, version = nextval('clock') WHERE id = {other};
             UPDATE items SET id = {other}, version = nextval('clock') WHERE id = {aside}; COMMIT"
        );
        sql.batch_execute(&swap).await.unwrap();
        // Two cores have to deliver it, too.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn rows_that_swap_their_keys_end_where_they_are() {
    for by in ["key", "ctid"] {
        let bench = Bench::start(600).await;
        // An update that moves a row brings all of it.
        let small = "CREATE SEQUENCE clock START 10;
                     UPDATE items SET large = 'row ' || id, version = nextval('clock')";
        bench.sql.batch_execute(small).await.unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let mut swapper = JoinSet::new();
        swapper.spawn(swap(bench.database.url(), Arc::clone(&stop)));
        let id = bench.order(json!({ "tables": ["public.items"], "by": by, "rate": 300 })).await;
        let shown = bench.done(id).await;
        assert_eq!(shown["state"], "done", "{shown}");
        stop.store(true, Ordering::Relaxed);
        swapper.join_next().await.unwrap().unwrap();
        bench.drained().await;
        Kept::of(&bench.receiver.requests()).must_be(&bench.sql).await;
        bench.balanced().await;
    }
}

/// A chunk is one transaction, which is over before its rows go anywhere: however long they take, nothing
/// holds back vacuum.
#[tokio::test]
async fn no_transaction_is_open_while_rows_are_on_their_way() {
    let bench = Bench::start(300).await;
    let is_open = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&is_open);
    bench.receiver.behave(Arc::new(move |_: &Request| match asked.load(Ordering::Relaxed) {
        true => Answer::status(200),
        false => Answer::status(200).after(Duration::from_secs(3600)),
    }));
    let id = bench.items().await;
    bench.receiver.wait_for(1, AMPLE).await;
    let held = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'walhook'
                   AND datname = current_database() AND backend_type = 'client backend'
                   AND (backend_xmin IS NOT NULL OR state LIKE 'idle in transaction%')";
    // Its other sessions ask their short questions.
    for _ in 0..3 {
        wait_for_text(&bench.sql, held, "0").await;
    }
    bench.act(id, "cancel").await;
    is_open.store(true, Ordering::Relaxed);
}
