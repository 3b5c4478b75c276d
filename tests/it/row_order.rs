//! The order of arrival where it is not the primary key that tells a row: identity indexes, whole old
//! rows, `order_by`, and TRUNCATE, which concerns every row.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test may stop at once")]

use std::sync::Arc;
use std::sync::Mutex;

use serde_json::Value;

use crate::support::postgres::Database;
use crate::support::postgres::wait_for_text;
use crate::support::receiver::Answer;
use crate::support::receiver::Behaviour;
use crate::support::receiver::Receiver;
use crate::support::receiver::Request;
use crate::support::receiver::always;
use crate::support::service::AMPLE;
use crate::support::service::Service;
use crate::support::service::configuration;

/// Refuses the first attempt of each event that `is_meant`.
fn refuse_once(is_meant: impl Fn(&Request) -> bool + Send + Sync + 'static) -> Behaviour {
    let refused: Mutex<Vec<String>> = Mutex::default();
    Arc::new(move |request| {
        let mut refused = refused.lock().unwrap();
        let id = request.header("webhook-id").to_owned();
        if is_meant(request) && !refused.contains(&id) {
            refused.push(id);
            return Answer::status(503);
        }
        Answer::status(200)
    })
}

/// The events in the order in which they were accepted: an attempt that is repeated was not.
fn accepted(receiver: &Receiver) -> Vec<Value> {
    let requests = receiver.requests();
    let id = |request: &Request| request.header("webhook-id").to_owned();
    let is_last = |&(at, request): &(usize, &Request)| {
        !requests[at + 1..].iter().any(|later| id(later) == id(request))
    };
    requests.iter().enumerate().filter(is_last).map(|(_, request)| request.json()).collect()
}

fn events(tables: &[&str]) -> String {
    let event = |table: &&str| {
        format!(
            "[[event]]\ntype = \"{table}\"\ntable = \"public.{table}\"\n\
             on = [\"insert\", \"update\", \"delete\", \"truncate\"]\n\n"
        )
    };
    tables.iter().map(event).collect()
}

fn endpoint(url: &str) -> String {
    format!(
        "[[endpoint]]\nname = \"shop\"\nurl = \"{url}\"\nevents = [\"*\"]\nconcurrency = 8\n\
         retry = {{ max = 100, interval = \"50ms\", cap = \"100ms\" }}\n"
    )
}

#[tokio::test]
async fn the_changes_of_a_row_arrive_in_order_whatever_its_identity() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(
        "CREATE TABLE by_index (id int PRIMARY KEY, code text NOT NULL UNIQUE, v text);
         ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_code_key;
         CREATE TABLE pair (id int PRIMARY KEY, a int NOT NULL, b text NOT NULL, v text,
                            UNIQUE (b, a));
         ALTER TABLE pair REPLICA IDENTITY USING INDEX pair_b_a_key;
         CREATE TABLE whole (id int, code text, v text);
         ALTER TABLE whole REPLICA IDENTITY FULL;
         CREATE TABLE by_customer (id int PRIMARY KEY, code text, v text)",
    )
    .await
    .unwrap();
    let is_update = |request: &Request| request.json()["data"]["v"] == "changed";
    let receiver = Receiver::start(refuse_once(is_update));
    let tables = ["by_index", "pair", "whole", "by_customer"];
    let events = events(&tables).replacen(
        "table = \"public.by_customer\"\n",
        "table = \"public.by_customer\"\norder_by = [\"code\"]\n",
        1,
    );
    let toml = format!("{events}{}", endpoint(&receiver.url()));
    let mut service = Service::start(&configuration(&database, &toml)).await;
    let rows = 10;
    for row in 1..=rows {
        for (table, columns) in [
            ("by_index", format!("{row}, 'c{row}', 'new'")),
            ("pair", format!("{row}, {row}, 'b', 'new'")),
            ("whole", format!("{row}, 'c{row}', 'new'")),
            ("by_customer", format!("{row}, 'c{row}', 'new'")),
        ] {
            sql.batch_execute(&format!(
                "INSERT INTO {table} VALUES ({columns});
                 UPDATE {table} SET v = 'changed' WHERE id = {row};
                 DELETE FROM {table} WHERE id = {row}"
            ))
            .await
            .unwrap();
        }
    }
    let all = rows * 3 * tables.len();
    let delivered = "walhook_deliveries_total{endpoint=\"shop\",outcome=\"delivered\"}";
    service.wait_for_metric(delivered, all as f64).await;
    // Every attempt names its row.
    let nameless = "SELECT count(*) FROM walhook.push_log WHERE coalesce(row_key, '') = ''";
    wait_for_text(&sql, "SELECT count(*) >= 120 FROM walhook.push_log", "t").await;
    assert_eq!(sql.text(nameless).await, "0");
    service.stop().await;

    let accepted = accepted(&receiver);
    assert_eq!(accepted.len(), all);
    for table in tables {
        let (column, prefix) = match table {
            "pair" => ("a", ""),
            "by_index" | "whole" => ("code", "c"),
            _ => ("id", ""),
        };
        for row in 1..=rows {
            let is_of_row = |event: &&Value| {
                let value = &event["data"][column];
                let text = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
                event["type"] == table && text == format!("{prefix}{row}")
            };
            let seen: Vec<&Value> =
                accepted.iter().filter(is_of_row).map(|event| &event["data"]["v"]).collect();
            assert_eq!(seen.len(), 3, "{table} {row}: {seen:?}");
            assert_eq!((seen[0], seen[1]), (&"new".into(), &"changed".into()), "{table} {row}");
        }
    }
}

