//! Roles over a broker: one process reads the slot, and others deliver.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]
#![expect(clippy::indexing_slicing, reason = "a missing field fails the test as it should")]

mod backfills;
mod broker_losses;
mod crashes;
mod endpoints;
mod kills;
mod refusals;
mod reloads;
mod renames;
mod run_time_endpoints;
mod state_away;
mod table_endpoints;
mod takeovers;

use std::collections::BTreeMap;
use std::time::Duration;
use std::time::Instant;

use rustix::process::Signal;

use crate::support::broker::Broker;
use crate::support::postgres::Database;
use crate::support::postgres::Sql;
use crate::support::postgres::wait_for_text;
use crate::support::program::Program;
use crate::support::receiver::Answer;
use crate::support::receiver::Behaviour;
use crate::support::receiver::Receiver;
use crate::support::receiver::Request;
use crate::support::receiver::always;
use crate::support::service::AMPLE;
use crate::support::service::Service;
use crate::support::service::configuration;
use crate::support::service::slot;

/// Lines of the books that do not add up, or owe something.
const UNBALANCED: &str = "SELECT coalesce(string_agg(b::text, ' '), '') FROM walhook.balance b
    WHERE captured <> delivered + filtered + expired + dead + pending OR pending <> 0";

async fn prepared() -> Database {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute("CREATE TABLE orders (id int PRIMARY KEY, note text)").await.unwrap();
    database
}

/// A broker of one node, and what all members of a source have in common.
struct OneNode {
    broker: Broker,
    database: Database,
    sql: Sql,
    receiver: Receiver,
    toml: String,
}

/// With a receiver that answers so.
async fn one_node(test: &str, behaviour: Behaviour) -> Option<OneNode> {
    let broker = Broker::start(test).await?;
    let database = prepared().await;
    let sql = database.sql().await;
    let receiver = Receiver::start(behaviour);
    let toml = shared(&database, &receiver, &broker.url());
    Some(OneNode { broker, database, sql, receiver, toml })
}

/// Eight endpoints at one receiver, whose paths say which.
fn shared(database: &Database, receiver: &Receiver, broker: &str) -> String {
    let broker = format!("\"{broker}\"");
    shared_with(database, receiver, &broker, "replicas = 1\npatience = \"1h\"")
}

/// The same with `relay` in `[relay]`.
fn shared_with(database: &Database, receiver: &Receiver, broker: &str, relay: &str) -> String {
    let mut rest = format!(
        "[[event]]\ntype = \"order\"\ntable = \"public.orders\"\n\n[webhook]\nretry_interval = \"20ms\"\n\
         retry_cap = \"100ms\"\nmax_retries = 100\n\n[relay]\nurl = {broker}\n{relay}\npartitions = 4\n\n"
    );
    for number in 0..ENDPOINTS {
        let url = receiver.url();
        let url = url.trim_end_matches('/');
        rest += &format!("[[endpoint]]\nname = \"e{number}\"\nurl = \"{url}/e{number}\"\n\n");
    }
    configuration(database, &rest)
}

const ENDPOINTS: usize = 8;

const TAIL: &[&str] = &["--role", "tail"];
const DELIVER: &[&str] = &["--role", "deliver"];

/// Makes the rows, and raises the version of each so often.
async fn write(sql: &Sql, rows: std::ops::Range<usize>, versions: usize) {
    let (first, last) = (rows.start, rows.end - 1);
    let insert =
        format!("INSERT INTO orders SELECT n, '0' FROM generate_series({first}, {last}) AS s (n)");
    sql.batch_execute(&insert).await.unwrap();
    for version in 1..=versions {
        let update =
            format!("UPDATE orders SET note = '{version}' WHERE id BETWEEN {first} AND {last}");
        sql.batch_execute(&update).await.unwrap();
    }
}

