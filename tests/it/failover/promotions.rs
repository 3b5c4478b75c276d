//! The primary is killed under load and a standby takes its place: walhook goes on by itself, and everything that
//! the new primary holds is delivered, also what was parked when the old one died.
//!
//! `WALHOOK_PROMOTIONS=20 cargo test --test it -- promotions:: --nocapture` does it twenty times for each version.
#![expect(clippy::indexing_slicing, reason = "a missing field fails the test as it should")]

use std::collections::BTreeSet;
use std::env;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use tokio::task::JoinSet;
use tokio::task::spawn_blocking;
use walhook::testing::sandbox::installation::PostgresInstallation;

use super::slots::MAJORS;
use super::slots::ServerPair;
use super::slots::TABLES;
use crate::support::postgres::Sql;
use crate::support::postgres::versions_of;
use crate::support::postgres::wait_for_text;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::always;
use crate::support::service::AMPLE;
use crate::support::service::Service;

/// Rows of one transaction.
const ROWS: i64 = 5;

/// Transactions that the new primary gets at least.
const AFTER: i64 = 50;

/// What a promotion came to.
#[derive(Debug)]
struct PromotionCount {
    rows: usize,
    lost: usize,
    /// Delivered, and not on the new primary.
    phantoms: usize,
    repeats: usize,
    away: Duration,
    taken_up: bool,
}

