//! `secret` and `signing`: the keys that requests are signed with, and how.
//!
//! Without `signing` it is Standard Webhooks 1.0, "Signature scheme": a symmetric key is `whsec_`
//! and the base64 of 24 to 64 bytes, an Ed25519 key `whsk_` and the base64 of its 32-byte seed (or
//! of seed and public key, as libsodium keeps them). With it, the secret's own bytes are the key,
//! since that is what receivers of such signatures have.

use std::ops::RangeInclusive;

use base64::Engine;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::GeneralPurpose;
use base64::engine::GeneralPurposeConfig;
use base64::prelude::BASE64_STANDARD;
use ring::signature::Ed25519KeyPair;
use ring::signature::KeyPair;

use crate::config::secret::Secret;
use crate::config::sections::delivery_terms::EndpointTerms;
use crate::config::sections::delivery_terms::set;
use crate::config::sections::headers;
use crate::config::settings::HmacScheme;
use crate::config::settings::SignatureEncoding;
use crate::config::settings::SignedPart;
use crate::config::settings::Signing;
use crate::config::settings::StandardKey;
use crate::config::toml_file::toml_field::FieldReader;
use crate::config::toml_file::toml_reader::TomlSection;

const KEY_PREFIX: &str = "whsec_";
const KEY_BYTES: RangeInclusive<usize> = 24..=64;

/// Ed25519 keys of the same specification.
const ED25519_PREFIX: &str = "whsk_";
const ED25519_PUBLIC_PREFIX: &str = "whpk_";
const ED25519_SEED_BYTES: usize = 32;

/// Shorter plain text can be guessed from one signed request.
const TEXT_BYTES_MIN: usize = 16;

/// One signature a key makes the header long; a rotation needs two.
const KEYS_MAX: usize = 5;

/// Accepts keys with and without `=` at the end: both are in use.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Reads both, on top of what `[webhook]` has given.
pub(crate) fn read(section: &mut TomlSection<'_>, terms: &mut EndpointTerms) {
    let secrets = section.read("secret", secrets);
    if terms.is_channel {
        return set(&mut terms.secrets, secrets);
    }
    let scheme = section.read("signing", scheme);
    if section.has("signing") && scheme.is_none() || section.has("secret") && secrets.is_none() {
        return;
    }
    let written = secrets.is_some() || scheme.is_some();
    set(&mut terms.secrets, secrets);
    set(&mut terms.scheme, scheme);
    if written {
        let key = if section.has("secret") { "secret" } else { "signing" };
        match resolve(&terms.secrets, terms.scheme.as_ref()) {
            Ok(signing) => terms.signing = signing,
            Err(message) => section.note(key, message),
        }
    }
}

/// Refuses a header that is to carry both a signature and something else.
pub(crate) fn check_headers(section: &TomlSection<'_>, terms: &EndpointTerms) {
    let Some(scheme) = &terms.scheme else { return };
    let own = [Some(&scheme.header), scheme.timestamp_header.as_ref()];
    if own.into_iter().flatten().any(|name| terms.headers.contains_key(name)) {
        section.note("signing", "sets a header that `headers` gives as well: keep one of them");
    }
}

/// What secrets and scheme make together.
///
/// # Errors
/// The secrets do not fit the scheme.
pub(crate) fn resolve(
    secrets: &[Secret<String>],
    scheme: Option<&HmacScheme>,
) -> Result<Option<Signing>, String> {
    match (secrets, scheme) {
        ([], _) => Ok(None),
        ([secret], Some(scheme)) => {
            let key = Secret::new(secret.reveal().clone().into_bytes());
            Ok(Some(Signing::Hmac { key, scheme: scheme.clone() }))
        }
        (_, Some(_)) => {
            Err("has several entries, but `signing` sends one signature: give one secret".into())
        }
        (secrets, None) => {
            let keys = secrets.iter().map(standard_key).collect::<Result<_, _>>()?;
            Ok(Some(Signing::Standard { keys }))
        }
    }
}

/// Reads one secret, or a list of them while one replaces another.
pub(crate) fn secrets(field: &FieldReader<'_>) -> Option<Vec<Secret<String>>> {
    if !field.is_list() {
        return Some(vec![field.fixed_secret()?]);
    }
    let items = field.list()?;
    if !(1..=KEYS_MAX).contains(&items.len()) {
        return field.refuse(format!("has {} entries: give 1 to {KEYS_MAX}", items.len()));
    }
    Some(items.iter().filter_map(FieldReader::fixed_secret).collect())
}

impl Signing {
    /// The public halves of its keys, for the receiver to verify with.
    pub fn public_keys(&self) -> Vec<String> {
        match self {
            Self::Standard { keys } => keys.iter().filter_map(StandardKey::public).collect(),
            Self::Hmac { .. } => Vec::new(),
        }
    }
}

impl StandardKey {
    /// What the receiver verifies with, as Standard Webhooks writes it: `whpk_` and base64. `None`
    /// for a symmetric key, which nobody else may see.
    pub fn public(&self) -> Option<String> {
        let Self::Ed25519(seed) = self else { return None };
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.reveal()).ok()?;
        let encoded = BASE64_STANDARD.encode(pair.public_key());
        Some(format!("{ED25519_PUBLIC_PREFIX}{encoded}"))
    }
}

