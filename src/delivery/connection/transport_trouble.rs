//! Why a request has no response: not connected, broken off, or not processed by the peer.

use crate::delivery::connection::dial::DialError;

/// Why there is no response.
#[derive(Debug)]
pub(crate) enum TransportTrouble {
    /// No connection could be made.
    Connect(DialError),
    /// It broke, or what came was not HTTP.
    Exchange(hyper::Error),
    /// The peer says that it did not process the request.
    Unprocessed(hyper::Error),
}
