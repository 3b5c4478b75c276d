//! What must hold for as long as walhook runs: the connection lives while receivers are blocked,
//! and a table that is quiet does not hold the WAL of one that is busy.
#![expect(clippy::print_stdout, reason = "the figures are worth seeing")]

use std::env;
use std::time::Duration;
use std::time::Instant;

use walhook::testing::sandbox::cluster::ClusterOptions;

use crate::support::postgres::Database;
use crate::support::postgres::Sql;
use crate::support::postgres::start_cluster;
use crate::support::program::Program;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::always;
use crate::support::service::name_of;
use crate::support::surface::Surface;

/// Far more than anything here takes, also on a busy machine.
const AMPLE: Duration = Duration::from_secs(60);

/// How long the receivers are blocked; `WALHOOK_TEST_BLOCKED_S` says otherwise.
const BLOCKED_S: u64 = 20;

const ITEM: &str = "CREATE TABLE item (id bigint GENERATED ALWAYS AS IDENTITY, text text)";

/// What may be unconfirmed on a busy server at any moment after a pause.
const UNCONFIRMED_MAX: i64 = 1024 * 1024;

/// One segment of the WAL, and what has been begun of the next.
const RETAINED_MAX: i64 = 2 * 16 * 1024 * 1024;

fn configuration(url: &str, receiver: &Receiver, postgres: &str, webhook: &str) -> String {
    format!(
        "[postgres]\nurl = \"{url}\"\n{postgres}\n\n[http]\nlisten = \"127.0.0.1:0\"\n\n\
         [webhook]\nurls = [\"{}\"]\n{webhook}\n\n[[event]]\ntype = \"item.created\"\n\
         table = \"public.item\"\non = [\"insert\"]\n",
        receiver.url()
    )
}

