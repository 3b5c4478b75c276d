//! SIGTERM at any moment: it ends with 0 within the grace period, and a restart repeats nothing.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]
#![expect(clippy::indexing_slicing, reason = "a missing field fails the test as it should")]

use std::collections::HashMap;
use std::time::Duration;
use std::time::Instant;

use rustix::process::Signal;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use walhook::testing::sandbox::cluster::ClusterOptions;

use crate::support::postgres::Database;
use crate::support::postgres::Sql;
use crate::support::postgres::start_cluster;
use crate::support::program::Program;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::Request;
use crate::support::receiver::always;
use crate::support::service::AMPLE;
use crate::support::service::Service;
use crate::support::service::configuration;

const TABLE: &str = "CREATE TABLE orders (id int PRIMARY KEY, note text)";

/// New rows of `orders` go to one endpoint, on these terms.
async fn set_up(receiver: &Receiver, terms: &str) -> (Database, Sql, String) {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(TABLE).await.unwrap();
    let url = receiver.url();
    let rest = format!(
        "[[event]]\ntype = \"order\"\ntable = \"orders\"\non = [\"insert\"]\n\n\
         [webhook]\nurls = [\"{url}\"]\n{terms}"
    );
    let toml = configuration(&database, &rest).replace("walhook=debug", "info");
    (database, sql, toml)
}

async fn insert(sql: &Sql, from: usize, to: usize) {
    let insert = format!("INSERT INTO orders SELECT n FROM generate_series({from}, {to}) n");
    sql.batch_execute(&insert).await.unwrap();
}

/// How often each row came, by its id; a batch brings several.
fn times(requests: &[Request]) -> HashMap<u64, usize> {
    let mut times = HashMap::new();
    for request in requests {
        let body = request.json();
        let events = body.as_array().map_or(std::slice::from_ref(&body), Vec::as_slice);
        for event in events {
            *times.entry(event["data"]["id"].as_u64().unwrap()).or_default() += 1;
        }
    }
    times
}

fn assert_each_came_once(requests: &[Request], rows: usize) {
    let times = times(requests);
    let repeated: Vec<_> = times.iter().filter(|(_, times)| **times != 1).collect();
    assert!(repeated.is_empty(), "came more than once: {repeated:?}");
    assert_eq!(times.len(), rows);
}

