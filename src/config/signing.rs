//! `secret`: the keys that requests are signed with.
//!
//! Format: Standard Webhooks 1.0, "Signature scheme": a symmetric key is `whsec_` and the base64
//! of 24 to 64 bytes.

use std::ops::RangeInclusive;

use base64::Engine;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::GeneralPurpose;
use base64::engine::GeneralPurposeConfig;

use crate::config::field::Field;
use crate::config::secret::Secret;
use crate::config::settings::Signing;

const KEY_PREFIX: &str = "whsec_";
const KEY_BYTES: RangeInclusive<usize> = 24..=64;

/// Ed25519 keys of the same specification: taken as plain text they would sign something else.
const ASYMMETRIC_PREFIXES: [&str; 2] = ["whsk_", "whpk_"];

/// Shorter plain text can be guessed from one signed request.
const TEXT_BYTES_MIN: usize = 16;

/// One signature a key makes the header long; a rotation needs two.
const KEYS_MAX: usize = 5;

/// Accepts keys with and without `=` at the end: both are in use.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Reads one secret, or a list of them while one replaces another.
pub(super) fn read(field: &Field<'_>) -> Option<Signing> {
    if !field.is_list() {
        return Some(Signing::Standard { keys: vec![key(field)?] });
    }
    let items = field.list()?;
    if !(1..=KEYS_MAX).contains(&items.len()) {
        return field.refuse(format!("has {} entries: give 1 to {KEYS_MAX}", items.len()));
    }
    Some(Signing::Standard { keys: items.iter().filter_map(key).collect() })
}

fn key(field: &Field<'_>) -> Option<Secret<Vec<u8>>> {
    let secret = field.secret()?;
    let text = secret.reveal();
    let (start, end) = (KEY_BYTES.start(), KEY_BYTES.end());
    if let Some(encoded) = text.strip_prefix(KEY_PREFIX) {
        let key = BASE64.decode(encoded).ok().filter(|key| KEY_BYTES.contains(&key.len()));
        return key.map(Secret::new).or_else(|| {
            field.refuse(format!(
                "is no {KEY_PREFIX} key: after the prefix give the base64 of {start} to {end} bytes, \
                 such as from `openssl rand -base64 32`"
            ))
        });
    }
    if ASYMMETRIC_PREFIXES.iter().any(|prefix| text.starts_with(prefix)) {
        return field.refuse(format!("is an asymmetric key: give a {KEY_PREFIX} key"));
    }
    if text.len() < TEXT_BYTES_MIN {
        return field.refuse(format!(
            "is too short to be safe: give at least {TEXT_BYTES_MIN} bytes, or a {KEY_PREFIX} key"
        ));
    }
    Some(Secret::new(text.clone().into_bytes()))
}