/// What a copy that follows the events has: `a:1` and so on.
fn copy(events: &[Value]) -> Vec<String> {
    let mut copy = Vec::new();
    for event in events {
        let table = event["type"].as_str().unwrap();
        match event["data"]["id"].as_i64() {
            Some(id) => copy.push(format!("{table}:{id}")),
            None => copy.retain(|row: &String| !row.starts_with(&format!("{table}:"))),
        }
    }
    copy.sort();
    copy
}

const TWO_TABLES: &str = "CREATE TABLE a (id int PRIMARY KEY);
                          CREATE TABLE b (id int PRIMARY KEY)";

#[tokio::test]
async fn a_truncate_arrives_between_what_came_before_it_and_what_came_after() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(TWO_TABLES).await.unwrap();
    let is_meant = |request: &Request| {
        let row = &request.json()["data"];
        row.is_null() || row["id"] == 2 || row["id"] == 11
    };
    let receiver = Receiver::start(refuse_once(is_meant));
    let toml = format!("{}{}", events(&["a", "b"]), endpoint(&receiver.url()));
    let mut service = Service::start(&configuration(&database, &toml)).await;
    sql.batch_execute("INSERT INTO a VALUES (1), (2); INSERT INTO b VALUES (1), (11)")
        .await
        .unwrap();
    sql.batch_execute("TRUNCATE a, b").await.unwrap();
    sql.batch_execute("INSERT INTO a VALUES (3), (4); INSERT INTO b VALUES (5)").await.unwrap();
    let delivered = "walhook_deliveries_total{endpoint=\"shop\",outcome=\"delivered\"}";
    service.wait_for_metric(delivered, 9.0).await;
    service.stop().await;
    assert_eq!(copy(&accepted(&receiver)), ["a:3", "a:4", "b:5"]);
}

#[tokio::test]
async fn a_truncate_keeps_its_place_in_the_backlog_and_through_a_kill() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(TWO_TABLES).await.unwrap();
    let receiver = Receiver::start(always(Answer::Close));
    let toml = format!(
        "{}[webhook]\nqueue_capacity = 10\n\
         breaker = {{ failures = 3, cooldown = \"100ms\", cap = \"200ms\" }}\n\n{}",
        events(&["a", "b"]),
        endpoint(&receiver.url())
    );
    let toml = configuration(&database, &toml);
    let mut service = Service::start(&toml).await;
    sql.batch_execute("INSERT INTO a SELECT generate_series(1, 30); INSERT INTO b VALUES (1)")
        .await
        .unwrap();
    sql.batch_execute("TRUNCATE a").await.unwrap();
    sql.batch_execute("INSERT INTO a SELECT generate_series(31, 60)").await.unwrap();
    wait_for_text(&sql, "SELECT count(*) FROM walhook.backlog", "62").await;
    service.program.kill();
    service.program.wait(AMPLE).await;

    let is_meant = |request: &Request| {
        let row = &request.json()["data"];
        row.is_null() || row["id"].as_i64().is_some_and(|id| id % 7 == 0)
    };
    let recovered = Receiver::start(refuse_once(is_meant));
    let mut again = Service::start(&toml.replace(&receiver.url(), &recovered.url())).await;
    wait_for_text(&sql, "SELECT count(*) FROM walhook.backlog", "0").await;
    again.stop().await;
    let expected: Vec<String> =
        (31..=60).map(|id| format!("a:{id}")).chain(["b:1".into()]).collect();
    assert_eq!(copy(&accepted(&recovered)), expected);
}
