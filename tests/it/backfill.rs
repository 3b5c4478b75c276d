//! Rows that were there before, sent while changes flow: the receiver ends with the table, and gets nothing
//! older after something newer.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]
#![expect(clippy::indexing_slicing, reason = "a missing field fails the test as it should")]

mod altered;
mod crashes;
mod first;
mod kinds;
mod moves;
mod order;
mod standby;
mod surface;
mod tables;
mod wraparound;
mod writers;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Instant;

use serde_json::Value;
use serde_json::json;
use walhook::testing::sandbox::cluster::SandboxCluster;

use crate::support::postgres::Database;
use crate::support::postgres::Sql;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::Request;
use crate::support::receiver::always;
use crate::support::service::AMPLE;
use crate::support::service::Service;
use crate::support::service::configuration;

/// A table with a key, a number that grows with each write of a row, and a value that is stored apart.
const ITEMS: &str =
    "CREATE TABLE items (id int PRIMARY KEY, version bigint NOT NULL DEFAULT 1, large text);
    ALTER TABLE items ALTER COLUMN large SET STORAGE EXTERNAL;";

const RULE: &str = "[[event]]\ntype = \"item\"\ntable = \"public.items\"\n\
                    on = [\"insert\", \"update\", \"delete\", \"truncate\", \"read\"]\n";

/// The database of a bench.
enum Place {
    Shared(Database),
    /// In a cluster of its own.
    Private(Box<SandboxCluster>),
}

impl Place {
    fn url(&self) -> String {
        match self {
            Self::Shared(database) => database.url(),
            Self::Private(cluster) => cluster.url("postgres"),
        }
    }
}

/// A walhook over a table of so many rows.
struct Bench {
    database: Place,
    sql: Sql,
    receiver: Receiver,
    toml: String,
    service: Service,
}

impl Bench {
    async fn start(rows: u32) -> Self {
        Self::start_with(ITEMS, rows, RULE).await
    }

    async fn start_with(tables: &str, rows: u32, rules: &str) -> Self {
        Self::start_on(Place::Shared(Database::create().await), tables, rows, rules).await
    }

    /// In a database that has nothing yet. What stands before the rules of `rules` may be any section.
    async fn start_on(database: Place, tables: &str, rows: u32, rules: &str) -> Self {
        let sql = Sql::connect(&database.url()).await;
        sql.batch_execute(tables).await.unwrap();
        let fill = format!(
            "INSERT INTO items (id, large) SELECT n, repeat(n::text, 3000) FROM generate_series(1, {rows}) n"
        );
        if rows > 0 {
            sql.batch_execute(&fill).await.unwrap();
        }
        let receiver = Receiver::start(always(Answer::status(200)));
        let endpoint =
            format!("{rules}[[endpoint]]\nname = \"all\"\nurl = \"{}\"\n", receiver.url());
        let toml = match &database {
            Place::Shared(database) => configuration(database, &endpoint),
            Place::Private(cluster) => format!(
                "[postgres]\nurl = \"{}\"\n\n[http]\nlisten = \"127.0.0.1:0\"\n\n\
                 [log]\nfilter = \"walhook=debug\"\n\n{endpoint}",
                cluster.url("postgres")
            ),
        };
        let service = Service::start(&toml).await;
        Self { database, sql, receiver, toml, service }
    }

    /// Orders a backfill of one table, and returns its number.
    async fn order(&self, wish: Value) -> i64 {
        let reply = self.service.post("/api/v1/backfills", &wish).await;
        assert_eq!(reply.status, 202, "{reply:?}");
        reply.json()["backfills"][0]["id"].as_i64().unwrap()
    }

    async fn items(&self) -> i64 {
        self.order(json!({ "tables": ["public.items"] })).await
    }

    async fn act(&self, id: i64, what: &str) -> Value {
        let reply =
            self.service.post(&format!("/api/v1/backfills/{id}/{what}"), &Value::Null).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.json()
    }

    async fn show(&self, id: i64) -> Value {
        self.service.get(&format!("/api/v1/backfills/{id}")).await.json()
    }

