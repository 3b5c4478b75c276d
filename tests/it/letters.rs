//! Dead letters: found, shown, sent again once, discarded; over the API and by commands.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test may stop at once")]

use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::json;

use crate::support::postgres::Database;
use crate::support::postgres::Sql;
use crate::support::postgres::wait_for_text;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::always;
use crate::support::service::AMPLE;
use crate::support::service::Service;
use crate::support::service::configuration;

const TABLE: &str = "CREATE TABLE tasks (id text PRIMARY KEY, done timestamptz DEFAULT now())";

const STATES: &str = "SELECT coalesce(string_agg(state || ' ' || rows, ', ' ORDER BY state), '') \
                      FROM (SELECT state, count(*) AS rows FROM walhook.dead_letters \
                            GROUP BY state) s";

/// Endpoint, captured, delivered, expired, dead, pending.
const BALANCE: &str = "SELECT string_agg(concat_ws(' ', endpoint, captured, delivered, expired, \
                       dead, pending), ', ' ORDER BY endpoint) FROM walhook.balance";

async fn database() -> (Database, Sql) {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(TABLE).await.unwrap();
    (database, sql)
}

/// Endpoints by name; `more` stands before them.
fn toml(database: &Database, more: &str, endpoints: &[(&str, &Receiver)]) -> String {
    let mut rest = format!("[[event]]\ntype = \"task.done\"\ntable = \"public.tasks\"\n{more}\n");
    for (name, receiver) in endpoints {
        let url = receiver.url();
        rest.push_str(&format!("[[endpoint]]\nname = \"{name}\"\nurl = \"{url}\"\n"));
        rest.push_str("retry = { max = 1, interval = \"5ms\" }\n");
    }
    configuration(database, &rest)
}

fn refusing() -> Receiver {
    Receiver::start(always(Answer::status(400).body("no such task")))
}

async fn insert(sql: &Sql, keys: &[&str]) {
    for key in keys {
        sql.batch_execute(&format!("INSERT INTO tasks (id) VALUES ('{key}')")).await.unwrap();
    }
}

async fn letters(service: &Service, query: &str) -> Vec<Value> {
    let reply = service.get(&format!("/api/v1/dead-letters{query}")).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()["dead_letters"].as_array().unwrap().clone()
}

fn keys(letters: &[Value]) -> Vec<&str> {
    letters.iter().map(|letter| letter["task_id"].as_str().unwrap()).collect()
}

/// `captured + replays = delivered + filtered + expired + dead + pending`.
async fn assert_metrics_balance(service: &Service, endpoint: &str) {
    let scrape = service.get("/metrics").await.body;
    let sum = |start: &str| -> f64 {
        let lines = scrape.lines().filter(|line| line.starts_with(start));
        let of_endpoint = lines.filter(|line| line.contains("table=") || line.contains(endpoint));
        of_endpoint.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    };
    let came = sum("walhook_events_captured_total") + sum("walhook_replays_total");
    let went = sum("walhook_deliveries_total") + sum("walhook_deliveries_pending");
    assert!(came > 0.0 && came == went, "{came} came, {went} went:\n{scrape}");
}

