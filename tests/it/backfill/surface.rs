//! Ordering, looking, pausing, ending; what is refused, and in which words.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;
use serde_json::json;

use super::Bench;
use super::ITEMS;
use super::RULE;
use super::ids;
use super::reads;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::always;
use crate::support::service::AMPLE;
use crate::support::service::Service;

#[tokio::test]
async fn rows_come_as_events_of_the_operation_read() {
    let bench = Bench::start(300).await;
    let id = bench.order(json!({ "tables": ["public.items"], "where": "id % 2 = 0" })).await;
    let shown = bench.done(id).await;
    assert_eq!(
        (&shown["state"], &shown["rows_read"], &shown["rows_sent"]),
        (&json!("done"), &json!(150), &json!(150))
    );
    assert_eq!((&shown["progress"], &shown["by"]), (&json!(1.0), &json!("key")));
    let requests = bench.receiver.requests();
    let found = reads(&requests);
    assert_eq!(
        ids(&found).into_iter().collect::<BTreeSet<_>>(),
        (1..=150).map(|n| n * 2).collect()
    );
    assert_eq!((found.len(), requests.len()), (150, 150));
    assert_eq!(found[0]["type"], "item");
    let second = found.iter().find(|body| body["data"]["id"] == 2).unwrap();
    assert_eq!(second["data"]["large"], "2".repeat(3000));
    // Ids tell each row, and sort behind those of changes.
    let names: BTreeSet<&str> =
        requests.iter().map(|request| request.header("webhook-id")).collect();
    assert_eq!(names.len(), 150);
    assert!(names.iter().all(|name| name.starts_with("evt_8")), "{names:?}");
    bench.balanced().await;
    let series = "walhook_backfill_rows_total{state=\"sent\",table=\"public.items\"}";
    assert_eq!(bench.service.metric(series).await, 150.0);
    assert_eq!(
        bench.service.metric("walhook_backfill_progress_ratio{table=\"public.items\"}").await,
        1.0
    );
}

#[tokio::test]
async fn only_who_asks_for_rows_gets_them() {
    let rules = "[[event]]\ntype = \"item\"\ntable = \"public.items\"\n\
                 [[event]]\ntype = \"item.row\"\ntable = \"public.items\"\non = [\"read\"]\nwhen = \"id > 5\"\n";
    let bench = Bench::start_with(ITEMS, 10, rules).await;
    let other = Receiver::start(always(Answer::status(200)));
    let made = json!({ "name": "other", "url": other.url(), "events": ["item.row"] });
    let toml = format!("{}[endpoints]\nallow = [\"127.0.0.1\"]\n", bench.toml);
    let mut service = bench.service;
    service.stop().await;
    let bench = Bench { service: Service::start(&toml).await, ..bench };
    assert_eq!(bench.service.post("/api/v1/endpoints", &made).await.status, 201);
    let id = bench.order(json!({ "tables": ["public.items"], "endpoints": ["other"] })).await;
    assert_eq!(bench.done(id).await["state"], "done");
    assert_eq!(ids(&reads(&other.requests())).len(), 5);
    assert_eq!(bench.receiver.count(), 0);
    bench.balanced().await;
    // As events of a type whose `on` does not say so.
    let id = bench.order(json!({ "tables": ["items"], "as": "item", "where": "id = 3" })).await;
    assert_eq!(bench.done(id).await["state"], "done");
    let found = reads(&bench.receiver.wait_for(1, AMPLE).await);
    assert_eq!((found.len(), &found[0]["type"]), (1, &json!("item")));
    assert_eq!(other.count(), 5);
    bench.balanced().await;
}

#[tokio::test]
async fn what_cannot_be_is_refused_in_words() {
    let rules = "[[event]]\ntype = \"item\"\ntable = \"public.items\"\n\
                 [[event]]\ntype = \"hidden\"\ntable = \"public.hidden\"\non = [\"insert\", \"read\"]\n";
    let tables =
        format!("{ITEMS} CREATE TABLE hidden (id int PRIMARY KEY); CREATE TABLE other (id int)");
    let bench = Bench::start_with(&tables, 3, rules).await;
    let cases: [(Value, &str); 9] = [
        (json!({ "tables": ["public.items"] }), "asks for rows"),
        (json!({ "tables": ["public.items"], "as": "nothing" }), "no event type"),
        (json!({ "tables": ["public.other"] }), "no [[event]]"),
        (
            json!({ "tables": ["public.items"], "as": "item", "where": "nothing = 1" }),
            "does not take `where`",
        ),
        (
            json!({ "tables": ["public.items"], "as": "item", "where": "true); DROP TABLE other; --" }),
            "does not take `where`",
        ),
        (
            json!({ "tables": ["public.items"], "as": "item", "endpoints": ["nobody"] }),
            "not configured",
        ),
        (json!({ "tables": [] }), "tables must name"),
        (json!({ "tables": ["public.items"], "rate": 0 }), "rate"),
        (json!({ "tables": ["public.items"], "by": "chance" }), "by"),
    ];
    for (wish, said) in cases {
        let reply = bench.service.post("/api/v1/backfills", &wish).await;
        assert!(reply.status.is_client_error(), "{wish}: {reply:?}");
        assert!(reply.body.contains(said), "{wish}: {}", reply.body);
    }
    assert_eq!(bench.sql.text("SELECT count(*) FROM other").await, "0", "it is there still");
    bench
        .sql
        .batch_execute("ALTER TABLE hidden ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
        .await
        .unwrap();
    let superuser =
        bench.sql.text("SELECT usesuper FROM pg_user WHERE usename = current_user").await;
    let reply = bench
        .service
        .post("/api/v1/backfills", &json!({ "tables": ["public.hidden"], "dry_run": true }))
        .await;
    // Nothing is hidden from a superuser.
    assert!(superuser == "t" || reply.body.contains("row-level security"), "{reply:?}");
    let dry = json!({ "tables": ["public.items"], "as": "item", "dry_run": true, "count": true });
    let reply = bench.service.post("/api/v1/backfills", &dry).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.json()["backfills"][0]["counted_rows"], 3);
    assert_eq!(bench.service.get("/api/v1/backfills").await.json()["backfills"], json!([]).clone());
}

