//! Lanes from outside: one endpoint does not feel another, and keys keep their order.

use std::collections::HashMap;
use std::time::Duration;
use std::time::Instant;

use serde_json::json;

use crate::support::postgres::Database;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::always;
use crate::support::receiver::flaky;
use crate::support::service::AMPLE;
use crate::support::service::Service;
use crate::support::service::configuration;
use crate::support::service::name_of;

const TABLE: &str = "CREATE TABLE orders (id int PRIMARY KEY, version int NOT NULL)";

/// Every change of `orders` as an event `order`.
const EVENT: &str = "[[event]]\ntype = \"order\"\ntable = \"public.orders\"\n\n";

#[tokio::test]
async fn an_endpoint_that_hangs_takes_nothing_from_the_others() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(TABLE).await.unwrap();
    let (healthy, hanging) =
        (Receiver::start(always(Answer::status(200))), Receiver::start(always(Answer::Hang)));
    let (good, bad) = (healthy.url(), hanging.url());
    // The hanging one's lane has room for all: what does not fit is parked one day.
    let rest = format!(
        "{EVENT}[webhook]\nurls = [\"{bad}\", \"{good}\"]\ntimeout = \"1h\"\n\
         [shutdown]\ngrace = \"1s\""
    );
    let mut service = Service::start(&configuration(&database, &rest)).await;
    let insert = "INSERT INTO orders SELECT n, 0 FROM generate_series(1, 600) n";
    sql.batch_execute(insert).await.unwrap();
    healthy.wait_for(600, AMPLE).await;
    assert_eq!(hanging.count(), 3, "as many as may be in flight");
    let (good, bad) = (name_of(&good), name_of(&bad));
    let pending = format!("walhook_deliveries_pending{{endpoint=\"{bad}\",where=\"memory\"}}");
    service.wait_for_metric(&pending, 600.0).await;
    let delivered =
        format!("walhook_deliveries_total{{endpoint=\"{good}\",outcome=\"delivered\"}}");
    service.wait_for_metric(&delivered, 600.0).await;
    assert_eq!(service.get("/ready").await.status, 200);
    // What hangs is cut off, which is no failure of the shutdown: it comes again.
    service.stop().await;
    assert_eq!(healthy.count(), 600);
}

#[tokio::test]
async fn an_endpoint_that_takes_its_time_costs_no_rows_of_the_backlog() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(TABLE).await.unwrap();
    let quick = Receiver::start(always(Answer::status(200)));
    let slow = Receiver::start(always(Answer::status(200).after(Duration::from_millis(200))));
    let endpoint = |name: &str, receiver: &Receiver| {
        let url = receiver.url();
        format!("[[endpoint]]\nname = \"{name}\"\nurl = \"{url}\"\nevents = [\"order\"]\n\n")
    };
    // More than its lane holds, and how long others have nothing to do is not what this is about.
    let rest = format!(
        "{EVENT}{}{}[memory]\nhold_wal_time = \"1h\"",
        endpoint("quick", &quick),
        endpoint("slow", &slow)
    );
    let mut service = Service::start(&configuration(&database, &rest)).await;
    let insert = "INSERT INTO orders SELECT n, 0 FROM generate_series(1, 3000) n";
    sql.batch_execute(insert).await.unwrap();
    slow.wait_for(3000, AMPLE).await;
    quick.wait_for(3000, AMPLE).await;
    service.stop().await;
    let delivered = "SELECT string_agg(endpoint || ' ' || delivered, ', ' ORDER BY endpoint) \
                       FROM walhook.balance";
    assert_eq!(sql.text(delivered).await, "quick 3000, slow 3000");
    let rows = "SELECT n_tup_ins FROM pg_stat_user_tables \
                 WHERE schemaname = 'walhook' AND relname = 'backlog'";
    assert_eq!(sql.text(rows).await, "0");
}

#[tokio::test]
async fn what_an_endpoint_has_settled_beyond_a_slow_one_is_remembered_through_a_kill() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(TABLE).await.unwrap();
    let (healthy, hanging) =
        (Receiver::start(always(Answer::status(200))), Receiver::start(always(Answer::Hang)));
    let rest = format!(
        "{EVENT}[webhook]\nurls = [\"{}\", \"{}\"]\ntimeout = \"1h\"\n",
        hanging.url(),
        healthy.url()
    );
    let toml = configuration(&database, &rest);
    let mut service = Service::start(&toml).await;
    sql.batch_execute("INSERT INTO orders SELECT n, 0 FROM generate_series(1, 600) n")
        .await
        .unwrap();
    let flushed = "SELECT coalesce(sum(delivered), 0) FROM walhook.books";
    let deadline = Instant::now() + AMPLE;
    while sql.text(flushed).await != "600" {
        assert!(Instant::now() < deadline, "the deliveries are not written down");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Only what was out of order when a flush began has a row of its own.
    let few = "SELECT count(*) < 60 FROM walhook.settled_ahead";
    assert_eq!(sql.text(few).await, "t");
    service.program.kill();
    service.program.wait(AMPLE).await;

    let recovered = Receiver::start(always(Answer::status(200)));
    let mut again = Service::start(&toml.replace(&hanging.url(), &recovered.url())).await;
    recovered.wait_for(600, AMPLE).await;
    again.stop().await;
    assert_eq!((recovered.count(), healthy.count()), (600, 600), "nothing is repeated");
}