#[tokio::test]
async fn a_letter_is_found_shown_sent_again_and_closed() {
    let (database, sql) = database().await;
    let receiver = refusing();
    let mut service = Service::start(&toml(&database, "", &[("crm", &receiver)])).await;
    insert(&sql, &["T_1", "T_2"]).await;
    wait_for_text(&sql, STATES, "dead 2").await;
    let first = receiver.wait_for(2, AMPLE).await.swap_remove(0);

    let found = letters(&service, "?task_id=T_1&webhook_id=crm&class=status").await;
    assert_eq!(keys(&found), ["T_1"]);
    let id = found[0]["id"].as_i64().unwrap();
    let whole = service.get(&format!("/api/v1/dead-letters/{id}")).await.json();
    assert_eq!(whole["body"]["data"]["id"], "T_1", "{whole}");
    assert_eq!(whole["event_id"], first.headers["webhook-id"].to_str().unwrap());
    assert_eq!((&whole["http_status"], &whole["retry_count"]), (&json!(400), &json!(0)));
    let reason = whole["reason"].as_str().unwrap();
    assert!(reason.contains("rejected") && !reason.contains("127.0.0.1"), "{reason}");

    receiver.behave(always(Answer::status(200)));
    let reply = service.post(&format!("/api/v1/dead-letters/{id}/resend"), &json!({})).await;
    assert_eq!((reply.status.as_u16(), &reply.json()["requested"]), (202, &json!(1)));
    let again = receiver.wait_for(3, AMPLE).await.swap_remove(2);
    assert_eq!(again.headers["webhook-id"], first.headers["webhook-id"]);
    assert_eq!(again.headers["webhook-replay"], "true");
    assert!(first.headers.get("webhook-replay").is_none());
    assert_eq!(again.json(), first.json());
    wait_for_text(&sql, STATES, "dead 1, delivered 1").await;
    wait_for_text(&sql, BALANCE, "crm 2 1 0 1 0").await;
    service.wait_for_metric("walhook_dead_letters{endpoint=\"crm\"}", 1.0).await;
    assert_metrics_balance(&service, "crm").await;
    assert_eq!(keys(&letters(&service, "").await), ["T_2"]);
    assert_eq!(keys(&letters(&service, "?state=delivered").await), ["T_1"]);

    let twice = service.post(&format!("/api/v1/dead-letters/{id}/resend"), &json!({})).await;
    assert_eq!(twice.status, 409);
    assert!(twice.body.contains("it has been delivered"), "{}", twice.body);
    let status = service.get("/api/v1/status").await.json();
    let crm = &status["endpoints"][0];
    assert_eq!((&crm["dead_letters"], &crm["backlog"]), (&json!(1), &json!(0)), "{crm}");
    assert_eq!(crm["breaker"], "closed");
    service.stop().await;
}

#[tokio::test]
async fn a_letter_that_dies_again_is_dead_once_more() {
    let (database, sql) = database().await;
    let receiver = refusing();
    let mut service = Service::start(&toml(&database, "", &[("crm", &receiver)])).await;
    insert(&sql, &["T_1"]).await;
    wait_for_text(&sql, STATES, "dead 1").await;
    let reply = service.post("/api/v1/dead-letters/resend", &json!({ "all": true })).await;
    assert_eq!(reply.json()["requested"], 1, "{reply:?}");
    receiver.wait_for(2, AMPLE).await;
    let again = "SELECT concat_ws(' ', state, attempts, resends) FROM walhook.dead_letters";
    wait_for_text(&sql, again, "dead 2 1").await;
    wait_for_text(&sql, BALANCE, "crm 1 0 0 1 0").await;
    assert_eq!(service.metric("walhook_dead_letters{endpoint=\"crm\"}").await, 1.0);
    assert_metrics_balance(&service, "crm").await;
    service.stop().await;
}

