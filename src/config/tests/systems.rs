//! The files of the five systems: they parse and mean what docs/systems.md says.

use serde_json::Value as Json;
use serde_json::json;

use super::*;
use crate::config::settings::AnswerRule;
use crate::config::settings::GoneMeaning;
use crate::config::settings::HmacScheme;
use crate::config::settings::RetryOn;
use crate::config::settings::SignatureEncoding;
use crate::config::settings::SignedPart;

/// Every variable that the files of `config/` ask for.
fn every(name: &str) -> Option<String> {
    match name {
        "DATABASE_URL" => env(name),
        "WALHOOK_KEY" => Some("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".to_owned()),
        _ if name.starts_with("PG") => None,
        _ if name.ends_with("SECRET") || name.ends_with("PASSWORD") => Some("s3cret".to_owned()),
        _ if name.ends_with("TOKEN") || name.ends_with("KEY") => Some("t0ken".to_owned()),
        _ => None,
    }
}

/// Reads a file of `config/`.
fn contract(name: &str) -> Settings {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name);
    load(&path, &every).unwrap_or_else(|problems| panic!("{problems}"))
}

fn scheme(endpoint: &Endpoint) -> (&[u8], &HmacScheme) {
    match &endpoint.signing {
        Some(Signing::Hmac { key, scheme }) => (key.reveal(), scheme),
        other => panic!("{other:?}"),
    }
}

#[test]
fn customer_events_has_its_catalogue_and_its_subscriptions() {
    let settings = contract("customer-events.toml");
    let types: Vec<&str> = settings.events.iter().map(|rule| rule.event_type.as_ref()).collect();
    let expected = [
        "customer.created",
        "customer.updated",
        "customer.deleted",
        "customer.status_changed",
        "document.uploaded",
        "document.deleted",
        "document.approved",
        "document.rejected",
        "product.created",
        "product.updated",
        "product.deleted",
    ];
    assert_eq!(types, expected);
    let [one, two] = settings.endpoints.as_slice() else { panic!("two subscriptions") };
    assert!(one.name.starts_with("example.com-") && two.name.starts_with("review.example.com-"));
    assert_eq!(one.url.reveal().as_str(), "https://example.com/webhook");
    assert_eq!(
        one.events,
        [EventGlob::new("customer.created"), EventGlob::new("customer.updated")]
    );
    assert_eq!(one.headers["authorization"], "Bearer token");
    let (key, scheme) = scheme(one);
    assert_eq!(key, b"your-secret-key");
    assert_eq!((scheme.header.as_str(), &*scheme.prefix), ("x-webhook-signature", "sha256="));
    assert_eq!(scheme.content, [SignedPart::Body]);
    assert!(two.signing.is_none(), "no secret, no signature");
    assert_eq!(two.events, [EventGlob::new("document.*")]);
}

#[test]
fn idp_push_signs_retries_and_authenticates_as_its_webhooks_do() {
    let from = contract("idp-push.toml").endpoints_from.unwrap();
    let row = |auth: Json| json!({ "id": 7, "url": "https://h/", "enabled": true, "auth": auth, "rules": [7, 8] });
    let endpoint = |auth: Json| from.endpoint(row(auth).as_object().unwrap()).unwrap();
    let basic = endpoint(json!({ "basic": { "username": "walhook", "password": "s3cret" } }));
    let bearer = endpoint(json!({ "bearer": "t0ken" }));
    let key = endpoint(json!({ "api_key": { "name": "X-Api-Key", "value": "k3y" } }));
    for endpoint in [&basic, &bearer, &key] {
        assert_eq!(endpoint.name.as_ref(), "7");
        assert_eq!(endpoint.timeout, Duration::from_secs(30));
        let delays = [10, 30, 90].map(Duration::from_secs).to_vec();
        assert_eq!(endpoint.retry.delays, RetryDelays::List(delays));
        let retry = RetryOn::Statuses(vec![429..=429, 500..=599]);
        let gone = GoneMeaning::Dead;
        assert_eq!(endpoint.answers, AnswerRule { retry, gone, ..AnswerRule::default() });
        // The list is to be kept for many tasks at once, whatever the webhook does.
        assert_eq!((endpoint.parking.breaker, endpoint.concurrency.get()), (None, 64));
        let (_, scheme) = scheme(endpoint);
        assert_eq!((scheme.header.as_str(), &*scheme.prefix), ("x-idp-signature", "sha256="));
        assert_eq!(scheme.timestamp_header.as_ref().unwrap().as_str(), "x-idp-timestamp");
        let only = endpoint.only.as_ref().unwrap();
        assert_eq!((only.column.as_str(), only.values.join(",")), ("rule_id", "7,8".to_owned()));
    }
    assert!(matches!(basic.auth, Some(Auth::Basic { .. })));
    assert!(matches!(bearer.auth, Some(Auth::Bearer { .. })));
    assert!(matches!(key.auth, Some(Auth::ApiKey { .. })));
}

