//! Why a callback is refused: a reason for metrics and log, and an answer that tells nothing.

use axum::http::StatusCode;

use crate::inbound::wecom::cipher::CipherError;
use crate::inbound::wecom::xml::XmlError;

/// In the order in which a callback is judged.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum InboundRefusal {
    /// The body is larger than a callback can be.
    Size,
    /// The body broke off, or did not come in time.
    Incomplete,
    /// The caller's address is not on the list.
    Address,
    /// A parameter or header is missing.
    Parameters,
    Signature,
    /// Signed too long ago, or for a time to come.
    Timestamp,
    /// It was taken before.
    Nonce,
    /// What was signed cannot be decrypted.
    Cipher,
    /// It was meant for another receiver.
    ReceiveId,
    /// What was decrypted is no message.
    Content,
    /// It could not be kept: the sender is to send it again.
    Unavailable,
}

impl InboundRefusal {
    pub(crate) const ALL: [Self; 11] = [
        Self::Size,
        Self::Incomplete,
        Self::Address,
        Self::Parameters,
        Self::Signature,
        Self::Timestamp,
        Self::Nonce,
        Self::Cipher,
        Self::ReceiveId,
        Self::Content,
        Self::Unavailable,
    ];

    /// One word for metrics and logs.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Size => "size",
            Self::Incomplete => "incomplete",
            Self::Address => "address",
            Self::Parameters => "parameters",
            Self::Signature => "signature",
            Self::Timestamp => "timestamp",
            Self::Nonce => "nonce",
            Self::Cipher => "cipher",
            Self::ReceiveId => "receive_id",
            Self::Content => "content",
            Self::Unavailable => "unavailable",
        }
    }

    /// No caller learns from it which check failed: 403 where it may not call, 401 where it is not believed.
    pub(crate) const fn status(self) -> StatusCode {
        match self {
            Self::Size => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Incomplete => StatusCode::REQUEST_TIMEOUT,
            Self::Address => StatusCode::FORBIDDEN,
            Self::Parameters
            | Self::Signature
            | Self::Timestamp
            | Self::Nonce
            | Self::Cipher
            | Self::ReceiveId
            | Self::Content => StatusCode::UNAUTHORIZED,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// What helps the operator; the log says it.
    pub(crate) const fn hint(self) -> &'static str {
        match self {
            Self::Size => "a callback has at most 256 KiB: who sends this?",
            Self::Incomplete => "the body broke off or dripped: a slow network, or an attack",
            Self::Address => "add the address to [inbound] allow, or the proxy to trusted_proxies",
            Self::Parameters => "the caller does not speak the source's protocol: check its kind",
            Self::Signature => "compare token or secret with those of the sender",
            Self::Timestamp => "compare the clocks, or widen `tolerance`",
            Self::Nonce => "a replay: nothing to do unless it is the sender's own repeat",
            Self::Cipher => "compare aes_key with the EncodingAESKey of WeCom's page",
            Self::ReceiveId => "compare receive_id with the corp id",
            Self::Content => "the message is no XML or JSON that walhook takes",
            Self::Unavailable => "PostgreSQL did not keep it in time; the sender sends it again",
        }
    }
}

impl From<CipherError> for InboundRefusal {
    fn from(error: CipherError) -> Self {
        match error {
            CipherError::ReceiveId => Self::ReceiveId,
            CipherError::Encoding
            | CipherError::Length
            | CipherError::Padding
            | CipherError::Envelope => Self::Cipher,
        }
    }
}

impl From<XmlError> for InboundRefusal {
    fn from(_: XmlError) -> Self {
        Self::Content
    }
}
