//! What each bad configuration is told, word for word, and what sound ones mean.

use super::*;

use crate::config::settings::Auth;
use crate::config::settings::ExpiryRule;
use crate::config::settings::PayloadSettings;
use crate::config::settings::RetryDelays;
use crate::config::settings::Signing;
use crate::config::settings::StandardKey;

mod reference;
mod refusals;
mod systems;

/// Enough of everything, so that a test can name the one thing it is about.
const SOUND: &str = "webhook.urls = [\"http://h/\"]\n";

const WHSEC: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

fn env(name: &str) -> Option<String> {
    let value = match name {
        "DATABASE_URL" => "postgres://walhook:opensesame@localhost/app",
        "PASSWORD" => "opensesame opensesame",
        "SECRET" => WHSEC,
        "EMPTY" => "",
        _ => return None,
    };
    Some(value.to_owned())
}

fn sound(text: &str) -> Settings {
    parse(text, "walhook.toml", &env).unwrap_or_else(|problems| panic!("{text}\n{problems}"))
}

#[test]
fn the_short_form_is_a_complete_configuration() {
    let settings = sound(
        "[postgres]\nurl = 'postgres://u@db/app'\n[webhook]\nurls = ['http://a/', 'https://b/x?y=z']",
    );
    assert!(settings.enabled);
    let names: Vec<&str> = settings.endpoints.iter().map(|e| e.name.as_ref()).collect();
    assert!(matches!(names.as_slice(), [a, b] if a.starts_with("a-") && b.starts_with("b-")));
    let [rule] = settings.events.as_slice() else { panic!("one event") };
    assert_eq!(rule.event_type.as_ref(), "ocr_wallet_data");
    assert_eq!(rule.payload, PayloadSettings::OcrWallet);
}

#[test]
fn a_disabled_configuration_needs_nobody_to_push_to() {
    assert!(!sound("webhook.enabled = false").enabled);
}

/// The waits of an exponential schedule come to this at least.
fn shortest(retry: &settings::RetrySettings) -> Duration {
    let RetryDelays::Exponential { max, interval } = retry.delays else { panic!("a list") };
    let wait = |n| interval.saturating_mul(2u32.saturating_pow(n)).min(retry.cap.div_f64(1.25));
    (0..max).map(wait).sum::<Duration>().mul_f64(0.75)
}

#[test]
fn the_usual_schedule_of_an_endpoint_lasts_a_day_and_the_short_form_keeps_three_retries() {
    let endpoint = "[[endpoint]]\nname = 'a'\nurl = 'http://b/'";
    let day = Duration::from_secs(86_400);
    let cases = [
        ("", "", 3, None),
        ("max_retries = 2", "", 2, Some(2)),
        ("", "retry = { max = 9 }", 3, Some(9)),
        ("", "retry = { interval = '7ms', cap = '7ms' }", 3, None),
        ("retry_cap = '20s'", "", 3, None),
        ("retry_interval = '2h'\nretry_cap = '7d'", "", 3, None),
        ("", "retry = { cap = '7d' }", 3, None),
    ];
    for (terms, own, short, long) in cases {
        let settings =
            sound(&format!("[webhook]\nurls = ['http://a/']\n{terms}\n{endpoint}\n{own}"));
        let max = |endpoint: &Endpoint| match endpoint.retry.delays {
            RetryDelays::Exponential { max, .. } => max,
            RetryDelays::List(_) => panic!("a list"),
        };
        let [first, second] = settings.endpoints.as_slice() else { panic!("two endpoints") };
        assert_eq!(max(first), short, "case: {terms} {own}");
        match long {
            Some(long) => assert_eq!(max(second), long, "case: {terms} {own}"),
            None => {
                let lasts = shortest(&second.retry);
                assert!(lasts >= day && lasts < 4 * day, "case: {terms} {own}: {lasts:?}");
            }
        }
    }
}

