//! Callbacks in, with `config/wecom-callbacks.toml` and its SQL as they stand.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]

mod hostile;
mod outages;
mod repeats;

use std::net::SocketAddr;

use crate::support::postgres::Database;
use crate::support::postgres::Sql;
use crate::support::postgres::wait_for_text;
use crate::support::program::Program;
use crate::support::receiver::Answer;
use crate::support::receiver::Receiver;
use crate::support::receiver::always;
use crate::support::service::AMPLE;
use crate::support::service::Service;
use crate::support::service::slot;
use crate::support::wecom::AES_KEY;
use crate::support::wecom::APPLICATION;
use crate::support::wecom::CORP;
use crate::support::wecom::ROBOT;
use crate::support::wecom::TOKEN;
use crate::support::wecom::now;
use crate::support::wecom::post;
use crate::support::wecom::send;

const CONFIG: &str = include_str!("../../config/wecom-callbacks.toml");
pub(crate) const SQL: &str = include_str!("../../sql/wecom-callbacks.sql");

pub(crate) const CORP_SECRET: &str = "secret-of-the-application";

/// The shipped file, with the slot of the test's own database and free ports.
fn toml(url: &str, slot: &str, business: &str, robot: &str) -> String {
    shipped(url, slot, business, robot, "http://127.0.0.1:9/")
}

/// The same, with a WeCom at `wecom`.
pub(crate) fn shipped(url: &str, slot: &str, business: &str, robot: &str, wecom: &str) -> String {
    let values = [
        ("${DATABASE_URL:-postgres://walhook@localhost/app}", url),
        ("${WALHOOK_INBOUND_LISTEN:-0.0.0.0:8080}", "127.0.0.1:0"),
        ("${WECHAT_TOKEN}", TOKEN),
        ("${WECHAT_AES_KEY}", AES_KEY),
        ("${WECHAT_CORP_ID}", CORP),
        ("${WECHAT_CORP_SECRET}", CORP_SECRET),
        ("${WECHAT_AGENT_ID}", "1000002"),
        ("${WECHAT_BASE_URL:-https://qyapi.weixin.qq.com}", wecom),
        ("${WECHAT_BOT_TOKEN}", TOKEN),
        ("${WECHAT_BOT_AES_KEY}", AES_KEY),
        ("${WECHAT_BOT_WEBHOOK_URL}", robot),
        ("${BUSINESS_URL:-http://127.0.0.1:8081/callbacks}", business),
        ("${BUSINESS_SECRET}", "a-secret-of-the-business"),
        ("slot = \"wecom_callbacks\"", &format!("slot = \"{slot}\"")),
    ];
    let mut text = CONFIG.to_owned();
    for (from, to) in values {
        assert!(text.contains(from), "{from} is not in the file");
        text = text.replace(from, to);
    }
    text + "\n[http]\nlisten = \"127.0.0.1:0\"\n[log]\nfilter = \"walhook=debug\"\n"
}

fn of_database(database: &Database, business: &str, robot: &str) -> String {
    toml(&database.url(), &slot(database), business, robot)
}

/// Where callbacks are answered.
pub(crate) async fn inbound(program: &mut Program) -> SocketAddr {
    let line = program.wait_for_line("callbacks are answered", AMPLE).await;
    let (_, rest) = line.split_once("inbound=").unwrap();
    rest.split(' ').next().unwrap().parse().unwrap()
}

fn text(id: u32) -> String {
    format!(
        "<xml><ToUserName><![CDATA[{CORP}]]></ToUserName><FromUserName><![CDATA[zhang]]></FromUserName>\
         <CreateTime>{}</CreateTime><MsgType><![CDATA[text]]></MsgType><Content><![CDATA[你好 {id}]]>\
         </Content><MsgId>{id}</MsgId><AgentID>1</AgentID></xml>",
        now()
    )
}

