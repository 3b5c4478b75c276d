//! Which headers hold secrets, by their names: they are masked in the push log and in what the API shows.

/// Whether a header's name, in lower case, suggests that its value is a secret. Asked for every header of every
/// attempt: most letters begin none of the words.
pub(crate) fn is_secret_header(name: &str) -> bool {
    let mut rest = name.as_bytes();
    while let [first, after @ ..] = rest {
        let words: &[&[u8]] = match first {
            b'a' => &[b"auth"],
            b'c' => &[b"cookie", b"credential"],
            b'k' => &[b"key"],
            b'p' => &[b"passw"],
            b's' => &[b"secret", b"session", b"signature"],
            b't' => &[b"token"],
            _ => &[],
        };
        if words.iter().any(|word| rest.starts_with(word)) {
            return true;
        }
        rest = after;
    }
    false
}
