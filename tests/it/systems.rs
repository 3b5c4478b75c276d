//! customer-events, idp-push and wechat-messages from SQL to a receiver that behaves as theirs do: it checks the signature and
//! the credentials, and answers 401 to what it does not know. The files of `config/` and `sql/` as they
//! are, but for addresses, secrets and waits.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]

mod receivers;
mod together;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

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
use crate::support::service::slot;

const SECRET: &str = "your-secret-key";

/// 32 bytes in base64.
const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// The delays of idp-push, and what a test can wait for.
const DELAYS: &str = r#"["10s", "30s", "90s"]"#;
const SHORT_DELAYS: &str = r#"["20ms", "20ms", "20ms"]"#;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

async fn database(name: &str) -> (Database, Sql) {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(&read(&format!("sql/{name}.sql"))).await.unwrap();
    (database, sql)
}

/// `config/NAME.toml` for this database; each of `changes` has to be there.
fn configuration(name: &str, database: &Database, changes: &[(&str, &str)]) -> String {
    let mut toml = read(&format!("config/{name}.toml"));
    let url = "url = \"${DATABASE_URL:-postgres://walhook@localhost/app}\"";
    let own_url = format!("url = \"{}\"", database.url());
    let shipped = format!("slot = \"{}\"", name.replace('-', "_"));
    let own_slot = format!("slot = \"{}\"", slot(database));
    let own = [(url, own_url.as_str()), (shipped.as_str(), own_slot.as_str())];
    for (from, to) in changes.iter().copied().chain(own) {
        assert!(toml.contains(from), "{from} is not in {name}.toml");
        toml = toml.replace(from, to);
    }
    format!("{toml}\n[http]\nlisten = \"127.0.0.1:0\"\n\n[log]\nfilter = \"walhook=debug\"\n")
}

fn hmac(content: &[u8]) -> String {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, SECRET.as_bytes());
    let tag = ring::hmac::sign(&key, content);
    tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A receiver that answers 401 to what `knows` does not know, and otherwise `answers` in turn, the last
/// one for ever.
fn receiver(
    knows: impl Fn(&Request) -> bool + Send + Sync + 'static,
    answers: &'static [u16],
) -> Receiver {
    Receiver::start(Arc::new(move |request: &Request| {
        let answer = answers.get(request.number - 1).or(answers.last()).copied().unwrap_or(200);
        Answer::status(if knows(request) { answer } else { 401 }).body("taken")
    }))
}

fn seconds(text: &str) -> i64 {
    text.parse().unwrap()
}

#[tokio::test]
async fn customer_events_reach_their_subscriptions_signed_and_with_metadata() {
    let (database, sql) = database("customer-events").await;
    let signed = |request: &Request| {
        let expected = format!("sha256={}", hmac(&request.body));
        request.header("x-webhook-signature") == expected
            && request.header("authorization") == "Bearer token"
    };
    let (customers, documents) = (receiver(signed, &[200]), receiver(|_| true, &[200]));
    let stranger = receiver(signed, &[200]);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let mut subscriptions: Value =
        serde_json::from_str(&read("config/customer-events.subscriptions.json")).unwrap();
    let webhooks = subscriptions["webhooks"].as_array_mut().unwrap();
    webhooks[0]["url"] = json!(customers.url());
    webhooks[1]["url"] = json!(documents.url());
    webhooks
        .push(json!({ "url": stranger.url(), "events": ["product.*"], "secret": "not your key" }));
    file.write_all(subscriptions.to_string().as_bytes()).unwrap();
    let path = format!("\"{}\"", file.path().display());
    let asked = "\"${CUSTOMER_EVENTS_SUBSCRIPTIONS:-customer-events.subscriptions.json}\"";
    let toml = configuration("customer-events", &database, &[(asked, &path)]);
    let mut service = Service::start(&toml).await;

    sql.batch_execute(
        "INSERT INTO products (id, name) VALUES (1, 'loan');
         BEGIN;
         SELECT pg_logical_emit_message(true, 'walhook', '{\"user_id\": \"admin\"}');
         INSERT INTO customers (id, customer_no, name, phone, product_id)
             VALUES (123, 'C001', '张三', '13800138000', 1);
         COMMIT;
         UPDATE customers SET status = 'approved' WHERE id = 123;
         INSERT INTO documents (id, customer_id, file_name, file_type) VALUES (5, 123, 'id.pdf', 'pdf');
         UPDATE documents SET status = 'approved', review_note = 'ok' WHERE id = 5;
         DELETE FROM documents WHERE id = 5; DELETE FROM customers WHERE id = 123;",
    )
    .await
    .unwrap();
    let told = |requests: &[Request]| -> Vec<String> {
        requests.iter().map(|r| r.json()["event"].as_str().unwrap().to_owned()).collect()
    };
    let requests = customers.wait_for(2, AMPLE).await;
    assert_eq!(told(&requests), ["customer.created", "customer.updated"]);
    let created = requests[0].json();
    let data = json!({ "id": "123", "customer_no": "C001", "name": "张三", "phone": "13800138000",
        "product_id": "1", "status": "collecting" });
    assert_eq!(created["data"], data);
    assert_eq!(created["metadata"], json!({ "user_id": "admin" }));
    assert!(created["timestamp"].as_str().unwrap().ends_with('Z'));
    assert!(requests[1].json().get("metadata").is_none());
    let requests = documents.wait_for(3, AMPLE).await;
    let events = ["document.uploaded", "document.approved", "document.deleted"];
    assert_eq!(told(&requests), events);
    assert!(requests.iter().all(|request| request.header("x-webhook-signature").is_empty()));
    // Who has another secret refuses, and that is final.
    let letters =
        "SELECT string_agg(event_type || ' ' || http_status, ',') FROM walhook.dead_letters";
    wait_for_text(&sql, letters, "product.created 401").await;
    assert_eq!((stranger.count(), customers.count()), (1, 2));
    service.stop().await;
}

