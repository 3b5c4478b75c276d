//! What a flush costs PostgreSQL and walhook: to be looked at, and compared with another build's in turns.

use std::env;
use std::fs;
use std::time::Duration;

use walhook::testing::flow::lsn::Lsn;
use walhook::testing::store::flush::StateFlush;
use walhook::testing::store::partitions::ensure_ahead;
use walhook::testing::store::push_totals::PushTotals;

use super::NOW;
use super::State;
use super::event;
use super::flushes::everything;
use super::position;
use super::push_log::attempt;

const WARM_UP: u64 = 200;
const FLUSHES: u64 = 1_000;

/// Of a process or a thread, in nanoseconds.
fn cpu(folder: &str) -> u64 {
    let text = fs::read_to_string(format!("{folder}/schedstat")).unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

fn own_cpu() -> u64 {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    tasks.map(|task| cpu(task.unwrap().path().to_str().unwrap())).sum()
}

fn usual(commit: u64, rows: u32) -> StateFlush {
    let mut totals = PushTotals::default();
    (0..rows).for_each(|_| totals.succeeded(Duration::from_millis(5), NOW));
    let logged = |row: u32| attempt(event(commit, row, &row.to_string()), "crm");
    StateFlush {
        settled: Some(position(commit, 3)),
        confirmed: Some(Lsn::from_raw(commit)),
        settled_ahead: (0..3).map(|row| ("crm".into(), event(commit + 5, row, "a").id)).collect(),
        attempts: (0..rows).map(logged).collect(),
        books: everything().books,
        totals,
        ..StateFlush::default()
    }
}

/// `WALHOOK_ROWS`: attempts in each flush.
#[tokio::test]
#[ignore = "measures"]
#[expect(clippy::print_stdout, reason = "figures for a person")]
async fn what_a_flush_costs() {
    let rows: u32 = env::var("WALHOOK_ROWS").map_or(10, |rows| rows.parse().unwrap());
    let mut state = State::create().await;
    ensure_ahead(state.client(), NOW).await.unwrap();
    let pid = "SELECT pg_backend_pid()";
    let pid: i32 = state.client().query_typed_one(pid, &[]).await.unwrap().get(0);
    let server = format!("/proc/{pid}");
    let mut begun = (0, 0);
    for number in 1..=WARM_UP + FLUSHES {
        let flush = usual(number * 1_000, rows);
        if number == WARM_UP + 1 {
            begun = (cpu(&server), own_cpu());
        }
        state.commit(&flush).await;
    }
    let micros = |from: u64, to: u64| (to - from) / FLUSHES / 1_000;
    let (server, own) = (micros(begun.0, cpu(&server)), micros(begun.1, own_cpu()));
    println!("a flush of {rows} attempts: PostgreSQL {server} us, walhook (and the test) {own} us");
}
