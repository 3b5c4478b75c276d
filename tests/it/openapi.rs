//! `openapi.json` and the server agree: every operation of the document is called, well and wrongly, and what
//! comes back has a status, a content type and a body that the document describes.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]
#![expect(
    clippy::indexing_slicing,
    reason = "a missing member is null, and fails the test as it should"
)]

use std::collections::BTreeSet;

use serde_json::Value;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use walhook::testing::api::openapi::document_text;

use crate::support::postgres::Database;
use crate::support::postgres::wait_for_text;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::Request;
use crate::support::receiver::always;
use crate::support::schema::differences;
use crate::support::schema::resolved;
use crate::support::service::AMPLE;
use crate::support::service::Reply;
use crate::support::service::Service;
use crate::support::service::ask;
use crate::support::service::configuration;
use crate::support::service::exchange;
use crate::support::service::sent;

const TOKEN: &str = "a-token-that-is-long-enough";

/// 32 bytes in base64.
const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

struct Checker {
    document: Value,
    service: Service,
    /// Operations that were answered well.
    well: BTreeSet<(String, String)>,
    differences: Vec<String>,
}

impl Checker {
    /// Calls an operation: `path` as it stands in the document, with what takes the place of `{...}`.
    async fn call(
        &mut self,
        method: &str,
        (path, part): (&str, &str),
        query: &str,
        body: &str,
    ) -> Reply {
        let start = path.split('{').next().unwrap();
        let end = path.split('}').nth(1).unwrap_or_default();
        let asked = match path.contains('{') {
            true => format!("{start}{part}{end}{query}"),
            false => format!("{path}{query}"),
        };
        let (http, verb) = (self.service.http, method.to_uppercase());
        let reply = exchange(http, &verb, &asked, Some(TOKEN), body).await.unwrap();
        let about = format!("{method} {asked} {body}: {}", reply.status.as_u16());
        self.judge(&about, method, path, &reply);
        reply
    }

    /// One that has to go well.
    async fn done(&mut self, method: &str, path: &str, part: &str, body: Value) -> Value {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let reply = self.call(method, (path, part), "", &body).await;
        assert!(reply.status.is_success(), "{method} {path}: {} {}", reply.status, reply.body);
        self.well.insert((method.to_owned(), path.to_owned()));
        serde_json::from_str(&reply.body).unwrap_or_default()
    }

    /// One that has to be refused.
    async fn refused(&mut self, method: &str, at: (&str, &str), query: &str, body: &str) {
        let reply = self.call(method, at, query, body).await;
        if !reply.status.is_client_error() {
            let (path, status) = (at.0, reply.status);
            self.differences.push(format!("{method} {path}{query} {body}: accepted with {status}"));
        }
    }

    /// The page's way in: with its header, and not without.
    async fn logged_in(&mut self) {
        let (http, token) = (self.service.http, json!({ "token": TOKEN }).to_string());
        for (header, status) in [("", 403), ("x-walhook: page\r\n", 204)] {
            let head = format!(
                "POST /login HTTP/1.1\r\nhost: {http}\r\nconnection: close\r\n{header}\
                 content-length: {}\r\n\r\n{token}",
                token.len()
            );
            let reply = sent(http, &head).await.unwrap();
            assert_eq!(reply.status, status, "{reply:?}");
            self.judge("post /login", "post", "/login", &reply);
        }
        self.well.insert(("post".to_owned(), "/login".to_owned()));
    }

