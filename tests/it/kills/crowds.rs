//! Kills with many endpoints of which each takes a few events, and with one whose receiver is slow.
#![expect(clippy::indexing_slicing, reason = "a missing field fails the test as it should")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::support::postgres::Database;
use crate::support::postgres::Sql;
use crate::support::postgres::wait_for_text;
use crate::support::program::Program;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::Request;
use crate::support::service::AMPLE;
use crate::support::service::configuration;

const KILLS: u32 = 8;

/// Versions of each row: it is inserted, and changed twice.
const VERSIONS: i64 = 3;

/// Rows that are written in any case, so that every endpoint of a crowd has some.
const ROWS_MIN: i64 = 400;

/// What the receiver keeps bounds how much is written.
const ROWS_MAX: i64 = 3000;

/// Writes rows, each version in a transaction of its own, until it is told to stop; returns how many.
async fn write(sql: Sql, stop: Arc<AtomicBool>) -> i64 {
    let mut rows = 0;
    while rows < ROWS_MAX && (rows < ROWS_MIN || !stop.load(Ordering::Relaxed)) {
        let insert = format!("INSERT INTO item VALUES ({rows}, {rows} % 200, 1)");
        sql.batch_execute(&insert).await.expect("the row is new");
        for version in 2..=VERSIONS {
            let update = format!("UPDATE item SET version = {version} WHERE id = {rows}");
            sql.batch_execute(&update).await.expect("the row is there");
        }
        rows += 1;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    rows
}

/// What came to each path, by row: the versions in the order in which they came first.
fn arrivals(requests: &[Request]) -> BTreeMap<(String, i64), Vec<i64>> {
    let mut arrived: BTreeMap<(String, i64), Vec<i64>> = BTreeMap::new();
    for request in requests {
        let body = request.json();
        let number = |name: &str| body["data"][name].as_i64().expect("it is a number");
        let versions = arrived.entry((request.path.clone(), number("id"))).or_default();
        if !versions.contains(&number("version")) {
            versions.push(number("version"));
        }
    }
    arrived
}

/// Kills walhook again and again while rows are written. Every endpoint, by its path, must get all
/// versions of the rows that `takes` says, in their order, and the books must say so.
async fn survive(
    receiver: &Receiver,
    endpoints: &[(String, String)],
    takes: impl Fn(usize, i64) -> bool,
) {
    let database = Database::create().await;
    let sql = database.sql().await;
    let table = "CREATE TABLE item (id int PRIMARY KEY, k int NOT NULL, version int NOT NULL)";
    sql.batch_execute(table).await.expect("it is new");
    let mut rest = String::from("[[event]]\ntype = \"item\"\ntable = \"public.item\"\n\n");
    for (number, (path, rest_of)) in endpoints.iter().enumerate() {
        let url = format!("http://{}{path}", receiver.address());
        write!(rest, "[[endpoint]]\nname = \"e{number}\"\nurl = \"{url}\"\n{rest_of}\n\n")
            .expect("a String takes everything");
    }
    let toml = configuration(&database, &rest);
    let mut first = Program::start(&["run"], &toml, &[]);
    first.wait_for_line("walhook is running", AMPLE).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = JoinSet::new();
    writers.spawn(write(database.sql().await, Arc::clone(&stop)));
    let mut random = fastrand::Rng::with_seed(super::seed() + 3);
    let mut program = first;
    for _ in 0..KILLS {
        receiver.wait_for(receiver.count() + random.usize(1..120), AMPLE).await;
        program.kill();
        program.wait(AMPLE).await;
        // It is no change's fault: see `CrashScenario::forgive`.
        sql.batch_execute("UPDATE walhook.runs SET running = false").await.expect("it is there");
        program = Program::start(&["run"], &toml, &[]);
    }
    stop.store(true, Ordering::Relaxed);
    let rows = writers.join_next().await.expect("there is one").expect("it does not panic");
    let taken = |number: usize| (0..rows).filter(|&row| takes(number, row)).count();
    let owed: usize = (0..endpoints.len()).map(taken).sum();
    let owed = owed * usize::try_from(VERSIONS).expect("it is small");
    let books = "SELECT concat_ws(' ', sum(delivered), sum(pending), sum(dead), sum(expired))
                   FROM walhook.balance";
    wait_for_text(&sql, books, &format!("{owed} 0 0 0")).await;
    let whole: Vec<i64> = (1..=VERSIONS).collect();
    let arrived = arrivals(&receiver.requests());
    for (at, versions) in &arrived {
        assert_eq!(versions, &whole, "{at:?}");
    }
    for (number, (path, _)) in endpoints.iter().enumerate() {
        for row in (0..rows).filter(|&row| takes(number, row)) {
            assert!(arrived.contains_key(&(path.clone(), row)), "{path} has not got row {row}");
        }
    }
    let expected: usize = (0..endpoints.len()).map(taken).sum();
    assert_eq!(arrived.len(), expected, "nobody got what it does not take");
    program.terminate();
    assert_eq!(program.wait(AMPLE).await, Some(0), "{}", program.output().join("\n"));
}

#[tokio::test]
async fn kills_with_200_endpoints_lose_nothing_and_break_no_order() {
    let receiver = Receiver::start(Arc::new(|_: &Request| Answer::status(200)));
    let endpoint = |k: usize| (format!("/{k}"), format!("when = \"k == {k}\""));
    let endpoints: Vec<_> = (0..200).map(endpoint).collect();
    survive(&receiver, &endpoints, |number, row| {
        usize::try_from(row % 200).is_ok_and(|k| k == number)
    })
    .await;
}

#[tokio::test]
async fn kills_with_a_receiver_that_takes_200_ms_lose_nothing_and_break_no_order() {
    let receiver = Receiver::start(Arc::new(|request: &Request| {
        let delay = if request.path == "/slow" { 200 } else { 0 };
        Answer::status(200).after(Duration::from_millis(delay))
    }));
    let endpoints = [("/slow".to_owned(), String::new()), ("/quick".to_owned(), String::new())];
    survive(&receiver, &endpoints, |_, _| true).await;
}
