//! Who may ask the HTTP surface, and that nobody can keep others from asking.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]

use std::net::SocketAddr;
use std::time::Duration;
use std::time::Instant;

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use walhook::testing::api::openapi::document_text;

use crate::support::postgres::Database;
use crate::support::service::AMPLE;
use crate::support::service::Service;
use crate::support::service::configuration;

const TOKEN: &str = "a-token-that-is-long-enough";

/// More than walhook takes at a time.
const HALF_OPEN: usize = 1_100;

async fn service(rest: &str) -> (Database, Service) {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute("CREATE TABLE t (id int PRIMARY KEY)").await.unwrap();
    let toml = configuration(
        &database,
        "[endpoints]\n[[event]]\ntype = \"t\"\ntable = \"public.t\"\n[shutdown]\ngrace = \"5s\"",
    );
    let service = Service::start(&toml.replace("[http]", &format!("[http]\n{rest}"))).await;
    (database, service)
}

/// What comes back for these bytes; nothing if the connection is closed without an answer.
async fn raw(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    drop(timeout(AMPLE, stream.read_to_end(&mut answer)).await.unwrap());
    String::from_utf8_lossy(&answer).into_owned()
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default()
}

async fn asked(address: SocketAddr, line: &str, headers: &str) -> u16 {
    let request = format!("{line}\r\nconnection: close\r\ncontent-length: 0\r\n{headers}\r\n");
    status(&raw(address, &request).await)
}

#[tokio::test]
async fn without_a_token_nothing_is_answered_by_a_name_that_a_page_can_have() {
    let (_database, mut service) = service("hosts = [\"walhook.internal\"]").await;
    let port = service.http.port();
    let evil =
        format!("host: evil.example.com:{port}\r\norigin: http://evil.example.com:{port}\r\n");
    let paths = [
        ("GET", "/health"),
        ("GET", "/ready"),
        ("GET", "/metrics"),
        ("GET", "/api/v1/dead-letters"),
        ("POST", "/api/v1/endpoints"),
        ("GET", "/v1/webhook/Test"),
        ("GET", "/nowhere"),
        ("TRACE", "/health"),
    ];
    for (method, path) in paths {
        let line = format!("{method} {path} HTTP/1.1");
        assert_eq!(asked(service.http, &line, &evil).await, 421, "{method} {path}");
    }
    let own = format!("host: {}\r\n", service.http);
    let get = "GET /api/v1/dead-letters HTTP/1.1";
    let cases = [
        (get, own.clone(), 200),
        (get, String::from("host: LOCALHOST\r\n"), 200),
        (get, String::from("host: [::1]:1\r\n"), 200),
        (get, String::from("host: walhook.internal\r\n"), 200),
        (get, String::new(), 400),
        (get, format!("{own}{own}"), 400),
        ("GET http://evil.example.com/health HTTP/1.1", own.clone(), 421),
        ("GET http://localhost/health HTTP/1.1", own.clone(), 200),
        (get, format!("{own}origin: http://evil.example.com\r\n"), 403),
        (get, format!("{own}origin: null\r\n"), 403),
        (get, format!("{own}sec-fetch-site: cross-site\r\n"), 403),
        (get, format!("{own}origin: http://{}\r\n", service.http), 200),
        ("POST /api/v1/endpoints HTTP/1.1", format!("{own}origin: https://a.test\r\n"), 403),
    ];
    for (line, headers, expected) in cases {
        let status = asked(service.http, line, &headers).await;
        assert_eq!(status, expected, "case: {line} {headers}");
    }
    let refused = service.metric("walhook_http_refused_total{reason=\"host\"}").await;
    assert_eq!(refused, 11.0, "each refusal is counted");
    let line = service.program.wait_for_line("by a name that is none of walhook's", AMPLE).await;
    assert!(line.contains("WARN") && line.contains("127.0.0.1"), "{line}");
    service.stop().await;
}

/// The calls of the document, with something in the place of what a path names.
fn calls() -> Vec<(String, String, bool)> {
    let document: serde_json::Value = serde_json::from_str(document_text()).unwrap();
    let mut calls = Vec::new();
    for (path, methods) in document.get("paths").unwrap().as_object().unwrap() {
        let path: Vec<&str> =
            path.split('/').map(|part| if part.starts_with('{') { "1" } else { part }).collect();
        for (method, call) in methods.as_object().unwrap() {
            let has_body = call["requestBody"].is_object();
            calls.push((method.to_uppercase(), path.join("/"), has_body));
        }
    }
    assert!(calls.len() > 40, "{}", calls.len());
    calls
}

