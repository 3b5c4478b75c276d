//! Errors that end a lane: its task or the ledger has ended.

use std::sync::Arc;

/// Why a lane cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    #[error("the lane of endpoint {endpoint} has ended: see what it logged before")]
    LaneEnded { endpoint: Arc<str> },
    #[error(
        "nobody takes the outcomes of endpoint {endpoint} any more: see what the ledger logged \
         before; what was not settled comes again after a restart"
    )]
    LedgerEnded { endpoint: Arc<str> },
}