#[test]
fn a_breaker_can_be_switched_off_for_all_and_on_for_one() {
    let settings = sound(
        r#"
        [webhook]
        urls = ["http://a/"]
        breaker = false
        [[endpoint]]
        name = "on"
        url = "http://b/"
        breaker = true
        [[endpoint]]
        name = "own"
        url = "http://c/"
        breaker = { failures = 2 }
        "#,
    );
    let failures = |endpoint: &Endpoint| endpoint.parking.breaker.map(|b| b.failures.get());
    let failures: Vec<_> = settings.endpoints.iter().map(failures).collect();
    assert_eq!(failures, [None, Some(5), Some(2)]);
}

#[test]
fn webhook_sets_the_terms_of_every_endpoint_and_an_endpoint_its_own() {
    let settings = sound(
        r#"
        [webhook]
        urls = ["http://a/"]
        timeout = "3s"
        max_retries = 7
        headers = { X-Team = "all", X-Zone = "eu" }
        secret = "0123456789abcdef"
        ordering = "strict"
        park_after = "1m"
        breaker = { failures = 7 }
        [[endpoint]]
        name = "crm"
        url = "http://b/"
        timeout = "1m30s"
        retry = { interval = "2s" }
        headers = { x-team = "crm" }
        secret = ["whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8", { env = "SECRET" }]
        rate_limit = 2.5
        breaker = { cooldown = "2s" }
        success = [200, 409]
        "#,
    );
    let [short, crm] = settings.endpoints.as_slice() else { panic!("two endpoints") };
    assert_eq!(short.timeout, Duration::from_secs(3));
    assert_eq!(crm.timeout, Duration::from_secs(90));
    assert_eq!(
        crm.retry.delays,
        RetryDelays::Exponential { max: 7, interval: Duration::from_secs(2) }
    );
    assert_eq!(crm.ordering, settings::KeyOrdering::Strict);
    assert_eq!(crm.parking.after, Duration::from_secs(60));
    let breaker = crm.parking.breaker.unwrap();
    assert_eq!((breaker.failures.get(), breaker.cooldown), (7, Duration::from_secs(2)));
    assert_eq!(short.parking.breaker.unwrap().cooldown, Duration::from_secs(1));
    assert_eq!(short.headers["x-team"], "all");
    assert_eq!(crm.headers["x-team"], "crm");
    assert_eq!(crm.headers["x-zone"], "eu");
    assert_eq!(
        (crm.rate_limit, crm.answers.success.as_slice()),
        (Some(2.5), [200, 409].as_slice())
    );
    let keys = |endpoint: &Endpoint| -> Vec<Vec<u8>> {
        match &endpoint.signing {
            Some(Signing::Standard { keys }) => {
                let bytes = |key: &StandardKey| match key {
                    StandardKey::Symmetric(key) => key.reveal().clone(),
                    StandardKey::Ed25519(seed) => seed.reveal().to_vec(),
                };
                keys.iter().map(bytes).collect()
            }
            other => panic!("{other:?}"),
        }
    };
    let key: Vec<u8> = (0..32).collect();
    for written in [
        "v1,whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
        "WHSEC_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
        "v1,WhSec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8",
    ] {
        let text = format!(
            "postgres.url = 'postgres://a@b/c'\nwebhook = {{ urls = ['http://h/'], secret = '{written}' }}"
        );
        assert_eq!(
            keys(&sound(&text).endpoints[0]),
            [(0..32).collect::<Vec<u8>>()],
            "case: {written}"
        );
    }
    assert_eq!(keys(short), [b"0123456789abcdef".to_vec()]);
    assert_eq!(keys(crm), [key.clone(), key], "with and without padding, in line and by name");
}

#[test]
fn listed_delays_replace_the_exponential_ones_and_raise_the_cap() {
    let endpoint = |retry: &str| {
        let text = format!("[[endpoint]]\nname = 'a'\nurl = 'http://a/'\nretry = {retry}");
        sound(&text).endpoints.remove(0).retry
    };
    let seconds = |s: &[u64]| s.iter().copied().map(Duration::from_secs).collect::<Vec<_>>();
    let short = endpoint("{ delays = ['10s', '30s', '90s'] }");
    assert_eq!(short.delays, RetryDelays::List(seconds(&[10, 30, 90])));
    assert_eq!(short.cap, Duration::from_secs(300));
    assert_eq!(endpoint("{ delays = ['1h'] }").cap, Duration::from_secs(3600));
    assert_eq!(endpoint("{ delays = [] }").delays, RetryDelays::List(Vec::new()));
}

