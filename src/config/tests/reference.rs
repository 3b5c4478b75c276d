//! The files of `config/`: they parse, show defaults as they are, and leave no key out.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::LazyLock;

use super::*;
use crate::config::settings::AddressPolicy;
use crate::config::settings::AnswerRule;
use crate::config::settings::BacklogLimits;
use crate::config::settings::BatchSettings;
use crate::config::settings::BreakerSettings;
use crate::config::settings::EventFilter;
use crate::config::settings::KeyOrdering;
use crate::config::settings::LogFormat;
use crate::config::settings::Operations;
use crate::config::settings::ParkingSettings;
use crate::config::settings::RetrySettings;
use crate::flow::relation::TableName;
use toml::de::DeValue;

const REFERENCE: &str = include_str!("../../../config/walhook.example.toml");
const OCR_WALLET: &str = include_str!("../../../config/ocr-wallet.toml");

/// A certificate and its key, in PEM.
static IDENTITY: LazyLock<(String, String)> = LazyLock::new(|| {
    let made = rcgen::generate_simple_self_signed(vec![String::from("walhook.test")]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
});

/// Every `#key = ...` and `#[table]` made active; prose stands behind `# `.
fn uncommented(text: &str) -> String {
    let active = |line: &str| match line.strip_prefix('#') {
        Some(rest) if !rest.is_empty() && !rest.starts_with(' ') => rest.to_owned(),
        _ => line.to_owned(),
    };
    text.lines().map(|line| active(line) + "\n").collect()
}

fn whole(name: &str) -> Option<String> {
    match name {
        "DATABASE_URL" => env(name),
        "BILLING_URL" => Some("https://billing.example.com/".to_owned()),
        "SEARCH_CERT" => Some(IDENTITY.0.clone()),
        "SEARCH_CERT_KEY" => Some(IDENTITY.1.clone()),
        "WECHAT_AES_KEY" => Some("A".repeat(43)),
        "NATS_CREDENTIALS" => Some("-----BEGIN NATS USER JWT-----".to_owned()),
        "WALHOOK_KEY" => Some(format!("{}=", "A".repeat(43))),
        _ if name.starts_with("PG") || name.starts_with("OTEL_") => None,
        _ => Some("a-value-long-enough-for-all".to_owned()),
    }
}

/// The paths of all keys in a table.
fn keys(path: &str, value: &DeValue<'_>, found: &mut BTreeSet<String>) {
    match value {
        DeValue::Table(table) => {
            for (key, value) in table {
                let path = format!("{path}.{}", key.get_ref());
                found.insert(path.trim_start_matches('.').to_owned());
                keys(&path, value.get_ref(), found);
            }
        }
        DeValue::Array(items) => items.iter().for_each(|item| keys(path, item.get_ref(), found)),
        _ => {}
    }
}

#[test]
fn the_reference_shows_the_defaults() {
    let shown = parse(REFERENCE, "walhook.example.toml", &env).unwrap();
    let left_out = sound("webhook.urls = ['https://api.example.com/webhook']");
    assert_eq!(format!("{shown:#?}"), format!("{left_out:#?}"));
}

#[test]
fn the_reference_shows_every_key_in_use() {
    let text = uncommented(REFERENCE);
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/config/walhook.example.toml");
    let notes = ProblemNotes::new(file, &text, &whole);
    let Some(settings) = read(&notes, &text) else {
        panic!("{}", notes.conclude(None::<()>).unwrap_err())
    };
    assert_eq!((settings.events.len(), settings.endpoints.len()), (3, 9));

    let document = DeTable::parse(&text).unwrap();
    let mut shown = BTreeSet::new();
    keys("", &DeValue::Table(document.into_inner()), &mut shown);
    let asked = notes.asked.borrow().clone();
    let form_of_a_secret = |key: &&String| key.ends_with(".env") || key.ends_with(".file");
    let hidden: Vec<_> =
        asked.iter().filter(|key| !form_of_a_secret(key) && !shown.contains(*key)).collect();
    assert_eq!(hidden, Vec::<&String>::new());
    assert!(asked.len() > 60, "the reader tells what it asked for");
    notes.conclude(Some(())).unwrap();
}

#[test]
fn a_url_and_a_database_give_the_defaults_of_contract_1() {
    let settings = parse(OCR_WALLET, "ocr-wallet.toml", &env).unwrap();
    let count = |n| NonZeroUsize::new(n).unwrap();

    assert!(settings.enabled);
    let [endpoint] = settings.endpoints.as_slice() else { panic!("one URL") };
    assert_eq!(endpoint.timeout, Duration::from_secs(10));
    let delays = RetryDelays::Exponential { max: 3, interval: Duration::from_secs(1) };
    assert_eq!(endpoint.retry, RetrySettings { delays, cap: Duration::from_secs(300) });
    assert_eq!(endpoint.concurrency, count(3));
    assert_eq!(endpoint.batch, BatchSettings { size: count(1), linger: Duration::from_millis(20) });
    assert_eq!(endpoint.capacity, count(1000));
    let backlog = BacklogLimits { rows: count(1_000_000), age: Duration::from_secs(7 * 86_400) };
    let (cooldown, cap) = (Duration::from_secs(1), Duration::from_secs(60));
    let breaker = Some(BreakerSettings { failures: count(5), cooldown, cap });
    let parking = ParkingSettings { after: Duration::from_secs(10), breaker, backlog };
    assert_eq!(endpoint.parking, parking);
    assert_eq!(endpoint.user_agent, "wx-msg-chat-webhook/1.0");
    assert_eq!(endpoint.ordering, KeyOrdering::Key);
    assert_eq!(endpoint.addresses, AddressPolicy::Operator);
    assert!(endpoint.answers == AnswerRule::default() && endpoint.headers.is_empty());
    assert!(endpoint.signing.is_none() && endpoint.auth.is_none() && endpoint.rate_limit.is_none());

    let [rule] = settings.events.as_slice() else { panic!("one event") };
    assert_eq!(rule.event_type.as_ref(), "ocr_wallet_data");
    assert!(endpoint.events.iter().all(|glob| glob.matches(&rule.event_type)));
    assert_eq!(rule.table, TableName::new("public", "ocr_wallet_info"));
    assert_eq!(rule.on, Operations { insert: true, ..Operations::default() });
    assert_eq!(rule.filter, Some(EventFilter::NotBlank { column: "wallet_code".to_owned() }));
    let column = Some("create_time".to_owned());
    assert_eq!(rule.expiry, Some(ExpiryRule { column, max_age: Duration::from_secs(300) }));
    assert_eq!(rule.payload, PayloadSettings::OcrWallet);
    assert!(rule.order_by.is_empty());

    assert_eq!(
        (settings.postgres.slot.as_str(), settings.postgres.publication.as_str()),
        ("ocr_wallet", "ocr_wallet")
    );
    assert_eq!(settings.postgres.wal_sender_timeout, Duration::from_secs(6));
    assert_eq!(settings.http.listen.to_string(), "127.0.0.1:9464");
    assert_eq!(settings.memory.queued_bytes, 16 * 1024 * 1024);
    assert_eq!((settings.log.format, settings.log.filter.as_str()), (LogFormat::Text, "info"));
    assert_eq!(settings.grace, Duration::from_secs(10));
}

#[test]
fn what_the_ocr_wallet_file_shows_as_defaults_are_the_defaults() {
    let as_it_is = parse(OCR_WALLET, "ocr-wallet.toml", &env).unwrap();
    let written_out = parse(&uncommented(OCR_WALLET), "ocr-wallet.toml", &env).unwrap();
    // Written out, these numbers hold for all endpoints; as defaults, for those of `urls`.
    let written_out = format!("{written_out:?}")
        .replace("max_retries: Some(3)", "max_retries: None")
        .replace("concurrency: Some(3)", "concurrency: None");
    assert_eq!(format!("{as_it_is:?}"), written_out);
}
