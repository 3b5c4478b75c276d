//! Checks Standard Webhooks signatures (standardwebhooks.com), as a receiver does.
//!
//! `webhook-signature` holds one or more of `v1,<base64>` (HMAC-SHA256) and `v1a,<base64>` (Ed25519),
//! separated by blanks, over `id.timestamp.body`. One that fits one key is enough: while a secret
//! rotates there are several.

use std::fmt;
use std::ops::RangeInclusive;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::GeneralPurpose;
use base64::engine::GeneralPurposeConfig;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use ring::hmac;
use ring::signature::ED25519;
use ring::signature::UnparsedPublicKey;

use crate::config::secret::Secret;
use crate::flow::time::Timestamp;

pub(crate) const ID_HEADER: &str = "webhook-id";
const TIMESTAMP_HEADER: &str = "webhook-timestamp";
const SIGNATURE_HEADER: &str = "webhook-signature";

/// How far the signed time may be from ours, in both directions: what receivers allow.
const TOLERANCE_SECONDS: u64 = 300;

/// The specification's bounds for a key.
const KEY_BYTES: RangeInclusive<usize> = 24..=64;

/// What a plain text must have at least to be a secret, as in the configuration.
const TEXT_BYTES_MIN: usize = 16;

/// Takes keys with and without `=` at the end: both are in use.
const KEY_BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Ed25519 reads its message twice, so what such a signature covers is kept whole, up to here.
const COLLECTED_MAX_BYTES: usize = 64 * 1024 * 1024;

/// A key to check signatures with.
#[derive(Clone)]
pub(crate) enum VerificationKey {
    Symmetric(hmac::Key),
    Public([u8; 32]),
}

impl VerificationKey {
    pub(crate) fn new(key: &Secret<Vec<u8>>) -> Self {
        Self::Symmetric(hmac::Key::new(hmac::HMAC_SHA256, key.reveal()))
    }

    /// From a secret as the configuration takes it: `whsec_` and the base64 of 24 to 64 bytes, or
    /// a plain text, whose bytes are the key. Or the public half of a `whsk_` secret: `whpk_` and
    /// the base64 of its 32 bytes, as `walhook check` shows it.
    ///
    /// # Errors
    /// If it is none of these.
    pub(crate) fn parse(secret: &str) -> Result<Self, ParseKeyError> {
        if let Some(encoded) = secret.strip_prefix("whpk_") {
            let bytes = KEY_BASE64.decode(encoded).map_err(|_| ParseKeyError)?;
            return bytes.try_into().map(Self::Public).map_err(|_| ParseKeyError);
        }
        if secret.starts_with("whsk_") {
            return Err(ParseKeyError);
        }
        let (bytes, lengths) = match secret.strip_prefix("whsec_") {
            Some(encoded) => (KEY_BASE64.decode(encoded).map_err(|_| ParseKeyError)?, KEY_BYTES),
            None => (secret.as_bytes().to_vec(), TEXT_BYTES_MIN..=usize::MAX),
        };
        if !lengths.contains(&bytes.len()) {
            return Err(ParseKeyError);
        }
        Ok(Self::new(&Secret::new(bytes)))
    }
}

impl fmt::Debug for VerificationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// The text is not a signing secret. It is not repeated here.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "this is no key to check with: give whsec_ and the base64 of 24 to 64 bytes, a text of at least \
     {TEXT_BYTES_MIN} bytes, or the public key (whpk_) of a whsk_ secret"
)]
pub(crate) struct ParseKeyError;

/// What a check came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum SignatureVerdict {
    /// No key was given to check with.
    NotChecked,
    Ok,
    /// There is no signature.
    Missing,
    Wrong(SignatureFlaw),
}

/// What is wrong with a signature.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum SignatureFlaw {
    /// `webhook-id` or `webhook-timestamp` is missing or not what the specification says.
    Headers,
    /// The time signed is too far from ours.
    Time,
    /// No signature fits a key: another secret, or another body.
    NoMatch,
    /// More than a check with a public key takes.
    Large,
}

impl SignatureVerdict {
    /// One word for scripts.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::NotChecked => "unchecked",
            Self::Ok => "ok",
            Self::Missing => "missing",
            Self::Wrong(_) => "wrong",
        }
    }
}

impl fmt::Display for SignatureFlaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Headers => f.write_str("webhook-id or webhook-timestamp is missing or malformed"),
            Self::Time => write!(f, "its time is more than {TOLERANCE_SECONDS} s from now"),
            Self::NoMatch => f.write_str("it fits no given secret and this body"),
            Self::Large => f.write_str("the body is too large to be checked with a public key"),
        }
    }
}

/// A check that is fed the body as it arrives, so that a large one is never in memory whole.
#[derive(Debug)]
pub(crate) struct SignatureCheck {
    state: CheckState,
}

