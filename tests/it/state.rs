//! walhook's own state in a real PostgreSQL: nothing twice, nothing halfway, nobody but the holder.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]

mod backlog;
mod dead_letters;
mod flush_cost;
mod flushes;
mod joined;
mod migrations;
mod partitions;
mod prepared;
mod push_log;
mod write_backs;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio_postgres::Client;
use walhook::testing::config::settings::ServerSettings;
use walhook::testing::config::settings::TlsSettings;
use walhook::testing::flow::body::BodyPart;
use walhook::testing::flow::body::EventBody;
use walhook::testing::flow::event::Event;
use walhook::testing::flow::event::EventExpiry;
use walhook::testing::flow::event::EventFacts;
use walhook::testing::flow::event::EventId;
use walhook::testing::flow::event::IdOrigin;
use walhook::testing::flow::key::EventKeys;
use walhook::testing::flow::key::KeyHash;
use walhook::testing::flow::lsn::Lsn;
use walhook::testing::flow::lsn::Position;
use walhook::testing::flow::park_reason::ParkReason;
use walhook::testing::flow::relation::TableName;
use walhook::testing::flow::time::Timestamp;
use walhook::testing::flow::verdict::AttemptFailure;
use walhook::testing::flow::verdict::FailureClass;
use walhook::testing::store::SqlSession;
use walhook::testing::store::backlog::ParkedDelivery;
use walhook::testing::store::connect;
use walhook::testing::store::dead_letters::DeadLetter;
use walhook::testing::store::dead_letters::DeathClass;
use walhook::testing::store::flush::StateFlush;
use walhook::testing::store::flush::commit;
use walhook::testing::store::migrate::migrate;
use walhook::testing::store::ownership::StateOwnership;
use walhook::testing::store::progress::take;
use walhook::testing::store::stored_event::ReplayRow;
use walhook::testing::store::stored_event::StoredHistory;

use crate::support::postgres::Database;
use crate::support::postgres::Sql;

const SLOT: &str = "walhook";

/// 2025-11-22 00:00:00 UTC and some microseconds: SQL and Rust must keep each of them.
const NOW: Timestamp = Timestamp::from_micros(1_763_769_600_123_457);

/// Text that breaks what is glued together.
const HOSTILE: &str = "'; DROP TABLE walhook.backlog; -- \"張三\" \\ $1 {a,NULL} \u{1F980} \t\r\n";

/// A migrated database, a session in it, and the right to write.
struct State {
    session: SqlSession,
    ownership: StateOwnership,
    database: Database,
}

impl State {
    async fn create() -> Self {
        Self::create_in(Database::create().await).await
    }

    async fn create_in(database: Database) -> Self {
        let mut session = session(&database.url()).await;
        migrate(&mut session.client).await.unwrap();
        let (ownership, _) = take(&mut session.client, SLOT, "the test").await.unwrap();
        Self { session, ownership, database }
    }

    async fn commit(&mut self, flush: &StateFlush) {
        commit(&mut self.session, &mut self.ownership, flush).await.unwrap();
    }

    fn client(&mut self) -> &mut Client {
        &mut self.session.client
    }

    /// The first column of the only row, as text.
    async fn text(&self, query: &str) -> String {
        self.sql().await.text(query).await
    }

    async fn sql(&self) -> Sql {
        self.database.sql().await
    }
}

async fn session(url: &str) -> SqlSession {
    connect(&ServerSettings::new(url.parse().unwrap(), TlsSettings::default())).await.unwrap()
}

fn after(seconds: i64) -> Timestamp {
    NOW.shifted(seconds * 1_000_000)
}

fn position(commit: u64, ordinal: u32) -> Position {
    Position { commit: Lsn::from_raw(commit), ordinal }
}

/// An event of table `public.tasks` with one key.
fn event(commit: u64, ordinal: u32, key: &str) -> Event {
    let position = position(commit, ordinal);
    Event {
        id: EventId::new(position, IdOrigin::new(7, "task.done")),
        sequence: 0,
        position,
        event_type: "task.done".into(),
        table: Arc::new(TableName::new("public", "tasks")),
        committed: NOW,
        keys: EventKeys::one(KeyHash::of([Some(key.as_bytes())])),
        expiry: None,
        body: body(key),
        facts: EventFacts::new(vec![("id".into(), key.to_owned())]),
        write_back: None,
        held: None,
    }
}

fn body(text: &str) -> EventBody {
    EventBody::new(vec![
        BodyPart::Bytes(Bytes::from_static(b"{\"id\":\"")),
        BodyPart::Escaped(Bytes::from(text.to_owned())),
        BodyPart::Bytes(Bytes::from_static(b"\",\"at\":")),
        BodyPart::AttemptSeconds,
        BodyPart::Bytes(Bytes::from_static(b",\"age\":")),
        BodyPart::AgeSeconds { born: after(-15) },
        BodyPart::Bytes(Bytes::from_static(b"}")),
    ])
}

fn expiring(event: Event, max_age: Duration) -> Event {
    Event { expiry: Some(EventExpiry { born: NOW, max_age }), ..event }
}

fn parked(event: Event, endpoint: &str) -> ParkedDelivery {
    ParkedDelivery {
        row_key: event.facts.find("id").map(ToOwned::to_owned),
        event: Arc::new(event),
        endpoint: endpoint.into(),
        history: StoredHistory::default(),
        next_attempt: None,
        parked_at: NOW,
        reason: ParkReason::Outage,
        replay: ReplayRow::No,
    }
}

fn failure() -> AttemptFailure {
    AttemptFailure { class: FailureClass::Status, detail: "503".to_owned() }
}

fn letter(event: Event, endpoint: &str) -> DeadLetter {
    DeadLetter {
        row_key: event.facts.find("id").map(ToOwned::to_owned),
        event: Arc::new(event),
        endpoint: endpoint.into(),
        reason: "retries exhausted, last status: 503".to_owned(),
        class: DeathClass::Failure(FailureClass::Status),
        status: Some(503),
        attempts: 4,
        first_attempt: Some(NOW),
        last_attempt: Some(after(130)),
        died_at: after(130),
    }
}

/// What receivers would get: the body as of a fixed time.
fn sent(event: &Event) -> String {
    String::from_utf8(event.body.complete(NOW).to_vec()).unwrap()
}

/// Everything that must survive the tables, next to the body.
fn fields(event: &Event) -> impl PartialEq + std::fmt::Debug + use<> {
    (
        (event.id, event.position, event.event_type.clone(), event.table.clone()),
        (event.committed, event.keys, event.expiry, event.facts.clone()),
    )
}
