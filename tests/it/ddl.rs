//! What people do to tables while rows are written: each row arrives as the table was when it was written, or what
//! cannot be followed is a named state. `docs/schema-changes.md` says the same in words.
//!
//! The oracle is PostgreSQL: each writing statement returns `to_jsonb` of its row.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]
#![expect(clippy::indexing_slicing, reason = "a missing field fails the test as it should")]

mod events;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;
use tokio::task::JoinSet;
use tokio_postgres::SimpleQueryMessage;

use crate::support::postgres::Database;
use crate::support::postgres::Sql;
use crate::support::postgres::has_version;
use crate::support::postgres::installation;
use crate::support::program::Program;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::always;
use crate::support::service::AMPLE;
use crate::support::service::Service;
use crate::support::service::configuration;

/// Rows that are written between two alterations, at least.
const BETWEEN: usize = 15;

/// The rows by their operation and id, as they were written.
type WrittenRows = BTreeMap<(String, i64), Value>;

/// Writers that go on while the table is altered.
struct Load {
    stop: Arc<AtomicBool>,
    written: tokio::sync::watch::Receiver<usize>,
    tasks: JoinSet<WrittenRows>,
}

impl Load {
    /// Writes rows of `table`, of which only `id` is given, and updates each once.
    fn start(url: &str, table: &'static str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (count, written) = tokio::sync::watch::channel(0);
        let count = Arc::new(count);
        let mut tasks = JoinSet::new();
        for number in 0..2 {
            let (url, stop) = (url.to_owned(), Arc::clone(&stop));
            let count = Arc::clone(&count);
            tasks.spawn(async move {
                let sql = Sql::connect(&url).await;
                let mut rows = WrittenRows::new();
                let mut id = number;
                while !stop.load(Ordering::Relaxed) {
                    id += 2;
                    let insert = format!(
                        "INSERT INTO {table} AS r (id) VALUES ({id}) RETURNING to_jsonb(r)::text"
                    );
                    let update = format!(
                        "UPDATE {table} r SET n = n + 1 WHERE id = {id} RETURNING to_jsonb(r)::text"
                    );
                    for (op, statement) in [("insert", insert), ("update", update)] {
                        // None where the table with the row was swapped out since.
                        let Some(row) = returned(&sql, &statement).await else { continue };
                        rows.insert((op.to_owned(), id), serde_json::from_str(&row).unwrap());
                        count.send_modify(|count| *count += 1);
                    }
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                rows
            });
        }
        Self { stop, written, tasks }
    }

    /// Waits until more rows have been written.
    async fn go_on(&mut self) {
        let wanted = *self.written.borrow() + BETWEEN;
        self.written.wait_for(|count| *count >= wanted).await.unwrap();
    }

    async fn end(mut self) -> WrittenRows {
        self.stop.store(true, Ordering::Relaxed);
        let mut rows = WrittenRows::new();
        while let Some(task) = self.tasks.join_next().await {
            rows.extend(task.unwrap());
        }
        rows
    }
}

async fn returned(sql: &Sql, statement: &str) -> Option<String> {
    let answer = sql.simple_query(statement).await.unwrap();
    answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(ToOwned::to_owned),
        _ => None,
    })
}

fn rules(table: &str, receiver: &Receiver) -> String {
    format!(
        "[[event]]\ntype = \"row\"\ntable = \"public.{table}\"\non = [\"insert\", \"update\"]\n\n\
         [webhook]\nurls = [\"{}\"]\n",
        receiver.url()
    )
}

/// Every row arrives once, as it was written.
async fn assert_exact(receiver: &Receiver, rows: &WrittenRows) {
    receiver.wait_for(rows.len(), AMPLE).await;
    // What nobody wrote, such as the rows of a table that is rewritten, would be there by now.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let requests = receiver.requests();
    assert_eq!(requests.len(), rows.len(), "each once, and nothing else");
    for request in requests {
        let body = request.json();
        let id = body["data"]["id"].as_i64().unwrap();
        let op = body["operation"].as_str().unwrap().to_owned();
        let expected = rows.get(&(op.clone(), id)).unwrap();
        assert_eq!(&body["data"], expected, "{op} of {id}");
    }
}

/// Alters the table under load, one statement after the other.
async fn altered(database: &Database, table: &'static str, steps: &[&str]) {
    let sql = database.sql().await;
    let receiver = Receiver::start(always(Answer::status(200)));
    let toml = configuration(database, &rules(table, &receiver));
    let mut service = Service::start(&toml).await;
    let mut load = Load::start(&database.url(), table);
    load.go_on().await;
    for step in steps {
        sql.batch_execute(step).await.unwrap();
        load.go_on().await;
    }
    let rows = load.end().await;
    assert_exact(&receiver, &rows).await;
    assert!(!service.program.has_ended());
    service.stop().await;
}