/// Writes until `stop`, to whichever server takes it; returns how many transactions were begun.
async fn write(url: String, from: i64, stop: Arc<AtomicBool>) -> i64 {
    let mut next = from;
    while !stop.load(Ordering::Relaxed) {
        let Ok(sql) = Sql::try_connect(&url).await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        while !stop.load(Ordering::Relaxed) {
            let first = next * ROWS;
            next += 1;
            let insert =
                format!("INSERT INTO orders SELECT generate_series({first}, {})", first + ROWS - 1);
            if sql.batch_execute(&insert).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    next
}

fn ids(receiver: &Receiver) -> Vec<i64> {
    receiver
        .requests()
        .iter()
        .map(|request| request.json()["data"]["id"].as_i64().unwrap())
        .collect()
}

async fn promoted(installation: PostgresInstallation, load: Duration) -> PromotionCount {
    let pair = ServerPair::start(installation, TABLES, &[]).await;
    let healthy = Receiver::start(always(Answer::status(200)));
    // Its deliveries are parked in the state, and it is well again after the promotion.
    let ailing = Receiver::start(always(Answer::status(500)));
    let endpoint = |name: &str, receiver: &Receiver| {
        format!(
            "[[endpoint]]\nname = \"{name}\"\nurl = \"{}\"\n\
             breaker = {{ failures = 2, cooldown = \"100ms\", cap = \"500ms\" }}\n\n",
            receiver.url()
        )
    };
    let toml = pair.toml(&(endpoint("healthy", &healthy) + &endpoint("ailing", &ailing)));
    let mut service = Service::start(&toml).await;
    pair.has_copy().await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut writer = JoinSet::new();
    writer.spawn(write(pair.url(), 0, Arc::clone(&stop)));
    tokio::time::sleep(load).await;
    healthy.wait_for(1, AMPLE).await;
    let ServerPair { mut primary, standby } = pair;
    let new = Sql::connect(&standby.url("postgres")).await;
    spawn_blocking(move || primary.kill()).await.unwrap();
    let killed = Instant::now();
    new.batch_execute("SELECT pg_promote()").await.unwrap();
    let last_before: i64 =
        new.text("SELECT coalesce(max(id), 0) FROM orders").await.parse().unwrap();
    let deadline = Instant::now() + AMPLE;
    let wanted = last_before + AFTER * ROWS;
    while new.text("SELECT max(id) FROM orders").await.parse::<i64>().unwrap() < wanted {
        assert!(Instant::now() < deadline, "the writer does not go on: {}", standby.log_tail());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stop.store(true, Ordering::Relaxed);
    writer.join_next().await.unwrap().unwrap();
    ailing.behave(always(Answer::status(200)));
    let rows = new.query("SELECT id FROM orders", &[]).await.unwrap();
    let there: BTreeSet<i64> = rows.iter().map(|row| row.get(0)).collect();
    let missing = |receiver: &Receiver| {
        let came: BTreeSet<i64> = ids(receiver).into_iter().collect();
        there.difference(&came).count()
    };
    let mut away = None;
    let deadline = Instant::now() + AMPLE;
    while missing(&healthy) + missing(&ailing) > 0 && Instant::now() < deadline {
        assert!(!service.program.has_ended(), "{}", service.program.output().join("\n"));
        if away.is_none() && ids(&healthy).iter().any(|id| *id > last_before) {
            away = Some(killed.elapsed());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let lost = missing(&healthy) + missing(&ailing);
    let output = service.program.output().join("\n");
    assert_eq!(lost, 0, "of {} rows:\n{output}", there.len());
    let came = ids(&healthy);
    let distinct: BTreeSet<i64> = came.iter().copied().collect();
    let timeline = "SELECT timeline FROM walhook.progress WHERE slot = 'walhook'";
    let deadline = Instant::now() + AMPLE;
    while new.text(timeline).await != "2" {
        assert!(Instant::now() < deadline, "{output}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(!output.contains("gap accepted"), "{output}");
    service.stop().await;
    PromotionCount {
        rows: there.len(),
        lost,
        phantoms: distinct.difference(&there).count(),
        repeats: came.len() - distinct.len(),
        away: away.unwrap_or_else(|| killed.elapsed()),
        taken_up: output.contains("the state was set back"),
    }
}

#[tokio::test]
#[expect(clippy::print_stdout, reason = "the figures are worth seeing")]
async fn a_promotion_under_load_loses_nothing_and_needs_nobody() {
    let times = env::var("WALHOOK_PROMOTIONS").map_or(1, |times| times.parse().unwrap());
    let found = spawn_blocking(|| versions_of(&MAJORS, "promotions")).await.unwrap();
    for installation in found {
        for round in 0..times {
            let load = Duration::from_millis(fastrand::u64(300..2000));
            let count = promoted(installation.clone(), load).await;
            let PromotionCount { rows, lost, phantoms, repeats, away, taken_up } = &count;
            println!(
                "PostgreSQL {}, {round}: {rows} rows, {lost} lost, {phantoms} phantoms, {repeats} \
                 repeats, {away:?} until the first row of the new primary, state taken up anew: {taken_up}",
                installation.version()
            );
            assert_eq!((count.lost, count.phantoms), (0, 0));
        }
    }
}

/// The last words of the state are on the old primary alone: nothing that they say is settled may be forgotten, and
/// the running walhook takes the state up as the new primary has it.
#[tokio::test]
async fn a_state_without_its_last_writes_is_taken_up_anew() {
    let found = spawn_blocking(|| versions_of(&MAJORS, "promotions")).await.unwrap();
    for installation in found {
        let mut pair = ServerPair::start(installation, TABLES, &[]).await;
        let slow = Answer::status(200).after(Duration::from_secs(2));
        let receiver = Receiver::start(always(slow));
        let toml = pair.toml(&format!("[webhook]\nurls = [\"{}\"]\n", receiver.url()));
        let mut service = Service::start(&toml).await;
        pair.has_copy().await;
        let old = Sql::connect(&pair.primary.url("postgres")).await;
        old.batch_execute("INSERT INTO orders SELECT generate_series(1, 3)").await.unwrap();
        receiver.wait_for(3, AMPLE).await;
        // The standby gets nothing more, while the three are on their way.
        pair = spawn_blocking(move || {
            let lines =
                ["host all all 127.0.0.1/32 trust", "host replication all 127.0.0.1/32 reject"];
            pair.primary.set_hba(&lines).unwrap();
            pair.primary.reload().unwrap();
            pair
        })
        .await
        .unwrap();
        let cut = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots
                    WHERE slot_name = 'two'";
        old.batch_execute(cut).await.unwrap();
        let settled = "SELECT coalesce(sum(delivered), 0) FROM walhook.balance";
        wait_for_text(&old, settled, "3").await;
        let confirmed = "SELECT confirmed_flush_lsn < (SELECT confirmed_lsn FROM walhook.progress)
                           FROM pg_replication_slots WHERE slot_name = 'walhook'";
        assert_eq!(old.text(confirmed).await, "t", "no standby has what was settled");
        let ServerPair { mut primary, standby } = pair;
        drop(old);
        spawn_blocking(move || primary.kill()).await.unwrap();
        let new = Sql::connect(&standby.url("postgres")).await;
        receiver.behave(always(Answer::status(200)));
        new.batch_execute("SELECT pg_promote()").await.unwrap();
        assert_eq!(new.text(settled).await, "0", "the books are those of before");
        new.batch_execute("INSERT INTO orders SELECT generate_series(4, 6)").await.unwrap();
        let deadline = Instant::now() + AMPLE;
        while new.text(settled).await != "6" {
            let said = || service.program.output().join("\n");
            assert!(Instant::now() < deadline, "{}", said());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let all: BTreeSet<i64> = ids(&receiver).into_iter().collect();
        assert_eq!(all, (1..=6).collect());
        let output = service.program.output().join("\n");
        assert!(!output.contains("gap accepted") && !output.contains("are lost"), "{output}");
        assert!(!service.program.has_ended(), "{output}");
        service.stop().await;
    }
}
