//! Seals what must not be readable in the database: secrets of endpoints.
//!
//! AES-256-GCM. A sealed text is `version (1 byte), key id (4), nonce (12), ciphertext and tag (16)`.
//! It is bound to the slot and the endpoint that it belongs to, so that a row's secrets cannot be
//! moved to another row. Several keys may be there while one replaces another: the first seals, each
//! opens what it has sealed.

use ring::aead::AES_256_GCM;
use ring::aead::Aad;
use ring::aead::LessSafeKey;
use ring::aead::NONCE_LEN;
use ring::aead::Nonce;
use ring::aead::UnboundKey;
use ring::digest;
use ring::rand::SecureRandom;
use ring::rand::SystemRandom;

use crate::config::secret::Secret;
use crate::flow::hex::hex_of;

const VERSION: u8 = 1;
const ID_LEN: usize = 4;
const HEAD_LEN: usize = 1 + ID_LEN + NONCE_LEN;

/// Names a key without telling anything of it.
type KeyId = [u8; ID_LEN];

/// The keys of `[state] key`.
pub(crate) struct SealingKeys(Vec<(KeyId, LessSafeKey)>);

/// Why something could not be sealed or opened.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum SealError {
    #[error(
        "endpoint {endpoint} has secrets, and there is no key to seal them with: make one with \
         `openssl rand -base64 32`, and give it as [state] key, best as {{ env = \"WALHOOK_KEY\" }}"
    )]
    NoKey { endpoint: String },
    #[error(
        "the secrets of endpoint {endpoint} were sealed with key {id}, and [state] key holds only \
         {known}: add the key that was there when they were saved"
    )]
    OtherKey { endpoint: String, id: String, known: String },
    #[error(
        "the secrets of endpoint {endpoint} cannot be opened, although their key is there: the row \
         in walhook.endpoints was changed or moved; delete it, and make the endpoint again"
    )]
    Broken { endpoint: String },
    #[error("this host has no random numbers")]
    NoRandomness,
}

impl SealingKeys {
    pub(crate) fn new(keys: &[Secret<[u8; 32]>]) -> Self {
        let ready = |key: &Secret<[u8; 32]>| {
            let unbound = UnboundKey::new(&AES_256_GCM, key.reveal()).ok()?;
            Some((id_of(key.reveal()), LessSafeKey::new(unbound)))
        };
        Self(keys.iter().filter_map(ready).collect())
    }

    /// Seals `plain` for an endpoint of a slot.
    ///
    /// # Errors
    /// There is no key, or the host has no random numbers.
    pub(crate) fn seal(
        &self,
        slot: &str,
        endpoint: &str,
        plain: &[u8],
    ) -> Result<Vec<u8>, SealError> {
        let Some((id, key)) = self.0.first() else {
            return Err(SealError::NoKey { endpoint: endpoint.to_owned() });
        };
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(|_| SealError::NoRandomness)?;
        let mut text = plain.to_vec();
        let tag = key
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(place(slot, endpoint)),
                &mut text,
            )
            .map_err(|_| SealError::NoRandomness)?;
        let mut sealed = vec![VERSION];
        sealed.extend_from_slice(id);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&text);
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed)
    }

    /// # Errors
    /// The key that sealed it is not there, or it was changed.
    pub(crate) fn open(
        &self,
        slot: &str,
        endpoint: &str,
        sealed: &[u8],
    ) -> Result<Vec<u8>, SealError> {
        let broken = || SealError::Broken { endpoint: endpoint.to_owned() };
        let (head, text) = sealed.split_at_checked(HEAD_LEN).ok_or_else(broken)?;
        let (&version, rest) = head.split_first().ok_or_else(broken)?;
        let (id, nonce) = rest.split_at_checked(ID_LEN).ok_or_else(broken)?;
        if version != VERSION {
            return Err(broken());
        }
        let key = self.0.iter().find(|(known, _)| known == id).map(|(_, key)| key);
        let key = key.ok_or_else(|| SealError::OtherKey {
            endpoint: endpoint.to_owned(),
            id: hex_of(id),
            known: self.shown(),
        })?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| broken())?;
        let mut text = text.to_vec();
        let plain = key.open_in_place(nonce, Aad::from(place(slot, endpoint)), &mut text);
        Ok(plain.map_err(|_| broken())?.to_vec())
    }

    /// Whether it was sealed with the key that seals now.
    pub(crate) fn is_current(&self, sealed: &[u8]) -> bool {
        let id = sealed.get(1..=ID_LEN);
        self.0.first().is_some_and(|(first, _)| id == Some(first.as_slice()))
    }

    fn shown(&self) -> String {
        if self.0.is_empty() {
            return "no key at all".to_owned();
        }
        let ids: Vec<String> = self.0.iter().map(|(id, _)| hex_of(id)).collect();
        ids.join(", ")
    }
}

