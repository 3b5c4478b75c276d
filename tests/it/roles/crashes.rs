//! An event over which workers crash, one after the other, is set aside as a dead letter.

use std::time::Duration;
use std::time::Instant;

use super::DELIVER;
use super::ENDPOINTS;
use super::OneNode;
use super::TAIL;
use super::one_node;
use super::write;
use crate::support::postgres::wait_for_text;
use crate::support::program::Program;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::always;
use crate::support::service::AMPLE;
use crate::support::service::Service;

/// Rows, one of which is number 7: each endpoint gets it, in each partition.
const ROWS: usize = 9;

/// Crashes that it takes are counted for each partition, and each waits for a lease.
const DEADLINE: Duration = Duration::from_secs(400);

const BALANCE: &str =
    "SELECT concat_ws(' ', sum(delivered), sum(dead), sum(pending)) FROM walhook.balance";

fn worker(toml: &str) -> Program {
    let env = [("WALHOOK_FAILPOINT", "before_post~id=7")];
    Program::start(&["run", "--role", "deliver"], toml, &env)
}

fn sevens(receiver: &Receiver) -> usize {
    receiver.requests().iter().filter(|request| request.json()["data"]["id"] == 7).count()
}

#[tokio::test]
async fn an_event_over_which_workers_crash_is_set_aside_for_each_endpoint_and_the_rest_is_delivered()
 {
    let test = "an_event_over_which_workers_crash_is_set_aside_for_each_endpoint";
    let Some(node) = one_node(test, always(Answer::status(200))).await else { return };
    let OneNode { sql, receiver, toml, .. } = &node;
    let toml = toml.replace("[postgres]\n", "[postgres]\nwal_sender_timeout = \"2s\"\n");
    let mut tail = Service::start_as(TAIL, &toml).await;
    let mut workers = [worker(&toml), worker(&toml)];
    write(sql, 1..ROWS + 1, 0).await;
    let others = (ROWS - 1) * ENDPOINTS;
    let expected = format!("{others} {ENDPOINTS} 0");
    let (begun, mut crashes) = (Instant::now(), 0);
    while sql.text(BALANCE).await != expected {
        for one in &mut workers {
            if one.has_ended() {
                assert_eq!(one.wait(AMPLE).await, None, "{}", one.output().join("\n"));
                crashes += 1;
                *one = worker(&toml);
            }
        }
        let runs = "SELECT string_agg(r::text, ' ') FROM walhook.runs r";
        assert!(
            begun.elapsed() < DEADLINE,
            "{crashes} crashes: {}\n{}\n{}",
            sql.text(BALANCE).await,
            sql.text(runs).await,
            workers.each_ref().map(|one| one.output().join("\n")).join("\n\n")
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let took = begun.elapsed();
    assert!(crashes > 3, "{crashes} crashes within {took:?}");
    assert_eq!(sevens(receiver), 0, "the event was sent");
    let letters = "SELECT string_agg(DISTINCT concat_ws('|', row_key, failure_class, attempts, body IS NULL, reason), ' ')
                     FROM walhook.dead_letters";
    let letter = "7|poison|0|f|walhook crashed over it again and again";
    assert_eq!(sql.text(letters).await, letter);
    // Whoever takes the partitions from here on is as usual, and sends it when an operator wishes so.
    for one in &mut workers {
        one.terminate();
        assert_eq!(one.wait(AMPLE).await, Some(0), "{}", one.output().join("\n"));
    }
    sql.batch_execute("UPDATE walhook.dead_letters SET state = 'requested'").await.unwrap();
    let mut sound = Service::start_as(DELIVER, &toml).await;
    wait_for_text(sql, BALANCE, &format!("{} 0 0", ROWS * ENDPOINTS)).await;
    assert_eq!(sevens(receiver), ENDPOINTS);
    let said = sound.program.output().join("\n");
    assert!(!said.contains("has crashed"), "{said}");
    sound.stop().await;
    tail.stop().await;
}
