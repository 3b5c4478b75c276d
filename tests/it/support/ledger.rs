//! The books of both ends: what was committed, and what arrived.
//!
//! ```text
//! Writers ─ transactions ─▶ PostgreSQL ─▶ walhook ─▶ Receiver ─▶ Books
//!    └──── Ledger ───────────────────▶  audit  ◀───────────────────┘
//! ```
//!
//! Each row of table `item` counts its own versions: an insert makes version 1, an update the next
//! one. So the versions of a key are its commit order, and a gap or a step back shows at once.
//! `token` says which transaction wrote a version: it differs between one that was rolled back and
//! the one that took the same version later.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]

pub(crate) mod books;

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::postgres::Sql;

/// What the writers need. `journal` is not published: it tells what became of a commit whose answer was lost.
pub(crate) const TABLES: &str = "
    CREATE TABLE item (id bigint PRIMARY KEY, version bigint NOT NULL, token text NOT NULL);
    CREATE TABLE journal (token text PRIMARY KEY)";

/// The event rule for `item`.
pub(crate) const EVENT: &str = "
    [[event]]
    type = \"item.changed\"
    table = \"public.item\"
    on = [\"insert\", \"update\"]
";

/// Keys that every writer updates, so that they meet.
const HOT_KEYS: i64 = 12;

/// A transaction writes up to this many rows.
const ROWS_MAX: usize = 5;

/// One of this many transactions is rolled back.
const ROLLED_BACK: u64 = 10;

/// How long a writer waits before it connects to a server that is away once more.
const AWAY: Duration = Duration::from_millis(20);

/// One version of one row.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct Version {
    pub(crate) key: i64,
    pub(crate) version: i64,
}

/// What the writers committed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    /// Which transaction wrote each version.
    pub(crate) committed: BTreeMap<Version, String>,
}

/// Sessions that write at once, each a transaction every `pace`.
pub(crate) struct Writers {
    shared: Arc<Shared>,
    sessions: JoinSet<()>,
}

struct Shared {
    url: String,
    pace: Duration,
    stop: CancellationToken,
    next_key: AtomicI64,
    transactions: AtomicU64,
    book: Mutex<Book>,
}

#[derive(Default)]
struct Book {
    /// PostgreSQL said that these are committed.
    acknowledged: BTreeMap<Version, String>,
    /// The connection broke before PostgreSQL could say.
    in_doubt: HashMap<String, Vec<Version>>,
}

impl Writers {
    /// Starts writing. The tables have to be there, and whoever is to know of every row.
    pub(crate) fn start(url: &str, sessions: usize, pace: Duration) -> Self {
        let shared = Arc::new(Shared {
            url: url.to_owned(),
            pace,
            stop: CancellationToken::new(),
            next_key: AtomicI64::new(HOT_KEYS + 1),
            transactions: AtomicU64::new(0),
            book: Mutex::default(),
        });
        let mut running = JoinSet::new();
        for number in 0..sessions {
            running.spawn(write(number, Arc::clone(&shared)));
        }
        Self { shared, sessions: running }
    }

    /// Ends the writing and settles what is in doubt by looking at the tables.
    ///
    /// Panics if PostgreSQL has lost what it said was committed: then the test proves nothing.
    pub(crate) async fn finish(mut self) -> Ledger {
        self.shared.stop.cancel();
        while let Some(ended) = self.sessions.join_next().await {
            ended.unwrap();
        }
        let sql = Sql::connect(&self.shared.url).await;
        let book = std::mem::take(&mut *lock(&self.shared.book));
        let mut committed = book.acknowledged;
        for (token, versions) in book.in_doubt {
            let query = "SELECT FROM journal WHERE token = $1";
            if sql.query_opt(query, &[&token]).await.unwrap().is_some() {
                committed.extend(versions.into_iter().map(|at| (at, token.clone())));
            }
        }
        let count = sql.text("SELECT coalesce(sum(version), 0) FROM item").await;
        assert_eq!(count, committed.len().to_string(), "PostgreSQL lost a commit");
        Ledger { committed }
    }
}

async fn write(number: usize, shared: Arc<Shared>) {
    let mut random = fastrand::Rng::with_seed(u64::try_from(number).unwrap());
    let mut ticks = tokio::time::interval(shared.pace);
    let mut session = None;
    while !shared.stop.is_cancelled() {
        ticks.tick().await;
        let sql = match session.take() {
            Some(sql) => sql,
            None => match Sql::try_connect(&shared.url).await {
                Ok(sql) => sql,
                Err(_away) => {
                    tokio::time::sleep(AWAY).await;
                    continue;
                }
            },
        };
        if transaction(&sql, number, &shared, &mut random).await.is_ok() {
            session = Some(sql);
        }
    }
}

/// Writes a few rows and commits, or rolls back.
async fn transaction(
    sql: &Sql,
    number: usize,
    shared: &Shared,
    random: &mut fastrand::Rng,
) -> Result<(), tokio_postgres::Error> {
    let transaction = shared.transactions.fetch_add(1, Ordering::Relaxed);
    let token = format!("{number}-{transaction}");
    // In one order for all, so that writers wait for each other but never for ever.
    let mut keys: Vec<i64> =
        (0..random.usize(1..=ROWS_MAX)).map(|_| random.i64(1..=HOT_KEYS + 4)).collect();
    keys.sort_unstable();
    for key in &mut keys {
        if *key > HOT_KEYS {
            *key = shared.next_key.fetch_add(1, Ordering::Relaxed);
        }
    }
    sql.batch_execute(&format!("BEGIN; INSERT INTO journal VALUES ('{token}')")).await?;
    let mut versions = Vec::new();
    for key in keys {
        let row = sql
            .query_one(
                "INSERT INTO item VALUES ($1, 1, $2) ON CONFLICT (id) DO UPDATE
                 SET version = item.version + 1, token = $2 RETURNING version",
                &[&key, &token],
            )
            .await?;
        versions.push(Version { key, version: row.get(0) });
    }
    if random.u64(..ROLLED_BACK) == 0 {
        return sql.batch_execute("ROLLBACK").await;
    }
    let outcome = sql.batch_execute("COMMIT").await;
    let mut book = lock(&shared.book);
    match outcome {
        Ok(()) => {
            book.acknowledged.extend(versions.into_iter().map(|at| (at, token.clone())));
        }
        Err(_) => drop(book.in_doubt.insert(token, versions)),
    }
    outcome
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
