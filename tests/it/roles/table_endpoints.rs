//! Endpoints that are rows of a table: the tail follows it in the stream, and each worker reads it when the tail says.

use std::time::Duration;

use super::DELIVER;
use super::TAIL;
use super::UNBALANCED;
use crate::support::broker::Broker;
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

const TABLES: &str = "
    CREATE TABLE tasks (id text PRIMARY KEY, rule_id bigint, status text);
    CREATE TABLE webhooks (id int PRIMARY KEY, rule_ids bigint[], url text, on_air bool DEFAULT true);";

fn toml(database: &Database, broker: &Broker) -> String {
    let rest = format!(
        "[[event]]\ntype = \"task\"\ntable = \"public.tasks\"\non = [\"insert\", \"update\"]\n\n\
         [webhook]\nretry_interval = \"20ms\"\nretry_cap = \"50ms\"\nmax_retries = 100\n\n\
         [endpoints]\nallow = [\"127.0.0.1\"]\n\n[endpoints_from]\ntable = \"public.webhooks\"\n\
         match = {{ rule_id = \"rule_ids\" }}\nid = \"id\"\n\n\
         [endpoints_from.endpoint]\nname = \"wh-{{{{ id }}}}\"\nurl = \"{{{{ url }}}}\"\n\
         events = [\"task\"]\nenabled = \"{{{{ on_air }}}}\"\n\n\
         [relay]\nurl = \"{}\"\nreplicas = 1\npatience = \"1h\"\npartitions = 4\n",
        broker.url()
    );
    configuration(database, &rest)
        .replace("[postgres]\n", "[postgres]\nwal_sender_timeout = \"2s\"\n")
}

async fn webhook(sql: &Sql, receiver: &Receiver, id: usize, rules: &str) {
    let url = format!("{}/{id}", receiver.url());
    let insert = format!("INSERT INTO webhooks VALUES ({id}, '{{{rules}}}', '{url}')");
    sql.batch_execute(&insert).await.unwrap();
}

async fn task(sql: &Sql, id: &str, rule: usize) {
    sql.batch_execute(&format!("INSERT INTO tasks VALUES ('{id}', {rule})")).await.unwrap();
}

/// `path task` of each request, once.
fn arrived(receiver: &Receiver) -> Vec<String> {
    let shown = |request: &Request| {
        let task = request.json()["data"]["id"].as_str().unwrap().to_owned();
        format!("{} {task}", request.path.trim_start_matches("/hooks/"))
    };
    let mut arrived: Vec<String> = receiver.requests().iter().map(shown).collect();
    arrived.sort();
    arrived.dedup();
    arrived
}