#[tokio::test]
async fn only_what_is_meant_is_sent_again_and_a_dry_run_counts_it() {
    let (database, sql) = database().await;
    let (crm, erp) = (refusing(), Receiver::start(always(Answer::Close)));
    let endpoints = [("crm", &crm), ("erp", &erp)];
    let breaker = "[webhook]\nbreaker = { failures = 1000 }";
    let mut service = Service::start(&toml(&database, breaker, &endpoints)).await;
    insert(&sql, &["T_1", "T_2"]).await;
    wait_for_text(&sql, STATES, "dead 4").await;
    sql.batch_execute(
        "UPDATE walhook.dead_letters SET died_at = died_at - interval '1 hour'
          WHERE row_key = 'T_1'",
    )
    .await
    .unwrap();
    let (now, early) = (
        sql.text("SELECT to_char(now() - interval '30 minutes', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')")
            .await,
        "2020-01-01",
    );
    let cases = [
        (json!({ "all": true }), 4),
        (json!({ "endpoint": "crm" }), 2),
        (json!({ "webhook_id": "erp", "task_id": "T_1" }), 1),
        (json!({ "class": "status" }), 2),
        (json!({ "class": "connect" }), 0),
        (json!({ "from": now }), 2),
        (json!({ "from": early, "before": now }), 2),
        (json!({ "ids": [1, 2, 99] }), 2),
    ];
    for (filter, expected) in cases {
        let mut filter = filter;
        filter["dry_run"] = json!(true);
        let reply = service.post("/api/v1/dead-letters/resend", &filter).await;
        assert_eq!(
            (reply.status.as_u16(), &reply.json()["letters"]),
            (200, &json!(expected)),
            "{filter}"
        );
    }
    assert_eq!(sql.text(STATES).await, "dead 4", "a dry run changes nothing");

    crm.behave(always(Answer::status(200)));
    erp.behave(always(Answer::status(200)));
    let before = (crm.count(), erp.count());
    let only = json!({ "webhook_id": "crm", "before": now });
    let reply = service.post("/api/v1/dead-letters/resend", &only).await;
    assert_eq!(reply.json()["requested"], 1, "{reply:?}");
    wait_for_text(&sql, STATES, "dead 3, delivered 1").await;
    assert_eq!((crm.count(), erp.count()), (before.0 + 1, before.1));
    let (code, said) = service.cli(&["dead-letters", "resend", "--endpoint", "erp"]).await;
    assert_eq!((code, said.as_str()), (Some(0), "2 letters to be sent again"));
    wait_for_text(&sql, STATES, "dead 1, delivered 3").await;
    assert_eq!((crm.count(), erp.count()), (before.0 + 1, before.1 + 2));
    let order = &erp.requests()[before.1..];
    assert!(order.iter().all(|request| request.headers["webhook-replay"] == "true"));
    wait_for_text(&sql, BALANCE, "crm 2 1 0 1 0, erp 2 2 0 0 0").await;
    service.stop().await;
}

#[tokio::test]
async fn a_resend_goes_on_after_a_kill_and_closes_each_letter_once() {
    const LETTERS: usize = 300;
    let (database, sql) = database().await;
    let receiver = refusing();
    let fast = "[dead_letters]\nresend_rate = 200";
    let mut service = Service::start(&toml(&database, fast, &[("crm", &receiver)])).await;
    let all = format!("INSERT INTO tasks SELECT 'T_' || n FROM generate_series(1, {LETTERS}) n");
    sql.batch_execute(&all).await.unwrap();
    wait_for_text(&sql, STATES, &format!("dead {LETTERS}")).await;

    receiver.behave(always(Answer::status(200)));
    let before = receiver.count();
    let reply = service.post("/api/v1/dead-letters/resend", &json!({ "all": true })).await;
    assert_eq!(reply.json()["requested"], LETTERS, "{reply:?}");
    receiver.wait_for(before + LETTERS / 4, AMPLE).await;
    service.program.kill();
    service.program.wait(AMPLE).await;
    let open = "SELECT count(*) > 100 FROM walhook.dead_letters WHERE closed_at IS NULL";
    assert_eq!(sql.text(open).await, "t", "it was killed in the middle");

    let mut heir = Service::start(&toml(&database, fast, &[("crm", &receiver)])).await;
    wait_for_text(&sql, STATES, &format!("delivered {LETTERS}")).await;
    wait_for_text(&sql, BALANCE, &format!("crm {LETTERS} {LETTERS} 0 0 0")).await;
    let mut arrived: BTreeMap<String, usize> = BTreeMap::new();
    for request in &receiver.requests()[before..] {
        assert_eq!(request.headers["webhook-replay"], "true");
        let id = request.headers["webhook-id"].to_str().unwrap().to_owned();
        *arrived.entry(id).or_default() += 1;
    }
    assert_eq!(arrived.len(), LETTERS);
    let twice = arrived.values().filter(|&&times| times > 1).count();
    assert!(twice <= 64, "{twice} came twice: more than one portion");
    let resends = "SELECT string_agg(DISTINCT resends::text, ' ') FROM walhook.dead_letters";
    assert_eq!(sql.text(resends).await, "1", "each was sent again once, as an operator counts");
    assert_eq!(heir.metric("walhook_dead_letters{endpoint=\"crm\"}").await, 0.0);
    heir.stop().await;
}

