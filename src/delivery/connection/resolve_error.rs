//! Errors of name resolution (DNS): no address, no answer in time, too many look-ups.

use std::io;

/// Not of the name that is asked for.
pub(crate) const LOOKUPS_BUSY: &str =
    "walhook looks up as many names as it can: those of others do not answer";

/// A name did not resolve. The text does not hold the name: it is part of the URL.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResolveError {
    #[error("the name has no address")]
    Empty,
    #[error("{0}")]
    Failed(io::Error),
    #[error("no name server has answered in time")]
    Late,
    /// Not of the name: too many others are being looked up.
    #[error("{LOOKUPS_BUSY}")]
    Busy,
}