impl std::fmt::Debug for SealingKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Keys").field(&self.shown()).finish()
    }
}

fn id_of(key: &[u8; 32]) -> KeyId {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(b"walhook key id");
    context.update(key);
    let mut id = KeyId::default();
    id.iter_mut().zip(context.finish().as_ref()).for_each(|(place, byte)| *place = *byte);
    id
}

/// Neither name can hold a NUL, so that two pairs are never the same text.
fn place(slot: &str, endpoint: &str) -> Vec<u8> {
    format!("walhook endpoint\0{slot}\0{endpoint}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keys(bytes: &[u8]) -> SealingKeys {
        let keys: Vec<_> = bytes.iter().map(|byte| Secret::new([*byte; 32])).collect();
        SealingKeys::new(&keys)
    }

    #[test]
    fn what_was_sealed_opens_in_its_place_only() {
        let keys = keys(&[1]);
        let sealed = keys.seal("slot", "crm", b"hunter2").unwrap();
        assert!(!sealed.windows(7).any(|window| window == b"hunter2"));
        assert_eq!(keys.open("slot", "crm", &sealed).unwrap(), b"hunter2");
        for (slot, endpoint) in [("slot", "other"), ("other", "crm")] {
            let error = keys.open(slot, endpoint, &sealed).unwrap_err();
            assert_eq!(error, SealError::Broken { endpoint: endpoint.to_owned() });
        }
        assert_ne!(keys.seal("slot", "crm", b"hunter2").unwrap(), sealed, "a nonce is used once");
    }

    #[test]
    fn a_key_is_replaced_by_putting_another_before_it() {
        let old = keys(&[1]).seal("s", "crm", b"x").unwrap();
        let both = keys(&[2, 1]);
        assert_eq!(both.open("s", "crm", &old).unwrap(), b"x");
        assert!(!both.is_current(&old));
        let new = both.seal("s", "crm", b"x").unwrap();
        assert!(both.is_current(&new) && keys(&[2]).open("s", "crm", &new).is_ok());
    }

    #[test]
    fn a_missing_key_is_named_with_the_endpoint() {
        let sealed = keys(&[1]).seal("s", "crm", b"x").unwrap();
        let error = keys(&[2]).open("s", "crm", &sealed).unwrap_err().to_string();
        assert!(error.contains("endpoint crm") && error.contains("[state] key"), "{error}");
        let error = keys(&[]).open("s", "crm", &sealed).unwrap_err().to_string();
        assert!(error.contains("no key at all"), "{error}");
        let error = keys(&[]).seal("s", "crm", b"x").unwrap_err().to_string();
        assert!(error.contains("openssl rand -base64 32"), "{error}");
    }

    proptest! {
        #[test]
        fn any_change_is_noticed(flip in 1..40usize, bit in 0..8u32) {
            let keys = keys(&[1]);
            let mut sealed = keys.seal("s", "crm", b"some secret").unwrap();
            let at = flip % sealed.len();
            sealed[at] ^= 1 << bit;
            prop_assert!(keys.open("s", "crm", &sealed).is_err());
        }

        #[test]
        fn any_bytes_open_or_fail_but_never_panic(sealed: Vec<u8>) {
            prop_assert!(keys(&[1]).open("s", "crm", &sealed).is_err());
        }
    }
}
