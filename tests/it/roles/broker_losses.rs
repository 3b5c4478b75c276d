//! Streams that lose what they had been given, in every way in which a broker can.

use std::num::NonZeroU16;
use std::time::Duration;
use std::time::Instant;

use async_nats::jetstream;
use walhook::testing::flow::partition::PartitionNumber;

use super::DELIVER;
use super::ENDPOINTS;
use super::OneNode;
use super::TAIL;
use super::one_node;
use super::repeated;
use super::wait_for_all;
use super::write;
use crate::support::receiver::Answer;
use crate::support::receiver::always;
use crate::support::service::AMPLE;
use crate::support::service::Service;
use crate::support::service::slot;

const PARTITIONS: NonZeroU16 = NonZeroU16::new(4).unwrap();

/// The streams of the partitions that have endpoints, of so many.
async fn streams(node: &OneNode, count: NonZeroU16) -> Vec<jetstream::stream::Stream> {
    let client = async_nats::connect(node.broker.url()).await.unwrap();
    let jetstream = jetstream::new(client);
    let number = |endpoint| PartitionNumber::of_endpoint(&format!("e{endpoint}"), count).raw();
    let mut numbers: Vec<i32> = (0..ENDPOINTS).map(number).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let mut streams = Vec::new();
    for number in numbers {
        let name = format!("WH_{}_{number}", slot(&node.database));
        streams.push(jetstream.get_stream(name).await.unwrap());
    }
    streams
}

/// Waits until every stream holds so many events.
async fn wait_until_held(node: &OneNode, count: u64) {
    wait_until_all_hold(node, PARTITIONS, count).await;
}