/// How often each endpoint was told of each version of each row; panics where a version came first after a later one.
fn told(requests: &[Request]) -> BTreeMap<(String, u64, u64), usize> {
    let mut told = BTreeMap::new();
    let mut newest: BTreeMap<(String, u64), u64> = BTreeMap::new();
    for request in requests {
        let data = &request.json()["data"];
        let id = data["id"].as_u64().unwrap();
        let version: u64 = data["note"].as_str().unwrap().parse().unwrap();
        let endpoint = request.path.clone();
        let times = told.entry((endpoint.clone(), id, version)).or_insert(0);
        *times += 1;
        let newest = newest.entry((endpoint.clone(), id)).or_insert(version);
        assert!(
            *times > 1 || version >= *newest,
            "{endpoint} hears of {id} {version} after {newest}"
        );
        *newest = version.max(*newest);
    }
    told
}

/// Waits until every endpoint was told of everything, and the books say so: each delivery once.
async fn wait_for_all(sql: &Sql, receiver: &Receiver, rows: usize, versions: usize) {
    let all = rows * (versions + 1) * ENDPOINTS;
    let deadline = Instant::now() + AMPLE;
    while told(&receiver.requests()).len() < all {
        let come = told(&receiver.requests()).len();
        assert!(Instant::now() < deadline, "{come} of {all} have come");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    wait_for_text(sql, BOOKS, &format!("{all} {all} 0")).await;
}

/// Captured, delivered, and all else.
const BOOKS: &str = "SELECT sum(captured) || ' ' || sum(delivered) || ' ' ||
                            sum(filtered + expired + dead + pending) FROM walhook.balance";

/// Deliveries that were made more than once.
fn repeated(receiver: &Receiver) -> usize {
    told(&receiver.requests()).values().filter(|times| **times > 1).count()
}

#[tokio::test]
async fn what_a_tail_reads_is_delivered_by_others_once_and_in_order_and_confirmed() {
    let test = "what_a_tail_reads_is_delivered_by_others_once_and_in_order_and_confirmed";
    let Some(node) = one_node(test, always(Answer::status(200))).await else { return };
    let OneNode { sql, receiver, toml, .. } = &node;
    let mut tail = Service::start_as(TAIL, toml).await;
    let mut deliver = Service::start_as(DELIVER, toml).await;
    write(sql, 0..200, 4).await;
    wait_for_all(sql, receiver, 200, 4).await;
    assert_eq!(repeated(receiver), 0);
    // What is due in several partitions is written by one transaction. What comes all at once may have ended at
    // different ticks on a busy machine, and what is a lot goes alone: rows are written until one tick has them all.
    let together =
        "SELECT max(count) FROM (SELECT count(DISTINCT endpoint) FROM walhook.push_log_events
                     GROUP BY xmin::text) AS transactions";
    let (mut rows, deadline) = (200, Instant::now() + AMPLE);
    while sql.text(together).await != ENDPOINTS.to_string() {
        assert!(Instant::now() < deadline, "no transaction of {rows} rows has all endpoints");
        write(sql, rows..rows + 1, 4).await;
        rows += 1;
        wait_for_all(sql, receiver, rows, 4).await;
    }
    // The slot does not keep what was delivered: WAL of others moves it on.
    let caught_up = format!(
        "SELECT pg_wal_lsn_diff(confirmed_flush_lsn, '{}') >= 0 FROM pg_replication_slots
          WHERE slot_name = '{}'",
        sql.text("SELECT pg_current_wal_lsn()").await,
        slot(&node.database)
    );
    sql.batch_execute("CREATE TABLE other AS SELECT n FROM generate_series(1, 20000) AS s (n)")
        .await
        .unwrap();
    wait_for_text(sql, &caught_up, "t").await;
    deliver.wait_for_status("/ready", 200).await;
    let status = deliver.get("/api/v1/status").await.json();
    assert_eq!(status["source"]["state"], "delivering", "{status:#}");
    assert_eq!(status["source"]["reason"], "delivers for partitions 1, 2, 3, 4");
    tail.wait_for_status("/ready", 200).await;
    deliver.stop().await;
    tail.stop().await;
    assert_eq!(receiver.count(), rows * 5 * ENDPOINTS, "nothing comes again");
}