/// Rules 7 to 9: the first has two webhooks, the first of them has rule 8 as well.
async fn webhooks(sql: &Sql, receivers: [&Receiver; 3]) {
    let auth = [
        json!({ "basic": { "username": "walhook", "password": SECRET } }),
        json!({ "bearer": SECRET }),
        json!({ "api_key": { "name": "X-Api-Key", "value": SECRET } }),
    ];
    for (id, (receiver, auth)) in
        ["WH_001", "WH_002", "WH_003"].into_iter().zip(receivers.iter().zip(auth))
    {
        let insert =
            format!("INSERT INTO webhooks VALUES ('{id}', '{}', true, '{auth}')", receiver.url());
        sql.batch_execute(&insert).await.unwrap();
    }
    let rules = "INSERT INTO rule_webhooks VALUES (7, 'WH_001'), (7, 'WH_002'), (8, 'WH_001'), (9, 'WH_003')";
    sql.batch_execute(rules).await.unwrap();
}

/// The query for an endpoint's attempts: status and how many went before.
fn logged(endpoint: &str) -> String {
    format!(
        "SELECT string_agg(http_status || ' ' || retry_count, ',' ORDER BY retry_count)
         FROM walhook.push_log WHERE endpoint = '{endpoint}' AND row_key LIKE 'T_20251214%'"
    )
}

