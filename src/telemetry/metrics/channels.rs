//! What chat systems answer instead of success, by endpoint and code.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use prometheus::IntCounterVec;

/// Codes of one endpoint with series of their own. Systems have hundreds, and an endpoint may answer anything.
const CODES_MAX: usize = 32;

/// The code of all others.
const OTHER: &str = "other";

/// The codes of all channels, as they come. Clones share them.
#[derive(Clone, Debug)]
pub struct ChannelErrorMetrics {
    family: IntCounterVec,
    known: Arc<Mutex<BTreeMap<String, BTreeSet<String>>>>,
}

impl ChannelErrorMetrics {
    pub(super) fn new(family: IntCounterVec) -> Self {
        Self { family, known: Arc::default() }
    }

    /// The endpoint has answered with this code.
    pub fn answered(&self, endpoint: &str, code: &str) {
        let is_known = {
            let mut known = self.known();
            let codes = known.entry(endpoint.to_owned()).or_default();
            codes.contains(code) || codes.len() < CODES_MAX && codes.insert(code.to_owned())
        };
        let code = if is_known { code } else { OTHER };
        self.family.with_label_values(&[endpoint, code]).inc();
    }

    /// Shows a code that may be answered, with 0.
    pub fn expect(&self, endpoint: &str, code: &str) {
        self.known().entry(endpoint.to_owned()).or_default().insert(code.to_owned());
        drop(self.family.with_label_values(&[endpoint, code]));
    }

    pub(super) fn forget(&self, endpoint: &str) {
        let codes = self.known().remove(endpoint).unwrap_or_default();
        for code in codes.iter().map(String::as_str).chain([OTHER]) {
            self.family.remove_label_values(&[endpoint, code]).ok(); // it may never have been answered
        }
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, BTreeSet<String>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;

    use super::*;
    use crate::telemetry::metrics::spec;
    use crate::telemetry::metrics::spec::counters;

    #[test]
    fn codes_are_counted_and_bounded() {
        let family = counters(&Registry::new(), &spec::CHANNEL_ERRORS);
        let metrics = ChannelErrorMetrics::new(family.clone());
        metrics.expect("a", "45009");
        for code in 0..100 {
            metrics.answered("a", &code.to_string());
        }
        metrics.answered("a", "45009");
        metrics.answered("b", "77");
        let of = |endpoint: &str, code: &str| family.with_label_values(&[endpoint, code]).get();
        assert_eq!((of("a", "45009"), of("a", "30"), of("b", "77")), (1, 1, 1));
        assert_eq!(of("a", OTHER), 100 - 31);
        metrics.forget("a");
        assert_eq!((of("a", "30"), of("b", "77")), (0, 1));
    }
}
