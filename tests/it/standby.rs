//! A second walhook on the same slot: it waits, takes over, and a frozen first one sends nothing.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]

use std::time::Duration;
use std::time::Instant;

use crate::support::postgres::Database;
use crate::support::postgres::Sql;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::always;
use crate::support::service::AMPLE;
use crate::support::service::Service;
use crate::support::service::configuration;
use crate::support::service::slot;

const TABLE: &str = "CREATE TABLE orders (id int PRIMARY KEY, version int NOT NULL)";

/// The limit for a takeover after a death by kill -9.
const TAKEOVER: Duration = Duration::from_secs(1);

async fn prepared() -> (Database, Sql) {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(TABLE).await.unwrap();
    (database, sql)
}

/// A configuration whose requests say which process made them.
fn named(database: &Database, receiver: &Receiver, process: &str) -> String {
    let url = receiver.url();
    let rest = format!(
        "[[event]]\ntype = \"order\"\ntable = \"public.orders\"\n\n[webhook]\nurls = [\"{url}\"]\n\
         max_retries = 100\nretry_interval = \"50ms\"\nretry_cap = \"200ms\"\n\
         headers = {{ x-process = \"{process}\" }}\n"
    );
    configuration(database, &rest)
}

#[tokio::test]
async fn a_second_walhook_stands_by_and_takes_over_within_a_second_of_the_firsts_death() {
    let (database, sql) = prepared().await;
    let receiver = Receiver::start(always(Answer::status(200)));
    let first = Service::start(&named(&database, &receiver, "first")).await;
    let mut second = Service::open(&named(&database, &receiver, "second")).await;
    let line = second.program.wait_for_line("standing by", AMPLE).await;
    assert!(line.contains(&format!("pid {}", first.program.id())), "{line}");

    assert_eq!(second.get("/health").await.status, 200);
    let reply = second.wait_for_status("/ready", 503).await;
    let reason = reply.json()["detail"].as_str().unwrap().to_owned();
    let expected = format!("standby: slot {} is held by walhook 0", slot(&database));
    assert!(reason.starts_with(&expected), "{reason}");
    assert!(reason.contains(&format!("pid {} since 2", first.program.id())), "{reason}");
    assert!(second.get("/metrics").await.body.contains("walhook_replication_connected 0"));
    let status = second.get("/api/v1/status").await.json();
    assert_eq!(status["source"]["state"], "standby");
    let holder = &status["source"]["holder"];
    assert_eq!(holder["self"], false);
    assert_eq!(holder["application_name"], "walhook");
    assert_eq!(holder["client_address"], "127.0.0.1");
    let pid = format!(
        "SELECT active_pid FROM pg_replication_slots WHERE slot_name = '{}'",
        slot(&database)
    );
    assert_eq!(holder["server_pid"].to_string(), sql.text(&pid).await);

    sql.batch_execute("INSERT INTO orders VALUES (1, 1)").await.unwrap();
    assert_eq!(receiver.wait_for(1, AMPLE).await[0].header("x-process"), "first");
    tokio::time::sleep(Duration::from_millis(200)).await; // its flush
    let killed = Instant::now();
    first.program.kill();
    sql.batch_execute("INSERT INTO orders VALUES (2, 1)").await.unwrap();
    let requests = receiver.wait_for(2, AMPLE).await;
    assert!(killed.elapsed() < TAKEOVER, "{:?}", killed.elapsed());
    assert_eq!(requests[1].header("x-process"), "second");
    second.wait_for_status("/ready", 200).await;
    second.stop().await;
    assert_eq!(receiver.count(), 2, "each once");
}

#[tokio::test]
async fn a_standby_ends_at_once_when_it_is_asked_to() {
    let (database, _sql) = prepared().await;
    let receiver = Receiver::start(always(Answer::status(200)));
    let mut first = Service::start(&named(&database, &receiver, "first")).await;
    let mut second = Service::open(&named(&database, &receiver, "second")).await;
    second.wait_for_status("/ready", 503).await;
    second.program.wait_for_line("standing by", AMPLE).await;
    let asked = Instant::now();
    second.stop().await;
    assert!(asked.elapsed() < TAKEOVER, "{:?}", asked.elapsed());
    first.stop().await;
}
