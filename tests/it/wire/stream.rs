//! Streaming: what arrives, what is confirmed, and what the connection survives.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]
#![expect(clippy::indexing_slicing, reason = "a test may stop at once")]

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use walhook::testing::flow::lsn::Lsn;
use walhook::testing::replication::diagnostic::SetupDiagnostic;
use walhook::testing::replication::error::SourceError;
use walhook::testing::replication::wire::command;
use walhook::testing::replication::wire::feedback::SlotRelease;
use walhook::testing::replication::wire::feedback::feedback;
use walhook::testing::replication::wire::frame::FrameReader;
use walhook::testing::replication::wire::frame::WireFrame;

use super::connect;
use super::create_slot;
use super::server;
use super::start;
use crate::support::postgres::Database;
use crate::support::postgres::Sql;

type Reader = FrameReader<tokio::io::ReadHalf<walhook::testing::store::transport::ServerTransport>>;

/// A stream with its feedback running.
struct Tail {
    frames: Reader,
    /// Read and not looked at yet: one read may bring several transactions.
    read: Vec<WireFrame>,
    confirm: watch::Sender<Lsn>,
    stop: CancellationToken,
    running: JoinSet<Result<(), SourceError>>,
}

impl Tail {
    async fn start(database: &Database) -> Self {
        Self::of(start(database).await.unwrap())
    }

    fn of(
        streaming: command::StreamingStart<walhook::testing::store::transport::ServerTransport>,
    ) -> Self {
        let (confirm, confirmed) = watch::channel(Lsn::ZERO);
        let stop = CancellationToken::new();
        let mut running = JoinSet::new();
        running.spawn(feedback(
            streaming.feedback,
            confirmed,
            SlotRelease::default(),
            stop.clone(),
        ));
        Self { frames: streaming.frames, read: Vec::new(), confirm, stop, running }
    }

    /// Payloads up to the next commit, and where that ends. Before version 15 PostgreSQL also
    /// sends transactions in which nothing is left: they are passed over.
    async fn transaction(&mut self) -> (Vec<bytes::Bytes>, Lsn) {
        let mut payloads = Vec::new();
        loop {
            if self.read.is_empty() {
                self.frames.read(&mut self.read).await.unwrap();
            }
            while !self.read.is_empty() {
                let frame = self.read.remove(0);
                let WireFrame::Data { payload, .. } = frame else { continue };
                if payload.first() == Some(&b'C') && payloads.len() == 1 {
                    payloads.clear();
                    continue;
                }
                if payload.first() == Some(&b'C') {
                    let end: [u8; 8] = payload[10..18].try_into().unwrap();
                    return (payloads, Lsn::from_raw(u64::from_be_bytes(end)));
                }
                payloads.push(payload);
            }
        }
    }

    async fn finish(mut self) {
        self.stop.cancel();
        self.frames.finish(Duration::from_secs(5)).await.unwrap();
        self.running.join_next().await.unwrap().unwrap().unwrap();
    }
}

async fn publish(database: &Database, table: &str) -> Sql {
    let sql = database.sql().await;
    sql.batch_execute(&format!("CREATE TABLE t {table}; CREATE PUBLICATION p FOR TABLE t"))
        .await
        .unwrap();
    create_slot(database).await;
    sql
}

fn contains(payload: &[u8], text: &str) -> bool {
    payload.windows(text.len()).any(|window| window == text.as_bytes())
}

#[tokio::test]
async fn what_is_confirmed_does_not_come_again_and_what_is_not_does() {
    let database = Database::create().await;
    let sql = publish(&database, "(id int)").await;
    for id in 1..=3 {
        sql.batch_execute(&format!("INSERT INTO t VALUES ({id})")).await.unwrap();
    }
    let mut tail = Tail::start(&database).await;
    let (first, end) = tail.transaction().await;
    assert!(contains(first.last().unwrap(), "1"));
    tail.transaction().await;
    tail.confirm.send(end).unwrap();
    tail.finish().await;

    let slot = connect(&database).await.slot(database.name()).await.unwrap().unwrap();
    assert_eq!(slot.confirmed, Some(end));
    assert_eq!(slot.active_pid, None, "the slot is free when the stream has been finished");
    let mut tail = Tail::start(&database).await;
    let (second, _) = tail.transaction().await;
    assert!(contains(second.last().unwrap(), "2"), "{second:?}");
}

#[tokio::test]
async fn text_is_the_same_whatever_the_role_has_set() {
    let database = Database::create().await;
    let sql = publish(&database, "(ts timestamptz, i interval, b bytea, f float8, d date)").await;
    let name = database.name();
    for (setting, value) in [
        ("DateStyle", "German, DMY"),
        ("IntervalStyle", "iso_8601"),
        ("TimeZone", "Asia/Tokyo"),
        ("bytea_output", "escape"),
        ("extra_float_digits", "-5"),
        ("client_encoding", "LATIN1"),
        ("client_min_messages", "error"),
        ("statement_timeout", "1ms"),
    ] {
        let set = format!("ALTER DATABASE {name} SET {setting} = '{value}'");
        sql.batch_execute(&set).await.unwrap();
    }
    let insert = "INSERT INTO t VALUES
        ('2024-02-01 03:04:05.6+00', '1 mon 2 days 03:00:00', '\\x00ff', 0.1::float8 + 0.2, '2024-02-01')";
    sql.batch_execute(insert).await.unwrap();
    let mut tail = Tail::start(&database).await;
    let (payloads, _) = tail.transaction().await;
    let row = payloads.last().unwrap();
    for text in [
        "2024-02-01 03:04:05.6+00",
        "1 mon 2 days 03:00:00",
        "\\x00ff",
        "0.30000000000000004",
        "2024-02-01",
    ] {
        assert!(contains(row, text), "{text}: {row:?}");
    }
}

