//! `delivery::response::reply_verdict`, by cases.

use super::*;

/// With the usual rule, but for the statuses that count as delivered.
fn judged(reply: ResponseReply, success: &[u16]) -> (AttemptVerdict, Option<AttemptFailure>) {
    judge(reply, b"", &AnswerRule { success: success.to_vec(), ..AnswerRule::default() })
}

fn status(code: u16) -> ResponseReply {
    let status = StatusCode::from_u16(code).unwrap();
    ResponseReply::Response { status, retry_after: None, broken: None }
}

fn failure(class: FailureClass) -> AttemptFailure {
    AttemptFailure { class, detail: String::from("it broke") }
}

fn broken(code: u16, class: FailureClass) -> ResponseReply {
    let status = StatusCode::from_u16(code).unwrap();
    ResponseReply::Response { status, retry_after: None, broken: Some(failure(class)) }
}

const RETRY: AttemptVerdict = AttemptVerdict::Retry { at_least: None };

#[test]
fn each_status_has_one_verdict() {
    for code in 100..=999 {
        let expected = match code {
            200..=299 => AttemptVerdict::Delivered,
            408 | 425 | 429 | 500..=599 => RETRY,
            410 => AttemptVerdict::Gone,
            _ => AttemptVerdict::Dead,
        };
        let (verdict, failure) = judged(status(code), &[]);
        assert_eq!(verdict, expected, "case: {code}");
        assert_eq!(failure.is_none(), verdict == AttemptVerdict::Delivered, "case: {code}");
    }
}

#[test]
fn a_success_list_replaces_the_rule_that_every_2xx_is_good() {
    let cases = [
        (200, AttemptVerdict::Delivered),
        (201, RETRY),
        (409, AttemptVerdict::Delivered),
        (404, AttemptVerdict::Dead),
        (500, RETRY),
    ];
    for (code, expected) in cases {
        assert_eq!(judged(status(code), &[200, 409]).0, expected, "case: {code}");
    }
}

#[test]
fn a_success_counts_only_when_complete_and_a_refusal_in_any_case() {
    let cases = [
        ("2xx cut off", broken(200, FailureClass::Protocol), RETRY, FailureClass::Protocol),
        ("2xx dripping", broken(204, FailureClass::Timeout), RETRY, FailureClass::Timeout),
        ("404", broken(404, FailureClass::Timeout), AttemptVerdict::Dead, FailureClass::Status),
        ("410", broken(410, FailureClass::Protocol), AttemptVerdict::Gone, FailureClass::Status),
        ("500", broken(500, FailureClass::Timeout), RETRY, FailureClass::Status),
    ];
    for (name, reply, expected, class) in cases {
        let (verdict, failure) = judged(reply, &[]);
        assert_eq!((verdict, failure.unwrap().class), (expected, class), "case: {name}");
    }
}

#[test]
fn each_failure_has_one_verdict() {
    let cases = [
        (FailureClass::Timeout, RETRY),
        (FailureClass::Dns, RETRY),
        (FailureClass::Connect, RETRY),
        (FailureClass::Tls, RETRY),
        (FailureClass::Protocol, RETRY),
        (FailureClass::Refused, AttemptVerdict::Dead),
        (FailureClass::Request, AttemptVerdict::Dead),
    ];
    for (class, expected) in cases {
        let (verdict, kept) = judged(ResponseReply::Nothing(failure(class)), &[]);
        assert_eq!((verdict, kept), (expected, Some(failure(class))), "case: {class}");
    }
}

#[test]
fn a_wait_that_the_receiver_asks_for_is_kept_with_a_retry_only() {
    let wait = Some(Duration::from_secs(7));
    let with_wait = |code| {
        let status = StatusCode::from_u16(code).unwrap();
        judged(ResponseReply::Response { status, retry_after: wait, broken: None }, &[]).0
    };
    assert_eq!(with_wait(429), AttemptVerdict::Retry { at_least: wait });
    assert_eq!(with_wait(503), AttemptVerdict::Retry { at_least: wait });
    assert_eq!(with_wait(404), AttemptVerdict::Dead);
}

#[test]
fn an_answer_must_say_what_the_rule_asks_for() {
    let cases = [
        (r#"{"errcode":0,"errmsg":"ok"}"#, AttemptVerdict::Delivered),
        (r#"{"errcode":0.0}"#, AttemptVerdict::Delivered),
        (r#"{"errcode":45009}"#, RETRY),
        (r#"{"errcode":"0"}"#, RETRY),
        (r#"{"errmsg":"ok"}"#, RETRY),
        ("ok", RETRY),
        ("", RETRY),
    ];
    let body = BodyRule { pointer: String::from("/errcode"), equals: 0.into() };
    let rule = AnswerRule { body: Some(body), ..AnswerRule::default() };
    for (answer, expected) in cases {
        let (verdict, failure) = judge(status(200), answer.as_bytes(), &rule);
        assert_eq!(verdict, expected, "case: {answer}");
        let detail = failure.map(|failure| failure.detail);
        let said = (expected == RETRY).then_some("200 OK, but its body does not say /errcode = 0");
        assert_eq!(detail.as_deref(), said, "case: {answer}");
    }
    assert_eq!(judge(status(404), br#"{"errcode":0}"#, &rule).0, AttemptVerdict::Dead);
}

#[test]
fn which_answers_are_worth_another_attempt_can_be_said() {
    let idp = RetryOn::Statuses(vec![429..=429, 500..=599]);
    let cases = [
        (&idp, 429, RETRY),
        (&idp, 503, RETRY),
        (&idp, 408, AttemptVerdict::Dead),
        (&idp, 404, AttemptVerdict::Dead),
        (&idp, 410, AttemptVerdict::Gone),
        (&RetryOn::Everything, 404, RETRY),
        (&RetryOn::Everything, 410, RETRY),
        (&RetryOn::Everything, 302, RETRY),
        (&RetryOn::Everything, 201, RETRY),
    ];
    for (retry, code, expected) in cases {
        let (success, retry) = (vec![200], retry.clone());
        let rule = AnswerRule { success, retry, ..AnswerRule::default() };
        assert_eq!(judge(status(code), b"", &rule).0, expected, "case: {code} under {rule:?}");
        let rule = AnswerRule { gone: GoneMeaning::Dead, ..rule };
        let expected = if code == 410 && expected == AttemptVerdict::Gone {
            AttemptVerdict::Dead
        } else {
            expected
        };
        assert_eq!(judge(status(code), b"", &rule).0, expected, "case: {code} under {rule:?}");
    }
}
