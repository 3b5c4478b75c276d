//! An endpoint that is dead under load: the slot moves on, the others do not notice, and what it
//! missed comes in order when it is back.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test may stop at once")]
#![expect(clippy::print_stdout, reason = "the figures are worth seeing")]

use std::collections::HashMap;
use std::time::Duration;
use std::time::Instant;

use tokio::time::MissedTickBehavior;
use walhook::testing::sandbox::cluster::ClusterOptions;

use crate::support::postgres::Database;
use crate::support::postgres::Sql;
use crate::support::postgres::start_cluster;
use crate::support::program::Program;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::Request;
use crate::support::receiver::always;
use crate::support::service::AMPLE;
use crate::support::service::Service;
use crate::support::service::configuration;

const TABLES: &str = "
    CREATE TABLE orders (id int PRIMARY KEY, version int NOT NULL, text text NOT NULL DEFAULT '');
    CREATE TABLE noise (text text)";

/// Rows a second, and for how long.
const RATE: u32 = 2_000;
const SECONDS: u32 = 5;

/// Statements a second: each changes this share of the keys.
const TICKS: u32 = 50;
const KEYS: u32 = 200;
const PER_TICK: u32 = RATE / TICKS;

/// WAL beside it, in rows of a kilobyte a tick: 100 MB over the whole time.
const NOISE: u32 = 400;

const RETAINED_MAX: i64 = 64 * 1024 * 1024;

/// What the dead endpoint takes when it is back: requests a second, and at once.
const RATE_LIMIT: usize = 1_500;
const CONCURRENCY: usize = 8;

/// It thinks for a moment, so that requests overlap.
const THINKS: Duration = Duration::from_millis(4);

/// `limit` is for the dead one, as a key of its table.
fn two_endpoints(url: &str, healthy: &Receiver, dead: &Receiver, limit: &str) -> String {
    format!(
        "[postgres]\nurl = \"{url}\"\n\n[http]\nlisten = \"127.0.0.1:0\"\n\n\
         [log]\nfilter = \"walhook=info,walhook::ledger=warn\"\n\n\
         [[event]]\ntype = \"order\"\ntable = \"public.orders\"\n\n[webhook]\n\
         breaker = {{ failures = 5, cooldown = \"100ms\", cap = \"500ms\" }}\n\
         retry_interval = \"20ms\"\nmax_retries = 100\nretry_cap = \"100ms\"\n\n\
         [[endpoint]]\nname = \"healthy\"\nurl = \"{}\"\nevents = [\"order\"]\n\
         concurrency = {CONCURRENCY}\n\n\
         [[endpoint]]\nname = \"dead\"\nurl = \"{}\"\nevents = [\"order\"]\n\
         concurrency = {CONCURRENCY}\n{limit}\n",
        healthy.url(),
        dead.url()
    )
}

/// Changes `PER_TICK` rows each tick, in turns, and makes noise, but is never more than a quarter of a second ahead
/// of a receiver that is well: a machine that cannot keep up would hold WAL for that reason. Returns
/// the rows written, and the most WAL that the slot held.
async fn load(sql: &Sql, healthy: &Receiver) -> (usize, i64) {
    let keys = format!("INSERT INTO orders SELECT n, 0 FROM generate_series(1, {KEYS}) n");
    sql.batch_execute(&keys).await.unwrap();
    let (mut rows, mut most, mut next) = (KEYS as usize, 0, 0);
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / TICKS);
    for tick in 0..SECONDS * TICKS {
        ticks.tick().await;
        while healthy.count() + (RATE as usize) / 4 < rows {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let (from, to) = (next + 1, next + PER_TICK);
        next = to % KEYS;
        sql.batch_execute(&format!(
            "UPDATE orders SET version = version + 1 WHERE id BETWEEN {from} AND {to};
             INSERT INTO noise SELECT repeat('x', 1000) FROM generate_series(1, {NOISE})"
        ))
        .await
        .unwrap();
        rows += PER_TICK as usize;
        if tick % 10 == 0 {
            most = most.max(retained(sql).await);
        }
    }
    (rows, most)
}

