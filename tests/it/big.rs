//! Big things, by hand: `cargo test --test it -- big:: --ignored --nocapture --test-threads 1`. Each prints what walhook took at
//! its highest, for docs/reliability.md, and holds it against a limit.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]
#![expect(clippy::print_stdout, reason = "the figures are worth seeing")]

use std::time::Duration;
use std::time::Instant;

use crate::memory::peak_kib;
use crate::support::postgres::Database;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::always;
use crate::support::service::Service;
use crate::support::service::configuration;

/// Minutes, on a machine that does other things as well.
const AMPLE: Duration = Duration::from_secs(1800);

/// Runs `statement` against tables of `tables`, waits for `events` events, and says what walhook took.
async fn measured(
    (name, limit_mib): (&str, u64),
    (tables, rules): (&[String], &str),
    statement: &str,
    events: usize,
) {
    let database = Database::create().await;
    let sql = database.sql().await;
    for part in tables {
        sql.batch_execute(part).await.unwrap();
    }
    let receiver = Receiver::start_forgetful(always(Answer::status(200)));
    let rest =
        format!("{rules}\n[webhook]\nurls = [\"{}\"]\nconcurrent_pushers = 8\n", receiver.url());
    let toml =
        configuration(&database, &rest).replace("walhook=debug", "walhook=warn,walhook::app=info");
    let mut service = Service::start(&toml).await;
    let idle = peak_kib(&service.program);
    let begun = Instant::now();
    sql.batch_execute(statement).await.unwrap();
    let written = begun.elapsed();
    receiver.wait_for(events, AMPLE).await;
    let peak = peak_kib(&service.program) / 1024;
    println!(
        "{name}: at most {peak} MiB, {} MiB at the start; written in {written:.1?}, all of {events} events \
         after {:.1?}",
        idle / 1024,
        begun.elapsed()
    );
    service.stop().await;
    assert!(peak <= limit_mib, "{name} took {peak} MiB");
}

fn event(name: &str, table: &str, more: &str) -> String {
    format!("[[event]]\ntype = \"{name}\"\ntable = \"public.{table}\"\non = [\"insert\"]\n{more}\n")
}

#[tokio::test]
#[ignore = "minutes: by hand"]
async fn a_transaction_of_ten_million_rows() {
    let table = "CREATE TABLE t (id bigint PRIMARY KEY, text text)".to_owned();
    // One row in a thousand is an event: each of them is read, and waited for.
    let rule = event("t", "t", "when = \"id % 1000 == 0\"");
    let insert = "INSERT INTO t SELECT n, md5(n::text) FROM generate_series(1, 10000000) n";
    measured(("10,000,000 rows", 116), (&[table], &rule), insert, 10_000).await;
}

#[tokio::test]
#[ignore = "minutes: by hand"]
async fn rows_of_a_hundred_megabytes() {
    let bytes = "repeat('0123456789', 10000000)";
    for (name, of, value, limit) in [
        ("100 MB of text", "text", bytes.to_owned(), 130),
        ("100 MB in a bytea", "bytea", format!("{bytes}::bytea"), 700),
        (
            "100 MB in an array of texts",
            "text[]",
            "array_fill(repeat('0123456789', 100), ARRAY[100000])".to_owned(),
            700,
        ),
        (
            "100 MB in an array of numbers",
            "int[]",
            "array_fill(123456789, ARRAY[10000000])".to_owned(),
            700,
        ),
    ] {
        let table = format!("CREATE TABLE t (id bigint PRIMARY KEY, v {of})");
        let insert = format!("INSERT INTO t SELECT 1, {value}");
        measured((name, limit), (&[table], &event("t", "t", "")), &insert, 1).await;
    }
}

#[tokio::test]
#[ignore = "minutes: by hand"]
async fn a_table_of_1600_columns() {
    let columns: Vec<String> = (1..1600).map(|n| format!("c{n} int DEFAULT {n}")).collect();
    let table = format!("CREATE TABLE t (id bigint PRIMARY KEY, {})", columns.join(", "));
    let insert = "INSERT INTO t (id) SELECT generate_series(1, 2000)";
    measured(("1,600 columns", 116), (&[table], &event("t", "t", "")), insert, 2000).await;
}

#[tokio::test]
#[ignore = "minutes: by hand"]
async fn ten_thousand_tables_in_one_publication() {
    let made = |from: usize| {
        let tables = (from..from + 500).map(|n| format!("CREATE TABLE t{n} (id int PRIMARY KEY);"));
        tables.collect::<String>()
    };
    let mut tables: Vec<String> = (0..20).map(|part| made(part * 500)).collect();
    tables.push("CREATE PUBLICATION walhook FOR ALL TABLES".to_owned());
    let insert: String = (0..10_000).map(|n| format!("INSERT INTO t{n} VALUES (1);")).collect();
    measured(("10,000 tables", 300), (&tables, &event("t", "t7", "")), &insert, 1).await;
}

#[tokio::test]
#[ignore = "minutes: by hand"]
async fn a_hundred_events_on_one_table() {
    let table = "CREATE TABLE t (id bigint PRIMARY KEY, n int)".to_owned();
    let rules: String =
        (0..100).map(|n| event(&format!("t{n}"), "t", &format!("when = \"n >= {n}\""))).collect();
    let insert = "INSERT INTO t SELECT n, 99 FROM generate_series(1, 200) n";
    measured(("100 events on a table", 116), (&[table], &rules), insert, 20_000).await;
}
