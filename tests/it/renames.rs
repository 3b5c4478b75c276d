//! Another name for an endpoint: what waits, is dead or paused goes along, in order, and the books balance.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test may stop at once")]

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use rustix::process::Signal;
use serde_json::json;

use crate::support::postgres::Database;
use crate::support::postgres::Sql;
use crate::support::postgres::wait_for_text;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::Request;
use crate::support::receiver::always;
use crate::support::service::AMPLE;
use crate::support::service::Service;
use crate::support::service::configuration;

const TABLES: &str = "CREATE TABLE orders (id int PRIMARY KEY, key int NOT NULL);
    CREATE TABLE hooks (name text PRIMARY KEY, url text NOT NULL, secret text);";
const EVENT: &str =
    "[[event]]\ntype = \"order\"\ntable = \"public.orders\"\norder_by = [\"key\"]\n\n";
const BOOKS: &str =
    "SELECT string_agg(concat_ws(' ', endpoint, captured, delivered, dead, pending),
                                       ', ' ORDER BY endpoint) FROM walhook.balance";

async fn database() -> (Database, Sql) {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(TABLES).await.unwrap();
    (database, sql)
}

async fn insert(sql: &Sql, from: i64, to: i64) {
    let insert =
        format!("INSERT INTO orders SELECT id, id % 3 FROM generate_series({from}, {to}) AS id");
    sql.batch_execute(&insert).await.unwrap();
}

/// Takes nothing before it is told to, and then all but row 2.
fn receiver() -> (Receiver, Arc<AtomicBool>) {
    let takes = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&takes);
    let receiver = Receiver::start(Arc::new(move |request: &Request| {
        let is_refused = request.json()["data"]["id"] == 2;
        Answer::status(match (is_refused, told.load(Ordering::Relaxed)) {
            (true, _) => 400,
            (false, true) => 200,
            (false, false) => 503,
        })
    }));
    (receiver, takes)
}

/// The rows that were taken, by key, in the order of their arrival, with the ids of their events.
fn taken(receiver: &Receiver, takes_from: usize) -> Vec<Vec<i64>> {
    let mut by_key = vec![Vec::new(); 3];
    for request in &receiver.requests()[takes_from..] {
        let id = request.json()["data"]["id"].as_i64().unwrap();
        if id != 2 {
            by_key[usize::try_from(id % 3).unwrap()].push(id);
        }
    }
    by_key
}

fn expected(to: i64) -> Vec<Vec<i64>> {
    let of = |rest: i64| (1..=to).filter(|id| id % 3 == rest && *id != 2).collect();
    vec![of(0), of(1), of(2)]
}

