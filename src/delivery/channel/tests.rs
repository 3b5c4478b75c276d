//! `delivery::channel`, by cases.

use std::time::Duration;

use super::pieces::shortened;
use super::*;
use crate::config::secret::Secret;
use crate::config::settings::PRESETS;

fn channel(name: &str, secret: Option<&str>, overflow: Overflow) -> Channel {
    let preset = PRESETS.iter().find(|preset| preset.name == name).unwrap();
    let secret = secret.map(|secret| Secret::new(secret.to_owned()));
    let channel = settings::Channel { preset, app: None, secret, overflow };
    Channel::new("e".into(), &channel, None, &DeliveryNetwork::system())
}

fn judged(name: &str, status: u16, body: &str) -> (AttemptVerdict, AttemptReach, String) {
    let status = StatusCode::from_u16(status).unwrap();
    let by_status = match status.as_u16() {
        200 => (AttemptVerdict::Delivered, None),
        429 | 500.. => (AttemptVerdict::Retry { at_least: None }, None),
        _ => (AttemptVerdict::Dead, None),
    };
    let mut reach = AttemptReach::Endpoint;
    let channel = channel(name, None, Overflow::Cut);
    let (verdict, failure) = channel.judge(by_status, Some(status), body.as_bytes(), &mut reach);
    (verdict, reach, failure.map(|failure| failure.detail).unwrap_or_default())
}

#[test]
fn signatures_are_those_that_the_systems_expect() {
    let now = Timestamp::from_seconds(1_700_000_000);
    let dingtalk = channel("dingtalk-robot", Some("SECwalhooktestsecret"), Overflow::Cut);
    let path = Uri::from_static("/robot/send?access_token=t");
    assert_eq!(
        dingtalk.target(&path, None, now).unwrap().to_string(),
        "/robot/send?access_token=t&timestamp=1700000000000\
         &sign=hCEOqIHQRlbpkEur3Y9AFIYrN98oHaDctczhA1zDgpc%3D"
    );
    let feishu = channel("feishu-robot", Some("walhookFeishuSecret"), Overflow::Cut);
    let mut message = Map::new();
    assert!(feishu.add_members(&mut message, now));
    assert_eq!(
        Json::Object(message),
        serde_json::json!({
            "timestamp": "1700000000",
            "sign": "XRQrnG4ouuYDiTi+1R2k94oO+0yPqyBZ7Movh1EJ/EU=",
        })
    );
    assert_eq!(feishu.target(&path, None, now).unwrap(), path);
    let unsigned = channel("dingtalk-robot", None, Overflow::Cut);
    assert_eq!(unsigned.target(&path, None, now).unwrap(), path);
}

#[test]
fn each_code_has_its_verdict() {
    use AttemptReach::Endpoint;
    use AttemptReach::Throttled;
    let retry = AttemptVerdict::Retry { at_least: None };
    let wait = |seconds| AttemptVerdict::Retry { at_least: Some(Duration::from_secs(seconds)) };
    let cases = [
        ("wecom-robot", "errcode", 0, AttemptVerdict::Delivered, Endpoint),
        ("wecom-robot", "errcode", -1, retry.clone(), Endpoint),
        ("wecom-robot", "errcode", 45009, wait(60), Throttled),
        ("wecom-robot", "errcode", 93000, AttemptVerdict::Dead, Endpoint),
        ("wecom-app", "errcode", 0, AttemptVerdict::Delivered, Endpoint),
        ("wecom-app", "errcode", -1, retry.clone(), Endpoint),
        ("wecom-app", "errcode", 45033, retry.clone(), Endpoint),
        ("wecom-app", "errcode", 45009, wait(60), Throttled),
        ("wecom-app", "errcode", 42001, retry.clone(), Endpoint),
        ("wecom-app", "errcode", 81013, AttemptVerdict::Dead, Endpoint),
        ("wecom-app", "errcode", 60020, AttemptVerdict::Dead, Endpoint),
        ("wecom-app", "errcode", 123_456, AttemptVerdict::Dead, Endpoint),
        ("dingtalk-robot", "errcode", 0, AttemptVerdict::Delivered, Endpoint),
        ("dingtalk-robot", "errcode", 130_101, wait(600), Throttled),
        ("dingtalk-robot", "errcode", 310_000, AttemptVerdict::Dead, Endpoint),
        ("feishu-robot", "code", 0, AttemptVerdict::Delivered, Endpoint),
        ("feishu-robot", "code", 11232, wait(60), Throttled),
        ("feishu-robot", "code", 19021, AttemptVerdict::Dead, Endpoint),
    ];
    for (name, key, code, verdict, reach) in cases {
        let text = if key == "code" { "msg" } else { "errmsg" };
        let body = format!("{{\"{key}\":{code},\"{text}\":\"why\"}}");
        let detail = if code == 0 { String::new() } else { format!("{key} {code}: why") };
        assert_eq!(judged(name, 200, &body), (verdict, reach, detail), "case: {name} {code}");
    }
}

#[test]
fn other_answers_are_no_success() {
    let retry = AttemptVerdict::Retry { at_least: None };
    let (verdict, _, detail) = judged("wecom-robot", 200, "<html>");
    assert_eq!((verdict, &*detail), (retry.clone(), "200, but its body holds no errcode"));
    let (verdict, reach, _) = judged("feishu-robot", 400, r#"{"code":11232,"msg":"slow"}"#);
    assert_eq!((verdict != AttemptVerdict::Dead, reach), (true, AttemptReach::Throttled));
    let (verdict, _, detail) = judged("feishu-robot", 400, r#"{"code":19001,"msg":"token"}"#);
    assert_eq!((verdict, &*detail), (AttemptVerdict::Dead, "code 19001: token"));
    let (verdict, _, detail) = judged("feishu-robot", 400, r#"{"code":0}"#);
    assert_eq!((verdict, &*detail), (AttemptVerdict::Dead, ""));
    assert_eq!(judged("slack", 200, "ok\n").0, AttemptVerdict::Delivered);
    assert_eq!(judged("slack", 200, "okay").0, retry);
    let (verdict, _, detail) = judged("slack", 404, "no_service");
    assert_eq!((verdict, &*detail), (AttemptVerdict::Dead, "404: no_service"));
    assert_eq!(judged("slack", 503, "ok").0, retry);
}

#[test]
fn texts_are_shortened_between_characters() {
    let text = "你".repeat(1000);
    let cut = shortened(&text, 2048, Overflow::Cut);
    assert_eq!(cut, [format!("{}…", "你".repeat(681))]);
    assert!(cut[0].len() <= 2048);
    let split = shortened(&text, 2048, Overflow::Split);
    assert_eq!(split.iter().map(String::len).collect::<Vec<_>>(), [2046, 954]);
    assert_eq!(split.concat(), text);
    for length in 2040..2060 {
        let text = "a".repeat(length) + &"🦀".repeat(3);
        for overflow in [Overflow::Cut, Overflow::Split] {
            assert!(shortened(&text, 2048, overflow).iter().all(|piece| piece.len() <= 2048));
        }
    }
}
