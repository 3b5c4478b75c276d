//! Errors of reading rows of a table for a backfill.

use crate::store::error::StoreError;

/// Why rows cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("the server's answer is not what was asked for: {what}")]
    Answer { what: &'static str },
    #[error("a value is not in UTF-8: walhook cannot read it over plain SQL")]
    Encoding,
    #[error("the standby that rows are read from was promoted")]
    Promoted,
    #[error("cannot read the rows")]
    Store(#[from] StoreError),
}

impl From<tokio_postgres::Error> for ReadError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Store(error.into())
    }
}