#[tokio::test]
async fn a_renamed_endpoint_of_the_api_keeps_what_waits_in_order() {
    let (database, sql) = database().await;
    let (receiver, takes) = receiver();
    let rest = format!("{EVENT}[endpoints]\nallow = [\"127.0.0.0/8\"]\n");
    let toml = configuration(&database, &rest);
    let mut service = Service::start(&toml).await;
    for name in ["crm", "erp"] {
        let made = json!({ "name": name, "url": receiver.url(), "events": ["none*"] });
        assert_eq!(service.post("/api/v1/endpoints", &made).await.status, 422, "{name}");
        let made = json!({ "name": name, "url": receiver.url(), "when": "true",
                           "retry": { "delays": ["10ms", "1h"] } });
        assert_eq!(service.post("/api/v1/endpoints", &made).await.status, 201, "{name}");
    }
    service.cli(&["endpoints", "pause", "erp"]).await;
    insert(&sql, 1, 30).await;
    wait_for_text(&sql, BOOKS, "crm 30 0 1 29, erp 30 0 0 30").await;

    let refused = service.post("/api/v1/endpoints/crm/rename", &json!({ "name": "erp" })).await;
    assert_eq!(refused.status, 409);
    assert!(refused.body.contains("there is an endpoint erp already"), "{refused:?}");
    let refused = service.post("/api/v1/endpoints/crm/rename", &json!({ "name": "a/b" })).await;
    assert_eq!(refused.status, 422, "{refused:?}");
    assert_eq!(service.post("/api/v1/endpoints/crm/rename", &json!({})).await.status, 400);
    let nobody = service.post("/api/v1/endpoints/no/rename", &json!({ "name": "yes" })).await;
    assert_eq!(nobody.status, 404);

    let (code, told) = service.cli(&["endpoints", "rename", "crm", "crm-eu"]).await;
    assert_eq!((code, told.contains("crm-eu: ")), (Some(0), true), "{told}");
    let path = "/api/v1/endpoints/erp/rename";
    assert_eq!(service.post(path, &json!({ "name": "erp-eu" })).await.json()["state"], "paused");
    wait_for_text(&sql, BOOKS, "crm-eu 30 0 1 29, erp-eu 30 0 0 30").await;
    let metrics = service.get("/metrics").await.body;
    assert!(!metrics.contains("endpoint=\"crm\""), "the old name is gone");
    let series = |entry: &str| {
        format!("walhook_balance{{endpoint=\"crm-eu\",entry=\"{entry}\",table=\"public.orders\"}}")
    };
    service.wait_for_metric(&series("pending"), 29.0).await;
    service.wait_for_metric("walhook_dead_letters{endpoint=\"crm-eu\"}", 1.0).await;
    insert(&sql, 31, 40).await;
    wait_for_text(&sql, BOOKS, "crm-eu 40 0 1 39, erp-eu 40 0 0 40").await;
    assert_eq!(service.get("/api/v1/endpoints/crm").await.status, 404);

    // It outlives the process, however that ends.
    service.program.kill();
    service.program.wait(AMPLE).await;
    let mut service = Service::start(&toml).await;
    takes.store(true, Ordering::Relaxed);
    let before = receiver.count();
    let (code, told) = service.cli(&["endpoints", "try-now", "crm-eu"]).await;
    assert_eq!(code, Some(0), "{told}");
    wait_for_text(&sql, BOOKS, "crm-eu 40 39 1 0, erp-eu 40 0 0 40").await;
    assert_eq!(taken(&receiver, before), expected(40), "in order by key, each once");
    let letters = "SELECT string_agg(endpoint, ' ') FROM walhook.dead_letters";
    assert_eq!(sql.text(letters).await, "crm-eu");
    let log = "SELECT string_agg(DISTINCT endpoint, ' ' ORDER BY endpoint) FROM walhook.push_log";
    wait_for_text(&sql, log, "crm crm-eu").await;
    let ids = "SELECT count(DISTINCT event_id) FROM walhook.push_log";
    assert_eq!(sql.text(ids).await, "40", "an event has the same id under both names");
    service.stop().await;
}

#[tokio::test]
async fn events_that_come_while_an_endpoint_is_renamed_are_delivered_once_and_in_order() {
    let (database, sql) = database().await;
    let receiver = Receiver::start(always(Answer::status(200)));
    let rest = format!("{EVENT}[endpoints]\nallow = [\"127.0.0.0/8\"]\n");
    let mut service = Service::start(&configuration(&database, &rest)).await;
    let made = json!({ "name": "a0", "url": receiver.url(), "concurrency": 4, "capacity": 20 });
    assert_eq!(service.post("/api/v1/endpoints", &made).await.status, 201);
    for round in 0..12 {
        insert(&sql, round * 50 + 1, round * 50 + 50).await;
        let (from, to) = (format!("a{round}"), format!("a{}", round + 1));
        let path = format!("/api/v1/endpoints/{from}/rename");
        let renamed = service.post(&path, &json!({ "name": to })).await;
        assert_eq!(renamed.status, 200, "{renamed:?}");
    }
    wait_for_text(&sql, BOOKS, "a12 600 600 0 0").await;
    // What is nowhere but in the backlog is read from it under the new name.
    assert_eq!(service.cli(&["endpoints", "pause", "a12"]).await.0, Some(0));
    insert(&sql, 601, 700).await;
    wait_for_text(&sql, "SELECT count(*) FROM walhook.backlog", "100").await;
    assert_eq!(service.cli(&["endpoints", "rename", "a12", "a13"]).await.0, Some(0));
    assert_eq!(service.cli(&["endpoints", "resume", "a13"]).await.0, Some(0));
    wait_for_text(&sql, BOOKS, "a13 700 700 0 0").await;
    let mut by_key = vec![Vec::new(); 3];
    for request in receiver.requests() {
        let id = request.json()["data"]["id"].as_i64().unwrap();
        by_key[usize::try_from(id % 3).unwrap()].push(id);
    }
    for (rest, ids) in by_key.iter().enumerate() {
        let rest = i64::try_from(rest).unwrap();
        let wanted: Vec<i64> = (1..=700).filter(|id| id % 3 == rest).collect();
        assert_eq!(*ids, wanted, "key {rest}");
    }
    service.stop().await;
}

