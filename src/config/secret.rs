//! Secrets: values that are redacted wherever they are shown, and wiped from memory when they are dropped.

use std::fmt;

use url::Url;
use zeroize::Zeroize;

/// A value whose `Debug` prints `[secret]`. It has no `Display`, so it cannot slip into a message.
///
/// Its bytes are overwritten when it is dropped. What the wire or a key gets of it is a copy of theirs.
#[derive(Clone, Eq, PartialEq)]
pub struct Secret<T: SecretValue>(T);

/// What a secret may be: something whose bytes can be overwritten.
pub trait SecretValue {
    fn wipe(&mut self);
}

impl SecretValue for String {
    fn wipe(&mut self) {
        self.zeroize();
    }
}

impl SecretValue for Vec<u8> {
    fn wipe(&mut self) {
        self.zeroize();
    }
}

impl<const BYTES: usize> SecretValue for [u8; BYTES] {
    fn wipe(&mut self) {
        self.zeroize();
    }
}

impl SecretValue for Url {
    fn wipe(&mut self) {
        // The only way to its own bytes is to take them out.
        if let Ok(nothing) = Url::parse("data:") {
            String::from(std::mem::replace(self, nothing)).zeroize();
        }
    }
}

impl<T: SecretValue> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.wipe();
    }
}

impl<T: SecretValue> Secret<T> {
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself: only where it goes onto the wire or into a key.
    pub const fn reveal(&self) -> &T {
        &self.0
    }
}

impl<T: SecretValue> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// Compares in a time that does not tell how much of the secret is right.
pub(crate) fn is_same(given: &[u8], secret: &[u8]) -> bool {
    let digest = |text| ring::digest::digest(&ring::digest::SHA256, text);
    let (given, secret) = (digest(given), digest(secret));
    given.as_ref().iter().zip(secret.as_ref()).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_does_not_show_the_value() {
        assert_eq!(format!("{:?}", Secret::new("hunter2".to_owned())), "[secret]");
    }

    #[test]
    fn what_is_wiped_is_gone() {
        let mut text = "hunter2".to_owned();
        text.wipe();
        assert_eq!(text, "");
        let mut key = vec![7; 9];
        key.wipe();
        assert!(key.is_empty());
        let mut url = Url::parse("https://bob:hunter2@example.com/in").unwrap();
        url.wipe();
        assert!(!url.as_str().contains("hunter2"), "{url}");
    }
}
