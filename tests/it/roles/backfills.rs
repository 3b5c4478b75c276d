//! Rows that were there before, sent by a tail to those who deliver.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;
use std::time::Instant;

use serde_json::json;
use walhook::testing::sandbox::cluster::ClusterOptions;

use super::DELIVER;
use super::ENDPOINTS;
use super::OneNode;
use super::TAIL;
use super::UNBALANCED;
use super::one_node;
use super::told;
use crate::support::broker::Broker;
use crate::support::postgres::Sql;
use crate::support::postgres::start_cluster;
use crate::support::postgres::wait_for_text;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::always;
use crate::support::service::AMPLE;
use crate::support::service::Service;

/// With rows that are read, and leases that do not take long to be over.
fn reading(toml: &str) -> String {
    let table = "table = \"public.orders\"\n";
    toml.replace("[postgres]\n", "[postgres]\nwal_sender_timeout = \"2s\"\n").replace(
        table,
        &format!("{table}on = [\"insert\", \"update\", \"read\"]\nbackfill = true\n"),
    )
}

/// The last version of each row that each endpoint was told of; panics where an older one came after a newer one.
fn newest(receiver: &Receiver) -> BTreeMap<(String, u64), u64> {
    let mut newest = BTreeMap::new();
    for (endpoint, id, version) in told(&receiver.requests()).into_keys() {
        newest.insert((endpoint, id), version); // they are sorted
    }
    newest
}