#[tokio::test]
async fn neither_a_tail_nor_a_worker_that_is_killed_loses_or_reorders_anything() {
    let test = "neither_a_tail_nor_a_worker_that_is_killed_loses_or_reorders_anything";
    let Some(node) =
        one_node(test, always(Answer::status(200).after(Duration::from_millis(2)))).await
    else {
        return;
    };
    let OneNode { sql, receiver, toml, .. } = &node;
    let mut tail = Service::start_as(TAIL, toml).await;
    let mut deliver = Service::start_as(DELIVER, toml).await;
    let rounds = 6;
    for round in 0..rounds {
        write(sql, round * 50..(round + 1) * 50, 3).await;
        let come = receiver.count();
        receiver.wait_for(come + 100, AMPLE).await;
        if round % 2 == 0 {
            deliver.program.kill();
            deliver = Service::start_as(DELIVER, toml).await;
        } else {
            tail.program.kill();
            tail = Service::start_as(TAIL, toml).await;
        }
    }
    wait_for_all(sql, receiver, rounds * 50, 3).await;
    deliver.stop().await;
    tail.stop().await;
}

#[tokio::test]
async fn a_new_tail_sends_nothing_again_of_what_is_settled_while_one_endpoint_holds_the_slot_up() {
    let test = "a_new_tail_sends_nothing_again_of_what_is_settled";
    let Some(broker) = Broker::start(test).await else { return };
    let database = prepared().await;
    let sql = database.sql().await;
    let late = Answer::status(200).after(Duration::from_secs(3600));
    let answer = move |request: &Request| match request.path.ends_with("e0") {
        true => late.clone(),
        false => Answer::status(200),
    };
    let receiver = Receiver::start(std::sync::Arc::new(answer));
    let toml = shared(&database, &receiver, &broker.url());
    let toml = toml.replace("[webhook]\n", "[webhook]\ntimeout = \"1h\"\n");
    let mut tail = Service::start_as(TAIL, &toml).await;
    let deliver = Service::start_as(DELIVER, &toml).await;
    let others = "SELECT sum(delivered) FROM walhook.balance WHERE endpoint <> 'e0'";
    for round in 1..=3 {
        write(&sql, round * 10..round * 10 + 10, 2).await;
        wait_for_text(&sql, others, &(round * 30 * (ENDPOINTS - 1)).to_string()).await;
        tail.program.kill();
        tail.program.wait(AMPLE).await;
        tail = Service::start_as(TAIL, &toml).await;
    }
    write(&sql, 40..50, 2).await;
    wait_for_text(&sql, others, &(120 * (ENDPOINTS - 1)).to_string()).await;
    let told = [tail.program.output(), deliver.program.output()].concat().join("\n");
    assert!(!told.contains("messages are missing") && !told.contains("has not got all"), "{told}");
}

#[tokio::test]
async fn what_the_broker_loses_is_sent_again_from_the_slot() {
    let test = "what_the_broker_loses_is_sent_again_from_the_slot";
    let Some(mut broker) = Broker::start(test).await else { return };
    let database = prepared().await;
    let sql = database.sql().await;
    let receiver = Receiver::start(always(Answer::status(200)));
    let toml = shared(&database, &receiver, &broker.url());
    let mut tail = Service::start_as(TAIL, &toml).await;
    // Nobody delivers: all of it is in the broker alone, and in the WAL.
    write(&sql, 0..50, 3).await;
    wait_for_text(&sql, "SELECT count(*) FROM walhook.progress WHERE partition > 0", "4").await;
    broker.kill().await;
    broker.forget();
    broker.start_again().await;
    let mut deliver = Service::start_as(DELIVER, &toml).await;
    write(&sql, 50..100, 3).await;
    wait_for_all(&sql, &receiver, 100, 3).await;
    // Once more, while it is read.
    broker.kill().await;
    broker.forget();
    write(&sql, 100..150, 3).await;
    broker.start_again().await;
    wait_for_all(&sql, &receiver, 150, 3).await;
    deliver.stop().await;
    tail.stop().await;
}

