//! The replication connection against a real server: logging in, slots, streaming, ending.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]
#![expect(clippy::panic, reason = "a test may stop at once")]

mod login;
mod stream;

use std::time::Duration;

use walhook::testing::config::settings::ServerSettings;
use walhook::testing::config::settings::TlsMode;
use walhook::testing::config::settings::TlsSettings;
use walhook::testing::flow::budget::MemoryBudget;
use walhook::testing::flow::lsn::Lsn;
use walhook::testing::replication::diagnostic::SetupDiagnostic;
use walhook::testing::replication::error::SourceError;
use walhook::testing::replication::wire::command;
use walhook::testing::replication::wire::command::NewSlot;
use walhook::testing::replication::wire::command::ReplicationConnection;
use walhook::testing::replication::wire::command::SlotCreation;
use walhook::testing::replication::wire::command::StreamingStart;
use walhook::testing::store::transport::ServerTransport;

use crate::support::postgres::Database;

pub(crate) const TIMEOUT: Duration = Duration::from_secs(6);

/// A server by its URL, without TLS.
pub(crate) fn server(url: &str) -> ServerSettings {
    server_with(url, TlsMode::Disable)
}

pub(crate) fn server_with(url: &str, mode: TlsMode) -> ServerSettings {
    ServerSettings::new(url.parse().unwrap(), TlsSettings { mode, ..TlsSettings::default() })
}

pub(crate) async fn connect(database: &Database) -> ReplicationConnection {
    command::connect(&server(&database.url()), TIMEOUT).await.unwrap()
}

/// A slot that a test makes; its name is the database's.
async fn create_slot(database: &Database) -> Lsn {
    let slot = NewSlot { name: database.name(), temporary: false, failover: false };
    match connect(database).await.create_slot(slot).await.unwrap() {
        SlotCreation::Created { consistent } => consistent,
        SlotCreation::Exists => panic!("slot {} exists", database.name()),
    }
}

async fn start(database: &Database) -> Result<StreamingStart<ServerTransport>, SourceError> {
    let connection = connect(database).await;
    let budget = MemoryBudget::new(256 << 20);
    connection.start_replication(database.name(), Lsn::ZERO, &["p"], budget).await
}

fn refusal(outcome: Result<StreamingStart<ServerTransport>, SourceError>) -> SetupDiagnostic {
    match outcome {
        Err(SourceError::Refused(refusal)) => refusal,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it was not refused"),
    }
}

#[tokio::test]
async fn the_server_says_who_it_is() {
    let database = Database::create().await;
    let sql = database.sql().await;
    let mut connection = connect(&database).await;
    let identity = connection.identify_system().await.unwrap();
    let system = sql.text("SELECT system_identifier FROM pg_control_system()").await;
    assert_eq!(identity.system.to_string(), system);
    assert_eq!(identity.database, database.name());
    assert_eq!(identity.timeline, 1);
    assert!(identity.wal_end > Lsn::ZERO);
    let version = sql.text("SHOW server_version_num").await;
    assert_eq!(connection.version().to_string(), version);
    let timeout = "SELECT setting FROM pg_settings WHERE name = 'wal_sender_timeout'";
    assert_ne!(sql.text(timeout).await, "6000", "the server's own setting is left alone");
}

#[tokio::test]
async fn a_slot_is_made_once_and_dropped_by_name() {
    let database = Database::create().await;
    let consistent = create_slot(&database).await;
    assert!(consistent > Lsn::ZERO);
    let mut connection = connect(&database).await;
    let again = NewSlot { name: database.name(), temporary: false, failover: false };
    assert_eq!(connection.create_slot(again).await.unwrap(), SlotCreation::Exists);
    let found = connection.slot(database.name()).await.unwrap().unwrap();
    assert_eq!(found.plugin, "pgoutput");
    assert_eq!(found.confirmed, Some(consistent));
    assert_eq!(found.defect(), None);
    connection.drop_slot(database.name()).await.unwrap();
    assert_eq!(connection.slot(database.name()).await.unwrap(), None);
}

#[tokio::test]
async fn a_slot_in_use_is_refused_with_its_holder() {
    let database = Database::create().await;
    create_slot(&database).await;
    let _holder = start(&database).await.unwrap();
    let pid = "SELECT active_pid FROM pg_replication_slots WHERE slot_name = current_database()";
    let pid = database.sql().await.text(pid).await.parse().unwrap();
    let slot = database.name().to_owned();
    let refused = refusal(start(&database).await);
    assert_eq!(refused, SetupDiagnostic::SlotInUse { slot, pid: Some(pid) });
    assert!(refused.is_transient());
}

#[tokio::test]
async fn a_slot_that_cannot_serve_is_refused_by_what_the_catalog_says() {
    let database = Database::create().await;
    let slot = database.name().to_owned();
    assert_eq!(
        refusal(start(&database).await),
        SetupDiagnostic::SlotMissing { slot: slot.clone() }
    );

    let sql = database.sql().await;
    let create =
        |plugin| format!("SELECT pg_create_logical_replication_slot('{slot}', '{plugin}')");
    sql.batch_execute(&create("test_decoding")).await.unwrap();
    let plugin = "the plugin test_decoding".to_owned();
    let expected = SetupDiagnostic::WrongPlugin { slot: slot.clone(), plugin };
    assert_eq!(refusal(start(&database).await), expected);

    let drop = format!("SELECT pg_drop_replication_slot('{slot}')");
    sql.batch_execute(&drop).await.unwrap();
    let physical = format!("SELECT pg_create_physical_replication_slot('{slot}')");
    sql.batch_execute(&physical).await.unwrap();
    let refused = refusal(start(&database).await);
    assert!(matches!(refused, SetupDiagnostic::WrongPlugin { .. }), "{refused}");
    sql.batch_execute(&drop).await.unwrap();

    let other = Database::create().await;
    other.sql().await.batch_execute(&create("pgoutput")).await.unwrap();
    let expected = SetupDiagnostic::SlotElsewhere { slot, database: other.name().to_owned() };
    assert_eq!(refusal(start(&database).await), expected);
}
