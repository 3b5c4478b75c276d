//! At least 200 kills: of walhook at named points and at random, of PostgreSQL in every way.
//!
//! The real program runs against a cluster of its own; what holds in the end is said by
//! [`CrashScenario::settle`]. `WALHOOK_TEST_SEED` repeats a run as far as chance is concerned.
#![expect(clippy::panic, reason = "a test may stop at once, and then shows what the program said")]
#![expect(clippy::print_stdout, reason = "the figures are worth seeing")]

mod crowds;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;
use std::time::Instant;

use tokio::task::spawn_blocking;
use tokio::time::error::Elapsed;
use tokio::time::timeout;
use walhook::testing::failpoint::POINTS;

use crate::support::crash_scenario::AMPLE;
use crate::support::crash_scenario::CrashScenario;
use crate::support::postgres::Database;
use crate::support::program::Program;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::always;
use crate::support::scrape::Scraper;
use crate::support::service::Service;
use crate::support::service::configuration;
use crate::support::service::name_of;

/// How often each of the points in [`EARLY`] kills; those in [`LATE`] kill more often.
const ROUNDS: u32 = 5;

/// Points that come before anything is flushed.
const EARLY: [&str; 8] = [
    "begin_seen",
    "in_transaction",
    "rendering",
    "commit_seen",
    "before_post",
    "post_sent",
    "answered",
    "before_commit",
];

/// Points at or after a flush.
const LATE: [&str; 4] = ["flushed", "refilled", "commit_sent", "draining"];

/// How often each point has to be reached, and how often that is tried beyond the rounds: whether
/// there is something to refill or to drain is up to chance and to the machine.
const REACHED_MIN: u32 = 2;
const MORE_TRIES: u32 = 20;

/// Kills at any moment.
const AT_RANDOM: u32 = 100;

/// Ends of PostgreSQL under one process of walhook.
const SERVER_ENDS: u32 = 24;

/// A process that runs and has not reached its point by then is killed all the same. There is always something
/// to write and to flush, but not always something to refill: that is waited for as long only where it has to
/// come.
const REACH: Duration = Duration::from_secs(20);
const REACH_REFILL: Duration = Duration::from_secs(3);

/// So many processes in a row see the third receiver dead, then so many see it alive.
const PHASE: u32 = 6;