#[tokio::test]
async fn changes_of_one_key_arrive_in_commit_order_also_through_failures() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(TABLE).await.unwrap();
    let receiver = Receiver::start(flaky(7, 0.3, Answer::status(503)));
    let url = receiver.url();
    let rest = format!(
        "{EVENT}[[endpoint]]\nname = \"shop\"\nurl = \"{url}\"\nevents = [\"order\"]\n\
         concurrency = 8\nretry = {{ max = 100, interval = \"2ms\", cap = \"20ms\" }}\n\
         # Failures in a row are up to chance here, and an outage is not what this is about.\n\
         breaker = {{ failures = 1000, cooldown = \"1s\", cap = \"1m\" }}"
    );
    let mut service = Service::start(&configuration(&database, &rest)).await;
    let (keys, versions) = (7, 60);
    sql.batch_execute(&format!("INSERT INTO orders SELECT n, 0 FROM generate_series(1, {keys}) n"))
        .await
        .unwrap();
    for version in 1..versions {
        // One transaction for each key in turn, and some for all keys at once.
        let condition = if version % 3 == 0 { "true" } else { "id % 2 = 0" };
        sql.batch_execute(&format!("UPDATE orders SET version = {version} WHERE {condition}"))
            .await
            .unwrap();
        sql.batch_execute(&format!(
            "UPDATE orders SET version = {version} WHERE NOT ({condition})"
        ))
        .await
        .unwrap();
    }
    sql.batch_execute("DELETE FROM orders").await.unwrap();
    let events = f64::from(keys * (versions + 1));
    service
        .wait_for_metric(
            "walhook_deliveries_total{endpoint=\"shop\",outcome=\"delivered\"}",
            events,
        )
        .await;
    service.stop().await;

    // The order of arrival: an attempt that failed stands for its event as well as the last one.
    let mut ids: HashMap<i64, Vec<String>> = HashMap::new();
    let mut rows: HashMap<i64, Vec<Option<i64>>> = HashMap::new();
    for request in receiver.requests() {
        let body = request.json();
        assert_eq!(body["type"], json!("order"));
        let key = body["data"]["id"].as_i64().unwrap();
        let seen = ids.entry(key).or_default();
        let id = request.header("webhook-id").to_owned();
        if seen.last() != Some(&id) {
            assert!(!seen.contains(&id), "{id} of key {key} comes again after a later one");
            seen.push(id);
            rows.entry(key).or_default().push(body["data"]["version"].as_i64());
        }
    }
    assert_eq!(rows.len(), usize::try_from(keys).unwrap());
    for (key, seen) in rows {
        // A delete carries the key alone.
        let expected = (0..i64::from(versions)).map(Some).chain([None]);
        assert!(seen.iter().copied().eq(expected), "key {key}: {seen:?}");
    }
    let attempts = receiver.count();
    assert!(f64::from(u32::try_from(attempts).unwrap()) > events * 1.2, "only {attempts} attempts");
}

#[tokio::test]
async fn batches_of_a_backlog_are_full() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(TABLE).await.unwrap();
    let receiver = Receiver::start(always(Answer::status(200)));
    let rest = format!(
        "{EVENT}[[endpoint]]\nname = \"batches\"\nurl = \"{}\"\nevents = [\"order\"]\n\
         batch = {{ size = 100, linger = \"1m\" }}\n",
        receiver.url()
    );
    let toml = configuration(&database, &rest);
    // So that the slot is there.
    Service::start(&toml).await.stop().await;
    let each = "DO $$ BEGIN FOR n IN 1..2000 LOOP INSERT INTO orders VALUES (n, 0); COMMIT; END LOOP; END $$";
    sql.batch_execute(each).await.unwrap();
    let mut service = Service::start(&toml).await;
    receiver.wait_for(20, AMPLE).await;
    let delivered = "walhook_deliveries_total{endpoint=\"batches\",outcome=\"delivered\"}";
    service.wait_for_metric(delivered, 2000.0).await;
    assert_eq!(receiver.count(), 20, "what a read brings is not all that is on its way");
    service.stop().await;
}
