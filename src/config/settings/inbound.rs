//! `[inbound]`: callbacks that come in and become rows.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use http::HeaderName;

use crate::config::secret::Secret;
use crate::config::settings::addresses::AddressList;
use crate::config::settings::endpoint::HmacScheme;
use crate::config::settings::endpoint::StandardKey;
use crate::flow::relation::TableName;

/// A listener of its own: the management API need not be public for callbacks to come in.
#[derive(Clone, Debug, PartialEq)]
pub struct InboundSettings {
    pub listen: SocketAddr,
    /// PEM texts of the certificate chain and of its key.
    pub tls: Option<(Secret<String>, Secret<String>)>,
    /// Who may call; `None`: everybody who signs.
    pub allow: Option<AddressList>,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: AddressList,
    pub sources: Vec<InboundSource>,
}

/// A system that calls back.
#[derive(Clone, Debug, PartialEq)]
pub struct InboundSource {
    pub name: String,
    /// Where it calls, such as `/api/v1/webhooks/wechat/api`.
    pub path: String,
    pub scheme: InboundScheme,
    /// How far a signed time may be from now, in both directions; `None`: it is not judged.
    pub tolerance: Option<Duration>,
    /// Where callbacks are kept.
    pub table: TableName,
    /// Where nonces are remembered, so that no replica takes one twice.
    pub nonces: TableName,
    /// Kinds of events that the source's own map does not know.
    pub kinds: BTreeMap<String, CallbackKind>,
    pub status: Option<StatusFields>,
}

/// How a callback proves where it comes from, and what form it has.
#[derive(Clone, Debug, PartialEq)]
pub enum InboundScheme {
    Wecom(WecomKeys),
    StandardWebhooks { keys: Vec<StandardKey> },
    Hmac(HmacCallbacks),
}

/// What the administrator page of WeCom shows.
#[derive(Clone, Debug, PartialEq)]
pub struct WecomKeys {
    pub token: Secret<String>,
    /// The EncodingAESKey: 43 characters.
    pub aes_key: Secret<String>,
    /// The corp id; empty for robots.
    pub receive_id: String,
    /// Robots send JSON, applications XML.
    pub is_robot: bool,
}

/// An HMAC-SHA256 in a header.
#[derive(Clone, Debug, PartialEq)]
pub struct HmacCallbacks {
    pub key: Secret<Vec<u8>>,
    pub scheme: HmacScheme,
    /// The signature header holds `t=TIME,v1=SIGNATURE`, as Stripe's does.
    pub is_composite: bool,
    /// The header with the callback's id, by which repeats are known.
    pub id_header: Option<HeaderName>,
    /// The header with the event's name.
    pub event_header: Option<HeaderName>,
}

/// What a callback is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CallbackKind {
    /// What a user wrote.
    Message,
    /// What became of a message that was sent.
    Status,
    /// A click, a reply, a forward.
    Interaction,
    /// A user joined or left, and everything that is not known.
    System,
}

impl CallbackKind {
    pub const ALL: [(&'static str, Self); 4] = [
        ("message", Self::Message),
        ("status", Self::Status),
        ("interaction", Self::Interaction),
        ("system", Self::System),
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::Status => "status",
            Self::Interaction => "interaction",
            Self::System => "system",
        }
    }
}

/// Where an event of one's own says which message has which state.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StatusFields {
    /// The event's name.
    pub event: String,
    /// The path of the message's id, such as `fields.MsgID`.
    pub message: String,
    /// The path of its state.
    pub state: String,
}