#[test]
fn wechat_messages_takes_200_alone_and_retries_all_else() {
    let settings = contract("wechat-messages.toml");
    assert!(settings.endpoints.is_empty(), "they are made over HTTP");
    assert!(settings.run_time.webhook_api.is_some());
    // The endpoint that it shows is one.
    let text = include_str!("../../../config/wechat-messages.toml");
    let (before, shown) = text.split_once("#   [[endpoint]]").expect("an example");
    let shown = shown.lines().map(|line| line.trim_start_matches("#   ")).collect::<Vec<_>>();
    let text = format!("{before}[[endpoint]]{}", shown.join("\n"));
    let settings = parse(&text, "wechat-messages.toml", &every).unwrap();
    let [bot] = settings.endpoints.as_slice() else { panic!("one endpoint") };
    assert_eq!(bot.timeout, Duration::from_secs(5));
    let retry = RetryOn::Everything;
    let expected = AnswerRule { success: vec![200], retry, ..AnswerRule::default() };
    assert_eq!(bot.answers, expected);
    let (key, scheme) = scheme(bot);
    assert_eq!(key, b"s3cret");
    let colon = SignedPart::Literal(":".to_owned());
    assert_eq!(scheme.content, [SignedPart::Timestamp, colon, SignedPart::Body]);
    assert_eq!((&*scheme.prefix, scheme.encoding), ("", SignatureEncoding::Hex));
}

#[test]
fn the_examples_of_the_documentation_are_sound() {
    let text = include_str!("../../../docs/events.md");
    let blocks = text.split("```toml\n").skip(1).filter_map(|block| block.split("```").next());
    // The one that names a file of subscriptions is a part of a whole that another test reads.
    let whole = |block: &&str| block.contains("[[event]]") && !block.contains("subscriptions");
    let is_ours = |name: &str| !name.starts_with("PG");
    let env = |name: &str| env(name).or_else(|| is_ours(name).then(|| "s3cret".to_owned()));
    let mut read = 0;
    for block in blocks.filter(whole) {
        let names = block.contains("[[endpoint]]") || block.contains("[endpoints_from]");
        let completed = if names { "" } else { SOUND };
        let settings = parse(&format!("{completed}{block}"), "events.md", &env);
        read += settings.unwrap_or_else(|problems| panic!("{block}\n{problems}")).events.len();
    }
    assert_eq!(read, 4);
}

#[test]
fn what_is_wrong_with_a_subscription_is_said_with_its_number() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("walhook.toml");
    std::fs::write(&file, "webhook.subscriptions = 'subs.json'").unwrap();
    let told = |json: &str| {
        std::fs::write(directory.path().join("subs.json"), json).unwrap();
        let problems = load(&file, &env).unwrap_err().to_string();
        assert!(!problems.contains("opensesame"), "{problems}");
        problems.replace(&format!("{}/", directory.path().display()), "")
    };
    let cases = [
        (
            r#"{"webhooks": [{"url": "https://a/", "url": "https://b/"}]}"#,
            "walhook.toml:1: webhook.subscriptions: \"subs.json\" has key \"url\" twice",
        ),
        ("[1", "walhook.toml:1: webhook.subscriptions: \"subs.json\" is not JSON: "),
        ("[]", "subs.json: must be a table, not a list"),
        ("{}", "subs.json: webhooks: is missing: list the subscriptions"),
        (r#"{"webhooks": [{}]}"#, "subs.json: webhooks[0].url: is missing"),
        (
            r#"{"webhooks": [{"url": "http://h/"}, {"url": "opensesame", "events": ["nope"], "secrets": 1}]}"#,
            "subs.json: webhooks[1].url: is not a URL: write it like \"https://example.com/hooks\"\n\
             subs.json: webhooks[1].events: \"nope\" matches no event type: the types are `ocr_wallet_data`\n\
             subs.json: webhooks[1].secrets: unknown key: did you mean `secret`?",
        ),
        (
            r#"{"webhooks": [{"url": "http://h/", "headers": {"Host": "x"}}]}"#,
            "subs.json: webhooks[0].headers.Host: belongs to the connection",
        ),
    ];
    for (json, expected) in cases {
        let told = told(json);
        assert!(told.starts_with(expected), "case: {json}\n{told}");
    }
}
