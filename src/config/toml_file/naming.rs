//! Names in messages: which one was meant, and several in a sentence.

use crate::flow::nearest_name;

/// How alike two names must be (Jaro-Winkler, 0 to 1) for one to be taken for a slip of the other.
const LIKENESS_MIN: f64 = 0.8;

/// The name that `given` is most likely a slip of.
pub(crate) fn nearest<'n>(
    given: &str,
    known: impl IntoIterator<Item = &'n str>,
) -> Option<&'n str> {
    nearest_name::nearest(given, known, LIKENESS_MIN)
}

/// Names in a sentence: "`a`, `b`".
pub(crate) fn listed(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}
