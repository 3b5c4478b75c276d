//! `GET /api/v1/members` and `walhook members`: who delivers for a source, as every member says it.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]
#![expect(clippy::indexing_slicing, reason = "a missing field fails the test as it should")]

use std::time::Duration;
use std::time::Instant;

use serde_json::Value;
use serde_json::json;

use crate::support::broker::Broker;
use crate::support::postgres::Database;
use crate::support::program::Program;
use crate::support::service::AMPLE;
use crate::support::service::Service;
use crate::support::service::configuration;

async fn prepared(relay: &str) -> (Database, String) {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute("CREATE TABLE orders (id int PRIMARY KEY)").await.unwrap();
    let rest = format!(
        "[[event]]\ntype = \"order\"\ntable = \"public.orders\"\n\n\
         [webhook]\nurls = [\"http://127.0.0.1:9/\"]\n\n{relay}"
    );
    let toml = configuration(&database, &rest);
    (database, toml)
}

async fn said_by(member: &Service) -> Value {
    let reply = member.get_when_up("/api/v1/members").await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()
}

/// Waits until a member says so of the partitions of each member, by where it listens.
async fn wait_for_shares(asked: &Service, expected: &[(String, usize)]) -> Value {
    let deadline = Instant::now() + AMPLE;
    loop {
        let said = said_by(asked).await;
        let members = said["members"].as_array().unwrap().iter();
        let alive = members.filter(|member| member["is_alive"] == true);
        let mut found: Vec<(String, usize)> = alive
            .map(|member| {
                let count = member["partitions"].as_array().unwrap().len();
                (member["address"].as_str().unwrap().to_owned(), count)
            })
            .collect();
        found.sort();
        if found == expected {
            return said;
        }
        assert!(Instant::now() < deadline, "not {expected:?}: {said:#}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Without what moves on while one after the other is asked.
fn still(mut said: Value) -> Value {
    for member in said["members"].as_array_mut().unwrap() {
        member["seen_at"] = Value::Null;
    }
    said
}

#[tokio::test]
async fn every_member_says_who_has_which_partition_and_which_nobody_has() {
    let test = "every_member_says_who_has_which_partition_and_which_nobody_has";
    let Some(broker) = Broker::start(test).await else { return };
    let url = broker.url();
    let relay =
        format!("[relay]\nurl = \"{url}\"\nreplicas = 1\npartitions = 4\npatience = \"1h\"\n");
    let (_database, toml) = prepared(&relay).await;
    let mut tail = Service::start_as(&["--role", "tail"], &toml).await;
    let first = Service::start_as(&["--role", "deliver"], &toml).await;
    let mut second = Service::start_as(&["--role", "deliver"], &toml).await;
    let mut expected = [&first, &second].map(|member| (member.http.to_string(), 2));
    expected.sort();
    let shared = wait_for_shares(&tail, &expected).await;
    assert_eq!(shared["partitions"], 4, "{shared:#}");
    assert_eq!((&shared["unowned"], &shared["at_source"]), (&json!([]), &json!([])), "{shared:#}");
    let shared = still(shared);
    for member in [&first, &second] {
        assert_eq!(still(said_by(member).await), shared);
    }
    let mut command = Program::start(&["members", "--json"], &toml, &[]);
    assert_eq!(command.wait(AMPLE).await, Some(0), "{:?}", command.output());
    assert_eq!(still(serde_json::from_str(&command.output().concat()).unwrap()), shared);

    // The other one takes over; and when it has given everything back, nobody has any.
    first.program.kill();
    wait_for_shares(&tail, &[(second.http.to_string(), 4)]).await;
    second.stop().await;
    let left = wait_for_shares(&tail, &[]).await;
    assert_eq!(left["unowned"], json!([1, 2, 3, 4]), "{left:#}");
    tail.stop().await;
}

/// Waits until the status of a member says so of the partitions that nobody delivers for.
async fn wait_for_unowned(asked: &Service, unowned: &Value) -> Value {
    let deadline = Instant::now() + AMPLE;
    loop {
        let status = asked.get_when_up("/api/v1/status").await.json();
        if &status["partitions"]["unowned"] == unowned {
            return status;
        }
        assert!(Instant::now() < deadline, "not {unowned}: {status:#}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn the_status_of_each_member_names_partitions_that_nobody_delivers_for_also_while_they_are_parked()
 {
    let test = "the_status_of_each_member_names_partitions_that_nobody_delivers_for";
    let Some(broker) = Broker::start(test).await else { return };
    let relay = format!("[relay]\nurl = \"{}\"\nreplicas = 1\npartitions = 4\n", broker.url());
    let (_database, toml) = prepared(&format!("{relay}patience = \"1s\"\n")).await;
    let mut tail = Service::start_as(&["--role", "tail"], &toml).await;
    let parked = |shared: &Value| shared["at_source"] == json!([1, 2, 3, 4]);
    let deadline = Instant::now() + AMPLE;
    while !parked(&said_by(&tail).await) {
        assert!(Instant::now() < deadline, "{:#}", said_by(&tail).await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let status = wait_for_unowned(&tail, &json!([1, 2, 3, 4])).await;
    assert_eq!((&status["healthy"], &status["partitions"]["count"]), (&json!(false), &json!(4)));
    let problems = status["problems"].as_array().unwrap();
    let problem = problems.iter().find(|problem| problem["about"] == "partitions").unwrap();
    let what = problem["what"].as_str().unwrap();
    assert!(what.starts_with("nobody delivers for partitions 1, 2, 3, 4 of 4"), "{problem}");
    let fix = problem["do"].as_str().unwrap();
    assert!(fix.contains("walhook run --role deliver"), "{problem}");
    let (code, told) = tail.cli(&["status"]).await;
    assert!(code == Some(1) && told.contains(what), "{told}");
    let mut worker = Service::start_as(&["--role", "deliver"], &toml).await;
    for member in [&tail, &worker] {
        let status = wait_for_unowned(member, &json!([])).await;
        let problems = status["problems"].as_array().unwrap();
        assert!(problems.iter().all(|problem| problem["about"] != "partitions"), "{status:#}");
    }
    worker.stop().await;
    wait_for_unowned(&tail, &json!([1, 2, 3, 4])).await;
    tail.stop().await;

    // Whoever has the slot alone delivers for all of them.
    let mut alone = Service::start(&toml).await;
    let status = alone.get("/api/v1/status").await.json();
    assert_eq!(status["partitions"], Value::Null, "{status:#}");
    alone.stop().await;
}

#[tokio::test]
async fn a_source_that_is_not_shared_has_no_members() {
    let (_database, toml) = prepared("").await;
    let mut service = Service::start(&toml).await;
    let nobody = json!({ "partitions": null, "members": [], "unowned": [], "at_source": [] });
    assert_eq!(said_by(&service).await, nobody);
    service.stop().await;
}
