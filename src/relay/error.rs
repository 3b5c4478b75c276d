//! Why the broker could not be used. The text is for the operator: what is wrong, then what to do.

use crate::relay::message::MessageError;

/// What the broker answered, or that it did not.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RelayError {
    #[error("cannot reach NATS at {servers}: start it, or correct `url` of [relay]")]
    Unreachable {
        servers: String,
        #[source]
        cause: async_nats::ConnectError,
    },
    #[error(
        "NATS at {servers} does not let walhook in: correct user and password of `url`, or `credentials`, of [relay]"
    )]
    NotAllowed {
        servers: String,
        #[source]
        cause: async_nats::ConnectError,
    },
    #[error(
        "no TLS with NATS at {servers}: correct `tls` of [relay], `ca` names who signed the broker's certificate"
    )]
    Tls {
        servers: String,
        #[source]
        cause: async_nats::ConnectError,
    },
    #[error("`tls` of [relay] cannot be used")]
    TlsSettings(#[source] rustls::Error),
    #[error(
        "`credentials` of [relay] cannot be used: give the file that `nsc generate creds` writes"
    )]
    Credentials(#[source] std::io::Error),
    #[error("NATS {version} is too old: walhook needs {major}.{minor} or later", major = needed.0, minor = needed.1)]
    TooOld { version: String, needed: (i64, i64) },
    #[error(
        "JetStream answers nothing{said}: turn it on in the broker's configuration (jetstream {{}}) and for the \
         account, and allow walhook to publish to $JS.API.> and to subscribe to _INBOX.>",
        said = said(permission)
    )]
    NoJetStream { permission: Option<String> },
    #[error(
        "the broker has no room for stream {stream} of {stream_bytes} bytes: raise `max_file_store` of its \
         jetstream {{}} (three quarters of the free disk by default) or the account's `max_file`, or lower \
         `stream_size` or `partitions` of [relay]"
    )]
    NoRoom { stream: String, stream_bytes: i64 },
    #[error("stream {stream} cannot be made{said}", said = said(permission))]
    NotMade {
        stream: String,
        permission: Option<String>,
        #[source]
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("stream {stream} cannot be used{said}", said = said(permission))]
    NotUsable {
        stream: String,
        permission: Option<String>,
        #[source]
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error(
        "stream {stream} is another one: {what}; remove it with `nats stream rm {stream}` if nobody needs it"
    )]
    OtherStream { stream: String, what: String },
}

/// Why the source's holder cannot go on sending: some of it waiting can mend, some a new epoch.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RelayInterruption {
    #[error("the broker does not take or answer what it has to")]
    Away(#[source] RelayError),
    #[error(
        "stream {stream} is written under a later epoch: another walhook has the slot, this one ends"
    )]
    Fenced { stream: String },
    #[error("stream {stream} has lost something, {what}: what is not settled is sent again")]
    Lost { stream: String, what: &'static str },
    #[error("{member} has not got all of partition {partition}: what is not settled is sent again")]
    Rewind { partition: i32, member: String },
    #[error("nobody delivers for partition {partition}: its events are parked")]
    Unowned { partition: i32 },
    #[error("somebody delivers again: what was parked is given out")]
    Wanted,
    #[error("event {event} cannot be sent over the broker")]
    Unsendable {
        event: String,
        #[source]
        cause: MessageError,
    },
}

impl RelayInterruption {
    /// Whether everything is put right by sending again what is not settled, under another epoch.
    pub(crate) fn is_rewind(&self) -> bool {
        match self {
            Self::Lost { .. } | Self::Rewind { .. } | Self::Unowned { .. } | Self::Wanted => true,
            Self::Away(_) | Self::Fenced { .. } | Self::Unsendable { .. } => false,
        }
    }
}

/// What the broker has said of permissions meanwhile, in brackets.
fn said(permission: &Option<String>) -> String {
    permission.as_ref().map_or_else(String::new, |said| format!(" ({said})"))
}
