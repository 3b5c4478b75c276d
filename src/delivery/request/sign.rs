//! Signatures: how a receiver knows that a request comes from here and was not changed. Pure.
//!
//! Standard Webhooks, over `id.timestamp.body`: `v1` is HMAC-SHA256, `v1a` is Ed25519, both in
//! base64. Of several keys, as while a secret rotates, each gives a signature; receivers accept any
//! that they can verify. Ed25519 reads its message twice, so the signature of a large body collects it.
//!
//! Or an HMAC-SHA256 as a receiver that already exists wants it: see [`HmacScheme`].

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::HeaderName;
use http::HeaderValue;
use ring::hmac;
use ring::signature::Ed25519KeyPair;

use crate::config::settings::HmacScheme;
use crate::config::settings::SignatureEncoding;
use crate::config::settings::SignedPart;
use crate::config::settings::Signing;
use crate::config::settings::StandardKey;
use crate::flow::hex::hex_of;

const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// Base64 of a SHA-256, with `v1,` before it.
const SIGNATURE_BYTES: usize = 47;

/// An endpoint's keys, made ready once.
#[derive(Debug)]
pub struct RequestSigner {
    /// One, but for Standard Webhooks while a secret rotates.
    keys: Vec<hmac::Key>,
    /// Those of `v1a`.
    pairs: Vec<Ed25519KeyPair>,
    /// `None`: Standard Webhooks.
    scheme: Option<HmacScheme>,
}

/// The signatures of one request, to which the body is still being added.
pub struct RequestSignature<'a> {
    contexts: Vec<hmac::Context>,
    pairs: &'a [Ed25519KeyPair],
    /// All of the content, where there are pairs.
    whole: Vec<u8>,
    scheme: Option<&'a HmacScheme>,
    id: &'a str,
    timestamp: &'a str,
}

impl RequestSigner {
    /// Makes the keys ready.
    pub fn new(signing: &Signing) -> Self {
        let ready = |key: &Vec<u8>| hmac::Key::new(hmac::HMAC_SHA256, key);
        let mut signer = Self { keys: Vec::new(), pairs: Vec::new(), scheme: None };
        match signing {
            Signing::Standard { keys } => {
                for key in keys {
                    match key {
                        StandardKey::Symmetric(key) => signer.keys.push(ready(key.reveal())),
                        StandardKey::Ed25519(seed) => {
                            let pair = Ed25519KeyPair::from_seed_unchecked(seed.reveal());
                            signer.pairs.push(pair.expect("every 32 bytes are a seed"));
                        }
                    }
                }
            }
            Signing::Hmac { key, scheme } => {
                signer.keys.push(ready(key.reveal()));
                signer.scheme = Some(scheme.clone());
            }
        }
        signer
    }

    /// Begins to sign the request with this id and time; the body follows by [`RequestSignature::add`].
    pub fn begin<'a>(&'a self, id: &'a str, timestamp: &'a str) -> RequestSignature<'a> {
        let contexts = self.keys.iter().map(hmac::Context::with_key).collect();
        let (scheme, pairs) = (self.scheme.as_ref(), self.pairs.as_slice());
        let mut signature =
            RequestSignature { contexts, pairs, whole: Vec::new(), scheme, id, timestamp };
        match scheme {
            None => [id, ".", timestamp, "."].iter().for_each(|p| signature.add(p.as_bytes())),
            Some(scheme) => {
                let body = |part: &SignedPart| *part == SignedPart::Body;
                let before = scheme.content.iter().position(body).unwrap_or_default();
                signature.add_parts(scheme.content.get(..before).unwrap_or_default());
            }
        }
        signature
    }
}

impl RequestSignature<'_> {
    /// Signs a piece of the body.
    pub fn add(&mut self, piece: &[u8]) {
        for context in &mut self.contexts {
            context.update(piece);
        }
        if !self.pairs.is_empty() {
            self.whole.extend_from_slice(piece);
        }
    }

    /// The headers that carry the signature, whose value is marked as sensitive.
    pub fn finish(mut self) -> Vec<(HeaderName, HeaderValue)> {
        let Some(scheme) = self.scheme else {
            return vec![(WEBHOOK_SIGNATURE, sensitive(self.standard()))];
        };
        let after = scheme.content.iter().skip_while(|part| **part != SignedPart::Body);
        let after: Vec<SignedPart> = after.skip(1).cloned().collect();
        self.add_parts(&after);
        let mut headers = Vec::with_capacity(2);
        if let Some(name) = &scheme.timestamp_header {
            let value =
                HeaderValue::from_str(self.timestamp).expect("digits can stand in a header");
            headers.push((name.clone(), value));
        }
        for context in self.contexts {
            let mut text = scheme.prefix.clone();
            let tag = context.sign();
            match scheme.encoding {
                SignatureEncoding::Hex => text.push_str(&hex_of(tag.as_ref())),
                SignatureEncoding::Base64 => BASE64_STANDARD.encode_string(tag, &mut text),
            }
            headers.push((scheme.header.clone(), sensitive(text)));
        }
        headers
    }

    fn standard(self) -> String {
        let symmetric = self.contexts.into_iter().map(|context| {
            let mut text = String::with_capacity(SIGNATURE_BYTES);
            text.push_str("v1,");
            BASE64_STANDARD.encode_string(context.sign(), &mut text);
            text
        });
        let asymmetric = self.pairs.iter().map(|pair| {
            let mut text = String::from("v1a,");
            BASE64_STANDARD.encode_string(pair.sign(&self.whole), &mut text);
            text
        });
        let mut all = symmetric.chain(asymmetric);
        let mut text = all.next().unwrap_or_default();
        for one in all {
            text.push(' ');
            text.push_str(&one);
        }
        text
    }

    fn add_parts(&mut self, parts: &[SignedPart]) {
        for part in parts {
            match part {
                SignedPart::Literal(text) => self.add(text.as_bytes()),
                SignedPart::Id => self.add(self.id.as_bytes()),
                SignedPart::Timestamp => self.add(self.timestamp.as_bytes()),
                SignedPart::Body => {}
            }
        }
    }
}

