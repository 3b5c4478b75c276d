//! Callbacks in: signed ones are believed, and each becomes one row before it is answered.
//!
//! ```text
//! sender ─ HTTP(S) ─▶ listener ─▶ verify ─▶ writer ─ one transaction ─▶ the source's table
//!   ▲                    │                                                    │
//!   └── 200 once it is committed, 401, 403, 503                 the ordinary tail: [[event]]
//! ```
//!
//! | file | holds |
//! | --- | --- |
//! | `listener` | connections, TLS, allow-list, the order of judging |
//! | `caller` | whose address the allow-list judges |
//! | `request_body` | bodies, bounded in bytes and time |
//! | `request` | a callback as it came in |
//! | `verify` | signature, time, message: pure |
//! | `verified` | a callback that is what it says |
//! | `wecom/` | WeCom's signature, cipher, XML, kinds of messages |
//! | `hmac` | Standard Webhooks, GitHub, Shopify, Stripe and their like |
//! | `callback_store` | rows and nonces, committed in groups |
//! | `row` | a callback as it is kept |
//! | `refusal` | why one is refused |
//! | `source` | a source's counts |
//! | `wecom` | Callbacks of WeCom |

pub(crate) mod callback_store;
mod caller;
mod hmac;
pub(crate) mod listener;
pub(crate) mod refusal;
pub(crate) mod request;
mod request_body;
pub(crate) mod row;
pub(crate) mod source;
pub(crate) mod verified;
pub(crate) mod verify;
pub(crate) mod wecom;