/// Whoever has the slot calls back what others deliver, and goes on from there; and gives it out again.
#[tokio::test]
async fn a_source_goes_from_one_process_to_several_and_back_without_repeats() {
    let test = "a_source_goes_from_one_process_to_several_and_back_without_repeats";
    let Some(node) = one_node(test, always(Answer::status(200))).await else { return };
    let OneNode { sql, receiver, toml, .. } = &node;
    let mut rows = 0;
    for round in 0..4 {
        let mut members = match round % 2 {
            0 => vec![Service::start(toml).await],
            _ => {
                vec![Service::start_as(TAIL, toml).await, Service::start_as(DELIVER, toml).await]
            }
        };
        write(sql, rows..rows + 25, 3).await;
        rows += 25;
        wait_for_all(sql, receiver, rows, 3).await;
        for member in &mut members {
            member.stop().await;
        }
    }
    assert_eq!(repeated(receiver), 0);
}

#[tokio::test]
async fn what_nobody_delivers_is_parked_and_goes_on_when_somebody_comes() {
    let test = "what_nobody_delivers_is_parked_and_goes_on_when_somebody_comes";
    let Some(broker) = Broker::start(test).await else { return };
    let database = prepared().await;
    let sql = database.sql().await;
    let receiver = Receiver::start(always(Answer::status(200)));
    let broker = format!("\"{}\"", broker.url());
    let toml = shared_with(&database, &receiver, &broker, "replicas = 1\npatience = \"1s\"");
    let mut tail = Service::start_as(TAIL, &toml).await;
    // In the streams first; then nobody has come for a second, and what is not settled comes again.
    write(&sql, 0..25, 3).await;
    let parked = "SELECT count(*) FROM walhook.backlog WHERE reason = 'unowned'";
    wait_for_text(&sql, parked, "800").await;
    write(&sql, 25..50, 3).await;
    wait_for_text(&sql, parked, "1600").await;
    let held = format!(
        "SELECT pg_wal_lsn_diff(confirmed_flush_lsn, '{}') >= 0 FROM pg_replication_slots
          WHERE slot_name = '{}'",
        sql.text("SELECT pg_current_wal_lsn()").await,
        slot(&database)
    );
    sql.batch_execute("CREATE TABLE other AS SELECT n FROM generate_series(1, 20000) AS s (n)")
        .await
        .unwrap();
    wait_for_text(&sql, &held, "t").await;
    let (code, said) = members(&toml).await;
    assert!(
        code == Some(0) && said.contains("with whoever has the slot: partitions 1, 2, 3, 4 of 4"),
        "{said}"
    );
    let mut deliver = Service::start_as(DELIVER, &toml).await;
    write(&sql, 50..75, 3).await;
    wait_for_all(&sql, &receiver, 75, 3).await;
    assert_eq!(repeated(&receiver), 0);
    let (code, said) = members(&toml).await;
    let owner = format!("pid {}", deliver.program.id());
    assert!(code == Some(0) && said.contains(&owner) && said.contains("[1,2,3,4]"), "{said}");
    deliver.stop().await;
    tail.stop().await;
}

/// What `walhook members` says.
async fn members(toml: &str) -> (Option<i32>, String) {
    let mut program = Program::start(&["members"], toml, &[]);
    let code = program.wait(AMPLE).await;
    (code, program.output().join("\n"))
}

