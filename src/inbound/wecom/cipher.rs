//! WeCom's callback cipher: AES-256-CBC under the EncodingAESKey, and the envelope within.
//!
//! Pure, and never panics: the bytes come from anyone who finds the URL. Called only after the signature
//! has been verified. Format: WeCom developer documentation, "Callbacks and replies" (加解密方案).
//!
//! ```text
//! 16 random bytes │ message length, 4 bytes big-endian │ message │ receive id │ PKCS#7 to 32 bytes
//! ```

use aes::Aes256;
use aes::cipher::BlockModeDecrypt;
use aes::cipher::KeyIvInit;
use aes::cipher::block_padding::NoPadding;
use base64::Engine;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::GeneralPurpose;
use base64::engine::GeneralPurposeConfig;

const KEY_BYTES: usize = 32;
/// The IV is the beginning of the key.
const IV_BYTES: usize = 16;
const BLOCK_BYTES: usize = 16;
/// Padding goes to twice the cipher's block: with a check against 16 half of all messages fail.
const PADDING_MAX: usize = 32;
const RANDOM_BYTES: usize = 16;
const LENGTH_BYTES: usize = 4;

/// Characters of an EncodingAESKey: base64 of 32 bytes without its `=`.
pub(crate) const KEY_CHARS: usize = 43;

/// The last of the 43 characters usually carries spare bits, which strict decoders refuse.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// An EncodingAESKey. Its `Debug` shows nothing of it.
#[derive(Clone)]
pub struct CallbackKey([u8; KEY_BYTES]);

impl std::fmt::Debug for CallbackKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CallbackKey([secret])")
    }
}

/// Why a ciphertext is refused. Stands in metrics, never in an answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CipherError {
    /// It is not base64.
    Encoding,
    /// It is empty, or not a whole number of blocks.
    Length,
    Padding,
    /// The message's length points beyond the plaintext.
    Envelope,
    /// It was encrypted for another receiver.
    ReceiveId,
}

impl CallbackKey {
    /// Reads the 43 characters; `None` if they are no such key.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != KEY_CHARS {
            return None;
        }
        let bytes = LENIENT.decode(text).ok()?;
        Some(Self(bytes.try_into().ok()?))
    }

    /// The message in a base64 ciphertext, which has to be meant for `receive_id`.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn decrypt(&self, encrypted: &str, receive_id: &str) -> Result<Vec<u8>, CipherError> {
        let mut bytes = LENIENT.decode(encrypted.trim()).map_err(|_| CipherError::Encoding)?;
        if bytes.is_empty() || bytes.len() % BLOCK_BYTES != 0 {
            return Err(CipherError::Length);
        }
        let iv = self.0.get(..IV_BYTES).ok_or(CipherError::Length)?;
        let cipher = cbc::Decryptor::<Aes256>::new_from_slices(&self.0, iv);
        let cipher = cipher.map_err(|_| CipherError::Length)?;
        let plain = cipher.decrypt_padded::<NoPadding>(&mut bytes);
        let plain = plain.map_err(|_| CipherError::Length)?;
        let plain = unpadded(plain).ok_or(CipherError::Padding)?;
        let (message, whose) = envelope(plain).ok_or(CipherError::Envelope)?;
        if whose != receive_id.as_bytes() {
            return Err(CipherError::ReceiveId);
        }
        Ok(message.to_vec())
    }
}

/// PKCS#7 with blocks of 32 bytes: the last byte says how many there are, and all of them say so.
fn unpadded(plain: &[u8]) -> Option<&[u8]> {
    let count = usize::from(*plain.last()?);
    if count == 0 || count > PADDING_MAX {
        return None;
    }
    let (rest, padding) = plain.split_at_checked(plain.len().checked_sub(count)?)?;
    padding.iter().all(|byte| usize::from(*byte) == count).then_some(rest)
}

/// The message, and the receive id behind it.
fn envelope(plain: &[u8]) -> Option<(&[u8], &[u8])> {
    let (_random, rest) = plain.split_at_checked(RANDOM_BYTES)?;
    let (length, rest) = rest.split_first_chunk::<LENGTH_BYTES>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    rest.split_at_checked(length)
}

#[cfg(test)]
pub(crate) mod tests {
    use aes::cipher::BlockModeEncrypt;
    use proptest::prelude::*;

    use super::*;

    pub(crate) const KEY: &str = "zYm4VO3jFrAqnhktBa9Kvy25k1sdreiZCuQ6ynGjPPf";
    pub(crate) const CORP: &str = "ww0123456789abcdef";

