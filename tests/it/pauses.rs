//! What an operator may ask of every endpoint, wherever it was made: to pause and to go on, to be
//! tried now, to take events again after a 410. Nothing is lost by any of it.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test may stop at once")]

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

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

const TABLES: &str = "CREATE TABLE orders (id int PRIMARY KEY);
    CREATE TABLE hooks (name text PRIMARY KEY, url text NOT NULL);";
const EVENT: &str = "[[event]]\ntype = \"order\"\ntable = \"public.orders\"\n\n";

async fn database() -> (Database, Sql) {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(TABLES).await.unwrap();
    (database, sql)
}

async fn insert(sql: &Sql, from: i64, to: i64) {
    let insert = format!("INSERT INTO orders SELECT generate_series({from}, {to})");
    sql.batch_execute(&insert).await.unwrap();
}

async fn books(sql: &Sql, expected: &str) {
    let books = "SELECT string_agg(concat_ws(' ', endpoint, delivered, dead, pending), ', '
                                   ORDER BY endpoint) FROM walhook.balance";
    wait_for_text(sql, books, expected).await;
}

fn state(service: &serde_json::Value, name: &str) -> String {
    let endpoints = service["endpoints"].as_array().unwrap();
    let found = endpoints.iter().find(|endpoint| endpoint["name"] == name).unwrap();
    format!("{} {}", found["state"].as_str().unwrap(), found["paused_since"].is_string())
}

/// What a receiver has got, in order.
fn ids(receiver: &Receiver) -> Vec<i64> {
    let id = |request: &Request| request.json()["data"]["id"].as_i64().unwrap();
    let mut ids: Vec<i64> = receiver.requests().iter().map(id).collect();
    ids.sort_unstable();
    ids
}

#[tokio::test]
async fn a_pause_loses_nothing_for_endpoints_of_the_file_the_api_and_a_table() {
    let (database, sql) = database().await;
    let taking = || Receiver::start(always(Answer::status(200)));
    let receivers = [taking(), taking(), taking()];
    let [file, api, table] = &receivers;
    let rest = format!(
        "{EVENT}[[endpoint]]\nname = \"file\"\nurl = \"{}\"\n\n\
         [endpoints]\nallow = [\"127.0.0.0/8\"]\n\n\
         [endpoints_from]\ntable = \"public.hooks\"\n\
         [endpoints_from.endpoint]\nname = \"{{{{ name }}}}\"\nurl = \"{{{{ url }}}}\"\n",
        file.url()
    );
    let hook = format!("INSERT INTO hooks VALUES ('table', '{}')", table.url());
    sql.batch_execute(&hook).await.unwrap();
    let toml = configuration(&database, &rest);
    let mut service = Service::start(&toml).await;
    let made = json!({ "name": "api", "url": api.url() });
    assert_eq!(service.post("/api/v1/endpoints", &made).await.status, 201);
    insert(&sql, 1, 2).await;
    for receiver in &receivers {
        receiver.wait_for(2, AMPLE).await;
    }

    let (code, told) = service.cli(&["endpoints", "pause", "file"]).await;
    assert_eq!((code, told.contains("file: paused")), (Some(0), true), "{told}");
    for name in ["api", "table"] {
        let path = format!("/api/v1/endpoints/{name}/pause");
        let reply = service.post(&path, &json!({})).await;
        assert_eq!((reply.status.as_u16(), &reply.json()["state"]), (200, &json!("paused")));
        assert!(reply.json()["paused_since"].is_string());
        // Twice is no error, and it is paused since the first time.
        let again = service.post(&path, &json!({})).await;
        assert_eq!(again.json()["paused_since"], reply.json()["paused_since"]);
    }
    assert_eq!(service.post("/api/v1/endpoints/nobody/pause", &json!({})).await.status, 404);
    insert(&sql, 3, 40).await;
    books(&sql, "api 2 0 38, file 2 0 38, table 2 0 38").await;
    let parked = "SELECT count(*), bool_and(reason = 'paused') FROM walhook.backlog";
    let parked = format!("SELECT concat_ws(' ', a, b) FROM ({parked}) AS t(a, b)");
    wait_for_text(&sql, &parked, "114 t").await;
    for name in ["file", "api", "table"] {
        let series = format!("walhook_endpoint_paused{{endpoint=\"{name}\"}}");
        service.wait_for_metric(&series, 1.0).await;
    }

    // It outlives the process, however that ends.
    service.program.kill();
    service.program.wait(AMPLE).await;
    let mut service = Service::start(&toml).await;
    insert(&sql, 41, 42).await;
    books(&sql, "api 2 0 40, file 2 0 40, table 2 0 40").await;
    let status = service.get("/api/v1/status").await.json();
    for name in ["file", "api", "table"] {
        assert_eq!(state(&status, name), "paused true");
    }
    for receiver in &receivers {
        assert_eq!(receiver.count(), 2, "nothing is sent meanwhile");
    }
    let (code, told) = service.cli(&["endpoints", "resume", "table"]).await;
    assert_eq!((code, told.contains("table: enabled")), (Some(0), true), "{told}");
    for name in ["api", "file"] {
        let path = format!("/api/v1/endpoints/{name}/resume");
        assert_eq!(service.post(&path, &json!({})).await.status, 200);
    }
    books(&sql, "api 42 0 0, file 42 0 0, table 42 0 0").await;
    for receiver in &receivers {
        assert_eq!(ids(receiver), (1..=42).collect::<Vec<i64>>(), "each once");
    }
    let status = service.get("/api/v1/status").await.json();
    assert_eq!(state(&status, "file"), "enabled false");
    service.stop().await;
}