    /// Waits until it says so.
    async fn wait(&self, id: i64, what: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + AMPLE;
        loop {
            let shown = self.show(id).await;
            if what(&shown) {
                return shown;
            }
            let log = || self.service.program.output().join("\n");
            assert!(Instant::now() < deadline, "{shown}\n{}", log());
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    /// Waits until it has ended, for as long as rows are read and sent.
    async fn done(&self, id: i64) -> Value {
        let mut before = Value::Null;
        loop {
            let moved = |shown: &Value| {
                shown["state"] != "running" || shown["rows_sent"] != before["rows_sent"]
            };
            before = self.wait(id, moved).await;
            if before["state"] != "running" {
                return before;
            }
        }
    }

    /// Waits until a row that is inserted now has come: all that was before it has.
    async fn drained(&self) {
        self.sql.batch_execute("INSERT INTO items (id) VALUES (-1)").await.unwrap();
        let deadline = Instant::now() + AMPLE;
        while !self.receiver.requests().iter().any(|request| request.json()["data"]["id"] == -1) {
            assert!(Instant::now() < deadline, "{}", self.service.program.output().join("\n"));
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        self.sql.batch_execute("DELETE FROM items WHERE id = -1").await.unwrap();
    }

    /// Nothing is pending, and the books say so.
    async fn balanced(&self) {
        let open = "SELECT coalesce(sum(pending), 0) - (SELECT count(*) FROM walhook.backlog)
                      FROM walhook.balance";
        crate::support::postgres::wait_for_text(&self.sql, open, "0").await;
    }
}

/// Rows as events of the operation `read`.
fn reads(requests: &[Request]) -> Vec<Value> {
    let bodies = requests.iter().map(Request::json);
    bodies.filter(|body| body["operation"] == "read").collect()
}

fn ids(bodies: &[Value]) -> Vec<i64> {
    bodies.iter().map(|body| body["data"]["id"].as_i64().unwrap()).collect()
}

/// What a receiver knows that takes events in the order of their arrival, each once.
#[derive(Debug, Default)]
struct Kept {
    rows: BTreeMap<i64, (i64, String)>,
    /// What came after something newer.
    older: Vec<String>,
    seen: BTreeSet<String>,
    /// The newest number of each key.
    newest: BTreeMap<i64, i64>,
}

impl Kept {
    fn of(requests: &[Request]) -> Self {
        let mut kept = Self::default();
        for request in requests {
            kept.take(request);
        }
        kept
    }

    fn take(&mut self, request: &Request) {
        if !self.seen.insert(request.header("webhook-id").to_owned()) {
            return; // a repeat
        }
        let body = request.json();
        let operation = body["operation"].as_str().unwrap();
        if operation == "truncate" {
            self.rows.clear();
            return;
        }
        let id = body["data"]["id"].as_i64().unwrap();
        if operation == "delete" {
            self.rows.remove(&id);
            return;
        }
        let version = body["data"]["version"].as_i64().unwrap();
        let newest = self.newest.entry(id).or_insert(version);
        if *newest > version {
            self.older.push(format!("{id}: {version} after {newest}, {operation}"));
        }
        *newest = version.max(*newest);
        let moved = body["old"]["id"].as_i64().filter(|old| *old != id);
        let before = self.rows.remove(&moved.unwrap_or(id));
        let large = body["data"]["large"].as_str().map(ToOwned::to_owned);
        if body["data"].as_object().unwrap().contains_key("large") || before.is_some() {
            let large = large.unwrap_or_else(|| before.map(|(_, large)| large).unwrap_or_default());
            self.rows.insert(id, (version, large));
        }
    }

    /// Against the table as it is.
    async fn must_be(&self, sql: &Sql) {
        assert!(self.older.is_empty(), "{:?}", self.older);
        let query = "SELECT coalesce(string_agg(id || ' ' || version || ' ' || md5(coalesce(large, '')), ','
                            ORDER BY id), '') FROM items WHERE id > 0";
        let table = sql.text(query).await;
        let mut lines = Vec::new();
        for (id, (version, large)) in self.rows.iter().filter(|(id, _)| **id > 0) {
            lines.push(format!(
                "{id} {version} {}",
                sql.text(&format!("SELECT md5('{large}')")).await
            ));
        }
        let kept = lines.join(",");
        assert!(kept == table, "kept:  {}\ntable: {}", shortened(&kept), shortened(&table));
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(2000).collect()
}
