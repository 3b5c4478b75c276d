//! Why walhook's own state could not be read or written.

use std::error::Error;

use tokio_postgres::error::SqlState;

use crate::flow::exit_status::ExitStatus;
use crate::store::error::StoreError;
use crate::store::error::server_error::ServerError;

/// What went wrong with the tables of schema `walhook`.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(
        "the state in schema walhook is at version {found}, but this walhook knows it only up to \
         version {known}: run a walhook that is at least as new as the one that wrote it"
    )]
    NewerSchema { found: i32, known: i32 },
    /// They were dropped or renamed.
    #[error(
        "schema walhook lacks {tables}, which walhook had made there: what stood in them is lost; restore \
         them from a backup, or, if nothing of it is needed any more, run `DROP SCHEMA walhook CASCADE;` \
         and `walhook run --accept-gap`"
    )]
    LacksTables { tables: String },
    /// `sql` is complete: an administrator runs it as it is.
    #[error(
        "role {role} may not keep walhook's state here: have an administrator run, in the same \
         database: {sql}"
    )]
    NoPrivilege {
        role: String,
        sql: String,
        #[source]
        cause: Option<ServerError>,
    },
    /// Nothing was written, and nothing may be sent or confirmed any more.
    #[error(
        "slot {slot} was taken over by {holder}: this walhook has stopped writing; restart it to \
         stand by"
    )]
    Fenced { slot: String, holder: String },
    /// The database has been put back to an earlier state under a walhook that ran: what it knows is
    /// newer than what stands there.
    #[error(
        "the state of slot {slot} was set back under this walhook, as by the promotion of a standby that \
         had not received its last writes, or by a restored backup: it has to be taken up anew"
    )]
    SetBack { slot: String },
    /// A mistake in walhook: two flushes under one number, or one left out.
    #[error(
        "flush {number} of slot {slot} does not follow flush {stored}: restart walhook and report \
         this"
    )]
    OutOfOrder { slot: String, number: i64, stored: i64 },
    #[error(
        "event {event} has a body of {bytes} bytes, more than the state can hold: send it from \
         memory or give it up"
    )]
    BodyTooLarge { event: String, bytes: usize },
    #[error("cannot understand {what} in schema walhook: was it changed by hand?")]
    Unreadable {
        what: &'static str,
        #[source]
        cause: Box<dyn Error + Send + Sync>,
    },
}

impl StateError {
    pub(crate) fn unreadable(
        what: &'static str,
        cause: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self::Unreadable { what, cause: cause.into() }
    }

    /// Whether waiting, and a new session, can help. No `_` arm: each new variant
    /// must be answered for.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Store(cause) => cause.is_transient(),
            Self::NewerSchema { .. }
            | Self::LacksTables { .. }
            | Self::NoPrivilege { .. }
            | Self::Fenced { .. }
            | Self::SetBack { .. }
            | Self::OutOfOrder { .. }
            | Self::BodyTooLarge { .. }
            | Self::Unreadable { .. } => false,
        }
    }

    /// Whether a walhook that ran well before goes on trying; see [`StoreError::may_be_mended`].
    pub fn may_be_mended(&self) -> bool {
        match self {
            // A table was dropped or renamed, which the part that writes or asks the state names.
            Self::Store(StoreError::Refused(cause)) if is_gone(&cause.sqlstate) => true,
            Self::Store(cause) => cause.may_be_mended(),
            Self::NoPrivilege { .. } | Self::LacksTables { .. } => true,
            Self::NewerSchema { .. }
            | Self::Fenced { .. }
            | Self::SetBack { .. }
            | Self::OutOfOrder { .. }
            | Self::BodyTooLarge { .. }
            | Self::Unreadable { .. } => false,
        }
    }

    /// How a command ends that it stops.
    pub fn exit(&self) -> ExitStatus {
        match self {
            Self::Store(cause) => cause.exit(),
            Self::NewerSchema { .. } | Self::LacksTables { .. } | Self::NoPrivilege { .. } => {
                ExitStatus::Postgres
            }
            Self::Fenced { .. }
            | Self::SetBack { .. }
            | Self::OutOfOrder { .. }
            | Self::BodyTooLarge { .. }
            | Self::Unreadable { .. } => ExitStatus::Failed,
        }
    }

    /// The SQLSTATE, if the server refused a statement.
    pub(crate) fn sqlstate(&self) -> Option<&SqlState> {
        match self {
            Self::Store(StoreError::Refused(cause)) => Some(&cause.sqlstate),
            _ => None,
        }
    }
}

/// Whether a table or the schema is not there.
pub(crate) fn is_gone(state: &SqlState) -> bool {
    [SqlState::UNDEFINED_TABLE, SqlState::INVALID_SCHEMA_NAME].contains(state)
}

impl From<tokio_postgres::Error> for StateError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Store(error.into())
    }
}