#[tokio::test]
async fn a_letter_that_is_too_old_is_not_sent_but_closed() {
    let (database, sql) = database().await;
    let receiver = refusing();
    let expiry = "expiry = \"2s\"";
    let mut service = Service::start(&toml(&database, expiry, &[("crm", &receiver)])).await;
    insert(&sql, &["T_1"]).await;
    wait_for_text(&sql, STATES, "dead 1").await;
    let old = "SELECT expires_at < now() FROM walhook.dead_letters";
    wait_for_text(&sql, old, "t").await;
    receiver.behave(always(Answer::status(200)));
    let before = receiver.count();
    service.post("/api/v1/dead-letters/resend", &json!({ "all": true })).await;
    wait_for_text(&sql, STATES, "expired 1").await;
    wait_for_text(&sql, BALANCE, "crm 1 0 1 0 0").await;
    assert_eq!(receiver.count(), before);
    assert_metrics_balance(&service, "crm").await;
    service.stop().await;
}

#[tokio::test]
async fn a_hanging_endpoint_holds_up_no_resend_but_its_own() {
    let (database, sql) = database().await;
    let (hanging, healthy) = (refusing(), refusing());
    let endpoints = [("a", &hanging), ("b", &healthy)];
    let slow = "[webhook]\ntimeout = \"1h\"\n[shutdown]\ngrace = \"1s\"";
    let mut service = Service::start(&toml(&database, slow, &endpoints)).await;
    let all = "INSERT INTO tasks SELECT 'T_' || n FROM generate_series(1, 200) n";
    sql.batch_execute(all).await.unwrap();
    wait_for_text(&sql, STATES, "dead 400").await;
    hanging.behave(always(Answer::Hang));
    healthy.behave(always(Answer::status(200)));
    service.post("/api/v1/dead-letters/resend", &json!({ "endpoint": "a" })).await;
    service.post("/api/v1/dead-letters/resend", &json!({ "endpoint": "b" })).await;
    let closed = "SELECT count(*) FROM walhook.dead_letters WHERE state = 'delivered'";
    wait_for_text(&sql, closed, "200").await;
    let held = "SELECT count(*) <= 64 FROM walhook.dead_letters WHERE state = 'resending'";
    assert_eq!(sql.text(held).await, "t", "what is in memory is bounded");
    service.stop().await;
}