#[derive(Debug)]
enum CheckState {
    Decided(SignatureVerdict),
    Reading(HeaderReading),
}

/// A body that is being read.
#[derive(Debug)]
struct HeaderReading {
    hashes: Vec<(hmac::Key, hmac::Context)>,
    publics: Vec<[u8; 32]>,
    /// What is signed so far; stays empty without a public key.
    content: Vec<u8>,
    /// The signatures of the request: `v1`, `v1a`.
    symmetric: Vec<Vec<u8>>,
    asymmetric: Vec<Vec<u8>>,
}

impl SignatureCheck {
    /// Begins with the request's headers; `now` is the receiver's time.
    pub(crate) fn begin(keys: &[VerificationKey], headers: &HeaderMap, now: Timestamp) -> Self {
        let state = begin(keys, headers, now).unwrap_or_else(CheckState::Decided);
        Self { state }
    }

    pub(crate) fn update(&mut self, body: &[u8]) {
        let CheckState::Reading(reading) = &mut self.state else { return };
        reading.update(body);
        if reading.content.len() > COLLECTED_MAX_BYTES {
            self.state = CheckState::Decided(SignatureVerdict::Wrong(SignatureFlaw::Large));
        }
    }

    pub(crate) fn finish(self) -> SignatureVerdict {
        match self.state {
            CheckState::Decided(verdict) => verdict,
            CheckState::Reading(reading) => match reading.fits() {
                true => SignatureVerdict::Ok,
                false => SignatureVerdict::Wrong(SignatureFlaw::NoMatch),
            },
        }
    }
}

impl HeaderReading {
    fn update(&mut self, piece: &[u8]) {
        for (_, hash) in &mut self.hashes {
            hash.update(piece);
        }
        if !self.publics.is_empty() {
            self.content.extend_from_slice(piece);
        }
    }

    fn fits(self) -> bool {
        let Self { hashes, publics, content, symmetric, asymmetric } = self;
        let by_hash = hashes.into_iter().any(|(key, hash)| {
            let expected = hash.sign();
            symmetric.iter().any(|given| is_equal(&key, expected.as_ref(), given))
        });
        by_hash
            || publics.iter().any(|public| {
                let public = UnparsedPublicKey::new(&ED25519, public);
                asymmetric.iter().any(|given| public.verify(&content, given).is_ok())
            })
    }
}

fn begin(
    keys: &[VerificationKey],
    headers: &HeaderMap,
    now: Timestamp,
) -> Result<CheckState, SignatureVerdict> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if keys.is_empty() {
        return Err(SignatureVerdict::NotChecked);
    }
    if !headers.contains_key(SIGNATURE_HEADER) {
        return Err(SignatureVerdict::Missing);
    }
    let flawed = SignatureVerdict::Wrong(SignatureFlaw::Headers);
    let id = text(ID_HEADER).filter(|id| !id.is_empty()).ok_or(flawed)?;
    let signed_at = text(TIMESTAMP_HEADER).ok_or(flawed)?;
    let seconds: i64 = signed_at.parse().map_err(|_| flawed)?;
    if seconds.abs_diff(now.seconds()) > TOLERANCE_SECONDS {
        return Err(SignatureVerdict::Wrong(SignatureFlaw::Time));
    }
    let given = |prefix: &'static str| {
        let values = headers.get_all(SIGNATURE_HEADER).iter();
        let all = values.filter_map(|value| value.to_str().ok()).flat_map(|all| all.split(' '));
        let mine = all.filter_map(move |one| one.strip_prefix(prefix));
        mine.filter_map(|base64| STANDARD.decode(base64).ok()).collect()
    };
    let mut reading = HeaderReading {
        hashes: Vec::new(),
        publics: Vec::new(),
        content: Vec::new(),
        symmetric: given("v1,"),
        asymmetric: given("v1a,"),
    };
    for key in keys {
        match key {
            VerificationKey::Symmetric(key) => {
                reading.hashes.push((key.clone(), hmac::Context::with_key(key)));
            }
            VerificationKey::Public(public) => reading.publics.push(*public),
        }
    }
    reading.update(format!("{id}.{signed_at}.").as_bytes());
    Ok(CheckState::Reading(reading))
}