async fn wait_until_all_hold(node: &OneNode, partitions: NonZeroU16, count: u64) {
    let deadline = Instant::now() + AMPLE;
    loop {
        let mut held = Vec::new();
        for stream in streams(node, partitions).await {
            held.push(events_in(&stream).await);
        }
        if held.iter().all(|events| *events >= count) {
            return;
        }
        assert!(Instant::now() < deadline, "{held:?} of {count}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn events_in(stream: &jetstream::stream::Stream) -> u64 {
    let state = &stream.cached_info().state;
    let mut count = 0;
    for sequence in state.first_sequence..=state.last_sequence {
        // One that is gone meanwhile is missed.
        let message = stream.get_raw_message(sequence).await;
        count += message.map_or(0, |message| events_of(&message.payload));
    }
    count
}

/// As `relay::message` puts them together: a length, JSON that says how long the bodies are, the bodies.
fn events_of(mut payload: &[u8]) -> u64 {
    let mut count = 0;
    while let Some((length, rest)) = payload.split_first_chunk() {
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap();
        let (head, bodies) = rest.split_at(length);
        let head: serde_json::Value = serde_json::from_slice(head).unwrap();
        let shapes = head.get("shapes").and_then(|shapes| shapes.as_array()).unwrap();
        let bytes = shapes.iter().map(|shape| shape.get("bytes").unwrap().as_u64().unwrap());
        (_, payload) = bodies.split_at(usize::try_from(bytes.sum::<u64>()).unwrap());
        count += 1;
    }
    count
}

/// What is done to a stream behind walhook's back.
#[derive(Clone, Copy, Debug)]
enum StreamLoss {
    Emptied,
    Truncated,
    OneMessage,
    Removed,
}

/// Where the streams are read, what was to be removed may have been settled and purged just before.
async fn lose(node: &OneNode, loss: StreamLoss, is_read: bool) {
    for stream in streams(node, PARTITIONS).await {
        let state = &stream.cached_info().state;
        let middle = u64::midpoint(state.first_sequence, state.last_sequence);
        match loss {
            StreamLoss::Emptied => drop(stream.purge().await.unwrap()),
            StreamLoss::Truncated => drop(stream.purge().sequence(middle).await.unwrap()),
            StreamLoss::OneMessage => {
                let removed = stream.delete_message(middle).await;
                assert!(is_read || removed.unwrap());
            }
            StreamLoss::Removed => {
                let client = async_nats::connect(node.broker.url()).await.unwrap();
                let name = &stream.cached_info().config.name;
                jetstream::new(client).delete_stream(name).await.unwrap();
            }
        }
    }
}

/// What the streams have lost comes again, once somebody reads them, also where nothing more is written.
async fn survive(test: &str, loss: StreamLoss) {
    let Some(node) = one_node(test, always(Answer::status(200))).await else { return };
    let OneNode { sql, receiver, toml, .. } = &node;
    let mut tail = Service::start_as(TAIL, toml).await;
    // Nobody delivers: all of it is in the streams alone, and in the WAL.
    write(sql, 0..25, 3).await;
    wait_until_held(&node, 100).await;
    lose(&node, loss, false).await;
    let mut worker = Service::start_as(DELIVER, toml).await;
    wait_for_all(sql, receiver, 25, 3).await;
    assert_eq!(repeated(receiver), 0);
    // Once more, while it is read.
    write(sql, 25..50, 3).await;
    lose(&node, loss, true).await;
    write(sql, 50..75, 3).await;
    wait_for_all(sql, receiver, 75, 3).await;
    worker.stop().await;
    tail.stop().await;
}

#[tokio::test]
async fn what_a_stream_held_that_is_emptied_comes_again() {
    survive("what_a_stream_held_that_is_emptied_comes_again", StreamLoss::Emptied).await;
}

#[tokio::test]
async fn what_a_stream_held_that_is_truncated_comes_again() {
    survive("what_a_stream_held_that_is_truncated_comes_again", StreamLoss::Truncated).await;
}

#[tokio::test]
async fn a_message_that_is_removed_from_a_stream_comes_again() {
    survive("a_message_that_is_removed_from_a_stream_comes_again", StreamLoss::OneMessage).await;
}

#[tokio::test]
async fn what_a_stream_held_that_is_removed_comes_again() {
    survive("what_a_stream_held_that_is_removed_comes_again", StreamLoss::Removed).await;
}

/// The broker goes back to an earlier time: messages that it had acknowledged are gone, and their numbers are
/// given once more.
#[tokio::test]
async fn what_a_broker_has_acknowledged_and_lost_comes_again() {
    let test = "what_a_broker_has_acknowledged_and_lost_comes_again";
    let Some(mut node) = one_node(test, always(Answer::status(200))).await else { return };
    let mut tail = Service::start_as(TAIL, &node.toml).await;
    write(&node.sql, 0..10, 3).await;
    wait_until_held(&node, 40).await;
    node.broker.kill().await;
    node.broker.back_up();
    node.broker.start_again().await;
    write(&node.sql, 10..25, 3).await;
    wait_until_held(&node, 100).await;
    node.broker.kill().await;
    node.broker.restore();
    node.broker.start_again().await;
    let mut worker = Service::start_as(DELIVER, &node.toml).await;
    write(&node.sql, 25..30, 3).await;
    wait_for_all(&node.sql, &node.receiver, 30, 3).await;
    // Once more, when the worker has read beyond what there is afterwards.
    node.broker.kill().await;
    node.broker.restore();
    node.broker.start_again().await;
    write(&node.sql, 30..50, 3).await;
    wait_for_all(&node.sql, &node.receiver, 50, 3).await;
    assert_eq!(repeated(&node.receiver), 0);
    worker.stop().await;
    tail.stop().await;
}

/// What one read brings may be more than may be on its way to the broker at once, over all partitions.
#[tokio::test]
async fn a_flood_reaches_the_streams_of_many_partitions() {
    const ROWS: u64 = 20_000;
    let test = "a_flood_reaches_the_streams_of_many_partitions";
    let partitions = NonZeroU16::new(64).unwrap();
    let Some(node) = one_node(test, always(Answer::status(200))).await else { return };
    let toml = node.toml.replace("partitions = 4", "partitions = 64");
    let mut tail = Service::start_as(TAIL, &toml).await;
    let insert =
        format!("INSERT INTO orders SELECT n, '' FROM generate_series(1, {ROWS}) AS s (n)");
    node.sql.batch_execute(&insert).await.unwrap();
    wait_until_all_hold(&node, partitions, ROWS).await;
    tail.stop().await;
}
