//! What it costs walhook that somebody looks at its page, at 5,000 deliveries a second: processor time of its
//! process over the same number of deliveries, with eight pages open and with none, in turns. What eight cost
//! stands out of what two rounds differ by on a machine that has other work, and is given for one page. A
//! measurement for docs/page.md:
//!
//! ```text
//! cargo build --release
//! WALHOOK_BINARY=target/release/walhook cargo test --test it -- --ignored --nocapture an_open_page_costs
//! ```
#![expect(clippy::indexing_slicing, reason = "a test may stop at once")]
#![expect(clippy::print_stdout, reason = "a measurement is printed")]
#![expect(clippy::cast_precision_loss, reason = "figures for people")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use walhook::testing::sandbox::cluster::ClusterOptions;

use super::is_loaded;
use crate::support::browser::browser;
use crate::support::postgres::Sql;
use crate::support::postgres::start_cluster;
use crate::support::service::Service;

const RATE: u64 = 5_000;
/// Rows of one statement.
const PART: u64 = 50;
const DELIVERIES: u64 = 50_000;
const ROUNDS: usize = 4;
const PAGES: usize = 8;
const IDLE: Duration = Duration::from_secs(20);
const SCREENS: [(&str, &str); 4] = [
    ("overview", "Overview"),
    ("endpoints", "Endpoints"),
    ("endpoints/crm", "crm"),
    ("events?live=1", "Events"),
];

/// Takes every request with 200, and counts; on a thread of its own.
fn receiver() -> (SocketAddr, Arc<AtomicU64>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let taken = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&taken);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(take(stream, Arc::clone(&counted)));
            }
        });
    });
    (address, taken)
}

async fn take(mut stream: TcpStream, counted: Arc<AtomicU64>) {
    let mut bytes = Vec::new();
    loop {
        let head = bytes.windows(4).position(|end| end == b"\r\n\r\n").map(|at| at + 4);
        let length = head.map(|head| {
            let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
            let (_, rest) = text.split_once("content-length: ").unwrap();
            head + rest.lines().next().unwrap().trim().parse::<usize>().unwrap()
        });
        if let Some(length) = length.filter(|length| bytes.len() >= *length) {
            bytes.drain(..length);
            counted.fetch_add(1, Ordering::Relaxed);
            if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.is_err() {
                return;
            }
            continue;
        }
        if !matches!(stream.read_buf(&mut bytes).await, Ok(1..)) {
            return;
        }
    }
}

/// Processor time that the threads of a process have used; none of walhook's ends while it runs.
fn cpu(process: u32) -> Duration {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let of = |thread: std::fs::DirEntry| -> Option<u64> {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse().ok()
    };
    Duration::from_nanos(threads.flatten().filter_map(of).sum())
}

/// Processor time over so many deliveries at the rate, and how long they took, in seconds.
async fn measured(sql: &Sql, process: u32, taken: &AtomicU64) -> (f64, f64) {
    let wanted = taken.load(Ordering::Relaxed) + DELIVERIES;
    let (begun, before) = (std::time::Instant::now(), cpu(process));
    let mut ticks = tokio::time::interval(Duration::from_micros(1_000_000 * PART / RATE));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let insert = format!(
        "INSERT INTO orders (note) SELECT repeat('x', 100) FROM generate_series(1, {PART})"
    );
    for _ in 0..DELIVERIES / PART {
        ticks.tick().await;
        sql.batch_execute(&insert).await.unwrap();
    }
    while taken.load(Ordering::Relaxed) < wanted {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let took = begun.elapsed().as_secs_f64();
    (cpu(process).saturating_sub(before).as_secs_f64(), took)
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
    f64::midpoint(low, high)
}

#[tokio::test]
#[ignore = "a measurement"]
async fn an_open_page_costs_little_at_five_thousand_deliveries_a_second() {
    let Some(browser) = browser("an_open_page_costs").await else { return };
    let cluster = start_cluster(ClusterOptions::default()).await;
    let sql = Sql::connect(&cluster.url("postgres")).await;
    let table =
        "CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text)";
    sql.batch_execute(table).await.unwrap();
    let (address, taken) = receiver();
    let others: String = (0..9)
        .map(|n| {
            format!(
                "[[endpoint]]\nname = \"other-{n}\"\nurl = \"http://{address}/\"\nwhen = \"id < 0\"\n"
            )
        })
        .collect();
    let toml = format!(
        "[postgres]\nurl = \"{}\"\nslot = \"cost\"\n[http]\nlisten = \"127.0.0.1:0\"\n\
         [[event]]\ntype = \"order\"\ntable = \"public.orders\"\n\
         [[endpoint]]\nname = \"crm\"\nurl = \"http://{address}/\"\n{others}",
        cluster.url("postgres")
    );
    let service = Service::start(&toml).await;
    let process = service.program.id();
    let mut pages = Vec::new();
    for _ in 0..PAGES {
        pages.push(browser.page("en").await);
    }
    // While nothing is delivered, what is asked for stands alone.
    for (screen, title) in [("", "")].iter().chain(&SCREENS) {
        for page in pages.iter().filter(|_| !title.is_empty()) {
            page.open(&format!("http://{}/#/{screen}", service.http)).await;
            is_loaded(page, title).await;
        }
        let before = cpu(process);
        tokio::time::sleep(IDLE).await;
        let used = cpu(process).saturating_sub(before).as_secs_f64() / IDLE.as_secs_f64();
        let which = if title.is_empty() { "none" } else { screen };
        println!("idle, {PAGES} times {which}: {:.1} ms of CPU a second", used * 1e3);
    }
    measured(&sql, process, &taken).await; // warms up
    let mut closed = Vec::new();
    let mut open = vec![Vec::new(); SCREENS.len()];
    for _ in 0..ROUNDS {
        for ((screen, title), rounds) in SCREENS.iter().zip(&mut open) {
            for page in &pages {
                page.open("about:blank").await;
            }
            let (used, took) = measured(&sql, process, &taken).await;
            println!("none open: {used:.2} s of CPU in {took:.1} s");
            closed.push(used);
            for page in &pages {
                page.open(&format!("http://{}/#/{screen}", service.http)).await;
                is_loaded(page, title).await;
            }
            let (used, took) = measured(&sql, process, &taken).await;
            println!("{PAGES} times {screen}: {used:.2} s of CPU in {took:.1} s");
            rounds.push((used, took));
        }
    }
    let without = median(&closed);
    let delivery = without / DELIVERIES as f64;
    println!("none open: {:.1} µs of CPU a delivery", delivery * 1e6);
    for ((screen, _), rounds) in SCREENS.iter().zip(&open) {
        // What is asked for as time goes by, whatever the rate is.
        let each = rounds.iter().map(|(used, took)| (used - without) / took / PAGES as f64);
        let cost = median(&each.collect::<Vec<f64>>());
        println!(
            "one {screen}: {:.1} ms of CPU a second, {:+.1} % of what {RATE} deliveries take",
            cost * 1e3,
            100.0 * cost / (delivery * RATE as f64)
        );
    }
}
