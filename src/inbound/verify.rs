//! Judges a callback: what of it may be believed, and the row that it becomes.
//!
//! ```text
//! request ─▶ parameters ─▶ signature ─▶ timestamp ─▶ decrypt ─▶ receive id ─▶ message ─▶ row
//! ```
//!
//! Pure: time comes with the request. Nothing is parsed before it is verified. Whether a nonce was seen
//! before is the callback writer's to say, which asks PostgreSQL.

use crate::config::settings::InboundScheme;
use crate::config::settings::InboundSource;
use crate::config::settings::WecomKeys;
use crate::inbound::hmac;
use crate::inbound::refusal::InboundRefusal;
use crate::inbound::request::CallbackRequest;
use crate::inbound::verified::VerifiedCallback;
use crate::inbound::verified::is_fresh;
use crate::inbound::verified::json_members;
use crate::inbound::wecom::cipher::CallbackKey;
use crate::inbound::wecom::message;
use crate::inbound::wecom::signature;
use crate::inbound::wecom::xml;

/// Judges a callback.
///
/// # Errors
/// The first reason not to believe it.
pub(crate) fn callback(
    source: &InboundSource,
    request: &CallbackRequest,
) -> Result<VerifiedCallback, InboundRefusal> {
    match &source.scheme {
        InboundScheme::Wecom(keys) => wecom(source, keys, request),
        InboundScheme::StandardWebhooks { keys } => hmac::standard(source, keys, request),
        InboundScheme::Hmac(callbacks) => hmac::callback(source, callbacks, request),
    }
}

/// The answer to WeCom's check of the URL: the decrypted echo.
///
/// # Errors
/// Why the check is not WeCom's; the source may have none.
pub(crate) fn echo(
    source: &InboundSource,
    request: &CallbackRequest,
) -> Result<Vec<u8>, InboundRefusal> {
    let InboundScheme::Wecom(keys) = &source.scheme else {
        return Err(InboundRefusal::Parameters);
    };
    let echo = request.query.get("echostr").ok_or(InboundRefusal::Parameters)?;
    // A `+` that was not percent-encoded has become a blank; base64 has none.
    let echo = echo.replace(' ', "+");
    signed(source, keys, request, &echo)?;
    decrypted(keys, &echo)
}

fn wecom(
    source: &InboundSource,
    keys: &WecomKeys,
    request: &CallbackRequest,
) -> Result<VerifiedCallback, InboundRefusal> {
    let body = str::from_utf8(&request.body).map_err(|_| InboundRefusal::Parameters)?;
    let encrypted = match keys.is_robot {
        true => encrypted_of_json(body),
        false => encrypted_of_xml(body),
    };
    let encrypted = encrypted.ok_or(InboundRefusal::Parameters)?;
    let nonce = signed(source, keys, request, encrypted)?.to_owned();
    let message = decrypted(keys, encrypted)?;
    let message = String::from_utf8(message).map_err(|_| InboundRefusal::Content)?;
    let fields = match keys.is_robot {
        true => json_members(&message)?,
        false => xml::members(&message)?,
    };
    let row = message::row(&source.name, fields, &source.kinds, source.status.as_ref());
    Ok(VerifiedCallback { row, nonce: Some(nonce) })
}

/// The nonce, if the signature over it and the ciphertext is WeCom's and fresh.
fn signed<'r>(
    source: &InboundSource,
    keys: &WecomKeys,
    request: &'r CallbackRequest,
    encrypted: &str,
) -> Result<&'r str, InboundRefusal> {
    let asked = |name: &str| request.query.get(name).filter(|text| !text.is_empty());
    let given = asked("msg_signature").ok_or(InboundRefusal::Parameters)?;
    let timestamp = asked("timestamp").ok_or(InboundRefusal::Parameters)?;
    let nonce = asked("nonce").ok_or(InboundRefusal::Parameters)?;
    let token = keys.token.reveal();
    if !signature::is_signed(given, token, timestamp, nonce, encrypted) {
        return Err(InboundRefusal::Signature);
    }
    is_fresh(timestamp, request.now, source.tolerance)?;
    Ok(nonce)
}

fn decrypted(keys: &WecomKeys, encrypted: &str) -> Result<Vec<u8>, InboundRefusal> {
    // The configuration has taken the key for one.
    let key = CallbackKey::parse(keys.aes_key.reveal()).ok_or(InboundRefusal::Cipher)?;
    Ok(key.decrypt(encrypted, &keys.receive_id)?)
}

/// The text of `<Encrypt>`, found without parsing what nobody has verified yet.
fn encrypted_of_xml(body: &str) -> Option<&str> {
    let (_, rest) = body.split_once("<Encrypt>")?;
    let (text, _) = rest.split_once("</Encrypt>")?;
    let text = text.trim();
    let text =
        text.strip_prefix("<![CDATA[").and_then(|text| text.strip_suffix("]]>")).unwrap_or(text);
    is_base64(text).then_some(text)
}

/// The text of `"encrypt"`; likewise.
fn encrypted_of_json(body: &str) -> Option<&str> {
    let (_, rest) = body.split_once("\"encrypt\"")?;
    let rest = rest.trim_start().strip_prefix(':')?.trim_start().strip_prefix('"')?;
    let (text, _) = rest.split_once('"')?;
    is_base64(text).then_some(text)
}

fn is_base64(text: &str) -> bool {
    let letter = |b: u8| b.is_ascii_alphanumeric() || b"+/=".contains(&b);
    !text.is_empty() && text.bytes().all(letter)
}

#[cfg(test)]
mod tests;
