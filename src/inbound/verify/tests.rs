//! `inbound::verify`, by cases and properties.

use std::collections::BTreeMap;

use axum::http::HeaderMap;
use axum::http::HeaderName;
use axum::http::HeaderValue;
use bytes::Bytes;
use proptest::prelude::*;

use std::time::Duration;

use super::*;
use crate::config::secret::Secret;
use crate::config::settings::CallbackKind;
use crate::flow::relation::TableName;
use crate::inbound::wecom::cipher::tests::CORP;
use crate::inbound::wecom::cipher::tests::KEY;
use crate::inbound::wecom::cipher::tests::encrypt;

const TOKEN: &str = "walhookTok3n";
const NOW: i64 = 1_700_000_100;

fn source(scheme: InboundScheme) -> InboundSource {
    InboundSource {
        name: String::from("api"),
        path: String::from("/cb"),
        scheme,
        tolerance: Some(Duration::from_secs(300)),
        table: TableName::new("public", "callbacks"),
        nonces: TableName::new("public", "inbound_nonces"),
        kinds: BTreeMap::new(),
        status: None,
    }
}

fn wecom(is_robot: bool) -> InboundSource {
    source(InboundScheme::Wecom(WecomKeys {
        token: Secret::new(TOKEN.to_owned()),
        aes_key: Secret::new(KEY.to_owned()),
        receive_id: if is_robot { String::new() } else { CORP.to_owned() },
        is_robot,
    }))
}

fn request(query: &[(&str, &str)], body: &str) -> CallbackRequest {
    CallbackRequest {
        query: query.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        headers: HeaderMap::new(),
        body: Bytes::copy_from_slice(body.as_bytes()),
        now: NOW,
    }
}

/// A signed POST of this message.
fn post(message: &str, timestamp: i64, receive_id: &str) -> CallbackRequest {
    let encrypted = encrypt(KEY, message.as_bytes(), receive_id);
    let timestamp = timestamp.to_string();
    let signature = signature::signature(TOKEN, &timestamp, "n0nce", &encrypted);
    let body = format!(
        "<xml><ToUserName><![CDATA[{CORP}]]></ToUserName><Encrypt><![CDATA[{encrypted}]]></Encrypt></xml>"
    );
    let query =
        [("msg_signature", signature.as_str()), ("timestamp", &timestamp), ("nonce", "n0nce")];
    request(&query, &body)
}

const TEXT: &str = "<xml><MsgType><![CDATA[text]]></MsgType><MsgId>7</MsgId></xml>";

#[test]
fn the_url_is_verified_by_its_echo() {
    let echo =
        "P7f63hPkbwZVEAeQG28khmufPcTHI9B1j39/+OtsD5RuVYv3utkIUsJ7nEPhvgt81YTynLsSaN4xG1v2hG5Wjg==";
    let query = |echo: &str| CallbackRequest {
        query: CallbackRequest::query_of(Some(&format!(
            "msg_signature=afd50924d4256583d1cbf9705cd1cfdb493df5ab&timestamp=1700000000\
                 &nonce=1234567890&echostr={echo}"
        ))),
        ..request(&[], "")
    };
    let encoded = echo.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    for asked in [echo, &encoded] {
        assert_eq!(super::echo(&wecom(false), &query(asked)).unwrap(), b"1616140317555161061");
    }
    let other = query(&encoded.replace("P7f6", "P7f7"));
    assert_eq!(super::echo(&wecom(false), &other), Err(InboundRefusal::Signature));
    let late = CallbackRequest { now: 1_700_000_301, ..query(&encoded) };
    assert_eq!(super::echo(&wecom(false), &late), Err(InboundRefusal::Timestamp));
}

#[test]
fn a_callback_becomes_a_row() {
    let verified = callback(&wecom(false), &post(TEXT, NOW, CORP)).unwrap();
    assert_eq!(verified.nonce.as_deref(), Some("n0nce"));
    assert_eq!(verified.row.kind, CallbackKind::Message);
    assert_eq!(verified.row.dedupe_key, "api/message/7");
}