/// Waits until each endpoint has so many rows, and of each the version that the table has.
async fn wait_for_table(sql: &Sql, receiver: &Receiver, rows: usize) {
    let deadline = Instant::now() + AMPLE;
    let table = "SELECT string_agg(id || '=' || note, ' ' ORDER BY id) FROM orders";
    let table = sql.text(table).await;
    let expected: BTreeMap<u64, u64> = table
        .split(' ')
        .map(|row| row.split_once('=').unwrap())
        .map(|(id, version)| (id.parse().unwrap(), version.parse().unwrap()))
        .collect();
    assert_eq!(expected.len(), rows);
    loop {
        let newest = newest(receiver);
        let is_as_expected =
            |((_, id), version): (&(String, u64), &u64)| expected.get(id) == Some(version);
        let lacking = rows * ENDPOINTS - newest.iter().filter(|one| is_as_expected(*one)).count();
        if lacking == 0 {
            return;
        }
        let states = "SELECT string_agg(concat_ws(' ', id, state, reason, rows_read, rows_sent), '; ') FROM walhook.backfills";
        assert!(Instant::now() < deadline, "{lacking} lack: {}", sql.text(states).await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_tail_reads_the_rows_that_were_there_before_whoever_dies_and_any_member_orders_it_again()
{
    let test = "a_tail_reads_the_rows_that_were_there_before_whoever_dies";
    let Some(node) = one_node(test, always(Answer::status(200))).await else { return };
    let OneNode { sql, receiver, toml, .. } = &node;
    let toml = &reading(toml);
    let rows = 3000;
    let insert =
        format!("INSERT INTO orders SELECT n, '0' FROM generate_series(1, {rows}) AS s (n)");
    sql.batch_execute(&insert).await.unwrap();
    // The first start of the slot orders it.
    let mut tail = Service::start_as(TAIL, toml).await;
    let mut worker = Service::start_as(DELIVER, toml).await;
    for round in 1..=4 {
        receiver.wait_for(receiver.count() + 500, AMPLE).await;
        let (from, to) = (round * 500, round * 500 + 200);
        let update = format!("UPDATE orders SET note = '{round}' WHERE id BETWEEN {from} AND {to}");
        sql.batch_execute(&update).await.unwrap();
        if round % 2 == 0 {
            worker.program.kill();
            worker.program.wait(AMPLE).await;
            worker = Service::start_as(DELIVER, toml).await;
        } else {
            tail.program.kill();
            tail.program.wait(AMPLE).await;
            tail = Service::start_as(TAIL, toml).await;
        }
    }
    let done =
        "SELECT string_agg(state || ' ' || rows_read, ', ' ORDER BY id) FROM walhook.backfills";
    wait_for_text(sql, done, &format!("done {rows}")).await;
    wait_for_table(sql, receiver, rows).await;
    wait_for_text(sql, UNBALANCED, "").await;
    // Once more, for one endpoint, ordered at a worker; what is asked is answered by every member.
    let before = |receiver: &Receiver, name: &str| {
        receiver.requests().iter().filter(|request| request.path.ends_with(name)).count()
    };
    let (e3, e4) = (before(receiver, "e3"), before(receiver, "e4"));
    let wish = json!({ "tables": ["public.orders"], "endpoints": ["e3"] });
    let trial = json!({ "tables": ["public.orders"], "dry_run": true });
    let tried = worker.post("/api/v1/backfills", &trial).await;
    assert_eq!(tried.status, 200, "{}", tried.body);
    let ordered = worker.post("/api/v1/backfills", &wish).await;
    assert_eq!(ordered.status, 202, "{}", ordered.body);
    wait_for_text(sql, done, &format!("done {rows}, done {rows}")).await;
    let deadline = Instant::now() + AMPLE;
    while before(receiver, "e3") < e3 + rows {
        assert!(Instant::now() < deadline, "{} more", before(receiver, "e3") - e3);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(before(receiver, "e4"), e4, "it is for e3 alone");
    for member in [&tail, &worker] {
        let listed = member.get("/api/v1/backfills").await.json();
        assert_eq!(listed["backfills"].as_array().unwrap().len(), 2, "{listed:#}");
    }
    wait_for_text(sql, UNBALANCED, "").await;
    worker.stop().await;
    tail.stop().await;
}

/// Little moves the WAL of the source: a tail that begins anew must not give its rows the places of those that an earlier
/// one has sent, since whoever delivers would pass over them.
#[tokio::test]
async fn on_a_quiet_source_whose_state_is_elsewhere_a_new_tail_sends_all_that_the_one_before_has_not()
 {
    let test = "on_a_quiet_source_whose_state_is_elsewhere_a_new_tail_sends_all";
    let Some(broker) = Broker::start(test).await else { return };
    let (source, state) = tokio::join!(
        start_cluster(ClusterOptions::default()),
        start_cluster(ClusterOptions::default())
    );
    let sql = Sql::connect(&source.url("postgres")).await;
    let rows = 1500;
    sql.batch_execute(&format!(
        "CREATE TABLE orders (id int PRIMARY KEY, note text);
         INSERT INTO orders SELECT n, '0' FROM generate_series(1, {rows}) AS s (n)"
    ))
    .await
    .unwrap();
    let receiver = Receiver::start(always(Answer::status(200)));
    let mut toml = format!(
        "[postgres]\nurl = \"{}\"\nwal_sender_timeout = \"2s\"\n\n[state]\nurl = \"{}\"\n\n\
         [http]\nlisten = \"127.0.0.1:0\"\n\n[relay]\nurl = \"{}\"\nreplicas = 1\npartitions = 4\n\n\
         [[event]]\ntype = \"order\"\ntable = \"public.orders\"\non = [\"insert\", \"update\", \"read\"]\n\
         backfill = true\n\n",
        source.url("postgres"),
        state.url("postgres"),
        broker.url(),
    );
    for number in 0..ENDPOINTS {
        let url = receiver.url();
        write!(toml, "[[endpoint]]\nname = \"e{number}\"\nurl = \"{url}/e{number}\"\n\n").unwrap();
    }
    let mut tail = Service::start_as(TAIL, &toml).await;
    let mut worker = Service::start_as(DELIVER, &toml).await;
    for _ in 0..4 {
        receiver.wait_for(receiver.count() + 100, AMPLE).await;
        tail.program.kill();
        tail.program.wait(AMPLE).await;
        tail = Service::start_as(TAIL, &toml).await;
    }
    let books = Sql::connect(&state.url("postgres")).await;
    let done = "SELECT string_agg(state || ' ' || rows_read, ', ') FROM walhook.backfills";
    wait_for_text(&books, done, &format!("done {rows}")).await;
    let deadline = Instant::now() + AMPLE;
    while newest(&receiver).len() < rows * ENDPOINTS {
        assert!(Instant::now() < deadline, "{} have come", newest(&receiver).len());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    wait_for_text(&books, UNBALANCED, "").await;
    worker.stop().await;
    tail.stop().await;
}
