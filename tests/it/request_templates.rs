//! Expressions in the URL and the headers of an endpoint: each request has the values of its own event, now,
//! when it is sent again, and for endpoints of every origin.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]

use std::time::Duration;
use std::time::Instant;

use serde_json::Value;
use serde_json::json;

use crate::support::postgres::Database;
use crate::support::postgres::Sql;
use crate::support::postgres::wait_for_text;
use crate::support::program::Program;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::Request;
use crate::support::receiver::always;
use crate::support::service::AMPLE;
use crate::support::service::Service;
use crate::support::service::configuration;

const TABLES: &str = "CREATE TABLE orders (id int PRIMARY KEY, shop text, note text);
                      CREATE TABLE hooks (id int PRIMARY KEY, url text, token text)";

const STATES: &str = "SELECT coalesce(string_agg(state || ' ' || rows, ', ' ORDER BY state), '') \
                      FROM (SELECT state, count(*) AS rows FROM walhook.dead_letters \
                            GROUP BY state) s";

const REASONS: &str = "SELECT string_agg(row_key || ': ' || reason, '; ' ORDER BY row_key) \
                       FROM walhook.dead_letters";

async fn database() -> (Database, Sql) {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(TABLES).await.unwrap();
    (database, sql)
}

fn toml(database: &Database, endpoints: &str) -> String {
    let rest = format!(
        "[push_log]\nbodies = \"all\"\n[endpoints]\nallow = [\"127.0.0.1\"]\n\n\
         [[event]]\ntype = \"order\"\ntable = \"public.orders\"\n{endpoints}\n"
    );
    configuration(database, &rest)
}

fn templated(receiver: &Receiver) -> String {
    format!(
        "[[endpoint]]\nname = \"crm\"\nurl = \"http://{}/shops/{{{{ shop }}}}/orders?id={{{{ id }}}}&v=1\"\n\
         headers = {{ Idempotency-Key = \"{{{{ event_id }}}}\", X-Note = \"{{{{ note }}}}\", \
         X-Order = \"no-{{{{ id }}}}\", X-Fixed = \"f\" }}\n\
         retry = {{ max = 1, interval = \"5ms\" }}\n",
        receiver.address()
    )
}

fn said(request: &Request) -> (&str, &str, &str) {
    (&request.path, request.header("x-note"), request.header("x-order"))
}

#[tokio::test]
async fn each_request_has_the_values_of_its_event_also_when_it_is_sent_again() {
    let (database, sql) = database().await;
    let receiver = Receiver::start(always(Answer::status(200)));
    let mut service = Service::start(&toml(&database, &templated(&receiver))).await;
    sql.batch_execute("INSERT INTO orders VALUES (1, 'a/../b c', 'plain')").await.unwrap();
    let first = receiver.wait_for(1, AMPLE).await.swap_remove(0);
    assert_eq!(said(&first), ("/shops/a%2F..%2Fb%20c/orders?id=1&v=1", "plain", "no-1"));
    assert_eq!(first.header("idempotency-key"), first.header("webhook-id"));
    assert_eq!(first.header("x-fixed"), "f");

    // What cannot be said there is no request, and holds nobody else up.
    sql.batch_execute(
        "INSERT INTO orders VALUES (2, 'x', E'a\\r\\nX-Evil: 1'), (3, NULL, 'n'), (4, '..', 'n'), \
         (5, 'y', NULL)",
    )
    .await
    .unwrap();
    let fifth = receiver.wait_for(2, AMPLE).await.swap_remove(1);
    assert_eq!(said(&fifth), ("/shops/y/orders?id=5&v=1", "", "no-5"));
    assert!(!fifth.headers.contains_key("x-note"), "null is no header: {:?}", fifth.headers);
    wait_for_text(&sql, STATES, "dead 3").await;
    let reasons = sql.text(REASONS).await;
    for part in [
        "2: rejected, request: header x-note needs {{ note }}",
        "control character",
        "3: rejected, request: the path of its URL needs {{ shop }}, which is null",
        "4: rejected, request: the path of its URL would have a segment of dots",
    ] {
        assert!(reasons.contains(part), "{part}: {reasons}");
    }
    assert!(!reasons.contains("Evil"), "{reasons}");

    // As the push log has them: of headers what is evaluated, of the URL nothing.
    let log = service.get("/api/v1/push-logs?task_id=1").await.json();
    let headers = &log["push_logs"][0]["request_headers"];
    assert_eq!(
        (&headers["x-note"], &headers["x-order"]),
        (&json!("plain"), &json!("[secret]1")),
        "{log}"
    );
    assert!(!log.to_string().contains("/shops"), "{log}");

    // A dead letter and a replay go to the same place.
    receiver.behave(always(Answer::status(400)));
    sql.batch_execute("INSERT INTO orders VALUES (6, 'z', 'six')").await.unwrap();
    wait_for_text(&sql, STATES, "dead 4").await;
    receiver.behave(always(Answer::status(200)));
    let reply = service.post("/api/v1/dead-letters/resend", &json!({ "task_id": "6" })).await;
    assert_eq!(reply.status, 202, "{reply:?}");
    let again = receiver.wait_for(4, AMPLE).await.swap_remove(3);
    assert_eq!(said(&again), ("/shops/z/orders?id=6&v=1", "six", "no-6"));
    let reply = service.post("/api/v1/replay", &json!({ "task_id": "1" })).await;
    assert_eq!(reply.status, 202, "{reply:?}");
    let replayed = receiver.wait_for(5, AMPLE).await.swap_remove(4);
    assert_eq!(said(&replayed), said(&first));
    assert_eq!(replayed.header("webhook-replay"), "true");
    service.stop().await;
}

