//! A callback whose signature, timestamp and nonce are verified, and the checks that all schemes share.

use std::time::Duration;

use serde_json::Map;
use serde_json::Value;

use crate::inbound::refusal::InboundRefusal;
use crate::inbound::row::CallbackRow;

/// A callback that is what it says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct VerifiedCallback {
    pub row: CallbackRow,
    /// What must not come a second time; `None`: the scheme has no such thing.
    pub nonce: Option<String>,
}

/// # Errors
/// [`InboundRefusal::Timestamp`] if the time is no number, or too far from `now`.
pub(super) fn is_fresh(
    timestamp: &str,
    now: i64,
    tolerance: Option<Duration>,
) -> Result<(), InboundRefusal> {
    let Some(tolerance) = tolerance else { return Ok(()) };
    let signed: i64 = timestamp.parse().map_err(|_| InboundRefusal::Timestamp)?;
    let apart = now.abs_diff(signed);
    if apart <= tolerance.as_secs() { Ok(()) } else { Err(InboundRefusal::Timestamp) }
}

/// The members of a JSON object.
///
/// # Errors
/// It is none.
pub(super) fn json_members(text: &str) -> Result<Map<String, Value>, InboundRefusal> {
    match serde_json::from_str(text) {
        Ok(Value::Object(members)) => Ok(members),
        Ok(_) | Err(_) => Err(InboundRefusal::Content),
    }
}
