//! Values by hand, and anything at all as any type; `tests/it/types.rs` compares with the server.

use std::sync::Arc;

use proptest::prelude::*;
use serde::de::IgnoredAny;
use serde_json::Value;
use serde_json::json;

use super::*;

fn written(sql_type: &SqlType, text: &[u8]) -> String {
    let mut out = b"before".to_vec();
    write_json(&mut out, sql_type, text);
    String::from_utf8(out).unwrap().split_off("before".len())
}

fn array(element: SqlType, delimiter: u8) -> SqlType {
    SqlType::Array { element: Arc::new(element), delimiter }
}

fn row(fields: impl IntoIterator<Item = (&'static str, SqlType)>) -> SqlType {
    let fields = fields.into_iter().map(|(name, sql_type)| (name.into(), Arc::new(sql_type)));
    SqlType::Composite { fields: fields.collect() }
}

#[test]
fn scalars_are_written_as_the_server_means_them() {
    let cases = [
        (SqlType::Bool, "t", "true"),
        (SqlType::Bool, "f", "false"),
        (SqlType::Bool, "maybe", r#""maybe""#),
        (SqlType::Integer, "-9223372036854775808", "-9223372036854775808"),
        (SqlType::Integer, "007", r#""007""#),
        (SqlType::Float, "1e-07", "1e-07"),
        (SqlType::Float, "-0", "-0"),
        (SqlType::Float, "NaN", r#""NaN""#),
        (SqlType::Float, "-Infinity", r#""-Infinity""#),
        (SqlType::Numeric, "0.10000000000000000000000001", "0.10000000000000000000000001"),
        (SqlType::Numeric, "1.", r#""1.""#),
        (SqlType::Json, r#" {"a": 1e400, "a":"\ud800 "} "#, r#"{"a":1e400,"a":"\ud800 "}"#),
        (SqlType::Json, "{", r#""{""#),
        (SqlType::Date, "0044-03-15 BC", r#""0044-03-15 BC""#),
        (SqlType::Timestamp, "2024-02-29 12:34:56.5", r#""2024-02-29T12:34:56.5""#),
        (SqlType::Timestamp, "0044-03-15 12:00:00 BC", r#""0044-03-15T12:00:00 BC""#),
        (SqlType::Timestamp, "infinity", r#""infinity""#),
        (SqlType::TimestampTz, "2024-02-29 12:34:56.5+00", r#""2024-02-29T12:34:56.5Z""#),
        (SqlType::TimestampTz, "0044-03-15 12:00:00+00 BC", r#""0044-03-15T12:00:00Z BC""#),
        (SqlType::TimestampTz, "2024-02-29 12:34:56-03", r#""2024-02-29T12:34:56-03:00""#),
        (SqlType::TimestampTz, "2024-02-29 12:34:56+05:30", r#""2024-02-29T12:34:56+05:30""#),
        (SqlType::TimestampTz, "-infinity", r#""-infinity""#),
        (SqlType::Bytea, r"\x", r#""""#),
        (SqlType::Bytea, r"\x00", r#""AA==""#),
        (SqlType::Bytea, r"\x00ff", r#""AP8=""#),
        (SqlType::Bytea, r"\x00ff10", r#""AP8Q""#),
        (SqlType::Bytea, r"\x0", r#""\\x0""#),
        (SqlType::Bytea, r"\x0g", r#""\\x0g""#),
        (SqlType::Text, "a\u{1}\"\\\n", r#""a\u0001\"\\\n""#),
    ];
    for (sql_type, text, expected) in cases {
        assert_eq!(written(&sql_type, text.as_bytes()), expected, "case: {sql_type:?} {text}");
    }
    assert_eq!(written(&SqlType::Text, b"a\xffb"), "\"a\u{FFFD}b\"");
    assert_eq!(written(&SqlType::Json, b"\"a\xffb\""), "\"a\u{FFFD}b\"");
}

#[test]
fn values_made_of_values_become_arrays_and_objects() {
    let ints = || array(SqlType::Integer, b',');
    let texts = || array(SqlType::Text, b',');
    let pair = || row([("n", SqlType::Integer), ("t", SqlType::Text)]);
    let cases = [
        (ints(), "{}", json!([])),
        (ints(), "{1,NULL,3}", json!([1, null, 3])),
        (ints(), "{{1,2},{3,4}}", json!([[1, 2], [3, 4]])),
        (ints(), "[0:1]={1,2}", json!([1, 2])),
        (ints(), "[-2:-2][5:6]={{1,2}}", json!([[1, 2]])),
        (ints(), "{1,x}", json!([1, "x"])),
        (texts(), r#"{"NULL",NULL,""}"#, json!(["NULL", null, ""])),
        (texts(), r#"{"a,b","c\"d\\","{}"," "}"#, json!(["a,b", "c\"d\\", "{}", " "])),
        (
            array(SqlType::Text, b';'),
            "{(1,1),(0,0);(2,2),(0,0)}",
            json!(["(1,1),(0,0)", "(2,2),(0,0)"]),
        ),
        (array(SqlType::Bytea, b','), r#"{"\\x00ff"}"#, json!(["AP8="])),
        (array(ints(), b','), r#"{"{1,2}","{}"}"#, json!([[1, 2], []])),
        (SqlType::Vector { element: Arc::new(SqlType::Integer) }, "1 2", json!([1, 2])),
        (SqlType::Vector { element: Arc::new(SqlType::Text) }, "", json!([])),
        (row([]), "()", json!({})),
        (row([("n", SqlType::Integer)]), "()", json!({"n": null})),
        (pair(), r#"(1,"a ""b"" \\c")"#, json!({"n": 1, "t": "a \"b\" \\c"})),
        (pair(), r#"(,"")"#, json!({"n": null, "t": ""})),
        (array(pair(), b','), r#"{"(1,\"x,y\")",NULL}"#, json!([{"n": 1, "t": "x,y"}, null])),
        (
            row([("a", ints()), ("r", pair())]),
            r#"("{1,2}","(3,""a b"")")"#,
            json!({"a": [1, 2], "r": {"n": 3, "t": "a b"}}),
        ),
    ];
    for (sql_type, text, expected) in cases {
        let json: Value = serde_json::from_str(&written(&sql_type, text.as_bytes())).unwrap();
        assert_eq!(json, expected, "case: {text}");
    }
}

#[test]
fn a_row_that_is_older_than_its_type_has_the_first_attributes() {
    let pair = row([("n", SqlType::Integer), ("t", SqlType::Text)]);
    assert_eq!(written(&pair, b"(1)"), r#"{"n":1}"#);
    assert_eq!(written(&pair, b"()"), r#"{"n":null}"#);
    assert_eq!(written(&pair, b"(1,)"), r#"{"n":1,"t":null}"#);
}

#[test]
fn text_that_is_not_of_its_type_is_a_string() {
    let ints = array(SqlType::Integer, b',');
    let pair = row([("n", SqlType::Integer), ("t", SqlType::Text)]);
    let arrays = [
        "",
        "{",
        "}",
        "{1",
        "{1,}",
        "{,1}",
        "{1}}",
        "{1}x",
        "x",
        "[0:1]",
        "[x]={1}",
        "{\"1}",
        "{1\\",
        "{{1}{2}}",
        "{{{{{{{1}}}}}}}",
        "{1\"2\"}",
    ];
    let rows = ["", "(", "(1,2", "(1,2,3)", "(1,2)x", "(1)x", "(1,\"2)", "(1,2\\", "1,2"];
    let cases =
        arrays.iter().map(|text| (&ints, text)).chain(rows.iter().map(|text| (&pair, text)));
    for (sql_type, text) in cases {
        let json: Value = serde_json::from_str(&written(sql_type, text.as_bytes())).unwrap();
        assert_eq!(json, json!(text));
    }
}

#[test]
fn times_and_numbers_are_points_in_time() {
    let second = 1_000_000;
    let cases = [
        (SqlType::TimestampTz, "1970-01-01 00:00:00+00", Some(0)),
        (SqlType::TimestampTz, "2023-12-21 01:50:56.25+00", Some(1_703_123_456_250_000)),
        (SqlType::TimestampTz, "2023-12-21 07:20:56+05:30", Some(1_703_123_456 * second)),
        (SqlType::TimestampTz, "1969-12-31 23:59:59.999999+00", Some(-1)),
        (SqlType::TimestampTz, "1883-01-01 00:00:00-00:00:15", Some(-2_745_446_385 * second)),
        (SqlType::Timestamp, "2023-12-21 01:50:56", Some(1_703_123_456 * second)),
        (SqlType::Timestamp, "0001-12-31 00:00:00 BC", Some(-62_135_683_200 * second)),
        (SqlType::Date, "2024-02-29", Some(1_709_164_800 * second)),
        (SqlType::Date, "5874897-12-31", Some(i64::MAX)),
        (SqlType::Timestamp, "294276-12-31 23:59:59", Some(i64::MAX)),
        (SqlType::TimestampTz, "infinity", Some(i64::MAX)),
        (SqlType::Date, "-infinity", Some(i64::MIN)),
        (SqlType::Integer, "1703123456", Some(1_703_123_456 * second)),
        (SqlType::Integer, "9223372036854775807", None),
        (SqlType::Numeric, "1703123456.7891239", Some(1_703_123_456_789_123)),
        (SqlType::Numeric, "-0.5", Some(-500_000)),
        (SqlType::Float, "1.703123456e+09", Some(1_703_123_456 * second)),
        (SqlType::Float, "Infinity", None),
        (SqlType::Float, "NaN", None),
        (SqlType::Numeric, "NaN", None),
        (SqlType::Text, "1703123456", None),
        (SqlType::Timestamp, "2023-13-21 01:50:56", None),
        (SqlType::Timestamp, "2023-12-21 01:50", None),
        (SqlType::TimestampTz, "2023-12-21 01:50:56+00x", None),
        (SqlType::Date, "12345678-01-01", None),
    ];
    for (sql_type, text, expected) in cases {
        let found = timestamp(&sql_type, text.as_bytes()).map(Timestamp::micros);
        assert_eq!(found, expected, "case: {sql_type:?} {text}");
    }
}

#[test]
fn seconds_are_whole_and_rounded_down() {
    let cases = [
        (SqlType::TimestampTz, "2023-12-21 01:50:56.999999+00", Some(1_703_123_456)),
        (SqlType::Timestamp, "1969-12-31 23:59:59.5", Some(-1)),
        (SqlType::Timestamp, "294276-12-31 23:59:59", Some(9_224_318_015_999)),
        (SqlType::Numeric, "-0.5", Some(-1)),
        (SqlType::TimestampTz, "infinity", None),
    ];
    for (sql_type, text, expected) in cases {
        assert_eq!(epoch_seconds(&sql_type, text.as_bytes()), expected, "case: {text}");
    }
}

fn sql_type() -> impl Strategy<Value = SqlType> {
    let scalar = prop::sample::select(vec![
        SqlType::Bool,
        SqlType::Integer,
        SqlType::Float,
        SqlType::Numeric,
        SqlType::Json,
        SqlType::Date,
        SqlType::Timestamp,
        SqlType::TimestampTz,
        SqlType::Bytea,
        SqlType::Text,
        SqlType::Vector { element: Arc::new(SqlType::Integer) },
    ]);
    scalar.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            (inner.clone(), prop::sample::select(vec![b',', b';'])).prop_map(
                |(element, delimiter)| SqlType::Array { element: Arc::new(element), delimiter }
            ),
            prop::collection::vec((".{0,5}", inner.prop_map(Arc::new)), 0..3)
                .prop_map(|fields| SqlType::Composite { fields }),
        ]
    })
}

/// Bytes that are likely to get far: mostly what the formats are made of.
fn text() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        8 => "[{}()\\[\\]:=,;\"\\\\ +.0-9TZxeBCtfNUL-]{1,4}".prop_map(String::into_bytes),
        1 => prop::sample::select(vec!["\\x00", "NULL", "2024-02-29 12:00:00+00", "[0:1]="])
            .prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 1..4),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

/// A value and its text, as the server's output functions write it.
type Sample = (Value, Vec<u8>);

fn value_of(sql_type: &SqlType) -> BoxedStrategy<Sample> {
    match sql_type {
        SqlType::Array { element, delimiter } => {
            let delimiter = *delimiter;
            let element = prop::option::of(value_of(element));
            prop::collection::vec(element, 0..4)
                .prop_map(move |elements| array_text(elements, delimiter))
                .boxed()
        }
        SqlType::Composite { fields } => {
            let fields: Vec<_> = fields
                .iter()
                .map(|(name, sql_type)| (Just(name.clone()), prop::option::of(value_of(sql_type))))
                .collect();
            fields.prop_map(row_text).boxed()
        }
        SqlType::Integer => {
            any::<i64>().prop_map(|n| (json!(n), n.to_string().into_bytes())).boxed()
        }
        _ => "[ -~\n]{0,6}".prop_map(|text| (json!(text), text.into_bytes())).boxed(),
    }
}

fn array_text(elements: Vec<Option<Sample>>, delimiter: u8) -> Sample {
    let (mut values, mut text) = (Vec::new(), b"{".to_vec());
    for (at, element) in elements.into_iter().enumerate() {
        if at > 0 {
            text.push(delimiter);
        }
        let Some((value, element)) = element else {
            values.push(Value::Null);
            text.extend_from_slice(b"NULL");
            continue;
        };
        values.push(value);
        let special = |byte: &u8| b"{}\"\\ \n".contains(byte) || *byte == delimiter;
        let quoted = element.is_empty()
            || element.eq_ignore_ascii_case(b"null")
            || element.iter().any(special);
        text.extend_from_slice(if quoted { b"\"" } else { b"" });
        for byte in element {
            text.extend_from_slice(if b"\"\\".contains(&byte) { b"\\" } else { b"" });
            text.push(byte);
        }
        text.extend_from_slice(if quoted { b"\"" } else { b"" });
    }
    text.push(b'}');
    (Value::Array(values), text)
}

fn row_text(fields: Vec<(String, Option<Sample>)>) -> Sample {
    let (mut object, mut text) = (serde_json::Map::new(), b"(".to_vec());
    for (at, (name, field)) in fields.into_iter().enumerate() {
        if at > 0 {
            text.push(b',');
        }
        let Some((value, field)) = field else {
            object.insert(name, Value::Null);
            continue;
        };
        object.insert(name, value);
        let quoted = field.is_empty() || field.iter().any(|byte| b"()\"\\, \n".contains(byte));
        text.extend_from_slice(if quoted { b"\"" } else { b"" });
        for byte in field {
            text.push(byte);
            if b"\"\\".contains(&byte) {
                text.push(byte);
            }
        }
        text.extend_from_slice(if quoted { b"\"" } else { b"" });
    }
    text.push(b')');
    (Value::Object(object), text)
}

/// Types of texts and numbers only, of which [`value_of`] can make values.
fn nested_type() -> impl Strategy<Value = SqlType> {
    let scalar = prop::sample::select(vec![SqlType::Integer, SqlType::Text]);
    scalar.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            (inner.clone(), prop::sample::select(vec![b',', b';'])).prop_map(
                |(element, delimiter)| SqlType::Array { element: Arc::new(element), delimiter }
            ),
            prop::collection::vec(inner, 0..3)
                .prop_map(|fields| row(["a", "b\"", "c"].into_iter().zip(fields))),
        ]
    })
}

proptest! {
    #[test]
    fn any_text_as_any_type_is_valid_json(sql_type in sql_type(), text in text()) {
        let json = written(&sql_type, &text);
        prop_assert!(serde_json::from_str::<IgnoredAny>(&json).is_ok(), "{json}");
    }

    #[test]
    fn any_text_as_any_type_is_a_point_in_time_or_none(sql_type in sql_type(), text in text()) {
        let seconds = epoch_seconds(&sql_type, &text);
        let micros = timestamp(&sql_type, &text).map(Timestamp::micros);
        if let (Some(seconds), Some(micros)) = (seconds, micros) {
            let exact = micros != i64::MAX && micros != i64::MIN;
            prop_assert!(!exact || micros.div_euclid(1_000_000) == seconds);
        }
    }

    #[test]
    fn nested_values_read_back_the_same(
        (value, text, sql_type) in nested_type().prop_flat_map(|sql_type| {
            (value_of(&sql_type), Just(sql_type)).prop_map(|((value, text), t)| (value, text, t))
        }),
    ) {
        let json: Value = serde_json::from_str(&written(&sql_type, &text)).unwrap();
        prop_assert_eq!(json, value, "{}", String::from_utf8_lossy(&text));
    }

    #[test]
    fn days_are_counted_as_the_calendar_does(days in -1_000_000_i32..1_000_000) {
        let date = chrono::NaiveDate::from_epoch_days(days).unwrap();
        let (era, year) = chrono::Datelike::year_ce(&date);
        let suffix = if era { "" } else { " BC" };
        let text = format!("{year:04}-{}{suffix}", date.format("%m-%d"));
        prop_assert_eq!(
            epoch_seconds(&SqlType::Date, text.as_bytes()), Some(i64::from(days) * 86_400), "{}", text
        );
    }
}
