//! The retry ladder is the user's: an attempt is spent only by a request that came to the endpoint.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]

use std::sync::Arc;

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

const ORDERS: &str = "CREATE TABLE orders (id int PRIMARY KEY)";
const EVENT: &str = "[[event]]\ntype = \"order\"\ntable = \"public.orders\"\n\n";
const LETTERS: &str = "SELECT count(*) FROM walhook.dead_letters";

async fn insert(sql: &Sql, from: i64, to: i64) {
    let insert = format!("INSERT INTO orders SELECT generate_series({from}, {to})");
    sql.batch_execute(&insert).await.unwrap();
}

/// Three retries at most; some sixty probes while it is down.
#[tokio::test]
async fn no_event_is_lost_to_the_probes_of_a_long_outage() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(ORDERS).await.unwrap();
    let receiver = Receiver::start(always(Answer::status(503)));
    let rest = format!(
        "{EVENT}[webhook]\nurls = [\"{}\"]\nretry_interval = \"20ms\"\nconcurrent_pushers = 3\n\
         breaker = {{ failures = 3, cooldown = \"20ms\", cap = \"40ms\" }}\n",
        receiver.url()
    );
    let mut service = Service::start(&configuration(&database, &rest)).await;
    // One at first, so that the probes are all its own.
    insert(&sql, 1, 1).await;
    receiver.wait_for(30, AMPLE).await;
    insert(&sql, 2, 10).await;
    receiver.wait_for(80, AMPLE).await;
    let told = "SELECT count(*) > 40, max(retry_count) < 4 FROM walhook.push_log";
    let told = format!("SELECT concat_ws(' ', a, b) FROM ({told}) AS t(a, b)");
    wait_for_text(&sql, &told, "t t").await;
    // What waits goes on after a restart where it was.
    service.stop().await;
    let mut service = Service::start(&configuration(&database, &rest)).await;
    let seen = receiver.count();
    receiver.wait_for(seen + 20, AMPLE).await;
    assert_eq!(sql.text(LETTERS).await, "0");
    receiver.behave(always(Answer::status(200)));
    let books = "SELECT string_agg(concat_ws(' ', delivered, dead, pending), ',') \
                   FROM walhook.balance";
    wait_for_text(&sql, books, "10 0 0").await;
    service.stop().await;
}

/// idp-push, in fiftieths of its times: 30 tasks at once, one webhook refuses and one hangs.
#[tokio::test]
async fn the_listed_delays_hold_to_the_letter_for_many_tasks_at_once() {
    const TASKS: i64 = 30;
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(
        "CREATE TABLE tasks (id text PRIMARY KEY, status text NOT NULL);
         ALTER TABLE tasks REPLICA IDENTITY FULL;",
    )
    .await
    .unwrap();
    let refusing = Receiver::start(always(Answer::status(503)));
    let hanging = Receiver::start(always(Answer::Hang));
    let endpoint = |name: &str, receiver: &Receiver| {
        let url = receiver.url();
        format!(
            "[[endpoint]]\nname = \"{name}\"\nurl = \"{url}\"\n\
             retry = {{ delays = [\"600ms\", \"1800ms\", \"5400ms\"] }}\n"
        )
    };
    let rest = format!(
        "[[event]]\ntype = \"task.completed\"\ntable = \"public.tasks\"\non = [\"insert\"]\n\
         write_back = {{ column = \"status\", delivered = \"PUSH_SUCCESS\", failed = \"push_failed\" }}\n\
         [webhook]\ntimeout = \"1800ms\"\nbreaker = false\nconcurrent_pushers = 64\n{}{}",
        endpoint("refusing", &refusing),
        endpoint("hanging", &hanging)
    );
    let mut service = Service::start(&configuration(&database, &rest)).await;
    let insert = format!(
        "INSERT INTO tasks SELECT 'T_' || n, 'COMPLETED' FROM generate_series(1, {TASKS}) n"
    );
    sql.batch_execute(&insert).await.unwrap();
    let failed = "SELECT count(*) FROM tasks WHERE status = 'push_failed'";
    wait_for_text(&sql, failed, &TASKS.to_string()).await;
    let all = usize::try_from(TASKS).unwrap() * 4;
    assert_eq!((refusing.count(), hanging.count()), (all, all));
    // From the end of one attempt to the start of the next: never sooner, whoever else waits. Later
    // than a second only if the machine stood still.
    let waits = "SELECT string_agg(concat_ws(' ', retry_count, shortest >= listed, longest < listed + 30000),
                                   ', ' ORDER BY retry_count)
          FROM (SELECT retry_count, min(wait) AS shortest, max(wait) AS longest,
                       (ARRAY[600, 1800, 5400])[retry_count] - 200 AS listed
                  FROM (SELECT retry_count, extract(epoch FROM created_at - lag(created_at)
                                 OVER (PARTITION BY endpoint, row_key ORDER BY retry_count)) * 1000
                               - duration_ms AS wait FROM walhook.push_log) AS each
                 WHERE wait IS NOT NULL GROUP BY retry_count) AS all_of_them";
    wait_for_text(&sql, waits, "1 t t, 2 t t, 3 t t").await;
    assert_eq!(sql.text(LETTERS).await, (2 * TASKS).to_string());
    service.stop().await;
}

/// Its way through `gone` and back, for an endpoint of the file.
#[tokio::test]
async fn what_410_means_is_the_operators_choice() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(ORDERS).await.unwrap();
    let receiver = Receiver::start(Arc::new(|request: &Request| {
        let is_first = request.json()["data"]["id"] == 1;
        Answer::status(if is_first { 410 } else { 200 })
    }));
    let rest = format!(
        "{EVENT}[[endpoint]]\nname = \"crm\"\nurl = \"{}\"\ngone = \"dead\"\nordering = \"strict\"\n",
        receiver.url()
    );
    let mut service = Service::start(&configuration(&database, &rest)).await;
    insert(&sql, 1, 3).await;
    let books = "SELECT string_agg(concat_ws(' ', delivered, dead, pending), ',') \
                   FROM walhook.balance";
    wait_for_text(&sql, books, "2 1 0").await;
    let letter = "SELECT string_agg(concat_ws('|', row_key, http_status, attempts), ',') \
                    FROM walhook.dead_letters";
    wait_for_text(&sql, letter, "1|410|1").await;
    let status = service.get("/api/v1/status").await.json();
    assert_eq!(status["endpoints"][0]["state"], "enabled");
    service.stop().await;
}
