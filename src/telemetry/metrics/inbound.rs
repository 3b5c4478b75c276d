//! Metrics of inbound callbacks, by source.

use prometheus::Histogram;
use prometheus::IntCounter;
use prometheus::IntCounterVec;

/// The handles of one source.
#[derive(Clone, Debug)]
pub(crate) struct InboundMetrics {
    pub(super) source: String,
    pub(super) refused: IntCounterVec,
    /// Requests that claimed to be callbacks.
    pub received: IntCounter,
    /// Rows that were committed.
    pub kept: IntCounter,
    /// Callbacks that were there already.
    pub repeats: IntCounter,
    /// From the head of the request to its answer with success, in seconds.
    pub answer: Histogram,
}

impl InboundMetrics {
    /// Those that were refused for this reason.
    pub(crate) fn refused(&self, reason: &str) -> IntCounter {
        self.refused.with_label_values(&[self.source.as_str(), reason])
    }
}
