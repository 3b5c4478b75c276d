//! Types to JSON, compared with the server's own `to_jsonb`.
//!
//! For every type that a column can have, sample values are sent through the server, alone, in
//! arrays of one and two dimensions with odd bounds, and in rows; the text that comes back is what
//! the replication stream carries. What `write_json` makes of it must equal `to_jsonb`, but for
//! the differences that `event/datum.rs` lists.
#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "a test may stop at once"
)]

use tokio_postgres::Client;
use tokio_postgres::SimpleQueryMessage;
use walhook::testing::event::datum;
use walhook::testing::flow::relation::SqlType;
use walhook::testing::replication::types;

use crate::support::postgres::Database;
use crate::support::postgres::Sql;

mod json;
pub(crate) mod samples;

/// What the source pins, so that text has one form.
const SETTINGS: &str = "-c DateStyle=ISO -c TimeZone=UTC -c IntervalStyle=postgres \
                        -c bytea_output=hex -c extra_float_digits=3";

/// A session with the pinned settings, in a database of its own.
pub(crate) async fn connect() -> (Database, Sql) {
    let database = Database::create().await;
    let url =
        format!("{}?options={}", database.url(), SETTINGS.replace(' ', "%20").replace('=', "%3D"));
    let sql = Sql::connect(&url).await;
    (database, sql)
}

