//! Partitions that go from one worker to another, and another number of them.

use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use tokio_util::sync::CancellationToken;

use super::DELIVER;
use super::ENDPOINTS;
use super::OneNode;
use super::TAIL;
use super::one_node;
use super::repeated;
use super::told;
use super::wait_for_all;
use super::write;
use crate::support::postgres::Sql;
use crate::support::postgres::wait_for_text;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::Request;
use crate::support::receiver::always;
use crate::support::service::AMPLE;
use crate::support::service::Service;

/// How many partitions each worker owns that owns any.
const OWNED: &str =
    "SELECT string_agg(count::text, ' ') FROM (SELECT count(*) FROM walhook.progress
    WHERE member IS NOT NULL AND lease_until > now() GROUP BY member ORDER BY 1) AS m";

/// The configuration of a process whose requests say so.
fn named(toml: &str, process: &str) -> String {
    toml.replacen(
        "[webhook]\n",
        &format!("[webhook]\nheaders = {{ x-process = \"{process}\" }}\n"),
        1,
    )
}

/// How many requests a process has made.
fn made_by(receiver: &Receiver, process: &str) -> usize {
    let requests = receiver.requests();
    requests.iter().filter(|request| request.header("x-process") == process).count()
}

#[tokio::test]
async fn members_share_the_partitions_and_take_over_those_of_one_that_dies() {
    let test = "members_share_the_partitions_and_take_over_those_of_one_that_dies";
    let Some(node) = one_node(test, always(Answer::status(200))).await else { return };
    let OneNode { sql, receiver, toml, .. } = &node;
    let mut tail = Service::start_as(TAIL, toml).await;
    let first = Service::start_as(DELIVER, toml).await;
    wait_for_text(sql, OWNED, "4").await;
    let mut second = Service::start_as(DELIVER, toml).await;
    wait_for_text(sql, OWNED, "2 2").await;
    write(sql, 0..50, 3).await;
    first.program.kill();
    write(sql, 50..100, 3).await;
    wait_for_all(sql, receiver, 100, 3).await;
    wait_for_text(sql, OWNED, "4").await;
    second.stop().await;
    tail.stop().await;
}

#[tokio::test]
async fn a_worker_that_was_frozen_sends_nothing_and_writes_nothing_of_what_is_others_by_then() {
    let test =
        "a_worker_that_was_frozen_sends_nothing_and_writes_nothing_of_what_is_others_by_then";
    let Some(node) =
        one_node(test, always(Answer::status(200).after(Duration::from_millis(5)))).await
    else {
        return;
    };
    let OneNode { sql, receiver, toml, .. } = &node;
    let mut tail = Service::start_as(TAIL, toml).await;
    let mut first = Service::start_as(DELIVER, &named(toml, "first")).await;
    write(sql, 0..25, 3).await;
    receiver.wait_for(100, AMPLE).await;
    first.program.signal(Signal::STOP);
    let mut second = Service::start_as(DELIVER, &named(toml, "second")).await;
    write(sql, 25..50, 3).await;
    let all = "SELECT count(*) FROM walhook.progress WHERE holder LIKE '%pid ' || $$PID";
    let all = all.replace("$$PID", &format!("'{}'", second.program.id()));
    wait_for_text(sql, &all, "4").await;
    let before = made_by(receiver, "first");
    first.program.signal(Signal::CONT);
    first.program.wait_for_line("a partition is somebody else's by now", AMPLE).await;
    // What was on its way into the socket when it was frozen may arrive.
    let late = made_by(receiver, "first") - before;
    assert!(late <= ENDPOINTS * 8, "{late} requests of a worker that has lost its partitions");
    wait_for_all(sql, receiver, 50, 3).await;
    // It takes part again.
    let owners = "SELECT count(DISTINCT member) FROM walhook.progress WHERE lease_until > now()";
    wait_for_text(sql, owners, "2").await;
    write(sql, 50..75, 3).await;
    wait_for_all(sql, receiver, 75, 3).await;
    first.stop().await;
    second.stop().await;
    tail.stop().await;
}

#[tokio::test]
async fn an_endpoint_that_hangs_holds_its_partition_up_no_longer_than_a_lease() {
    let test = "an_endpoint_that_hangs_holds_its_partition_up_no_longer_than_a_lease";
    let answer = |request: &Request| match request.path.ends_with("e1") {
        true => Answer::Hang,
        false => Answer::status(200),
    };
    let Some(node) = one_node(test, Arc::new(answer)).await else { return };
    let OneNode { sql, receiver, toml, .. } = &node;
    let toml = toml
        .replace("[webhook]\n", "[shutdown]\ngrace = \"1h\"\n\n[webhook]\ntimeout = \"1h\"\n")
        .replace("partitions = 4", "partitions = 1");
    let others = "SELECT sum(delivered) FROM walhook.balance WHERE endpoint <> 'e1'";
    let mut tail = Service::start_as(TAIL, &toml).await;
    let mut first = Service::start_as(DELIVER, &named(&toml, "first")).await;
    write(sql, 0..20, 3).await;
    wait_for_text(sql, others, &(20 * 4 * (ENDPOINTS - 1)).to_string()).await;
    let mut second = Service::start_as(DELIVER, &named(&toml, "second")).await;
    first.program.terminate();
    assert_eq!(first.program.wait(AMPLE).await, Some(0));
    write(sql, 20..40, 3).await;
    wait_for_text(sql, others, &(40 * 4 * (ENDPOINTS - 1)).to_string()).await;
    let requests = receiver.requests();
    let others: Vec<_> =
        requests.into_iter().filter(|request| !request.path.ends_with("e1")).collect();
    assert!(told(&others).values().all(|times| *times == 1), "what was settled came again");
    for member in [&mut second, &mut tail] {
        member.program.kill();
        member.program.wait(AMPLE).await;
    }
}