impl std::fmt::Debug for RequestSignature<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signature").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Prefixes are checked when the configuration is read; the rest is hex or base64.
fn sensitive(text: String) -> HeaderValue {
    let mut value = HeaderValue::try_from(text).expect("a signature can stand in a header");
    value.set_sensitive(true);
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::secret::Secret;

    const ID: &str = "msg_walhook_0001";
    const TIMESTAMP: &str = "1700000000";
    const BODY: &str = r#"{"type":"orders.insert","data":{"id":1,"note":"café"}}"#;

    fn sign(keys: &[&[u8]], pieces: &[&str]) -> String {
        sign_standard(keys.iter().map(|key| symmetric(key)).collect(), pieces)
    }

    fn symmetric(key: &[u8]) -> StandardKey {
        StandardKey::Symmetric(Secret::new(key.to_vec()))
    }

    fn sign_standard(keys: Vec<StandardKey>, pieces: &[&str]) -> String {
        let headers = headers(&Signing::Standard { keys }, pieces);
        assert_eq!(headers.len(), 1);
        assert_eq!(headers[0].0, "webhook-signature");
        headers[0].1.to_str().unwrap().to_owned()
    }

    fn headers(signing: &Signing, pieces: &[&str]) -> Vec<(HeaderName, HeaderValue)> {
        let signer = RequestSigner::new(signing);
        let mut signature = signer.begin(ID, TIMESTAMP);
        for piece in pieces {
            signature.add(piece.as_bytes());
        }
        signature.finish()
    }

    fn custom(prefix: &str, encoding: SignatureEncoding, content: &[SignedPart]) -> Signing {
        Signing::Hmac {
            key: Secret::new(b"your-secret-key".to_vec()),
            scheme: HmacScheme {
                header: HeaderName::from_static("x-webhook-signature"),
                prefix: prefix.to_owned(),
                encoding,
                content: content.to_vec(),
                timestamp_header: Some(HeaderName::from_static("x-webhook-timestamp")),
            },
        }
    }

    /// Expected values are those of `openssl dgst -sha256 -hmac your-secret-key`.
    #[test]
    fn an_hmac_is_taken_over_what_the_scheme_says_in_its_order() {
        use SignatureEncoding::Base64;
        use SignatureEncoding::Hex;
        use SignedPart::Body;
        use SignedPart::Id;
        use SignedPart::Timestamp;
        let colon = || SignedPart::Literal(String::from(":"));
        let cases = [
            (
                "sha256=",
                Hex,
                vec![Body],
                "sha256=843474987c9dcc4479b0bab9af692e697c7805b32f881946b24eed25b2549ae9",
            ),
            (
                "",
                Hex,
                vec![Timestamp, colon(), Body],
                "c1a52d0b6e5ab6f23476c9c8127e7caa381cc5cdec13eb177baf3a1f83a157d7",
            ),
            (
                "",
                Base64,
                vec![Id, colon(), Body, colon(), Timestamp],
                "wXJ1/0AjtASo85nJxwSD/qZkhUw+MJYk1zUXoNjNGys=",
            ),
        ];
        for (prefix, encoding, content, expected) in cases {
            let (head, tail) = BODY.split_at(20);
            let headers = headers(&custom(prefix, encoding, &content), &[head, tail]);
            let shown: Vec<_> =
                headers.iter().map(|(n, v)| (n.as_str(), v.to_str().unwrap())).collect();
            let signature = ("x-webhook-signature", expected);
            assert_eq!(shown, [("x-webhook-timestamp", TIMESTAMP), signature]);
        }
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

    /// The expected value is that of `openssl pkeyutl -sign -rawin` with the key of this seed.
    #[test]
    fn an_ed25519_key_signs_beside_a_symmetric_one() {
        let seed: [u8; 32] = std::array::from_fn(|at| u8::try_from(at).unwrap());
        let expected = "v1a,3EtRZKrsRWM6sFirQcpwC8/eXCp3+KgWOAs3dUGwFgiPpv5XW+daU0WgTWMCCXQB2w71AMzDFTxSd2z/uBH0Dg==";
        let (head, tail) = BODY.split_at(20);
        let key = || StandardKey::Ed25519(Secret::new(seed));
        assert_eq!(sign_standard(vec![key()], &[BODY]), expected);
        assert_eq!(sign_standard(vec![key()], &[head, "", tail]), expected);
        let both = sign_standard(vec![key(), symmetric(&seed)], &[head, tail]);
        assert_eq!(both, format!("{} {expected}", sign(&[&seed], &[BODY])));
        assert_eq!(key().public().unwrap(), "whpk_A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=");
    }

    #[test]
    fn the_signature_is_hidden_from_debug_output() {
        let keys = vec![symmetric(&[7; 32])];
        let hmac = custom("", SignatureEncoding::Hex, &[SignedPart::Body]);
        for signing in [Signing::Standard { keys }, hmac] {
            let headers = headers(&signing, &[BODY]);
            assert_eq!(format!("{:?}", headers.last().unwrap().1), "Sensitive");
        }
    }
}