#[tokio::test]
async fn words_of_postgresql_that_hold_a_value_are_in_the_reason_and_not_in_the_log() {
    let mut bench = Bench::start(3).await;
    let wish =
        json!({ "tables": ["public.items"], "where": "('a secret of row ' || id)::int = 1" });
    let id = bench.order(wish).await;
    let failed = bench.done(id).await;
    assert_eq!(failed["state"], "failed");
    assert!(failed["reason"].as_str().unwrap().contains("a secret of row 1"), "{failed}");
    let line = bench.service.program.wait_for_line("a backfill cannot go on", AMPLE).await;
    assert!(line.contains("22P02") && !line.contains("secret of row 1"), "{line}");
}

#[tokio::test]
async fn it_can_be_paused_resumed_and_cancelled() {
    let bench = Bench::start(60).await;
    let id = bench.order(json!({ "tables": ["public.items"], "rate": 20 })).await;
    bench.wait(id, |shown| shown["rows_sent"].as_i64().unwrap() > 0).await;
    assert_eq!(bench.act(id, "pause").await["state"], "paused");
    let (code, shown) = bench.service.cli(&["backfill", "list"]).await;
    assert!(
        code == Some(0) && shown.contains("paused") && shown.contains("public.items"),
        "{shown}"
    );
    // Over a restart it stays so.
    let Bench { database, sql, receiver, toml, mut service } = bench;
    service.stop().await;
    let bench = Bench { service: Service::start(&toml).await, database, sql, receiver, toml };
    let paused = bench.show(id).await;
    assert_eq!(paused["state"], "paused");
    assert!(paused["rows_sent"].as_i64().unwrap() < 60, "{paused}");
    let (code, shown) = bench.service.cli(&["backfill", "resume", &id.to_string()]).await;
    assert!(code == Some(0) && shown.contains("running"), "{shown}");
    assert_eq!(bench.done(id).await["state"], "done");
    let found = ids(&reads(&bench.receiver.requests()));
    assert_eq!(found.iter().copied().collect::<BTreeSet<_>>(), (1..=60).collect());
    let other = bench.order(json!({ "tables": ["public.items"], "rate": 1 })).await;
    bench.wait(other, |shown| shown["rows_sent"].as_i64().unwrap() > 0).await;
    let (code, shown) = bench.service.cli(&["backfill", "cancel", &other.to_string()]).await;
    assert!(code == Some(0) && shown.contains("cancelled"), "{shown}");
    let reply =
        bench.service.post(&format!("/api/v1/backfills/{other}/resume"), &Value::Null).await;
    assert_eq!(reply.status, 409, "{reply:?}");
    bench.balanced().await;
}

/// What is on its way when a backfill is paused is waited for, and not read again when it is resumed.
#[tokio::test]
async fn what_is_on_its_way_at_a_pause_is_sent_once() {
    const ROWS: u32 = 400;
    let bench = Bench::start(ROWS).await;
    bench.receiver.behave(always(Answer::status(200).after(Duration::from_secs(4))));
    let id = bench.items().await;
    bench.receiver.wait_for(1, AMPLE).await;
    bench.act(id, "pause").await;
    // It looks each second whether it is paused.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    bench.receiver.behave(always(Answer::status(200)));
    bench.act(id, "resume").await;
    bench.done(id).await;
    let mut found = ids(&reads(&bench.receiver.requests()));
    found.sort_unstable();
    assert_eq!(found, (1..=i64::from(ROWS)).collect::<Vec<_>>());
    bench.balanced().await;
}

#[tokio::test]
async fn the_command_orders_and_looks() {
    let bench = Bench::start(7).await;
    let dry = ["backfill", "public.items", "--where", "id < 4", "--dry-run", "--count"];
    let (code, shown) = bench.service.cli(&dry).await;
    assert!(code == Some(0) && shown.contains("COUNTED") && shown.contains('3'), "{shown}");
    let (code, shown) =
        bench.service.cli(&["backfill", "public.items", "--by", "ctid", "--json"]).await;
    assert_eq!(code, Some(0), "{shown}");
    let answer: Value = serde_json::from_str(&shown).unwrap();
    let id = answer["backfills"][0]["id"].as_i64().unwrap();
    assert_eq!(bench.done(id).await["state"], "done");
    assert_eq!(ids(&reads(&bench.receiver.requests())).len(), 7);
    let (code, shown) = bench.service.cli(&["backfill", "show", &id.to_string()]).await;
    assert!(code == Some(0) && shown.contains("done") && shown.contains("ctid"), "{shown}");
    let (code, shown) = bench.service.cli(&["backfill", "public.nothing"]).await;
    assert!(code == Some(1) && shown.contains("no [[event]]"), "{code:?} {shown}");
}

#[test]
fn the_rule_of_these_tests_asks_for_rows() {
    assert!(RULE.contains("read"));
}