#[tokio::test]
async fn a_name_that_is_changed_in_the_file_takes_along_what_waits() {
    let (database, sql) = database().await;
    let (receiver, takes) = receiver();
    let rest = |name: &str, from: &str| {
        let from = match from {
            "" => String::new(),
            from => format!("renamed_from = \"{from}\"\n"),
        };
        format!(
            "{EVENT}[[endpoint]]\nname = \"{name}\"\n{from}url = \"{}\"\n\
             retry = {{ delays = [\"10ms\", \"1h\"] }}\n",
            receiver.url()
        )
    };
    let mut service = Service::start(&configuration(&database, &rest("crm", ""))).await;
    insert(&sql, 1, 20).await;
    wait_for_text(&sql, BOOKS, "crm 20 0 1 19").await;
    let refused = service.post("/api/v1/endpoints/crm/rename", &json!({ "name": "eu" })).await;
    assert_eq!(refused.status, 409);
    assert!(refused.body.contains("renamed_from = \\\"crm\\\""), "{refused:?}");

    // While it runs.
    let toml = configuration(&database, &rest("eu", "crm"));
    std::fs::write(service.program.home().join("walhook.toml"), &toml).unwrap();
    service.program.signal(Signal::HUP);
    service.program.wait_for_line("configuration is reloaded", AMPLE).await;
    insert(&sql, 21, 30).await;
    wait_for_text(&sql, BOOKS, "eu 30 0 1 29").await;

    // And while it is away, after a crash.
    service.program.kill();
    service.program.wait(AMPLE).await;
    insert(&sql, 31, 33).await;
    let mut service = Service::start(&configuration(&database, &rest("crm", "eu"))).await;
    service.program.wait_for_line("endpoint is renamed", AMPLE).await;
    insert(&sql, 34, 40).await;
    takes.store(true, Ordering::Relaxed);
    let before = receiver.count();
    assert_eq!(service.cli(&["endpoints", "try-now", "crm"]).await.0, Some(0));
    wait_for_text(&sql, BOOKS, "crm 40 39 1 0").await;
    let by_key = taken(&receiver, before);
    assert_eq!(by_key, expected(40), "in order by key");
    service.stop().await;
}

#[tokio::test]
async fn a_row_with_another_name_is_the_same_endpoint_and_one_with_another_url_is_not() {
    let (database, sql) = database().await;
    let (receiver, takes) = receiver();
    let rest = format!(
        "{EVENT}[endpoints]\nallow = [\"127.0.0.0/8\"]\n\n[endpoints_from]\ntable = \"public.hooks\"\n[endpoints_from.endpoint]\n\
         name = \"{{{{ name }}}}\"\nurl = \"{{{{ url }}}}\"\n\
         retry = {{ delays = [\"10ms\", \"1h\"] }}\n"
    );
    let hooks = format!(
        "INSERT INTO hooks VALUES ('crm', '{}'), ('old', 'http://127.0.0.1:1/')",
        receiver.url()
    );
    sql.batch_execute(&hooks).await.unwrap();
    let mut service = Service::start(&configuration(&database, &rest)).await;
    insert(&sql, 1, 10).await;
    wait_for_text(&sql, BOOKS, "crm 10 0 1 9, old 10 0 0 10").await;
    let refused = service.post("/api/v1/endpoints/crm/rename", &json!({ "name": "eu" })).await;
    assert_eq!(refused.status, 409);
    assert!(refused.body.contains("a row of public.hooks"), "{refused:?}");
    let rename = "UPDATE hooks SET name = 'eu' WHERE name = 'crm';
         UPDATE hooks SET name = 'new', url = 'http://127.0.0.1:2/' WHERE name = 'old';";
    sql.batch_execute(rename).await.unwrap();
    insert(&sql, 11, 20).await;
    wait_for_text(&sql, BOOKS, "eu 20 0 1 19, new 10 0 0 10, old 10 0 10 0").await;
    takes.store(true, Ordering::Relaxed);
    let before = receiver.count();
    assert_eq!(service.cli(&["endpoints", "try-now", "eu"]).await.0, Some(0));
    wait_for_text(&sql, BOOKS, "eu 20 19 1 0, new 10 0 0 10, old 10 0 10 0").await;
    assert_eq!(taken(&receiver, before), expected(20), "in order by key");
    service.stop().await;
}

const HOOKS: &str = "CREATE TABLE ids (id int PRIMARY KEY, name text NOT NULL, url text NOT NULL);";

/// What the books say of one endpoint.
fn books_of(name: &str) -> String {
    let sums = "concat_ws(' ', captured, delivered, dead, pending)";
    format!("SELECT coalesce(max({sums}), '') FROM walhook.balance WHERE endpoint = '{name}'")
}

