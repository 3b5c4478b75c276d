//! What is known of an endpoint goes with its partition to another owner: attempts, the time of the next one, that it
//! does not answer, a pause.

use std::sync::Arc;

use serde_json::json;

use super::DELIVER;
use super::ENDPOINTS;
use super::OneNode;
use super::TAIL;
use super::one_node;
use super::wait_for_all;
use super::write;
use crate::support::postgres::wait_for_text;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::Request;
use crate::support::receiver::always;
use crate::support::service::AMPLE;
use crate::support::service::Service;

/// A lease that does not take long to be over.
fn short(toml: &str) -> String {
    toml.replace("[postgres]\n", "[postgres]\nwal_sender_timeout = \"2s\"\n")
}

/// With more in the table of endpoint e0.
fn with(toml: &str, more: &str) -> String {
    toml.replace("name = \"e0\"\n", &format!("name = \"e0\"\n{more}\n"))
}

/// How many requests have come to e0.
fn at_e0(receiver: &Receiver) -> usize {
    receiver.requests().iter().filter(|request| request.path.ends_with("e0")).count()
}

/// Answers e0 like this, and all others with 200.
fn e0(answer: Answer) -> Arc<dyn Fn(&Request) -> Answer + Send + Sync> {
    Arc::new(move |request| match request.path.ends_with("e0") {
        true => answer.clone(),
        false => Answer::status(200),
    })
}

const OTHERS: &str = "SELECT sum(delivered) FROM walhook.balance WHERE endpoint <> 'e0'";

/// `kill -9` of a worker, and another one.
async fn replaced(mut worker: Service, toml: &str) -> Service {
    worker.program.kill();
    worker.program.wait(AMPLE).await;
    Service::start_as(DELIVER, toml).await
}

#[tokio::test]
async fn attempts_and_the_time_of_the_next_one_are_kept_when_a_partition_moves() {
    let test = "attempts_and_the_time_of_the_next_one_are_kept_when_a_partition_moves";
    let Some(node) = one_node(test, e0(Answer::status(503))).await else { return };
    let OneNode { sql, receiver, toml, .. } = &node;
    let retry = "breaker = false\nretry = { delays = [\"10ms\", \"10ms\", \"1h\"] }";
    let toml = &with(&short(toml), retry);
    let mut tail = Service::start_as(TAIL, toml).await;
    let first = Service::start_as(DELIVER, toml).await;
    write(sql, 0..3, 0).await;
    let parked = "SELECT count(*) || ' ' || bool_and(attempts = 3 AND next_attempt_at > now() + interval '30 minutes')
                    FROM walhook.backlog WHERE endpoint = 'e0'";
    wait_for_text(sql, parked, "3 true").await;
    let times = "SELECT string_agg(next_attempt_at::text, ' ' ORDER BY commit_lsn, ordinal)
                   FROM (SELECT * FROM walhook.backlog WHERE endpoint = 'e0'
                          ORDER BY commit_lsn, ordinal LIMIT 3) AS b";
    let before = sql.text(times).await;
    let second = replaced(first, toml).await;
    // It has the partition of e0, too: it tries what is new.
    write(sql, 3..4, 0).await;
    wait_for_text(sql, parked, "4 true").await;
    assert_eq!(sql.text(times).await, before);
    assert_eq!(at_e0(receiver), 12, "three attempts of each of four");
    // The fourth is the last one, whoever made those before.
    let mut second = second;
    second.program.kill();
    second.program.wait(AMPLE).await;
    sql.batch_execute("UPDATE walhook.backlog SET next_attempt_at = now()").await.unwrap();
    let mut third = Service::start_as(DELIVER, toml).await;
    let dead = "SELECT count(*) || ' ' || bool_and(attempts = 4) FROM walhook.dead_letters";
    wait_for_text(sql, dead, "4 true").await;
    assert_eq!(at_e0(receiver), 16);
    wait_for_text(sql, OTHERS, &(4 * (ENDPOINTS - 1)).to_string()).await;
    third.stop().await;
    tail.stop().await;
}

/// A circuit breaker is not written down, but that something waits is: the next owner sends one request, and no more
/// before it is answered.
#[tokio::test]
async fn an_endpoint_that_does_not_answer_gets_one_request_when_its_partition_moves() {
    let test = "an_endpoint_that_does_not_answer_gets_one_request_when_its_partition_moves";
    let Some(node) = one_node(test, e0(Answer::status(503))).await else { return };
    let OneNode { sql, receiver, toml, .. } = &node;
    let breaker = "breaker = { failures = 3, cooldown = \"1h\", cap = \"1h\" }\nconcurrency = 8";
    let toml = &with(&short(toml), breaker);
    let mut tail = Service::start_as(TAIL, toml).await;
    let first = Service::start_as(DELIVER, toml).await;
    write(sql, 0..40, 0).await;
    first.wait_for_metric("walhook_breaker_open{endpoint=\"e0\"}", 1.0).await;
    let parked = "SELECT count(*) FROM walhook.backlog WHERE endpoint = 'e0'";
    wait_for_text(sql, parked, "40").await;
    let before = at_e0(receiver);
    receiver.behave(e0(Answer::Hang));
    let mut second = replaced(first, toml).await;
    write(sql, 40..80, 0).await;
    wait_for_text(sql, OTHERS, &(80 * (ENDPOINTS - 1)).to_string()).await;
    wait_for_text(sql, parked, "80").await;
    assert!(at_e0(receiver) <= before + 1, "{} and not one", at_e0(receiver) - before);
    second.program.kill();
    second.program.wait(AMPLE).await;
    receiver.behave(always(Answer::status(200)));
    let mut third = Service::start_as(DELIVER, toml).await;
    wait_for_all(sql, receiver, 80, 0).await;
    third.stop().await;
    tail.stop().await;
}

#[tokio::test]
async fn a_pause_is_kept_when_a_partition_moves() {
    let test = "a_pause_is_kept_when_a_partition_moves";
    let Some(node) = one_node(test, always(Answer::status(200))).await else { return };
    let OneNode { sql, receiver, toml, .. } = &node;
    let toml = &short(toml);
    let mut alone = Service::start(toml).await;
    let pause = alone.post("/api/v1/endpoints/e0/pause", &json!({})).await;
    assert_eq!(pause.status, 200);
    alone.stop().await;
    let since = "SELECT paused_at::text FROM walhook.endpoint_states WHERE endpoint = 'e0'";
    let paused_at = sql.text(since).await;
    let mut tail = Service::start_as(TAIL, toml).await;
    let mut worker = Service::start_as(DELIVER, toml).await;
    let parked = "SELECT count(*) FROM walhook.backlog WHERE endpoint = 'e0' AND reason = 'paused'";
    for round in 1..=3 {
        write(sql, (round - 1) * 10..round * 10, 1).await;
        wait_for_text(sql, OTHERS, &(round * 20 * (ENDPOINTS - 1)).to_string()).await;
        wait_for_text(sql, parked, &(round * 20).to_string()).await;
        let status = worker.get("/api/v1/status").await.json();
        let shown = status["endpoints"].as_array().unwrap();
        let shown = shown.iter().find(|endpoint| endpoint["name"] == "e0").unwrap();
        assert_eq!(shown["state"], "paused", "{status:#}");
        worker = replaced(worker, toml).await;
    }
    assert_eq!((at_e0(receiver), sql.text(since).await), (0, paused_at));
    assert_eq!(worker.post("/api/v1/endpoints/e0/resume", &json!({})).await.status, 200);
    wait_for_all(sql, receiver, 30, 1).await;
    worker.stop().await;
    tail.stop().await;
}
