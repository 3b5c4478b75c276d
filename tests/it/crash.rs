//! Processes that die, freeze or stop at awkward moments; [`crate::kills`] kills them by the hundred.
//!
//! The program under test is the real one, against a cluster of its own; receivers fail now and
//! then and book every request before they answer. What holds in the end is said by
//! [`crate::support::ledger::books::audit`].
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use rustix::process::Signal;
use tokio::task::spawn_blocking;
use walhook::testing::flow::lsn::Lsn;
use walhook::testing::sandbox::cluster::ClusterOptions;
use walhook::testing::sandbox::cluster::SandboxCluster;

use crate::support::ledger::EVENT;
use crate::support::ledger::TABLES;
use crate::support::ledger::Writers;
use crate::support::ledger::books::Books;
use crate::support::ledger::books::audit;
use crate::support::ledger::books::troubled;
use crate::support::postgres::Sql;
use crate::support::postgres::start_cluster;
use crate::support::program::Program;
use crate::support::receiver::Answer;
use crate::support::receiver::Behaviour;
use crate::support::receiver::Receiver;
use crate::support::receiver::Request;
use crate::support::receiver::always;

/// Far more than anything here takes, also on a busy machine.
const AMPLE: Duration = Duration::from_secs(60);

/// Pairs of commits that really touched.
const ADJACENT: u32 = 5;

/// How often a request fails.
const TROUBLE: f64 = 0.05;

async fn durable() -> SandboxCluster {
    start_cluster(ClusterOptions { durable: true, ..ClusterOptions::default() }).await
}

/// A configuration for the `life`-th process: the receiver can tell its requests by the path.
fn configuration(url: &str, receiver: &Receiver, life: u32) -> String {
    format!(
        "[postgres]\nurl = \"{url}\"\n\n[http]\nlisten = \"127.0.0.1:0\"\n\n[webhook]\n\
         urls = [\"{}/{life}\"]\nconcurrent_pushers = 8\nmax_retries = 100\n\
         retry_interval = \"5ms\"\nretry_cap = \"50ms\"\n{EVENT}",
        receiver.url()
    )
}

#[tokio::test]
async fn of_two_adjacent_commits_the_second_survives_the_confirmation_of_the_first() {
    let cluster = durable().await;
    let url = cluster.url("postgres");
    let (one, other) = tokio::join!(Sql::connect(&url), Sql::connect(&url));
    one.batch_execute(TABLES).await.unwrap();
    let hangs_at = |number: usize| -> Behaviour {
        Arc::new(move |request| match request.number == number {
            true => Answer::Hang,
            false => Answer::status(200),
        })
    };
    let receiver = Receiver::start(hangs_at(2));
    // One request at a time: the first commit's is answered before the second's is sent.
    let start = |life| {
        let toml = configuration(&url, &receiver, life);
        let toml = toml.replace("[webhook]\n", "[webhook]\nordering = \"strict\"\n");
        Program::start(&["run"], &toml, &[])
    };
    let (mut adjacent, mut life) = (0, 1);
    let mut program = start(life);
    program.wait_for_line("walhook is running", AMPLE).await;
    while adjacent < ADJACENT {
        assert!(life < ADJACENT * 20, "only {adjacent} pairs touched");
        let before = receiver.count();
        for (sql, key) in [(&one, 2 * life), (&other, 2 * life + 1)] {
            let insert = format!("BEGIN; INSERT INTO item VALUES ({key}, 1, '')");
            sql.batch_execute(&insert).await.unwrap();
        }
        let (first, second) =
            tokio::join!(one.batch_execute("COMMIT"), other.batch_execute("COMMIT"));
        first.and(second).unwrap();
        let arrived = receiver.wait_for(before + 2, AMPLE).await;
        let [.., answered, hanging] = arrived.as_slice() else { panic!("two have arrived") };
        let confirmed = confirmed_beyond(&one, commit_of(answered)).await;
        assert!(confirmed <= commit_of(hanging), "{confirmed} covers {}", commit_of(hanging));
        adjacent += u32::from(confirmed == commit_of(hanging));

        program.kill();
        program.wait(AMPLE).await;
        receiver.behave(hangs_at(arrived.len() + 3));
        life += 1;
        program = start(life);
        let again = receiver.wait_for(arrived.len() + 1, AMPLE).await;
        let id = |request: &Request| request.header("webhook-id").to_owned();
        assert_eq!(again.last().map(id), Some(id(hanging)), "it is lost, or another one came");
        program.wait_for_line("walhook is running", AMPLE).await;
    }
}

