//! Callbacks that are signed with an HMAC: Standard Webhooks, GitHub, Shopify, Stripe and their like.
//!
//! Pure. Standard Webhooks 1.0 signs `id.timestamp.body`; the others as `signing` of the source says.

use axum::http::HeaderName;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ring::hmac;
use serde_json::Map;
use serde_json::Value;

use crate::config::secret::is_same;
use crate::config::settings::CallbackKind;
use crate::config::settings::HmacCallbacks;
use crate::config::settings::InboundSource;
use crate::config::settings::SignatureEncoding;
use crate::config::settings::SignedPart;
use crate::config::settings::StandardKey;
use crate::flow::hex::hex_of;
use crate::inbound::refusal::InboundRefusal;
use crate::inbound::request::CallbackRequest;
use crate::inbound::row::CallbackRow;
use crate::inbound::verified::VerifiedCallback;
use crate::inbound::verified::is_fresh;
use crate::inbound::verified::json_members;

const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// Judges a callback of Standard Webhooks. Repeats are known by `webhook-id`.
///
/// # Errors
/// The first reason not to believe it.
pub(super) fn standard(
    source: &InboundSource,
    keys: &[StandardKey],
    request: &CallbackRequest,
) -> Result<VerifiedCallback, InboundRefusal> {
    let header = |name: &HeaderName| request.header(name).ok_or(InboundRefusal::Parameters);
    let (id, timestamp, signatures) = (header(&ID)?, header(&TIMESTAMP)?, header(&SIGNATURE)?);
    let content = [id.as_bytes(), b".", timestamp.as_bytes(), b".", &request.body].concat();
    let is_signed = keys.iter().any(|key| match key {
        StandardKey::Symmetric(key) => {
            let ours = format!("v1,{}", BASE64_STANDARD.encode(mac(key.reveal(), &content)));
            signatures.split(' ').any(|one| is_same(one.as_bytes(), ours.as_bytes()))
        }
        // A private key signs; walhook has the public one, which is no secret of a source.
        StandardKey::Ed25519(_) => false,
    });
    if !is_signed {
        return Err(InboundRefusal::Signature);
    }
    is_fresh(timestamp, request.now, source.tolerance)?;
    let row = row(source, request, Some(id), None)?;
    Ok(VerifiedCallback { row, nonce: None })
}

/// Judges a callback with an HMAC of the source's own form.
///
/// # Errors
/// The first reason not to believe it.
pub(super) fn callback(
    source: &InboundSource,
    callbacks: &HmacCallbacks,
    request: &CallbackRequest,
) -> Result<VerifiedCallback, InboundRefusal> {
    let scheme = &callbacks.scheme;
    let given = request.header(&scheme.header).ok_or(InboundRefusal::Parameters)?;
    let (timestamp, signatures) = match callbacks.is_composite {
        true => composite(given),
        false => {
            let timestamp = scheme.timestamp_header.as_ref();
            (timestamp.and_then(|name| request.header(name)), vec![given])
        }
    };
    let id = callbacks.id_header.as_ref().and_then(|name| request.header(name));
    let mut content = Vec::new();
    for part in &scheme.content {
        content.extend_from_slice(match part {
            SignedPart::Literal(text) => text.as_bytes(),
            SignedPart::Id => id.ok_or(InboundRefusal::Parameters)?.as_bytes(),
            SignedPart::Timestamp => timestamp.ok_or(InboundRefusal::Parameters)?.as_bytes(),
            SignedPart::Body => &request.body,
        });
    }
    let mac = mac(callbacks.key.reveal(), &content);
    let ours = match scheme.encoding {
        SignatureEncoding::Hex => hex_of(&mac),
        SignatureEncoding::Base64 => BASE64_STANDARD.encode(&mac),
    };
    let ours = format!("{}{ours}", scheme.prefix);
    if !signatures.iter().any(|one| is_same(one.as_bytes(), ours.as_bytes())) {
        return Err(InboundRefusal::Signature);
    }
    // A scheme that signs no time cannot say how old a callback is.
    if scheme.content.contains(&SignedPart::Timestamp) {
        let timestamp = timestamp.ok_or(InboundRefusal::Parameters)?;
        is_fresh(timestamp, request.now, source.tolerance)?;
    }
    let event = callbacks.event_header.as_ref().and_then(|name| request.header(name));
    let row = row(source, request, id, event)?;
    Ok(VerifiedCallback { row, nonce: None })
}

/// `t=TIME,v1=SIGNATURE,v1=SIGNATURE`; other schemes in it are passed over.
fn composite(header: &str) -> (Option<&str>, Vec<&str>) {
    let parts = || header.split(',').filter_map(|part| part.trim().split_once('='));
    let timestamp = parts().find(|(name, _)| *name == "t").map(|(_, value)| value);
    let signatures = parts().filter(|(name, _)| *name == "v1").map(|(_, value)| value);
    (timestamp, signatures.collect())
}

fn mac(key: &[u8], content: &[u8]) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    hmac::sign(&key, content).as_ref().to_vec()
}

/// A body that is a JSON object is kept as its members, any other text as `body`.
fn row(
    source: &InboundSource,
    request: &CallbackRequest,
    id: Option<&str>,
    event: Option<&str>,
) -> Result<CallbackRow, InboundRefusal> {
    let text = str::from_utf8(&request.body).map_err(|_| InboundRefusal::Content)?;
    let fields = json_members(text).unwrap_or_else(|_| {
        Map::from_iter([(String::from("body"), Value::String(text.replace('\0', "")))])
    });
    let member = |name: &str| fields.get(name).and_then(Value::as_str).map(str::to_owned);
    let event = event.map(str::to_owned).or_else(|| member("type")).unwrap_or_default();
    let id = id.map(str::to_owned).or_else(|| member("id"));
    let dedupe_key = match &id {
        Some(id) => format!("{}/id/{id}", source.name),
        None => {
            let hash = ring::digest::digest(&ring::digest::SHA256, &request.body);
            format!("{}/body/{}", source.name, hex_of(hash.as_ref()))
        }
    };
    let kind = source.kinds.get(&event).copied().unwrap_or(CallbackKind::System);
    Ok(CallbackRow {
        source: source.name.clone(),
        kind,
        event,
        message_id: id,
        state: None,
        user_id: None,
        agent_id: None,
        occurred_at: None,
        content: None,
        dedupe_key,
        fields: Value::Object(fields),
    })
}
