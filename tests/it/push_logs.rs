//! The push log, asked over the API and by command.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test may stop at once")]

use std::collections::BTreeSet;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;
use serde_json::json;

use crate::support::postgres::Database;
use crate::support::postgres::wait_for_text;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::Request;
use crate::support::receiver::always;
use crate::support::receiver::in_turn;
use crate::support::service::AMPLE;
use crate::support::service::Reply;
use crate::support::service::Service;
use crate::support::service::configuration;

async fn attempts(service: &Service, query: &str, count: usize) -> Vec<Value> {
    let deadline = Instant::now() + AMPLE;
    loop {
        let reply: Reply = service.get(&format!("/api/v1/push-logs{query}")).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let found = reply.json()["push_logs"].as_array().unwrap().clone();
        if found.len() == count {
            return found;
        }
        assert!(Instant::now() < deadline, "{query}: {found:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn each_attempt_of_a_task_is_shown_with_its_secrets_masked() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute("CREATE TABLE tasks (id text PRIMARY KEY)").await.unwrap();
    let busy = Answer::status(503).body("busy");
    let answers = vec![busy.clone(), busy, Answer::status(200).body("ok")];
    let receiver = Receiver::start(in_turn(answers));
    let rest = format!(
        "[push_log]\nbodies = \"all\"\n\n[[event]]\ntype = \"task.done\"\ntable = \"public.tasks\"\n\n\
         [[endpoint]]\nname = \"idp\"\nurl = \"{}?secret=in-the-url\"\n\
         retry = {{ max = 3, interval = \"5ms\" }}\nauth = {{ bearer = \"a-token-nobody-may-see\" }}\n",
        receiver.url()
    );
    let mut service = Service::start(&configuration(&database, &rest)).await;
    sql.batch_execute("INSERT INTO tasks VALUES ('T_20251214_0001')").await.unwrap();
    receiver.wait_for(3, AMPLE).await;
    let found = attempts(&service, "?task_id=T_20251214_0001", 3).await;
    let [last, _, first] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(
        (&first["task_id"], &first["webhook_id"]),
        (&json!("T_20251214_0001"), &json!("idp"))
    );
    assert_eq!((&first["http_status"], &first["retry_count"]), (&json!(503), &json!(0)));
    assert_eq!((&first["outcome"], &first["response_body"]), (&json!("retry"), &json!("busy")));
    assert_eq!((&last["http_status"], &last["retry_count"]), (&json!(200), &json!(2)));
    assert_eq!((&last["outcome"], &last["response_body"]), (&json!("delivered"), &json!("ok")));
    assert!(last["duration_ms"].as_f64().unwrap() > 0.0);
    assert!(last["created_at"].as_str().unwrap().ends_with('Z'));
    assert!(last["response_headers"].is_object());
    let body: Value = serde_json::from_str(last["request_body"].as_str().unwrap()).unwrap();
    assert_eq!(body["data"]["id"], "T_20251214_0001");
    let headers = last["request_headers"].to_string();
    assert!(headers.contains("webhook-id") && headers.contains("authorization"), "{headers}");
    let everything = Value::Array(found.clone()).to_string();
    for secret in ["nobody-may-see", "in-the-url"] {
        assert!(!everything.contains(secret), "{everything}");
    }

    assert_found_by_what_people_know(&service, last, first).await;
    let (code, table) = service.cli(&["push-log", "--task-id", "T_20251214_0001"]).await;
    assert!(code == Some(0) && table.lines().count() == 4, "{table}");
    let (code, json) = service.cli(&["push-log", "--outcome", "delivered", "--json"]).await;
    assert_eq!(code, Some(0), "{json}");
    let answer: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(answer["push_logs"].as_array().unwrap().len(), 1);
    service.stop().await;
}

async fn assert_found_by_what_people_know(service: &Service, last: &Value, first: &Value) {
    let event = last["event_id"].as_str().unwrap();
    let time = last["created_at"].as_str().unwrap();
    let cases = [
        (format!("?event_id={event}"), 3),
        (String::from("?status=503"), 2),
        (String::from("?outcome=delivered&endpoint=idp"), 1),
        (String::from("?class=status"), 2),
        (format!("?before={time}&outcome=delivered"), 0),
        (String::from("?from=2020-01-01"), 3),
    ];
    for (query, expected) in cases {
        attempts(service, &query, expected).await;
    }
    let page = service.get("/api/v1/push-logs?limit=2").await.json();
    let cursor = page["next_cursor"].as_str().unwrap();
    let rest = attempts(service, &format!("?limit=2&cursor={cursor}"), 1).await;
    assert_eq!(rest[0], *first);
    for (query, detail) in [
        ("?stauts=500", "did you mean status?"),
        ("?status=many", "number from 100 to 999"),
        ("?cursor=x", "is no cursor"),
        ("?outcome=ok", "one of delivered, retry, dead"),
        ("?event_id=7", "is not an event id"),
    ] {
        let reply = service.get(&format!("/api/v1/push-logs{query}")).await;
        assert_eq!(reply.status, 400, "{query}");
        assert!(reply.body.contains(detail), "{query}: {}", reply.body);
    }
}

/// A database with tasks, delivered to two endpoints; bodies as `bodies` says.
async fn delivered(bodies: &str, tasks: usize) -> (Database, Service, [Receiver; 2], String) {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute("CREATE TABLE tasks (id text PRIMARY KEY, note text)").await.unwrap();
    let receivers = [always(Answer::status(200)), always(Answer::status(200))].map(Receiver::start);
    let rest = format!(
        "[push_log]\nbodies = \"{bodies}\"\nbody_limit = \"1KiB\"\n\n\
         [[event]]\ntype = \"task.done\"\ntable = \"public.tasks\"\n\n\
         [[endpoint]]\nname = \"crm\"\nurl = \"{}\"\nsecret = \"{SECRET}\"\n\n\
         [[endpoint]]\nname = \"erp\"\nurl = \"{}\"\n",
        receivers[0].url(),
        receivers[1].url()
    );
    let toml = configuration(&database, &rest);
    let service = Service::start(&toml).await;
    let all = format!("INSERT INTO tasks SELECT 'T_' || n, 'x' FROM generate_series(1, {tasks}) n");
    sql.batch_execute(&all).await.unwrap();
    for receiver in &receivers {
        receiver.wait_for(tasks, AMPLE).await;
    }
    // Each is of a key of its own, so they are written in any order.
    let written = "SELECT count(*) FROM walhook.push_log WHERE outcome = 'delivered'";
    wait_for_text(&sql, written, &(2 * tasks).to_string()).await;
    (database, service, receivers, toml)
}

const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// Waits until a replay is done, and returns it.
async fn done(service: &Service, id: &Value) -> Value {
    let deadline = Instant::now() + AMPLE;
    loop {
        let order = service.get(&format!("/api/v1/replay/{id}")).await.json();
        if order["state"] != "running" {
            return order;
        }
        assert!(Instant::now() < deadline, "{order}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn delivered_events_are_sent_again_once_signed_anew_and_in_no_books() {
    let (database, mut service, [crm, erp], _) = delivered("all", 3).await;
    let sql = database.sql().await;
    // Its body is longer than what is kept.
    sql.batch_execute("INSERT INTO tasks VALUES ('T_4', repeat('x', 2000))").await.unwrap();
    crm.wait_for(4, AMPLE).await;
    attempts(&service, "?key=T_4", 2).await;
    let balance = "SELECT string_agg(concat_ws(' ', endpoint, captured, delivered, dead, pending),
                       ', ' ORDER BY endpoint) FROM walhook.balance";
    assert_eq!(sql.text(balance).await, "crm 4 4 0 0, erp 4 4 0 0");

    let dry = json!({ "webhook_id": "crm", "all": true, "dry_run": true });
    let reply = service.post("/api/v1/replay", &dry).await;
    assert_eq!((&reply.json()["events"], &reply.json()["body_cut"]), (&json!(3), &json!(1)));
    let order = json!({ "endpoint": "crm", "event_type": "task.done", "rate": 1000 });
    let reply = service.post("/api/v1/replay", &order).await;
    assert_eq!(reply.status, 202, "{reply:?}");
    let replay = &reply.json()["replays"][0];
    let order = done(&service, &replay["id"]).await;
    assert_eq!((&order["delivered"], &order["without_body"]), (&json!(3), &json!(1)), "{order}");
    // Each was of a key of its own, so they come in any order.
    let mut requests = crm.wait_for(7, AMPLE).await;
    let mut again = requests.split_off(4);
    let id = |request: &Request| request.header("webhook-id").to_owned();
    requests.sort_by_key(id);
    again.sort_by_key(id);
    let first = requests.iter().filter(|r| again.iter().any(|a| id(a) == id(r)));
    for (before, after) in first.zip(&again) {
        assert_eq!(after.body, before.body);
        assert_eq!(after.headers["webhook-id"], before.headers["webhook-id"]);
        assert_eq!(after.headers["webhook-replay"], "true");
        assert!(after.headers.contains_key("webhook-signature"));
    }
    let log = attempts(&service, "?key=T_1&endpoint=crm", 2).await;
    assert_eq!((&log[0]["replay"], &log[1]["replay"]), (&json!(true), &json!(false)));
    assert_eq!(erp.count(), 4, "the other endpoint is not meant");
    assert_eq!(sql.text(balance).await, "crm 4 4 0 0, erp 4 4 0 0");

    // By key, by command; what was replayed before goes out once more, and not twice.
    let (code, said) = service.cli(&["replay", "--task-id", "T_2", "--dry-run"]).await;
    assert_eq!((code, said.as_str()), (Some(0), "2 events would be sent again"));
    let (code, said) = service.cli(&["replay", "--task-id", "T_2"]).await;
    assert!(code == Some(0) && said.contains("2 events to be sent again"), "{said}");
    crm.wait_for(8, AMPLE).await;
    erp.wait_for(5, AMPLE).await;
    let (code, table) = service.cli(&["replay", "list"]).await;
    assert!(code == Some(0) && table.lines().count() == 4, "{table}");
    service.stop().await;
    assert_eq!((crm.count(), erp.count()), (8, 5));
}

#[tokio::test]
async fn without_bodies_a_replay_is_refused_with_the_reason() {
    let (_database, mut service, _receivers, _) = delivered("failures", 2).await;
    let reply = service.post("/api/v1/replay", &json!({ "all": true })).await;
    assert_eq!(reply.status, 409);
    let detail = reply.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("4 have no body"), "{detail}");
    assert!(detail.contains("[push_log] bodies = \"all\""), "{detail}");
    let cases = [
        (json!({}), 400, "say which events"),
        (json!({ "rate": 0, "all": true }), 400, "rate must be a number from 1"),
        (json!({ "endpoint": "cmr" }), 409, "there are: crm, erp"),
        (json!({ "key": "none" }), 409, "knows no delivered event like that"),
    ];
    for (body, status, detail) in cases {
        let reply = service.post("/api/v1/replay", &body).await;
        assert_eq!(reply.status.as_u16(), status, "{body}");
        assert!(reply.body.contains(detail), "{body}: {}", reply.body);
    }
    assert_eq!(service.get("/api/v1/replay/7").await.status, 404);
    service.stop().await;
}

#[tokio::test]
async fn of_a_batch_each_event_is_found_and_a_failure_of_it_is_kept_whole() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute("CREATE TABLE tasks (id text PRIMARY KEY)").await.unwrap();
    let receiver = Receiver::start(in_turn(vec![Answer::status(503), Answer::status(200)]));
    let rest = format!(
        "[[event]]\ntype = \"task.done\"\ntable = \"public.tasks\"\n\n[[endpoint]]\nname = \"crm\"\n\
         url = \"{}\"\nbatch = {{ size = 30, linger = \"5s\" }}\n\
         retry = {{ max = 3, interval = \"5ms\" }}\n",
        receiver.url()
    );
    let mut service = Service::start(&configuration(&database, &rest)).await;
    let insert = "INSERT INTO tasks SELECT 'T_' || n FROM generate_series(1, 30) n";
    sql.batch_execute(insert).await.unwrap();
    receiver.wait_for(2, AMPLE).await;
    attempts(&service, "?limit=200", 60).await;
    let stored = "SELECT (SELECT count(*) FROM walhook.push_log_events) || ' ' ||
                         (SELECT string_agg(events::text, ' ') FROM walhook.push_log_batches)";
    assert_eq!(sql.text(stored).await, "30 30");
    let found = attempts(&service, "?task_id=T_7", 2).await;
    let [second, first] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((&first["outcome"], &second["outcome"]), (&json!("retry"), &json!("delivered")));
    assert_eq!((&first["retry_count"], &second["retry_count"]), (&json!(0), &json!(1)));
    assert_eq!((&first["http_status"], &second["http_status"]), (&json!(503), &json!(200)));
    assert_eq!((&first["event_id"], &first["task_id"]), (&second["event_id"], &json!("T_7")));
    assert!(first["request_body"].as_str().unwrap().contains("T_7"), "{first}");
    assert!(second["request_body"].is_null() && second["request_headers"].is_object(), "{second}");

    // Nothing of the batch can be sent again, and each of its events is counted.
    for (order, detail) in [
        (json!({ "all": true }), "30 have no body"),
        (json!({ "key": "T_7" }), "1 have no body"),
        (json!({ "event_id": first["event_id"] }), "1 have no body"),
        (json!({ "key": "T_31" }), "knows no delivered event like that"),
    ] {
        let reply = service.post("/api/v1/replay", &order).await;
        assert_eq!(reply.status, 409, "{order}: {reply:?}");
        assert!(reply.body.contains(detail), "{order}: {reply:?}");
    }
    service.stop().await;
}

#[tokio::test]
async fn a_replay_goes_on_after_a_kill_and_can_be_cancelled() {
    const TASKS: usize = 200;
    let (_database, mut service, [crm, _erp], toml) = delivered("all", TASKS).await;
    let order = json!({ "endpoint": "crm", "all": true, "rate": 200 });
    let reply = service.post("/api/v1/replay", &order).await;
    assert_eq!(reply.json()["events"], TASKS, "{reply:?}");
    let id = reply.json()["replays"][0]["id"].clone();
    crm.wait_for(TASKS + 80, AMPLE).await;
    service.program.kill();
    service.program.wait(AMPLE).await;
    let mut heir = Service::start(&toml).await;
    let order = done(&heir, &id).await;
    assert_eq!((&order["state"], &order["delivered"]), (&json!("done"), &json!(TASKS)), "{order}");
    let replayed = crm.requests().split_off(TASKS);
    let ids: BTreeSet<_> = replayed
        .iter()
        .map(|request| request.headers["webhook-id"].clone().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(ids.len(), TASKS);
    assert!(replayed.len() <= TASKS + 64, "{} repeats", replayed.len() - TASKS);

    let slow = json!({ "endpoint": "crm", "before": "2100-01-01", "rate": 1 });
    let id = heir.post("/api/v1/replay", &slow).await.json()["replays"][0]["id"].clone();
    let cancelled = heir.ask("DELETE", &format!("/api/v1/replay/{id}"), None).await;
    assert_eq!(cancelled.json()["state"], "cancelled", "{cancelled:?}");
    let again = heir.ask("DELETE", &format!("/api/v1/replay/{id}"), None).await;
    assert_eq!(again.status, 409);
    heir.stop().await;
}

#[tokio::test]
async fn a_paused_replay_waits_through_a_restart_and_goes_on_where_it_was() {
    const TASKS: usize = 200;
    let (_database, mut service, [crm, _erp], toml) = delivered("all", TASKS).await;
    let order = json!({ "endpoint": "crm", "all": true, "rate": 100 });
    let reply = service.post("/api/v1/replay", &order).await;
    let id = reply.json()["replays"][0]["id"].to_string();
    crm.wait_for(TASKS + 1, AMPLE).await;
    let (code, said) = service.cli(&["replay", "pause", &id]).await;
    assert!(code == Some(0) && said.contains("paused"), "{said}");
    let (code, said) = service.cli(&["replay", "pause", &id]).await;
    assert!(code == Some(1) && said.contains("is paused: only one that is running"), "{said}");
    // A clean end waits for what was on its way.
    service.stop().await;
    let sent = crm.count() - TASKS;
    assert!(sent < TASKS, "{sent}");
    let mut heir = Service::start(&toml).await;
    let path = format!("/api/v1/replay/{id}");
    assert_eq!(heir.get(&path).await.json()["state"], "paused");
    let (code, said) = heir.cli(&["replay", "resume", &id]).await;
    assert!(code == Some(0) && said.contains("running"), "{said}");
    let order = done(&heir, &json!(id.parse::<i64>().unwrap())).await;
    assert_eq!((&order["state"], &order["delivered"]), (&json!("done"), &json!(TASKS)), "{order}");
    let again = heir.post(&format!("{path}/resume"), &json!({})).await;
    assert_eq!(again.status, 409);
    heir.stop().await;
}

#[tokio::test]
async fn the_document_describes_what_is_there_and_the_token_guards_it() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute("CREATE TABLE tasks (id text PRIMARY KEY)").await.unwrap();
    let token = "a-token-of-sixteen-or-more";
    let rest = "[[event]]\ntype = \"task.done\"\ntable = \"public.tasks\"\n\n[webhook]\n\
                urls = [\"http://127.0.0.1:9/\"]\n";
    let toml = configuration(&database, rest)
        .replace("[http]\n", &format!("[http]\ntoken = \"{token}\"\n"));
    let mut service = Service::start(&toml).await;
    let document = service.ask("GET", "/api/v1/openapi.json", Some(token)).await.json();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let (method, path) =
                (method.to_uppercase(), path.replace("{id}", "999").replace("{name}", "nobody"));
            let without = service.ask(&method, &path, None).await;
            let is_open = operation.get("security").is_some();
            assert_eq!(without.status == 401, !is_open, "{method} {path}");
            if path == "/api/v1/live" {
                continue; // whoever may ask is answered without end
            }
            let reply = service.ask(&method, &path, Some(token)).await;
            assert_ne!(reply.status, 405, "{method} {path}");
            assert!(!reply.body.contains("there is nothing at"), "{method} {path}");
            let status = reply.status.as_u16().to_string();
            assert!(operation["responses"].get(&status).is_some(), "{method} {path}: {reply:?}");
        }
    }
    let (code, said) = service.cli(&["push-log"]).await;
    assert!(code == Some(2) && said.contains("wants its token"), "{said}");
    service.stop().await;
}