#[tokio::test]
async fn a_completed_task_is_pushed_to_the_webhooks_of_its_rule_and_told_what_became_of_it() {
    let (database, sql) = database("idp-push").await;
    let signed = |request: &Request| {
        let fresh = seconds(request.header("x-idp-timestamp")).abs_diff(now()) < 60;
        fresh && request.header("x-idp-signature") == format!("sha256={}", hmac(&request.body))
    };
    // The base64 of `walhook:your-secret-key`.
    let basic = "Basic d2FsaG9vazp5b3VyLXNlY3JldC1rZXk=";
    let erp = receiver(move |r| signed(r) && r.header("authorization") == basic, &[503, 200]);
    let archive = receiver(|_| false, &[200]);
    let search = receiver(move |r| signed(r) && r.header("x-api-key") == SECRET, &[500]);
    let secret = format!("\"{SECRET}\"");
    let changes = [(DELAYS, SHORT_DELAYS), ("{ env = \"IDP_SIGNING_SECRET\" }", secret.as_str())];
    let toml = configuration("idp-push", &database, &changes);
    let toml = format!("{toml}\n[endpoints]\nallow = [\"127.0.0.1\"]\n");
    webhooks(&sql, [&erp, &archive, &search]).await;
    let counted = "[endpoints_from]: 3 endpoints in public.webhooks_with_rules";
    let mut check = Program::start(&["check"], &toml, &[]);
    assert_eq!(check.wait(AMPLE).await, Some(0), "{}", check.output().join("\n"));
    assert!(check.output().join("\n").contains(counted), "{:?}", check.output());
    let mut service = Service::start(&toml).await;

    sql.batch_execute(
        "INSERT INTO tasks (id, rule_id, result, file_url, meta) VALUES
             ('T_20251214_0001', 7, '{\"total\": 12.50}', 'https://f.test/1.pdf', '{\"pages\": 2}'),
             ('T_20251214_0002', 9, NULL, NULL, NULL);
         UPDATE tasks SET status = 'RUNNING'; UPDATE tasks SET status = 'COMPLETED';",
    )
    .await
    .unwrap();
    let requests = erp.wait_for(2, AMPLE).await;
    let body = json!({ "task_id": "T_20251214_0001", "result_json": { "total": 12.50 },
        "file_url": "https://f.test/1.pdf", "meta_info": { "pages": 2 } });
    assert!(requests.iter().all(|request| request.json() == body));
    assert_eq!(requests[0].header("webhook-id"), requests[1].header("webhook-id"));
    assert_eq!(requests[0].header("user-agent"), "IDP-Webhook/1.0");
    wait_for_text(&sql, &logged("WH_001"), "503 0,200 1").await;
    wait_for_text(&sql, &logged("WH_002"), "401 0").await;
    wait_for_text(&sql, &logged("WH_003"), "500 0,500 1,500 2,500 3").await;
    let letters = "SELECT string_agg(concat_ws(' ', endpoint, row_key, http_status, attempts), ','
        ORDER BY endpoint) FROM walhook.dead_letters";
    let expected = "WH_002 T_20251214_0001 401 1,WH_003 T_20251214_0002 500 4";
    wait_for_text(&sql, letters, expected).await;
    // The log keeps what was sent and what came back, of what was taken as well.
    let kept = "SELECT count(*) FROM walhook.push_log WHERE http_status = 200
        AND request_body LIKE '%T_20251214_0001%' AND response_body = 'taken'";
    wait_for_text(&sql, kept, "1").await;
    let shown =
        sql.text("SELECT string_agg(request_headers::text, '') FROM walhook.push_log").await;
    assert!(shown.contains("[secret]") && !shown.contains(SECRET), "{shown}");
    assert!(!shown.contains(basic) && !shown.contains("sha256="), "{shown}");
    assert_eq!((erp.count(), archive.count(), search.count()), (2, 1, 4));
    let statuses = "SELECT string_agg(id || ' ' || status, ',' ORDER BY id) FROM tasks";
    wait_for_text(&sql, statuses, "T_20251214_0001 push_failed,T_20251214_0002 push_failed").await;

    // Another webhook takes over rule 9, in the transaction before a task that goes to it.
    let taken = "DELETE FROM rule_webhooks WHERE rule_id = 9; INSERT INTO rule_webhooks VALUES (9, 'WH_001')";
    sql.batch_execute(taken).await.unwrap();
    let third = "INSERT INTO tasks VALUES ('T_20251214_0003', 9, 'COMPLETED')";
    sql.batch_execute(third).await.unwrap();
    wait_for_text(
        &sql,
        "SELECT status FROM tasks WHERE rule_id = 9 AND id LIKE '%3'",
        "PUSH_SUCCESS",
    )
    .await;
    assert_eq!((erp.count(), search.count()), (3, 4));

    // Sent again by its task id, for one webhook, and taken: no webhook of it has failed any more.
    archive.behave(always(Answer::status(200)));
    let again = ["dead-letters", "resend", "--key", "T_20251214_0001", "--endpoint", "WH_002"];
    let (code, said) = service.cli(&again).await;
    assert_eq!(code, Some(0), "{said}");
    let last = archive.wait_for(2, AMPLE).await.pop().unwrap();
    assert_eq!((last.header("webhook-replay"), last.json()), ("true", body));
    wait_for_text(&sql, "SELECT status FROM tasks WHERE rule_id = 7", "PUSH_SUCCESS").await;
    service.stop().await;
    // Neither a write-back nor the rows of webhooks were pushed.
    assert_eq!((erp.count(), archive.count(), search.count()), (3, 2, 4));
}

