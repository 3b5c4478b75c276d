//! What is read of a value of the file, and what of it is lost.

use serde_json::Value;

use crate::cli::import::draft::ImportDraft;

/// Names the keys of `what` that are not read.
pub(super) fn lose_unread(draft: &mut ImportDraft, value: &Value, read: &[&str], what: &str) {
    for (key, _) in value.as_object().into_iter().flatten() {
        if !read.contains(&key.as_str()) {
            draft.lose(format!("`{key}` of {what}"));
        }
    }
}

/// A number or a text, as it is.
pub(super) fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