/// Runs one query in the simple protocol, in which every value comes as its type's text.
async fn texts(client: &Client, sql: &str) -> Vec<Option<String>> {
    let messages = match client.simple_query(sql).await {
        Ok(messages) => messages,
        Err(error) => panic!("{sql}: {error:?}"),
    };
    let row = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let row = row.unwrap_or_else(|| panic!("no row: {sql}"));
    (0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect()
}

/// Compares one value, given as an SQL expression.
async fn compare(client: &Client, expression: &str) {
    let sql = format!("SELECT v, to_jsonb(v), pg_typeof(v)::oid FROM (SELECT {expression}) s (v)");
    let row = texts(client, &sql).await;
    let [Some(text), Some(theirs), Some(oid)] = &row[..] else { panic!("null: {sql}") };
    let oid = oid.parse().unwrap();
    let resolved = types::resolve(client, &[oid]).await.unwrap();
    let sql_type = resolved[0].1.as_ref();
    let ours = written(sql_type, text);
    let theirs = json::with_documented_differences(sql_type, json::parse(theirs.as_bytes()));
    assert_eq!(json::parse(ours.as_bytes()), theirs, "case: {expression} as {sql_type:?}: {text}");
}

fn written(sql_type: &SqlType, text: &str) -> String {
    let mut out = Vec::new();
    datum::write_json(&mut out, sql_type, text.as_bytes());
    String::from_utf8(out).expect("JSON is UTF-8")
}

/// A type's samples alone and in everything that can be made of them.
async fn compare_all(client: &Client, type_name: &str, samples: &[String]) {
    let row_type = format!("pg_temp.\"row of {}\"", type_name.replace(['"', '.'], " "));
    client
        .batch_execute(&format!(
            "CREATE TYPE {row_type} AS
                (\"the value\" {type_name}, n int, \"an \"\"array\"\"\" {type_name}[])"
        ))
        .await
        .unwrap();
    for sample in samples {
        let value = format!("'{}'::{type_name}", sample.replace('\'', "''"));
        let array = format!("array_fill({value}, '{{2}}'::int[], '{{0}}'::int[])");
        let row = format!("ROW({value}, NULL, ARRAY[{value}, NULL]::{type_name}[])::{row_type}");
        compare(client, &value).await;
        // Arrays of vectors and of domains over arrays are written as text: the expression would
        // make them one array of more dimensions.
        compare(client, &format!("ARRAY[NULL, {row}, {row}]")).await;
        compare(client, &row).await;
        if is_array_like(client, &value).await {
            continue;
        }
        compare(client, &array).await;
        compare(client, &format!("ARRAY[[{value}, NULL], [{value}, {value}]]")).await;
        compare(client, &format!("array_fill({value}, '{{1,2}}'::int[], '{{-1,7}}'::int[])")).await;
    }
}

async fn is_array_like(client: &Client, value: &str) -> bool {
    let sql = format!(
        "SELECT typelem <> 0 AND typsubscript = 'array_subscript_handler'::regproc
         FROM pg_type WHERE oid = (SELECT coalesce(nullif(typbasetype, 0), oid)
                                   FROM pg_type WHERE oid = pg_typeof({value}))"
    );
    texts(client, &sql).await == [Some(String::from("t"))]
}

#[tokio::test]
async fn values_of_every_built_in_type_equal_to_jsonb() {
    let (_database, client) = connect().await;
    let known = samples::built_in();
    let rows = client
        .query(
            "SELECT t.oid, t.oid::regtype::text, t.typarray
             FROM pg_type t
             WHERE t.oid < 10000 AND t.typtype IN ('b', 'r', 'm') AND t.typarray <> 0
             ORDER BY t.oid",
            &[],
        )
        .await
        .unwrap();
    assert!(rows.len() > 70, "only {} types found", rows.len());
    for row in rows {
        let (oid, name, array): (u32, String, u32) = (row.get(0), row.get(1), row.get(2));
        assert!(types::builtin(oid).is_some(), "{name} ({oid}) is not known as built in");
        assert!(types::builtin(array).is_some(), "{name}[] ({array}) is not known as built in");
        if samples::WITHOUT_INPUT.contains(&name.as_str()) {
            continue;
        }
        let samples = known.iter().find(|(known, _)| *known == name);
        let (_, samples) = samples.unwrap_or_else(|| panic!("no samples of {name}"));
        assert!(!samples.is_empty(), "{name}");
        compare_all(&client, &name, samples).await;
    }
}

#[tokio::test]
async fn values_of_made_types_equal_to_jsonb() {
    let (_database, client) = connect().await;
    client.batch_execute(samples::MADE_TYPES).await.unwrap();
    for (type_name, samples) in samples::MADE {
        let samples: Vec<String> = samples.iter().map(ToString::to_string).collect();
        compare_all(&client, type_name, &samples).await;
    }
    for expression in samples::EXPRESSIONS {
        compare(&client, expression).await;
    }
}

#[tokio::test]
async fn of_json_only_the_white_space_between_tokens_is_left_out() {
    let (_database, client) = connect().await;
    let long = format!("1{}", "0".repeat(130_000));
    let documents = [
        (
            r#" {"b": 1e400, "a": 1, "b": " \ud800\u0000"}"#,
            r#"{"b":1e400,"a":1,"b":" \ud800\u0000"}"#,
        ),
        ("\"\\udc00\\ud800\"", "\"\\udc00\\ud800\""),
        ("[1,\t2\n]", "[1,2]"),
        (&long, &long),
    ];
    for (document, expected) in documents {
        let literal = document.replace('\'', "''");
        let json = texts(&client, &format!("SELECT '{literal}'::json")).await.remove(0).unwrap();
        assert_eq!(json, *document);
        assert_eq!(written(&SqlType::Json, &json), *expected);
    }
    let jsonb = texts(&client, "SELECT '{\"b\": 1.50, \"a\": [null]}'::jsonb").await.remove(0);
    assert_eq!(written(&SqlType::Json, &jsonb.unwrap()), r#"{"a":[null],"b":1.50}"#);
}

#[tokio::test]
async fn numbers_keep_exactly_their_digits() {
    let (_database, client) = connect().await;
    let many = format!("{}.{}", "7".repeat(130_000), "1".repeat(16_000));
    for number in ["9007199254740993", "0.10", "-0.000000000000000000000000000001", &many] {
        let sql = format!("SELECT '{number}'::numeric");
        let text = texts(&client, &sql).await.remove(0).unwrap();
        assert_eq!(written(&SqlType::Numeric, &text), number);
    }
}

#[tokio::test]
async fn points_in_time_equal_the_servers() {
    let (_database, client) = connect().await;
    // Not `extract` of the value itself: beyond 2^63 microseconds it rounds to whole seconds.
    let of_time = "extract(epoch FROM date_trunc('second', v))::int8";
    let of_date = "(v - date '1970-01-01')::int8 * 86400";
    for (type_name, sql_type, epoch) in [
        ("timestamptz", SqlType::TimestampTz, of_time),
        ("timestamp", SqlType::Timestamp, of_time),
        ("date", SqlType::Date, of_date),
    ] {
        for sample in samples::of(type_name) {
            let sql = format!(
                "SELECT v, CASE WHEN isfinite(v) THEN {epoch} END
                 FROM (SELECT '{sample}'::{type_name}) s (v)"
            );
            let [Some(text), seconds] = &texts(&client, &sql).await[..] else { panic!("{sql}") };
            let expected = seconds.as_ref().map(|seconds| seconds.parse::<i64>().unwrap());
            let found = datum::epoch_seconds(&sql_type, text.as_bytes());
            assert_eq!(found, expected, "case: {text}");
        }
    }
}

#[tokio::test]
async fn what_a_dropped_type_was_is_text() {
    let (_database, client) = connect().await;
    let resolved = types::resolve(&client, &[4_000_000_000, 20]).await.unwrap();
    let found: Vec<_> = resolved.iter().map(|(oid, t)| (*oid, t.as_ref().clone())).collect();
    assert_eq!(found, [(4_000_000_000, SqlType::Text), (20, SqlType::Integer)]);
}

#[tokio::test]
async fn a_primary_key_comes_in_its_own_order_and_without_included_columns() {
    let (_database, client) = connect().await;
    client
        .batch_execute(
            "CREATE TEMP TABLE keyed (a int, \"B\" int, c int, d int,
                                      PRIMARY KEY (c, \"B\") INCLUDE (d));
             CREATE TEMP TABLE keyless (a int UNIQUE)",
        )
        .await
        .unwrap();
    for (table, expected) in [("keyed", vec!["c", "B"]), ("keyless", vec![])] {
        let sql = format!("SELECT '{table}'::regclass::oid");
        let oid = texts(&client, &sql).await.remove(0).unwrap().parse().unwrap();
        assert_eq!(types::primary_key(&client, oid).await.unwrap(), expected, "case: {table}");
    }
}