    /// What WeCom does.
    pub(crate) fn encrypt(key: &str, message: &[u8], receive_id: &str) -> String {
        let key = CallbackKey::parse(key).unwrap();
        let mut plain = b"0123456789abcdef".to_vec();
        plain.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
        plain.extend_from_slice(message);
        plain.extend_from_slice(receive_id.as_bytes());
        let count = PADDING_MAX - plain.len() % PADDING_MAX;
        plain.extend(std::iter::repeat_n(u8::try_from(count).unwrap(), count));
        sealed(&key, plain)
    }

    fn sealed(key: &CallbackKey, mut plain: Vec<u8>) -> String {
        let cipher = cbc::Encryptor::<Aes256>::new_from_slices(&key.0, &key.0[..IV_BYTES]).unwrap();
        let length = plain.len();
        let sealed = cipher.encrypt_padded::<NoPadding>(&mut plain, length).unwrap();
        LENIENT.encode(sealed)
    }

    #[test]
    fn vectors_of_both_paddings_open() {
        let key = CallbackKey::parse(KEY).unwrap();
        let short = "P7f63hPkbwZVEAeQG28khmufPcTHI9B1j39/+OtsD5RuVYv3utkIUsJ7nEPhvgt81YTynLsSaN4xG1v2hG5Wjg==";
        assert_eq!(key.decrypt(short, CORP).unwrap(), b"1616140317555161061");
        let full = "P7f63hPkbwZVEAeQG28khidWB0nJZXswtsgnBWe+bL9feHvMw4j79GnFEWqf0VF2aEiIaJoypsZQU7HrqqjOD3EwcsdlP/0TQLRCVgdcrUaPGwoXChpyXdbiRmzNHqtf";
        assert_eq!(key.decrypt(full, CORP).unwrap(), b"x".repeat(26));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let cases = ["", KEY.strip_prefix('z').unwrap(), &format!("{KEY}="), &"!".repeat(43)];
        for text in cases {
            assert!(CallbackKey::parse(text).is_none(), "case: {text}");
        }
        assert!(!format!("{:?}", CallbackKey::parse(KEY)).contains("zYm4"));
    }

    #[test]
    fn what_is_not_whole_is_refused_with_its_reason() {
        let key = CallbackKey::parse(KEY).unwrap();
        let padded = |count: u8, with: u8| {
            let mut plain = vec![0; 64 - usize::from(count)];
            plain.extend(std::iter::repeat_n(with, usize::from(count)));
            sealed(&key, plain)
        };
        let too_long = {
            let mut plain = vec![b'r'; 16];
            plain.extend_from_slice(&1_000_u32.to_be_bytes());
            plain.extend_from_slice(&[12; 12]);
            sealed(&key, plain)
        };
        let cases = [
            ("no base64", String::from("@@@@"), CipherError::Encoding),
            ("nothing", String::new(), CipherError::Length),
            ("half a block", LENIENT.encode([7; 24]), CipherError::Length),
            ("padding 0", padded(1, 0), CipherError::Padding),
            ("padding 33", padded(33, 33), CipherError::Padding),
            ("padding that disagrees", padded(3, 4), CipherError::Padding),
            ("shorter than an envelope", sealed(&key, vec![16; 32]), CipherError::Envelope),
            ("length beyond the end", too_long, CipherError::Envelope),
            ("another receiver", encrypt(KEY, b"x", "ww-other"), CipherError::ReceiveId),
            (
                "the receiver and more",
                encrypt(KEY, b"x", "ww0123456789abcdef0"),
                CipherError::ReceiveId,
            ),
        ];
        for (name, text, expected) in cases {
            assert_eq!(key.decrypt(&text, CORP), Err(expected), "case: {name}");
        }
    }

    proptest! {
        #[test]
        fn what_was_encrypted_opens(message: Vec<u8>, receive_id in "[a-z0-9]{0,40}") {
            let key = CallbackKey::parse(KEY).unwrap();
            let text = encrypt(KEY, &message, &receive_id);
            prop_assert_eq!(key.decrypt(&text, &receive_id), Ok(message));
        }

        #[test]
        fn any_bytes_open_or_are_refused(bytes: Vec<u8>) {
            let key = CallbackKey::parse(KEY).unwrap();
            prop_assert!(key.decrypt(&LENIENT.encode(&bytes), CORP).is_err());
        }
    }
}