fn standard_key(secret: &Secret<String>) -> Result<StandardKey, String> {
    let (start, end) = (KEY_BYTES.start(), KEY_BYTES.end());
    // Some hand out keys with the version of the signature before them.
    let text = secret.reveal().trim();
    let text = text.strip_prefix("v1,").or_else(|| text.strip_prefix("v1a,")).unwrap_or(text);
    let prefixed = |prefix: &str| {
        let (start, rest) = text.split_at_checked(prefix.len())?;
        start.eq_ignore_ascii_case(prefix).then_some(rest)
    };
    if let Some(encoded) = prefixed(KEY_PREFIX) {
        let key = BASE64.decode(encoded).ok().filter(|key| KEY_BYTES.contains(&key.len()));
        return key.map(|key| StandardKey::Symmetric(Secret::new(key))).ok_or_else(|| {
            format!(
                "is no {KEY_PREFIX} key: after the prefix give the base64 of {start} to {end} bytes, \
                 such as from `openssl rand -base64 32`"
            )
        });
    }
    if let Some(encoded) = prefixed(ED25519_PREFIX) {
        return ed25519_seed(encoded).map(StandardKey::Ed25519).ok_or_else(|| {
            format!(
                "is no {ED25519_PREFIX} key: after the prefix give the base64 of an Ed25519 seed of \
                 {ED25519_SEED_BYTES} bytes, such as from `openssl rand -base64 32`"
            )
        });
    }
    if prefixed(ED25519_PUBLIC_PREFIX).is_some() {
        return Err(format!(
            "is a public key, which only verifies: keep it for the receiver, and give the \
             {ED25519_PREFIX} key that it belongs to"
        ));
    }
    // In quotes, behind a word, or with another sign for `_`: what was meant is a key, not its letters.
    let lower = text.to_ascii_lowercase();
    if let Some(kind) = ["whsec", "whsk", "whpk"].into_iter().find(|kind| lower.contains(kind)) {
        return Err(format!(
            "has `{kind}` in it and is no key like that: write the key alone, as {kind}_ and base64; if \
             the text itself is the key, give {KEY_PREFIX} and the base64 of the text"
        ));
    }
    if text.len() < TEXT_BYTES_MIN {
        return Err(format!(
            "is too short to be safe: give at least {TEXT_BYTES_MIN} bytes, or a {KEY_PREFIX} key"
        ));
    }
    // Every library of Standard Webhooks reads a text without a prefix as base64; taken as it stands it
    // would make signatures that none of them accepts.
    let is_base64 = BASE64.decode(text).is_ok_and(|key| KEY_BYTES.contains(&key.len()));
    if is_base64 {
        return Err(format!(
            "is base64 without its prefix, as receivers read it: write {KEY_PREFIX} before it; if the \
             text itself is the key, give {KEY_PREFIX} and the base64 of the text"
        ));
    }
    Ok(StandardKey::Symmetric(Secret::new(text.to_owned().into_bytes())))
}

/// A seed alone, or with its public key behind it.
fn ed25519_seed(encoded: &str) -> Option<Secret<[u8; ED25519_SEED_BYTES]>> {
    let key = BASE64.decode(encoded).ok()?;
    let (seed, public) = key.split_first_chunk::<ED25519_SEED_BYTES>()?;
    let fits = || Ed25519KeyPair::from_seed_and_public_key(seed, public).is_ok();
    (public.is_empty() || fits()).then(|| Secret::new(*seed))
}

/// `"standard"`, or `{ header, prefix, encoding, content, timestamp_header }`.
pub(crate) fn scheme(field: &FieldReader<'_>) -> Option<Option<HmacScheme>> {
    if field.is_string() {
        return field.one_of(&[("standard", ())]).map(|()| None);
    }
    let mut section = field.section()?;
    let name = |field: &FieldReader<'_>| headers::header_name(field, &field.string()?);
    let missing = "is missing: name the header, such as \"X-Webhook-Signature\"";
    let header = section.require("header", missing, name);
    let prefix = section.read("prefix", prefix).unwrap_or_default();
    let encodings = [("hex", SignatureEncoding::Hex), ("base64", SignatureEncoding::Base64)];
    let encoding = section.read("encoding", |field| field.one_of(&encodings));
    let content = section.read("content", content);
    let content = content.unwrap_or_else(|| vec![SignedPart::Body]);
    let timestamp_header = section.read("timestamp_header", name);
    section.finish();
    Some(Some(HmacScheme {
        header: header?,
        prefix,
        encoding: encoding.unwrap_or(SignatureEncoding::Hex),
        content,
        timestamp_header,
    }))
}

fn prefix(field: &FieldReader<'_>) -> Option<String> {
    let text = field.string()?;
    if text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
        return Some(text);
    }
    field.refuse(format!("{} cannot stand in a header: use visible ASCII", field.shown()))
}

/// `{timestamp}:{body}`: what is signed, in this order.
fn content(field: &FieldReader<'_>) -> Option<Vec<SignedPart>> {
    let shape = "write {body} once, and {id} and {timestamp} where they belong";
    let text = field.string()?;
    let mut parts = Vec::new();
    let mut rest = text.as_str();
    while let Some((before, after)) = rest.split_once('{') {
        if !before.is_empty() {
            parts.push(SignedPart::Literal(before.to_owned()));
        }
        let Some((name, after)) = after.split_once('}') else {
            return field.refuse(format!("{} has a `{{` without `}}`: {shape}", field.shown()));
        };
        parts.push(match name {
            "id" => SignedPart::Id,
            "timestamp" => SignedPart::Timestamp,
            "body" => SignedPart::Body,
            _ => {
                return field.refuse(format!("{} has an unknown part: {shape}", field.shown()));
            }
        });
        rest = after;
    }
    if !rest.is_empty() {
        parts.push(SignedPart::Literal(rest.to_owned()));
    }
    if parts.iter().filter(|part| **part == SignedPart::Body).count() != 1 {
        return field.refuse(format!("{} does not sign the body: {shape}", field.shown()));
    }
    Some(parts)
}
