//! PostgreSQL goes away and comes back under a walhook that keeps running.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]
#![expect(clippy::indexing_slicing, reason = "a missing field fails the test as it should")]

use std::collections::HashMap;
use std::time::Duration;
use std::time::Instant;

use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::task::spawn_blocking;
use walhook::testing::sandbox::cluster::ClusterOptions;
use walhook::testing::sandbox::cluster::SandboxCluster;

use crate::support::postgres::Sql;
use crate::support::postgres::start_cluster;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::always;
use crate::support::service::AMPLE;
use crate::support::service::Service;

async fn set_up(options: ClusterOptions) -> (SandboxCluster, Receiver, Service) {
    let cluster = start_cluster(options).await;
    let sql = Sql::connect(&cluster.url("postgres")).await;
    sql.batch_execute("CREATE TABLE orders (id int PRIMARY KEY, note text)").await.unwrap();
    let receiver = Receiver::start(always(Answer::status(200)));
    let toml = format!(
        "[postgres]\nurl = \"{}\"\n[http]\nlisten = \"127.0.0.1:0\"\n\
         [[event]]\ntype = \"order\"\ntable = \"orders\"\n[webhook]\nurls = [\"{}\"]\n",
        cluster.url("postgres"),
        receiver.url()
    );
    let service = Service::start(&toml).await;
    (cluster, receiver, service)
}

/// How often each row came.
fn times(receiver: &Receiver) -> HashMap<i64, usize> {
    let mut times = HashMap::new();
    for request in receiver.requests() {
        *times.entry(request.json()["data"]["id"].as_i64().unwrap()).or_default() += 1;
    }
    times
}

async fn insert(cluster: &SandboxCluster, rows: std::ops::RangeInclusive<i64>) {
    let sql = Sql::connect(&cluster.url("postgres")).await;
    let (from, to) = (rows.start(), rows.end());
    let insert = format!("INSERT INTO orders SELECT n FROM generate_series({from}, {to}) n");
    sql.batch_execute(&insert).await.unwrap();
}

#[tokio::test]
async fn after_a_restart_of_postgresql_it_goes_on_where_it_was() {
    let (mut cluster, receiver, mut service) = set_up(ClusterOptions::default()).await;
    insert(&cluster, 1..=10).await;
    receiver.wait_for(10, AMPLE).await;
    let ways: [fn(&mut SandboxCluster); 2] =
        [|cluster| cluster.stop().unwrap(), SandboxCluster::stop_immediately];
    for (number, way) in ways.into_iter().enumerate() {
        cluster = spawn_blocking(move || {
            way(&mut cluster);
            cluster
        })
        .await
        .unwrap();
        let reply = service.wait_for_status("/ready", 503).await;
        assert_eq!(reply.content_type, "application/problem+json");
        let reason = reply.json()["detail"].as_str().unwrap().to_owned();
        assert!(reason.contains("PostgreSQL"), "{reason}");
        assert_eq!(service.get("/health").await.status, 200);
        assert_eq!(service.metric("walhook_replication_connected").await, 0.0);
        assert_eq!(service.get("/api/v1/status").await.json()["source"]["state"], "waiting");
        cluster = spawn_blocking(move || {
            cluster.start_again().unwrap();
            cluster
        })
        .await
        .unwrap();
        service.wait_for_status("/ready", 200).await;
        let from = i64::try_from(number).unwrap() * 10 + 11;
        insert(&cluster, from..=from + 9).await;
        receiver.wait_for(usize::try_from(from).unwrap() + 9, AMPLE).await;
        let reconnects = service.metric("walhook_reconnects_total").await;
        assert_eq!(reconnects, f64::from(u32::try_from(number).unwrap() + 1));
    }
    service.stop().await;
    let times = times(&receiver);
    assert_eq!(times.len(), 30);
    assert!(times.values().all(|times| *times == 1), "{times:?}");
}

#[tokio::test]
async fn a_kill_of_postgresql_under_load_loses_and_repeats_nothing() {
    let options = ClusterOptions { durable: true, ..ClusterOptions::default() };
    let (mut cluster, receiver, mut service) = set_up(options).await;
    let url = cluster.url("postgres");
    let (enough, mut stop_writing) = oneshot::channel();
    let mut writer = JoinSet::new();
    // Each row on its own; one that fails is tried again until it is committed.
    writer.spawn(async move {
        let mut sql = None;
        let mut row = 0;
        while stop_writing.try_recv().is_err() {
            let insert = format!("INSERT INTO orders VALUES ({}) ON CONFLICT DO NOTHING", row + 1);
            let session: Option<Sql> = match sql.take() {
                Some(session) => Some(session),
                None => Sql::try_connect(&url).await.ok(),
            };
            match session {
                Some(session) if session.batch_execute(&insert).await.is_ok() => {
                    row += 1;
                    sql = Some(session);
                }
                _ => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
        row
    });
    for kills in 1..=2 {
        receiver.wait_for(receiver.count() + 30, AMPLE).await;
        cluster = spawn_blocking(move || {
            cluster.kill();
            cluster.start_again().unwrap();
            cluster
        })
        .await
        .unwrap();
        let deadline = Instant::now() + AMPLE;
        while service.metric("walhook_reconnects_total").await < f64::from(kills) {
            assert!(Instant::now() < deadline);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    receiver.wait_for(receiver.count() + 30, AMPLE).await;
    enough.send(()).unwrap();
    let rows: usize = writer.join_next().await.unwrap().unwrap();
    receiver.wait_for(rows, AMPLE).await;
    service.stop().await;
    let times = times(&receiver);
    let repeated: Vec<_> = times.iter().filter(|(_, times)| **times > 1).collect();
    assert!(repeated.is_empty(), "{repeated:?}");
    assert_eq!(times.len(), rows);
    drop(cluster);
}

#[tokio::test]
async fn without_postgresql_a_shutdown_still_ends_with_0() {
    let (mut cluster, receiver, mut service) = set_up(ClusterOptions::default()).await;
    insert(&cluster, 1..=3).await;
    receiver.wait_for(3, AMPLE).await;
    let cluster = spawn_blocking(move || {
        cluster.stop().unwrap();
        cluster
    })
    .await
    .unwrap();
    service.wait_for_status("/ready", 503).await;
    let asked = Instant::now();
    service.stop().await;
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    drop(cluster);
}
