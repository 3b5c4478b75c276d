//! The names under which docs/errors.md explains connections and the state: stable, for scripts and searches.

use crate::store::error::StoreError;
use crate::store::state_error::StateError;

impl StoreError {
    /// No `_` arm: each new variant must be named, and a test asks for its section in docs/errors.md.
    pub fn id(&self) -> &'static str {
        match self {
            Self::NoHost => "no-host",
            Self::NoUser => "no-user",
            Self::HostLists => "host-lists",
            Self::UnknownHost { .. } => "unknown-host",
            Self::Unreachable { .. } => "unreachable",
            Self::TimedOut { .. } => "login-timeout",
            Self::TlsNotOffered { .. } => "tls-not-offered",
            Self::Tls { .. } => "tls-failed",
            Self::Certificate { .. } => "certificate",
            Self::PasswordMissing { .. } => "password-missing",
            Self::UrlFile { .. } => "url-file",
            Self::WrongPassword { .. } => "wrong-password",
            Self::NotAllowed { .. } => "not-allowed",
            Self::NoDatabase { .. } => "no-database",
            Self::NotInUtf8 { .. } => "not-in-utf8",
            Self::TooManyConnections(_) => "too-many-connections",
            Self::NotReady(_) => "server-not-ready",
            Self::TooOld(_) => "server-too-old",
            Self::UnsupportedAuthentication { .. } => "unsupported-authentication",
            Self::NoChannelBinding => "no-channel-binding",
            Self::Pooler { .. } => "pooler",
            Self::NotPostgres { .. } => "not-postgres",
            Self::LogIn(_) => "login-broken",
            Self::ServerNotProven(_) => "server-not-proven",
            Self::ReadOnly { .. } => "read-only",
            Self::ReadWrite { .. } => "read-write",
            Self::TakesNoWrites => "takes-no-writes",
            Self::IsStandby { .. } => "is-standby",
            Self::IsPrimary { .. } => "is-primary",
            Self::Protocol { .. } => "postgres-protocol",
            Self::Disconnected(_) => "disconnected",
            Self::Refused(_) => "command-refused",
            Self::Query(_) => "query-failed",
        }
    }
}

impl StateError {
    /// As [`StoreError::id`].
    pub fn id(&self) -> &'static str {
        match self {
            Self::Store(cause) => cause.id(),
            Self::NewerSchema { .. } => "state-newer",
            Self::LacksTables { .. } => "state-lacks-tables",
            Self::NoPrivilege { .. } => "state-no-privilege",
            Self::Fenced { .. } => "state-fenced",
            Self::SetBack { .. } => "state-set-back",
            Self::OutOfOrder { .. } => "state-out-of-order",
            Self::BodyTooLarge { .. } => "body-too-large",
            Self::Unreadable { .. } => "state-unreadable",
        }
    }
}