    /// The stream of events begins with the numbers; it has no end.
    async fn looked_on(&mut self) {
        let (http, path) = (self.service.http, "/api/v1/live");
        let mut stream = TcpStream::connect(http).await.unwrap();
        let head =
            format!("GET {path} HTTP/1.1\r\nhost: {http}\r\nauthorization: Bearer {TOKEN}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        while !answer.contains("event: numbers\ndata: {") {
            let mut part = [0; 1024];
            let read = stream.read(&mut part).await.unwrap();
            assert_ne!(read, 0, "{answer}");
            answer.push_str(&String::from_utf8_lossy(&part[..read]));
        }
        assert!(answer.contains("content-type: text/event-stream"), "{answer}");
        self.well.insert(("get".to_owned(), path.to_owned()));
    }

    fn judge(&mut self, about: &str, method: &str, path: &str, reply: &Reply) {
        let operation = &self.document["paths"][path][method];
        let answer = &operation["responses"][reply.status.as_str()];
        if answer.is_null() {
            self.differences.push(format!("{about}: the status is not described: {}", reply.body));
            return;
        }
        let content = resolved(&self.document, answer)["content"].as_object().cloned();
        if content.is_none() && reply.body.is_empty() {
            return;
        }
        let kind = reply.content_type.split(';').next().unwrap_or_default();
        let Some(schema) = content.and_then(|content| content.get(kind).cloned()) else {
            self.differences.push(format!("{about}: {kind} is not described"));
            return;
        };
        let body = match kind {
            "text/plain" | "text/html" | "text/javascript" => Value::String(reply.body.clone()),
            _ => serde_json::from_str(&reply.body).unwrap(),
        };
        let found = differences(&self.document, &schema["schema"], &body);
        self.differences.extend(found.into_iter().map(|one| format!("{about}: {one}")));
    }
}

/// Everything that is switched on, with a delivery that went well, one that was given up, and one that waits.
async fn checker() -> (Database, [Receiver; 2], Checker) {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute("CREATE TABLE orders (id int PRIMARY KEY, note text)").await.unwrap();
    sql.batch_execute(include_str!("../../sql/wecom-callbacks.sql")).await.unwrap();
    let message =
        "INSERT INTO wecom_messages (message_id, to_user, content) VALUES ('m1', 'u', 'x')";
    sql.batch_execute(message).await.unwrap();
    let good = Receiver::start(always(Answer::status(200)));
    let bad = Receiver::start(std::sync::Arc::new(|_: &Request| Answer::status(400)));
    let toml = configuration(
        &database,
        &format!(
            "[state]\nkey = \"{KEY}\"\n[endpoints]\nallow = [\"127.0.0.1\"]\n[push_log]\nbodies = \"all\"\n\
             [messages]\ntable = \"public.wecom_messages\"\nhistory = \"public.wecom_message_history\"\n\
             [webhook_api]\nevents = [\"order\"]\nmessage_type = \"note\"\nown_message = \"note == 'own'\"\n\
             [[event]]\ntype = \"order\"\ntable = \"public.orders\"\non = [\"insert\", \"read\"]\n\
             [[endpoint]]\nname = \"file\"\nurl = \"{}\"\n\
             [[endpoint]]\nname = \"bad\"\nurl = \"{}\"\n",
            good.url(),
            bad.url()
        ),
    );
    let toml = toml.replace("[http]", &format!("[http]\ntoken = \"{TOKEN}\""));
    let service = Service::start(&toml).await;
    sql.batch_execute("INSERT INTO orders VALUES (1, 'x'), (2, 'y'), (3, 'z')").await.unwrap();
    good.wait_for(3, AMPLE).await;
    wait_for_text(&sql, "SELECT count(*) FROM walhook.dead_letters", "3").await;
    let logged = "SELECT count(*) FROM walhook.push_log WHERE outcome = 'delivered'";
    wait_for_text(&sql, logged, "3").await;
    let document = serde_json::from_str(document_text()).unwrap();
    let checker = Checker { document, service, well: BTreeSet::new(), differences: Vec::new() };
    (database, [good, bad], checker)
}

/// What looks and changes nothing; and sends rows that were there before.
async fn looks(checker: &mut Checker) {
    let none = || Value::Null;
    for path in [
        "/health",
        "/ready",
        "/metrics",
        "/api/v1/webhook/stats",
        "/api/v1/status",
        "/api/v1/openapi.json",
        "/api/v1/overview",
        "/api/v1/source",
        "/api/v1/source/findings",
        "/api/v1/members",
        "/api/v1/event-types",
        "/api/v1/dead-letters/groups",
        "/",
        "/api/v1/endpoints",
        "/api/v1/push-logs",
    ] {
        checker.done("get", path, "", none()).await;
    }
    checker.done("get", "/ui/{file}", "app.js", none()).await;
    checker.done("post", "/logout", "", none()).await;
    checker.logged_in().await;
    checker.looked_on().await;
    checker.done("post", "/api/v1/try", "", json!({ "event_type": "order" })).await;
    let row = json!({ "row": { "id": 7, "note": "own" }, "old": { "id": 7 }, "op": "update" });
    checker.done("post", "/api/v1/try", "", row).await;
    checker.call("post", ("/api/v1/try", ""), "", r#"{"row": {"nothing": 1}}"#).await;
    backfills(checker).await;
}

/// It may be done before it can be held back.
async fn replay_holds(checker: &mut Checker, replay: &str) {
    for act in ["pause", "resume"] {
        let path = format!("/api/v1/replay/{{id}}/{act}");
        checker.call("post", (&path, replay), "", "").await;
        checker.well.insert(("post".to_owned(), path));
    }
}

async fn renames(checker: &mut Checker) {
    for (from, to) in [("api", "api-2"), ("api-2", "api")] {
        let path = "/api/v1/endpoints/{name}/rename";
        checker.done("post", path, from, json!({ "name": to })).await;
    }
}

/// Rows that were there before; what is done to the backfill meets it in any state.
async fn backfills(checker: &mut Checker) {
    let none = || Value::Null;
    let dry =
        json!({ "tables": ["public.orders"], "where": "id > 1", "dry_run": true, "count": true });
    checker.done("post", "/api/v1/backfills", "", dry).await;
    let ordered = json!({ "tables": ["public.orders"], "endpoints": ["file"], "rate": 1 });
    let ordered = checker.done("post", "/api/v1/backfills", "", ordered).await;
    let backfill = ordered["backfills"][0]["id"].to_string();
    checker.done("get", "/api/v1/backfills", "", none()).await;
    checker.done("get", "/api/v1/backfills/{id}", &backfill, none()).await;
    for (method, act) in
        [("post", "/pause"), ("post", "/resume"), ("post", "/cancel"), ("delete", "")]
    {
        let path = format!("/api/v1/backfills/{{id}}{act}");
        checker.call(method, (&path, &backfill), "", "").await;
        checker.well.insert((method.to_owned(), path));
    }
    let other = r#"{"tables": ["public.nothing"]}"#;
    checker.refused("post", ("/api/v1/backfills", ""), "", other).await;
}

#[tokio::test]
async fn every_operation_answers_as_the_document_says() {
    let (_database, [good, _bad], mut checker) = checker().await;
    let url = good.url();
    let none = || Value::Null;
    looks(&mut checker).await;
    let all = "/api/v1/endpoints";
    let one = "/api/v1/endpoints/{name}";
    let made = json!({ "name": "api", "url": url, "secret": "a secret of sixteen bytes" });
    checker.done("post", all, "", made.clone()).await;
    checker.done("get", one, "api", none()).await;
    checker.done("get", one, "file", none()).await;
    checker.done("put", one, "api", made).await;
    checker.done("patch", one, "api", json!({ "timeout": "7s" })).await;
    checker.done("get", &format!("{one}/samples"), "file", none()).await;
    for act in ["pause", "resume", "try-now", "disable", "enable", "test"] {
        checker.done("post", &format!("{one}/{act}"), "api", none()).await;
    }
    checker.done("post", &format!("{one}/pause"), "file", none()).await;
    checker.done("get", all, "", none()).await;
    checker.done("get", "/api/v1/status", "", none()).await;
    checker.done("post", &format!("{one}/resume"), "file", none()).await;
    checker.done("post", &format!("{one}/rotate-secret"), "api", json!({})).await;
    renames(&mut checker).await;

    for what in ["status", "history"] {
        let path = format!("/api/v1/messages/{{message_id}}/{what}");
        checker.done("get", &path, "m1", none()).await;
        checker.refused("get", (&path, "unknown"), "", "").await;
    }

    let letters = checker.done("get", "/api/v1/dead-letters", "", none()).await;
    let ids: Vec<String> =
        letters["dead_letters"].as_array().unwrap().iter().map(|l| l["id"].to_string()).collect();
    let event = letters["dead_letters"][0]["event_id"].as_str().unwrap();
    checker.done("get", "/api/v1/events/{event_id}", event, none()).await;
    let other = "evt_0000000000000001000000010000000000000001";
    checker.refused("get", ("/api/v1/events/{event_id}", other), "", "").await;
    let [first, second, third] = ids.as_slice() else { unreachable!("{letters}") };
    let letter = "/api/v1/dead-letters/{id}";
    checker.done("get", letter, first, none()).await;
    checker
        .done("post", "/api/v1/dead-letters/resend", "", json!({ "all": true, "dry_run": true }))
        .await;
    checker.done("post", &format!("{letter}/resend"), first, none()).await;
    checker.done("post", &format!("{letter}/discard"), second, none()).await;
    checker.done("delete", letter, third, none()).await;
    checker.done("post", "/api/v1/dead-letters/resend", "", json!({ "endpoint": "bad" })).await;
    let cancel = json!({ "endpoint": "bad", "dry_run": true });
    checker.done("post", "/api/v1/dead-letters/cancel", "", cancel).await;
    checker.done("post", "/api/v1/dead-letters/cancel", "", json!({ "all": true })).await;
    let other = json!({ "all": true, "to": "file", "rate": 5, "dry_run": true });
    checker.done("post", "/api/v1/dead-letters/resend", "", other).await;
    checker.done("post", "/api/v1/dead-letters/discard", "", json!({ "endpoint": "bad" })).await;

    let dry = json!({ "endpoint": "file", "dry_run": true });
    checker.done("post", "/api/v1/replay", "", dry).await;
    let ordered = json!({ "endpoint": "file", "from": "2020-01-01", "rate": 1 });
    let ordered = checker.done("post", "/api/v1/replay", "", ordered).await;
    let replay = ordered["replays"][0]["id"].to_string();
    checker.done("get", "/api/v1/replay", "", none()).await;
    checker.done("get", "/api/v1/replay/{id}", &replay, none()).await;
    replay_holds(&mut checker, &replay).await;
    checker.call("delete", ("/api/v1/replay/{id}", &replay), "", "").await;
    checker.well.insert(("delete".to_owned(), "/api/v1/replay/{id}".to_owned()));

    let config =
        json!({ "URL": url, "Secret": "a secret of sixteen bytes", "MessageTypes": ["1"] });
    checker.done("post", "/v1/webhook/Config", "", config).await;
    checker.done("get", "/v1/webhook/List", "", none()).await;
    checker.done("get", "/v1/webhook/Test", "", none()).await;
    checker.call("get", ("/v1/webhook/Test", ""), &format!("?URL={url}"), "").await;
    checker.done("put", "/v1/webhook/Update", "", json!({ "URL": url, "Timeout": 3 })).await;
    checker.done("delete", one, "api", none()).await;

    let paths = checker.document["paths"].as_object().unwrap();
    let described = paths.iter().flat_map(|(path, methods)| {
        methods.as_object().unwrap().keys().map(move |method| (method.clone(), path.clone()))
    });
    let described: BTreeSet<_> = described.collect();
    assert_eq!(checker.well, described, "each was called");
    assert!(checker.differences.is_empty(), "{}", checker.differences.join("\n"));
}

#[tokio::test]
async fn what_the_document_does_not_allow_is_refused_as_it_says() {
    let (_database, _receivers, mut checker) = checker().await;
    let document = checker.document.clone();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            if operation["security"] == json!([]) {
                continue;
            }
            let at = (path.as_str(), if path.contains("{id}") { "1" } else { "file" });
            checker.refused(method, at, "?nonsense=1", "").await;
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            for parameter in &parameters {
                let is_number = parameter["schema"]["type"] == "integer";
                let name = parameter["name"].as_str().unwrap();
                if is_number && parameter["in"] == "query" {
                    checker.refused(method, at, &format!("?{name}=x"), "").await;
                }
                if is_number && parameter["in"] == "path" {
                    checker.refused(method, (path, "x"), "", "").await;
                }
            }
            let Some(contents) = operation["requestBody"]["content"].as_object() else { continue };
            checker.refused(method, at, "", r#"{"nonsense": 1}"#).await;
            checker.refused(method, at, "", "[]").await;
            checker.refused(method, at, "", "{").await;
            let schema = resolved(&document, &contents.values().next().unwrap()["schema"]);
            for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
                // What is neither of the simple types nor a list of them.
                if schema["type"].is_string() {
                    let wrong =
                        if schema["type"] == "object" { json!(1) } else { json!({ "x": 1 }) };
                    checker.refused(method, at, "", &json!({ name: wrong }).to_string()).await;
                }
                if schema["type"] == "string" || schema["type"] == "boolean" {
                    checker.refused(method, at, "", &json!({ name: 17 }).to_string()).await;
                }
                if schema["type"] == "integer" || schema["type"] == "boolean" {
                    checker.refused(method, at, "", &json!({ name: "true" }).to_string()).await;
                }
            }
        }
    }
    assert!(checker.differences.is_empty(), "{}", checker.differences.join("\n"));
}

#[tokio::test]
async fn what_needs_the_token_says_so_without_it() {
    let (_database, _receivers, mut checker) = checker().await;
    let document = checker.document.clone();
    let all = document["paths"].as_object().unwrap().iter().flat_map(|(path, methods)| {
        methods
            .as_object()
            .unwrap()
            .iter()
            .map(move |(method, operation)| (path, method, operation))
    });
    let http = checker.service.http;
    let asked = all.map(|(path, method, operation)| async move {
        let asked = path.replace("{name}", "file").replace("{id}", "1");
        (path, method, operation, ask(http, &method.to_uppercase(), &asked, None).await.unwrap())
    });
    for (path, method, operation, reply) in futures_util::future::join_all(asked).await {
        let is_open = operation["security"] == json!([]);
        assert_eq!(reply.status == 401, !is_open, "{method} {path}: {}", reply.status);
        checker.judge(&format!("{method} {path}"), method, path, &reply);
    }
    assert!(checker.differences.is_empty(), "{}", checker.differences.join("\n"));
}