/// Waits until so many different rows have come.
async fn wait_for_rows(receiver: &Receiver, rows: usize) {
    let deadline = Instant::now() + AMPLE;
    while times(&receiver.requests()).len() < rows {
        let came = times(&receiver.requests()).len();
        assert!(Instant::now() < deadline, "{came} of {rows} rows came");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// SIGTERM, which has to end it with 0 within `grace`.
async fn stop_within(service: &mut Service, grace: Duration) {
    let asked = Instant::now();
    service.stop().await;
    let took = asked.elapsed();
    assert!(took < grace, "{took:?}:\n{}", service.program.output().join("\n"));
}

#[tokio::test]
async fn at_rest_it_ends_at_once_and_a_restart_repeats_nothing() {
    let receiver = Receiver::start(always(Answer::status(200)));
    let (_database, sql, toml) = set_up(&receiver, "").await;
    for (run, signal) in [(0, Signal::TERM), (1, Signal::INT), (2, Signal::TERM)] {
        let mut service = Service::start(&toml).await;
        insert(&sql, run * 10 + 1, run * 10 + 10).await;
        wait_for_rows(&receiver, (run + 1) * 10).await;
        let asked = Instant::now();
        service.program.signal(signal);
        assert_eq!(service.program.wait(AMPLE).await, Some(0));
        assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
        // Committed while it is away: it comes with the next start.
    }
    assert_each_came_once(&receiver.requests(), 30);
}

#[tokio::test]
async fn under_load_nothing_is_lost_or_repeated() {
    let receiver = Receiver::start(always(Answer::status(200).after(Duration::from_millis(3))));
    let (_database, sql, toml) = set_up(&receiver, "concurrent_pushers = 8").await;
    let mut first = Service::start(&toml).await;
    let (enough, mut stop_writing) = oneshot::channel();
    let mut writer = JoinSet::new();
    writer.spawn(async move {
        let mut row = 0;
        while stop_writing.try_recv().is_err() {
            row += 1;
            insert(&sql, row, row).await;
        }
        row
    });
    receiver.wait_for(100, AMPLE).await;
    stop_within(&mut first, Duration::from_secs(10)).await;
    let before = receiver.count();
    let mut second = Service::start(&toml).await;
    receiver.wait_for(before + 100, AMPLE).await;
    enough.send(()).unwrap();
    let rows = writer.join_next().await.unwrap().unwrap();
    stop_within(&mut second, Duration::from_secs(10)).await;
    let mut third = Service::start(&toml).await;
    wait_for_rows(&receiver, rows).await;
    stop_within(&mut third, Duration::from_secs(10)).await;
    assert_each_came_once(&receiver.requests(), rows);
}

#[tokio::test]
async fn in_a_large_transaction_it_reads_on_to_the_end() {
    let receiver = Receiver::start(always(Answer::status(200)));
    let terms = "batch_size = 100\nconcurrent_pushers = 4";
    let (_database, sql, toml) = set_up(&receiver, terms).await;
    let mut service = Service::start(&toml).await;
    let rows = 20_000;
    insert(&sql, 1, rows).await;
    receiver.wait_for(1, AMPLE).await;
    stop_within(&mut service, Duration::from_secs(10)).await;
    let mut again = Service::start(&toml).await;
    insert(&sql, rows + 1, rows + 1).await;
    wait_for_rows(&receiver, rows + 1).await;
    stop_within(&mut again, Duration::from_secs(10)).await;
    assert_each_came_once(&receiver.requests(), rows + 1);
}

#[tokio::test]
async fn during_retries_it_ends_and_what_failed_comes_again_with_its_id() {
    let receiver = Receiver::start(always(Answer::status(503)));
    // The fifth failure in a row opens the circuit breaker: what waits is parked.
    let terms = "max_retries = 100\nretry_interval = \"4s\"\n[shutdown]\ngrace = \"3s\"";
    let (_database, sql, toml) = set_up(&receiver, terms).await;
    let mut service = Service::start(&toml).await;
    insert(&sql, 1, 5).await;
    // Three in a row that fail make it careful: one at a time.
    receiver.wait_for(5, AMPLE).await;
    stop_within(&mut service, Duration::from_secs(3)).await;
    let failed = receiver.requests();
    receiver.behave(always(Answer::status(200)));
    let mut again = Service::start(&toml).await;
    let requests = receiver.wait_for(failed.len() + 5, AMPLE).await;
    again.stop().await;
    let (failed, delivered) = requests.split_at(failed.len());
    assert_each_came_once(delivered, 5);
    let ids = |requests: &[Request]| {
        let mut ids: Vec<_> =
            requests.iter().map(|request| request.header("webhook-id").to_owned()).collect();
        ids.sort();
        ids.dedup();
        ids
    };
    assert_eq!(ids(failed), ids(delivered));
}

#[tokio::test]
async fn a_full_lane_in_front_of_a_receiver_that_hangs_does_not_hold_it_up() {
    let receiver = Receiver::start(always(Answer::Hang));
    let terms = "timeout = \"1h\"\nqueue_capacity = 10\n[shutdown]\ngrace = \"3s\"";
    let (_database, sql, toml) = set_up(&receiver, terms).await;
    let mut service = Service::start(&toml).await;
    insert(&sql, 1, 500).await;
    insert(&sql, 501, 501).await;
    receiver.wait_for(3, AMPLE).await;
    stop_within(&mut service, Duration::from_secs(3)).await;
    assert_eq!(receiver.count(), 3);
    receiver.behave(always(Answer::status(200)));
    let mut again = Service::start(&toml).await;
    wait_for_rows(&receiver, 501).await;
    again.stop().await;
    let repeated = times(&receiver.requests()).values().filter(|times| **times > 1).count();
    assert_eq!(repeated, 3, "only what was in flight comes again");
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let receiver = Receiver::start(always(Answer::Hang));
    let (_database, sql, toml) =
        set_up(&receiver, "timeout = \"1h\"\n[shutdown]\ngrace = \"1h\"").await;
    let mut service = Service::start(&toml).await;
    insert(&sql, 1, 1).await;
    receiver.wait_for(1, AMPLE).await;
    service.program.terminate();
    service.program.wait_for_line("shutting down", AMPLE).await;
    let asked = Instant::now();
    service.program.terminate();
    assert_eq!(service.program.wait(AMPLE).await, Some(1));
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
}

#[tokio::test]
async fn a_signal_during_the_start_is_heard() {
    // A cluster of its own: the open transaction would keep the other tests' slots waiting, too.
    let cluster = start_cluster(ClusterOptions::default()).await;
    let url = cluster.url("postgres");
    let sql = Sql::connect(&url).await;
    sql.batch_execute(TABLE).await.unwrap();
    sql.batch_execute("BEGIN; INSERT INTO orders VALUES (1)").await.unwrap();
    let toml = format!(
        "[postgres]\nurl = \"{url}\"\n[http]\nlisten = \"127.0.0.1:0\"\n\
         [[event]]\ntype = \"order\"\ntable = \"orders\"\n[webhook]\nenabled = false\n"
    );
    let mut program = Program::start(&["run"], &toml, &[]);
    let deadline = Instant::now() + AMPLE;
    while sql.text("SELECT count(*) FROM pg_replication_slots").await == "0" {
        assert!(Instant::now() < deadline, "{:?}", program.output());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let asked = Instant::now();
    program.terminate();
    assert_eq!(program.wait(AMPLE).await, Some(0), "{:?}", program.output());
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
}
