//! The pure parts of a row's way, each alone: decode, route and render, JSON, lane, sign, watermark.
//!
//! `cargo bench --bench micro` measures them, `cargo bench --bench micro -- --test` only runs each
//! once. What walhook does with them together is measured by the other benchmark.

#![expect(clippy::unwrap_used, reason = "a benchmark may stop at once")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use bytes::BufMut;
use bytes::Bytes;
use bytes::BytesMut;
use criterion::BatchSize;
use criterion::Criterion;
use criterion::Throughput;
use criterion::criterion_group;
use criterion::criterion_main;
use walhook::testing::config;
use walhook::testing::config::configuration::Settings;
use walhook::testing::delivery::sign::RequestSigner;
use walhook::testing::event::datum;
use walhook::testing::event::plan::RoutedEvent;
use walhook::testing::event::route::EventRouter;
use walhook::testing::flow::change::CapturedItem;
use walhook::testing::flow::change::CommittedChange;
use walhook::testing::flow::event::Event;
use walhook::testing::flow::headers::HeaderLines;
use walhook::testing::flow::lsn::Lsn;
use walhook::testing::flow::relation::SqlType;
use walhook::testing::flow::settlement::EndpointIndex;
use walhook::testing::flow::time::Timestamp;
use walhook::testing::flow::verdict::AttemptReach;
use walhook::testing::flow::verdict::AttemptVerdict;
use walhook::testing::flow::verdict::HttpExchange;
use walhook::testing::flow::watermark::Watermark;
use walhook::testing::lane::core::DeliveryPlace;
use walhook::testing::lane::core::LaneNow;
use walhook::testing::lane::core::LaneState;
use walhook::testing::lane::settings::LaneSettings;
use walhook::testing::replication::assemble::ChangeAssembler;
use walhook::testing::replication::pgoutput;

/// Name, type and value of the columns of the row that stands for all.
const COLUMNS: [(&str, u32, &str); 7] = [
    ("id", 20, "4711"),
    ("customer_id", 20, "815"),
    ("status", 25, "paid"),
    ("total", 1700, "1743.07"),
    ("note", 25, "gift wrap, please ring twice"),
    ("sent_at", 20, "0"),
    ("created_at", 1184, "2025-10-17 10:30:00.123456+00"),
];

const OID: u32 = 16_384;
const COMMIT: u64 = 0x16_B374_D848;

fn settings() -> Settings {
    let text = r#"
        [postgres]
        url = "postgres://walhook@localhost/app"
        [webhook]
        secret = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
        [[event]]
        type = "orders.created"
        table = "public.orders"
        on = ["insert"]
        [[endpoint]]
        name = "crm"
        url = "http://127.0.0.1:9/"
        concurrency = 32
    "#;
    config::parse(text, "the benchmark's configuration", &|_| None).unwrap()
}

fn begin() -> Bytes {
    let mut message = BytesMut::from(&b"B"[..]);
    message.put_u64(COMMIT);
    message.put_i64(0);
    message.put_u32(7);
    message.freeze()
}

fn relation() -> Bytes {
    let mut message = BytesMut::from(&b"R"[..]);
    message.put_u32(OID);
    message.put_slice(b"public\0orders\0d");
    message.put_u16(u16::try_from(COLUMNS.len()).unwrap());
    for (name, type_oid, _) in COLUMNS {
        message.put_u8(u8::from(name == "id"));
        message.put_slice(name.as_bytes());
        message.put_u8(0);
        message.put_u32(type_oid);
        message.put_i32(-1);
    }
    message.freeze()
}

fn insert() -> Bytes {
    let mut message = BytesMut::from(&b"I"[..]);
    message.put_u32(OID);
    message.put_u8(b'N');
    message.put_u16(u16::try_from(COLUMNS.len()).unwrap());
    for (_, _, value) in COLUMNS {
        message.put_u8(b't');
        message.put_u32(u32::try_from(value.len()).unwrap());
        message.put_slice(value.as_bytes());
    }
    message.freeze()
}

/// An assembler in the middle of a transaction that knows the relation.
fn assembler() -> ChangeAssembler {
    let mut assembler = ChangeAssembler::new();
    for raw in [begin(), relation()] {
        let message = pgoutput::decode(&raw).unwrap();
        assembler.accept(message, &raw, None, &mut Vec::new()).unwrap();
    }
    assembler
}

fn change() -> CommittedChange {
    let (raw, mut captured) = (insert(), Vec::new());
    let message = pgoutput::decode(&raw).unwrap();
    assembler().accept(message, &raw, None, &mut captured).unwrap();
    match captured.pop() {
        Some(CapturedItem::Change(change)) => change,
        other => unreachable!("an insert is a change: {other:?}"),
    }
}

fn event() -> Event {
    let settings = settings();
    let mut router = EventRouter::new(7, &settings.events, &settings.endpoints);
    let mut made = None;
    router.route(&change(), Timestamp::default(), |_, routed| match routed {
        RoutedEvent::Event(event) => made = Some(*event),
        other => unreachable!("the row becomes an event: {other:?}"),
    });
    made.unwrap()
}

