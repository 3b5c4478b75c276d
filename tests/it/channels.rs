//! Chat systems as a configuration names them, against fakes that check signatures, rates and codes.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;
use std::time::Instant;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ring::hmac;
use serde_json::Value;

use crate::inbound::CORP_SECRET;
use crate::inbound::SQL;
use crate::inbound::shipped;
use crate::support::postgres::Database;
use crate::support::postgres::wait_for_text;
use crate::support::program::Program;
use crate::support::receiver::Answer;
use crate::support::receiver::Behaviour;
use crate::support::receiver::Receiver;
use crate::support::receiver::Request;
use crate::support::receiver::always;
use crate::support::service::AMPLE;
use crate::support::service::Service;
use crate::support::service::configuration;
use crate::support::service::slot;
use crate::support::wecom::now;

const SECRET: &str = "SECwalhooktestsecret";

fn sign(key: &str, content: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
    BASE64_STANDARD.encode(hmac::sign(&key, content.as_bytes()))
}

fn is_recent(seconds: &str) -> bool {
    seconds.parse::<u64>().is_ok_and(|seconds| now().abs_diff(seconds) < 300)
}

fn ok(body: &str) -> Answer {
    Answer::status(200).body(body.to_owned())
}

fn text(message: &Value, pointer: &str) -> String {
    message.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// DingTalk's: time and signature in the query.
fn dingtalk(request: &Request) -> Answer {
    let url = url::Url::parse(&format!("http://h{}", request.path)).unwrap();
    let of = |name: &str| {
        let found = url.query_pairs().find(|(found, _)| found == name);
        found.map(|(_, value)| value.into_owned()).unwrap_or_default()
    };
    let timestamp = of("timestamp");
    let signed = sign(SECRET, &format!("{timestamp}\n{SECRET}"));
    // Milliseconds.
    let seconds = timestamp.get(..timestamp.len().saturating_sub(3)).unwrap_or_default();
    if of("access_token") != "t" || of("sign") != signed || !is_recent(seconds) {
        return ok(r#"{"errcode":310000,"errmsg":"sign not match"}"#);
    }
    match text(&request.json(), "/text/content").as_str() {
        "bad" => ok(r#"{"errcode":400105,"errmsg":"unsupported msgtype"}"#),
        _ => ok(r#"{"errcode":0,"errmsg":"ok"}"#),
    }
}

/// Feishu's: both in the body.
fn feishu(request: &Request) -> Answer {
    let message = request.json();
    let timestamp = text(&message, "/timestamp");
    if text(&message, "/sign") != sign(&format!("{timestamp}\n{SECRET}"), "")
        || !is_recent(&timestamp)
    {
        return ok(r#"{"code":19021,"msg":"sign match fail or timestamp is not within one hour"}"#);
    }
    match text(&message, "/content/text").as_str() {
        "bad" => Answer::status(400).body(r#"{"code":9499,"msg":"Bad Request","data":{}}"#),
        _ => ok(r#"{"code":0,"msg":"success","data":{}}"#),
    }
}

fn slack(request: &Request) -> Answer {
    match text(&request.json(), "/text").as_str() {
        "bad" => Answer::status(403).body("action_prohibited"),
        _ => ok("ok"),
    }
}

fn wecom(request: &Request) -> Answer {
    match text(&request.json(), "/text/content").as_str() {
        "bad" => ok(r#"{"errcode":93000,"errmsg":"invalid webhook url"}"#),
        _ => ok(r#"{"errcode":0,"errmsg":"ok"}"#),
    }
}

/// Its name, its answers, the query of its URL, its message, a code of its own, and what three messages take.
type System = (
    &'static str,
    fn(&Request) -> Answer,
    &'static str,
    &'static str,
    &'static str,
    Option<Duration>,
);

const NOTES: &str = "CREATE TABLE note (id bigint PRIMARY KEY, body text NOT NULL)";
const EVENT: &str = "[[event]]\ntype = \"note\"\ntable = \"public.note\"\non = [\"insert\"]\n";

async fn settled(service: &Service, endpoint: &str, outcome: &str, count: f64) {
    let series =
        format!("walhook_deliveries_total{{endpoint=\"{endpoint}\",outcome=\"{outcome}\"}}");
    service.wait_for_metric(&series, count).await;
}

#[tokio::test]
async fn each_chat_system_is_spoken_to_as_it_wants_it() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(NOTES).await.unwrap();
    let plain = "{ msgtype = \"text\", text = { content = \"{{ body }}\" } }";
    let systems: [System; 4] = [
        ("wecom-robot", wecom, "?key=k", plain, "93000", Some(Duration::from_secs(3))),
        (
            "dingtalk-robot",
            dingtalk,
            "?access_token=t",
            plain,
            "400105",
            Some(Duration::from_secs(3)),
        ),
        (
            "feishu-robot",
            feishu,
            "",
            "{ msg_type = \"text\", content = { text = \"{{ body }}\" } }",
            "9499",
            None,
        ),
        (
            "slack",
            slack,
            "",
            "{ text = \"{{ body }}\" }",
            "action_prohibited",
            Some(Duration::from_secs(1)),
        ),
    ];
    let (mut rest, mut receivers) = (EVENT.to_owned(), Vec::new());
    for (name, behaviour, query, payload, _, _) in &systems {
        let receiver = Receiver::start(Arc::new(*behaviour));
        let url = format!("{}{query}", receiver.url());
        let signs = matches!(*name, "dingtalk-robot" | "feishu-robot");
        let secret = if signs { format!("secret = \"{SECRET}\"\n") } else { String::new() };
        rest += &format!(
            "[[endpoint]]\nname = \"{name}\"\nchannel = \"{name}\"\nurl = \"{url}\"\n{secret}\
             events = [\"note\"]\npayload = {payload}\n"
        );
        receivers.push(receiver);
    }
    let mut service = Service::start(&configuration(&database, &rest)).await;
    sql.batch_execute("INSERT INTO note VALUES (1, 'hello'), (2, 'bad'), (3, '你好')")
        .await
        .unwrap();
    for ((name, _, _, _, code, spacing), receiver) in systems.iter().zip(&receivers) {
        settled(&service, name, "delivered", 2.0).await;
        settled(&service, name, "dead", 1.0).await;
        let errors =
            format!("walhook_channel_errors_total{{endpoint=\"{name}\",errcode=\"{code}\"}}");
        assert_eq!(service.metric(&errors).await, 1.0);
        let requests = receiver.requests();
        assert_eq!(requests.len(), 3, "{name}");
        assert!(requests.iter().all(|request| request.header("webhook-signature").is_empty()));
        // Half of the spacing: a busy machine delays one request more than the next.
        let took = requests[2].arrived - requests[0].arrived;
        assert!(spacing.is_none_or(|spacing| took >= spacing), "{name}: {took:?}");
        let letter = format!(
            "SELECT coalesce(max(l::text), '') FROM walhook.dead_letters l WHERE endpoint = '{name}'"
        );
        let letter: String = sql.query_one(&letter, &[]).await.unwrap().get(0);
        assert!(letter.contains(code), "{name}: {letter}");
        assert!(!letter.contains(SECRET));
    }
    let scrape = service.get("/metrics").await.body;
    assert!(
        scrape
            .contains("walhook_channel_errors_total{endpoint=\"wecom-robot\",errcode=\"45009\"} 0")
    );
    assert!(!scrape.contains(SECRET));
    service.stop().await;
}

#[tokio::test]
async fn a_system_that_says_when_is_left_alone_until_then() {
    const WAIT: Duration = Duration::from_secs(2);
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(NOTES).await.unwrap();
    let refused: Arc<Mutex<Option<Instant>>> = Arc::default();
    let early: Arc<Mutex<Vec<Duration>>> = Arc::default();
    let (told, noted) = (Arc::clone(&refused), Arc::clone(&early));
    let behaviour: Behaviour = Arc::new(move |request: &Request| {
        let mut told = told.lock().unwrap();
        match *told {
            None if text(&request.json(), "/text") == "third" => {
                *told = Some(request.arrived);
                Answer::status(429).header("retry-after", "2").body("rate_limited")
            }
            Some(at) if request.arrived - at < WAIT => {
                noted.lock().unwrap().push(request.arrived - at);
                ok("ok")
            }
            _ => ok("ok"),
        }
    });
    let slack = Receiver::start(behaviour);
    let rest = format!(
        "{EVENT}[[endpoint]]\nname = \"slack\"\nchannel = \"slack\"\nurl = \"{}\"\n\
         events = [\"note\"]\nrate_limit = 1000\nconcurrency = 1\npayload = {{ text = \"{{{{ body }}}}\" }}\n",
        slack.url()
    );
    let mut service = Service::start(&configuration(&database, &rest)).await;
    for (id, body) in (1..).zip(["first", "second", "third", "fourth", "fifth"]) {
        sql.batch_execute(&format!("INSERT INTO note VALUES ({id}, '{body}')")).await.unwrap();
    }
    settled(&service, "slack", "delivered", 5.0).await;
    assert!(refused.lock().unwrap().is_some());
    let early = early.lock().unwrap().clone();
    assert!(early.is_empty(), "others than the one that was refused wait, too: {early:?}");
    let errors = "walhook_channel_errors_total{endpoint=\"slack\",errcode=\"rate_limited\"}";
    assert_eq!(service.metric(errors).await, 1.0);
    service.stop().await;
}

/// `check --channels`: what it says, and how it ends.
async fn tried(database: &Database, answers: Behaviour) -> (Option<i32>, String) {
    let wecom = Receiver::start(answers);
    let base = wecom.url().replace("/hooks", "");
    let unused = "http://127.0.0.1:9/";
    let config = shipped(&database.url(), &slot(database), unused, unused, &base);
    let mut program = Program::start(&["check", "--channels"], &config, &[]);
    let code = program.wait(AMPLE).await;
    let posts = wecom.requests().iter().filter(|request| request.method != "GET").count();
    assert_eq!(posts, 0, "nothing is sent");
    (code, program.output().join("\n"))
}

#[tokio::test]
async fn a_check_tries_the_token_when_it_is_asked_to() {
    let database = Database::create().await;
    database.sql().await.batch_execute(SQL).await.unwrap();
    let token = r#"{"errcode":0,"errmsg":"ok","access_token":"token-hunter2","expires_in":7200}"#;
    let with = |answer: &'static str| -> Behaviour {
        Arc::new(move |request: &Request| {
            let asked = request
                .path
                .starts_with("/cgi-bin/agent/get?access_token=token-hunter2&agentid=1000002");
            ok(if asked { answer } else { token })
        })
    };
    let cases: [(Behaviour, Option<i32>, &[&str]); 7] = [
        (
            with(r#"{"errcode":0,"errmsg":"ok","agentid":1000002}"#),
            Some(0),
            &["gives a token for application 1000002"],
        ),
        (with("<html>no such page</html>"), Some(0), &["gives a token for application 1000002"]),
        (
            with(
                r#"{"errcode":60020,"errmsg":"not allow to access from your ip, from ip: 203.0.113.7, token-hunter2"}"#,
            ),
            Some(2),
            &["FAIL endpoint wecom-app", "errcode 60020: not allow", "203.0.113.7", "企业可信IP"],
        ),
        (
            with(r#"{"errcode":301002,"errmsg":"not allow to operate another agent"}"#),
            Some(2),
            &["correct `agent_id`"],
        ),
        (
            always(ok(r#"{"errcode":40013,"errmsg":"invalid corpid"}"#)),
            Some(2),
            &["errcode 40013: invalid corpid", "correct `corp_id`"],
        ),
        (
            always(ok(
                r#"{"errcode":40001,"errmsg":"invalid credential secret-of-the-application"}"#,
            )),
            Some(2),
            &["errcode 40001", "`corp_secret`"],
        ),
        (
            always(Answer::Close),
            Some(2),
            &["does not let application 1000002 in", "correct `base_url`"],
        ),
    ];
    for (answers, code, parts) in cases {
        let (ended, said) = tried(&database, answers).await;
        assert_eq!(ended, code, "{said}");
        for part in parts.iter().chain(&["endpoint wecom-robot: a wecom-robot can be tried"]) {
            assert!(said.contains(part), "{part:?} is not in {said}");
        }
        assert!(!said.contains("hunter2") && !said.contains(CORP_SECRET), "{said}");
    }
    // Without being asked, nobody is called.
    let wecom = Receiver::start(always(ok(token)));
    let base = wecom.url().replace("/hooks", "");
    let config = shipped(&database.url(), &slot(&database), &base, &base, &base);
    let mut program = Program::start(&["check"], &config, &[]);
    assert_eq!(program.wait(AMPLE).await, Some(0));
    assert_eq!(wecom.count(), 0);
}

#[tokio::test]
async fn what_is_shown_of_messages_needs_the_token_of_the_api() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(SQL).await.unwrap();
    let unused = "http://127.0.0.1:9/";
    let config = shipped(&database.url(), &slot(&database), unused, unused, unused)
        .replace("[http]\n", "[http]\ntoken = \"token-of-the-api\"\n");
    let mut service = Service::start(&config).await;
    sql.batch_execute(
        "INSERT INTO wecom_messages (message_id, to_user, content, channel) VALUES ('m1', 'zhang', 'x', 'robot'); \
         SELECT wecom_message_ended('m1', 'sent', 'msgid-1', NULL, '', NULL)",
    )
    .await
    .unwrap();
    wait_for_text(&sql, "SELECT status FROM wecom_message_status WHERE message_id = 'm1'", "sent")
        .await;
    for what in ["status", "history"] {
        for id in ["m1", "msgid-1"] {
            let path = format!("/api/v1/messages/{id}/{what}");
            assert_eq!(service.get(&path).await.status, 401, "{path}");
            assert_eq!(service.ask("GET", &path, Some("another")).await.status, 401, "{path}");
            let reply = service.ask("GET", &path, Some("token-of-the-api")).await;
            assert_eq!(reply.status, 200, "{path}: {reply:?}");
            assert_eq!(reply.json()["success"], true);
        }
        let path = format!("/api/v1/messages/nobody-knows/{what}");
        assert_eq!(service.get(&path).await.status, 401, "not even whether it is known");
        assert_eq!(service.ask("GET", &path, Some("token-of-the-api")).await.status, 404);
    }
    service.stop().await;
}