/// The server gives up on a client that it has not heard from for a second. All of ours are stuck:
/// requests hang, the lane is full, nobody reads the socket, and the server is in the middle of
/// sending a large transaction.
#[tokio::test]
async fn blocked_receivers_do_not_cost_the_connection() {
    let seconds = env::var("WALHOOK_TEST_BLOCKED_S").ok().and_then(|text| text.parse().ok());
    let blocked = Duration::from_secs(seconds.unwrap_or(BLOCKED_S));
    let cluster = start_cluster(ClusterOptions::default().with("wal_sender_timeout", "1s")).await;
    let url = cluster.url("postgres");
    let sql = Sql::connect(&url).await;
    sql.batch_execute(ITEM).await.unwrap();
    let receiver = Receiver::start_forgetful(always(Answer::Hang));
    let postgres = "wal_sender_timeout = \"1s\"";
    let webhook = "timeout = \"3s\"\nmax_retries = 100\nretry_interval = \"10ms\"\n\
                   retry_cap = \"100ms\"\nconcurrent_pushers = 8";
    let toml = configuration(&url, &receiver, postgres, webhook);
    let mut program = Program::start(&["run"], &toml, &[]);
    let surface = Surface::of(&mut program).await;
    let sender = "SELECT pid FROM pg_stat_replication WHERE application_name = 'walhook'";
    let pid = sql.text(sender).await;
    // On a slow machine the first try may have come too late.
    let reconnects = surface.metric("walhook_reconnects_total").await;

    let mut rows = 20_000;
    let large = "INSERT INTO item (text) SELECT repeat('x', 1000) FROM generate_series(1, 20000)";
    sql.batch_execute(large).await.unwrap();
    let end = Instant::now() + blocked;
    while Instant::now() < end {
        sql.batch_execute("INSERT INTO item (text) VALUES ('and on it goes')").await.unwrap();
        rows += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(sql.text(sender).await, pid, "{}", program.output().join("\n"));
    let now = surface.metric("walhook_reconnects_total").await;
    assert_eq!(now, reconnects, "{}", program.output().join("\n"));
    let name = name_of(&receiver.url());
    let delivered =
        &format!("walhook_deliveries_total{{endpoint=\"{name}\",outcome=\"delivered\"}}");
    assert_eq!(surface.metric(delivered).await, 0.0, "nothing was blocked");

    receiver.behave(always(Answer::status(200)));
    let deadline = Instant::now() + AMPLE * 2;
    while surface.metric(delivered).await < f64::from(rows) {
        assert!(Instant::now() < deadline, "{}", surface.get("/metrics").await.1);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let now = surface.metric("walhook_reconnects_total").await;
    let seen = || program.output().join("\n") + "\n" + &cluster.log_tail();
    assert_eq!(now, reconnects, "{}", seen());
    assert_eq!(sql.text(sender).await, pid);
    program.terminate();
    assert_eq!(program.wait(AMPLE).await, Some(0), "{}", program.output().join("\n"));
}

/// Base64 of a large value takes more than a second in a debug build: feedback goes on beside it.
#[tokio::test]
async fn a_row_that_takes_long_to_render_does_not_cost_the_connection() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute("CREATE TABLE item (id bigint PRIMARY KEY, bytes bytea)").await.unwrap();
    let receiver = Receiver::start_forgetful(always(Answer::status(200)));
    let postgres = format!("wal_sender_timeout = \"1s\"\nslot = \"{}\"", database.name());
    let toml = configuration(&database.url(), &receiver, &postgres, "timeout = \"1m\"");
    let mut program = Program::start(&["run"], &toml, &[]);
    let surface = Surface::of(&mut program).await;
    let value = "convert_to(repeat('line of 19 letters' || chr(10), 1500 * 1000), 'UTF8')";
    sql.batch_execute(&format!("INSERT INTO item VALUES (1, {value})")).await.unwrap();
    receiver.wait_for(1, AMPLE).await;
    assert_eq!(surface.metric("walhook_reconnects_total").await, 0.0);
    program.terminate();
    assert_eq!(program.wait(AMPLE).await, Some(0), "{}", program.output().join("\n"));
}

/// Nothing is written to the source for it: what the server says while there is nothing for us is
/// enough to confirm.
#[tokio::test]
async fn an_idle_table_beside_a_busy_one_holds_no_wal() {
    let cluster = start_cluster(ClusterOptions::default()).await;
    let url = cluster.url("postgres");
    let sql = Sql::connect(&url).await;
    sql.batch_execute(ITEM).await.unwrap();
    sql.batch_execute("CREATE TABLE busy (text text)").await.unwrap();
    sql.batch_execute("CREATE DATABASE other").await.unwrap();
    let other = Sql::connect(&cluster.url("other")).await;
    other.batch_execute("CREATE TABLE busy (text text)").await.unwrap();
    let receiver = Receiver::start(always(Answer::status(200)));
    let mut program = Program::start(&["run"], &configuration(&url, &receiver, "", ""), &[]);
    let surface = Surface::of(&mut program).await;
    sql.batch_execute("INSERT INTO item (text) VALUES ('the only one')").await.unwrap();
    receiver.wait_for(1, AMPLE).await;

    for (name, busy) in [("the same database", &sql), ("another database", &other)] {
        for _ in 0..4 {
            let rows = "INSERT INTO busy SELECT repeat('x', 1000) FROM generate_series(1, 10000)";
            busy.batch_execute(rows).await.unwrap();
            // The slot's restart position follows the checkpoints' notes of running transactions.
            busy.batch_execute("CHECKPOINT").await.unwrap();
        }
        let distance = |column: &str| {
            format!(
                "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), {column})::bigint
                 FROM pg_replication_slots"
            )
        };
        for (column, most) in
            [("confirmed_flush_lsn", UNCONFIRMED_MAX), ("restart_lsn", RETAINED_MAX)]
        {
            let deadline = Instant::now() + AMPLE;
            loop {
                let bytes: i64 = sql.text(&distance(column)).await.parse().unwrap();
                if bytes < most {
                    println!("{name}: {column} is {bytes} bytes behind");
                    break;
                }
                assert!(Instant::now() < deadline, "{name}: {column} is {bytes} bytes behind");
                tokio::time::sleep(Duration::from_millis(50)).await;
                sql.batch_execute("CHECKPOINT").await.unwrap();
            }
        }
    }
    assert_eq!(surface.metric("walhook_reconnects_total").await, 0.0);
    let (ready, why) = surface.get("/ready").await;
    assert_eq!(ready, 200, "{why}");
    assert_eq!(receiver.count(), 1);
    program.terminate();
    assert_eq!(program.wait(AMPLE).await, Some(0), "{}", program.output().join("\n"));
}
