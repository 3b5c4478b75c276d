//! Endpoints without a name of their own are named by their URL: what waits for one goes to it and to
//! nobody else, whatever becomes of the list. And of a URL nobody sees more than its origin.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test may stop at once")]

use std::path::Path;

use serde_json::Value;
use serde_json::json;

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
use crate::support::service::name_of;

const TABLES: &str =
    "CREATE TABLE customers (id int PRIMARY KEY); CREATE TABLE orders (id int PRIMARY KEY);";

const EVENTS: &str = "[[event]]\ntype = \"customer\"\ntable = \"public.customers\"\n\n\
                      [[event]]\ntype = \"order\"\ntable = \"public.orders\"\n\n";

/// Whatever fails is parked at once, and soon tried again.
const SOON: &str = "max_retries = 100\nretry_interval = \"20ms\"\nretry_cap = \"50ms\"\n\
                    park_after = \"1ms\"\n\
                    breaker = { failures = 2, cooldown = \"50ms\", cap = \"100ms\" }\n";

const PARKED: &str = "SELECT count(*) FROM walhook.backlog";

async fn database() -> (Database, Sql) {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(TABLES).await.unwrap();
    (database, sql)
}

fn receiver(status: u16) -> Receiver {
    Receiver::start(always(Answer::status(status)))
}