/// WAL that the server keeps for the slot. The restart position follows the notes of running
/// transactions that checkpoints make.
async fn retained(sql: &Sql) -> i64 {
    sql.batch_execute("CHECKPOINT").await.unwrap();
    let query = "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint
                   FROM pg_replication_slots";
    sql.text(query).await.parse().unwrap()
}

/// Each key's versions arrived in order, from 0 on, once each.
fn in_order(requests: &[Request]) -> usize {
    let mut next: HashMap<i64, i64> = HashMap::new();
    for request in requests {
        let row = &request.json()["data"];
        let (id, version) = (row["id"].as_i64().unwrap(), row["version"].as_i64().unwrap());
        let next = next.entry(id).or_default();
        assert_eq!(version, *next, "key {id}");
        *next += 1;
    }
    requests.len()
}

/// The most requests that began within this time.
fn most_within(requests: &[Request], time: Duration) -> usize {
    let mut first = 0;
    let mut most = 0;
    for (index, request) in requests.iter().enumerate() {
        while request.arrived - requests[first].arrived >= time {
            first += 1;
        }
        most = most.max(index + 1 - first);
    }
    most
}

#[tokio::test]
async fn a_dead_endpoint_under_load_holds_no_wal_and_gets_all_of_it_in_order_later() {
    let cluster = start_cluster(ClusterOptions::default()).await;
    let url = cluster.url("postgres");
    let sql = Sql::connect(&url).await;
    sql.batch_execute(TABLES).await.unwrap();
    let healthy = Receiver::start(always(Answer::status(200)));
    let dead = Receiver::start(always(Answer::Close));
    let limit = format!("rate_limit = {RATE_LIMIT}");
    let toml = two_endpoints(&url, &healthy, &dead, &limit);
    let mut program = Program::start(&["run"], &toml, &[]);
    program.wait_for_line("walhook is running", AMPLE).await;

    let started = Instant::now();
    let (rows, retained_most) = load(&sql, &healthy).await;
    println!("{rows} rows in {:?}, at most {retained_most} bytes of WAL held", started.elapsed());
    assert!(retained_most < RETAINED_MAX, "{retained_most} bytes of WAL are held");
    let written = sql.text("SELECT pg_size_pretty(pg_current_wal_lsn() - '0/0')").await;
    let arrived = healthy.wait_for(rows, AMPLE).await;
    assert_eq!(in_order(&arrived), rows);
    println!("healthy had all after {:?}; {written} of WAL in all", started.elapsed());

    let refused = dead.count();
    let back = Instant::now();
    dead.behave(always(Answer::status(200).after(THINKS)));
    let arrived = dead.wait_for(refused + rows, AMPLE).await;
    println!("dead had all {:?} after it was back", back.elapsed());
    let accepted = &arrived[refused..];
    assert_eq!(in_order(accepted), rows);
    // From one at a time.
    assert!(accepted[1].arrived - accepted[0].arrived >= THINKS, "it began with more than one");
    // Neither each failure nor each try is said, which would be a line every half second.
    let said = |what: &str| program.output().iter().filter(|line| line.contains(what)).count();
    assert_eq!((said("endpoint is out of order"), said("endpoint works again")), (1, 1));
    let at_once = most_within(accepted, THINKS);
    let a_second = most_within(accepted, Duration::from_secs(1));
    println!("at most {at_once} at once, and {a_second} within a second");
    assert!((2..=CONCURRENCY).contains(&at_once), "{at_once}");
    // Timers are not exact; the receiver's clock is not the sender's.
    assert!(a_second <= RATE_LIMIT + RATE_LIMIT / 10, "{a_second} within a second");
    program.terminate();
    assert_eq!(program.wait(AMPLE).await, Some(0), "{}", program.output().join("\n"));
}

