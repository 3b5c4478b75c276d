//! Why there is no private PostgreSQL, or no private NATS server.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

/// Why no private server could be had. None of these goes away by waiting.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    #[error(
        "WALHOOK_PG_BIN={} cannot be used: {reason}: name a directory with `initdb` and `postgres` \
         of PostgreSQL 14 or later, or unset it", .dir.display()
    )]
    PgBin { dir: PathBuf, reason: String },
    #[error("found no PostgreSQL to run:\n{}\n{fix}, or name a directory in WALHOOK_PG_BIN", list(.tried))]
    NotFound { tried: Vec<String>, fix: &'static str },
    #[error("cannot provide PostgreSQL {major}:\n{}", list(.tried))]
    VersionNotFound { major: u32, tried: Vec<String> },
    #[error(
        "WALHOOK_NATS_SERVER={} cannot be used: {reason}: name the program of NATS Server 2.12 or later, or \
         unset it", .program.display()
    )]
    NatsServer { program: PathBuf, reason: String },
    #[error(
        "found no NATS Server to run:\n{}\ninstall NATS Server 2.12 or later, or name its program in \
         WALHOOK_NATS_SERVER", list(.tried)
    )]
    BrokerNotFound { tried: Vec<String> },
    #[error("NATS Server ended while it started; its log ends with:\n{log}")]
    BrokerStart { log: String },
    #[error("NATS Server did not answer within {limit:?}; its log ends with:\n{log}")]
    BrokerNotReady { limit: Duration, log: String },
    #[error(
        "PostgreSQL does not run as root, and this process may not become another user \
         ({reason}): run walhook as an ordinary user, with WALHOOK_PG_BIN naming the binaries if \
         that user has none"
    )]
    CannotLeaveRoot { reason: String },
    #[error(
        "the user of this process has no entry in the user database, so initdb refuses to run: \
         add one to /etc/passwd, or run as a user that has one"
    )]
    UnknownUser,
    #[error("cannot use {} as the cache: set WALHOOK_CACHE to a directory that can be written", .path.display())]
    Cache {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "found no directory for the data that user {account} can enter: set TMPDIR to one, with a \
         path of at most 70 bytes"
    )]
    NoRoom { account: String },
    #[error("initdb failed")]
    Initdb(#[source] ProcessError),
    #[error("PostgreSQL ended while it started; its log ends with:\n{log}")]
    Start { log: String },
    #[error("PostgreSQL did not answer within {limit:?}; its log ends with:\n{log}")]
    NotReady { limit: Duration, log: String },
    #[error("PostgreSQL did not take the reload within {limit:?}; its log ends with:\n{log}")]
    NotReloaded { limit: Duration, log: String },
    #[error("PostgreSQL did not end within {limit:?} and was killed; its log ends with:\n{log}")]
    NotStopped { limit: Duration, log: String },
    #[error("PostgreSQL is stopped: start it again first")]
    Stopped,
    #[error("{name:?} is not a plain file name: give one without directories")]
    FileName { name: String },
    #[error("cannot {doing}")]
    Io {
        doing: String,
        #[source]
        source: io::Error,
    },
}

/// For `map_err`: what was being done when the operating system said no.
pub(super) fn io_error(doing: impl Into<String>) -> impl FnOnce(io::Error) -> SandboxError {
    let doing = doing.into();
    move |source| SandboxError::Io { doing, source }
}

/// Why a helper program (`initdb`, `apt-get`, ...) gave no result.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    #[error("{program} could not be started")]
    Spawn {
        program: String,
        #[source]
        source: io::Error,
    },
    #[error("{program} took longer than {limit:?} and was ended")]
    TooSlow { program: String, limit: Duration },
    #[error("{program} failed ({status}): {output}")]
    Failed { program: String, status: ExitStatus, output: String },
}

impl ProcessError {
    /// The text with its causes in one line, for the lists of what was tried.
    pub(super) fn in_one_line(&self) -> String {
        let text = match self {
            Self::Spawn { source, .. } => format!("{self}: {source}"),
            Self::TooSlow { .. } | Self::Failed { .. } => self.to_string(),
        };
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

fn list(tried: &[String]) -> String {
    tried.iter().map(|line| format!("  - {line}")).collect::<Vec<_>>().join("\n")
}
