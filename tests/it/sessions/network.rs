//! A network that is late, dribbles, resets, or forgets connections, between walhook and its database.

#![expect(clippy::print_stdout, reason = "the figures are worth seeing")]

use std::time::Duration;
use std::time::Instant;

use walhook::testing::sandbox::cluster::ClusterOptions;

use super::TABLE;
use super::by_way_of;
use super::insert;
use super::quoted;
use super::taking;
use super::toml;
use crate::support::postgres::Sql;
use crate::support::postgres::start_cluster;
use crate::support::relay::Relay;
use crate::support::relay::Weather;
use crate::support::service::AMPLE;
use crate::support::service::Service;

#[tokio::test]
async fn changes_arrive_in_every_weather_or_as_soon_as_it_is_over() {
    let cluster = start_cluster(ClusterOptions::default()).await;
    Sql::connect(&cluster.url("postgres")).await.batch_execute(TABLE).await.unwrap();
    let relay = Relay::start(cluster.port()).await;
    let receiver = taking();
    let url = quoted(&by_way_of(&cluster, relay.port()));
    let mut service = Service::start(&toml(&url, "", &receiver)).await;
    insert(&cluster, 1).await;
    receiver.wait_for(1, AMPLE).await;

    // Connections that are there, and new ones.
    let mut rows = 1;
    for weather in [Weather::Late(Duration::from_millis(200)), Weather::Dribble] {
        relay.weather(weather);
        for _ in 0..2 {
            rows += 1;
            insert(&cluster, rows).await;
            receiver.wait_for(usize::try_from(rows).unwrap_or_default(), AMPLE).await;
            service.wait_for_status("/ready", 200).await;
            relay.cut();
        }
        relay.weather(Weather::Fair);
        service.wait_for_status("/ready", 200).await;
    }

    // In the middle of each message of a login, of the start of the stream, of a row.
    for limit in [1, 9, 60, 200, 500, 700, 1200, 2500, 5000] {
        relay.weather(Weather::ResetAfter(limit));
        relay.cut();
        rows += 1;
        insert(&cluster, rows).await;
        let before = relay.accepted();
        while relay.accepted() < before + 5 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        relay.weather(Weather::Fair);
        let healed = Instant::now();
        receiver.wait_for(usize::try_from(rows).unwrap_or_default(), AMPLE).await;
        service.wait_for_status("/ready", 200).await;
        println!("after resets at {limit} bytes: well after {:?}", healed.elapsed());
    }

    // All of them at once: the stream, the fence, the state, the questions.
    relay.swallow();
    rows += 1;
    insert(&cluster, rows).await;
    receiver.wait_for(usize::try_from(rows).unwrap_or_default(), AMPLE).await;
    service.wait_for_status("/ready", 200).await;
    service.stop().await;
}
