//! A real PostgreSQL for the tests: one cluster for all, one database for each.
//!
//! The shared cluster starts with the first test that asks and ends with the process: a static is
//! never dropped, so the leash of the sandbox does it. Tests that stop, kill or reconfigure the
//! server start a cluster of their own.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]
#![expect(clippy::panic, reason = "a test may stop at once, and then shows the error's whole text")]

use std::env;
use std::ops::Deref;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use rustix::process::Pid;
use rustix::process::Signal;
use tokio::task::JoinSet;
use tokio::task::spawn_blocking;
use tokio_postgres::NoTls;
use walhook::testing::sandbox::cluster::ClusterOptions;
use walhook::testing::sandbox::cluster::SandboxCluster;
use walhook::testing::sandbox::find::find;
use walhook::testing::sandbox::find::find_version;
use walhook::testing::sandbox::installation::PostgresInstallation;

use super::service::AMPLE;

/// How long a database's last users may take to let go of it.
const LET_GO_LIMIT: Duration = Duration::from_secs(5);

/// The PostgreSQL that all tests use, found or fetched once: the one version of `WALHOOK_TEST_PG`, or else
/// what the machine has.
pub(crate) fn installation() -> &'static PostgresInstallation {
    static FOUND: OnceLock<PostgresInstallation> = OnceLock::new();
    FOUND.get_or_init(|| {
        let found = match wished().as_deref() {
            Some([major]) => find_version(*major),
            _ => find(),
        };
        found.unwrap_or_else(|error| panic!("{error}"))
    })
}

/// The major versions of `WALHOOK_TEST_PG`.
fn wished() -> Option<Vec<u32>> {
    let list = env::var("WALHOOK_TEST_PG").ok().filter(|list| !list.is_empty())?;
    Some(list.split(',').map(|major| major.trim().parse().unwrap()).collect())
}

/// The versions of `WALHOOK_TEST_PG=15,17,18`, or else the one that all tests use.
pub(crate) fn versions() -> Vec<PostgresInstallation> {
    let Some(wished) = wished() else { return vec![installation().clone()] };
    let found = wished.into_iter().map(find_version);
    found.map(|found| found.unwrap_or_else(|error| panic!("{error}"))).collect()
}

/// Of `majors` those that `WALHOOK_TEST_PG` names, or all without it: installed or fetched. What cannot be had
/// is said, and with `CI` set it is an error.
#[expect(clippy::print_stdout, reason = "a skipped test must not look like a passed one")]
pub(crate) fn versions_of(majors: &[u32], test: &str) -> Vec<PostgresInstallation> {
    let wished = wished().unwrap_or_else(|| majors.to_vec());
    let mut all = Vec::new();
    for major in majors.iter().filter(|major| wished.contains(major)) {
        match find_version(*major) {
            Ok(found) => all.push(found),
            Err(error) if env::var_os("CI").is_some() => panic!("{error}"),
            Err(error) => println!("SKIP {test}: needs PostgreSQL {major}: {error}"),
        }
    }
    all
}

/// Whether this PostgreSQL is new enough; says so if a part of `test` is skipped.
#[expect(clippy::print_stdout, reason = "a skipped test must not look like a passed one")]
pub(crate) fn has_version(installation: &PostgresInstallation, major: u32, test: &str) -> bool {
    let is_enough = installation.major() >= major;
    if !is_enough {
        println!("SKIP {test}: needs PostgreSQL {major}");
    }
    is_enough
}

/// Whether this server can speak TLS; some fetched ones cannot. Says so if `test` is skipped.
#[expect(clippy::print_stdout, reason = "a skipped test must not look like a passed one")]
pub(crate) async fn has_tls(sql: &Sql, test: &str) -> bool {
    let has_it = !sql.text("SHOW ssl_library").await.is_empty();
    if !has_it {
        println!("SKIP {test}: needs a PostgreSQL with OpenSSL");
    }
    has_it
}

/// A cluster for one test alone, to stop, kill and reconfigure.
pub(crate) async fn start_cluster(options: ClusterOptions) -> SandboxCluster {
    spawn_blocking(|| start(options)).await.unwrap()
}

/// The postmaster, which forks no more when it stands still, and its children.
pub(crate) async fn processes_of(cluster: &SandboxCluster) -> Vec<Pid> {
    let sql = Sql::connect(&cluster.url("postgres")).await;
    let pids = "SELECT split_part(pg_read_file('postmaster.pid'), chr(10), 1)
                       || coalesce(string_agg(' ' || pid, ''), '')
                  FROM pg_stat_activity WHERE pid <> pg_backend_pid()";
    let pids = sql.text(pids).await;
    pids.split(' ').map(|pid| Pid::from_raw(pid.parse().unwrap()).unwrap()).collect()
}

/// Sends all of them a signal.
pub(crate) fn signal_all(processes: &[Pid], signal: Signal) {
    for process in processes {
        // One may have ended meanwhile.
        rustix::process::kill_process(*process, signal).unwrap_or_default();
    }
}

fn start(options: ClusterOptions) -> SandboxCluster {
    SandboxCluster::start(installation(), options).unwrap_or_else(|error| panic!("{error}"))
}