#[tokio::test]
async fn what_is_parked_keeps_its_values_over_a_restart() {
    let (database, sql) = database().await;
    let receiver = Receiver::start(always(Answer::status(503)));
    let endpoint = templated(&receiver).replace(
        "retry = { max = 1, interval = \"5ms\" }",
        "retry = { delays = [\"10s\", \"10s\"] }\npark_after = \"1s\"",
    );
    let mut service = Service::start(&toml(&database, &endpoint)).await;
    sql.batch_execute("INSERT INTO orders VALUES (7, 'a b', 'x')").await.unwrap();
    wait_for_text(&sql, "SELECT count(*)::text FROM walhook.backlog", "1").await;
    service.stop().await;
    receiver.behave(always(Answer::status(200)));
    let before = receiver.requests().len();
    let mut service = Service::start(&toml(&database, &endpoint)).await;
    let after = receiver.wait_for(before + 1, AMPLE).await.swap_remove(before);
    assert_eq!(said(&after), ("/shops/a%20b/orders?id=7&v=1", "x", "no-7"));
    service.stop().await;
}

#[tokio::test]
async fn endpoints_of_the_api_and_of_a_table_have_them_too() {
    let (database, sql) = database().await;
    let receiver = Receiver::start(always(Answer::status(200)));
    let at = receiver.address();
    let from = "[endpoints_from]\ntable = \"public.hooks\"\n[endpoints_from.endpoint]\n\
                name = \"wh-{{ id }}\"\nurl = \"{{ url }}/{{ row.id }}?by={{ id }}\"\n\
                headers = { X-Token = \"{{ token }}\", X-Event = \"{{ event_id }}\" }\n";
    let mut service = Service::start(&toml(&database, from)).await;
    sql.batch_execute(&format!(
        "INSERT INTO hooks VALUES (1, 'http://{at}/one', 't1'), (2, 'http://{at}/{{{{ note }}}}', 't2')"
    ))
    .await
    .unwrap();
    let deadline = Instant::now() + AMPLE;
    while service.get("/api/v1/endpoints").await.json()["endpoints"].as_array().unwrap().len() < 2 {
        assert!(Instant::now() < deadline, "{}", service.program.output().join("\n"));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let url = format!("http://{at}/api/{{{{ id }}}}");
    let document = json!({ "name": "api", "url": url, "headers": { "X-N": "{{ note + '!' }}" } });
    let reply = service.post("/api/v1/endpoints", &document).await;
    assert_eq!(reply.status, 201, "{reply:?}");
    assert!(!reply.body.contains("/api/{{"), "{reply:?}");
    sql.batch_execute("INSERT INTO orders VALUES (9, 's', 'n')").await.unwrap();
    let mut requests = receiver.wait_for(2, AMPLE).await;
    requests.sort_by(|a, b| a.path.cmp(&b.path));
    let [api, row] = requests.as_slice() else { unreachable!("two: {requests:?}") };
    assert_eq!((api.path.as_str(), api.header("x-n")), ("/api/9", "n!"));
    assert_eq!((row.path.as_str(), row.header("x-token")), ("/one/9?by=1", "t1"));
    assert_eq!(row.header("x-event"), row.header("webhook-id"));
    // Whoever writes rows chooses where events go, not what of them: such a row is none.
    wait_for_text(&sql, STATES, "dead 1").await;
    let reason = sql.text(REASONS).await;
    assert!(reason.contains("column url of the row holds {{"), "{reason}");

    // A test goes where an event would.
    let reply = service.post("/api/v1/endpoints/api/test", &json!({})).await;
    assert_eq!(reply.json()["delivered"], true, "{reply:?}");
    assert_eq!(receiver.wait_for(3, AMPLE).await[2].path, "/api/9");

    let refused = |document: Value| {
        let service = &service;
        async move {
            let reply = service.post("/api/v1/endpoints", &document).await;
            assert_eq!(reply.status, 422, "{document}: {reply:?}");
            reply.body
        }
    };
    let told = refused(json!({ "name": "b", "url": "http://{{ note }}/" })).await;
    assert!(told.contains("before its path"), "{told}");
    let told = refused(json!({ "name": "b", "url": format!("http://{at}/{{{{ nope }}}}") })).await;
    assert!(told.contains("column nope"), "{told}");
    let many =
        json!({ "name": "b", "url": format!("http://{at}/{{{{ id }}}}"), "batch": { "size": 5 } });
    let told = refused(many).await;
    assert!(told.contains("each event has its own value of"), "{told}");
    service.stop().await;
}

#[tokio::test]
async fn tail_and_check_show_and_try_them() {
    let (database, sql) = database().await;
    let receiver = Receiver::start(always(Answer::status(200)));
    sql.batch_execute("INSERT INTO orders VALUES (1, 's', 'n')").await.unwrap();
    let text = toml(&database, &templated(&receiver));
    let mut check = Program::start(&["check", "--bodies"], &text, &[]);
    assert_eq!(check.wait(AMPLE).await, Some(0), "{:?}", check.output());
    let said = check.output().join("\n");
    assert!(said.contains("{{ shop }} = \"s\"") && said.contains("{{ note }} = \"n\""), "{said}");
    let typo = text.replace("{{ shop }}", "{{ shpo }}").replace("{{ note }}", "{{ 1 / (id - 1) }}");
    for command in ["check", "run"] {
        let mut program = Program::start(&[command], &typo, &[]);
        assert_eq!(program.wait(AMPLE).await, Some(3));
        let said = program.output().join("\n");
        assert!(said.contains("`url` of endpoint crm names column shpo"), "{said}");
    }
    let failing = text.replace("{{ note }}", "{{ 1 / (id - 1) }}");
    let mut check = Program::start(&["check"], &failing, &[]);
    check.wait(AMPLE).await;
    let said = check.output().join("\n");
    assert!(
        said.contains("url or headers of endpoint crm") && said.contains("divides by zero"),
        "{said}"
    );

    let mut service = Service::start(&text).await;
    let mut tail = Program::start(&["tail", "--endpoint", "crm", "--limit", "2"], &text, &[]);
    let slots = "SELECT count(*)::text FROM pg_replication_slots WHERE database = current_database() \
                 AND confirmed_flush_lsn IS NOT NULL";
    wait_for_text(&sql, slots, "2").await;
    sql.batch_execute("INSERT INTO orders VALUES (2, 's', 'n2'), (3, NULL, 'n3')").await.unwrap();
    tail.wait(AMPLE).await;
    let lines = tail.output();
    let of = |id: &str| {
        let found = lines.iter().find(|line| line.contains(&format!("\"id\":{id},")));
        serde_json::from_str::<Value>(found.unwrap_or_else(|| unreachable!("{lines:?}"))).unwrap()
    };
    assert_eq!(of("2")["headers"]["x-note"], "n2");
    assert!(of("2").get("refused").is_none());
    assert!(of("3")["refused"].as_str().unwrap().contains("{{ shop }}, which is null"));
    assert!(!lines.join("\n").contains("/shops"));
    service.stop().await;
}
