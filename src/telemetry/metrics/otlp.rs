//! Metrics of the OTLP export: sent, dropped, failed.

use prometheus::IntCounter;
use prometheus::IntCounterVec;

/// The values of label `signal`.
pub(super) const SIGNALS: [&str; 2] = ["metrics", "traces"];

/// Spans by what became of them, and requests by signal.
#[derive(Clone, Debug)]
pub(crate) struct OtlpMetrics {
    /// Spans that the collector took.
    pub exported: IntCounter,
    /// Spans that found the queue full, or that the collector did not take.
    pub dropped: IntCounter,
    requests: IntCounterVec,
}

impl OtlpMetrics {
    pub(super) fn new(spans: &IntCounterVec, requests: IntCounterVec) -> Self {
        let made = Self {
            exported: spans.with_label_values(&["exported"]),
            dropped: spans.with_label_values(&["dropped"]),
            requests,
        };
        SIGNALS.iter().for_each(|signal| drop(made.requests(signal)));
        made
    }

    /// Requests with this signal, one of [`SIGNALS`], that were taken, and those that were not.
    pub(crate) fn requests(&self, signal: &str) -> (IntCounter, IntCounter) {
        let result = |result| self.requests.with_label_values(&[signal, result]);
        (result("taken"), result("failed"))
    }
}
