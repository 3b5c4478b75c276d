//! Contract 1 to the letter: what a receiver of `ocr_wallet_info` gets, and what it does not.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]
#![expect(clippy::indexing_slicing, reason = "a missing field fails the test as it should")]

use std::fs;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;
use serde_json::json;
use walhook::testing::clock::host_now;
use walhook::testing::sandbox::cluster::ClusterOptions;

use crate::support::postgres::Database;
use crate::support::postgres::Sql;
use crate::support::postgres::start_cluster;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::Request;
use crate::support::receiver::always;
use crate::support::receiver::in_turn;
use crate::support::service::AMPLE;
use crate::support::service::Service;
use crate::support::service::configuration;
use crate::support::service::slot;

/// The table of a user of ocr-wallet.
const TABLE: &str = include_str!("../../sql/ocr-wallet.sql");

/// The row of the contract's example, but for its time.
const EXAMPLE: &str = "INSERT INTO ocr_wallet_info VALUES
    (123, '192.168.1.100', '123456789', 'group123@chatroom', 'ABC123DEF456', 'SN789012345',
     'user123', '张三', 'https://minio.example.com/images/wallet_123.jpg', {time})";

fn ok() -> Receiver {
    Receiver::start(always(Answer::status(200)))
}

async fn database() -> (Database, Sql) {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(TABLE).await.unwrap();
    (database, sql)
}

/// `[webhook]` with these receivers and more keys.
fn webhook(receivers: &[&Receiver], more: &str) -> String {
    let urls: Vec<String> = receivers.iter().map(|one| format!("\"{}\"", one.url())).collect();
    format!("[webhook]\nurls = [{}]\n{more}", urls.join(", "))
}

async fn insert(sql: &Sql, wallet_code: &str) {
    let insert = format!("INSERT INTO ocr_wallet_info (wallet_code) VALUES ('{wallet_code}')");
    sql.batch_execute(&insert).await.unwrap();
}

/// Compares a body with a golden file to the byte, but for white space and for three numbers:
/// in the file `<seconds>` stands for the attempt's time, `<age>` for the row's age at it, and
/// `<born>` for its `create_time`.
fn assert_golden(request: &Request, file: &str, born: i64) {
    match request.json() {
        Value::Array(envelopes) => envelopes.iter().for_each(|one| assert_times(one, born)),
        envelope => assert_times(&envelope, born),
    }
    let mut sent = String::from_utf8(request.body.to_vec()).unwrap();
    for (name, mark) in
        [("timestamp", "<seconds>"), ("create_time", "<born>"), ("data_age_seconds", "<age>")]
    {
        sent = replace_numbers(&sent, &format!("\"{name}\":"), mark);
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file);
    let expected: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(sent, expected.to_string());
}

fn assert_times(envelope: &Value, born: i64) {
    let seconds = envelope["timestamp"].as_i64().unwrap();
    let now = host_now().seconds();
    assert!((born..=now + 1).contains(&seconds), "{seconds} is not between {born} and {now}");
    let age = &envelope["metadata"]["data_age_seconds"];
    assert!(age.is_f64(), "{age} is not a decimal number");
    let age = Duration::from_secs_f64(age.as_f64().unwrap());
    let whole = Duration::from_secs((seconds - born).unsigned_abs());
    assert!((whole..whole + Duration::from_secs(1)).contains(&age), "{age:?}, not {whole:?}");
    assert_eq!(envelope["data"]["create_time"], born);
}

/// Puts `"mark"` in the place of each number that follows `label`.
fn replace_numbers(text: &str, label: &str, mark: &str) -> String {
    let mut pieces = text.split(label);
    let mut replaced = pieces.next().unwrap().to_owned();
    for piece in pieces {
        let rest = piece.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        replaced.push_str(&format!("{label}\"{mark}\"{rest}"));
    }
    replaced
}