#[tokio::test]
async fn columns_are_followed_at_the_exact_row() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute("CREATE TABLE t (id bigint PRIMARY KEY, n int NOT NULL DEFAULT 0)")
        .await
        .unwrap();
    let steps = [
        "ALTER TABLE t ADD COLUMN a int DEFAULT 7",
        "ALTER TABLE t ADD COLUMN b text",
        "ALTER TABLE t ALTER COLUMN b SET DEFAULT 'x'",
        "ALTER TABLE t RENAME COLUMN b TO c",
        "ALTER TABLE t ALTER COLUMN a TYPE text USING 'n' || a",
        "ALTER TABLE t ALTER COLUMN n TYPE numeric(10, 2)",
        "ALTER TABLE t DROP COLUMN c",
        "ALTER TABLE t ADD COLUMN c int[] DEFAULT '{1,2}'",
        "BEGIN; ALTER TABLE t DROP COLUMN a; ALTER TABLE t RENAME COLUMN c TO a; COMMIT",
        "ALTER TABLE t ALTER COLUMN a DROP DEFAULT, ALTER COLUMN a TYPE jsonb USING to_jsonb(a)",
        "ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (id, n)",
        "ALTER TABLE t REPLICA IDENTITY FULL",
        "VACUUM FULL t",
    ];
    altered(&database, "t", &steps).await;
}

#[tokio::test]
async fn types_are_followed_at_the_exact_row() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(
        "CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE DOMAIN short AS text CHECK (length(VALUE) < 9);
         CREATE TABLE t (id bigint PRIMARY KEY, n int NOT NULL DEFAULT 0, m mood DEFAULT 'ok',
                         s short DEFAULT 'x')",
    )
    .await
    .unwrap();
    let steps = [
        "ALTER TYPE mood ADD VALUE 'great'",
        "ALTER TABLE t ALTER COLUMN m SET DEFAULT 'great'",
        // Neither locks the table: a writer would see the new name of a value in a row that stands
        // in the WAL before the change.
        "BEGIN; LOCK TABLE t; ALTER TYPE mood RENAME VALUE 'great' TO 'superb'; COMMIT",
        "ALTER TYPE mood RENAME TO feeling",
        "ALTER TABLE t ADD COLUMN more feeling[] DEFAULT '{sad}'",
        "ALTER DOMAIN short DROP CONSTRAINT short_check",
        "ALTER TABLE t ALTER COLUMN s TYPE varchar(40)",
        "ALTER TABLE t ALTER COLUMN m DROP DEFAULT; ALTER TABLE t ALTER COLUMN m TYPE text;
         ALTER TABLE t ALTER COLUMN m SET DEFAULT 'text'",
    ];
    altered(&database, "t", &steps).await;
}

#[tokio::test]
async fn partitions_are_followed_at_the_exact_row() {
    if !has_version(installation(), 15, "attached partitions") {
        return; // see the next one
    }
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(
        "CREATE TABLE t (id bigint PRIMARY KEY, n int NOT NULL DEFAULT 0) PARTITION BY HASH (id);
         CREATE TABLE t_0 PARTITION OF t FOR VALUES WITH (MODULUS 2, REMAINDER 0);
         CREATE TABLE t_1 PARTITION OF t FOR VALUES WITH (MODULUS 2, REMAINDER 1);
         -- Its columns stand in another order, with one that is gone between them.
         CREATE TABLE other (gone int, n int NOT NULL DEFAULT 0, id bigint NOT NULL PRIMARY KEY);
         ALTER TABLE other DROP COLUMN gone",
    )
    .await
    .unwrap();
    let steps = [
        "ALTER TABLE t ADD COLUMN a text DEFAULT 'x'",
        "BEGIN; ALTER TABLE t DETACH PARTITION t_1; ALTER TABLE other ADD COLUMN a text DEFAULT 'x';
         INSERT INTO other (id, n, a) SELECT id, n, a FROM t_1;
         ALTER TABLE t ATTACH PARTITION other FOR VALUES WITH (MODULUS 2, REMAINDER 1); COMMIT",
        "INSERT INTO t_1 (id) VALUES (-1)",
        "ALTER TABLE t RENAME COLUMN a TO b",
        "DROP TABLE t_1",
    ];
    altered(&database, "t", &steps).await;
}