#[tokio::test]
async fn a_page_of_another_site_changes_nothing_at_all() {
    let (_database, mut service) = service(&format!("token = \"{TOKEN}\"")).await;
    let own =
        format!("host: {0}\r\nx-walhook: page\r\nauthorization: Bearer {TOKEN}\r\n", service.http);
    for (method, path, _) in calls().iter().filter(|(method, ..)| method != "GET") {
        let line = format!("{method} {path} HTTP/1.1");
        for foreign in
            ["origin: https://evil.example.com", "origin: null", "sec-fetch-site: same-site"]
        {
            let headers = format!("{own}{foreign}\r\n");
            assert_eq!(asked(service.http, &line, &headers).await, 403, "{line} {foreign}");
        }
    }
    let near = format!("{own}origin: http://{}\r\nsec-fetch-site: same-origin\r\n", service.http);
    for headers in [&own, &near] {
        assert_eq!(asked(service.http, "POST /logout HTTP/1.1", headers).await, 204, "{headers}");
    }
    service.stop().await;
}

#[tokio::test]
async fn a_body_with_a_key_twice_is_refused_by_every_call_that_takes_one() {
    let (_database, mut service) = service(&format!("token = \"{TOKEN}\"")).await;
    let body = r#"{"any": [{"timeout": 1, "timeout": 2}]}"#;
    let with_body: Vec<_> = calls().into_iter().filter(|(.., has_body)| *has_body).collect();
    assert!(with_body.len() > 10, "{with_body:?}");
    for (method, path, _) in with_body {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\nx-walhook: page\r\n\
             authorization: Bearer {TOKEN}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            service.http,
            body.len()
        );
        let answer = raw(service.http, &request).await;
        assert_eq!(status(&answer), 400, "{method} {path}: {answer}");
        assert!(answer.contains("key \\\"timeout\\\" twice"), "{method} {path}: {answer}");
    }
    service.stop().await;
}

#[tokio::test]
async fn whoever_has_the_token_may_come_by_any_name_and_guessing_is_slow_and_seen() {
    let (_database, mut service) = service(&format!("token = \"{TOKEN}\"")).await;
    let get = "GET /api/v1/endpoints HTTP/1.1";
    let with =
        |token: &str| format!("host: walhook.example.com\r\nauthorization: bearer {token}\r\n");
    assert_eq!(asked(service.http, get, &with(TOKEN)).await, 200);
    let began = Instant::now();
    let guess = with("another-token-of-that-length");
    let guesses = (0..30).map(|_| asked(service.http, get, &guess));
    let answers = futures_util::future::join_all(guesses).await;
    assert!(answers.iter().all(|status| *status == 401), "{answers:?}");
    assert!(began.elapsed() > Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(asked(service.http, get, &with(TOKEN)).await, 200);
    assert_eq!(service.metric("walhook_http_refused_total{reason=\"token\"}").await, 30.0);
    let lines = service.program.output();
    let told = lines.iter().filter(|line| line.contains("requests without the token")).count();
    assert!(told >= 1, "{lines:?}");
    assert!(told <= 1 + usize::try_from(began.elapsed().as_secs() / 60).unwrap(), "{lines:?}");
    service.stop().await;
}

/// More than the usual limit of file descriptors, which walhook raises where it may.
#[tokio::test]
async fn half_a_request_neither_silences_health_nor_delays_the_end() {
    // This process holds the other ends.
    walhook::testing::delivery::sockets::raise_limit();
    for limits in [&["-Sn 1024"][..], &["-Sn 1024", "-Hn 1024"]] {
        half_open_within(limits).await;
    }
}

async fn half_open_within(limits: &[&str]) {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute("CREATE TABLE t (id int PRIMARY KEY)").await.unwrap();
    let rest =
        "[endpoints]\n[[event]]\ntype = \"t\"\ntable = \"public.t\"\n[shutdown]\ngrace = \"5s\"";
    let toml = configuration(&database, rest);
    let mut service = Service::start_within(limits, &toml).await;
    let mut held = Vec::new();
    let halves = [
        format!("GET /health HTTP/1.1\r\nhost: {}\r\nx-half: ", service.http),
        format!(
            "POST /api/v1/dead-letters/resend HTTP/1.1\r\nhost: {}\r\ncontent-length: 10\r\n\r\n{{",
            service.http
        ),
        String::new(),
    ];
    for half in halves.iter().cycle().take(HALF_OPEN) {
        let mut stream = TcpStream::connect(service.http).await.unwrap();
        // Those that came first may have been closed to make room.
        drop(stream.write_all(half.as_bytes()).await);
        held.push(stream);
    }
    for path in ["/health", "/ready"] {
        let own = format!("host: {}\r\n", service.http);
        let line = format!("GET {path} HTTP/1.1");
        let answer = asked(service.http, &line, &own);
        let answer = timeout(AMPLE, answer).await;
        assert_eq!(answer.ok(), Some(200), "{path} {limits:?}");
    }
    let held_back = service.metric("walhook_http_refused_total{reason=\"connections\"}").await;
    assert!(held_back > 0.0, "{held_back} {limits:?}");
    // With 0, within a grace that is shorter than any deadline of a request.
    service.stop().await;
    drop(held);
}
