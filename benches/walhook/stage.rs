//! What stands for the whole run: a private PostgreSQL with one table, and the receiver.

use std::cell::Cell;
use std::fmt::Display;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use tokio::runtime::Runtime;
use tokio_postgres::Client;
use tokio_postgres::NoTls;
use tokio_postgres::SimpleQueryMessage;
use walhook::sandbox::cluster::ClusterOptions;
use walhook::sandbox::cluster::SandboxCluster;
use walhook::sandbox::find;

use crate::receiver::Receiver;

/// How long a slot's last reader may take to let go of it.
const LET_GO_LIMIT: Duration = Duration::from_secs(10);

/// A row of about 120 bytes: a number, a reference, a decimal, a text, two times.
const TABLE: &str = "
    CREATE TABLE orders (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        customer_id bigint NOT NULL,
        status text NOT NULL,
        total numeric(12,2) NOT NULL,
        note text,
        sent_at bigint NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now()
    );
    CREATE PUBLICATION bench FOR TABLE orders;
    -- Transactions of one row each.
    CREATE PROCEDURE fill(count int) LANGUAGE plpgsql AS $$
    BEGIN
        SET synchronous_commit = off;
        FOR n IN 1..count LOOP
            INSERT INTO orders (customer_id, status, total, note, sent_at)
            VALUES (n % 1000, 'paid', n * 0.37, 'gift wrap, please ring twice', 0);
            COMMIT;
        END LOOP;
    END $$;
    -- One transaction.
    CREATE PROCEDURE fill_at_once(count int) LANGUAGE sql AS $$
        INSERT INTO orders (customer_id, status, total, note, sent_at)
        SELECT n % 1000, 'paid', n * 0.37, 'gift wrap, please ring twice', 0
        FROM generate_series(1, count) n
    $$;
";

/// Postgres and receiver; see the module's header.
pub(crate) struct Stage {
    pub(crate) receiver: Receiver,
    /// The walhook that is measured.
    pub(crate) binary: PathBuf,
    /// Whether [`Self::forget`] leaves the push log as it is.
    pub(crate) keeps_push_log: Cell<bool>,
    runtime: Runtime,
    client: Client,
    cluster: SandboxCluster,
}

impl Stage {
    pub(crate) fn set(binary: PathBuf) -> anyhow::Result<Self> {
        let installation = find::find()?;
        let options = ClusterOptions::default()
            .with("shared_buffers", "256MB")
            .with("max_wal_size", "8GB")
            .with("checkpoint_timeout", "1h")
            .with("autovacuum", "off");
        let cluster = SandboxCluster::start(&installation, options)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (client, connection) =
            runtime.block_on(tokio_postgres::connect(&cluster.url("postgres"), NoTls))?;
        drop(runtime.spawn(connection));
        let (receiver, keeps_push_log) = (Receiver::start()?, Cell::new(false));
        let stage = Self { receiver, binary, keeps_push_log, runtime, client, cluster };
        stage.run(TABLE)?;
        Ok(stage)
    }

    /// Which PostgreSQL it is.
    pub(crate) fn postgres(&self) -> &str {
        self.cluster.installation().why()
    }

    pub(crate) fn url(&self) -> String {
        self.cluster.url("postgres")
    }

    pub(crate) fn port(&self) -> u16 {
        self.cluster.port()
    }

    /// The path of one of PostgreSQL's own programs, if it came along.
    pub(crate) fn program(&self, name: &str) -> Option<PathBuf> {
        let path = self.cluster.installation().bin().join(name);
        path.is_file().then_some(path)
    }

    pub(crate) fn run(&self, sql: &str) -> anyhow::Result<()> {
        self.runtime
            .block_on(self.client.batch_execute(sql))
            .with_context(|| format!("cannot {sql}"))
    }

    /// The first field of the first row.
    pub(crate) fn ask(&self, sql: &str) -> anyhow::Result<Option<String>> {
        let rows = self.runtime.block_on(self.client.simple_query(sql))?;
        Ok(rows.iter().find_map(|row| match row {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        }))
    }

    /// A slot that stays where it is: runs read from copies of it.
    pub(crate) fn mark(&self, slot: &str) -> anyhow::Result<()> {
        self.run(&format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')"))
    }

    pub(crate) fn copy_slot(&self, from: &str, to: &str) -> anyhow::Result<()> {
        self.run(&format!("SELECT pg_copy_logical_replication_slot('{from}', '{to}')"))
    }

    /// Waits until nobody reads from it.
    pub(crate) fn drop_slot(&self, slot: &str) -> anyhow::Result<()> {
        let deadline = Instant::now() + LET_GO_LIMIT;
        loop {
            match self.run(&format!("SELECT pg_drop_replication_slot('{slot}')")) {
                Err(_) if Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
                outcome => return outcome,
            }
        }
    }

    /// Drops walhook's state: another one on the same slot would go on where the last has stopped.
    pub(crate) fn forget(&self) -> anyhow::Result<()> {
        if self.keeps_push_log.get() {
            // Also that runs were killed: after two in a row walhook takes changes one by one.
            return self.run(
                "TRUNCATE walhook.progress, walhook.runs, walhook.fronts, walhook.settled_ahead,
                          walhook.backlog, walhook.books",
            );
        }
        self.run("DROP SCHEMA IF EXISTS walhook CASCADE")
    }

    /// The process that reads the WAL for a slot.
    pub(crate) fn walsender(&self, slot: &str) -> anyhow::Result<Option<u32>> {
        let sql = format!("SELECT active_pid FROM pg_replication_slots WHERE slot_name = '{slot}'");
        Ok(self.ask(&sql)?.and_then(|pid| pid.parse().ok()))
    }

    /// Fills the table with transactions of one row.
    pub(crate) fn fill(&self, rows: impl Display) -> anyhow::Result<()> {
        self.run("TRUNCATE orders")?;
        self.run(&format!("CALL fill({rows})"))?;
        // A commit that waits flushes what came before it: only then can it be replicated.
        self.run("RESET synchronous_commit; CREATE TABLE flushed (); DROP TABLE flushed")
    }

    /// Fills the table in transactions of `rows` each.
    pub(crate) fn fill_at_once(&self, rows: u64, times: u64) -> anyhow::Result<()> {
        self.run("TRUNCATE orders")?;
        (0..times).try_for_each(|_| self.run(&format!("CALL fill_at_once({rows})")))
    }
}
