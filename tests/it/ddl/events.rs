//! `on = ["schema"]`: receivers are told that a table has another shape, once, before the first row of it.

use serde_json::Value;
use serde_json::json;

use super::Load;
use crate::support::postgres::Database;
use crate::support::program::Program;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::always;
use crate::support::service::AMPLE;
use crate::support::service::Service;
use crate::support::service::configuration;

fn rules(on: &str, payload: &str, receiver: &Receiver) -> String {
    format!(
        "[[event]]\ntype = \"row\"\ntable = \"public.t\"\non = [{on}]\n{payload}\n\
         [webhook]\nurls = [\"{}\"]\n",
        receiver.url()
    )
}

fn names(body: &Value) -> Vec<&str> {
    let columns = body["data"]["columns"].as_array().unwrap();
    columns.iter().map(|column| column["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_shape_is_told_once_before_the_first_row_of_it_also_over_restarts() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute("CREATE TABLE t (id bigint PRIMARY KEY, n int)").await.unwrap();
    let receiver = Receiver::start(always(Answer::status(200)));
    let on = "\"insert\", \"schema\"";
    let toml = configuration(&database, &rules(on, "when = \"n != 13\"", &receiver));
    let mut service = Service::start(&toml).await;
    sql.batch_execute("INSERT INTO t VALUES (1, 1); INSERT INTO t VALUES (2, 2)").await.unwrap();
    let first = receiver.wait_for(3, AMPLE).await;
    let body = first[0].json();
    assert_eq!((&body["type"], &body["operation"]), (&json!("row"), &json!("schema")));
    assert_eq!(
        body["data"],
        json!({ "table": "public.t", "columns": [
            { "name": "id", "type": "integer", "key": true },
            { "name": "n", "type": "integer", "key": false },
        ] })
    );
    assert_eq!(first[1].json()["operation"], "insert");
    assert_ne!(first[0].header("webhook-id"), first[1].header("webhook-id"));
    service.stop().await;

    // What a restart and a new connection describe again is no news, and neither is a wider type.
    let mut service = Service::start(&toml).await;
    sql.batch_execute("ALTER TABLE t ALTER COLUMN n TYPE bigint; INSERT INTO t VALUES (3, 3)")
        .await
        .unwrap();
    receiver.wait_for(4, AMPLE).await;
    sql.batch_execute(
        "ALTER TABLE t ADD COLUMN note text; ALTER TABLE t RENAME n TO m;
         ALTER TABLE t RENAME m TO n; INSERT INTO t VALUES (4, 13), (5, 5)",
    )
    .await
    .unwrap();
    let all = receiver.wait_for(6, AMPLE).await;
    let told = all[4].json();
    assert_eq!(
        (told["operation"].as_str(), names(&told)),
        (Some("schema"), vec!["id", "n", "note"])
    );
    assert_eq!(all[5].json()["data"]["id"], 5, "row 4 told of the shape, and its filter keeps it");
    // Killed before or after: at most once for whoever had it, and the same id.
    service.program.kill();
    service.program.wait(AMPLE).await;
    let mut service = Service::start(&toml).await;
    sql.batch_execute(
        "INSERT INTO t VALUES (6, 6); ALTER TABLE t DROP COLUMN note; INSERT INTO t VALUES (7, 7)",
    )
    .await
    .unwrap();
    let mut count = 9;
    let told = loop {
        let all = receiver.wait_for(count, AMPLE).await;
        let told = all.iter().map(|one| (one.header("webhook-id").to_owned(), one.json()));
        let told: Vec<(String, Value)> = told.collect();
        if told.iter().any(|(_, body)| body["data"]["id"] == 7) {
            break told;
        }
        count = all.len() + 1;
    };
    let mut shapes: Vec<(String, Vec<&str>)> = told
        .iter()
        .filter(|(_, body)| body["operation"] == "schema")
        .map(|(id, body)| (id.clone(), names(body)))
        .collect();
    shapes.dedup();
    let shapes: Vec<Vec<&str>> = shapes.into_iter().map(|(_, names)| names).collect();
    assert_eq!(shapes, [vec!["id", "n"], vec!["id", "n", "note"], vec!["id", "n"]]);
    service.stop().await;
}

#[tokio::test]
async fn each_shape_stands_before_its_first_row_under_load() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute("CREATE TABLE t (id bigint PRIMARY KEY, n int NOT NULL DEFAULT 0)")
        .await
        .unwrap();
    let receiver = Receiver::start(always(Answer::status(200)));
    let on = "\"insert\", \"update\", \"schema\"";
    let toml = configuration(&database, &rules(on, "", &receiver));
    let mut service = Service::start(&toml).await;
    let mut load = Load::start(&database.url(), "t");
    load.go_on().await;
    for column in ["a", "b", "c"] {
        let add = format!("ALTER TABLE t ADD COLUMN {column} text DEFAULT 'x'");
        sql.batch_execute(&add).await.unwrap();
        load.go_on().await;
    }
    let rows = load.end().await;
    let all = receiver.wait_for(rows.len() + 4, AMPLE).await;
    let mut columns = Vec::new();
    let mut shapes = 0;
    for request in &all {
        let body = request.json();
        if body["operation"] == "schema" {
            columns = names(&body).into_iter().map(ToOwned::to_owned).collect();
            shapes += 1;
            continue;
        }
        let row = body["data"].as_object().unwrap();
        let mut named: Vec<&String> = row.keys().collect();
        let mut told: Vec<&String> = columns.iter().collect();
        named.sort();
        told.sort();
        assert_eq!(named, told, "{body}");
    }
    assert_eq!(shapes, 4);
    service.stop().await;
}

#[tokio::test]
async fn it_comes_in_each_payload_and_stands_in_the_schema() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute("CREATE TABLE t (id bigint PRIMARY KEY)").await.unwrap();
    for (round, payload) in
        ["payload = { own = \"{{ id }}\" }", "payload = \"cloudevents\"", "payload = \"debezium\""]
            .into_iter()
            .enumerate()
    {
        let receiver = Receiver::start(always(Answer::status(200)));
        let toml = configuration(&database, &rules("\"schema\"", payload, &receiver));
        let toml = toml.replace("_walhook\"", &format!("_walhook{round}\""));
        let mut service = Service::start(&toml).await;
        sql.batch_execute(&format!("INSERT INTO t VALUES ({round})")).await.unwrap();
        let body = receiver.wait_for(1, AMPLE).await[0].json();
        assert_eq!((&body["operation"], names(&body)), (&json!("schema"), vec!["id"]), "{body}");
        assert_eq!(body["type"], "row");
        service.stop().await;
        let mut schema = Program::start(&["schema"], &toml, &[]);
        assert_eq!(schema.wait(AMPLE).await, Some(0));
        let text = schema.output().join("\n");
        assert!(text.contains("\"columns\"") && text.contains("\"schema\""), "{text}");
    }
    let receiver = Receiver::start(always(Answer::status(200)));
    let dedupe = "dedupe = { by = [\"id\"], window = \"1h\" }";
    let toml = configuration(&database, &rules("\"insert\", \"schema\"", dedupe, &receiver));
    let mut check = Program::start(&["check"], &toml, &[]);
    assert_eq!(check.wait(AMPLE).await, Some(2));
    assert!(check.output().join("\n").contains("an [[event]] of its own"));
}