/// Endpoints of the rows of `ids`, told apart by their id.
fn by_id(database: &Database) -> String {
    let rest = format!(
        "{EVENT}[endpoints]\nallow = [\"127.0.0.0/8\"]\n\n[endpoints_from]\ntable = \"public.ids\"\nid = \"id\"\n\
         [endpoints_from.endpoint]\nname = \"{{{{ name }}}}\"\nurl = \"{{{{ url }}}}\"\n\
         retry = {{ delays = [\"10ms\", \"1h\"] }}\n"
    );
    configuration(database, &rest)
}

#[tokio::test]
async fn rows_with_an_id_stay_the_same_endpoints_while_walhook_is_away() {
    let (database, sql) = database().await;
    sql.batch_execute(HOOKS).await.unwrap();
    let (receiver, takes) = receiver();
    let rows = format!(
        "INSERT INTO ids VALUES (1, 'crm', '{}'), (2, 'erp', 'http://127.0.0.1:1/'), (3, 'old', 'http://127.0.0.1:1/')",
        receiver.url()
    );
    sql.batch_execute(&rows).await.unwrap();
    let toml = by_id(&database);
    let mut service = Service::start(&toml).await;
    insert(&sql, 1, 10).await;
    wait_for_text(&sql, BOOKS, "crm 10 0 1 9, erp 10 0 0 10, old 10 0 0 10").await;
    service.program.kill();
    service.program.wait(AMPLE).await;

    // Two exchange their names, and one gets the name of a row that is gone.
    let renamed = "UPDATE ids SET name = CASE id WHEN 1 THEN 'erp' ELSE 'crm' END WHERE id < 3;
         DELETE FROM ids WHERE id = 3";
    sql.batch_execute(renamed).await.unwrap();
    let mut service = Service::start(&toml).await;
    insert(&sql, 11, 20).await;
    wait_for_text(&sql, BOOKS, "crm 20 0 0 20, erp 20 0 1 19, old 10 0 0 10").await;
    service.stop().await;
    sql.batch_execute("UPDATE ids SET name = 'old' WHERE id = 1").await.unwrap();
    let mut service = Service::start(&toml).await;
    let aside = "SELECT count(*) FROM walhook.balance
                  WHERE endpoint LIKE 'old-%' AND captured = 10 AND pending = 10";
    assert_eq!(sql.text(aside).await, "1", "what waited for the row that is gone is not another's");
    takes.store(true, Ordering::Relaxed);
    let before = receiver.count();
    assert_eq!(service.cli(&["endpoints", "try-now", "old"]).await.0, Some(0));
    let own = &books_of("old");
    wait_for_text(&sql, own, "20 19 1 0").await;
    assert_eq!(taken(&receiver, before), expected(20), "in order by key, each once");
    service.stop().await;
}

#[tokio::test]
async fn rows_with_an_id_stay_the_same_endpoints_with_other_settings_too() {
    let (database, sql) = database().await;
    sql.batch_execute(HOOKS).await.unwrap();
    let (receiver, takes) = receiver();
    takes.store(true, Ordering::Relaxed);
    let rows = "INSERT INTO ids VALUES (1, 'crm', 'http://127.0.0.1:1/'), (2, 'erp', 'http://127.0.0.1:1/'),
                                       (3, 'old', 'http://127.0.0.1:1/')";
    sql.batch_execute(rows).await.unwrap();
    let mut service = Service::start(&by_id(&database)).await;
    insert(&sql, 1, 10).await;
    wait_for_text(&sql, BOOKS, "crm 10 0 0 10, erp 10 0 0 10, old 10 0 0 10").await;
    let renamed = format!(
        "BEGIN; UPDATE ids SET name = 'eu', url = '{}' WHERE id = 1; DELETE FROM ids WHERE id = 3;
         UPDATE ids SET name = 'old' WHERE id = 2; COMMIT",
        receiver.url()
    );
    sql.batch_execute(&renamed).await.unwrap();
    insert(&sql, 11, 12).await;
    wait_for_text(&sql, &books_of("eu"), "12 11 1 0").await;
    assert_eq!(taken(&receiver, 0), expected(12), "in order by key, at the new address");
    // What waited for the row that is gone was given up, and not given to the one that has its name by now.
    let letters = "SELECT count(*) FROM walhook.dead_letters WHERE endpoint LIKE 'old-%' AND failure_class = 'deleted'";
    wait_for_text(&sql, letters, "10").await;
    let own = &books_of("old");
    wait_for_text(&sql, own, "12 0 0 12").await;
    let known =
        "SELECT string_agg(row_id || endpoint, ' ' ORDER BY row_id) FROM walhook.endpoint_rows";
    wait_for_text(&sql, known, "1eu 2old").await;
    service.stop().await;
}