fn decode(c: &mut Criterion) {
    let raw = insert();
    let mut group = c.benchmark_group("decode");
    group.throughput(Throughput::Bytes(raw.len() as u64));
    group.bench_function("an insert", |b| b.iter(|| pgoutput::decode(black_box(&raw))));
    let (mut assembler, mut captured) = (assembler(), Vec::new());
    group.bench_function("an insert, to a change", |b| {
        b.iter(|| {
            let message = pgoutput::decode(black_box(&raw)).unwrap();
            captured.clear();
            // Ordinals have 32 bits, which are far more than a benchmark's rounds.
            assembler.accept(message, &raw, None, &mut captured)
        });
    });
    group.finish();
}

fn route(c: &mut Criterion) {
    let (settings, change) = (settings(), change());
    let mut router = EventRouter::new(7, &settings.events, &settings.endpoints);
    c.bench_function("route and render a change", |b| {
        b.iter(|| {
            router.route(black_box(&change), Timestamp::default(), |_, routed| {
                black_box(routed);
            });
        });
    });
}

fn json(c: &mut Criterion) {
    let text = "Größe \"42\"\n".repeat(100);
    let array = format!("{{{}}}", ["1", "NULL", "-7"].repeat(50).join(","));
    let integers = SqlType::Array { element: Arc::new(SqlType::Integer), delimiter: b',' };
    let cases = [
        ("integer", SqlType::Integer, "4711"),
        ("numeric", SqlType::Numeric, "-1743.07"),
        ("timestamptz", SqlType::TimestampTz, "2025-10-17 10:30:00.123456+00"),
        ("text of 28 bytes", SqlType::Text, "gift wrap, please ring twice"),
        ("text of 1,300 bytes", SqlType::Text, &text),
        ("json", SqlType::Json, r#"{"a": [1, 2, {"b": null}], "c": "text"}"#),
        ("bytea", SqlType::Bytea, r"\x000102030405060708090a0b0c0d0e0f"),
        ("array of 150", integers, &array),
    ];
    let mut group = c.benchmark_group("json");
    let mut out = Vec::new();
    for (name, sql_type, text) in &cases {
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(*name, |b| {
            b.iter(|| {
                out.clear();
                datum::write_json(&mut out, sql_type, black_box(text.as_bytes()));
                black_box(&out);
            });
        });
    }
    group.finish();
}

fn lane(c: &mut Criterion) {
    const EVENTS: u64 = 1000;
    let settings = LaneSettings::of(EndpointIndex(0), settings().endpoints.first().unwrap());
    let delivered = HttpExchange {
        verdict: AttemptVerdict::Delivered,
        reach: AttemptReach::Endpoint,
        requests: 1,
        failure: None,
        status: Some(200),
        took: Duration::from_millis(1),
        request_headers: HeaderLines::default(),
        response_headers: HeaderLines::default(),
        response_body: Bytes::new(),
    };
    let event = Arc::new(event());
    let now = LaneNow { instant: Instant::now(), database: Timestamp::default() };
    let mut group = c.benchmark_group("lane");
    group.throughput(Throughput::Elements(EVENTS));
    // One key for all: the longest chain.
    group.bench_function("1,000 events of one key, offered, leased and delivered", |b| {
        b.iter_batched_ref(
            || LaneState::new(settings.clone()),
            |lane| {
                (0..EVENTS).for_each(|_| lane.offer(Arc::clone(&event), DeliveryPlace::Own, now));
                while let Some(lease) = lane.lease(now) {
                    lane.complete(lease.id, &delivered, now, 0.5);
                }
                (lane.take_settled(), lane.take_freed())
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn sign(c: &mut Criterion) {
    let settings = settings();
    let signing = settings.endpoints.first().unwrap().signing.as_ref().unwrap();
    let signer = RequestSigner::new(signing);
    let mut group = c.benchmark_group("sign");
    for bytes in [200, 4096] {
        let body = vec![b'x'; bytes];
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(format!("a body of {bytes} bytes"), |b| {
            b.iter(|| {
                let id = "evt_00000000016b3748000000002a9d4c1be07f5533";
                let mut signature = signer.begin(id, "1700000000");
                signature.add(black_box(&body));
                signature.finish()
            });
        });
    }
    group.finish();
}

fn watermark(c: &mut Criterion) {
    const EVENTS: u64 = 1000;
    let mut group = c.benchmark_group("watermark");
    group.throughput(Throughput::Elements(EVENTS));
    group.bench_function("1,000 events, settled in reverse", |b| {
        b.iter(|| {
            let mut mark = Watermark::default();
            for n in 0..EVENTS {
                mark.open(Timestamp::default(), 1);
                mark.boundary(Lsn::from_raw(n + 1));
            }
            (0..EVENTS).rev().for_each(|n| mark.settle(n));
            mark.confirmable()
        });
    });
    group.finish();
}

criterion_group!(benches, decode, route, json, lane, sign, watermark);
criterion_main!(benches);