/// Compares in constant time, by comparing the HMACs of both: ring offers the comparison only as
/// part of verifying.
fn is_equal(key: &hmac::Key, expected: &[u8], given: &[u8]) -> bool {
    hmac::verify(key, expected, hmac::sign(key, given).as_ref()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderName;
    use http::HeaderValue;

    /// The vector of the specification of walhook's own signatures: bytes 00 to 1f.
    const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    const OTHER: &str = "whsec_HhwaGBYUEhAODAoIBgQCABweGhgWFBIQDgwKCAYEAgA=";
    const BODY: &str = "{\"type\":\"orders.insert\",\"data\":{\"id\":1,\"note\":\"café\"}}";
    const GOOD: &str = "v1,F+Pl6MZhm2XcfOqIcuZIzUGZWrvhlm0k4LimrhQtKc4=";

    /// Those of the Ed25519 key whose seed is the same bytes, from openssl.
    const PUBLIC: &str = "whpk_A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=";
    const GOOD_A: &str = "v1a,3EtRZKrsRWM6sFirQcpwC8/eXCp3+KgWOAs3dUGwFgiPpv5XW+daU0WgTWMCCXQB2w71\
                          AMzDFTxSd2z/uBH0Dg==";

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| {
                (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
            })
            .collect()
    }

    fn signed(signature: &str, at: &str) -> HeaderMap {
        headers(&[
            (ID_HEADER, "msg_walhook_0001"),
            (TIMESTAMP_HEADER, at),
            (SIGNATURE_HEADER, signature),
        ])
    }

    fn check(secrets: &[&str], headers: &HeaderMap, body: &str, now: i64) -> SignatureVerdict {
        let keys: Vec<VerificationKey> =
            secrets.iter().map(|secret| VerificationKey::parse(secret).unwrap()).collect();
        let mut check = SignatureCheck::begin(&keys, headers, Timestamp::from_seconds(now));
        for piece in body.as_bytes().chunks(7) {
            check.update(piece);
        }
        check.finish()
    }

    #[test]
    fn each_request_has_one_verdict() {
        let at = "1700000000";
        let now = 1_700_000_000;
        let several = format!("v1,AAAA v1a,{GOOD} nonsense {GOOD}");
        let no_match = SignatureVerdict::Wrong(SignatureFlaw::NoMatch);
        let flawed = SignatureVerdict::Wrong(SignatureFlaw::Headers);
        let (none, other, both): ([&str; 0], _, _) = ([], [OTHER], [OTHER, SECRET]);
        let one = [SECRET];
        let (public, mixed) = ([PUBLIC], [OTHER, PUBLIC]);
        let many = format!("{GOOD} {GOOD_A}");
        let relabelled = GOOD_A.replace("v1a,", "v1,");
        let cases = [
            ("sound", &one[..], signed(GOOD, at), BODY, now, SignatureVerdict::Ok),
            ("one of several", &one[..], signed(&several, at), BODY, now, SignatureVerdict::Ok),
            ("second secret", &both[..], signed(GOOD, at), BODY, now, SignatureVerdict::Ok),
            ("just in time", &one[..], signed(GOOD, at), BODY, now + 300, SignatureVerdict::Ok),
            (
                "late",
                &one[..],
                signed(GOOD, at),
                BODY,
                now + 301,
                SignatureVerdict::Wrong(SignatureFlaw::Time),
            ),
            (
                "early",
                &one[..],
                signed(GOOD, at),
                BODY,
                now - 301,
                SignatureVerdict::Wrong(SignatureFlaw::Time),
            ),
            ("other secret", &other[..], signed(GOOD, at), BODY, now, no_match),
            ("other body", &one[..], signed(GOOD, at), "{}", now, no_match),
            ("cut signature", &one[..], signed("v1,F+Pl", at), BODY, now, no_match),
            ("public key", &public[..], signed(GOOD_A, at), BODY, now, SignatureVerdict::Ok),
            ("public key beside", &mixed[..], signed(&many, at), BODY, now, SignatureVerdict::Ok),
            ("public key, other body", &public[..], signed(GOOD_A, at), "{}", now, no_match),
            ("public key, v1", &public[..], signed(GOOD, at), BODY, now, no_match),
            ("public key, as v1", &public[..], signed(&relabelled, at), BODY, now, no_match),
            ("no time", &one[..], signed(GOOD, "soon"), BODY, now, flawed),
            ("no signature", &one[..], HeaderMap::new(), BODY, now, SignatureVerdict::Missing),
            ("no secret", &none[..], signed(GOOD, at), BODY, now, SignatureVerdict::NotChecked),
        ];
        for (name, secrets, headers, body, now, expected) in cases {
            assert_eq!(check(secrets, &headers, body, now), expected, "case: {name}");
        }
    }

    #[test]
    fn secrets_come_encoded_with_or_without_padding_or_as_plain_text() {
        let plain = "a secret of plain text";
        for good in [SECRET, SECRET.trim_end_matches('='), plain] {
            assert!(VerificationKey::parse(good).is_ok(), "case: {good}");
        }
    }

    #[test]
    fn a_text_that_is_no_secret_is_refused_without_repeating_it() {
        let short = "whsec_AAECAwQFBgc=";
        let private = "whsk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        for bad in ["", "hunter2", "whsec_", "whsec_!!!", "whpk_AAEC", short, private] {
            let error = VerificationKey::parse(bad).unwrap_err();
            assert!(bad.len() < 7 || !error.to_string().contains(bad), "case: {bad}");
        }
    }
}
