//! Why PostgreSQL could not be reached, or did not do what it was asked.

mod log_in;
pub(crate) mod server_error;

use std::error::Error;
use std::io;
use std::time::Duration;

use tokio_postgres::error::SqlState;

use crate::flow::exit_status::ExitStatus;
use crate::store::error::server_error::ServerError;

/// Why a connection could not be made or used. `at` is a host and port, or a socket's folder.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the connection URL names no host: write it as postgres://user@host/database")]
    NoHost,
    #[error("the connection URL names no user: write it as postgres://user@host/database")]
    NoUser,
    #[error("the numbers of hosts, addresses and ports in the connection URL do not agree")]
    HostLists,
    #[error("host {host} is unknown: check its spelling and the name server")]
    UnknownHost {
        host: String,
        #[source]
        cause: io::Error,
    },
    #[error(
        "cannot reach PostgreSQL at {at}: check host and port, that the server runs and listens \
         there, and firewalls"
    )]
    Unreachable {
        at: String,
        #[source]
        cause: io::Error,
    },
    #[error(
        "PostgreSQL at {at} did not let us in within {limit:?}: check host, port and firewalls, or \
         give it longer with connect_timeout"
    )]
    TimedOut { at: String, limit: Duration },
    #[error(
        "PostgreSQL at {at} offers no TLS: set ssl = on in its postgresql.conf, or use \
         sslmode=prefer or disable"
    )]
    TlsNotOffered { at: String },
    #[error(
        "the TLS handshake with PostgreSQL at {at} failed: check its certificate against sslmode \
         and sslrootcert"
    )]
    Tls {
        at: String,
        #[source]
        cause: io::Error,
    },
    #[error("cannot use {what}: check that it is there, readable and in PEM format")]
    Certificate {
        what: String,
        #[source]
        cause: Box<dyn Error + Send + Sync>,
    },
    /// `note` says why a password file was not used, or nothing.
    #[error(
        "PostgreSQL asks for a password for user {user}: put one into the connection URL, or into \
         ~/.pgpass{note}"
    )]
    PasswordMissing { user: String, note: String },
    /// Nothing of the file's text is in `what`.
    #[error("file {file} with the connection URL {what}: put it right")]
    UrlFile { file: String, what: String },
    #[error("wrong password for user {user}: correct it in the connection URL")]
    WrongPassword {
        user: String,
        #[source]
        cause: ServerError,
    },
    #[error(
        "PostgreSQL does not let user {user} into database {database}: check that the role exists \
         and may log in, that pg_hba.conf has a line for it, and that it has CONNECT on the database"
    )]
    NotAllowed {
        user: String,
        database: String,
        #[source]
        cause: ServerError,
    },
    #[error("database {database} does not exist: correct its name in the connection URL")]
    NoDatabase { database: String },
    #[error(
        "database {database} has an encoding that PostgreSQL cannot convert to UTF8, in which walhook reads it: \
         move it into a database with ENCODING 'UTF8': `createdb -T template0 -E UTF8 new`, then `pg_dump -E EUC_JP \
         {database} | psql new`, with the encoding that its texts are in (EUC_JP, EUC_KR, EUC_CN, BIG5, LATIN1, KOI8R, \
         ...) in the place of EUC_JP"
    )]
    NotInUtf8 {
        database: String,
        #[source]
        cause: ServerError,
    },
    #[error("PostgreSQL has no free connection: raise max_connections, or close some")]
    TooManyConnections(#[source] ServerError),
    #[error("PostgreSQL is starting up, shutting down or recovering: wait until it is up")]
    NotReady(#[source] ServerError),
    #[error("PostgreSQL asks for {method} authentication: use scram-sha-256, md5, cert or trust")]
    UnsupportedAuthentication { method: String },
    #[error("channel_binding=require, but the server does not offer it: use TLS and SCRAM")]
    NoChannelBinding,
    #[error(
        "what listens at {at} is no PostgreSQL, or a pooler that speaks only a part of its protocol: check \
         host and port of the connection URL"
    )]
    NotPostgres { at: String },
    /// `what`: how it was recognised.
    #[error(
        "what listens there is a connection pooler, such as PgBouncer ({what}): give walhook the address of the \
         server itself, for [postgres] url and for [state] url"
    )]
    Pooler { what: String },
    #[error(
        "PostgreSQL is older than 14, which walhook needs: upgrade it, or point the URL to a newer one"
    )]
    TooOld(#[source] ServerError),
    #[error("the login to PostgreSQL broke off")]
    LogIn(#[source] tokio_postgres::Error),
    #[error(
        "the server does not prove that it knows the password: check that the URL leads to the \
         right server"
    )]
    ServerNotProven(#[source] io::Error),
    #[error("PostgreSQL at {at} is read-only, but target_session_attrs asks for read-write")]
    ReadOnly { at: String },
    #[error("PostgreSQL at {at} allows writes, but target_session_attrs asks for read-only")]
    ReadWrite { at: String },
    #[error("the database is read-only or recovering, as during a failover")]
    TakesNoWrites,
    #[error("PostgreSQL at {at} is a standby, but target_session_attrs asks for the primary")]
    IsStandby { at: String },
    #[error("PostgreSQL at {at} is no standby, but target_session_attrs asks for one")]
    IsPrimary { at: String },
    #[error("PostgreSQL sent what its protocol does not allow here: {what}")]
    Protocol { what: String },
    #[error("lost the connection to PostgreSQL")]
    Disconnected(#[source] io::Error),
    #[error("PostgreSQL refuses a command")]
    Refused(#[source] ServerError),
    #[error("a query failed")]
    Query(#[source] tokio_postgres::Error),
}

impl StoreError {
    /// Whether waiting can help. No `_` arm: each new variant must be answered for.
    pub fn is_transient(&self) -> bool {
        match self {
            // A name server can be away for a while, like any host.
            Self::UnknownHost { .. }
            | Self::Unreachable { .. }
            | Self::TimedOut { .. }
            | Self::TooManyConnections(_)
            | Self::NotReady(_)
            | Self::NotPostgres { .. }
            | Self::ReadOnly { .. }
            | Self::ReadWrite { .. }
            | Self::IsStandby { .. }
            | Self::IsPrimary { .. }
            | Self::TakesNoWrites
            | Self::LogIn(_)
            | Self::Disconnected(_) => true,
            Self::Refused(cause) => is_transient_state(&cause.sqlstate),
            Self::NoHost
            | Self::NoUser
            | Self::HostLists
            | Self::TlsNotOffered { .. }
            | Self::Tls { .. }
            | Self::Certificate { .. }
            | Self::UrlFile { .. }
            | Self::PasswordMissing { .. }
            | Self::WrongPassword { .. }
            | Self::NotAllowed { .. }
            | Self::NoDatabase { .. }
            | Self::NotInUtf8 { .. }
            | Self::TooOld(_)
            | Self::Pooler { .. }
            | Self::UnsupportedAuthentication { .. }
            | Self::NoChannelBinding
            | Self::ServerNotProven(_)
            | Self::Protocol { .. }
            | Self::Query(_) => false,
        }
    }

    /// How a command ends that it stops.
    pub fn exit(&self) -> ExitStatus {
        match self {
            Self::PasswordMissing { .. }
            | Self::UrlFile { .. }
            | Self::WrongPassword { .. }
            | Self::NotAllowed { .. }
            | Self::NoDatabase { .. }
            | Self::NotInUtf8 { .. }
            | Self::TooOld(_)
            | Self::Pooler { .. }
            | Self::TooManyConnections(_)
            | Self::UnsupportedAuthentication { .. }
            | Self::NoChannelBinding
            | Self::TlsNotOffered { .. }
            | Self::ReadOnly { .. }
            | Self::ReadWrite { .. }
            | Self::IsStandby { .. }
            | Self::IsPrimary { .. }
            | Self::TakesNoWrites
            | Self::Refused(_) => ExitStatus::Postgres,
            Self::NoHost
            | Self::NoUser
            | Self::HostLists
            | Self::UnknownHost { .. }
            | Self::Unreachable { .. }
            | Self::TimedOut { .. }
            | Self::Tls { .. }
            | Self::Certificate { .. }
            | Self::NotReady(_)
            | Self::LogIn(_)
            | Self::ServerNotProven(_)
            | Self::NotPostgres { .. }
            | Self::Protocol { .. }
            | Self::Disconnected(_)
            | Self::Query(_) => ExitStatus::Failed,
        }
    }

    /// Whether a walhook that ran well before goes on trying: the server may be put right under it, such
    /// as after a failover, or an administrator may do it. At a start the same things end it, so that
    /// they are seen.
    pub fn may_be_mended(&self) -> bool {
        match self {
            Self::WrongPassword { .. }
            | Self::PasswordMissing { .. }
            | Self::UrlFile { .. }
            | Self::NotAllowed { .. }
            | Self::NoDatabase { .. }
            | Self::NotInUtf8 { .. }
            | Self::TlsNotOffered { .. }
            | Self::Tls { .. }
            | Self::Certificate { .. }
            | Self::UnsupportedAuthentication { .. }
            | Self::NoChannelBinding
            // A login that a reset has cut short looks like it.
            | Self::NotPostgres { .. }
            | Self::ServerNotProven(_) => true,
            Self::Refused(cause) => may_be_mended_state(&cause.sqlstate),
            Self::NoHost
            | Self::NoUser
            | Self::HostLists
            | Self::UnknownHost { .. }
            | Self::Unreachable { .. }
            | Self::TimedOut { .. }
            | Self::TooManyConnections(_)
            | Self::NotReady(_)
            | Self::TooOld(_)
            | Self::Pooler { .. }
            | Self::LogIn(_)
            | Self::ReadOnly { .. }
            | Self::ReadWrite { .. }
            | Self::IsStandby { .. }
            | Self::IsPrimary { .. }
            | Self::TakesNoWrites
            | Self::Protocol { .. }
            | Self::Disconnected(_)
            | Self::Query(_) => self.is_transient(),
        }
    }
}

/// SQLSTATEs of a server that is short of something, or on its way down or up.
pub(crate) fn is_transient_state(state: &SqlState) -> bool {
    let code = state.code();
    // Classes: connection exception, transaction rollback, insufficient resources, operator
    // intervention, system error. And "object in use", and a lock that was not to be had.
    ["08", "40", "53", "57", "58"].iter().any(|class| code.starts_with(class))
        || *state == SqlState::OBJECT_IN_USE
        || *state == SqlState::LOCK_NOT_AVAILABLE
}

/// SQLSTATEs that say what an administrator, or the end of a failover, puts right: the server is short
/// of something or on its way, takes no writes, or does not let this role do what it could before.
pub(crate) fn may_be_mended_state(state: &SqlState) -> bool {
    let is_refused = [
        SqlState::READ_ONLY_SQL_TRANSACTION,
        SqlState::INSUFFICIENT_PRIVILEGE,
        SqlState::INVALID_CATALOG_NAME,
        // A database that takes no connections, such as one that is being moved.
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
    ];
    // Class 28: invalid authorization specification.
    is_transient_state(state) || state.code().starts_with("28") || is_refused.contains(state)
}

/// The I/O error behind an error of tokio-postgres, or the error again.
fn into_io(error: tokio_postgres::Error) -> Result<io::Error, tokio_postgres::Error> {
    if error.is_closed() {
        return Ok(io::Error::from(io::ErrorKind::UnexpectedEof));
    }
    if error.source().is_none_or(|cause| !cause.is::<io::Error>()) {
        return Err(error);
    }
    let kind = error
        .source()
        .and_then(|cause| cause.downcast_ref::<io::Error>())
        .map_or(io::ErrorKind::Other, io::Error::kind);
    Ok(match error.into_source().map(|cause| cause.downcast::<io::Error>()) {
        Some(Ok(cause)) => *cause,
        Some(Err(_)) | None => io::Error::from(kind),
    })
}

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        if let Some(cause) = error.as_db_error() {
            return Self::Refused(cause.into());
        }
        match into_io(error) {
            Ok(cause) => Self::Disconnected(cause),
            Err(error) => Self::Query(error),
        }
    }
}
