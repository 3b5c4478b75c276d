//! Signatures: how a receiver knows that a request comes from here and was not changed. Pure.
//!
//! Standard Webhooks `v1`: HMAC-SHA256 over `id.timestamp.body`, in base64. Of several keys, as
//! while a secret rotates, each gives a signature; receivers accept any that they can verify.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::HeaderValue;
use ring::hmac;

use crate::config::settings::Signing;

/// Base64 of a SHA-256, with `v1,` before it and a blank after it.
const SIGNATURE_BYTES: usize = 48;

/// An endpoint's keys, made ready once.
#[derive(Debug)]
pub(crate) struct Signer {
    keys: Vec<hmac::Key>,
}

/// The signatures of one request, to which the body is still being added.
#[derive(Clone, Debug)]
pub(crate) struct Signature {
    contexts: Vec<hmac::Context>,
}

impl Signer {
    pub(crate) fn new(signing: &Signing) -> Self {
        let Signing::Standard { keys } = signing;
        let ready = |key: &Vec<u8>| hmac::Key::new(hmac::HMAC_SHA256, key);
        Self { keys: keys.iter().map(|key| ready(key.reveal())).collect() }
    }

    /// Begins to sign the request with this id and time; the body follows by [`Signature::add`].
    pub(crate) fn begin(&self, id: &str, timestamp: &str) -> Signature {
        let mut signature =
            Signature { contexts: self.keys.iter().map(hmac::Context::with_key).collect() };
        for piece in [id, ".", timestamp, "."] {
            signature.add(piece.as_bytes());
        }
        signature
    }
}

impl Signature {
    pub(crate) fn add(&mut self, piece: &[u8]) {
        for context in &mut self.contexts {
            context.update(piece);
        }
    }

    /// The value of `webhook-signature`, marked as sensitive.
    pub(crate) fn finish(self) -> HeaderValue {
        let mut text = String::with_capacity(self.contexts.len() * SIGNATURE_BYTES);
        for context in self.contexts {
            if !text.is_empty() {
                text.push(' ');
            }
            text.push_str("v1,");
            BASE64_STANDARD.encode_string(context.sign(), &mut text);
        }
        let mut value = HeaderValue::try_from(text).expect("base64 can stand in a header");
        value.set_sensitive(true);
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::secret::Secret;

    const ID: &str = "msg_walhook_0001";
    const TIMESTAMP: &str = "1700000000";
    const BODY: &str = r#"{"type":"orders.insert","data":{"id":1,"note":"café"}}"#;

    fn sign(keys: &[&[u8]], pieces: &[&str]) -> String {
        let keys = keys.iter().map(|key| Secret::new(key.to_vec())).collect();
        let mut signature = Signer::new(&Signing::Standard { keys }).begin(ID, TIMESTAMP);
        for piece in pieces {
            signature.add(piece.as_bytes());
        }
        signature.finish().to_str().unwrap().to_owned()
    }

    #[test]
    fn a_known_key_gives_the_known_signature_however_the_body_is_cut() {
        let key: Vec<u8> = (0..=0x1f).collect();
        let expected = "v1,F+Pl6MZhm2XcfOqIcuZIzUGZWrvhlm0k4LimrhQtKc4=";
        assert_eq!(sign(&[&key], &[BODY]), expected);
        let (head, tail) = BODY.split_at(20);
        assert_eq!(sign(&[&key], &[head, "", tail]), expected);
    }

    #[test]
    fn each_key_of_a_rotation_signs_in_order() {
        let (old, new) = ([1; 32], [2; 32]);
        let both = sign(&[&new, &old], &[BODY]);
        assert_eq!(both, format!("{} {}", sign(&[&new], &[BODY]), sign(&[&old], &[BODY])));
    }

    #[test]
    fn the_signature_is_hidden_from_debug_output() {
        let keys = vec![Secret::new(vec![7; 32])];
        let signature = Signer::new(&Signing::Standard { keys }).begin(ID, TIMESTAMP).finish();
        assert_eq!(format!("{signature:?}"), "Sensitive");
    }
}
