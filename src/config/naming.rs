//! Names in messages: which one was meant, and several in a sentence.

/// How alike two names must be (Jaro-Winkler, 0 to 1) for one to be taken for a slip of the other.
const LIKENESS_MIN: f64 = 0.8;

/// The name that `given` is most likely a slip of.
pub(super) fn nearest<'n>(
    given: &str,
    known: impl IntoIterator<Item = &'n str>,
) -> Option<&'n str> {
    known
        .into_iter()
        .map(|name| (strsim::jaro_winkler(given, name), name))
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, name)| name)
}

/// Names in a sentence: "`a`, `b`".
pub(super) fn listed(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}
