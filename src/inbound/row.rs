//! A callback as it is kept: one row of the source's table.

use serde_json::Value;

use crate::config::settings::CallbackKind;

/// What is written down before a callback is answered with success.
#[derive(Clone, Debug, PartialEq)]
pub struct CallbackRow {
    /// The source's name.
    pub source: String,
    pub kind: CallbackKind,
    /// What happened, in the sender's word.
    pub event: String,
    /// The message that it is, or that it is about.
    pub message_id: Option<String>,
    /// Of a callback of kind `status`: what became of the message.
    pub state: Option<String>,
    pub user_id: Option<String>,
    pub agent_id: Option<String>,
    /// Seconds since the Unix epoch, as the sender says.
    pub occurred_at: Option<i64>,
    /// The text that a person would read.
    pub content: Option<String>,
    /// The whole message.
    pub fields: Value,
    /// Repeats of one callback have one key.
    pub dedupe_key: String,
}
