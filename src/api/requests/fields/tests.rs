//! `api::requests::fields`, by cases.

use serde::Deserialize;
use utoipa::ToSchema;

use super::*;
use crate::api::openapi::request_shape::RequestShape;
use crate::api::requests::field_kinds::AskedTime;
use crate::api::requests::field_kinds::BoundedNumber;
use crate::api::requests::field_kinds::FieldWords;
use crate::api::requests::field_kinds::IdList;
use crate::api::requests::field_kinds::KnownWord;
use crate::api::requests::field_kinds::OneWord;
use crate::api::requests::field_kinds::TextList;

#[derive(Clone, Debug)]
struct FailureWords;

impl FieldWords for FailureWords {
    type Meaning = u8;

    fn words() -> Vec<(&'static str, u8)> {
        vec![("timeout", 1), ("poison", 2), ("status", 3)]
    }
}

type SmallNumber = BoundedNumber<1, 9>;
type FailureWord = KnownWord<FailureWords>;
type ChosenWord = OneWord<FailureWords>;

#[derive(Debug, Deserialize, ToSchema)]
struct AllKinds {
    endpoint: Option<String>,
    from: Option<AskedTime>,
    limit: Option<SmallNumber>,
    class: Option<FailureWord>,
    word: Option<ChosenWord>,
    #[serde(default)]
    all: bool,
    ids: Option<IdList>,
    #[serde(default)]
    texts: TextList,
}

fn query(text: &str) -> Result<AllKinds, ProblemResponse> {
    AllKinds::of(&RequestFields::of_query(Some(text), &AllKinds::names())?)
}

fn body(text: &str) -> Result<AllKinds, ProblemResponse> {
    AllKinds::of(&RequestFields::of_body(text.as_bytes(), &AllKinds::names())?)
}

#[test]
fn what_is_wrong_with_a_query_is_said_in_words() {
    let cases = [
        ("endpiont=crm", "unknown parameter \"endpiont\": did you mean endpoint?"),
        ("limit=1&limit=2", "parameter limit is there twice: give it once"),
        ("limit=0", "limit must be a number from 1 to 9, not \"0\""),
        ("limit=x", "limit must be a number from 1 to 9, not \"x\""),
        ("all=1", "all must be true or false"),
        ("class=poisn", "class \"poisn\" is unknown: did you mean poison?"),
        ("class=zzz", "class \"zzz\" is unknown: known are timeout, poison, status"),
        (
            "word=statsu",
            "word must be one of timeout, poison, status, not \"statsu\": did you mean status?",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(query(text).expect_err(text).detail(), expected, "case: {text}");
    }
    let stranger = query("x=1").expect_err("nothing is like it");
    let expected = "unknown parameter \"x\": known here are endpoint, from, limit, class, word, \
                    all, ids, texts";
    assert_eq!(stranger.detail(), expected);
    let found = query("endpoint=a&limit=9&all=true&class=status&word=poison").expect("sound");
    assert_eq!(found.endpoint.as_deref(), Some("a"));
    assert_eq!((found.limit.map(|limit| limit.0), found.all), (Some(9), true));
    assert_eq!(
        (found.class.map(|class| class.0).as_deref(), found.word.map(|word| word.0)),
        (Some("status"), Some(2))
    );
}

#[test]
fn what_is_wrong_with_a_body_is_said_in_words() {
    let cases = [
        (r#"{"limit": "5"}"#, "limit must be a number from 1 to 9, not \"\\\"5\\\"\""),
        (r#"{"limit": 10}"#, "limit must be a number from 1 to 9, not \"10\""),
        (r#"{"endpoint": 5}"#, "endpoint must be a text in quotes, not 5"),
        (r#"{"all": "true"}"#, "all must be true or false"),
        (r#"{"ids": ["a"]}"#, "ids must be a list of numbers, such as [17, 18]"),
        (r#"{"ids": []}"#, "ids must be a list of numbers, such as [17, 18]"),
        (r#"{"texts": [1]}"#, "texts must be a list of texts, such as [\"a\", \"b\"]"),
        ("[1]", "the body must be a JSON object, such as {\"dry_run\": true}"),
        (r#"{"endpiont": 1}"#, "unknown field \"endpiont\": did you mean endpoint?"),
    ];
    for (text, expected) in cases {
        assert_eq!(body(text).expect_err(text).detail(), expected, "case: {text}");
    }
    let found =
        body(r#"{"ids": [1, 2], "all": true, "limit": 3, "endpoint": null, "texts": ["a"]}"#);
    let found = found.expect("sound");
    assert_eq!(found.ids, Some(IdList(vec![1, 2])));
    assert_eq!((found.all, found.endpoint, found.texts.0.len()), (true, None, 1));
    assert!(body("").expect("nothing is said").ids.is_none());
}

#[test]
fn a_parameter_with_two_names_says_one_thing() {
    let text = |text: &str| Some(text.to_owned());
    let of = |one, other| either(("endpoint", one), ("webhook_id", other));
    assert_eq!(of(text("a"), None).expect("one name"), text("a"));
    assert_eq!(of(text("a"), text("a")).expect("the same"), text("a"));
    let told = of(text("a"), text("b")).expect_err("two endpoints");
    assert_eq!(told.detail(), "endpoint and webhook_id are one parameter: give one of them");
}

#[test]
fn times_are_iso_8601() {
    let from = |text: &str| query(&format!("from={text}"));
    let second = |text: &str| from(text).ok().and_then(|f| f.from).map(|time| time.0.seconds());
    let cases = [
        ("2025-10-17T10:30:00Z", Some(1_760_697_000)),
        ("2025-10-17T10:30:00.5Z", Some(1_760_697_000)),
        ("2025-10-17T18:30:00+08:00", Some(1_760_697_000)),
        ("2025-10-17T18:30:00%2B08:00", Some(1_760_697_000)),
        ("2025-10-17", Some(1_760_659_200)),
        ("2025-10-17T10:30:00", None),
        ("yesterday", None),
    ];
    for (text, expected) in cases {
        assert_eq!(second(text), expected, "case: {text}");
    }
}
