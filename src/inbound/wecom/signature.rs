//! WeCom's callback signature: lower-case hex SHA-1 of token, timestamp, nonce and ciphertext.
//!
//! The four texts are sorted bytewise and joined by nothing. SHA-1 is what the protocol says; the token
//! is a secret of its own. Format: WeCom developer documentation, "Callbacks and replies" (加解密方案).

use ring::digest::Context;
use ring::digest::SHA1_FOR_LEGACY_USE_ONLY;

use crate::config::secret::is_same;
use crate::flow::hex::hex_of;

/// The hex digest that `msg_signature` has to be.
pub fn signature(token: &str, timestamp: &str, nonce: &str, encrypted: &str) -> String {
    let mut parts = [token, timestamp, nonce, encrypted];
    parts.sort_unstable();
    let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    for part in parts {
        context.update(part.as_bytes());
    }
    hex_of(context.finish().as_ref())
}

/// Whether `given` is that signature, in constant time.
pub(crate) fn is_signed(
    given: &str,
    token: &str,
    timestamp: &str,
    nonce: &str,
    encrypted: &str,
) -> bool {
    let ours = signature(token, timestamp, nonce, encrypted);
    is_same(given.as_bytes(), ours.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "walhookTok3n";

    #[test]
    fn vectors_are_met() {
        let cases = [
            (
                "1700000000",
                "1234567890",
                "P7f63hPkbwZVEAeQG28khmufPcTHI9B1j39/+OtsD5RuVYv3utkIUsJ7nEPhvgt81YTynLsSaN4xG1v2hG5Wjg==",
                "afd50924d4256583d1cbf9705cd1cfdb493df5ab",
            ),
            (
                "1700000002",
                "nC",
                "P7f63hPkbwZVEAeQG28khidWB0nJZXswtsgnBWe+bL9feHvMw4j79GnFEWqf0VF2aEiIaJoypsZQU7HrqqjOD3EwcsdlP/0TQLRCVgdcrUaPGwoXChpyXdbiRmzNHqtf",
                "ba26c1f2efa3df3c15d9992ef1df07864471c9e7",
            ),
        ];
        for (timestamp, nonce, encrypted, expected) in cases {
            assert_eq!(signature(TOKEN, timestamp, nonce, encrypted), expected);
            assert!(is_signed(expected, TOKEN, timestamp, nonce, encrypted));
            assert!(!is_signed(&expected.to_uppercase(), TOKEN, timestamp, nonce, encrypted));
            assert!(!is_signed(expected.split_at(1).1, TOKEN, timestamp, nonce, encrypted));
            assert!(!is_signed(expected, "other", timestamp, nonce, encrypted));
        }
    }
}
