//! Endpoints that are made, changed and removed over the API while walhook runs: effective with the
//! next row, kept across restarts and kills, their secrets sealed; and nobody else is disturbed.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test may stop at once")]
#![expect(clippy::panic, reason = "a test may stop at once, and then shows the whole answer")]

mod filters;
mod gauges;
mod keys;
mod load;
mod moves;
mod refusals;
mod webhook_api;

use std::net::SocketAddr;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::postgres::Database;
use crate::support::postgres::Sql;
use crate::support::postgres::wait_for_text;
use crate::support::program::Program;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::always;
use crate::support::service::AMPLE;
use crate::support::service::Service;
use crate::support::service::configuration;

const TABLE: &str = "CREATE TABLE orders (id int PRIMARY KEY, note text)";

/// 32 bytes each, in base64.
const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const OTHER_KEY: &str = "Hx4dHBsaGRgXFhUUExIREA8ODQwLCgkIBwYFBAMCAQA=";

const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// Loopback may be dialled, for the receivers of these tests.
fn toml(database: &Database, key: &str, rest: &str) -> String {
    let key = if key.is_empty() { String::new() } else { format!("[state]\nkey = {key}\n") };
    let rest = format!(
        "{key}[endpoints]\nallow = [\"127.0.0.1\"]\n\n\
         [[event]]\ntype = \"order\"\ntable = \"public.orders\"\n\n\
         [webhook]\nretry_interval = \"20ms\"\nmax_retries = 100\nretry_cap = \"100ms\"\n\
         breaker = {{ failures = 5, cooldown = \"50ms\", cap = \"100ms\" }}\n{rest}"
    );
    configuration(database, &rest)
}

fn one(key: &str) -> String {
    format!("\"{key}\"")
}

/// One call of the API: the status and the body.
async fn call(address: SocketAddr, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let body = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"));
    (status, body)
}

/// One that has to go well.
async fn done(service: &Service, method: &str, path: &str, body: &Value) -> Value {
    let (status, answer) = call(service.http, method, path, body).await;
    assert!(status < 300, "{method} {path}: {status} {answer}\n{}", log(service));
    answer
}

fn log(service: &Service) -> String {
    service.program.output().join("\n")
}

async fn insert(sql: &Sql, ids: std::ops::RangeInclusive<i32>) {
    let (from, to) = (ids.start(), ids.end());
    sql.batch_execute(&format!("INSERT INTO orders SELECT n FROM generate_series({from}, {to}) n"))
        .await
        .unwrap();
}

fn ids(receiver: &Receiver) -> Vec<i64> {
    receiver.requests().iter().map(|r| r.json()["data"]["id"].as_i64().unwrap()).collect()
}

async fn set_up(rest: &str) -> (Database, Sql, String) {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(TABLE).await.unwrap();
    let toml = toml(&database, &one(KEY), rest);
    (database, sql, toml)
}

fn receiver() -> Receiver {
    Receiver::start(always(Answer::status(200)))
}

