//! PostgreSQL goes away and comes back while callbacks come in.
#![expect(clippy::panic, reason = "a test may stop at once")]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;
use std::time::Instant;

use tokio::task::JoinSet;
use walhook::testing::sandbox::cluster::ClusterOptions;

use super::*;
use crate::support::postgres::Sql;
use crate::support::postgres::start_cluster;
use crate::support::wecom::KeptConnection;

const SENDERS: usize = 16;

/// What must have been answered before the next thing happens.
const ENOUGH: usize = 200;

/// What senders share.
#[derive(Default)]
struct Load {
    next: AtomicU32,
    is_over: AtomicBool,
    acknowledged: Mutex<BTreeSet<u32>>,
    refused: Mutex<BTreeSet<u32>>,
}

impl Load {
    /// Sends one callback after the other, each once.
    async fn send(&self, at: SocketAddr) {
        let mut connection = KeptConnection::new(at);
        while !self.is_over.load(SeqCst) {
            let id = self.next.fetch_add(1, SeqCst);
            let call = APPLICATION.callback(&text(id), &format!("k{id}"));
            match connection.post(&call).await.unwrap() {
                200 => self.acknowledged.lock().unwrap().insert(id),
                503 => self.refused.lock().unwrap().insert(id),
                other => panic!("{id} is answered with {other}"),
            };
        }
    }

    async fn until(&self, what: &str, enough: impl Fn(&Self) -> usize, more: usize) {
        let deadline = Instant::now() + AMPLE;
        let goal = enough(self) + more;
        while enough(self) < goal {
            assert!(Instant::now() < deadline, "{what}: {} of {goal}", enough(self));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test]
async fn what_is_acknowledged_under_load_is_kept_when_postgres_dies_and_stops() {
    let mut cluster =
        start_cluster(ClusterOptions { durable: true, ..ClusterOptions::default() }).await;
    let admin = Sql::connect(&cluster.url("postgres")).await;
    admin.batch_execute(SQL).await.unwrap();
    drop(admin);
    let business = Receiver::start(always(Answer::status(200)));
    let config = toml(&cluster.url("postgres"), "inbound", &business.url(), &business.url());
    let mut service = Service::start(&config).await;
    let at = inbound(&mut service.program).await;
    let load = Arc::new(Load::default());
    let mut senders = JoinSet::new();
    for _ in 0..SENDERS {
        let load = Arc::clone(&load);
        senders.spawn(async move { load.send(at).await });
    }
    let taken = |load: &Load| load.acknowledged.lock().unwrap().len();
    let refused = |load: &Load| load.refused.lock().unwrap().len();
    load.until("taken at first", taken, ENOUGH).await;
    cluster.kill();
    load.until("refused while it is dead", refused, SENDERS).await;
    cluster.start_again().unwrap();
    load.until("taken again", taken, ENOUGH).await;
    cluster.stop().unwrap();
    load.until("refused while it is stopped", refused, SENDERS).await;
    cluster.start_again().unwrap();
    load.until("taken at last", taken, ENOUGH).await;
    load.is_over.store(true, SeqCst);
    senders.join_all().await;

    // Each that was told to come again comes again: as a repeat of a row that was there after all, or anew.
    let refused: Vec<u32> = load.refused.lock().unwrap().iter().copied().collect();
    for id in &refused {
        let deadline = Instant::now() + AMPLE;
        while post(at, &APPLICATION.callback(&text(*id), &format!("again-{id}"))).await.unwrap()
            != 200
        {
            assert!(Instant::now() < deadline, "{}", service.program.output().join("\n"));
        }
    }
    let sql = Sql::connect(&cluster.url("postgres")).await;
    let rows = sql.query("SELECT message_id::int, count(*) FROM wecom_callbacks GROUP BY 1", &[]);
    let rows: Vec<(i32, i64)> =
        rows.await.unwrap().iter().map(|row| (row.get(0), row.get(1))).collect();
    assert!(rows.iter().all(|(_, count)| *count == 1));
    let kept: BTreeSet<u32> = rows.iter().map(|(id, _)| u32::try_from(*id).unwrap()).collect();
    let acknowledged = load.acknowledged.lock().unwrap();
    let lost: Vec<_> = acknowledged.iter().filter(|id| !kept.contains(id)).collect();
    assert!(lost.is_empty(), "{lost:?} were acknowledged and are not there");
    assert_eq!(kept.len(), usize::try_from(load.next.load(SeqCst)).unwrap());
    assert!(service.program.output().iter().any(|line| line.contains("callbacks are kept again")));
}
