//! A second walhook on the same slot: it waits, takes over, and a frozen first one sends nothing.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]
#![expect(clippy::indexing_slicing, reason = "a missing field fails the test as it should")]

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use rustix::process::Signal;

use crate::support::postgres::Database;
use crate::support::postgres::Sql;
use crate::support::postgres::wait_for_text;
use crate::support::receiver::Answer;
use crate::support::receiver::Behaviour;
use crate::support::receiver::Receiver;
use crate::support::receiver::Request;
use crate::support::receiver::always;
use crate::support::service::AMPLE;
use crate::support::service::Service;
use crate::support::service::configuration;
use crate::support::service::slot;

const TABLE: &str = "CREATE TABLE orders (id int PRIMARY KEY, version int NOT NULL)";

/// A takeover after a death by kill -9 takes less than a second; a machine that is busy takes longer, and less than
/// the 6 s after which PostgreSQL gives up a client of which it hears nothing.
const TAKEOVER: Duration = Duration::from_secs(5);

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
    // Whoever rolls out one after the other waits for the next one to stand by, and for no more.
    let reply = second.get("/ready?standby=ok").await;
    assert_eq!((reply.status.as_u16(), &reply.json()["status"]), (200, &"standby".into()));
    let (code, said) = second.cli(&["health", "--ready"]).await;
    assert_eq!(code, Some(0), "{said}");
    let reply = first.get("/ready?standby=ok").await;
    assert_eq!((reply.status.as_u16(), &reply.json()["status"]), (200, &"ready".into()));
    assert_eq!(second.get("/ready?standby=perhaps").await.status, 400);
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

    // Whoever looks at the one that has the slot sees who waits for it.
    let found = first.get("/api/v1/source/findings").await.json();
    let waits = format!("standby: walhook at 127.0.0.1 waits for slot {} (", slot(&database));
    let is_seen = |one: &serde_json::Value| one["what"].as_str().unwrap().starts_with(&waits);
    assert!(found["findings"].as_array().unwrap().iter().any(is_seen), "{found:#}");

    let active = &first.get("/api/v1/status").await.json()["source"]["holder"];
    assert_eq!(active["self"], true);
    assert_eq!((&active["server_pid"], &active["name"]), (&holder["server_pid"], &holder["name"]));

    sql.batch_execute("INSERT INTO orders VALUES (1, 1)").await.unwrap();
    assert_eq!(receiver.wait_for(1, AMPLE).await[0].header("x-process"), "first");
    // What is not flushed comes again.
    wait_for_text(&sql, "SELECT sum(delivered) FROM walhook.balance", "1").await;
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

/// Keys, and versions of each.
const KEYS: i64 = 20;
const VERSIONS: i64 = 10;

async fn change_everything(sql: &Sql) {
    let insert = format!("INSERT INTO orders SELECT n, 1 FROM generate_series(1, {KEYS}) n");
    sql.batch_execute(&insert).await.unwrap();
    for version in 2..=VERSIONS {
        sql.batch_execute(&format!("UPDATE orders SET version = {version}")).await.unwrap();
    }
}

fn made_by(requests: &[Request], process: &str) -> usize {
    requests.iter().filter(|request| request.header("x-process") == process).count()
}

/// The first accepted arrivals of each key must be all of its versions in order.
fn assert_all_in_order(requests: &[Request], accepted: impl Fn(&Request) -> bool) {
    let mut seen: HashMap<i64, Vec<i64>> = HashMap::new();
    for request in requests.iter().filter(|request| accepted(request)) {
        let row = &request.json()["data"];
        let versions = seen.entry(row["id"].as_i64().unwrap()).or_default();
        let version = row["version"].as_i64().unwrap();
        if !versions.contains(&version) {
            versions.push(version);
        }
    }
    assert_eq!(i64::try_from(seen.len()).unwrap(), KEYS);
    for (key, versions) in seen {
        assert!(versions.iter().copied().eq(1..=VERSIONS), "key {key}: {versions:?}");
    }
}

#[tokio::test]
async fn a_frozen_walhook_is_replaced_and_sends_nothing_when_it_wakes() {
    let (database, sql) = prepared().await;
    // Slow answers, and refusals that are tried again: there is always something left to send.
    let troubled: Behaviour = Arc::new(|request| match request.number % 3 {
        0 => Answer::status(503),
        _ => Answer::status(200).after(Duration::from_millis(100)),
    });
    let receiver = Receiver::start(troubled);
    let concurrency =
        |toml: String| toml.replace("[webhook]\n", "[webhook]\nconcurrent_pushers = 8\n");
    let first = concurrency(named(&database, &receiver, "first"));
    let mut first = Service::start(&first).await;
    let mut second = Service::open(&concurrency(named(&database, &receiver, "second"))).await;
    second.program.wait_for_line("standing by", AMPLE).await;
    change_everything(&sql).await;
    receiver.wait_for(30, AMPLE).await;
    first.program.signal(Signal::STOP);
    let frozen = Instant::now();
    second.program.wait_for_line("walhook is running", AMPLE).await;
    let takeover = frozen.elapsed();
    assert!(takeover < Duration::from_secs(8), "{takeover:?}, and wal_sender_timeout is 6 s");
    let before = receiver.requests();
    let settled = format!(
        "SELECT count(*) FROM walhook.balance WHERE delivered = {} AND pending = 0",
        KEYS * VERSIONS
    );
    wait_for_text(&sql, &settled, "1").await;
    let replaced = receiver.requests();
    assert!(made_by(&replaced, "second") > 0);

    first.program.signal(Signal::CONT);
    assert_eq!(first.program.wait(AMPLE).await, Some(1));
    let said = first.program.output().join("\n");
    assert!(said.contains("was taken over by walhook"), "{said}");
    let after = receiver.requests();
    assert_eq!(made_by(&after, "first"), made_by(&before, "first"), "it has sent after its wake");
    second.stop().await;
    assert_all_in_order(&after, |request| request.number % 3 != 0);
}

/// Nobody stands by: whoever wakes finds the slot still its own, and goes on.
#[tokio::test]
async fn a_walhook_that_wakes_unreplaced_goes_on() {
    let (database, sql) = prepared().await;
    let receiver = Receiver::start(always(Answer::status(200)));
    let toml = named(&database, &receiver, "only");
    let toml = toml.replace("[postgres]\n", "[postgres]\nwal_sender_timeout = \"1s\"\n");
    let mut only = Service::start(&toml).await;
    for row in 1..=2 {
        sql.batch_execute(&format!("INSERT INTO orders VALUES ({row}, 1)")).await.unwrap();
        receiver.wait_for(usize::try_from(row).unwrap(), AMPLE).await;
        only.program.signal(Signal::STOP);
        tokio::time::sleep(Duration::from_secs(2)).await;
        only.program.signal(Signal::CONT);
    }
    sql.batch_execute("INSERT INTO orders VALUES (3, 1)").await.unwrap();
    receiver.wait_for(3, AMPLE).await;
    only.stop().await;
}
