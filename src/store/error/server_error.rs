//! An error response of PostgreSQL: severity, SQLSTATE, message, detail, hint.

use std::error::Error;
use std::fmt;

use tokio_postgres::error::SqlState;

/// What PostgreSQL said when it refused something.
///
/// The detail field is left out on purpose: it may hold row data.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ServerError {
    pub sqlstate: SqlState,
    pub message: String,
    pub hint: Option<String>,
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (SQLSTATE {})", self.message, self.sqlstate.code())?;
        match &self.hint {
            Some(hint) => write!(f, ", hint: {hint}"),
            None => Ok(()),
        }
    }
}

impl Error for ServerError {}

/// What the server leaves to guess.
fn own_hint(code: &SqlState) -> Option<String> {
    // Data comes as the bytes that it is; names of the catalog do not.
    let names = "a name is meant, as of a column, a publication or a table that inherits from one of the \
                 events': the database's encoding does not say what its bytes mean; rename what has others than \
                 UTF-8 in it";
    (*code == SqlState::CHARACTER_NOT_IN_REPERTOIRE).then(|| names.to_owned())
}

impl From<&tokio_postgres::error::DbError> for ServerError {
    fn from(error: &tokio_postgres::error::DbError) -> Self {
        Self {
            sqlstate: error.code().clone(),
            message: error.message().to_owned(),
            hint: error.hint().map(ToOwned::to_owned).or_else(|| own_hint(error.code())),
        }
    }
}
