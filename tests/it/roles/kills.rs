//! At least 200 faults of members of a source, of their broker, of PostgreSQL and of the network between them, while
//! rows are written. What holds in the end is said by [`SharedSource::settle`].
//!
//! `WALHOOK_TEST_SEED` repeats a run as far as chance is concerned.
#![expect(clippy::print_stdout, reason = "the figures are worth seeing")]

use std::collections::BTreeMap;
use std::time::Duration;
use std::time::Instant;

use crate::support::shared_source::LEASE;
use crate::support::shared_source::SharedSource;
use crate::support::shared_source::TAILS;
use crate::support::shared_source::WORKERS;

/// Faults of each test.
const FAULTS: u32 = 52;

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Fault {
    KillWorker,
    StopWorker,
    FreezeWorker,
    KillTail,
    FreezeTail,
    KillNode,
    KillMajority,
    FreezeNode,
    FreezeMajority,
    KillPostgres,
    FreezePostgres,
    CutPostgres,
    SwallowPostgres,
    CutNode,
}

/// How often each is drawn: seldom what everybody has to wait for.
const DRAWN: [(Fault, u32); 14] = [
    (Fault::KillWorker, 6),
    (Fault::StopWorker, 2),
    (Fault::FreezeWorker, 5),
    (Fault::KillTail, 5),
    (Fault::FreezeTail, 4),
    (Fault::KillNode, 3),
    (Fault::KillMajority, 1),
    (Fault::FreezeNode, 2),
    (Fault::FreezeMajority, 1),
    (Fault::KillPostgres, 2),
    (Fault::FreezePostgres, 2),
    (Fault::CutPostgres, 4),
    (Fault::SwallowPostgres, 2),
    (Fault::CutNode, 3),
];

fn draw(random: &mut fastrand::Rng) -> Fault {
    let all = DRAWN.iter().flat_map(|(fault, times)| (0..*times).map(|_| *fault));
    let all: Vec<Fault> = all.collect();
    all[random.usize(..all.len())]
}

/// Shorter than a lease, or longer.
fn time(random: &mut fastrand::Rng) -> Duration {
    LEASE.mul_f64(random.f64() * 1.5)
}

/// Two of the three nodes: what is left is no majority.
fn majority(random: &mut fastrand::Rng) -> [usize; 2] {
    let left = random.usize(..3);
    [(left + 1) % 3, (left + 2) % 3]
}

async fn break_something(source: &mut SharedSource, fault: Fault, random: &mut fastrand::Rng) {
    let worker = random.usize(WORKERS);
    // The one that stands by in some cases.
    let tail = if random.u32(..4) > 0 { source.running_tail() } else { random.usize(TAILS) };
    let member = random.usize(TAILS.start..WORKERS.end);
    let node = random.usize(..3);
    match fault {
        Fault::KillWorker => source.kill(worker).await,
        Fault::StopWorker => source.stop(worker).await,
        Fault::FreezeWorker => source.freeze(worker, time(random)).await,
        Fault::KillTail => source.kill(tail).await,
        Fault::FreezeTail => source.freeze(tail, time(random)).await,
        Fault::KillNode => source.kill_nodes(&[node], time(random)).await,
        Fault::KillMajority => source.kill_nodes(&majority(random), time(random)).await,
        Fault::FreezeNode => source.freeze_nodes(&[node], time(random)).await,
        Fault::FreezeMajority => source.freeze_nodes(&majority(random), time(random)).await,
        Fault::KillPostgres => source.end_postgres(random.bool(), time(random) / 4).await,
        Fault::FreezePostgres => source.freeze_postgres(time(random)).await,
        Fault::CutPostgres => source.cut_postgres(member),
        Fault::SwallowPostgres => source.swallow_postgres(member),
        Fault::CutNode => source.cut_node(node),
    }
}

/// Breaks one thing after the other; `patience` is that of `[relay]`.
async fn survive(test: &str, number: u64, patience: &'static str) {
    let seed = crate::kills::seed() + number;
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let Some(mut source) = SharedSource::start(test, seed, patience).await else { return };
    let started = Instant::now();
    let mut faults: BTreeMap<Fault, u32> = BTreeMap::new();
    for number in 1..=FAULTS {
        let fault = draw(&mut random);
        println!("{:5.1} s: {number} {fault:?}", started.elapsed().as_secs_f32());
        break_something(&mut source, fault, &mut random).await;
        *faults.entry(fault).or_default() += 1;
        // Mostly the next one comes before all partitions are well again.
        let endpoint = random.usize(..source.endpoints());
        let endpoint = (random.u32(..4) == 0).then_some(endpoint);
        source.progress(random.usize(1..60), endpoint).await;
    }
    println!("{FAULTS} faults took {:?}: {faults:?}", started.elapsed());
    let own_ends = source.own_ends;
    let (versions, repeats) = source.settle().await;
    println!(
        "{versions} versions, {repeats} repeats, {own_ends} ends by themselves, {:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn faults_of_members_and_broker_lose_nothing_and_break_no_order() {
    let test = "faults_of_members_and_broker_lose_nothing_and_break_no_order";
    survive(test, 10, "1h").await;
}

#[tokio::test]
async fn other_faults_of_members_and_broker_lose_nothing_and_break_no_order() {
    let test = "other_faults_of_members_and_broker_lose_nothing_and_break_no_order";
    survive(test, 11, "1h").await;
}

/// What nobody delivers for two seconds is parked.
#[tokio::test]
async fn faults_while_events_are_parked_lose_nothing_and_break_no_order() {
    let test = "faults_while_events_are_parked_lose_nothing_and_break_no_order";
    survive(test, 12, "1s").await;
}

#[tokio::test]
async fn other_faults_while_events_are_parked_lose_nothing_and_break_no_order() {
    let test = "other_faults_while_events_are_parked_lose_nothing_and_break_no_order";
    survive(test, 13, "1s").await;
}
