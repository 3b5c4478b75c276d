//! Errors of authentication: why a PostgreSQL host did not let us in, and what to correct.

use std::io;

use tokio_postgres::config::ChannelBinding;
use tokio_postgres::error::SqlState;

use crate::config::password_file;
use crate::config::password_file::PasswordLogin;
use crate::config::settings::ServerSettings;
use crate::store::error::StoreError;
use crate::store::error::into_io;
use crate::store::error::server_error::ServerError;

/// Whether these are the words of postgres-protocol for bytes that it cannot read as a message.
fn is_misread(cause: &io::Error) -> bool {
    match cause.kind() {
        // `Other`: the connection ended within what looked like a long message.
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::Other => true,
        // A connection that ends has no text of its own.
        io::ErrorKind::UnexpectedEof => cause.get_ref().is_some(),
        _ => false,
    }
}

impl StoreError {
    /// That there is no password, and why a file with some was not used.
    pub fn password_missing(server: &ServerSettings) -> Self {
        let user = server.user().unwrap_or_default();
        let unused = server.password_file.as_deref().and_then(|file| {
            // Looked at again: only a login without a password gets here.
            let login = PasswordLogin { host: "", port: 0, database: "", user: "" };
            let why = password_file::find(file, login).err()?;
            Some(format!(" ({} {why})", file.display()))
        });
        Self::PasswordMissing { user, note: unused.unwrap_or_default() }
    }

    /// Whether the next host of the list may do better. As libpq: not after a refused login.
    pub(crate) fn is_about_one_host(&self) -> bool {
        match self {
            Self::UnknownHost { .. }
            | Self::Unreachable { .. }
            | Self::TimedOut { .. }
            | Self::TlsNotOffered { .. }
            | Self::Tls { .. }
            | Self::TooManyConnections(_)
            | Self::NotReady(_)
            | Self::NotPostgres { .. }
            | Self::ReadOnly { .. }
            | Self::ReadWrite { .. }
            | Self::IsStandby { .. }
            | Self::IsPrimary { .. }
            | Self::TakesNoWrites
            | Self::Disconnected(_) => true,
            Self::NoHost
            | Self::NoUser
            | Self::HostLists
            | Self::Certificate { .. }
            | Self::UrlFile { .. }
            | Self::PasswordMissing { .. }
            | Self::WrongPassword { .. }
            | Self::NotAllowed { .. }
            | Self::NoDatabase { .. }
            | Self::NotInUtf8 { .. }
            | Self::TooOld(_)
            | Self::UnsupportedAuthentication { .. }
            | Self::NoChannelBinding
            | Self::LogIn(_)
            | Self::ServerNotProven(_)
            | Self::Protocol { .. }
            | Self::Pooler { .. }
            | Self::Refused(_)
            | Self::Query(_) => false,
        }
    }

    /// What an error of the server means while we log in.
    pub fn refused_log_in(cause: ServerError, server: &ServerSettings) -> Self {
        let user = server.user().unwrap_or_default();
        let database = server.params.get_dbname().unwrap_or(&user).to_owned();
        match &cause.sqlstate {
            state if *state == SqlState::INVALID_PASSWORD => Self::WrongPassword { user, cause },
            state if *state == SqlState::INVALID_AUTHORIZATION_SPECIFICATION => {
                Self::NotAllowed { user, database, cause }
            }
            state if *state == SqlState::INVALID_CATALOG_NAME => Self::NoDatabase { database },
            // The message is in the server's language, the name of the encoding is not.
            state
                if *state == SqlState::FEATURE_NOT_SUPPORTED && cause.message.contains("UTF8") =>
            {
                Self::NotInUtf8 { database, cause }
            }
            state if *state == SqlState::TOO_MANY_CONNECTIONS => Self::TooManyConnections(cause),
            state if *state == SqlState::CANNOT_CONNECT_NOW => Self::NotReady(cause),
            state
                if *state == SqlState::UNDEFINED_OBJECT
                    && cause.to_string().contains("idle_session_timeout") =>
            {
                Self::TooOld(cause)
            }
            // PostgreSQL names unknown ones in other words.
            _ if cause.message.starts_with("unsupported startup parameter") => {
                Self::Pooler { what: cause.message }
            }
            _ => Self::Refused(cause),
        }
    }

    /// What an error of tokio-postgres means while it logs in.
    pub(crate) fn log_in(error: tokio_postgres::Error, server: &ServerSettings, at: &str) -> Self {
        if let Some(cause) = error.as_db_error() {
            let refused = Self::refused_log_in(cause.into(), server);
            return match refused {
                // Of these sessions, none asks for replication.
                Self::Refused(cause) if cause.sqlstate == SqlState::INSUFFICIENT_PRIVILEGE => {
                    let user = server.user().unwrap_or_default();
                    let database = server.params.get_dbname().unwrap_or(&user).to_owned();
                    Self::NotAllowed { user, database, cause }
                }
                refused => refused,
            };
        }
        match into_io(error) {
            // Bytes that are no message: another program's greeting, or its answer to ours.
            Ok(cause) if is_misread(&cause) => Self::NotPostgres { at: at.to_owned() },
            Ok(cause) => Self::Disconnected(cause),
            // tokio-postgres has no public kinds for these: they follow from what was asked for.
            Err(_) if server.params.get_channel_binding() == ChannelBinding::Require => {
                Self::NoChannelBinding
            }
            Err(_) if server.params.get_password().is_none() => Self::password_missing(server),
            Err(error) => Self::LogIn(error),
        }
    }
}