/// The cluster of all tests. Its clients, slots and senders are limited; drop what you make.
fn shared() -> &'static SandboxCluster {
    static SHARED: OnceLock<SandboxCluster> = OnceLock::new();
    SHARED.get_or_init(|| {
        let options = ClusterOptions::default()
            .with("max_connections", "300")
            .with("max_wal_senders", "100")
            .with("max_replication_slots", "100");
        start(options)
    })
}

/// A database in the shared cluster. Dropping it drops the slots that were made in it, too.
#[derive(Debug)]
pub(crate) struct Database {
    name: String,
    cluster: &'static SandboxCluster,
}

impl Database {
    pub(crate) async fn create() -> Self {
        Self::create_with("").await
    }

    /// With options of CREATE DATABASE.
    pub(crate) async fn create_with(options: &str) -> Self {
        static CREATED: AtomicU32 = AtomicU32::new(0);
        let cluster = spawn_blocking(shared).await.unwrap();
        let name = format!("test_{}", CREATED.fetch_add(1, Ordering::Relaxed));
        let admin = Sql::connect(&cluster.url("postgres")).await;
        admin.batch_execute(&format!("CREATE DATABASE {name} {options}")).await.unwrap();
        Self { name, cluster }
    }

    /// Unique in the process: also good as the start of a slot's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Its address: TCP on loopback, user `postgres`, no password.
    pub(crate) fn url(&self) -> String {
        self.cluster.url(&self.name)
    }

    /// A new connection to it.
    pub(crate) async fn sql(&self) -> Sql {
        Sql::connect(&self.url()).await
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let (admin, name) = (self.cluster.url("postgres"), self.name.clone());
        // On a thread of its own: this one may be inside a runtime, which cannot run another.
        let dropping = thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(drop_database(&admin, &name));
        });
        // Best effort: what is left goes with the cluster.
        dropping.join().unwrap_or_default();
    }
}

async fn drop_database(admin: &str, name: &str) {
    let admin = Sql::connect(admin).await;
    let deadline = Instant::now() + LET_GO_LIMIT;
    loop {
        // A slot can be dropped once its holder is gone, and a database once its slots are.
        let outcome = admin
            .batch_execute(&format!(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}';
                 SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
                  WHERE database = '{name}';"
            ))
            .await;
        let outcome = match outcome {
            Ok(()) => admin.batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)")).await,
            refused => refused,
        };
        if outcome.is_ok() || Instant::now() > deadline {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A client for plain SQL that owns its connection: dropped, both end.
#[derive(Debug)]
pub(crate) struct Sql {
    client: tokio_postgres::Client,
    _connection: JoinSet<()>,
}

impl Sql {
    pub(crate) async fn connect(url: &str) -> Self {
        Self::try_connect(url).await.unwrap()
    }

    pub(crate) async fn try_connect(url: &str) -> Result<Self, tokio_postgres::Error> {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
        let mut task = JoinSet::new();
        // Its error reaches the caller with the next statement.
        task.spawn(async { connection.await.unwrap_or_default() });
        Ok(Self { client, _connection: task })
    }

    /// The first column of the only row, as text.
    pub(crate) async fn text(&self, query: &str) -> String {
        let rows = self.client.simple_query(query).await.unwrap();
        let mut values = rows.iter().filter_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("")),
            _ => None,
        });
        let value = values.next().unwrap().to_owned();
        assert_eq!(values.next(), None, "more than one row: {query}");
        value
    }
}

impl Deref for Sql {
    type Target = tokio_postgres::Client;

    fn deref(&self) -> &Self::Target {
        &self.client
    }
}

#[tokio::test]
async fn each_test_has_a_database_of_its_own() {
    let (one, two) = tokio::join!(Database::create(), Database::create());
    assert_ne!(one.name(), two.name());
    let sql = one.sql().await;
    sql.batch_execute("CREATE TABLE t (id int); INSERT INTO t VALUES (7)").await.unwrap();
    assert_eq!(sql.text("SELECT id FROM t").await, "7");
    assert_eq!(two.sql().await.text("SELECT to_regclass('t') IS NULL").await, "t");
}

#[tokio::test]
async fn a_dropped_database_takes_its_slots_and_clients_with_it() {
    let kept = Database::create().await;
    let dropped = Database::create().await;
    let sql = dropped.sql().await;
    let slot = format!("{}_slot", dropped.name());
    let create = format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')");
    sql.batch_execute(&create).await.unwrap();
    let name = dropped.name().to_owned();
    drop(dropped);
    let left = kept
        .sql()
        .await
        .text(&format!(
            "SELECT (SELECT count(*) FROM pg_database WHERE datname = '{name}')
                  + (SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{slot}')"
        ))
        .await;
    assert_eq!(left, "0");
    assert!(sql.batch_execute("SELECT 1").await.is_err(), "its client is still connected");
}

/// Waits until a query answers what is expected. Gives up where its answer stays another for long.
pub(crate) async fn wait_for_text(sql: &Sql, query: &str, expected: &str) {
    let mut deadline = Instant::now() + AMPLE;
    let mut last = String::new();
    loop {
        let text = sql.text(query).await;
        if text == expected {
            return;
        }
        if text != last {
            deadline = Instant::now() + AMPLE;
            last.clone_from(&text);
        }
        assert!(Instant::now() < deadline, "{query}: {text}, not {expected}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
