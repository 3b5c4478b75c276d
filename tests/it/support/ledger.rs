//! The books of both ends: what was committed, and what arrived.
//!
//! ```text
//! Writers ─ transactions ─▶ PostgreSQL ─▶ walhook ─▶ Receiver ─▶ Books
//!    └──── Ledger ───────────────────▶  audit  ◀───────────────────┘
//! ```
//!
//! Two tables, `item` and `parcel`. Each key counts its versions, through inserts, updates and
//! deletes: a delete carries the version that it removes, and the next insert goes on from there. So
//! the versions of a key are its commit order, and a gap or a step back shows at once. `token` says
//! which transaction wrote a version: it differs between one that was rolled back and the one that
//! took the same version later.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test may stop at once")]

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

use self::books::Books;
use super::postgres::Sql;

/// What the writers need. `journal` is not published: it tells what became of a commit whose answer was lost.
/// `last` keeps the version of a key that is deleted.
pub(crate) const TABLES: &str = "
    CREATE TABLE item (id bigint PRIMARY KEY, version bigint NOT NULL, token text NOT NULL);
    CREATE TABLE parcel (LIKE item INCLUDING ALL);
    ALTER TABLE item REPLICA IDENTITY FULL;
    ALTER TABLE parcel REPLICA IDENTITY FULL;
    CREATE TABLE last (name text, id bigint, version bigint NOT NULL, PRIMARY KEY (name, id));
    CREATE TABLE journal (token text PRIMARY KEY)";