#[tokio::test]
async fn letters_are_discarded_and_what_cannot_be_done_is_said() {
    let (database, sql) = database().await;
    let (crm, erp) = (refusing(), refusing());
    let both = toml(&database, "", &[("crm", &crm), ("erp", &erp)]);
    let mut service = Service::start(&both).await;
    insert(&sql, &["T_1", "T_2", "T_3"]).await;
    wait_for_text(&sql, STATES, "dead 6").await;
    service.stop().await;

    // Endpoint erp is gone from the configuration; its letters are not.
    let mut service = Service::start(&toml(&database, "", &[("crm", &crm)])).await;
    let refusals = [
        ("/api/v1/dead-letters/resend", json!({}), 400, "say which letters to send again"),
        ("/api/v1/dead-letters/discard", json!({ "dry_run": true }), 400, "say which letters"),
        ("/api/v1/dead-letters/resend", json!({ "endpont": "x" }), 400, "did you mean endpoint?"),
        ("/api/v1/dead-letters/resend", json!({ "ids": [98, 99] }), 409, "no dead letter 98, 99"),
        ("/api/v1/dead-letters/resend", json!({ "from": "noon" }), 400, "ISO 8601"),
        ("/api/v1/dead-letters/resend", json!({ "endpoint": "erp" }), 409, "there are: crm"),
        ("/api/v1/dead-letters/99/resend", json!({}), 404, "there is no dead letter 99"),
        ("/api/v1/dead-letters/x/resend", json!({}), 400, "their ids are numbers"),
    ];
    for (path, body, status, detail) in refusals {
        let reply = service.post(path, &body).await;
        assert_eq!(
            (reply.status.as_u16(), reply.content_type.as_str()),
            (status, "application/problem+json"),
            "{path} {body}"
        );
        assert!(reply.json()["detail"].as_str().unwrap().contains(detail), "{reply:?}");
    }
    let wrong = service.get("/api/v1/dead-letters?limt=5").await;
    assert_eq!(wrong.status, 400);
    assert!(wrong.body.contains("did you mean limit?"), "{}", wrong.body);
    let mixed = service
        .post("/api/v1/dead-letters/resend", &json!({ "all": true, "dry_run": true }))
        .await
        .json();
    assert_eq!(mixed["letters"], 3);
    assert_eq!(mixed["not_configured"], json!([{ "endpoint": "erp", "letters": 3 }]));

    let page = service.get("/api/v1/dead-letters?limit=4").await.json();
    assert_eq!(page["dead_letters"].as_array().unwrap().len(), 4);
    let cursor = page["next_cursor"].as_str().unwrap();
    let rest = letters(&service, &format!("?limit=4&cursor={cursor}")).await;
    assert_eq!(rest.len(), 2);

    let (code, table) = service.cli(&["dead-letters", "list", "--endpoint", "erp"]).await;
    assert_eq!(code, Some(0), "{table}");
    assert!(table.starts_with("ID") && table.lines().count() == 4, "{table}");
    let id = rest[0]["id"].to_string();
    let (code, shown) = service.cli(&["dead-letters", "show", &id]).await;
    assert!(code == Some(0) && shown.contains("task.done"), "{shown}");
    let (code, said) = service.cli(&["dead-letters", "discard", &id, "--json"]).await;
    assert_eq!((code, said.as_str()), (Some(0), "{\"discarded\":1}"));
    let (code, said) = service.cli(&["dead-letters", "resend"]).await;
    assert!(code == Some(2) && said.contains("say which letters"), "{code:?} {said}");
    let erp = service.post("/api/v1/dead-letters/discard", &json!({ "endpoint": "erp" })).await;
    let all = service.post("/api/v1/dead-letters/discard", &json!({ "all": true })).await;
    let count =
        |reply: &crate::support::service::Reply| reply.json()["discarded"].as_i64().unwrap();
    assert_eq!(count(&erp) + count(&all), 5);
    assert_eq!(sql.text(STATES).await, "discarded 6");
    service.wait_for_metric("walhook_dead_letters{endpoint=\"crm\"}", 0.0).await;
    assert_eq!(sql.text(BALANCE).await, "crm 3 0 0 3 0, erp 3 0 0 3 0", "they stay dead");
    service.stop().await;
    let (code, said) = service.cli(&["dead-letters"]).await;
    assert!(code == Some(1) && said.contains("no walhook answers at http://127.0.0.1:"), "{said}");
}

/// Nobody is left who could be asked to take them, and waiting for ever would look like a resend.
#[tokio::test]
async fn letters_that_were_asked_for_are_dead_again_when_their_endpoint_was_removed() {
    let (database, sql) = database().await;
    let (crm, erp) = (refusing(), Receiver::start(always(Answer::status(200))));
    let both = toml(&database, "", &[("crm", &crm), ("erp", &erp)]);
    let mut before = Service::start(&both).await;
    insert(&sql, &["T_1", "T_2"]).await;
    wait_for_text(&sql, STATES, "dead 2").await;
    before.stop().await;
    // One was asked for, the other was under way when walhook was killed.
    let ask = "UPDATE walhook.dead_letters SET state = 'requested' WHERE row_key = 'T_1';
               UPDATE walhook.dead_letters SET state = 'resending' WHERE row_key = 'T_2';
               UPDATE walhook.books SET dead = dead - 1 WHERE endpoint = 'crm'";
    sql.batch_execute(ask).await.unwrap();
    let mut after = Service::start(&toml(&database, "", &[("erp", &erp)])).await;
    after.program.wait_for_line("their endpoint was removed", AMPLE).await;
    wait_for_text(&sql, STATES, "dead 2").await;
    assert_eq!(sql.text(BALANCE).await, "crm 2 0 0 2 0, erp 2 2 0 0 0");
    for letter in letters(&after, "?endpoint=crm").await {
        let reason = letter["reason"].as_str().unwrap();
        assert!(reason.contains("endpoint was removed") && reason.contains("rejected"), "{reason}");
    }
    let refused = after.post("/api/v1/dead-letters/resend", &json!({ "endpoint": "crm" })).await;
    assert!(refused.body.contains("is not configured"), "{refused:?}");
    after.stop().await;
}