#[tokio::test]
async fn messages_are_filtered_signed_with_their_time_and_sent_until_200() {
    let (database, sql) = database("wechat-messages").await;
    let signed = |request: &Request| {
        let at = request.header("x-webhook-timestamp");
        let content = [at.as_bytes(), b":", &request.body].concat();
        seconds(at).abs_diff(now()) < 60 && request.header("x-webhook-signature") == hmac(&content)
    };
    let bot = receiver(signed, &[201, 404, 200]);
    let key = format!("\"{KEY}\"");
    let changes =
        [("{ env = \"WALHOOK_KEY\" }", key.as_str()), ("interval = \"1s\"", "interval = \"20ms\"")];
    let toml = configuration("wechat-messages", &database, &changes);
    let mut service =
        Service::start(&format!("{toml}\n[endpoints]\nallow = [\"127.0.0.1\"]\n")).await;
    let config = json!({ "URL": bot.url(), "Secret": SECRET, "MessageTypes": ["1", "3", "49"] });
    let made = service.post("/v1/webhook/Config", &config).await;
    assert_eq!(made.status, 200, "{}", made.body);
    sql.batch_execute(
        "INSERT INTO messages (key, msg_id, from_user, to_user, msg_type, content, is_self_msg) VALUES
             ('wxid_a', 7654321098765432123, 'wxid_s', 'wxid_r', 1, '\"你好\"', false),
             ('wxid_a', 2, 'wxid_s', 'wxid_r', 34, '\"voice\"', false),
             ('wxid_a', 3, 'wxid_s', 'wxid_r', 1, '\"mine\"', true),
             ('wxid_a', 4, 'wxid_s', 'wxid_r', 49, '{\"title\": \"x\"}', false)",
    )
    .await
    .unwrap();
    // The text three times, since only 200 counts, and the link.
    let requests = bot.wait_for(4, AMPLE).await;
    let of = |id: &str| requests.iter().filter(|r| r.json()["msgId"] == id).collect::<Vec<_>>();
    let (text, link) = (of("7654321098765432123"), of("4"));
    assert_eq!(text.len() + link.len(), 4, "nothing else came");
    for request in &requests {
        let at = seconds(request.header("x-webhook-timestamp"));
        assert_eq!(request.json()["timestamp"], at, "the time that is signed");
    }
    assert_eq!(text[0].json()["content"], "你好");
    assert_eq!(link[0].json()["content"], json!({ "title": "x" }));
    let delivered =
        "SELECT coalesce(string_agg(concat_ws(' ', captured, delivered, filtered), ','), '')
        FROM walhook.balance";
    wait_for_text(&sql, delivered, "4 2 2").await;
    service.stop().await;
}

#[tokio::test]
async fn a_role_with_what_the_sql_files_grant_may_run_each_contract() {
    for name in ["ocr-wallet", "customer-events", "idp-push", "wechat-messages"] {
        let (database, sql) = database(name).await;
        let role = format!("{}_grantee", database.name());
        for line in read(&format!("sql/{name}.sql")).lines() {
            let Some(statement) = line.strip_prefix("--    ") else { continue };
            if ["CREATE ROLE", "GRANT", "CREATE SCHEMA", "CREATE PUBLICATION"]
                .iter()
                .any(|kind| statement.starts_with(kind))
            {
                let own = statement
                    .replace("ROLE walhook", &format!("ROLE {role}"))
                    .replace("TO walhook", &format!("TO {role}"))
                    .replace("AUTHORIZATION walhook", &format!("AUTHORIZATION {role}"))
                    .replace("DATABASE app", &format!("DATABASE {}", database.name()));
                sql.batch_execute(&own).await.unwrap();
            }
        }
        let mut toml = read(&format!("config/{name}.toml"));
        let shipped = format!("slot = \"{}\"", name.replace('-', "_"));
        assert!(toml.contains(&shipped), "a slot of its own");
        toml = toml.replacen(&shipped, &format!("slot = \"{}\"", slot(&database)), 1);
        let url = database.url().replace("//postgres@", &format!("//{role}@"));
        let subscriptions =
            concat!(env!("CARGO_MANIFEST_DIR"), "/config/customer-events.subscriptions.json");
        let env = [
            ("DATABASE_URL", url.as_str()),
            ("CUSTOMER_EVENTS_SUBSCRIPTIONS", subscriptions),
            ("IDP_SIGNING_SECRET", SECRET),
            ("WALHOOK_KEY", KEY),
        ];
        let mut check = Program::start(&["check"], &toml, &env);
        let code = check.wait(AMPLE).await;
        assert_eq!(code, Some(0), "{name}: {}", check.output().join("\n"));
    }
}

/// Seconds since the Unix epoch.
fn now() -> i64 {
    walhook::testing::clock::host_now().seconds()
}
