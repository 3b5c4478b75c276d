//! Why the source cannot start or had to stop.

use std::io;

use tokio_postgres::error::SqlState;

use crate::flow::exit_status::ExitStatus;
use crate::replication::diagnostic::SetupDiagnostic;
use crate::replication::unsendable::UnsendableRow;
use crate::store::error::StoreError;
use crate::store::error::is_transient_state;
use crate::store::error::server_error::ServerError;
use crate::store::state_error::StateError;

/// Why the source stopped. The text is for the operator: what is wrong, then what to do.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Unknown host, wrong password, TLS and the like.
    #[error(transparent)]
    Connect(#[from] StoreError),
    /// The state, which says whether the slot is still ours.
    #[error(transparent)]
    State(Box<StateError>),
    #[error(transparent)]
    Refused(#[from] SetupDiagnostic),
    /// Everything that stands in the way, found in one go.
    #[error("PostgreSQL is not set up for walhook:{}", listed(.0))]
    NotSetUp(Vec<SetupDiagnostic>),
    #[error("lost the replication connection to PostgreSQL")]
    Disconnected(#[source] io::Error),
    #[error("PostgreSQL sent what the replication protocol does not allow here: {what}")]
    Protocol { what: String },
    #[error("PostgreSQL stopped or refused the replication")]
    Server(#[source] ServerError),
    /// A change that is in the WAL and that the server fails to send, again and again.
    #[error("{0}")]
    Unsendable(Box<UnsendableRow>),
}

fn listed(refusals: &[SetupDiagnostic]) -> String {
    refusals.iter().map(|refusal| format!("\n  - {refusal}")).collect()
}

impl SourceError {
    /// Whether waiting can help. No `_` arm: each new variant must be answered for.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect(cause) => cause.is_transient(),
            Self::State(cause) => cause.is_transient(),
            Self::Refused(refusal) => refusal.is_transient(),
            Self::NotSetUp(refusals) => refusals.iter().all(SetupDiagnostic::is_transient),
            Self::Disconnected(_) => true,
            Self::Protocol { .. } | Self::Unsendable(_) => false,
            Self::Server(cause) => is_transient_state(&cause.sqlstate),
        }
    }

    /// Whether a walhook that ran well before goes on trying; see [`StoreError::may_be_mended`]. What
    /// concerns the slot, its position or the server's identity is judged as at a start.
    pub fn may_be_mended(&self) -> bool {
        match self {
            Self::Connect(cause) => cause.may_be_mended(),
            Self::State(cause) => cause.may_be_mended(),
            Self::Refused(SetupDiagnostic::NoReplicationRight { .. }) => true,
            Self::Refused(_)
            | Self::NotSetUp(_)
            | Self::Disconnected(_)
            | Self::Protocol { .. }
            | Self::Unsendable(_) => self.is_transient(),
            // Of a stream that ran: a slot or publication that is gone has its own refusals.
            Self::Server(cause) => {
                is_transient_state(&cause.sqlstate)
                    || cause.sqlstate == SqlState::INSUFFICIENT_PRIVILEGE
                    || cause.sqlstate.code().starts_with("28")
            }
        }
    }

    /// What the program exits with when this ends it.
    pub fn exit(&self) -> ExitStatus {
        match self {
            Self::Connect(cause) => cause.exit(),
            Self::State(cause) => cause.exit(),
            Self::Refused(refusal) => refusal.exit(),
            // A gap is graver than a missing privilege.
            Self::NotSetUp(refusals) => {
                refusals.iter().map(SetupDiagnostic::exit).max().unwrap_or(ExitStatus::Postgres)
            }
            Self::Disconnected(_) | Self::Protocol { .. } => ExitStatus::Failed,
            Self::Server(cause) if is_transient_state(&cause.sqlstate) => ExitStatus::Failed,
            Self::Server(_) | Self::Unsendable(_) => ExitStatus::Postgres,
        }
    }

    /// The SQLSTATE, where PostgreSQL gave one.
    pub fn sqlstate(&self) -> Option<&SqlState> {
        match self {
            Self::Server(cause) | Self::Connect(StoreError::Refused(cause)) => {
                Some(&cause.sqlstate)
            }
            Self::Unsendable(unsendable) => Some(&unsendable.cause.sqlstate),
            Self::Connect(_)
            | Self::State(_)
            | Self::Refused(_)
            | Self::NotSetUp(_)
            | Self::Disconnected(_)
            | Self::Protocol { .. } => None,
        }
    }
}

impl From<StateError> for SourceError {
    fn from(error: StateError) -> Self {
        Self::State(Box::new(error))
    }
}

impl From<tokio_postgres::Error> for SourceError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Connect(StoreError::from(error))
    }
}
