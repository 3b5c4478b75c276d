//! Load: clients that insert rows, at a pace or as fast as they can.

use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use tokio::task::JoinSet;
use tokio_postgres::NoTls;

use crate::stage::Stage;

/// Rows per second of one paced client; faster loads have several.
const PACE_MAX: u64 = 1000;

/// Clients that insert flat out, each waiting for its own last statement.
const FLAT_OUT_CLIENTS: usize = 4;

const INSERT: &str = "INSERT INTO orders (customer_id, status, total, note, sent_at) \
                      VALUES ($2, 'paid', 12.34, 'gift wrap, please ring twice', $1)";

/// The customer of all rows, where it does not matter.
const ONE_CUSTOMER: i64 = 7;

/// What the inserting side has seen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inserted {
    pub(crate) rows: u64,
    /// Mean time of a statement, as its client sees it.
    pub(crate) latency: Duration,
}

/// Starts to insert `rate` rows per second, evenly, for `window`, all of one customer.
pub(crate) fn paced(
    stage: &Stage,
    rate: u64,
    window: Duration,
) -> JoinHandle<anyhow::Result<Inserted>> {
    paced_for(stage, rate, window, None)
}

/// The same for so many customers, one after the other. Each client sleeps until its next
/// row is due and never catches up by more than what a slow statement has cost.
pub(crate) fn paced_for(
    stage: &Stage,
    rate: u64,
    window: Duration,
    customers: Option<u64>,
) -> JoinHandle<anyhow::Result<Inserted>> {
    let clients = rate.div_ceil(PACE_MAX);
    let interval = Duration::from_secs_f64(clients as f64 / rate as f64);
    let (url, receiver) = (stage.url(), stage.receiver.clone());
    let start = move |client: u64| {
        let (url, receiver) = (url.clone(), receiver.clone());
        thread::spawn(move || -> anyhow::Result<(u64, Duration)> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let (sql, connection) = runtime.block_on(tokio_postgres::connect(&url, NoTls))?;
            drop(runtime.spawn(connection));
            let insert = runtime.block_on(sql.prepare(INSERT))?;
            let begun = Instant::now();
            let mut due = begun + interval.mul_f64(client as f64 / clients as f64);
            let (mut rows, mut spent) = (0u64, Duration::ZERO);
            let customer = |nth: u64| match customers {
                Some(customers) => ((nth * clients + client) % customers).cast_signed(),
                None => ONE_CUSTOMER,
            };
            while due < begun + window {
                thread::sleep(due.saturating_duration_since(Instant::now()));
                let statement = Instant::now();
                runtime.block_on(sql.execute(&insert, &[&receiver.clock(), &customer(rows)]))?;
                spent += statement.elapsed();
                rows += 1;
                due += interval;
            }
            Ok((rows, spent))
        })
    };
    thread::spawn(move || {
        let clients: Vec<_> = (0..clients).map(start).collect();
        let (mut rows, mut spent) = (0, Duration::ZERO);
        for client in clients {
            let (more, took) =
                client.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
            rows += more;
            spent += took;
        }
        Ok(Inserted { rows, latency: spent.div_f64(rows.max(1) as f64) })
    })
}

/// Inserts as fast as a few clients on one thread can, for `window`.
pub(crate) fn flat_out(stage: &Stage, window: Duration) -> anyhow::Result<Inserted> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut clients = JoinSet::new();
        let begun = Instant::now();
        for _ in 0..FLAT_OUT_CLIENTS {
            let (sql, connection) = tokio_postgres::connect(&stage.url(), NoTls).await?;
            let receiver = stage.receiver.clone();
            clients.spawn(async move {
                let inserts = async {
                    let insert = sql.prepare(INSERT).await?;
                    let mut rows = 0u64;
                    while begun.elapsed() < window {
                        sql.execute(&insert, &[&receiver.clock(), &ONE_CUSTOMER]).await?;
                        rows += 1;
                    }
                    anyhow::Ok(rows)
                };
                // Polled together: the client needs no task of its own for its connection.
                tokio::select! {
                    rows = inserts => rows,
                    ended = connection => {
                        ended?;
                        anyhow::bail!("PostgreSQL has closed a connection")
                    }
                }
            });
        }
        let mut rows = 0;
        while let Some(ended) = clients.join_next().await {
            rows += ended??;
        }
        let latency = begun.elapsed().div_f64(rows.max(1) as f64 / FLAT_OUT_CLIENTS as f64);
        Ok(Inserted { rows, latency })
    })
}
