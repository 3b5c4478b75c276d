//! Messages to chat systems, and to a WeCom whose tokens end.

use std::sync::Mutex;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::SeqCst;

use walhook::testing::config::settings::Channel;
use walhook::testing::config::settings::Overflow;
use walhook::testing::config::settings::PRESETS;
use walhook::testing::config::settings::WecomApp;
use walhook::testing::flow::verdict::AttemptReach;

use super::*;
use crate::support::receiver::Request;

const SECRET: &str = "corp-secret-hunter2";

/// A WeCom that numbers its tokens, takes the last one only, and answers a message that it takes as
/// `message` says.
struct Wecom {
    receiver: Receiver,
    tokens: Arc<AtomicU32>,
    message: Arc<Mutex<String>>,
}

impl Wecom {
    fn start() -> Self {
        let tokens = Arc::new(AtomicU32::new(0));
        let message =
            Arc::new(Mutex::new(String::from(r#"{"errcode":0,"errmsg":"ok","msgid":"msg-1"}"#)));
        let (issued, told) = (Arc::clone(&tokens), Arc::clone(&message));
        let behave = move |request: &Request| {
            let answer = |body: String| Answer::status(200).body(body);
            if request.path.starts_with("/cgi-bin/gettoken") {
                assert_eq!(request.method, "GET");
                assert_eq!(
                    request.path,
                    format!("/cgi-bin/gettoken?corpid=ww1&corpsecret={SECRET}")
                );
                let number = issued.fetch_add(1, SeqCst) + 1;
                return answer(format!(
                    r#"{{"errcode":0,"errmsg":"ok","access_token":"token-{number}","expires_in":7200}}"#
                ));
            }
            let number = issued.load(SeqCst);
            match request.path.strip_prefix("/cgi-bin/message/send?access_token=token-") {
                Some(token) if token == number.to_string() => answer(told.lock().unwrap().clone()),
                _ => answer(format!(
                    r#"{{"errcode":42001,"errmsg":"access_token expired: {}"}}"#,
                    request.path
                )),
            }
        };
        Self { receiver: Receiver::start(Arc::new(behave)), tokens, message }
    }

    fn says(&self, answer: &str) {
        answer.clone_into(&mut self.message.lock().unwrap());
    }

    /// Another process has asked for a token: the one before is none any more.
    fn expire(&self) {
        self.tokens.fetch_add(1, SeqCst);
    }

    fn endpoint(&self) -> Endpoint {
        let url =
            |path: &str| Secret::new(Url::parse(&self.receiver.url()).unwrap().join(path).unwrap());
        let app = WecomApp {
            token_url: url("/cgi-bin/gettoken"),
            corp_id: "ww1".into(),
            corp_secret: Secret::new(SECRET.into()),
            agent_id: 1_000_002,
        };
        let channel = Channel { app: Some(app), ..channel("wecom-app", None) };
        let url = url("/cgi-bin/message/send");
        Endpoint { url, channel: Some(channel), ..endpoint(&self.receiver.url()) }
    }
}

fn channel(name: &str, secret: Option<&str>) -> Channel {
    let preset = PRESETS.iter().find(|preset| preset.name == name).unwrap();
    let secret = secret.map(|secret| Secret::new(secret.to_owned()));
    Channel { preset, app: None, secret, overflow: Overflow::Cut }
}

fn message(body: String) -> Lease {
    lease_of(vec![event(0, vec![BodyPart::Bytes(Bytes::from(body))])])
}

fn text(content: &str) -> Lease {
    message(serde_json::json!({ "msgtype": "text", "text": { "content": content } }).to_string())
}

#[tokio::test]
async fn an_application_sends_with_one_token_that_is_renewed_at_once_when_it_has_ended() {
    let wecom = Wecom::start();
    let network = DeliveryNetwork::new(Arc::new(Names::default()), RootCertStore::empty());
    let clients = [0; 2].map(|_| EndpointClient::new(&wecom.endpoint(), &network).unwrap());
    let texts = ["one", "two", "three"].map(text);
    let first = tokio::join!(
        clients[0].attempt(&texts[0], NOW),
        clients[1].attempt(&texts[1], NOW),
        clients[0].attempt(&texts[2], NOW),
    );
    for exchange in [&first.0, &first.1, &first.2] {
        assert_eq!(exchange.verdict, AttemptVerdict::Delivered, "{exchange:?}");
    }
    assert_eq!(wecom.tokens.load(SeqCst), 1, "one for the corporation and its secret");
    let sent = wecom.receiver.requests().into_iter().find(|r| r.method == "POST").unwrap().json();
    assert_eq!((&sent["agentid"], &sent["msgtype"]), (&1_000_002.into(), &"text".into()));
    wecom.expire();
    let again = clients[0].attempt(&text("four"), NOW).await;
    assert_eq!(again.verdict, AttemptVerdict::Delivered, "{again:?}");
    assert_eq!(wecom.tokens.load(SeqCst), 3, "one that somebody else got, and ours");
    assert_eq!(clients[1].attempt(&text("five"), NOW).await.verdict, AttemptVerdict::Delivered);
    assert_eq!(wecom.tokens.load(SeqCst), 3, "both know the new one");
}

#[tokio::test]
async fn what_an_application_is_told_is_kept_without_token_and_secret() {
    let wecom = Wecom::start();
    let network = DeliveryNetwork::new(Arc::new(Names::default()), RootCertStore::empty());
    let client = EndpointClient::new(&wecom.endpoint(), &network).unwrap();
    let wait = AttemptVerdict::Retry { at_least: Some(Duration::from_secs(60)) };
    let cases = [
        (45009, wait, AttemptReach::Throttled),
        (-1, RETRY, AttemptReach::Endpoint),
        (45033, RETRY, AttemptReach::Endpoint),
        (81013, AttemptVerdict::Dead, AttemptReach::Endpoint),
        (60020, AttemptVerdict::Dead, AttemptReach::Endpoint),
        (40014, RETRY, AttemptReach::Endpoint),
    ];
    for (code, verdict, reach) in cases {
        let token = wecom.tokens.load(SeqCst).max(1);
        wecom.says(&format!(
            r#"{{"errcode":{code},"errmsg":"no: token-{token} token-{} {SECRET}"}}"#,
            token + 1
        ));
        let exchange = client.attempt(&text("hi"), NOW).await;
        assert_eq!((&exchange.verdict, exchange.reach), (&verdict, reach), "case: {code}");
        let shown = format!("{exchange:?}");
        assert!(shown.contains(&format!("errcode {code}: no: ")), "{shown}");
        let used = format!("token-{}", wecom.tokens.load(SeqCst));
        for secret in [used.as_str(), SECRET] {
            assert!(!shown.contains(secret), "case: {code}: {shown}");
        }
    }
    let sends = wecom.receiver.requests();
    let sends = sends.iter().filter(|request| request.method == "POST").count();
    assert_eq!(sends, 7, "sent again once, where the token was refused");
}

#[tokio::test]
async fn without_a_token_nothing_is_sent() {
    let answers = [
        (Answer::status(200).body(r#"{"errcode":-1,"errmsg":"busy"}"#), AttemptReach::Unprocessed),
        (Answer::status(503), AttemptReach::Unprocessed),
        (
            Answer::status(200).body(format!(r#"{{"errcode":40001,"errmsg":"bad {SECRET}"}}"#)),
            AttemptReach::Endpoint,
        ),
    ];
    for (answer, reach) in answers {
        let wecom = Wecom::start();
        wecom.receiver.behave(always(answer));
        let exchange = client(&wecom.endpoint()).attempt(&text("hi"), NOW).await;
        assert_eq!((&exchange.verdict, exchange.reach), (&RETRY, reach));
        let shown = format!("{exchange:?}");
        assert!(shown.contains("access token: ") && !shown.contains(SECRET), "{shown}");
        assert!(wecom.receiver.requests().iter().all(|request| request.method == "GET"));
    }
}

#[tokio::test]
async fn a_long_text_is_cut_or_split() {
    let ok = r#"{"errcode":0,"errmsg":"ok"}"#;
    let busy = r#"{"errcode":-1,"errmsg":"busy"}"#;
    let robot = Receiver::start(in_turn(
        [ok, ok, busy, ok].map(|body| Answer::status(200).body(body)).into(),
    ));
    let long = "你".repeat(1000);
    let of = |overflow| {
        let channel = Channel { overflow, ..channel("wecom-robot", None) };
        Endpoint { channel: Some(channel), ..endpoint(&robot.url()) }
    };
    let cut = client(&of(Overflow::Cut));
    assert_eq!(cut.attempt(&text(&long), NOW).await.verdict, AttemptVerdict::Delivered);
    let split = client(&of(Overflow::Split));
    assert_eq!(split.attempt(&text(&long), NOW).await.verdict, RETRY, "its second half");
    assert_eq!(split.attempt(&text(&long), NOW).await.verdict, AttemptVerdict::Delivered);
    let contents: Vec<String> = robot
        .requests()
        .iter()
        .map(|request| request.json()["text"]["content"].as_str().unwrap().to_owned())
        .collect();
    let (head, tail) = long.split_at(2046);
    assert_eq!(contents, [&format!("{}…", "你".repeat(681)), head, tail, tail]);
    // The next one begins with its first piece, also where another client sends it, and has a limit of its own.
    let busy =
        |times| in_turn([ok, busy, ok].map(|body| Answer::status(200).body(body))[..times].into());
    robot.behave(busy(3));
    let long = "🦀".repeat(1500);
    let markdown = serde_json::json!({ "msgtype": "markdown", "markdown": { "content": long } });
    let markdown = message(markdown.to_string());
    let network = DeliveryNetwork::new(Arc::new(Names::default()), RootCertStore::empty());
    let clients = [0; 2].map(|_| EndpointClient::new(&of(Overflow::Split), &network).unwrap());
    let before = robot.count();
    assert_eq!(clients[0].attempt(&markdown, NOW).await.verdict, RETRY);
    let exchange = clients[1].attempt(&markdown, NOW).await;
    assert_eq!((&exchange.verdict, exchange.requests), (&AttemptVerdict::Delivered, 1));
    let contents: Vec<String> = robot.requests()[before..]
        .iter()
        .map(|request| request.json()["markdown"]["content"].as_str().unwrap().to_owned())
        .collect();
    let (head, tail) = long.split_at(4096);
    assert_eq!(contents, [head, tail, tail]);
}

#[tokio::test]
async fn a_body_that_is_no_message_is_not_sent() {
    let robot = Receiver::start(always(Answer::status(200)));
    let feishu =
        Endpoint { channel: Some(channel("feishu-robot", Some("s"))), ..endpoint(&robot.url()) };
    let feishu = client(&feishu);
    let large = "x".repeat(20 * 1024);
    for (lease, expected) in [
        (message("[1]".into()), "no JSON object"),
        (message("hello".into()), "no JSON object"),
        (text(&large), "feishu-robot takes 20480"),
    ] {
        let exchange = feishu.attempt(&lease, NOW).await;
        assert_eq!(exchange.verdict, AttemptVerdict::Dead);
        let failure = exchange.failure.unwrap();
        assert!(failure.detail.contains(expected), "{failure}");
    }
    assert_eq!(robot.count(), 0);
}