pub(crate) fn seed() -> u64 {
    std::env::var("WALHOOK_TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// An early point and a late one, in turns.
fn points() -> impl Iterator<Item = &'static str> {
    let early = EARLY.into_iter().zip(LATE.into_iter().cycle());
    early.flat_map(|(early, late)| [early, late])
}

#[tokio::test]
async fn kills_at_every_named_point_lose_nothing_and_break_no_order() {
    let started = Instant::now();
    let mut scenario = CrashScenario::start(seed()).await;
    let mut random = fastrand::Rng::with_seed(seed());
    let mut reached: BTreeMap<&str, u32> = BTreeMap::new();
    for round in 0..ROUNDS {
        for point in points() {
            let most = match point {
                "draining" | "refilled" => 2,
                "before_commit" | "commit_sent" | "flushed" => 4,
                "begin_seen" | "commit_seen" => 20,
                _ => 60,
            };
            let first = if matches!(point, "flushed" | "commit_sent") { 2 } else { 1 };
            let times = if round == 0 { first } else { random.u32(first..=most) };
            let limit = if point == "refilled" { REACH_REFILL } else { REACH };
            let is_reached = kill_at(&mut scenario, &mut random, (point, times), limit).await;
            *reached.entry(point).or_default() += u32::from(is_reached);
        }
    }
    for (&point, times) in &mut reached {
        for _ in 0..MORE_TRIES {
            if *times >= REACHED_MIN {
                break;
            }
            *times += u32::from(kill_at(&mut scenario, &mut random, (point, 1), REACH).await);
        }
    }
    println!("{} kills took {:?}; reached {reached:?}", scenario.kills, started.elapsed());
    assert!(reached.values().all(|&times| times >= REACHED_MIN), "{reached:?}");
    let elsewhere = ["replaying", "backfilling"]; // need dead letters, and a backfill
    let known = reached.keys().copied().chain(elsewhere);
    assert_eq!(known.collect::<BTreeSet<_>>(), POINTS.iter().copied().collect());
    scenario.settle(None).await;
}

/// Lets a process die when it reaches this point for the `times`-th time, or kills it when it does not.
/// Says whether it was reached.
async fn kill_at(
    scenario: &mut CrashScenario,
    random: &mut fastrand::Rng,
    (point, times): (&str, u32),
    limit: Duration,
) -> bool {
    // What is refilled was parked: the third receiver was dead, and lives again.
    scenario.let_dying_live(point == "refilled" || (scenario.life / PHASE).is_multiple_of(2));
    let armed = format!("{point}@{times}");
    let mut program = scenario.run(&[("WALHOOK_FAILPOINT", &armed)]);
    if point == "draining" {
        scenario.watch(&mut program).await;
        scenario.progress(random.usize(1..50), &program).await;
        program.terminate();
    }
    let is_reached = match died(scenario, &mut program, limit).await {
        Ok(None) => true,
        // There was little to drain.
        Ok(Some(0)) if point == "draining" => return false,
        Ok(Some(code)) => panic!("{armed}: it ended with {code}:\n{}", program.output().join("\n")),
        Err(_not_reached) => {
            program.kill();
            false
        }
    };
    scenario.killed(&mut program).await;
    is_reached
}

/// Waits for the death of a process that has a point to die at, for so long once it runs, and has it scraped
/// while it lives. Returns its exit code, if it has one.
async fn died(
    scenario: &CrashScenario,
    program: &mut Program,
    limit: Duration,
) -> Result<Option<i32>, Elapsed> {
    let is_running = |lines: &[String]| lines.iter().any(|line| line.contains("is running"));
    let early = timeout(AMPLE, async {
        while !program.has_ended() && !is_running(&program.output()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    early.await?;
    if !program.has_ended() {
        scenario.watch(program).await;
    }
    let death = timeout(limit, async {
        while !program.has_ended() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    death.await?;
    Ok(program.wait(AMPLE).await)
}

#[tokio::test]
async fn kills_at_any_moment_lose_nothing_and_break_no_order() {
    let started = Instant::now();
    let mut scenario = CrashScenario::start(seed() + 1).await;
    let mut random = fastrand::Rng::with_seed(seed() + 1);
    for round in 1..=AT_RANDOM {
        scenario.let_dying_live((round / PHASE).is_multiple_of(2));
        let mut program = scenario.run(&[]);
        if round.is_multiple_of(4) {
            // At any moment of the start.
            tokio::time::sleep(Duration::from_millis(random.u64(..150))).await;
        } else {
            scenario.watch(&mut program).await;
            scenario.progress(random.usize(1..150), &program).await;
        }
        program.kill();
        scenario.killed(&mut program).await;
    }
    println!("{} kills took {:?}", scenario.kills, started.elapsed());
    scenario.settle(None).await;
}

/// A letter that was being sent again when walhook died is sent once more.
#[tokio::test]
async fn kills_while_dead_letters_are_sent_again_lose_none_of_them() {
    const LETTERS: usize = 40;
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute("CREATE TABLE item (id int PRIMARY KEY)").await.unwrap();
    let receiver = Receiver::start(always(Answer::status(400)));
    let rest = format!(
        "[[event]]\ntype = \"item\"\ntable = \"public.item\"\n\n[dead_letters]\nresend_rate = 500\n\n\
         [webhook]\nurls = [\"{}\"]\n",
        receiver.url()
    );
    let toml = configuration(&database, &rest);
    let mut first = Service::start(&toml).await;
    let insert = format!("INSERT INTO item SELECT generate_series(1, {LETTERS})");
    sql.batch_execute(&insert).await.unwrap();
    let labels =
        format!("endpoint=\"{}\",entry=\"dead\",table=\"public.item\"", name_of(&receiver.url()));
    let dead = format!("walhook_balance{{{labels}}}");
    first.wait_for_metric(&dead, 40.0).await;
    first.stop().await;
    receiver.behave(always(Answer::status(200)));
    sql.batch_execute("UPDATE walhook.dead_letters SET state = 'requested'").await.unwrap();
    for times in [1, 3, 1, 5, 2] {
        let armed = format!("replaying@{times}");
        let mut program = Program::start(&["run"], &toml, &[("WALHOOK_FAILPOINT", &armed)]);
        assert_eq!(program.wait(AMPLE).await, None, "{}", program.output().join("\n"));
    }
    let mut last = Service::start(&toml).await;
    let scraper = Scraper::start();
    scraper.follow(Some(last.http));
    last.wait_for_metric(&dead, 0.0).await;
    let delivered = dead.replace("\"dead\"", "\"delivered\"");
    last.wait_for_metric(&delivered, 40.0).await;
    scraper.balanced();
    last.stop().await;
    let ids: BTreeSet<_> = receiver.requests()[LETTERS..]
        .iter()
        .map(|request| request.header("webhook-id").to_owned())
        .collect();
    assert_eq!(ids.len(), LETTERS);
    let open = "SELECT count(*) FROM walhook.dead_letters WHERE state <> 'delivered'";
    assert_eq!(sql.text(open).await, "0");
    let balance = "SELECT concat_ws(' ', captured, delivered, dead, pending) FROM walhook.balance";
    assert_eq!(sql.text(balance).await, "40 40 0 0");
}

/// One process of walhook outlives every end of the server. What it handed over once it does not
/// hand over again, although the slot moves back when PostgreSQL crashes.
#[tokio::test]
async fn postgres_may_be_killed_under_a_running_walhook() {
    let started = Instant::now();
    let mut scenario = CrashScenario::start(seed() + 2).await;
    let mut random = fastrand::Rng::with_seed(seed() + 2);
    let mut program = scenario.run(&[]);
    scenario.watch(&mut program).await;
    for round in 0..SERVER_ENDS {
        scenario.let_dying_live((round / 3).is_multiple_of(2));
        scenario.progress(random.usize(50..300), &program).await;
        let mut cluster = scenario.cluster.take().unwrap();
        let started_again = spawn_blocking(move || {
            match round % 3 {
                0 => cluster.kill(),
                1 => cluster.stop_immediately(),
                _ => cluster.stop().unwrap(),
            }
            cluster.start_again().unwrap();
            cluster
        });
        scenario.cluster = Some(started_again.await.unwrap());
    }
    scenario.progress(100, &program).await;
    println!("{SERVER_ENDS} ends of PostgreSQL took {:?}", started.elapsed());
    let resumed = program.output().iter().filter(|line| line.contains("resumed")).count();
    // Not one for each end: what is in memory may arrive before the connection is back.
    assert!(resumed > 1, "{}", program.output().join("\n"));
    scenario.settle(Some(program)).await;
}