/// PostgreSQL 14 does not notice by itself.
#[tokio::test]
async fn on_14_a_partition_that_is_attached_or_detached_is_named_and_read_from_then_on() {
    if installation().major() >= 15 {
        return;
    }
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(
        "CREATE TABLE t (id bigint PRIMARY KEY, n int NOT NULL DEFAULT 0) PARTITION BY RANGE (id);
         CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (0) TO (10);
         CREATE TABLE other (id bigint PRIMARY KEY, n int NOT NULL DEFAULT 0)",
    )
    .await
    .unwrap();
    let receiver = Receiver::start(always(Answer::status(200)));
    let toml = configuration(&database, &rules("t", &receiver));
    let mut service = Service::start(&toml).await;
    // Decoded before it is attached: so the server takes it for a table that nobody wants.
    sql.batch_execute("INSERT INTO other VALUES (10); INSERT INTO t VALUES (1)").await.unwrap();
    receiver.wait_for(1, AMPLE).await;
    let attach = "ALTER TABLE t ATTACH PARTITION other FOR VALUES FROM (10) TO (20);
                  CREATE TABLE t_3 PARTITION OF t FOR VALUES FROM (20) TO (30)";
    sql.batch_execute(attach).await.unwrap();
    read_anew(&mut service, "public.other").await;
    sql.batch_execute("INSERT INTO t VALUES (11); INSERT INTO t VALUES (21)").await.unwrap();
    let requests = receiver.wait_for(3, AMPLE).await;
    let ids: BTreeSet<i64> =
        requests.iter().map(|r| r.json()["data"]["id"].as_i64().unwrap()).collect();
    assert_eq!(ids, BTreeSet::from([1, 11, 21]));
    sql.batch_execute("ALTER TABLE t DETACH PARTITION t_1").await.unwrap();
    service.program.wait_for_line("partition=\"public.t_1\"", AMPLE).await;
    let said = service.program.output().join("\n");
    assert!(said.contains("walhook backfill public.t") && !said.contains("public.t_3"), "{said}");
    service.stop().await;
    // What is attached while nobody reads is read from before, so it has to be named as well. In one transaction.
    let attach = "CREATE TABLE more (id bigint PRIMARY KEY, n int NOT NULL DEFAULT 0);
                  INSERT INTO more VALUES (30);
                  ALTER TABLE t ATTACH PARTITION more FOR VALUES FROM (30) TO (40)";
    sql.batch_execute(attach).await.unwrap();
    let mut service = Service::start(&toml).await;
    read_anew(&mut service, "public.more").await;
    sql.batch_execute("INSERT INTO t VALUES (31)").await.unwrap();
    let requests = receiver.wait_for(4, AMPLE).await;
    assert_eq!(requests[3].json()["data"]["id"], 31);
    service.stop().await;
}

/// Waits until the partition was named and PostgreSQL 14 was read anew after it.
async fn read_anew(service: &mut Service, partition: &str) {
    service.program.wait_for_line(&format!("partition=\"{partition}\""), AMPLE).await;
    service.program.wait_for_line("PostgreSQL 14 is read anew", AMPLE).await;
    service.program.wait_for_line("replication resumed", AMPLE).await;
}

#[tokio::test]
async fn a_table_that_is_swapped_is_followed_where_the_publication_is_for_all_tables() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(
        "CREATE TABLE t (id bigint PRIMARY KEY, n int NOT NULL DEFAULT 0);
         CREATE TABLE new (n int NOT NULL DEFAULT 5, a text DEFAULT 'x', id bigint PRIMARY KEY);
         CREATE PUBLICATION walhook FOR ALL TABLES",
    )
    .await
    .unwrap();
    let steps = [
        "BEGIN; ALTER TABLE t RENAME TO old; ALTER TABLE new RENAME TO t;
         INSERT INTO t (id, n) SELECT id, n FROM old WHERE false; COMMIT",
        "DROP TABLE old",
    ];
    altered(&database, "t", &steps).await;
}

#[tokio::test]
async fn a_table_that_is_renamed_or_swapped_out_of_its_publication_is_a_named_gap() {
    for swap in [false, true] {
        let database = Database::create().await;
        let sql = database.sql().await;
        sql.batch_execute(
            "CREATE TABLE t (id bigint PRIMARY KEY, n int NOT NULL DEFAULT 0);
             CREATE TABLE new (id bigint PRIMARY KEY, n int NOT NULL DEFAULT 0)",
        )
        .await
        .unwrap();
        let receiver = Receiver::start(always(Answer::status(200)));
        let toml = configuration(&database, &rules("t", &receiver));
        let mut service = Service::start(&toml).await;
        sql.batch_execute("INSERT INTO t VALUES (1)").await.unwrap();
        receiver.wait_for(1, AMPLE).await;
        sql.batch_execute("ALTER TABLE t RENAME TO old").await.unwrap();
        if swap {
            sql.batch_execute("ALTER TABLE new RENAME TO t").await.unwrap();
        }
        assert_eq!(service.program.wait(AMPLE).await, Some(4));
        let said = service.program.output().join("\n");
        assert!(said.contains("does not publish public.t any more"), "{said}");
        assert!(said.contains("are lost") || said.contains("may be lost"), "{said}");
        if !swap {
            let mut check = Program::start(&["check"], &toml, &[]);
            assert_eq!(check.wait(AMPLE).await, Some(3));
            assert!(check.output().join("\n").contains("table public.t does not exist"));
            sql.batch_execute("ALTER TABLE old RENAME TO t").await.unwrap();
        }
        // It makes the publication whole again by itself.
        let mut service = Service::start(&toml).await;
        sql.batch_execute("INSERT INTO t VALUES (2)").await.unwrap();
        let deadline = Instant::now() + AMPLE;
        while !receiver.requests().iter().any(|request| request.json()["data"]["id"] == 2) {
            assert!(Instant::now() < deadline, "{}", service.program.output().join("\n"));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        service.stop().await;
    }
}
