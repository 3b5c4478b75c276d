//! Tokens by OAuth 2.0 client credentials, against an issuer that counts.

use super::*;
use walhook::testing::config::settings::Auth;
use walhook::testing::config::settings::OAuth2;

use crate::support::receiver::Request;

fn oauth(issuer: &Receiver, in_form: bool) -> Option<Auth> {
    Some(Auth::OAuth2(OAuth2 {
        token_url: Secret::new(issuer.url().parse().unwrap()),
        client_id: String::from("walhook@acme"),
        client_secret: Secret::new(String::from("hunter2/+")),
        scope: Some(String::from("hooks write")),
        audience: Some(String::from("https://crm.test/")),
        in_form,
    }))
}

/// An issuer whose tokens are `t1`, `t2`, ...
fn issuer(expires_in: u32) -> Receiver {
    Receiver::start(Arc::new(move |request: &Request| {
        let number = request.number;
        let answer = format!(
            r#"{{"access_token":"t{number}","token_type":"Bearer","expires_in":{expires_in}}}"#
        );
        Answer::status(200).body(answer)
    }))
}

/// A receiver that takes these tokens only.
fn taking(tokens: &'static [&'static str]) -> crate::support::receiver::Behaviour {
    Arc::new(move |request: &Request| {
        let given = request.header("authorization").strip_prefix("Bearer ").unwrap_or_default();
        Answer::status(if tokens.contains(&given) { 200 } else { 401 })
    })
}

fn client_for(receiver: &Receiver, issuer: &Receiver) -> EndpointClient {
    let auth = oauth(issuer, false);
    client(&Endpoint { auth, ..endpoint(&receiver.url()) })
}

#[tokio::test]
async fn one_token_is_fetched_for_all_and_kept() {
    for in_form in [false, true] {
        let (receiver, issuer) = (Receiver::start(taking(&["t1"])), issuer(3600));
        let auth = oauth(&issuer, in_form);
        let client = client(&Endpoint { auth, ..endpoint(&receiver.url()) });
        let lease = lease();
        let attempts = (0..5).map(|_| client.attempt(&lease, NOW));
        for exchange in futures_util::future::join_all(attempts).await {
            assert_eq!(exchange.verdict, AttemptVerdict::Delivered, "{exchange:?}");
            let told = format!("{exchange:?}");
            assert!(!told.contains("Bearer t1") && !told.contains("hunter2"), "{told}");
        }
        let [asked] = issuer.requests().try_into().unwrap();
        let asked: Request = asked;
        let common = "grant_type=client_credentials";
        let rest = "scope=hooks+write&audience=https%3A%2F%2Fcrm.test%2F";
        let (form, basic) = match in_form {
            true => {
                let pair = "client_id=walhook%40acme&client_secret=hunter2%2F%2B";
                (format!("{common}&{pair}&{rest}"), "")
            }
            // The base64 of `walhook%40acme:hunter2%2F%2B`.
            false => (format!("{common}&{rest}"), "Basic d2FsaG9vayU0MGFjbWU6aHVudGVyMiUyRiUyQg=="),
        };
        assert_eq!(std::str::from_utf8(&asked.body).unwrap(), form);
        assert_eq!(asked.header("authorization"), basic);
        assert_eq!(asked.header("content-type"), "application/x-www-form-urlencoded");
        assert_eq!(asked.header("user-agent"), "walhook-test");
    }
}

#[tokio::test]
async fn a_token_is_renewed_before_it_expires() {
    let (receiver, issuer) = (Receiver::start(taking(&["t1", "t2"])), issuer(1));
    let client = client_for(&receiver, &issuer);
    assert_eq!(client.attempt(&lease(), NOW).await.verdict, AttemptVerdict::Delivered);
    // A second's life less its margin of a tenth.
    tokio::time::sleep(Duration::from_millis(910)).await;
    assert_eq!(client.attempt(&lease(), NOW).await.verdict, AttemptVerdict::Delivered);
    let used: Vec<_> =
        receiver.requests().iter().map(|r| r.header("authorization").to_owned()).collect();
    assert_eq!(used, ["Bearer t1", "Bearer t2"]);
}

#[tokio::test]
async fn a_token_that_was_good_and_is_refused_is_renewed_once() {
    let (receiver, issuer) = (Receiver::start(taking(&["t1"])), issuer(3600));
    let client = client_for(&receiver, &issuer);
    assert_eq!(client.attempt(&lease(), NOW).await.verdict, AttemptVerdict::Delivered);
    receiver.behave(taking(&["t2"]));
    let refused = client.attempt(&lease(), NOW).await;
    assert_eq!((refused.verdict, refused.status), (RETRY, Some(401)));
    assert_eq!(client.attempt(&lease(), NOW).await.verdict, AttemptVerdict::Delivered);
    assert_eq!(issuer.count(), 2);
    receiver.behave(taking(&[]));
    assert_eq!(client.attempt(&lease(), NOW).await.verdict, RETRY, "t2 was good");
    let refused = client.attempt(&lease(), NOW).await;
    assert_eq!(
        refused.verdict,
        AttemptVerdict::Dead,
        "t3 never was: another one would be no better"
    );
}

#[tokio::test]
async fn an_issuer_in_trouble_is_waited_for_and_nothing_is_sent() {
    let receiver = Receiver::start(taking(&["t3"]));
    let answers = vec![
        Answer::status(401).body(r#"{"error":"invalid_client","error_description":"hunter2"}"#),
        Answer::Close,
    ];
    let troubled = Receiver::start(in_turn(answers));
    let client = client_for(&receiver, &troubled);
    for expected in ["status: token endpoint: 401 (invalid_client)", "token endpoint: "] {
        let exchange = client.attempt(&lease(), NOW).await;
        assert_eq!(exchange.verdict, RETRY);
        let told = exchange.failure.unwrap().to_string();
        assert!(told.contains(expected) && !told.contains("hunter2"), "{told}");
    }
    assert_eq!(receiver.count(), 0);
}
