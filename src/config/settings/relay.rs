//! `[relay]`: the broker between a tail and those that deliver.

use std::num::NonZeroU16;
use std::time::Duration;

use url::Url;

use crate::config::secret::Secret;
use crate::config::sections::endpoint_connection::ConnectionLink;

/// Where the broker is, how to get in, and how much of it is used.
#[derive(Clone, Debug, PartialEq)]
pub struct RelaySettings {
    /// Its servers, tried one after the other; user and password may stand in them.
    pub servers: Vec<Secret<Url>>,
    /// The text of a `.creds` file: a JWT and the seed of its key.
    pub credentials: Option<Secret<String>>,
    /// Of `tls`: whom to trust and what to show. Nothing else of it is used.
    pub link: ConnectionLink,
    /// Whether `tls` was given: then nothing goes over a connection without it.
    pub needs_tls: bool,
    /// Into how many parts the endpoints fall.
    pub partitions: NonZeroU16,
    /// Servers that keep each stream.
    pub replicas: usize,
    /// What one stream may hold.
    pub stream_bytes: i64,
    /// How long a partition may be without an owner before its events are parked.
    pub patience: Duration,
}
