//! Errors that end a run of a backfill, and whether it is tried again.

use crate::backfill::read_error::ReadError;
use crate::backfill::source::StandbyError;
use crate::backfill::table::TableError;
use crate::store::error::StoreError;
use crate::store::state_error::StateError;

/// Classes of SQLSTATE whose words may hold values of rows: data exceptions, and what functions raise.
const ABOUT_DATA: [&str; 2] = ["22", "P0"];

/// Why a run ended before its time.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    #[error(
        "waits for endpoints that are not there any more, of {names}: make them again, or cancel it and order another"
    )]
    EndpointGone { names: String },
    #[error("{0}")]
    NoEvent(String),
    #[error(transparent)]
    Table(#[from] TableError),
    #[error("rows cannot be read at [backfill] url")]
    Standby(#[source] StandbyError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    State(#[from] StateError),
}

impl From<StandbyError> for RunError {
    fn from(error: StandbyError) -> Self {
        match error {
            StandbyError::Store(error) => error.into(),
            error => Self::Standby(error),
        }
    }
}

impl RunError {
    /// Whether it is tried again by itself.
    pub(crate) fn may_be_mended(&self) -> bool {
        match self {
            Self::Table(TableError::Store(error))
            | Self::Read(ReadError::Store(error))
            | Self::Store(error) => error.is_transient() || error.may_be_mended(),
            Self::State(error) => error.may_be_mended(),
            // It may have another name, with which the row in the state is read anew.
            Self::EndpointGone { .. } => true,
            // The standby is made anew, or the address leads to another one.
            Self::Standby(_) | Self::Read(ReadError::Promoted) => true,
            Self::NoEvent(_)
            | Self::Table(_)
            | Self::Read(ReadError::Answer { .. } | ReadError::Encoding) => false,
        }
    }

    /// What the log is told instead of the error's own words, where these may hold a value of a row, as those of
    /// a cast do. The backfill's reason has them.
    pub(crate) fn without_data(&self) -> Option<String> {
        let (Self::Table(TableError::Store(StoreError::Refused(said)))
        | Self::Read(ReadError::Store(StoreError::Refused(said)))
        | Self::Store(StoreError::Refused(said))) = self
        else {
            return None;
        };
        let code = said.sqlstate.code();
        ABOUT_DATA.iter().any(|class| code.starts_with(class)).then(|| {
            format!(
                "PostgreSQL refuses what is asked of a row (SQLSTATE {code}): `walhook backfill show` has its words"
            )
        })
    }
}
