//! What a request looks like on the wire and in the books.

use super::*;
use http::HeaderName;
use http::HeaderValue;
use proptest::prelude::*;
use serde_json::Value;
use walhook::testing::config::settings::Auth;
use walhook::testing::config::settings::Signing;
use walhook::testing::config::settings::StandardKey;

use crate::support::receiver::flaky;

/// `whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=`
fn standard_signing() -> Option<Signing> {
    let key = Secret::new((0..=0x1f).collect());
    Some(Signing::Standard { keys: vec![StandardKey::Symmetric(key)] })
}

/// What a receiver computes, straight from the specification.
fn expected_signature(id: &str, timestamp: &str, body: &[u8]) -> String {
    use base64::Engine as _;
    let key: Vec<u8> = (0..=0x1f).collect();
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &key);
    let content = [format!("{id}.{timestamp}.").as_bytes(), body].concat();
    let tag = ring::hmac::sign(&key, &content);
    format!("v1,{}", base64::prelude::BASE64_STANDARD.encode(tag))
}

#[tokio::test]
async fn a_request_is_a_signed_post_with_its_id() {
    let receiver = Receiver::start(always(Answer::status(200).body("ok")));
    let mut endpoint = endpoint(&receiver.url());
    endpoint.signing = standard_signing();
    endpoint.auth = Some(Auth::Bearer { token: Secret::new("hunter2".into()) });
    endpoint.headers.insert("x-tenant", HeaderValue::from_static("blue"));
    let lease = lease_of(vec![event(
        3,
        vec![
            BodyPart::Bytes(Bytes::from_static(br#"{"timestamp":"#)),
            BodyPart::AttemptSeconds,
            BodyPart::Bytes(Bytes::from_static(b"}")),
        ],
    )]);
    let exchange = client(&endpoint).attempt(&lease, NOW).await;
    assert_eq!(exchange.verdict, AttemptVerdict::Delivered);
    assert_eq!(exchange.failure, None);
    assert_eq!(exchange.response_body, "ok");

    let requests = receiver.requests();
    let [request] = requests.as_slice() else { panic!("one request: {requests:?}") };
    assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/hooks"));
    assert_eq!(request.json(), serde_json::json!({ "timestamp": 1_700_000_000 }));
    let id = lease.events[0].id.to_string();
    let signature = expected_signature(&id, "1700000000", &request.body);
    let expected = [
        ("content-type", "application/json"),
        ("user-agent", "walhook-test"),
        ("webhook-id", &id),
        ("webhook-timestamp", "1700000000"),
        ("webhook-signature", &signature),
        ("authorization", "Bearer hunter2"),
        ("x-tenant", "blue"),
        ("content-length", "24"),
    ];
    for (name, value) in expected {
        assert_eq!(request.header(name), value, "case: {name}");
        assert_eq!(request.headers.get_all(name).iter().count(), 1, "case: {name}");
    }
    assert!(!request.headers.contains_key("accept-encoding"), "nothing here decompresses");
}

#[tokio::test]
async fn the_books_show_what_was_sent_without_its_secrets() {
    let answer = Answer::status(500).header("set-cookie", "s=hunter2").header("x-trace", "9");
    let receiver = Receiver::start(always(answer));
    let url = receiver.url().replace("http://", "http://user:hunter2@") + "?token=hunter2";
    let mut endpoint = endpoint(&url);
    endpoint.signing = standard_signing();
    endpoint.headers.insert("x-api-key", HeaderValue::from_static("hunter2"));
    let client = client(&endpoint);
    let exchange = client.attempt(&lease(), NOW).await;

    let request = &receiver.requests()[0];
    assert_eq!(request.path, "/hooks?token=hunter2");
    assert_eq!(request.header("authorization"), "Basic dXNlcjpodW50ZXIy");
    let shown = exchange.request_headers.by_name();
    let sent = |name: &str| shown.get(name).and_then(Value::as_str);
    for name in ["authorization", "x-api-key", "webhook-signature"] {
        assert_eq!(sent(name), Some("[secret]"), "case: {name}");
    }
    for name in ["webhook-id", "webhook-timestamp", "content-type", "user-agent", "accept"] {
        assert_eq!(sent(name), Some(request.header(name)), "case: {name}");
    }
    assert!(exchange.response_headers.by_name()["x-trace"] == "9");
    let told = format!("{exchange:?} {client:?}");
    assert!(!told.contains("hunter2") && !told.contains("dXNlcjpodW50ZXIy"), "{told}");
}

#[tokio::test]
async fn a_batch_is_one_array_with_one_id_and_the_ids_of_its_elements() {
    let receiver = Receiver::start(always(Answer::status(200)));
    let mut endpoint = endpoint(&receiver.url());
    endpoint.batch.size = NonZeroUsize::new(10).unwrap();
    endpoint.signing = standard_signing();
    let client = client(&endpoint);
    let events: Vec<_> = (0..3)
        .map(|n| event(n, vec![BodyPart::Bytes(Bytes::from(format!(r#"{{"id":{n}}}"#)))]))
        .collect();
    for _ in 0..2 {
        let exchange = client.attempt(&lease_of(events.clone()), NOW).await;
        let shown = exchange.request_headers.by_name();
        assert_eq!(
            shown["walhook-event-ids"], "[3 ids]",
            "they are in no book for each of them once more"
        );
    }
    client.attempt(&lease_of(events[..1].to_vec()), NOW).await;

    let requests = receiver.requests();
    assert_eq!(requests[0].json(), serde_json::json!([{"id":0},{"id":1},{"id":2}]));
    assert_eq!(requests[2].json(), serde_json::json!([{"id":0}]));
    let ids: Vec<String> = events.iter().map(|event| event.id.to_string()).collect();
    assert_eq!(requests[0].header("walhook-event-ids"), ids.join(","));
    let id = requests[0].header("webhook-id");
    assert!(id.starts_with("batch_"));
    assert_eq!(requests[1].header("webhook-id"), id, "a repeat is recognisable");
    assert_ne!(requests[2].header("webhook-id"), id);
    let signature = expected_signature(id, "1700000000", &requests[0].body);
    assert_eq!(requests[0].header("webhook-signature"), signature);
}

#[tokio::test]
async fn a_large_row_arrives_whole_with_its_length_and_signature() {
    let receiver = Receiver::start(always(Answer::status(200)));
    let mut endpoint = endpoint(&receiver.url());
    endpoint.signing = standard_signing();
    let note = "\"張🦀\\\n".repeat(500_000);
    let parts = vec![
        BodyPart::Bytes(Bytes::from_static(br#"{"note":""#)),
        BodyPart::Escaped(Bytes::from(note.clone())),
        BodyPart::Bytes(Bytes::from_static(br#"","at":"#)),
        BodyPart::AttemptSeconds,
        BodyPart::Bytes(Bytes::from_static(b"}")),
    ];
    let lease = lease_of(vec![event(0, parts)]);
    let exchange = client(&endpoint).attempt(&lease, NOW).await;
    assert_eq!(exchange.verdict, AttemptVerdict::Delivered, "{exchange:?}");

    let request = &receiver.requests()[0];
    assert_eq!(request.json()["note"], note);
    assert_eq!(request.json()["at"], 1_700_000_000);
    assert_eq!(request.header("content-length"), request.body.len().to_string());
    assert!(!request.headers.contains_key("transfer-encoding"));
    let signature = expected_signature(request.header("webhook-id"), "1700000000", &request.body);
    assert_eq!(request.header("webhook-signature"), signature);
}

#[tokio::test]
async fn an_endpoint_that_cannot_work_is_refused_when_it_is_built() {
    let good = endpoint("http://127.0.0.1:1/");
    let with_header = |name: &'static str| {
        let mut endpoint = good.clone();
        endpoint.headers.insert(HeaderName::from_static(name), HeaderValue::from_static("1"));
        endpoint
    };
    let token = || Some(Auth::Bearer { token: Secret::new("a\nb".into()) });
    let cases = [
        (endpoint("ftp://127.0.0.1/"), "neither http:// nor https://"),
        (with_header("host"), "header host is walhook's own"),
        (with_header("transfer-encoding"), "header transfer-encoding is walhook's own"),
        (with_header("webhook-signature"), "header webhook-signature is walhook's own"),
        (Endpoint { user_agent: "a\r\nb".into(), ..good.clone() }, "the user agent cannot"),
        (Endpoint { auth: token(), ..good.clone() }, "the bearer token cannot"),
        (endpoint("https://127.0.0.1/"), "trusts no certificate authority"),
    ];
    for (endpoint, expected) in cases {
        let network = DeliveryNetwork::new(Arc::new(Names::default()), RootCertStore::empty());
        let error = EndpointClient::new(&endpoint, &network).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn a_flaky_receiver_repeats_itself_for_the_same_seed(seed: u64) {
        let outcomes = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let receiver = Receiver::start(flaky(seed, 0.5, Answer::status(503)));
            runtime.unwrap().block_on(async {
                let client = client(&endpoint(&receiver.url()));
                let mut outcomes = Vec::new();
                for _ in 0..8 {
                    outcomes.push(client.attempt(&lease(), NOW).await.status);
                }
                outcomes
            })
        };
        prop_assert_eq!(outcomes(), outcomes());
    }
}