/// The stats once so many rows have been pushed.
async fn pushed(service: &Service, total: u64) -> Value {
    let deadline = Instant::now() + AMPLE;
    loop {
        let stats = service.stats().await;
        if stats["total_pushed"] == total {
            return stats;
        }
        assert!(Instant::now() < deadline, "{stats}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A stop settles and confirms everything, so that what has not arrived by then never will.
async fn end(mut service: Service) -> Vec<String> {
    service.stop().await;
    service.program.output()
}

#[tokio::test]
async fn a_database_url_and_a_webhook_url_are_a_complete_configuration() {
    let cluster = start_cluster(ClusterOptions::default()).await;
    let receiver = ok();
    let url = cluster.url("postgres");
    let sql = Sql::connect(&url).await;
    sql.batch_execute(TABLE).await.unwrap();
    let webhook = webhook(&[&receiver], "");
    // The port is not part of it, but 9464 can be taken.
    let toml = format!("[postgres]\nurl = \"{url}\"\n[http]\nlisten = \"127.0.0.1:0\"\n{webhook}");
    let service = Service::start(&toml).await;
    insert(&sql, "W1").await;
    let request = receiver.wait_for(1, AMPLE).await.remove(0);
    assert_eq!(request.json()["data"]["wallet_code"], "W1");
    assert_eq!(sql.text("SELECT plugin FROM pg_replication_slots").await, "pgoutput");
    let published = "SELECT string_agg(schemaname || '.' || tablename, ' ')
        FROM pg_publication_tables WHERE pubname = 'walhook'";
    assert_eq!(sql.text(published).await, "public.ocr_wallet_info");
    end(service).await;
}

#[tokio::test]
async fn the_body_and_the_headers_are_what_its_receivers_know() {
    let (database, sql) = database().await;
    let receiver = ok();
    let service = Service::start(&configuration(&database, &webhook(&[&receiver], ""))).await;
    let born = host_now().seconds() - 15;
    let insert = EXAMPLE.replace("{time}", &format!("to_timestamp({born})"));
    sql.batch_execute(&insert).await.unwrap();
    let request = receiver.wait_for(1, AMPLE).await.remove(0);
    assert_golden(&request, "ocr-wallet-single.json", born);
    assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/hooks"));
    assert_eq!(request.header("content-type"), "application/json");
    assert_eq!(request.header("user-agent"), "wx-msg-chat-webhook/1.0");
    assert!(!request.header("webhook-id").is_empty(), "{:?}", request.headers);
    end(service).await;
}

#[tokio::test]
async fn a_batch_is_an_array_of_the_same_envelopes() {
    let (database, sql) = database().await;
    let receiver = ok();
    let webhook = webhook(&[&receiver], "batch_size = 3\nbatch_linger = \"10s\"");
    let service = Service::start(&configuration(&database, &webhook)).await;
    let born = host_now().seconds() - 2;
    sql.batch_execute(&format!(
        "INSERT INTO ocr_wallet_info (id, source_ip, msg_id, wallet_code, wx_nick_name, pic_url,
             create_time)
         SELECT id, ip, msg, code, nick, pic, to_timestamp({born}) FROM (VALUES
             (1, NULL, NULL, 'W\"1\\', E'🦉\\n', NULL),
             (2, '10.0.0.2', '', 'W2', NULL, ''),
             (9223372036854775807, NULL, NULL, ' W3 ', NULL, NULL),
             (4, NULL, NULL, 'W4', NULL, NULL)) v (id, ip, msg, code, nick, pic)"
    ))
    .await
    .unwrap();
    // Three fill a batch; the fourth waits for others, until the shutdown.
    let request = receiver.wait_for(1, AMPLE).await.remove(0);
    assert_golden(&request, "ocr-wallet-batch.json", born);
    end(service).await;
    let requests = receiver.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[1].json().as_array().unwrap().len(), 1, "still an array");
    assert_eq!(requests[1].json()[0]["data"]["id"], 4);
}

#[tokio::test]
async fn create_time_may_be_of_three_types() {
    let types = [
        ("timestamptz", "to_timestamp({born})"),
        ("timestamp", "to_timestamp({born}) AT TIME ZONE 'UTC'"),
        ("bigint", "{born}"),
    ];
    for (sql_type, value) in types {
        let (database, sql) = database().await;
        let receiver = ok();
        sql.batch_execute(&format!(
            "DROP TABLE ocr_wallet_info; {}",
            TABLE.replace("timestamptz NOT NULL DEFAULT now()", sql_type)
        ))
        .await
        .unwrap();
        let webhook = webhook(&[&receiver], "data_expiry = \"1m\"");
        let service = Service::start(&configuration(&database, &webhook)).await;
        let (expired, fresh) = (host_now().seconds() - 100, host_now().seconds() - 20);
        let row = |id: i64, born: i64| {
            let insert = EXAMPLE.replace("(123,", &format!("({id},"));
            insert.replace("{time}", &value.replace("{born}", &born.to_string()))
        };
        sql.batch_execute(&row(122, expired)).await.unwrap();
        sql.batch_execute(&row(123, fresh)).await.unwrap();
        let request = receiver.wait_for(1, AMPLE).await.remove(0);
        assert_golden(&request, "ocr-wallet-single.json", fresh);
        let log = end(service).await;
        assert_eq!(receiver.count(), 1, "case: {sql_type}");
        let skipped: Vec<&String> = log.iter().filter(|l| l.contains("skipped")).collect();
        assert_eq!(skipped.len(), 1, "case: {sql_type}: {skipped:?}");
    }
}

#[tokio::test]
async fn only_recognised_new_rows_are_pushed() {
    let (database, sql) = database().await;
    let receiver = ok();
    let service = Service::start(&configuration(&database, &webhook(&[&receiver], ""))).await;
    sql.batch_execute(
        "BEGIN;
         INSERT INTO ocr_wallet_info (id, wallet_code) VALUES
             (1, NULL), (2, ''), (3, E' \t\n'), (4, 'W4');
         UPDATE ocr_wallet_info SET wallet_code = 'late' WHERE id = 1;
         UPDATE ocr_wallet_info SET wx_id = 'u' WHERE id = 4;
         DELETE FROM ocr_wallet_info WHERE id = 4;
         SAVEPOINT s; INSERT INTO ocr_wallet_info (id, wallet_code) VALUES (6, 'never');
         ROLLBACK TO s;
         INSERT INTO ocr_wallet_info (id, wallet_code) VALUES (7, 'W7');
         COMMIT;",
    )
    .await
    .unwrap();
    service
        .wait_for_metric("walhook_events_captured_total{table=\"public.ocr_wallet_info\"}", 5.0)
        .await;
    assert_eq!(
        service.metric("walhook_events_filtered_total{event=\"ocr_wallet_data\"}").await,
        3.0
    );
    end(service).await;
    let mut ids: Vec<i64> =
        receiver.requests().iter().map(|r| r.json()["data"]["id"].as_i64().unwrap()).collect();
    ids.sort_unstable();
    assert_eq!(ids, [4, 7]);
}

#[tokio::test]
async fn a_row_that_is_too_old_when_it_is_queued_is_never_sent() {
    let (database, sql) = database().await;
    let receivers = [ok(), ok()];
    let webhook = webhook(&[&receivers[0], &receivers[1]], "");
    let service = Service::start(&configuration(&database, &webhook)).await;
    sql.batch_execute(
        "INSERT INTO ocr_wallet_info (id, wallet_code, create_time) VALUES
             (1, 'OLD1', now() - interval '301 s'), (2, 'NEW2', now() - interval '200 s')",
    )
    .await
    .unwrap();
    for receiver in &receivers {
        receiver.wait_for(1, AMPLE).await;
    }
    let log = end(service).await;
    for receiver in &receivers {
        let codes: Vec<Value> =
            receiver.requests().iter().map(|r| r.json()["data"]["wallet_code"].clone()).collect();
        assert_eq!(codes, ["NEW2"]);
    }
    let skipped: Vec<&String> =
        log.iter().filter(|line| line.contains("skipped as expired")).collect();
    assert_eq!(skipped.len(), 2, "one for each URL: {skipped:?}");
    for line in skipped {
        for part in ["DEBUG", "id=\"1\"", "wallet_code=\"OLD1\"", "create_time=\"2"] {
            assert!(line.contains(part), "{part} in {line}");
        }
    }
}

#[tokio::test]
async fn a_row_that_expires_while_it_waits_for_a_retry_is_never_sent_again() {
    let (database, sql) = database().await;
    let later = Answer::status(503).header("retry-after", "4");
    let receiver = Receiver::start(in_turn(vec![later, Answer::status(200)]));
    let webhook = webhook(&[&receiver], "data_expiry = \"3s\"");
    let mut service = Service::start(&configuration(&database, &webhook)).await;
    insert(&sql, "W1").await;
    receiver.wait_for(1, AMPLE).await;
    let line = service.program.wait_for_line("skipped as expired", AMPLE).await;
    for part in ["DEBUG", "id=\"1\"", "wallet_code=\"W1\"", "create_time=\"2"] {
        assert!(line.contains(part), "{part} in {line}");
    }
    let stats = service.stats().await;
    // It was tried, so it is the endpoint's failure.
    assert_eq!((&stats["total_pushed"], &stats["failure_count"]), (&json!(1), &json!(1)));
    end(service).await;
    assert_eq!(receiver.count(), 1);
}

#[tokio::test]
async fn every_url_gets_every_event_with_the_same_id() {
    let (database, sql) = database().await;
    let receivers = [ok(), ok(), ok()];
    let webhook = webhook(&[&receivers[0], &receivers[1], &receivers[2]], "");
    let service = Service::start(&configuration(&database, &webhook)).await;
    let insert = "INSERT INTO ocr_wallet_info (wallet_code)
        SELECT 'W' || n FROM generate_series(1, 50) n";
    sql.batch_execute(insert).await.unwrap();
    let mut books = Vec::new();
    for receiver in &receivers {
        let requests = receiver.wait_for(50, AMPLE).await;
        let mut book: Vec<(i64, String)> = requests
            .iter()
            .map(|r| (r.json()["data"]["id"].as_i64().unwrap(), r.header("webhook-id").to_owned()))
            .collect();
        book.sort();
        books.push(book);
    }
    assert_eq!(books[0], books[1]);
    assert_eq!(books[0], books[2]);
    assert!(books[0].iter().map(|(id, _)| *id).eq(1..=50), "{books:?}");
    let mut ids: Vec<&String> = books[0].iter().map(|(_, id)| id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 50, "each event has an id of its own");
    end(service).await;
    assert!(receivers.iter().all(|receiver| receiver.count() == 50));
}

#[tokio::test]
async fn a_switched_off_webhook_accounts_for_rows_and_pushes_nothing() {
    let (database, sql) = database().await;
    let receiver = ok();
    let webhook = webhook(&[&receiver], "enabled = false");
    let service = Service::start(&configuration(&database, &webhook)).await;
    // Within the row's transaction: what others write to the same server is not in question.
    sql.batch_execute("BEGIN; INSERT INTO ocr_wallet_info (wallet_code) VALUES ('W1')")
        .await
        .unwrap();
    let row = sql.text("SELECT pg_current_wal_insert_lsn()").await;
    sql.batch_execute("COMMIT").await.unwrap();
    let captured = "walhook_events_captured_total{table=\"public.ocr_wallet_info\"}";
    service.wait_for_metric(captured, 1.0).await;
    end(service).await;
    assert_eq!(receiver.count(), 0);
    // It moves on: the WAL of what nobody wants is not kept.
    let confirmed = format!(
        "SELECT confirmed_flush_lsn >= '{row}' FROM pg_replication_slots
         WHERE slot_name = '{}'",
        slot(&database)
    );
    assert_eq!(sql.text(&confirmed).await, "t");
}

#[tokio::test]
async fn after_the_last_retry_a_row_is_given_up_with_a_warning() {
    let (database, sql) = database().await;
    let receiver = Receiver::start(always(Answer::status(500)));
    let webhook = webhook(&[&receiver], "retry_interval = \"20ms\"");
    let mut service = Service::start(&configuration(&database, &webhook)).await;
    insert(&sql, "W1").await;
    let line = service.program.wait_for_line("given up", AMPLE).await;
    // Of the URL its origin only: the path can be a secret.
    let origin = receiver.url().trim_end_matches("/hooks").to_owned();
    for part in ["WARN", "id=\"1\"", "wallet_code=\"W1\"", "attempts=4", &origin, "500"] {
        assert!(line.contains(part), "{part} in {line}");
    }
    assert!(!line.contains("/hooks"), "{line}");
    let stats = service.stats().await;
    end(service).await;
    let requests = receiver.requests();
    assert_eq!(requests.len(), 4, "one attempt and three retries");
    let id = requests[0].header("webhook-id");
    assert!(requests.iter().all(|request| request.header("webhook-id") == id));
    assert_eq!((&stats["total_pushed"], &stats["failure_count"]), (&json!(1), &json!(1)));
}

#[tokio::test]
async fn the_stats_are_what_its_readers_know() {
    let (database, sql) = database().await;
    let receiver = Receiver::start(always(Answer::status(200).after(Duration::from_millis(40))));
    let webhook = webhook(&[&receiver], "max_retries = 0");
    let toml = configuration(&database, &webhook);
    let service = Service::start(&toml).await;
    let reply = service.get("/api/v1/webhook/stats").await;
    assert_eq!(reply.content_type, "application/json");
    let before = json!({ "success": true, "data": { "total_pushed": 0, "success_count": 0,
        "failure_count": 0, "last_push_time": null, "average_delay_ms": 0 } });
    assert_eq!(reply.body, before.to_string(), "also in this order");
    insert(&sql, "W1").await;
    insert(&sql, "W2").await;
    pushed(&service, 2).await;
    receiver.behave(always(Answer::status(404)));
    insert(&sql, "W3").await;
    let after = pushed(&service, 3).await;
    assert_eq!((&after["success_count"], &after["failure_count"]), (&json!(2), &json!(1)));
    let last = after["last_push_time"].as_i64().unwrap();
    assert!((host_now().seconds() - 60..=host_now().seconds()).contains(&last), "{after}");
    let average = after["average_delay_ms"].as_u64().unwrap();
    assert!(average >= 40, "{after}");
    end(service).await;
    let again = Service::start(&toml).await;
    assert_eq!(again.stats().await, after, "kept through the restart");
    end(again).await;
}

#[tokio::test]
async fn an_outage_longer_than_the_expiry_is_visible_in_the_stats_and_stays_so() {
    let (database, sql) = database().await;
    let receiver = Receiver::start(always(Answer::status(503)));
    let more = "data_expiry = \"2s\"\nconcurrent_pushers = 1\nmax_retries = 100";
    let toml = configuration(&database, &webhook(&[&receiver], more));
    let mut service = Service::start(&toml).await;
    insert(&sql, "W1").await;
    receiver.wait_for(1, AMPLE).await;
    // These wait behind the first, or for the breaker, and may never be tried.
    for code in ["W2", "W3", "W4"] {
        insert(&sql, code).await;
    }
    let line = service.program.wait_for_line("events expire while the endpoint", AMPLE).await;
    assert!(line.contains("WARN") && line.contains(&receiver.address().to_string()), "{line}");
    let told = pushed(&service, 4).await;
    assert_eq!((&told["success_count"], &told["failure_count"]), (&json!(0), &json!(4)));
    assert!(told["last_push_time"].is_i64(), "{told}");
    let log = end(service).await;
    let lines = log.iter().filter(|line| line.contains("events expire while the endpoint")).count();
    assert!((1..4).contains(&lines), "one line an endpoint and minute: {log:#?}");
    // Also through a kill: what was flushed stays.
    let mut again = Service::start(&toml).await;
    assert_eq!(again.stats().await, told);
    again.program.kill();
    again.program.wait(AMPLE).await;
    let last = Service::start(&toml).await;
    assert_eq!(last.stats().await, told);
    end(last).await;
}

#[tokio::test]
async fn each_outcome_is_a_line_of_text_or_json_without_secrets() {
    let (database, sql) = database().await;
    let receiver = ok();
    let more = "secret = \"whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\"\n\
                headers = { authorization = \"Bearer tell-nobody\" }";
    let webhook = webhook(&[&receiver], more).replace("/hooks", "/hooks?key=tell-nobody");
    let toml = configuration(&database, &webhook).replace("postgres@", "postgres:tell-nobody@");
    for format in ["text", "json"] {
        let toml = toml.replace("walhook=debug\"", &format!("trace\"\nformat = \"{format}\""));
        let mut service = Service::start(&toml).await;
        insert(&sql, "W1").await;
        let line = service.program.wait_for_line("pushed", AMPLE).await;
        if format == "json" {
            let line: Value = serde_json::from_str(&line).unwrap();
            assert_eq!(line["level"], "INFO");
            assert_eq!(line["message"], "pushed");
            assert_eq!((&line["id"], &line["wallet_code"]), (&json!("2"), &json!("W1")));
        } else {
            for part in ["INFO", "id=\"1\"", "wallet_code=\"W1\""] {
                assert!(line.contains(part), "{part} in {line}");
            }
        }
        let log = end(service).await.join("\n");
        for secret in ["tell-nobody", "AAECAwQF", "\"data\":", "wx_nick_name"] {
            assert!(!log.contains(secret), "{secret} in the log:\n{log}");
        }
        let request = receiver.requests().pop().unwrap();
        assert_eq!(request.header("authorization"), "Bearer tell-nobody");
        assert_eq!(request.path, "/hooks?key=tell-nobody");
    }
}