/// Each line of the books, as far as it does not add up.
const UNBALANCED: &str = "SELECT count(*) FROM walhook.balance WHERE captured <> \
                          delivered + filtered + expired + dead + pending";

#[tokio::test]
async fn letters_go_to_another_endpoint_as_letters_of_its_own() {
    let (database, sql) = database().await;
    let (bad, other) = (refusing(), Receiver::start(always(Answer::status(200))));
    let toml = toml(&database, "", &[("bad", &bad), ("other", &other)]);
    // Whoever takes them over did not take them before.
    let toml = toml.replace("name = \"other\"", "name = \"other\"\nwhen = \"id == 'nobody'\"");
    let service = Service::start(&toml).await;
    insert(&sql, &["a", "b", "c"]).await;
    wait_for_text(&sql, STATES, "dead 3").await;
    let args = ["dead-letters", "resend", "--endpoint", "bad", "--to", "other"];
    let (code, said) = service.cli(&[&args[..], &["--dry-run"]].concat()).await;
    assert!(code == Some(0) && said.contains("3 letters would be"), "{said}");
    let (code, said) = service.cli(&args).await;
    assert!(code == Some(0) && said.contains("3 letters to be sent again"), "{said}");
    let mut got: Vec<String> = other
        .wait_for(3, AMPLE)
        .await
        .iter()
        .map(|request| request.json()["data"]["id"].as_str().unwrap().to_owned())
        .collect();
    got.sort();
    assert_eq!(got, ["a", "b", "c"]);
    wait_for_text(&sql, STATES, "dead 3, delivered 3").await;
    assert_eq!(sql.text(UNBALANCED).await, "0", "{}", sql.text(BALANCE).await);
    service.wait_for_metric("walhook_dead_letters{endpoint=\"other\"}", 0.0).await;
    let (_, said) = service.cli(&args).await;
    assert!(said.contains("0 letters"), "they are there already: {said}");
    let (code, said) = service.cli(&["dead-letters", "resend", "--all", "--to", "nobody"]).await;
    assert!(code == Some(1) && said.contains("not configured"), "{said}");
    assert_metrics_balance(&service, "other").await;
}

