//! YAML as JSON values, for the manifests of the chart.
#![expect(clippy::unwrap_used, reason = "a test may stop at once")]

use serde_json::Value;

/// Every document of the text that holds something.
pub(crate) fn documents(text: &str) -> Vec<Value> {
    walhook::testing::cli::import::yaml::documents(text).unwrap()
}