#[test]
fn a_robot_sends_json_for_nobody_in_particular() {
    let encrypted = encrypt(KEY, br#"{"msgtype":"text","msgid":"m1","text":{"content":"hi"}}"#, "");
    let signature = signature::signature(TOKEN, "1700000000", "n", &encrypted);
    let query =
        [("msg_signature", signature.as_str()), ("timestamp", "1700000000"), ("nonce", "n")];
    let body = format!("{{\"encrypt\": \"{encrypted}\"}}");
    let row = callback(&wecom(true), &request(&query, &body)).unwrap().row;
    assert_eq!((row.content.as_deref(), row.message_id.as_deref()), (Some("hi"), Some("m1")));
}

#[test]
fn the_first_reason_is_the_one_that_is_given() {
    let whole = || post(TEXT, NOW, CORP);
    let without = |name: &str| {
        let mut request = whole();
        request.query.remove(name);
        request
    };
    let with = |name: &str, value: &str| {
        let mut request = whole();
        request.query.insert(name.to_owned(), value.to_owned());
        request
    };
    let laughs = "<!DOCTYPE x [<!ENTITY a \"ha\">]><xml><MsgType>&a;</MsgType></xml>";
    let cases = [
        ("no signature", without("msg_signature"), InboundRefusal::Parameters),
        ("no nonce", without("nonce"), InboundRefusal::Parameters),
        ("no body", CallbackRequest { body: Bytes::new(), ..whole() }, InboundRefusal::Parameters),
        ("another nonce", with("nonce", "other"), InboundRefusal::Signature),
        ("another time", with("timestamp", "1700000101"), InboundRefusal::Signature),
        ("an old one", post(TEXT, NOW - 301, CORP), InboundRefusal::Timestamp),
        ("of tomorrow", post(TEXT, NOW + 301, CORP), InboundRefusal::Timestamp),
        ("for somebody else", post(TEXT, NOW, "ww-other"), InboundRefusal::ReceiveId),
        ("entities", post(laughs, NOW, CORP), InboundRefusal::Content),
        ("no XML", post("hello", NOW, CORP), InboundRefusal::Content),
    ];
    for (name, request, expected) in cases {
        assert_eq!(callback(&wecom(false), &request), Err(expected), "case: {name}");
    }
    let tolerant = InboundSource { tolerance: None, ..wecom(false) };
    assert!(callback(&tolerant, &post(TEXT, 1, CORP)).is_ok());
}

fn hmac_source(header: &'static str, prefix: &str, composite: bool) -> InboundSource {
    use crate::config::settings::HmacCallbacks;
    use crate::config::settings::HmacScheme;
    use crate::config::settings::SignatureEncoding;
    use crate::config::settings::SignedPart;
    let content = match composite {
        true => {
            vec![SignedPart::Timestamp, SignedPart::Literal(String::from(".")), SignedPart::Body]
        }
        false => vec![SignedPart::Body],
    };
    source(InboundScheme::Hmac(HmacCallbacks {
        key: Secret::new(b"It's a Secret to Everybody".to_vec()),
        scheme: HmacScheme {
            header: HeaderName::from_static(header),
            prefix: prefix.to_owned(),
            encoding: SignatureEncoding::Hex,
            content,
            timestamp_header: None,
        },
        is_composite: composite,
        id_header: Some(HeaderName::from_static("x-github-delivery")),
        event_header: Some(HeaderName::from_static("x-github-event")),
    }))
}

fn with_headers(body: &str, headers: &[(&'static str, &str)]) -> CallbackRequest {
    let headers = headers.iter().map(|(name, value)| {
        (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
    });
    CallbackRequest { headers: headers.collect(), ..request(&[], body) }
}

#[test]
fn githubs_own_vector_is_met() {
    // From GitHub's "Validating webhook deliveries": secret, payload, signature.
    let signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    let source = hmac_source("x-hub-signature-256", "sha256=", false);
    let headers = [
        ("x-hub-signature-256", signature),
        ("x-github-delivery", "d1"),
        ("x-github-event", "push"),
    ];
    let row = callback(&source, &with_headers("Hello, World!", &headers)).unwrap().row;
    assert_eq!((row.event.as_str(), row.dedupe_key.as_str()), ("push", "api/id/d1"));
    assert_eq!(row.fields["body"], "Hello, World!");
    let other = with_headers("Hello, World", &headers);
    assert_eq!(callback(&source, &other), Err(InboundRefusal::Signature));
}

#[test]
fn a_composite_header_signs_its_time() {
    let source = hmac_source("stripe-signature", "", true);
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"It's a Secret to Everybody");
    let body = r#"{"id":"evt_1","type":"charge.succeeded"}"#;
    let header = |time: i64| {
        let tag = ring::hmac::sign(&key, format!("{time}.{body}").as_bytes());
        let tag: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("t={time},v0=abc,v1=0000,v1={tag}")
    };
    let row = callback(&source, &with_headers(body, &[("stripe-signature", &header(NOW))]));
    assert_eq!(row.unwrap().row.event, "charge.succeeded");
    let old = with_headers(body, &[("stripe-signature", &header(NOW - 301))]);
    assert_eq!(callback(&source, &old), Err(InboundRefusal::Timestamp));
}

#[test]
fn standard_webhooks_are_verified() {
    let key = crate::config::settings::StandardKey::Symmetric(Secret::new((0..32).collect()));
    let source = InboundSource {
        tolerance: None,
        ..source(InboundScheme::StandardWebhooks { keys: vec![key] })
    };
    let body = r#"{"type":"orders.insert","data":{"id":1,"note":"café"}}"#;
    let headers = [
        ("webhook-id", "msg_walhook_0001"),
        ("webhook-timestamp", "1700000000"),
        ("webhook-signature", "v1,AAAA v1,F+Pl6MZhm2XcfOqIcuZIzUGZWrvhlm0k4LimrhQtKc4="),
    ];
    let row = callback(&source, &with_headers(body, &headers)).unwrap().row;
    assert_eq!(
        (row.event.as_str(), row.dedupe_key.as_str()),
        ("orders.insert", "api/id/msg_walhook_0001")
    );
    let other = with_headers(&body.replace('1', "2"), &headers);
    assert_eq!(callback(&source, &other), Err(InboundRefusal::Signature));
}

proptest! {
    #[test]
    fn any_request_is_judged(body: Vec<u8>, signature in ".{0,50}", timestamp in "[0-9-]{0,20}") {
        let query = [("msg_signature", &*signature), ("timestamp", &*timestamp), ("nonce", "n")];
        let request = CallbackRequest { body: Bytes::from(body), ..request(&query, "") };
        prop_assert!(callback(&wecom(false), &request).is_err());
        prop_assert!(callback(&wecom(true), &request).is_err());
    }

    /// A caller that knows the keys can still not make it panic.
    #[test]
    fn any_signed_message_is_read_or_refused(message in "(<[a-z/!\\[\\]&;]{0,8}>?|.){0,40}") {
        let _judged: Result<_, _> = callback(&wecom(false), &post(&message, NOW, CORP));
    }
}