#[tokio::test]
async fn an_endpoint_that_is_made_gets_the_next_row_and_is_there_after_restart_and_kill() {
    let (_database, sql, toml) = set_up("").await;
    let receiver = receiver();
    let mut service = Service::start(&toml).await;
    let document = json!({ "name": "crm", "url": receiver.url(), "secret": SECRET });
    let made = done(&service, "POST", "/api/v1/endpoints", &document).await;
    assert_eq!((&made["source"], &made["state"]), (&json!("api"), &json!("enabled")));
    assert_eq!(made["endpoint"]["secret"], "[secret]");
    assert_eq!(made["created_by"], "127.0.0.1");
    insert(&sql, 1..=3).await;
    let requests = receiver.wait_for(3, AMPLE).await;
    assert!(requests[0].header("webhook-signature").starts_with("v1,"));

    let stored = sql
        .text("SELECT settings::text || encode(sealed_secrets, 'escape') FROM walhook.endpoints")
        .await;
    assert!(!stored.contains("AAECAwQF") && stored.contains("[secret]"), "{stored}");
    assert!(!log(&service).contains("AAECAwQF"));

    service.stop().await;
    insert(&sql, 4..=4).await;
    let service = Service::start(&toml).await;
    receiver.wait_for(4, AMPLE).await;
    service.program.kill();
    insert(&sql, 5..=5).await;
    let service = Service::start(&toml).await;
    let deadline = Instant::now() + AMPLE;
    while !ids(&receiver).contains(&5) {
        assert!(Instant::now() < deadline, "{:?}\n{}", ids(&receiver), log(&service));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let listed = done(&service, "GET", "/api/v1/endpoints", &Value::Null).await;
    assert_eq!(listed["endpoints"][0]["endpoint"]["secret"], "[secret]");
    let metrics = service.get("/metrics").await.body;
    assert!(metrics.contains("walhook_deliveries_total{endpoint=\"crm\""));
}

#[tokio::test]
async fn many_are_listed_page_by_page_and_found_by_their_names() {
    let (_database, sql, toml) = set_up("").await;
    let receiver = receiver();
    let service = Service::start(&toml).await;
    let names = ["crm-a", "crm-b", "erp", "crm-c", "shop"];
    for name in names {
        let document = json!({ "name": name, "url": receiver.url() });
        done(&service, "POST", "/api/v1/endpoints", &document).await;
    }
    let of = |answer: &Value| -> Vec<String> {
        let endpoints = answer["endpoints"].as_array().unwrap().iter();
        endpoints.map(|one| one["name"].as_str().unwrap().to_owned()).collect()
    };
    let get =
        async |query: &str| done(&service, "GET", &format!("/api/v1/{query}"), &Value::Null).await;
    let (mut seen, mut next) = (Vec::new(), String::new());
    let mut pages = 0;
    loop {
        pages += 1;
        let page = get(&format!("endpoints?limit=2{next}")).await;
        assert_eq!(page["total"], 5, "{page}");
        seen.extend(of(&page));
        match page["next_cursor"].as_str() {
            Some(cursor) => next = format!("&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!((pages, seen), (3, names.map(str::to_owned).to_vec()));
    let named = get("endpoints?name=CRM&limit=3").await;
    assert_eq!(
        (of(&named).len(), &named["total"], &named["next_cursor"]),
        (3, &json!(3), &Value::Null)
    );
    let (status, refused) =
        call(service.http, "GET", "/api/v1/endpoints?cursor=x", &Value::Null).await;
    assert_eq!(status, 400, "{refused}");

    // Of too many the status shows those that an operator has to see, in the order of all.
    done(&service, "POST", "/api/v1/endpoints/shop/disable", &json!({})).await;
    done(&service, "POST", "/api/v1/endpoints/crm-b/pause", &json!({})).await;
    insert(&sql, 1..=1).await;
    let status = get("status?limit=2").await;
    assert_eq!(
        (of(&status), &status["endpoints_total"]),
        (vec!["crm-b".into(), "shop".into()], &json!(5))
    );
    assert_eq!(of(&get("status?name=erp").await), ["erp"]);
    assert_eq!(of(&get("status").await), names);

    let url = format!("http://{}", service.http);
    let mut list = Program::start(&["endpoints", "list", "--json", "--url", &url], &toml, &[]);
    assert_eq!(list.wait(AMPLE).await, Some(0));
    let listed: Value = serde_json::from_str(&list.output().join("\n")).unwrap();
    assert_eq!(of(&listed), names);
}

#[tokio::test]
async fn changes_hold_from_the_next_request_on() {
    let (_database, sql, toml) = set_up("").await;
    let (first, second) = (receiver(), receiver());
    let service = Service::start(&toml).await;
    let document = json!({ "name": "crm", "url": first.url(), "secret": SECRET });
    done(&service, "POST", "/api/v1/endpoints", &document).await;
    insert(&sql, 1..=1).await;
    first.wait_for(1, AMPLE).await;
    // What was shown can be given back: the secret stays.
    let path = "/api/v1/endpoints/crm";
    let mut shown = done(&service, "GET", path, &Value::Null).await["endpoint"].clone();
    shown["url"] = json!(second.url());
    done(&service, "PUT", path, &shown).await;
    insert(&sql, 2..=2).await;
    let moved = second.wait_for(1, AMPLE).await;
    assert!(moved[0].header("webhook-signature").starts_with("v1,"));
    // A patch says only what changes; null takes away.
    let patch = json!({ "when": "id > 3", "secret": null, "headers": { "X-Tenant": "a" } });
    done(&service, "PATCH", path, &patch).await;
    insert(&sql, 3..=4).await;
    let filtered = second.wait_for(2, AMPLE).await;
    assert_eq!(filtered[1].json()["data"]["id"], 4);
    assert_eq!(filtered[1].header("webhook-signature"), "");
    assert_eq!(filtered[1].header("x-tenant"), "a");
    assert_eq!(first.count(), 1);
    service
        .wait_for_metric("walhook_deliveries_total{endpoint=\"crm\",outcome=\"filtered\"}", 1.0)
        .await;
}

#[tokio::test]
async fn a_disabled_endpoint_gets_nothing_and_keeps_what_waits_for_it() {
    let (_database, sql, toml) = set_up("").await;
    let receiver = Receiver::start(always(Answer::status(503)));
    let mut service = Service::start(&toml).await;
    let document = json!({ "name": "crm", "url": receiver.url() });
    done(&service, "POST", "/api/v1/endpoints", &document).await;
    insert(&sql, 1..=20).await;
    receiver.wait_for(3, AMPLE).await;
    service.wait_for_metric("walhook_events_total{event=\"order\"}", 20.0).await;
    let answer = done(&service, "POST", "/api/v1/endpoints/crm/disable", &Value::Null).await;
    assert_eq!(answer["state"], "disabled");
    insert(&sql, 21..=25).await;
    wait_for_text(&sql, "SELECT count(*) FROM walhook.backlog", "20").await;
    wait_for_text(&sql, "SELECT filtered FROM walhook.books", "5").await;
    receiver.behave(always(Answer::status(200)));
    tokio::time::sleep(Duration::from_millis(300)).await;
    let before = receiver.count();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(receiver.count(), before, "it gets requests");
    // Also after a restart.
    service.stop().await;
    let service = Service::start(&toml).await;
    let shown = done(&service, "GET", "/api/v1/endpoints/crm", &Value::Null).await;
    assert_eq!((&shown["state"], &shown["waiting"]["backlog"]), (&json!("disabled"), &json!(20)));
    assert_eq!(receiver.count(), before);
    done(&service, "POST", "/api/v1/endpoints/crm/enable", &Value::Null).await;
    insert(&sql, 26..=26).await;
    receiver.wait_for(before + 21, AMPLE).await;
    let arrived: std::collections::BTreeSet<i64> =
        ids(&receiver)[before..].iter().copied().collect();
    assert_eq!(arrived, (1..=20).chain([26]).collect());
    wait_for_text(&sql, "SELECT pending FROM walhook.balance", "0").await;
}

#[tokio::test]
async fn what_waits_for_a_removed_endpoint_becomes_dead_letters_also_across_a_kill() {
    let (_database, sql, toml) = set_up("queue_capacity = 50\n").await;
    let (dead, good) = (Receiver::start(always(Answer::status(503))), receiver());
    let service = Service::start(&toml).await;
    for (name, url) in [("dead", dead.url()), ("good", good.url())] {
        done(&service, "POST", "/api/v1/endpoints", &json!({ "name": name, "url": url })).await;
    }
    insert(&sql, 1..=3000).await;
    good.wait_for(3000, AMPLE).await;
    wait_for_text(&sql, "SELECT count(*) FROM walhook.backlog", "3000").await;
    let (status, answer) =
        call(service.http, "DELETE", "/api/v1/endpoints/dead", &Value::Null).await;
    assert_eq!((status, &answer["state"]), (202, &json!("removing")));
    service.program.kill();
    let service = Service::start(&toml).await;
    let letters = "SELECT count(*) FROM walhook.dead_letters WHERE failure_class = 'deleted' \
                   AND reason = 'endpoint deleted' AND endpoint = 'dead'";
    wait_for_text(&sql, letters, "3000").await;
    wait_for_text(&sql, "SELECT count(*) FROM walhook.backlog", "0").await;
    wait_for_text(&sql, "SELECT string_agg(name, ' ') FROM walhook.endpoints", "good").await;
    let balance = "SELECT captured || ' ' || dead || ' ' || pending FROM walhook.balance \
                   WHERE endpoint = 'dead'";
    wait_for_text(&sql, balance, "3000 3000 0").await;
    let (status, _) = call(service.http, "GET", "/api/v1/endpoints/dead", &Value::Null).await;
    assert_eq!(status, 404);
    assert!(!service.get("/metrics").await.body.contains("endpoint=\"dead\""));
    // The name is free again.
    let again = receiver();
    done(&service, "POST", "/api/v1/endpoints", &json!({ "name": "dead", "url": again.url() }))
        .await;
    insert(&sql, 3001..=3001).await;
    assert_eq!(again.wait_for(1, AMPLE).await[0].json()["data"]["id"], 3001);
}

#[tokio::test]
async fn an_endpoint_whose_column_is_gone_can_still_be_disabled() {
    let (_database, sql, toml) = set_up("").await;
    let service = Service::start(&toml).await;
    let crm = json!({ "name": "crm", "url": receiver().url(), "when": "note != null" });
    done(&service, "POST", "/api/v1/endpoints", &crm).await;
    sql.batch_execute("ALTER TABLE orders DROP COLUMN note").await.unwrap();
    let disabled = done(&service, "POST", "/api/v1/endpoints/crm/disable", &Value::Null).await;
    assert_eq!(disabled["state"], "disabled");
    done(&service, "PATCH", "/api/v1/endpoints/crm", &json!({ "timeout": "1s" })).await;
    let (status, other) =
        call(service.http, "PATCH", "/api/v1/endpoints/crm", &json!({ "when": "note == 'a'" }))
            .await;
    assert_eq!((status, &other["errors"][0]["key"]), (422, &json!("when")), "{other}");
}

#[tokio::test]
async fn a_name_under_which_something_is_left_is_not_given_out_again() {
    let file = "[[endpoint]]\nname = \"crm\"\nurl = \"http://127.0.0.1:9/\"\n";
    let (_database, sql, with) = set_up(file).await;
    let mut service = Service::start(&with).await;
    insert(&sql, 1..=10).await;
    wait_for_text(&sql, "SELECT count(*) FROM walhook.backlog", "10").await;
    service.stop().await;
    let mut service = Service::start(&with.replace(file, "")).await;
    let crm = json!({ "name": "crm", "url": receiver().url() });
    let (status, refused) = call(service.http, "POST", "/api/v1/endpoints", &crm).await;
    let detail = refused["detail"].as_str().unwrap();
    assert_eq!(status, 409, "{refused}");
    assert!(detail.starts_with("10 deliveries of an endpoint crm that is gone"), "{detail}");
    assert_eq!(sql.text("SELECT count(*) FROM walhook.endpoints").await, "0");
    let other = json!({ "name": "other", "url": receiver().url() });
    done(&service, "POST", "/api/v1/endpoints", &other).await;
    service.stop().await;
    // The way out that it names.
    let receiver = receiver();
    let back = with.replace("http://127.0.0.1:9/", &receiver.url());
    let _service = Service::start(&back).await;
    receiver.wait_for(10, AMPLE).await;
}

#[tokio::test]
async fn what_cannot_be_served_is_refused_with_all_its_problems_and_nothing_is_changed() {
    let configured = receiver();
    let rest = format!("[[endpoint]]\nname = \"fixed\"\nurl = \"{}\"\n", configured.url());
    let (_database, sql, toml) = set_up(&rest).await;
    let service = Service::start(&toml).await;
    let url = configured.url();
    let cases = [
        (json!({ "name": "a", "url": "http://10.1.2.3/" }), 422, "may not be dialled"),
        (
            json!({ "name": "a", "url": "http://localhost.localdomain:1/", "x": 1 }),
            422,
            "unknown key",
        ),
        (json!({ "name": "A B", "url": "nonsense" }), 422, "is not a name"),
        (
            json!({ "name": "a", "url": url, "when": "[1].all(x, x > 0)" }),
            422,
            "goes through a list",
        ),
        (json!({ "name": "a", "url": url, "secret": { "env": "PATH" } }), 422, "secret itself"),
        (json!({ "name": "a", "url": url, "secret": "[secret]" }), 422, "[secret] stands for"),
        (json!({ "name": "fixed", "url": url }), 409, "there is an endpoint fixed already"),
    ];
    for (document, status, expected) in cases {
        let answer = call(service.http, "POST", "/api/v1/endpoints", &document).await;
        assert_eq!(answer.0, status, "case: {document}: {}", answer.1);
        assert!(answer.1.to_string().contains(expected), "case: {document}: {}", answer.1);
    }
    let two = json!({ "name": "A B", "url": "nonsense" });
    let (_, answer) = call(service.http, "POST", "/api/v1/endpoints", &two).await;
    let keys: Vec<_> = answer["errors"].as_array().unwrap().iter().map(|e| &e["key"]).collect();
    assert_eq!(keys, ["name", "url"]);
    for (method, path) in [
        ("PUT", "/api/v1/endpoints/fixed"),
        ("DELETE", "/api/v1/endpoints/fixed"),
        ("POST", "/api/v1/endpoints/fixed/disable"),
    ] {
        let (status, answer) = call(service.http, method, path, &json!({ "url": url })).await;
        assert_eq!(status, 409, "case: {method} {path}: {answer}");
        assert!(answer["detail"].as_str().unwrap().contains("configuration file"), "{answer}");
    }
    let shown = done(&service, "GET", "/api/v1/endpoints/fixed", &Value::Null).await;
    assert_eq!(shown["source"], "file");
    assert_eq!(sql.text("SELECT count(*) FROM walhook.endpoints").await, "0");
    insert(&sql, 1..=1).await;
    configured.wait_for(1, AMPLE).await;
}

#[tokio::test]
async fn a_test_event_reports_what_came_back() {
    let (_database, _sql, toml) = set_up("").await;
    let receiver = Receiver::start(always(Answer::status(500).body("no such tenant")));
    let service = Service::start(&toml).await;
    let document = json!({ "name": "crm", "url": receiver.url(), "secret": SECRET });
    done(&service, "POST", "/api/v1/endpoints", &document).await;
    let report = done(&service, "POST", "/api/v1/endpoints/crm/test", &Value::Null).await;
    assert_eq!((&report["delivered"], &report["status"]), (&json!(false), &json!(500)));
    assert_eq!(report["response"], "no such tenant");
    assert_eq!(report["error"]["class"], "status");
    let request = receiver.wait_for(1, AMPLE).await.remove(0);
    // It has the shape of a real event, also where the table has no row yet.
    assert_eq!(request.header("webhook-test"), "true");
    assert!(request.json()["data"]["id"].is_i64(), "{}", request.json());
    assert!(request.header("webhook-signature").starts_with("v1,"));
    receiver.behave(always(Answer::status(204)));
    let report = done(&service, "POST", "/api/v1/endpoints/crm/test", &Value::Null).await;
    assert_eq!((&report["delivered"], &report["error"]), (&json!(true), &Value::Null));
    let own = json!({ "name": "own", "url": receiver.url(), "test": { "kind": "ping", "n": [1] } });
    done(&service, "POST", "/api/v1/endpoints", &own).await;
    done(&service, "POST", "/api/v1/endpoints/own/test", &Value::Null).await;
    assert_eq!(receiver.wait_for(3, AMPLE).await[2].json(), own["test"]);
}

#[tokio::test]
async fn the_command_line_makes_tests_and_removes_an_endpoint() {
    let (_database, _sql, toml) = set_up("").await;
    let receiver = receiver();
    let service = Service::start(&toml).await;
    let url = format!("http://{}", service.http);
    let run = async |args: &[&str]| {
        let args: Vec<&str> = args.iter().copied().chain(["--url", &url]).collect();
        let mut program = Program::start(&args, &toml, &[]);
        let code = program.wait(AMPLE).await;
        (code, program.output().join("\n"))
    };
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("crm.json");
    std::fs::write(&file, json!({ "name": "crm", "url": receiver.url() }).to_string()).unwrap();
    let made = run(&["endpoints", "create", file.to_str().unwrap()]).await;
    assert_eq!(made, (Some(0), "crm: enabled".to_owned()));
    let (code, again) = run(&["endpoints", "create", file.to_str().unwrap()]).await;
    assert!(code == Some(1) && again.contains("there is an endpoint crm already"), "{again}");
    let (code, listed) = run(&["endpoints", "list"]).await;
    assert!(code == Some(0) && listed.contains("crm") && listed.contains("api"), "{listed}");
    assert_eq!(run(&["endpoints", "test", "crm"]).await.0, Some(0));
    receiver.behave(always(Answer::status(500)));
    assert_eq!(run(&["endpoints", "test", "crm"]).await.0, Some(1));
    std::fs::write(&file, json!({ "timeout": "soon", "x": 1 }).to_string()).unwrap();
    let (code, refused) = run(&["endpoints", "update", "crm", file.to_str().unwrap()]).await;
    assert!(
        code == Some(1) && refused.contains("timeout: \"soon\" is not a duration"),
        "{refused}"
    );
    let deleted = run(&["endpoints", "delete", "crm"]).await;
    assert_eq!(deleted, (Some(0), "crm: removing".to_owned()));
}
