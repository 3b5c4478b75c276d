//! Which of the known names a misspelt one was meant to be.

/// The name that `given` is most like, of those that are like it at least so much (Jaro-Winkler, 0 to 1).
pub(crate) fn nearest<'n>(
    given: &str,
    known: impl IntoIterator<Item = &'n str>,
    likeness_min: f64,
) -> Option<&'n str> {
    known
        .into_iter()
        .map(|name| (strsim::jaro_winkler(given, name), name))
        .filter(|(likeness, _)| *likeness >= likeness_min)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_taken_for_the_name_that_it_is_most_like() {
        let known = ["timeout", "retry", "retries"];
        let cases = [("timeuot", Some("timeout")), ("retri", Some("retries")), ("zzz", None)];
        for (given, expected) in cases {
            assert_eq!(nearest(given, known, 0.8), expected, "case: {given}");
        }
        assert_eq!(nearest("x", [], 0.0), None);
    }
}