async fn wait_for_arrived(receiver: &Receiver, expected: &[&str]) {
    let deadline = std::time::Instant::now() + AMPLE;
    while arrived(receiver) != expected {
        let arrived = arrived(receiver);
        assert!(std::time::Instant::now() < deadline, "{arrived:?}, not {expected:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_task_goes_to_the_webhooks_that_its_rule_had_when_it_was_committed_over_a_broker_as_well()
{
    let test = "a_task_goes_to_the_webhooks_that_its_rule_had_over_a_broker";
    let Some(broker) = Broker::start(test).await else { return };
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(TABLES).await.unwrap();
    let receiver = Receiver::start(always(Answer::status(200)));
    let toml = &toml(&database, &broker);
    webhook(&sql, &receiver, 1, "7").await;
    webhook(&sql, &receiver, 2, "7, 8").await;
    let mut tail = Service::start_as(TAIL, toml).await;
    let mut workers =
        [Service::start_as(DELIVER, toml).await, Service::start_as(DELIVER, toml).await];
    task(&sql, "a", 7).await;
    task(&sql, "b", 8).await;
    task(&sql, "c", 9).await;
    // What is added, or takes more, waits for nothing: the next task finds it.
    webhook(&sql, &receiver, 3, "9").await;
    task(&sql, "d", 9).await;
    wait_for_arrived(&receiver, &["1 a", "2 a", "2 b", "3 d"]).await;
    sql.batch_execute("UPDATE webhooks SET rule_ids = '{7}' WHERE id = 2").await.unwrap();
    task(&sql, "e", 8).await;
    // Another URL holds for the next task.
    let url = format!("{}/one", receiver.url());
    sql.batch_execute(&format!("UPDATE webhooks SET url = '{url}' WHERE id = 1")).await.unwrap();
    task(&sql, "f", 7).await;
    wait_for_arrived(&receiver, &["1 a", "2 a", "2 b", "2 f", "3 d", "one f"]).await;
    for worker in &workers {
        let listed = worker.get("/api/v1/endpoints").await.json();
        let listed = listed["endpoints"].as_array().unwrap();
        assert!(listed.len() == 3 && listed.iter().all(|one| one["source"] == "table"));
    }
    // Whoever dies, and whatever is changed meanwhile.
    workers[0].program.kill();
    webhook(&sql, &receiver, 4, "7").await;
    sql.batch_execute("DELETE FROM webhooks WHERE id = 3").await.unwrap();
    task(&sql, "g", 7).await;
    task(&sql, "h", 9).await;
    tail.program.kill();
    task(&sql, "i", 7).await;
    webhook(&sql, &receiver, 5, "9").await;
    task(&sql, "j", 9).await;
    tail = Service::start_as(TAIL, toml).await;
    workers[0].program.wait(AMPLE).await;
    workers[0] = Service::start_as(DELIVER, toml).await;
    let mut expected = vec!["1 a", "2 a", "2 b", "2 f", "3 d", "one f"];
    expected.extend(["2 g", "2 i", "4 g", "4 i", "5 j", "one g", "one i"]);
    expected.sort_unstable();
    wait_for_arrived_but(&receiver, &expected, &["5 h"]).await;
    wait_for_text(&sql, UNBALANCED, "").await;
    for member in workers.iter_mut().chain([&mut tail]) {
        member.stop().await;
    }
    // Alone and back: what was settled stays settled.
    let before = receiver.count();
    let mut alone = Service::start(toml).await;
    task(&sql, "k", 9).await;
    receiver.wait_for(before + 1, AMPLE).await;
    alone.stop().await;
    let mut tail = Service::start_as(TAIL, toml).await;
    let mut worker = Service::start_as(DELIVER, toml).await;
    task(&sql, "l", 9).await;
    receiver.wait_for(before + 2, AMPLE).await;
    wait_for_text(&sql, UNBALANCED, "").await;
    assert_eq!(receiver.count(), before + 2);
    worker.stop().await;
    tail.stop().await;
}

/// A tail that begins anew reads the table as it is by then: a task of before may go to a row that is new.
async fn wait_for_arrived_but(receiver: &Receiver, expected: &[&str], maybe: &[&str]) {
    let deadline = std::time::Instant::now() + AMPLE;
    loop {
        let mut arrived = arrived(receiver);
        arrived.retain(|one| !maybe.contains(&one.as_str()));
        if arrived == expected {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "{arrived:?}, not {expected:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A worker that may not read the table any more says so, and goes on when it may again.
#[tokio::test]
async fn a_worker_that_cannot_read_the_table_warns_and_delivers_when_it_can_again() {
    let test = "a_worker_that_cannot_read_the_table_warns";
    let Some(broker) = Broker::start(test).await else { return };
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(TABLES).await.unwrap();
    let role = format!("clerk_{}", std::process::id());
    let made = format!("CREATE ROLE {role} LOGIN; GRANT SELECT ON webhooks TO {role}");
    sql.batch_execute(&made).await.unwrap();
    let receiver = Receiver::start(always(Answer::status(200)));
    let toml = &toml(&database, &broker);
    let url = database.url();
    let as_clerk = url.replacen("postgres@", &format!("{role}@"), 1);
    assert_ne!(as_clerk, url);
    let for_clerk = toml.replacen(&format!("url = \"{url}\""), &format!("url = \"{as_clerk}\""), 1)
        + &format!("\n[state]\nurl = \"{url}\"\n");
    webhook(&sql, &receiver, 1, "7").await;
    let mut tail = Service::start_as(TAIL, toml).await;
    let mut worker = Service::start_as(DELIVER, &for_clerk).await;
    task(&sql, "a", 7).await;
    wait_for_arrived(&receiver, &["1 a"]).await;
    sql.batch_execute(&format!("REVOKE SELECT ON webhooks FROM {role}")).await.unwrap();
    webhook(&sql, &receiver, 2, "8").await;
    task(&sql, "b", 8).await;
    worker.program.wait_for_line("the endpoints stay as they were at the last look", AMPLE).await;
    // What waits for the look is given up, not kept for ever.
    worker.program.wait_for_line("that could not be looked up", AMPLE).await;
    sql.batch_execute(&format!("GRANT SELECT ON webhooks TO {role}")).await.unwrap();
    wait_for_arrived(&receiver, &["1 a", "2 b"]).await;
    let dead = "SELECT count(*) FROM walhook.dead_letters";
    assert_eq!(sql.text(dead).await, "0");
    wait_for_text(&sql, UNBALANCED, "").await;
    let log = worker.program.output().join("\n");
    assert_eq!(
        log.matches("the endpoints stay as they were").count(),
        1,
        "once per outage:\n{log}"
    );
    worker.stop().await;
    tail.stop().await;
    sql.batch_execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await.unwrap();
}
