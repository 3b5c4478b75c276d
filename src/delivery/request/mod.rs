//! What a request carries: headers, credentials, signature, body.
//!
//! | file | holds |
//! | --- | --- |
//! | `access_token` | Access tokens of WeCom applications |
//! | `auth` | How walhook identifies itself |
//! | `body` | The body of one request, as of one attempt |
//! | `headers` | The headers of a request |
//! | `oauth` | Bearer tokens by OAuth 2.0 client credentials (RFC 6749, 4.4) |
//! | `preview` | What a request would look like, for people |
//! | `request_template` | Path, query and headers that differ from event to event |
//! | `sign` | Signatures |
//! | `token_registry` | The access tokens that a process has |

pub(crate) mod access_token;
pub(crate) mod auth;
pub(crate) mod body;
pub(crate) mod headers;
pub(crate) mod oauth;
pub(crate) mod preview;
pub(crate) mod request_template;
pub(crate) mod sign;
pub(crate) mod token_registry;
