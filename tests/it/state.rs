//! walhook's own state in a real PostgreSQL: nothing twice, nothing halfway, nobody but the holder.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]

mod backlog;
mod dead_letters;
mod flushes;
mod migrations;
mod push_log;
mod write_backs;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio_postgres::Client;
use walhook::config::settings::Server;
use walhook::config::settings::Tls;
use walhook::flow::body::Body;
use walhook::flow::body::Part;
use walhook::flow::event::Event;
use walhook::flow::event::EventId;
use walhook::flow::event::Expiry;
use walhook::flow::event::Facts;
use walhook::flow::event::Origin;
use walhook::flow::key::Key;
use walhook::flow::key::Keys;
use walhook::flow::lsn::Lsn;
use walhook::flow::lsn::Position;
use walhook::flow::relation::TableName;
use walhook::flow::settlement::ParkReason;
use walhook::flow::time::Timestamp;
use walhook::flow::verdict::Failure;
use walhook::flow::verdict::FailureClass;
use walhook::store::Session;
use walhook::store::backlog::Parked;
use walhook::store::connect;
use walhook::store::dead_letters::DeadLetter;
use walhook::store::dead_letters::DeathClass;
use walhook::store::flush::Flush;
use walhook::store::flush::commit;
use walhook::store::migrate::migrate;
use walhook::store::progress::Holding;
use walhook::store::progress::take;
use walhook::store::stored_event::History;
use walhook::store::stored_event::Replay;

use crate::support::postgres::Database;
use crate::support::postgres::Sql;

const SLOT: &str = "walhook";

/// 2025-11-22 00:00:00 UTC and some microseconds: SQL and Rust must keep each of them.
const NOW: Timestamp = Timestamp::from_micros(1_763_769_600_123_457);

/// Text that breaks what is glued together.
const HOSTILE: &str = "'; DROP TABLE walhook.backlog; -- \"張三\" \\ $1 {a,NULL} \u{1F980} \t\r\n";

/// A migrated database, a session in it, and the right to write.
struct State {
    session: Session,
    holding: Holding,
    database: Database,
}

impl State {
    async fn create() -> Self {
        Self::create_in(Database::create().await).await
    }

    async fn create_in(database: Database) -> Self {
        let mut session = session(&database.url()).await;
        migrate(&mut session.client).await.unwrap();
        let (holding, _) = take(&mut session.client, SLOT, "the test").await.unwrap();
        Self { session, holding, database }
    }

    async fn commit(&mut self, flush: &Flush) {
        commit(&mut self.session.client, &mut self.holding, flush).await.unwrap();
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

async fn session(url: &str) -> Session {
    connect(&Server::new(url.parse().unwrap(), Tls::default())).await.unwrap()
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
        id: EventId::new(position, Origin::new(7, "task.done")),
        sequence: 0,
        position,
        event_type: "task.done".into(),
        table: Arc::new(TableName::new("public", "tasks")),
        committed: NOW,
        keys: Keys::one(Key::of([Some(key.as_bytes())])),
        expiry: None,
        body: body(key),
        facts: Facts::new(vec![("id".into(), key.to_owned())]),
        write_back: None,
        held: None,
    }
}

fn body(text: &str) -> Body {
    Body::new(vec![
        Part::Bytes(Bytes::from_static(b"{\"id\":\"")),
        Part::Escaped(Bytes::from(text.to_owned())),
        Part::Bytes(Bytes::from_static(b"\",\"at\":")),
        Part::AttemptSeconds,
        Part::Bytes(Bytes::from_static(b",\"age\":")),
        Part::AgeSeconds { born: after(-15) },
        Part::Bytes(Bytes::from_static(b"}")),
    ])
}

fn expiring(event: Event, max_age: Duration) -> Event {
    Event { expiry: Some(Expiry { born: NOW, max_age }), ..event }
}

fn parked(event: Event, endpoint: &str) -> Parked {
    Parked {
        row_key: event.facts.find("id").map(ToOwned::to_owned),
        event: Arc::new(event),
        endpoint: endpoint.into(),
        history: History::default(),
        next_attempt: None,
        parked_at: NOW,
        reason: ParkReason::Outage,
        replay: Replay::No,
    }
}

fn failure() -> Failure {
    Failure { class: FailureClass::Status, detail: "503".to_owned() }
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