fn ids(receiver: &Receiver, event: &str) -> Vec<i64> {
    let mut ids: Vec<i64> = receiver
        .requests()
        .iter()
        .filter(|request| request.json()["type"] == event)
        .map(|request| request.json()["data"]["id"].as_i64().unwrap())
        .collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

#[tokio::test]
async fn a_subscription_file_may_be_edited_in_any_way_while_events_wait() {
    let (database, sql) = database().await;
    let (gone, customers, orders) = (receiver(200), receiver(503), receiver(200));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("webhooks.json");
    let entry = |one: &Receiver, event: &str| json!({ "url": one.url(), "events": [event] });
    let write = |webhooks: &[Value]| {
        std::fs::write(&path, json!({ "webhooks": webhooks }).to_string()).unwrap();
    };
    let [first, second, third] =
        [entry(&gone, "customer"), entry(&customers, "customer"), entry(&orders, "order")];
    write(&[first, second.clone(), third.clone()]);
    let rest = format!("{EVENTS}[webhook]\nsubscriptions = \"{}\"\n{SOON}", path.display());
    let toml = configuration(&database, &rest);
    let mut service = Service::start(&toml).await;
    sql.batch_execute("INSERT INTO customers SELECT generate_series(1, 5)").await.unwrap();
    wait_for_text(&sql, PARKED, "5").await;
    service.stop().await;
    // The first is removed, the others change places, another one comes in front of them.
    let newcomer = receiver(200);
    write(&[entry(&newcomer, "order"), third, second]);
    customers.behave(always(Answer::status(200)));
    let mut service = Service::start(&toml).await;
    sql.batch_execute("INSERT INTO orders VALUES (9)").await.unwrap();
    wait_for_text(&sql, PARKED, "0").await;
    orders.wait_for(1, AMPLE).await;
    newcomer.wait_for(1, AMPLE).await;
    assert_eq!(ids(&customers, "customer"), [1, 2, 3, 4, 5]);
    for other in [&orders, &newcomer] {
        assert_eq!((ids(other, "customer"), ids(other, "order")), (vec![], vec![9]));
    }
    service.stop().await;
}

#[tokio::test]
async fn what_waits_under_the_name_of_a_place_goes_to_nobody_until_somebody_says_to_whom() {
    let (database, sql) = database().await;
    let (one, other) = (receiver(503), receiver(200));
    let (first, second) = (one.url(), other.url());
    let rest = format!("{EVENTS}[webhook]\nurls = [\"{first}\", \"{second}\"]\n{SOON}");
    let toml = configuration(&database, &rest);
    let mut service = Service::start(&toml).await;
    sql.batch_execute("INSERT INTO customers VALUES (1), (2)").await.unwrap();
    wait_for_text(&sql, PARKED, "2").await;
    other.wait_for(2, AMPLE).await;
    service.stop().await;
    sql.batch_execute("UPDATE walhook.backlog SET endpoint = 'webhook-2'").await.unwrap();
    one.behave(always(Answer::status(200)));
    let mut check = Program::start(&["check"], &toml, &[]);
    assert_eq!(check.wait(AMPLE).await, Some(0), "{:?}", check.output());
    let said = check.output().join("\n");
    assert!(
        said.contains("2 deliveries wait for endpoint webhook-2, which is not configured"),
        "{said}"
    );
    assert!(said.contains("write an [[endpoint]] with name = \"webhook-2\""), "{said}");
    let before = one.count();
    let mut service = Service::start(&toml).await;
    service.program.wait_for_line("wait for an endpoint that is not configured", AMPLE).await;
    assert_eq!(service.metric("walhook_deliveries_orphaned").await, 2.0);
    let status = service.get("/api/v1/status").await.json();
    assert_eq!(status["endpoints_missing"][0]["name"], "webhook-2", "{status}");
    sql.batch_execute("INSERT INTO customers VALUES (3)").await.unwrap();
    one.wait_for(before + 1, AMPLE).await;
    other.wait_for(3, AMPLE).await;
    assert_eq!((one.count(), other.count()), (before + 1, 3));
    service.stop().await;
    // Whose they were is said, and there they go.
    let named = format!("{toml}\n[[endpoint]]\nname = \"webhook-2\"\nurl = \"{first}\"\n");
    let named = named.replace(&format!("\"{first}\", \"{second}\""), &format!("\"{second}\""));
    let mut service = Service::start(&named).await;
    wait_for_text(&sql, PARKED, "0").await;
    assert_eq!((ids(&one, "customer"), other.count()), (vec![1, 2, 3], 3));
    assert_eq!(service.metric("walhook_deliveries_orphaned").await, 0.0);
    service.stop().await;
}

#[tokio::test]
async fn nobody_sees_more_of_a_url_than_its_origin() {
    const SECRET: &str = "693a91f6-7b1c-4bc4-97a0-0ec2sifa5aaa";
    let (database, sql) = database().await;
    let echo = format!("<pre>Cannot POST /robot/{SECRET}</pre>");
    let refusing = Answer::status(302).header("location", &format!("/robot/{SECRET}/"));
    let receiver = Receiver::start(always(refusing.body(echo)));
    let origin = receiver.url().replace("/hooks", "");
    let url = format!("{origin}/robot/{SECRET}");
    let dead = format!("http://127.0.0.1:9/robot/{SECRET}?key={SECRET}");
    let rest = format!(
        "{EVENTS}[webhook]\nurls = [\"{url}\", \"{dead}\"]\nmax_retries = 1\n\
         retry_interval = \"5ms\"\n\n[endpoints]\nallow = [\"127.0.0.1\"]\n"
    );
    let toml = configuration(&database, &rest).replace("walhook=debug", "debug");
    let mut service = Service::start(&toml).await;
    let made = json!({ "name": "robot", "url": url });
    assert_eq!(service.post("/api/v1/endpoints", &made).await.status, 201);
    sql.batch_execute("INSERT INTO customers VALUES (1)").await.unwrap();
    wait_for_text(&sql, "SELECT count(*) FROM walhook.dead_letters", "3").await;
    let mut seen = Vec::new();
    for path in [
        "/api/v1/status",
        "/api/v1/endpoints",
        "/api/v1/endpoints/robot",
        "/api/v1/dead-letters",
        "/api/v1/push-logs",
        "/metrics",
        "/ready",
    ] {
        let reply = service.get(path).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.body);
        seen.push((path.to_owned(), reply.body));
    }
    assert!(seen[1].1.contains(&origin), "people recognise it by {origin}: {}", seen[1].1);
    for table in ["push_log", "dead_letters", "books", "fronts", "backlog"] {
        let rows = format!("SELECT coalesce(string_agg(t::text, ' '), '') FROM walhook.{table} t");
        seen.push((table.to_owned(), sql.text(&rows).await));
    }
    assert!(seen[7].1.contains("Cannot POST [secret]"), "{}", seen[7].1);
    for args in [&["endpoints", "list"][..], &["dead-letters", "list"]] {
        let (code, said) = service.cli(args).await;
        assert_eq!(code, Some(0), "{said}");
        seen.push((args.join(" "), said));
    }
    service.stop().await;
    seen.push(("the log".to_owned(), service.program.output().join("\n")));
    let mut check = Program::start(&["check"], &toml, &[]);
    check.wait(AMPLE).await;
    let said = check.output().join("\n");
    let refused =
        format!("endpoint {}: http://127.0.0.1:9 cannot be reached: connect", name_of(&dead));
    assert!(said.contains(&refused), "{said}");
    seen.push(("check".to_owned(), said));
    for (place, text) in &seen {
        let known = Path::new(place).display();
        assert!(!text.contains(SECRET) && !text.contains("sifa5aaa"), "{known}: {text}");
    }
}
