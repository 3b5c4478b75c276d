//! How a command ends: exit codes, and errors that carry one.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::process::ExitCode;

use crate::cli::terminal::ClosedOutput;
use crate::flow::exit_status::ExitStatus;
use crate::replication::diagnostic::SetupDiagnostic;
use crate::replication::error::SourceError;
use crate::store::error::StoreError;
use crate::store::state_error::StateError;

impl From<ExitStatus> for ExitCode {
    fn from(exit: ExitStatus) -> Self {
        Self::from(exit as u8)
    }
}

impl ExitStatus {
    /// An error that ends the command with this code.
    pub fn because(self, error: impl Into<anyhow::Error>) -> CommandError {
        CommandError { exit: self, error: error.into() }
    }
}

/// Why a command did not do its job. Displayed with all of its causes, for the one place that
/// prints it; any other error becomes one with `?` and ends with [`ExitStatus::Failed`].
pub struct CommandError {
    exit: ExitStatus,
    error: anyhow::Error,
}

impl CommandError {
    pub fn exit(&self) -> ExitStatus {
        self.exit
    }

    /// An error with the exit code that PostgreSQL's part in it asks for.
    pub fn of_postgres(error: impl Into<anyhow::Error>) -> Self {
        let error = error.into();
        let code = |cause: &(dyn std::error::Error + 'static)| {
            let source = cause.downcast_ref::<SourceError>().map(SourceError::exit);
            let state = || cause.downcast_ref::<StateError>().map(StateError::exit);
            let store = || cause.downcast_ref::<StoreError>().map(StoreError::exit);
            source.or_else(state).or_else(store)
        };
        let code = error.chain().find_map(code);
        code.unwrap_or(ExitStatus::Failed).because(error)
    }

    /// The names under which docs/errors.md explains it; none if it is not one of the errors there.
    pub fn ids(&self) -> Vec<&'static str> {
        let ids = |cause: &(dyn std::error::Error + 'static)| match cause.downcast_ref() {
            Some(SourceError::Connect(cause)) => vec![cause.id()],
            Some(SourceError::State(cause)) => vec![cause.id()],
            Some(SourceError::Refused(refusal)) => vec![refusal.id()],
            Some(SourceError::NotSetUp(refusals)) => {
                refusals.iter().map(SetupDiagnostic::id).collect()
            }
            Some(_) => Vec::new(),
            None => {
                let state = cause.downcast_ref::<StateError>().map(StateError::id);
                let store = || cause.downcast_ref::<StoreError>().map(StoreError::id);
                state.or_else(store).into_iter().collect()
            }
        };
        let found = self.error.chain().map(ids).find(|ids| !ids.is_empty()).unwrap_or_default();
        let mut seen = BTreeSet::new();
        found.into_iter().filter(|id| seen.insert(*id)).collect()
    }

    /// Whether the command stopped because nobody reads its output any more.
    pub fn is_closed_pipe(&self) -> bool {
        self.error
            .chain()
            .filter_map(|cause| cause.downcast_ref::<io::Error>())
            .any(ClosedOutput::is)
    }
}

impl<E: Into<anyhow::Error>> From<E> for CommandError {
    fn from(error: E) -> Self {
        ExitStatus::Failed.because(error)
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.error)
    }
}

impl fmt::Debug for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {:#}", self.exit, self.error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn an_error_shows_its_causes_and_keeps_its_code() {
        let missing = io::Error::new(io::ErrorKind::NotFound, "no such file");
        let error =
            ExitStatus::Usage.because(anyhow::Error::new(missing).context("cannot read a.toml"));
        assert_eq!(error.to_string(), "cannot read a.toml: no such file");
        assert_eq!(error.exit(), ExitStatus::Usage);
        assert!(!error.is_closed_pipe());
    }

    #[test]
    fn a_reader_that_left_is_recognised_under_any_context() {
        fn write() -> Result<(), CommandError> {
            let left = io::Error::new(io::ErrorKind::BrokenPipe, ClosedOutput);
            Ok(Err(left).context("cannot print")?)
        }
        assert!(write().unwrap_err().is_closed_pipe());
    }

    /// A walhook whose connection was cut at the wrong moment ended with 0 and without a word.
    #[test]
    fn a_connection_that_breaks_is_no_reader_that_left() {
        let broken = || io::Error::new(io::ErrorKind::BrokenPipe, "Broken pipe (os error 32)");
        let of_postgres = StateError::from(StoreError::Disconnected(broken()));
        for error in [anyhow::Error::new(broken()), anyhow::Error::new(of_postgres)] {
            let error = CommandError::of_postgres(error.context("cannot take up the state"));
            assert!(!error.is_closed_pipe(), "{error}");
            assert_ne!(error.exit(), ExitStatus::Done);
        }
    }
}