/// Large events for endpoints that hang: what they hold of the memory is not what the healthy one
/// needs.
#[tokio::test]
async fn many_endpoints_that_hang_leave_memory_to_the_healthy_one() {
    const HANGING: usize = 6;
    const ROWS: usize = 1_500;
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(TABLES).await.unwrap();
    let healthy = Receiver::start_forgetful(always(Answer::status(200)));
    let hanging: Vec<_> =
        (0..HANGING).map(|_| Receiver::start_forgetful(always(Answer::Hang))).collect();
    let endpoint = |(number, receiver): (usize, &Receiver)| {
        format!(
            "\n[[endpoint]]\nname = \"e{number}\"\nurl = \"{}\"\nevents = [\"order\"]\n\
             timeout = \"60s\"\n",
            receiver.url()
        )
    };
    let endpoints: String =
        [&healthy].into_iter().chain(&hanging).enumerate().map(endpoint).collect();
    let rest = format!(
        "[memory]\nqueued = \"4MiB\"\n\n[[event]]\ntype = \"order\"\ntable = \"public.orders\"\n{endpoints}"
    );
    let service = Service::start(&configuration(&database, &rest)).await;
    // 12 MB in all, three times the memory.
    let insert = format!(
        "INSERT INTO orders SELECT n, 0, repeat('x', 8000) FROM generate_series(1, {ROWS}) n"
    );
    sql.batch_execute(&insert).await.unwrap();
    healthy.wait_for(ROWS, AMPLE).await;
    for number in 1..=HANGING {
        let delivered =
            format!("walhook_deliveries_total{{endpoint=\"e{number}\",outcome=\"delivered\"}}");
        assert_eq!(service.metric(&delivered).await, 0.0);
    }
}

/// How long it takes from a statement's start to the healthy receiver, with the other one alive and
/// dead in turns. For `docs/reliability.md`; run it with `--release` on a machine with nothing else to do.
#[tokio::test]
#[ignore = "a measurement"]
async fn what_the_healthy_endpoint_notices_of_a_dead_one() {
    const ROUNDS: usize = 6;
    let cluster = start_cluster(ClusterOptions::default()).await;
    let url = cluster.url("postgres");
    let sql = Sql::connect(&url).await;
    sql.batch_execute(TABLES).await.unwrap();
    let (healthy, other) = (
        Receiver::start(always(Answer::status(200))),
        Receiver::start(always(Answer::status(200))),
    );
    let toml = two_endpoints(&url, &healthy, &other, "");
    let mut program = Program::start(&["run"], &toml, &[]);
    program.wait_for_line("walhook is running", AMPLE).await;
    let (started, clock) = (Instant::now(), walhook::testing::clock::host_now());
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / (RATE / 10));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut rows = 0;
    for round in 0..2 * ROUNDS {
        let is_dead = round % 2 == 1;
        other.behave(always(if is_dead { Answer::Close } else { Answer::status(200) }));
        let from = rows;
        let end = Instant::now() + Duration::from_secs(SECONDS.into());
        while Instant::now() < end {
            ticks.tick().await;
            let insert = format!(
                "INSERT INTO orders SELECT n, 0, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
                   FROM generate_series({}, {}) n",
                rows + 1,
                rows + 10
            );
            sql.batch_execute(&insert).await.unwrap();
            rows += 10;
        }
        let arrived = healthy.wait_for(rows, AMPLE).await;
        let mut micros: Vec<i64> = arrived[from..]
            .iter()
            .map(|request| {
                let since = i64::try_from((request.arrived - started).as_micros()).unwrap();
                let written: i64 =
                    request.json()["data"]["text"].as_str().unwrap().parse().unwrap();
                clock.micros() + since - written
            })
            .collect();
        micros.sort_unstable();
        let at = |share: usize| micros[micros.len() * share / 100];
        println!(
            "{}: {} rows, p50 {} µs, p99 {} µs",
            if is_dead { "dead " } else { "alive" },
            micros.len(),
            at(50),
            at(99)
        );
        if is_dead {
            other.behave(always(Answer::status(200)));
            tokio::time::sleep(Duration::from_secs(10)).await; // it catches up
        }
    }
    program.terminate();
    assert_eq!(program.wait(AMPLE).await, Some(0), "{}", program.output().join("\n"));
}