#[test]
fn events_of_the_file_replace_the_built_in_one() {
    let settings = sound(
        r#"
        webhook.urls = ["http://h/"]
        [[event]]
        type = "order.changed"
        table = "orders"
        on = ["update", "truncate"]
        order_by = ["customer_id"]
        expiry = "1h"
        age_column = "updated_at"
        [[event]]
        type = "order.changed"
        table = "orders"
        on = ["insert"]
        [[event]]
        type = "wallet"
        table = '"my.schema".wallets'
        payload = "ocr-wallet"
        "#,
    );
    let [changed, inserted, wallet] = settings.events.as_slice() else { panic!("three events") };
    assert_eq!(changed.table.to_string(), "public.orders");
    assert!(changed.on.update && changed.on.truncate && !changed.on.insert && !changed.on.delete);
    assert_eq!(changed.order_by, ["customer_id"]);
    let column = Some("updated_at".to_owned());
    let hour = Duration::from_secs(3600);
    assert_eq!(changed.expiry, Some(ExpiryRule { column, max_age: hour }));
    assert_eq!((&inserted.expiry, &inserted.filter), (&None, &None));
    assert_eq!(wallet.table.quoted(), r#""my.schema"."wallets""#);
    assert!(wallet.filter.is_some(), "only recognised rows have this shape");
    assert!(wallet.on.insert && wallet.on.update && wallet.on.delete && !wallet.on.truncate);
    assert!(settings.endpoints[0].user_agent.starts_with("walhook/"));
}

#[test]
fn data_expiry_that_is_written_holds_for_events_that_say_nothing() {
    let settings = sound(
        "webhook = { urls = ['http://h/'], data_expiry = '30s' }\n\
         event = [{ type = 'a', table = 't', age_column = 'c' }, { type = 'b', table = 't', expiry = '1h' }]",
    );
    let ages: Vec<_> =
        settings.events.iter().map(|e| e.expiry.as_ref().map(|x| x.max_age.as_secs())).collect();
    assert_eq!(ages, [Some(30), Some(3600)]);
}

#[test]
fn secrets_come_from_the_text_the_environment_or_a_file_beside_the_configuration() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("token"), "from-a-file-0123456789\r\n").unwrap();
    let file = directory.path().join("walhook.toml");
    let given = |auth: &str| {
        let text = format!("[[endpoint]]\nname='a'\nurl='http://h/'\nauth={{ bearer = {auth} }}");
        std::fs::write(&file, text).unwrap();
        match load(&file, &env).unwrap().endpoints.remove(0).auth {
            Some(Auth::Bearer { token }) => token.reveal().clone(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(given("'plain'"), "plain");
    assert_eq!(given("'a ${PASSWORD} b'"), "a opensesame opensesame b");
    assert_eq!(given("{ env = 'PASSWORD' }"), "opensesame opensesame");
    assert_eq!(given("{ file = 'token' }"), "from-a-file-0123456789");
}

#[test]
fn the_debug_output_of_settings_shows_no_secret() {
    let settings = sound(
        r#"
        postgres.url = "postgres://walhook:opensesame@localhost/app"
        http.token = "opensesame-opensesame"
        webhook.urls = ["http://h/opensesame?key=opensesame"]
        webhook.secret = "opensesame-opensesame"
        webhook.headers = { X-Key = "opensesame" }
        [[endpoint]]
        name = "a"
        url = "http://h/opensesame"
        auth = { basic = { username = "u", password = "opensesame" } }
        [[endpoint]]
        name = "b"
        url = "http://h/opensesame"
        auth = { bearer = "opensesame" }
        [[endpoint]]
        name = "c"
        url = "http://h/opensesame"
        auth = { api_key = { name = "X-Other", value = "opensesame" } }
        "#,
    );
    let shown = format!("{settings:?} {settings:#?}");
    assert!(!shown.contains("opensesame"), "{shown}");
    assert!(shown.contains("localhost"), "what is no secret is shown");
}
