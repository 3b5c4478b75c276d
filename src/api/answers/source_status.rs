//! The source as the API shows it: what it is doing, the server, its WAL, and who holds the slot.

use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;

use crate::api::requests::field_kinds::words_schema;
use crate::replication::retained_wal::WalView;
use crate::replication::status::SlotHolder;
use crate::replication::status::StatusView;

/// The source at one moment.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Source)]
pub(crate) struct SourceStatus {
    #[schema(schema_with = source_states)]
    state: &'static str,
    /// Why it is not streaming, or what is degraded
    reason: Option<String>,
    /// How changes are taken, if not as usual
    mode: Option<String>,
    problems: Vec<String>,
    received_lsn: String,
    confirmed_lsn: String,
    reconnects: u64,
    /// Of the server
    version: String,
    /// Database system identifier
    system: String,
    timeline: u32,
    slot: String,
    publication: String,
    wal: Option<SlotWal>,
    /// Who reads the slot; null while nobody does
    holder: Option<ShownHolder>,
}

fn source_states() -> RefOr<Schema> {
    words_schema([
        "starting",
        "standby",
        "delivering",
        "streaming",
        "degraded",
        "blocked",
        "waiting",
        "stopping",
    ])
}

/// The slot as the server sees it.
#[derive(Debug, Serialize, ToSchema)]
struct SlotWal {
    current: String,
    lag_bytes: u64,
    retained_bytes: u64,
    /// Before the slot may be lost; null without a limit
    safe_bytes: Option<u64>,
    /// max_slot_wal_keep_size; null without a limit
    limit_bytes: Option<u64>,
}

/// Who streams from the slot.
#[derive(Debug, Serialize, ToSchema)]
struct ShownHolder {
    /// Whether it is this process
    #[serde(rename = "self")]
    is_self: bool,
    /// Version, host and process id, of a walhook
    name: Option<String>,
    since: Option<String>,
    application_name: Option<String>,
    client_address: Option<String>,
    server_pid: Option<i32>,
}

impl From<StatusView> for SourceStatus {
    fn from(view: StatusView) -> Self {
        Self {
            state: view.state,
            reason: view.reason,
            mode: view.mode,
            problems: view.problems,
            received_lsn: view.received_lsn,
            confirmed_lsn: view.confirmed_lsn,
            reconnects: view.reconnects,
            version: view.server.version,
            system: view.server.system,
            timeline: view.server.timeline,
            slot: view.server.slot,
            publication: view.server.publication,
            wal: view.wal.map(SlotWal::from),
            holder: view.holder.map(ShownHolder::from),
        }
    }
}

impl From<WalView> for SlotWal {
    fn from(wal: WalView) -> Self {
        let WalView { current, lag_bytes, retained_bytes, safe_bytes, limit_bytes } = wal;
        Self { current, lag_bytes, retained_bytes, safe_bytes, limit_bytes }
    }
}

impl From<SlotHolder> for ShownHolder {
    fn from(holder: SlotHolder) -> Self {
        let SlotHolder { is_self, name, since, application_name, client_address, server_pid } =
            holder;
        Self { is_self, name, since, application_name, client_address, server_pid }
    }
}
