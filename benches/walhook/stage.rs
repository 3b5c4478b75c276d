//! What stands for the whole run: a private PostgreSQL with one table, and the receiver.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt::Display;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use futures_util::StreamExt;
use tokio::runtime::Runtime;
use tokio_postgres::Client;
use tokio_postgres::NoTls;
use tokio_postgres::SimpleQueryMessage;
use walhook::testing::sandbox::cluster::ClusterOptions;
use walhook::testing::sandbox::cluster::SandboxCluster;
use walhook::testing::sandbox::find;

use crate::identity::Identity;
use crate::process;
use crate::receiver::Receiver;

/// How long a slot's last reader may take to let go of it.
const LET_GO_LIMIT: Duration = Duration::from_secs(10);

/// Of a fill, where it does not matter.
const CUSTOMERS: u64 = 1000;

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
    -- 100 columns of four types.
    CREATE TABLE wide (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY);
    DO $$ BEGIN
        FOR n IN 1..99 LOOP
            EXECUTE format('ALTER TABLE wide ADD c%s %s', n, (ARRAY[
                'int DEFAULT 4711', 'text DEFAULT ''a dozen words''',
                'numeric(12,2) DEFAULT 12.34', 'timestamptz DEFAULT now()'])[1 + n % 4]);
        END LOOP;
    END $$;
    -- 50 kB in one column.
    CREATE TABLE large (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text);
    ALTER TABLE large ALTER body SET STORAGE EXTERNAL;
    -- Rows that are there before.
    CREATE TABLE archive (LIKE orders INCLUDING ALL);
    -- Endpoints that are rows.
    CREATE TABLE hooks (customer_id bigint PRIMARY KEY, url text NOT NULL);
    CREATE PUBLICATION bench FOR TABLE orders, wide, large, archive, hooks;
    -- Transactions of one row each.
    CREATE PROCEDURE fill(count int, customers int) LANGUAGE plpgsql AS $$
    BEGIN
        SET synchronous_commit = off;
        FOR n IN 1..count LOOP
            INSERT INTO orders (customer_id, status, total, note, sent_at)
            VALUES (n % customers, 'paid', n * 0.37, 'gift wrap, please ring twice', 0);
            COMMIT;
        END LOOP;
    END $$;
    CREATE PROCEDURE fill_wide(count int) LANGUAGE plpgsql AS $$
    BEGIN
        SET synchronous_commit = off;
        FOR n IN 1..count LOOP
            INSERT INTO wide DEFAULT VALUES;
            COMMIT;
        END LOOP;
    END $$;
    CREATE PROCEDURE fill_large(count int) LANGUAGE plpgsql AS $$
    BEGIN
        SET synchronous_commit = off;
        FOR n IN 1..count LOOP
            INSERT INTO large (body) VALUES (repeat('0123456789', 5000));
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

/// A private PostgreSQL with its table, the receiver, and the build that is measured.
pub(crate) struct Stage {
    pub(crate) receiver: Receiver,
    /// The walhook that is measured.
    pub(crate) binary: PathBuf,
    /// The receiver's over TLS.
    pub(crate) identity: Identity,
    /// Whether [`Self::forget`] leaves the push log as it is.
    pub(crate) keeps_push_log: Cell<bool>,
    runtime: Runtime,
    client: Client,
    cluster: SandboxCluster,
    /// The server's first process.
    postmaster: u32,
}