async fn count(sql: &Sql) -> i64 {
    let sql_text = "SELECT count(*) FROM public.wecom_callbacks";
    sql.query_one(sql_text, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn callbacks_become_rows_and_rows_become_pushes() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(SQL).await.unwrap();
    let business = Receiver::start(always(Answer::status(200)));
    let robot = Receiver::start(always(Answer::status(200).body(r#"{"errcode":0,"errmsg":"ok"}"#)));
    let config = of_database(&database, &business.url(), &robot.url());
    let mut check = Program::start(&["check"], &config, &[]);
    assert_eq!(check.wait(AMPLE).await, Some(0), "{}", check.output().join("\n"));
    let mut service = Service::start(&config).await;
    let at = inbound(&mut service.program).await;

    for suffix in ["", "/verify"] {
        let target = APPLICATION.verification("1616140317555161061", suffix);
        let answer = send(at, "GET", &target, "", "").await.unwrap();
        assert_eq!(answer, (200, String::from("1616140317555161061")), "case: {suffix}");
    }
    let whole =
        send(at, "POST", &APPLICATION.callback(&text(1), "a").target, "", "").await.unwrap();
    assert_eq!(whole, (401, String::new()), "without a body");
    let call = APPLICATION.callback(&text(1), "n1");
    let answer = send(at, "POST", &call.target, &call.body, "").await.unwrap();
    assert_eq!(answer, (200, String::new()));
    let robots =
        r#"{"msgtype":"text","msgid":"r1","from":{"userid":"li"},"text":{"content":"hi"}}"#;
    assert_eq!(post(at, &ROBOT.callback(robots, "n2")).await.unwrap(), 200);

    let pushed = business.wait_for(2, AMPLE).await;
    let data = pushed.iter().map(|request| request.json()["data"].clone());
    let data: Vec<_> = data.collect();
    let first = data.iter().find(|row| row["source"] == "wechat-api").unwrap();
    assert_eq!((&first["kind"], &first["content"]), (&"message".into(), &"你好 1".into()));
    assert_eq!(first["fields"]["FromUserName"], "zhang");
    let second = data.iter().find(|row| row["source"] == "wechat-bot").unwrap();
    assert_eq!((&second["user_id"], &second["content"]), (&"li".into(), &"hi".into()));

    sql.batch_execute(
        "INSERT INTO wecom_messages (message_id, channel, to_user, content) \
         VALUES ('m1', 'robot', 'zhang', 'tea?')",
    )
    .await
    .unwrap();
    let sent = robot.wait_for(1, AMPLE).await;
    assert_eq!(sent[0].json()["text"]["content"], "tea?");

    // What a gateway reports of it, in any order: states only go forward.
    for (step, state) in [("read", "read"), ("late", "sent")] {
        let row = format!(
            "INSERT INTO wecom_callbacks (source, kind, event, message_id, content, fields, dedupe_key) \
             VALUES ('gw', 'status', 's', 'm1', '{state}', '{{}}', '{step}')"
        );
        sql.batch_execute(&row).await.unwrap();
    }
    let status = "SELECT status FROM wecom_message_status WHERE message_id = 'm1'";
    let status: String = sql.query_one(status, &[]).await.unwrap().get(0);
    assert_eq!(status, "read");

    let handlers = send(at, "GET", "/api/v1/webhooks/handlers", "", "").await.unwrap().1;
    let handlers: serde_json::Value = serde_json::from_str(&handlers).unwrap();
    assert_eq!(handlers["data"][0]["name"], "wechat-api");
    assert_eq!(handlers["data"][0]["kept"], 1);
    assert_eq!(handlers["data"][0]["refused"]["parameters"], 1);
    assert_eq!(send(at, "GET", "/health", "", "").await.unwrap().0, 200);
    let (code, status) = send(at, "GET", "/api/v1/status", "", "").await.unwrap();
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!((code, &status["success"]), (200, &true.into()), "{status}");
    assert_eq!(status["data"]["streaming"], true, "{status}");
    // Their way out is in the push log like that of any event.
    let logged = "SELECT count(*) >= 2 FROM walhook.push_log
                   WHERE outcome = 'delivered' AND table_name = 'wecom_callbacks' AND http_status = 200";
    wait_for_text(&sql, logged, "t").await;
    assert_eq!(send(at, "GET", "/nothing", "", "").await.unwrap().0, 404);
    let log = service.program.output().join("\n");
    for secret in [TOKEN, AES_KEY] {
        let shown = format!("{log}{handlers}{status}");
        assert!(!shown.contains(secret), "{shown}");
    }
    service.stop().await;
}

#[tokio::test]
async fn hostile_requests_are_refused_and_tell_nothing() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(SQL).await.unwrap();
    let business = Receiver::start(always(Answer::status(200)));
    let config = of_database(&database, &business.url(), &business.url());
    let config = config
        .replace("# allow = [\"203.0.113.0/24\"]", "allow = [\"127.0.0.1\", \"203.0.113.0/24\"]");
    let config = config.replace(
        "# trusted_proxies = [\"10.0.0.0/8\"]",
        "trusted_proxies = [\"127.0.0.1\", \"10.0.0.0/8\"]",
    );
    let mut service = Service::start(&config).await;
    let at = inbound(&mut service.program).await;
    let good = APPLICATION.callback(&text(1), "h0");
    let mut cases = vec![
        ("an old one", APPLICATION.callback_at(&text(1), "h1", now() - 301)),
        ("of tomorrow", APPLICATION.callback_at(&text(1), "h2", now() + 86_400)),
        ("entities", APPLICATION.callback("<!DOCTYPE x [<!ENTITY a \"b\">]><xml>&a;</xml>", "h3")),
        ("no XML", APPLICATION.callback("hello", "h4")),
    ];
    for at in (0..good.body.len()).step_by(7) {
        let mut bytes = good.body.clone().into_bytes();
        bytes[at] ^= 1;
        if let Ok(body) = String::from_utf8(bytes) {
            cases.push(("a flipped bit", crate::support::wecom::Call { body, ..good.clone() }));
        }
    }
    for (name, call) in cases {
        let (status, body) = send(at, "POST", &call.target, &call.body, "").await.unwrap();
        // What is not signed may say anything: the signature is over the ciphertext alone.
        if status != 200 {
            assert_eq!((status, body.as_str()), (401, ""), "case: {name}");
        } else {
            assert_eq!(name, "a flipped bit");
        }
    }
    let large = "x".repeat(300 << 10);
    let (status, _) =
        send(at, "POST", &good.target, &large, "").await.unwrap_or((413, String::new()));
    assert_eq!(status, 413);
    let call = APPLICATION.callback(&text(2), "h5");
    for (forwarded, expected) in [
        ("x-forwarded-for: 198.51.100.1\r\n", 403),
        ("x-forwarded-for: 127.0.0.1\r\nx-forwarded-for: 198.51.100.1\r\n", 403),
        ("x-forwarded-for: ::ffff:198.51.100.1\r\n", 403),
        ("x-forwarded-for: 2001:db8:1::1\r\n", 403),
        ("x-forwarded-for: \u{ff}\r\n", 403),
        ("x-forwarded-for: 203.0.113.9, 198.51.100.1\r\n", 403),
        ("x-forwarded-for: nonsense\r\n", 403),
        ("x-forwarded-for: 198.51.100.1, ::ffff:203.0.113.9, 10.1.2.3\r\n", 200),
    ] {
        let (status, body) = send(at, "POST", &call.target, &call.body, forwarded).await.unwrap();
        assert_eq!((status, body.as_str()), (expected, ""), "case: {forwarded}");
    }
    service.stop().await;
}

#[tokio::test]
async fn the_listener_speaks_tls() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(SQL).await.unwrap();
    let made = rcgen::generate_simple_self_signed(vec![String::from("localhost")]).unwrap();
    let tls = format!(
        "allow = [\"127.0.0.1\"]\ntls = {{ cert = '''{}''', key = '''{}''' }}",
        made.cert.pem(),
        made.signing_key.serialize_pem()
    );
    let config = of_database(&database, "http://127.0.0.1:9/", "http://127.0.0.1:9/");
    let config = config.replace("# allow = [\"203.0.113.0/24\"]", &tls);
    let mut service = Service::start(&config).await;
    let at = inbound(&mut service.program).await;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(client));
    let call = APPLICATION.callback(&text(1), "tls");
    let stream = tokio::net::TcpStream::connect(at).await.unwrap();
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let mut stream = connector.connect(name, stream).await.unwrap();
    let head = format!(
        "POST {} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{}",
        call.target,
        call.body.len(),
        call.body
    );
    tokio::io::AsyncWriteExt::write_all(&mut stream, head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // Whether TLS ends with a word is the peer's manners, and not what is tried here.
    tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut answer).await.ok();
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(count(&sql).await, 1);
    // Who speaks no TLS is not answered.
    assert!(post(at, &APPLICATION.callback(&text(2), "plain")).await.is_err());
    service.stop().await;
}

#[tokio::test]
async fn a_table_that_cannot_keep_callbacks_is_named_before_the_start() {
    let database = Database::create().await;
    let sql = database.sql().await;
    sql.batch_execute(SQL).await.unwrap();
    sql.batch_execute("DROP TABLE inbound_nonces").await.unwrap();
    let config = of_database(&database, "http://127.0.0.1:9/", "http://127.0.0.1:9/");
    for command in ["check", "run"] {
        let mut program = Program::start(&[command], &config, &[]);
        assert_eq!(program.wait(AMPLE).await, Some(3));
        let said = program.output().join("\n");
        for part in ["source wechat-api", "table public.inbound_nonces does not exist", "sql/wecom"]
        {
            assert!(said.contains(part), "{command} does not say {part:?}: {said}");
        }
    }
}

#[tokio::test]
async fn missing_variables_are_named() {
    let mut program = Program::start(&["check"], CONFIG, &[]);
    assert_eq!(program.wait(AMPLE).await, Some(2));
    let said = program.output().join("\n");
    for name in [
        "WECHAT_TOKEN",
        "WECHAT_AES_KEY",
        "WECHAT_CORP_ID",
        "WECHAT_CORP_SECRET",
        "WECHAT_AGENT_ID",
        "WECHAT_BOT_TOKEN",
        "WECHAT_BOT_AES_KEY",
        "WECHAT_BOT_WEBHOOK_URL",
        "BUSINESS_SECRET",
    ] {
        assert!(said.contains(name), "{name}: {said}");
    }
}