#[tokio::test]
async fn a_corrected_url_and_a_try_now_start_what_waits_at_once() {
    let (database, sql) = database().await;
    let broken = Receiver::start(always(Answer::status(503)));
    let sound = Receiver::start(always(Answer::status(200)));
    let rest = |url: &str| {
        format!(
            "{EVENT}[[endpoint]]\nname = \"crm\"\nurl = \"{url}\"\n\
             retry = {{ delays = [\"15m\", \"1h\"] }}\n"
        )
    };
    let toml = configuration(&database, &rest(&broken.url()));
    let mut service = Service::start(&toml).await;
    insert(&sql, 1, 3).await;
    broken.wait_for(3, AMPLE).await;
    let waiting = "SELECT count(*), min(attempts) FROM walhook.backlog
                    WHERE next_attempt_at > now() + interval '10 minutes'";
    let waiting = format!("SELECT concat_ws(' ', a, b) FROM ({waiting}) AS t(a, b)");
    wait_for_text(&sql, &waiting, "3 1").await;
    let began = Instant::now();
    let (code, told) = service.cli(&["endpoints", "try-now", "crm"]).await;
    assert_eq!(code, Some(0), "{told}");
    broken.wait_for(6, AMPLE).await;
    // Both of its retries are left.
    wait_for_text(&sql, &waiting, "3 1").await;

    // The URL is corrected while walhook is away: what waits need not wait for its time.
    service.stop().await;
    let corrected = configuration(&database, &rest(&sound.url()));
    let mut service = Service::start(&corrected).await;
    service.program.wait_for_line("points elsewhere", AMPLE).await;
    books(&sql, "crm 3 0 0").await;
    assert!(began.elapsed() < Duration::from_secs(900));
    service.stop().await;
}

#[tokio::test]
async fn a_410_of_an_endpoint_of_the_file_ends_when_it_is_enabled() {
    let (database, sql) = database().await;
    let receiver = Receiver::start(Arc::new(|request: &Request| {
        let is_first = request.json()["data"]["id"] == 1;
        Answer::status(if is_first { 410 } else { 200 })
    }));
    let rest = format!(
        "{EVENT}[[endpoint]]\nname = \"crm\"\nurl = \"{}\"\n\n\
         [[endpoint]]\nname = \"off\"\nurl = \"{0}\"\nenabled = false\n",
        receiver.url()
    );
    let mut service = Service::start(&configuration(&database, &rest)).await;
    insert(&sql, 1, 1).await;
    service.program.wait_for_line("endpoint is gone", AMPLE).await;
    insert(&sql, 2, 3).await;
    books(&sql, "crm 0 3 0, off 0 0 0").await;
    let (code, told) = service.cli(&["endpoints", "enable", "crm"]).await;
    assert_eq!((code, told.contains("crm: ")), (Some(0), true), "{told}");
    insert(&sql, 4, 5).await;
    books(&sql, "crm 2 3 0, off 0 0 0").await;
    let refused = service.post("/api/v1/endpoints/off/enable", &json!({})).await;
    assert_eq!(refused.status, 409);
    assert!(refused.body.contains("enabled = false"), "{refused:?}");
    service.stop().await;
}