/// The commit's position, which is the first part of the event's id.
fn commit_of(request: &Request) -> Lsn {
    let id = request.header("webhook-id");
    Lsn::from_raw(u64::from_str_radix(id.get(4..20).unwrap(), 16).unwrap())
}

/// What the slot has confirmed, once that is beyond `commit`.
async fn confirmed_beyond(sql: &Sql, commit: Lsn) -> Lsn {
    let deadline = Instant::now() + AMPLE;
    loop {
        let text = sql.text("SELECT confirmed_flush_lsn FROM pg_replication_slots").await;
        let confirmed: Lsn = text.parse().unwrap();
        if confirmed > commit {
            return confirmed;
        }
        assert!(Instant::now() < deadline, "{commit} is never confirmed");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// PostgreSQL ends only when everything that it has sent is confirmed. The lane is full here, and
/// the server in the middle of a transaction that nobody reads.
#[tokio::test]
async fn a_receiver_that_hangs_does_not_hold_up_the_shutdown_of_postgres() {
    const ROWS: usize = 5_000;
    let mut cluster = durable().await;
    let url = cluster.url("postgres");
    let sql = Sql::connect(&url).await;
    sql.batch_execute(TABLES).await.unwrap();
    let (books, hang) = (Books::new(), always(Answer::Hang));
    let receiver = Receiver::start_forgetful(books.keep(Arc::clone(&hang)));
    let toml = configuration(&url, &receiver, 1);
    let toml = toml.replace("[webhook]\n", "[webhook]\ntimeout = \"2s\"\n");
    let mut program = Program::start(&["run"], &toml, &[]);
    program.wait_for_line("walhook is running", AMPLE).await;
    let insert = format!(
        "INSERT INTO item SELECT n, 1, repeat('x', 4000) FROM generate_series(1, {ROWS}) n"
    );
    sql.batch_execute(&insert).await.unwrap();
    receiver.wait_for(8, AMPLE).await;

    let cluster = spawn_blocking(move || {
        cluster.stop().unwrap();
        cluster.start_again().unwrap();
        cluster
    });
    let cluster = cluster.await.unwrap();
    receiver.behave(books.keep(always(Answer::status(200))));
    assert!(books.accept(ROWS, AMPLE).await, "{}", program.output().join("\n"));
    program.terminate();
    assert_eq!(program.wait(AMPLE).await, Some(0), "{}", program.output().join("\n"));
    let arrivals = books.arrivals();
    let accepted = arrivals.iter().filter(|arrival| arrival.accepted).count();
    assert_eq!(accepted, ROWS, "some came twice");
    drop(cluster);
}

/// The server has given the slot up meanwhile; whoever wakes connects again and goes on.
#[tokio::test]
async fn a_process_that_was_frozen_goes_on_where_it_was() {
    let cluster = durable().await;
    let url = cluster.url("postgres");
    Sql::connect(&url).await.batch_execute(TABLES).await.unwrap();
    let books = Books::new();
    let receiver = Receiver::start_forgetful(books.keep(troubled(5, TROUBLE)));
    let toml = configuration(&url, &receiver, 1);
    let toml = toml.replace("[postgres]\n", "[postgres]\nwal_sender_timeout = \"1s\"\n");
    let mut program = Program::start(&["run"], &toml, &[]);
    program.wait_for_line("walhook is running", AMPLE).await;
    let writers = Writers::start(&url, 4, Duration::from_millis(10), Vec::new());
    for _ in 0..3 {
        assert!(books.accept(books.accepted() + 100, AMPLE).await);
        program.signal(Signal::STOP);
        tokio::time::sleep(Duration::from_secs(2)).await;
        program.signal(Signal::CONT);
    }
    assert!(books.accept(books.accepted() + 100, AMPLE).await);

    let ledger = writers.finish().await;
    books.accept(ledger.committed.len(), AMPLE).await;
    program.terminate();
    assert_eq!(program.wait(AMPLE).await, Some(0), "{}", program.output().join("\n"));
    audit(&ledger, &books.arrivals()).must_be_clean();
    let resumed = program.output().iter().any(|line| line.contains("resumed"));
    assert!(resumed, "it was never cut off:\n{}", program.output().join("\n"));
}
