//! One connection that streams a slot: what it needs to know, how it is made, what it holds.
//!
//! ```text
//! SourceTerms ─▶ [connection] connect: log in, identify, slot, START_REPLICATION ─▶ ChangeStream ─▶ stream
//! ```
//!
//! It is `reconnect` that asks whether the slot is still ours, and `stream` that reads.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::ReadHalf;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock::since_boot;
use crate::config::settings::PostgresSettings;
use crate::config::settings::ServerSettings;
use crate::flow::budget::MemoryBudget;
use crate::flow::lsn::Lsn;
use crate::flow::relation::TableName;
use crate::replication::assemble::ChangeAssembler;
use crate::replication::error::SourceError;
use crate::replication::positions::StreamPositions;
use crate::replication::slot_ownership::SlotOwnership;
use crate::replication::status;
use crate::replication::status::StatusHandle;
use crate::replication::wire::command;
use crate::replication::wire::command::SystemIdentity;
use crate::replication::wire::command::slot_commands::NewSlot;
use crate::replication::wire::command::slot_commands::SlotChange;
use crate::replication::wire::feedback;
use crate::replication::wire::feedback::SlotRelease;
use crate::replication::wire::frame::FrameReader;
use crate::replication::wire::frame::WireFrame;
use crate::replication::wire::heard::LastHeard;
use crate::store::session::transport::ServerTransport;

/// How long the server may take for a command that it answers at once, and to begin the stream: it may
/// have to read the slot's files first.
const ANSWER_MAX: Duration = Duration::from_secs(10);
const START_MAX: Duration = Duration::from_secs(30);

/// Whose slot it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum SlotUse {
    /// The configured one, which stays: nothing committed while we are away is lost.
    Lasting,
    /// One for this connection alone, for looking on.
    Temporary,
}

/// What a source needs to know and whom it tells.
#[derive(Clone, Debug)]
pub(crate) struct SourceTerms {
    pub settings: PostgresSettings,
    pub slot_use: SlotUse,
    /// The slot whose write-backs raise nothing; not the one to read from, when looking on.
    pub own_slot: String,
    pub budget: MemoryBudget,
    pub status: StatusHandle,
    /// Where to begin, if not where the slot stands: nothing before it comes again.
    pub start: Lsn,
    /// The commit of a transaction to go on without, if PostgreSQL cannot send it.
    pub skip_transaction: Option<Lsn>,
    /// Of which tables changes are expected.
    pub tables: Vec<TableName>,
    /// What may be confirmed to the server.
    pub confirmed: watch::Receiver<Lsn>,
    /// Whether outcomes can be written down. While not, the stream is closed.
    pub writable: watch::Receiver<bool>,
    /// Ends the connection; a new one is made as after any other loss.
    pub let_go: SlotRelease,
    /// Where the source notes whether the slot is ours.
    pub slot_ownership: SlotOwnership,
    /// Where the feedback runs. Not on the runtime of the pump: to render a large
    /// row may take longer than the server waits for a sign of life.
    pub feedback_on: Handle,
}

/// The right to the slot beyond one connection.
#[derive(Clone, Debug)]
pub(crate) struct SlotClaim {
    /// Where the state is.
    pub state: ServerSettings,
    /// Of [`crate::store::ownership::StateOwnership`]: another walhook that has taken the slot has raised it.
    pub epoch: i64,
}

/// One connection.
pub(super) struct ChangeStream {
    pub(super) server_pid: i32,
    /// When the slot was asked for, since boot.
    pub(super) asked: Duration,
    pub(super) frames: FrameReader<ReadHalf<ServerTransport>>,
    /// Read and not yet taken.
    pub(super) pending: VecDeque<WireFrame>,
    pub(super) read: Vec<WireFrame>,
    pub(super) assembler: ChangeAssembler,
    pub(super) positions: StreamPositions,
    /// Where the last keepalive stands that is not believed yet.
    pub(super) unproven: Option<Lsn>,
    /// Relations whose row types were looked up since the last read.
    pub(super) asked_again: Vec<u32>,
    pub(super) heard: Arc<LastHeard>,
    pub(super) feedback: JoinSet<Result<(), SourceError>>,
    pub(super) stop_feedback: CancellationToken,
}

impl ChangeStream {
    /// Says that the slot is ours by this connection.
    pub(super) fn grant(&self, slot_ownership: &SlotOwnership) {
        slot_ownership.granted(self.server_pid, self.asked);
    }
}

/// Connects and starts streaming. The publication and a lasting slot have to be there.
///
/// # Errors
/// Whatever stands in the way; see [`SourceError::is_transient`].
pub(super) async fn connect(
    terms: &SourceTerms,
) -> Result<(ChangeStream, SystemIdentity), SourceError> {
    let settings = &terms.settings;
    let mut connection = command::connect(&settings.server, settings.wal_sender_timeout).await?;
    let identity = within(ANSWER_MAX, connection.identify_system()).await?;
    let version = connection.version();
    match terms.slot_use {
        SlotUse::Temporary => {
            let slot = NewSlot { name: &settings.slot, temporary: true, failover: false };
            connection.create_slot(slot).await?;
        }
        SlotUse::Lasting if settings.failover => {
            let kept = within(ANSWER_MAX, connection.keep_on_standbys(&settings.slot)).await?;
            if kept == SlotChange::Changed {
                tracing::info!(slot = settings.slot, "standbys keep the slot from now on");
            }
        }
        SlotUse::Lasting => {}
    }
    let (pid, asked) = (connection.pid(), since_boot());
    let publications = [settings.publication.as_str()];
    // 0/0: the server knows where the slot stands. A higher position loses what lies between.
    let started = connection.start_replication(
        &settings.slot,
        terms.start,
        &publications,
        terms.budget.clone(),
    );
    let streaming = within(START_MAX, started).await?;
    let stop_feedback = CancellationToken::new();
    let mut running = JoinSet::new();
    let feedback = feedback::feedback(
        streaming.feedback,
        terms.confirmed.clone(),
        terms.let_go.clone(),
        stop_feedback.clone(),
    );
    running.spawn_on(feedback, &terms.feedback_on);
    terms.status.streaming(status::ServerView {
        version: format!("{}.{}", version / 10_000, version % 10_000),
        system: identity.system.to_string(),
        timeline: identity.timeline,
        slot: settings.slot.clone(),
        publication: settings.publication.clone(),
    });
    let stream = ChangeStream {
        server_pid: pid,
        asked,
        frames: streaming.frames,
        pending: VecDeque::new(),
        read: Vec::new(),
        assembler: ChangeAssembler::of_slot(&terms.own_slot),
        positions: StreamPositions::new(identity.wal_end),
        unproven: None,
        asked_again: Vec::new(),
        heard: streaming.heard,
        feedback: running,
        stop_feedback,
    };
    Ok((stream, identity))
}

/// Ends a command whose answer does not come.
async fn within<T>(
    limit: Duration,
    command: impl Future<Output = Result<T, SourceError>>,
) -> Result<T, SourceError> {
    let late = |_| SourceError::Disconnected(io::Error::from(io::ErrorKind::TimedOut));
    tokio::time::timeout(limit, command).await.map_err(late)?
}
