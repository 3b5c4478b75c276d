//! Any text as a value of any type: the JSON must be valid.
//!
//! `cargo +nightly fuzz run datum -- -max_total_time=60`
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use serde::de::IgnoredAny;
use walhook::testing::event::datum;
use walhook::testing::flow::relation::SqlType;

/// A type built from the first bytes of the input: scalars in up to three layers.
fn sql_type(shape: &mut impl Iterator<Item = u8>, depth: u8) -> SqlType {
    let inner = |shape: &mut _| Arc::new(sql_type(shape, depth + 1));
    match shape.next().unwrap_or_default() % if depth < 3 { 13 } else { 10 } {
        0 => SqlType::Text,
        1 => SqlType::Bool,
        2 => SqlType::Integer,
        3 => SqlType::Float,
        4 => SqlType::Numeric,
        5 => SqlType::Json,
        6 => SqlType::Date,
        7 => SqlType::Timestamp,
        8 => SqlType::TimestampTz,
        9 => SqlType::Bytea,
        10 => SqlType::Vector { element: inner(shape) },
        11 => SqlType::Array { element: inner(shape), delimiter: b',' },
        _ => {
            let fields = [("a", inner(shape)), ("\"b\"", inner(shape))];
            let fields = fields.into_iter().map(|(name, sql_type)| (name.to_owned(), sql_type));
            SqlType::Composite { fields: fields.collect() }
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let (shape, text) = input.split_at(input.len().min(6));
    let sql_type = sql_type(&mut shape.iter().copied(), 0);
    let mut json = Vec::new();
    datum::write_json(&mut json, &sql_type, text);
    assert!(std::str::from_utf8(&json).is_ok());
    assert!(serde_json::from_slice::<IgnoredAny>(&json).is_ok());
    std::hint::black_box((
        datum::timestamp(&sql_type, text),
        datum::epoch_seconds(&sql_type, text),
    ));
});