/// Writes rows until it is told to stop, not far ahead of the receiver; returns how many.
async fn write_on(sql: &Sql, receiver: &Receiver, stop: &CancellationToken) -> usize {
    let mut rows = 0;
    while !stop.is_cancelled() {
        write(sql, rows..rows + 2, 3).await;
        rows += 2;
        let come = (rows * 4 * ENDPOINTS).saturating_sub(LEAD_MAX);
        while receiver.count() < come && !stop.is_cancelled() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    rows
}

/// Deliveries that may be owed before the writer waits.
const LEAD_MAX: usize = 1000;

#[tokio::test]
async fn workers_that_are_restarted_one_after_the_other_while_rows_are_written_repeat_nothing() {
    let test = "workers_that_are_restarted_one_after_the_other_repeat_nothing";
    let late = Answer::status(200).after(Duration::from_millis(3));
    let Some(node) = one_node(test, always(late)).await else { return };
    let OneNode { sql, receiver, toml, .. } = &node;
    // No lease is over by itself, however slow the machine is.
    let toml = toml.replace("[postgres]\n", "[postgres]\nwal_sender_timeout = \"1m\"\n");
    let toml = &toml.replace("partitions = 4", "partitions = 6");
    let mut workers = Vec::new();
    for _ in 0..3 {
        workers.push(Service::start_as(DELIVER, toml).await);
    }
    // All are known before there is anything to share: nobody takes more than its share.
    wait_for_text(sql, "SELECT count(*) FROM walhook.members", "3").await;
    let mut tail = Service::start_as(TAIL, toml).await;
    wait_for_text(sql, OWNED, "2 2 2").await;
    let (writing, stop) = (node.database.sql().await, CancellationToken::new());
    let restarts = async {
        for worker in &mut workers {
            receiver.wait_for(receiver.count() + 100, AMPLE).await;
            worker.stop().await;
            *worker = Service::start_as(DELIVER, toml).await;
            wait_for_text(sql, OWNED, "2 2 2").await;
        }
        receiver.wait_for(receiver.count() + 100, AMPLE).await;
        stop.cancel();
    };
    let (rows, ()) = tokio::join!(write_on(&writing, receiver, &stop), restarts);
    wait_for_all(sql, receiver, rows, 3).await;
    assert_eq!(repeated(receiver), 0);
    for worker in &mut workers {
        worker.stop().await;
    }
    tail.stop().await;
}

/// One endpoint refuses all the while, and one never answers: what they are owed is parked, or holds the slot up.
#[tokio::test]
async fn another_number_of_partitions_loses_nothing_and_repeats_nothing_that_was_settled() {
    let test = "another_number_of_partitions_loses_nothing_and_repeats_nothing_that_was_settled";
    let is_well =
        |request: &Request| !request.path.ends_with("e0") && !request.path.ends_with("e1");
    let answer = move |request: &Request| match &request.path {
        path if path.ends_with("e0") => Answer::status(503),
        path if path.ends_with("e1") => Answer::Hang,
        _ => Answer::status(200),
    };
    let Some(node) = one_node(test, Arc::new(answer)).await else { return };
    let OneNode { sql, receiver, toml, .. } = &node;
    let toml = toml
        .replace("[webhook]\n", "[shutdown]\ngrace = \"5s\"\n\n[webhook]\ntimeout = \"1h\"\n")
        .replace("name = \"e0\"\n", "name = \"e0\"\nretry = { delays = [\"1h\"] }\n");
    let others = "SELECT sum(delivered) FROM walhook.balance WHERE endpoint NOT IN ('e0', 'e1')";
    let mut rows = 0;
    for (round, partitions) in [4, 7, 2, 1, 5].into_iter().enumerate() {
        let toml = toml.replace("partitions = 4", &format!("partitions = {partitions}"));
        let mut tail = Service::start_as(TAIL, &toml).await;
        let mut workers =
            [Service::start_as(DELIVER, &toml).await, Service::start_as(DELIVER, &toml).await];
        write(sql, rows..rows + 20, 3).await;
        rows += 20;
        wait_for_text(sql, others, &(rows * 4 * (ENDPOINTS - 2)).to_string()).await;
        for member in workers.iter_mut().chain([&mut tail]) {
            match round % 2 {
                0 => member.program.terminate(),
                _ => member.program.kill(),
            }
            member.program.wait(AMPLE).await;
        }
    }
    let requests = receiver.requests();
    let requests: Vec<Request> = requests.into_iter().filter(is_well).collect();
    assert!(told(&requests).values().all(|times| *times == 1), "what was settled came again");
    receiver.behave(always(Answer::status(200)));
    sql.batch_execute("UPDATE walhook.backlog SET next_attempt_at = NULL").await.unwrap();
    let toml = toml.replace("partitions = 4", "partitions = 3");
    let mut tail = Service::start_as(TAIL, &toml).await;
    let mut worker = Service::start_as(DELIVER, &toml).await;
    wait_for_all(sql, receiver, rows, 3).await;
    let requests = receiver.requests();
    let requests: Vec<Request> = requests.into_iter().filter(is_well).collect();
    assert!(told(&requests).values().all(|times| *times == 1), "what was settled came again");
    worker.stop().await;
    tail.stop().await;
}