/// Processor time of the server's processes, by their ids.
pub(crate) type ServerCpu = HashMap<u32, Duration>;

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
        let identity = Identity::make()?;
        let (receiver, keeps_push_log) = (Receiver::start(&identity)?, Cell::new(false));
        let mut stage = Self {
            receiver,
            binary,
            identity,
            keeps_push_log,
            runtime,
            client,
            cluster,
            postmaster: 0,
        };
        stage.run(TABLE)?;
        let own = stage.ask("SELECT pg_backend_pid()")?.and_then(|pid| pid.parse().ok());
        stage.postmaster = own.and_then(process::parent_of).context("the server has no parent")?;
        Ok(stage)
    }

    /// Processor time that the whole server has used by now.
    pub(crate) fn server_cpu(&self) -> anyhow::Result<ServerCpu> {
        process::children_cpu(self.postmaster)
    }

    /// What it has used since then. What processes used that have ended meanwhile is not in it.
    pub(crate) fn server_cpu_since(&self, before: &ServerCpu) -> anyhow::Result<Duration> {
        let now = self.server_cpu()?;
        let used = |(pid, &cpu): (&u32, &Duration)| {
            cpu.saturating_sub(before.get(pid).copied().unwrap_or_default())
        };
        Ok(now.iter().map(used).sum())
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
                          walhook.backlog, walhook.books, walhook.books_common, walhook.counted",
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
        self.fill_for(rows, CUSTOMERS)
    }

    /// The same for so many customers, one after the other.
    pub(crate) fn fill_for(&self, rows: impl Display, customers: u64) -> anyhow::Result<()> {
        self.run("TRUNCATE orders")?;
        self.call(&format!("fill({rows}, {customers})"))
    }

    /// Rows of 100 columns.
    pub(crate) fn fill_wide(&self, rows: u64) -> anyhow::Result<()> {
        self.run("TRUNCATE wide")?;
        self.call(&format!("fill_wide({rows})"))
    }

    /// Rows of 50 kB.
    pub(crate) fn fill_large(&self, rows: u64) -> anyhow::Result<()> {
        self.run("TRUNCATE large")?;
        self.call(&format!("fill_large({rows})"))
    }

    /// Rows that no slot will tell of.
    pub(crate) fn fill_archive(&self, rows: u64) -> anyhow::Result<()> {
        self.run(&format!(
            "TRUNCATE archive RESTART IDENTITY;
             INSERT INTO archive (customer_id, status, total, note, sent_at)
             SELECT n % 1000, 'paid', n * 0.37, 'gift wrap, please ring twice', 0
             FROM generate_series(1, {rows}) n"
        ))?;
        self.run("VACUUM (FREEZE, ANALYZE) archive")
    }

    /// Reads a table as fast as a client can that does nothing with it.
    pub(crate) fn copy_out(&self, table: &str) -> anyhow::Result<()> {
        self.runtime.block_on(async {
            let rows = self.client.copy_out(&format!("COPY {table} TO STDOUT")).await?;
            let mut rows = std::pin::pin!(rows);
            while let Some(piece) = rows.next().await {
                piece?;
            }
            Ok(())
        })
    }

    /// How long a session of walhook's has held a snapshot by now; the walsender holds none but for the catalog.
    pub(crate) fn oldest_snapshot(&self) -> anyhow::Result<Duration> {
        let oldest = self.ask(
            "SELECT extract(epoch FROM clock_timestamp() - min(xact_start)) FROM pg_stat_activity
              WHERE application_name = 'walhook' AND backend_type = 'client backend'
                AND backend_xmin IS NOT NULL",
        )?;
        let seconds: f64 = oldest.and_then(|text| text.parse().ok()).unwrap_or_default();
        Ok(Duration::from_secs_f64(seconds.max(0.0)))
    }

    /// As many endpoints as rows, one for each customer.
    pub(crate) fn fill_hooks(&self, hooks: u64, url: &str) -> anyhow::Result<()> {
        self.run(&format!(
            "TRUNCATE hooks;
             INSERT INTO hooks SELECT n, '{url}' FROM generate_series(0, {hooks} - 1) n"
        ))
    }

    fn call(&self, fill: &str) -> anyhow::Result<()> {
        self.run(&format!("CALL {fill}"))?;
        // A commit that waits flushes what came before it: only then can it be replicated.
        self.run("RESET synchronous_commit; CREATE TABLE flushed (); DROP TABLE flushed")
    }

    /// Fills the table in transactions of `rows` each.
    pub(crate) fn fill_at_once(&self, rows: u64, times: u64) -> anyhow::Result<()> {
        self.run("TRUNCATE orders")?;
        (0..times).try_for_each(|_| self.run(&format!("CALL fill_at_once({rows})")))
    }
}