#[tokio::test]
async fn letters_for_an_endpoint_that_had_the_events_itself_or_came_later_leave_no_debt() {
    let (database, sql) = database().await;
    let (bad, other) = (refusing(), Receiver::start(always(Answer::status(200))));
    let toml = toml(&database, "", &[("bad", &bad), ("other", &other)]);
    let toml = format!("{toml}\n[endpoints]\nallow = [\"127.0.0.0/8\"]\n");
    let service = Service::start(&toml).await;
    insert(&sql, &["a", "b", "c"]).await;
    wait_for_text(&sql, STATES, "dead 3").await;
    other.wait_for(3, AMPLE).await;
    let made = json!({ "name": "late", "url": other.url() });
    assert_eq!(service.post("/api/v1/endpoints", &made).await.status, 201);
    for (to, sent) in [("other", 6), ("late", 9)] {
        let args = ["dead-letters", "resend", "--endpoint", "bad", "--to", to];
        let (code, said) = service.cli(&args).await;
        assert!(code == Some(0) && said.contains("3 letters to be sent again"), "{said}");
        other.wait_for(sent, AMPLE).await;
    }
    wait_for_text(&sql, STATES, "dead 3, delivered 6").await;
    let books =
        "SELECT string_agg(concat_ws(' ', endpoint, captured, delivered, filtered, dead, pending),
                        ', ' ORDER BY endpoint) FROM walhook.balance";
    wait_for_text(&sql, books, "bad 3 0 0 3 0, late 3 3 0 0 0, other 6 6 0 0 0").await;
    for endpoint in ["other", "late"] {
        let series = format!("walhook_balance{{endpoint=\"{endpoint}\",entry=\"filtered\",table=");
        let metrics = service.get("/metrics").await.body;
        let line = metrics.lines().find(|line| line.starts_with(&series)).unwrap();
        assert!(line.ends_with(" 0"), "{line}");
    }
    insert(&sql, &["d"]).await;
    other.wait_for(11, AMPLE).await;
    wait_for_text(&sql, books, "bad 4 0 0 4 0, late 4 4 0 0 0, other 7 7 0 0 0").await;
    // Of the table four changes were read, whatever was sent of them once more.
    assert_metrics_balance(&service, "other").await;
}

#[tokio::test]
async fn what_is_not_on_its_way_yet_is_taken_back() {
    let (database, sql) = database().await;
    let bad = refusing();
    let service = Service::start(&toml(&database, "", &[("bad", &bad)])).await;
    insert(&sql, &["a", "b", "c", "d", "e"]).await;
    wait_for_text(&sql, STATES, "dead 5").await;
    // The first one is never answered, so at one a second the others do not get their turn.
    bad.behave(always(Answer::Hang));
    let args = ["dead-letters", "resend", "--endpoint", "bad", "--rate", "1"];
    let (code, said) = service.cli(&args).await;
    assert!(code == Some(0) && said.contains("5 letters"), "{said}");
    wait_for_text(&sql, STATES, "requested 4, resending 1").await;
    let (_, said) = service.cli(&["dead-letters", "groups"]).await;
    assert!(said.contains("requested") && said.contains("resending"), "{said}");
    let (code, said) = service.cli(&["dead-letters", "cancel", "--all"]).await;
    assert!(code == Some(0) && said.contains("4 letters taken back"), "{said}");
    assert_eq!(sql.text(STATES).await, "dead 4, resending 1");
    assert_eq!(sql.text(UNBALANCED).await, "0", "{}", sql.text(BALANCE).await);
}

#[tokio::test]
async fn all_since_a_time_is_sent_again_dead_or_delivered() {
    let (database, sql) = database().await;
    let receiver = Receiver::start(always(Answer::status(200)));
    let toml = toml(&database, "[push_log]\nbodies = \"all\"\n", &[("crm", &receiver)]);
    let service = Service::start(&toml).await;
    insert(&sql, &["a", "b"]).await;
    receiver.wait_for(2, AMPLE).await;
    receiver.behave(always(Answer::status(400)));
    insert(&sql, &["c"]).await;
    wait_for_text(&sql, STATES, "dead 1").await;
    wait_for_text(&sql, "SELECT count(*) FROM walhook.push_log", "3").await;
    receiver.behave(always(Answer::status(200)));
    let args = ["endpoints", "resend", "crm", "--since", "2020-01-01"];
    let (code, said) = service.cli(&[&args[..], &["--dry-run"]].concat()).await;
    assert!(code == Some(0) && said.contains("1 dead letters would be"), "{said}");
    assert!(said.contains("2 delivered events would be"), "{said}");
    let (code, said) = service.cli(&args).await;
    assert!(code == Some(0) && said.contains("2 delivered events are to be"), "{said}");
    receiver.wait_for(6, AMPLE).await;
    wait_for_text(&sql, STATES, "delivered 1").await;
    let (code, said) =
        service.cli(&["endpoints", "resend", "nobody", "--since", "2020-01-01"]).await;
    assert!(code == Some(1) && said.contains("not configured"), "{said}");
}