#[tokio::test]
async fn a_second_tail_takes_over_and_the_frozen_one_ends() {
    let test = "a_second_tail_takes_over_and_the_frozen_one_ends";
    let Some(broker) = Broker::start(test).await else { return };
    let database = prepared().await;
    let sql = database.sql().await;
    let receiver = Receiver::start(always(Answer::status(200)));
    let toml = shared(&database, &receiver, &broker.url());
    let mut first = Service::start_as(TAIL, &toml).await;
    let mut deliver = Service::start_as(DELIVER, &toml).await;
    let mut second = Program::start(&["run", "--role", "tail"], &toml, &[]);
    second.wait_for_line("standing by", AMPLE).await;
    write(&sql, 0..25, 3).await;
    first.program.signal(Signal::STOP);
    write(&sql, 25..50, 3).await;
    second.wait_for_line("walhook is running", AMPLE).await;
    write(&sql, 50..75, 3).await;
    wait_for_all(&sql, &receiver, 75, 3).await;
    first.program.signal(Signal::CONT);
    first.program.wait_for_line("walhook cannot go on", AMPLE).await;
    write(&sql, 75..100, 3).await;
    wait_for_all(&sql, &receiver, 100, 3).await;
    deliver.stop().await;
    // It has ended, since the slot is another's; or an owner had asked for messages again before it saw that, and it
    // has begun anew, as a standby.
    first.program.terminate();
    let end = first.program.wait(AMPLE).await;
    assert!(matches!(end, Some(0 | 1)), "{end:?}\n{}", first.program.output().join("\n"));
    second.terminate();
    assert_eq!(second.wait(AMPLE).await, Some(0));
}

/// Three servers, of which one after the other is killed, comes back, and loses what it has.
#[tokio::test]
async fn nothing_is_lost_while_nodes_of_the_broker_die_and_come_back() {
    let test = "nothing_is_lost_while_nodes_of_the_broker_die_and_come_back";
    let Some(mut nodes) = Broker::cluster(test).await else { return };
    let database = prepared().await;
    let sql = database.sql().await;
    let receiver = Receiver::start(always(Answer::status(200)));
    let urls = nodes.each_ref().map(|node| format!("\"{}\"", node.url())).join(", ");
    let relay = "replicas = 3\npatience = \"1h\"";
    let toml = shared_with(&database, &receiver, &format!("[{urls}]"), relay);
    let mut tail = Service::start_as(TAIL, &toml).await;
    let mut first = Service::start_as(DELIVER, &toml).await;
    let mut second = Service::start_as(DELIVER, &toml).await;
    let mut rows = 0;
    for (number, forgets) in [(0, false), (1, false), (2, true)] {
        write(&sql, rows..rows + 25, 3).await;
        let node = nodes.get_mut(number).unwrap();
        node.kill().await;
        write(&sql, rows + 25..rows + 50, 3).await;
        rows += 50;
        wait_for_all(&sql, &receiver, rows, 3).await;
        if forgets {
            node.forget();
        }
        node.start_again().await;
    }
    // No majority: nothing is taken, and nothing is lost.
    let [one, two, _three] = &mut nodes;
    one.kill().await;
    two.kill().await;
    write(&sql, rows..rows + 25, 3).await;
    one.start_again().await;
    two.start_again().await;
    wait_for_all(&sql, &receiver, rows + 25, 3).await;
    first.stop().await;
    second.stop().await;
    tail.stop().await;
}

#[tokio::test]
async fn a_row_that_is_larger_than_a_message_goes_in_pieces() {
    let test = "a_row_that_is_larger_than_a_message_goes_in_pieces";
    let Some(node) = one_node(test, always(Answer::status(200))).await else { return };
    let OneNode { sql, receiver, toml, .. } = &node;
    let mut tail = Service::start_as(TAIL, toml).await;
    let mut deliver = Service::start_as(DELIVER, toml).await;
    let large = 3_000_000;
    sql.batch_execute(&format!(
        "INSERT INTO orders VALUES (1, repeat('ab', {large} / 2)), (2, 'x')"
    ))
    .await
    .unwrap();
    let requests = receiver.wait_for(2 * ENDPOINTS, AMPLE).await;
    let length = |request: &Request| request.json()["data"]["note"].as_str().unwrap().len();
    let whole = requests.iter().filter(|request| length(request) == large).count();
    assert_eq!(whole, ENDPOINTS);
    wait_for_text(sql, BOOKS, &format!("{0} {0} 0", 2 * ENDPOINTS)).await;
    deliver.stop().await;
    tail.stop().await;
}