#[tokio::test]
async fn a_reader_that_does_not_read_keeps_its_connection() {
    let database = Database::create().await;
    let sql = publish(&database, "(id int, filler text)").await;
    let connection =
        command::connect(&server(&database.url()), Duration::from_secs(1)).await.unwrap();
    let budget = walhook::testing::flow::budget::MemoryBudget::new(64 << 20);
    let streaming =
        connection.start_replication(database.name(), Lsn::ZERO, &["p"], budget).await.unwrap();
    let mut tail = Tail::of(streaming);
    // More than the sockets hold, so that the server too is stuck in the middle.
    let fill = "INSERT INTO t SELECT n, repeat('x', 1000) FROM generate_series(1, 100000) n";
    sql.batch_execute(fill).await.unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(tail.running.len(), 1);
    assert!(tail.running.try_join_next().is_none(), "the feedback has ended");
    let (payloads, _) = tail.transaction().await;
    let rows = payloads.iter().filter(|payload| payload.first() == Some(&b'I')).count();
    assert_eq!(rows, 100_000);
    tail.finish().await;
}

#[tokio::test]
async fn an_idle_stream_keeps_its_connection_and_moves_on() {
    let database = Database::create().await;
    publish(&database, "(id int)").await;
    let connection =
        command::connect(&server(&database.url()), Duration::from_secs(1)).await.unwrap();
    let budget = walhook::testing::flow::budget::MemoryBudget::new(1 << 20);
    let streaming =
        connection.start_replication(database.name(), Lsn::ZERO, &["p"], budget).await.unwrap();
    let mut tail = Tail::of(streaming);
    let other = Database::create().await.sql().await;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(4);
    let (mut frames, mut last) = (Vec::new(), Lsn::ZERO);
    while tokio::time::Instant::now() < deadline {
        other.batch_execute("CREATE TABLE IF NOT EXISTS x (); DROP TABLE x").await.unwrap_or(());
        let read = tail.frames.read(&mut frames);
        if let Ok(outcome) = tokio::time::timeout(Duration::from_millis(200), read).await {
            outcome.unwrap();
        }
        for frame in frames.drain(..) {
            let WireFrame::Keepalive { end, .. } = frame else { panic!("{frame:?}") };
            last = last.max(end);
            tail.confirm.send(end).unwrap();
        }
    }
    tail.finish().await;
    let slot = connect(&database).await.slot(database.name()).await.unwrap().unwrap();
    assert!(slot.confirmed >= Some(last), "{slot:?} < {last}");
}

#[tokio::test]
async fn a_row_of_100_mb_arrives_as_one_frame_with_its_share() {
    let database = Database::create().await;
    let sql = publish(&database, "(id int, big text)").await;
    sql.batch_execute("ALTER TABLE t ALTER big SET STORAGE EXTERNAL").await.unwrap();
    sql.batch_execute("INSERT INTO t VALUES (1, repeat('x', 100 << 20)), (2, 'y')").await.unwrap();
    let streaming = start(&database).await.unwrap();
    let mut tail = Tail::of(streaming);
    let mut frames = Vec::new();
    let (mut large, mut small) = (0, 0);
    while small == 0 {
        tail.frames.read(&mut frames).await.unwrap();
        for frame in frames.drain(..) {
            match frame {
                WireFrame::Data { payload, held: Some(held), .. } => {
                    assert!(payload.len() > 100 << 20 && held.bytes() >= payload.len());
                    large += 1;
                }
                WireFrame::Data { payload, .. } if contains(&payload, "y") => small = large,
                _ => {}
            }
        }
    }
    assert_eq!(large, 1);
    tail.finish().await;
}

#[tokio::test]
async fn an_end_by_the_server_is_an_error_that_waiting_can_mend() {
    let database = Database::create().await;
    let sql = publish(&database, "(id int)").await;
    let mut tail = Tail::start(&database).await;
    let end = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots
        WHERE slot_name = current_database()";
    assert_eq!(sql.text(end).await, "t");
    let mut frames = Vec::new();
    let error = loop {
        if let Err(error) = tail.frames.read(&mut frames).await {
            break error;
        }
    };
    assert!(error.is_transient(), "{error:?}");
}

#[tokio::test]
async fn a_publication_made_after_the_slot_is_named_as_the_reason() {
    let database = Database::create().await;
    let sql = database.sql().await;
    create_slot(&database).await;
    sql.batch_execute("CREATE TABLE t (id int)").await.unwrap();
    sql.batch_execute("INSERT INTO t VALUES (1)").await.unwrap();
    sql.batch_execute("CREATE PUBLICATION p FOR TABLE t").await.unwrap();
    let mut tail = Tail::start(&database).await;
    let mut frames = Vec::new();
    let error = loop {
        if let Err(error) = tail.frames.read(&mut frames).await {
            break error;
        }
    };
    assert!(
        matches!(&error, SourceError::Refused(SetupDiagnostic::PublicationGone { .. })),
        "{error:?}"
    );
    assert_eq!(error.exit() as u8, 4);
}