/// The event rules.
pub(crate) const EVENT: &str = "
    [[event]]
    type = \"item.changed\"
    table = \"public.item\"
    on = [\"insert\", \"update\"]

    [[event]]
    type = \"item.deleted\"
    table = \"public.item\"
    on = [\"delete\"]

    [[event]]
    type = \"parcel.changed\"
    table = \"public.parcel\"
    on = [\"insert\", \"update\"]

    [[event]]
    type = \"parcel.deleted\"
    table = \"public.parcel\"
    on = [\"delete\"]
";

/// The tables, as [`Version::table`] counts them.
pub(crate) const NAMES: [&str; 2] = ["item", "parcel"];

/// Keys that every writer updates, so that they meet.
const HOT_KEYS: i64 = 12;

/// A transaction writes up to this many rows.
const ROWS_MAX: usize = 5;

/// One of this many changes of a row that is there is a delete.
const DELETED: u64 = 8;

/// One of this many transactions is large: so many new parcels at once.
const LARGE: u64 = 200;
const LARGE_ROWS: i64 = 300;

/// One of this many transactions is rolled back.
const ROLLED_BACK: u64 = 10;

/// More than a lane holds, so that some of it is parked, and less than takes long to deliver in the
/// end, however slow the machine is.
pub(crate) const LEAD_MAX: usize = 2000;

/// How long a writer waits before it connects to a server that is away once more.
const AWAY: Duration = Duration::from_millis(20);

/// One version of one row.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct Version {
    /// Index into [`NAMES`].
    pub(crate) table: usize,
    pub(crate) key: i64,
    pub(crate) version: i64,
    /// It is the end of this version, and not its beginning.
    pub(crate) deleted: bool,
}

/// What the writers committed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    /// Which transaction wrote each version.
    pub(crate) committed: BTreeMap<Version, String>,
}

impl Ledger {
    /// What was committed of the same key right before this; `None` if it is the first.
    pub(crate) fn before(&self, at: Version) -> Option<Version> {
        let (before, _) = self.committed.range(..at).next_back()?;
        (before.table == at.table && before.key == at.key).then_some(*before)
    }
}

/// Sessions that write at once, each a transaction every `pace`.
pub(crate) struct Writers {
    shared: Arc<Shared>,
    sessions: JoinSet<()>,
}

struct Shared {
    url: String,
    pace: Duration,
    /// Nobody writes while one of these receivers is too far behind.
    receivers: Vec<Books>,
    stop: CancellationToken,
    next_key: AtomicI64,
    transactions: AtomicU64,
    book: Mutex<Book>,
}

#[derive(Default)]
struct Book {
    /// PostgreSQL said that these are committed.
    acknowledged: BTreeMap<Version, String>,
    tokens: Vec<String>,
    /// The connection broke before PostgreSQL could say.
    in_doubt: HashMap<String, Vec<(Version, String)>>,
}

impl Writers {
    /// Starts writing. The tables have to be there, and whoever is to know of every row. Stays no more than
    /// about [`LEAD_MAX`] ahead of each of `receivers`.
    pub(crate) fn start(url: &str, sessions: usize, pace: Duration, receivers: Vec<Books>) -> Self {
        let shared = Arc::new(Shared {
            url: url.to_owned(),
            pace,
            receivers,
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

    /// How many versions are committed and have not arrived there.
    pub(crate) fn lead(&self, receiver: &Books) -> usize {
        self.shared.lead(receiver)
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
        let missing = "SELECT count(*) FROM unnest($1::text[]) AS said (token)
                        WHERE NOT EXISTS (SELECT FROM journal j WHERE j.token = said.token)";
        let missing: i64 = sql.query_one(missing, &[&book.tokens]).await.unwrap().get(0);
        assert_eq!(missing, 0, "PostgreSQL lost a commit");
        let mut committed = book.acknowledged;
        for (token, versions) in book.in_doubt {
            let query = "SELECT FROM journal WHERE token = $1";
            if sql.query_opt(query, &[&token]).await.unwrap().is_some() {
                committed.extend(versions);
            }
        }
        Ledger { committed }
    }
}

impl Shared {
    fn lead(&self, receiver: &Books) -> usize {
        lock(&self.book).acknowledged.len().saturating_sub(receiver.accepted())
    }
}

async fn write(number: usize, shared: Arc<Shared>) {
    let mut random = fastrand::Rng::with_seed(u64::try_from(number).unwrap());
    let mut ticks = tokio::time::interval(shared.pace);
    let mut session = None;
    while !shared.stop.is_cancelled() {
        ticks.tick().await;
        if shared.receivers.iter().any(|receiver| shared.lead(receiver) > LEAD_MAX) {
            continue;
        }
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
    sql.batch_execute(&format!("BEGIN; INSERT INTO journal VALUES ('{token}')")).await?;
    let mut versions = Vec::new();
    if random.u64(..LARGE) == 0 {
        let from = shared.next_key.fetch_add(LARGE_ROWS, Ordering::Relaxed);
        let insert = "INSERT INTO parcel SELECT n, 1, $1 FROM generate_series($2, $3::bigint) n";
        sql.execute(insert, &[&token, &from, &(from + LARGE_ROWS - 1)]).await?;
        let row = |key| Version { table: 1, key, version: 1, deleted: false };
        versions.extend((from..from + LARGE_ROWS).map(|key| (row(key), token.clone())));
    } else {
        // In one order for all, so that writers wait for each other but never for ever.
        let mut rows: Vec<(usize, i64)> = (0..random.usize(1..=ROWS_MAX))
            .map(|_| (random.usize(..NAMES.len()), random.i64(1..=HOT_KEYS + 4)))
            .collect();
        rows.sort_unstable();
        for (table, key) in rows {
            let key = match key > HOT_KEYS {
                true => shared.next_key.fetch_add(1, Ordering::Relaxed),
                false => key,
            };
            versions.extend(change(sql, table, key, &token, random).await?);
        }
    }
    if random.u64(..ROLLED_BACK) == 0 {
        return sql.batch_execute("ROLLBACK").await;
    }
    let outcome = sql.batch_execute("COMMIT").await;
    let mut book = lock(&shared.book);
    match outcome {
        Ok(()) => {
            book.acknowledged.extend(versions);
            book.tokens.push(token);
        }
        Err(_) => drop(book.in_doubt.insert(token, versions)),
    }
    outcome
}

/// Writes the next version of a row, or deletes it. Returns what will arrive, with its token.
async fn change(
    sql: &Sql,
    table: usize,
    key: i64,
    token: &str,
    random: &mut fastrand::Rng,
) -> Result<Option<(Version, String)>, tokio_postgres::Error> {
    let name = NAMES[table];
    if random.u64(..DELETED) == 0 {
        let delete = format!("DELETE FROM {name} WHERE id = $1 RETURNING version, token");
        let row = sql.query_opt(&delete, &[&key]).await?;
        return Ok(
            row.map(|row| (Version { table, key, version: row.get(0), deleted: true }, row.get(1)))
        );
    }
    let upsert = format!(
        "WITH next AS (INSERT INTO last VALUES ('{name}', $1, 1) ON CONFLICT (name, id)
                       DO UPDATE SET version = last.version + 1 RETURNING version)
         INSERT INTO {name} SELECT $1, version, $2 FROM next
         ON CONFLICT (id) DO UPDATE SET version = excluded.version, token = excluded.token
         RETURNING version"
    );
    let row = sql.query_one(&upsert, &[&key, &token]).await?;
    Ok(Some((Version { table, key, version: row.get(0), deleted: false }, token.to_owned())))
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
