//! One attempt: complete the body, authenticate, sign, send, judge.
//!
//! ```text
//! queue ─ Lease ─▶ [http] ─ Exchange ─▶ queue, ledger
//!                    ├ body      the events' bodies as of this attempt, whole or streamed
//!                    ├ gate      no socket is written to while another walhook may have the slot
//!                    ├ headers   fixed ones, auth, ids, sign; a token (oauth)
//!                    ├ request_template   path, query and headers that differ from event to event
//!                    ├ site      where the URL leads, also through a proxy (tunnel)
//!                    ├ connections   made when needed (dial), kept, driven by the attempts;
//!                    │               or one that all share (multiplexed)
//!                    ├ network   guard decides which addresses are dialled; TLS trust
//!                    ├ judge     status or failure (classify) to a verdict
//!                    └ redact    what is kept of an answer does not repeat the URL
//! tail ─ Event ─▶ [preview] the same, shown and not sent
//! ```
//!
//! Whatever the receiver does, an attempt ends at its deadline with one [`Exchange`], in bounded
//! memory. Nothing here waits between attempts or remembers them: that is the lane's part.
//!
//! [`Exchange`]: crate::flow::verdict::HttpExchange
//!
//! | file | holds |
//! | --- | --- |
//! | `access_token` | Access tokens of WeCom applications |
//! | `auth` | How walhook identifies itself |
//! | `begun` | Messages of which a part was taken |
//! | `body` | The body of one request, as of one attempt |
//! | `channel` | Messages to chat systems |
//! | `classify` | What kind of failure a transport error is |
//! | `connections` | The connections to one endpoint |
//! | `dial` | Makes connections to one endpoint |
//! | `error` | Why an endpoint's client cannot be built |
//! | `gate` | A socket that writes only while requests may be made |
//! | `guard` | Which addresses may be dialled |
//! | `headers` | The headers of a request |
//! | `http` | One exchange with an endpoint |
//! | `judge` | What follows from a reply |
//! | `multiplexed` | The HTTP/2 connection to one endpoint |
//! | `network` | What all endpoints share of the outside |
//! | `oauth` | Bearer tokens by OAuth 2.0 client credentials (RFC 6749, 4.4) |
//! | `preview` | What a request would look like, for people |
//! | `redact` | What a receiver says of the URL that it was called at |
//! | `request_template` | Path, query and headers that differ from event to event |
//! | `reply` | What is read of a response, within limits whatever the receiver sends |
//! | `resolve_error` | Why a name did not resolve |
//! | `shortage` | What walhook or its system has none left of |
//! | `sign` | Signatures |
//! | `site` | Where a URL leads, and by which way |
//! | `stalled` | Large bodies that hang while their memory is wanted |
//! | `token_registry` | The access tokens that a process has |
//! | `trace` | To which trace a request belongs |
//! | `transport_trouble` | Why a request has no response |
//! | `trust` | Whom an endpoint's TLS trusts that has authorities of its own (`tls.ca`) |
//! | `tunnel` | A way through an HTTP proxy |

mod access_token;
mod auth;
mod begun;
mod body;
mod channel;
mod classify;
mod connections;
mod dial;
pub(crate) mod error;
pub(crate) mod gate;
pub(crate) mod guard;
mod headers;
pub(crate) mod http;
mod judge;
mod lookup;
mod multiplexed;
pub(crate) mod network;
mod oauth;
pub(crate) mod preview;
mod redact;
mod reply;
mod request_template;
mod resolve_error;
mod shortage;
pub(crate) mod sign;
mod site;
pub(crate) mod sockets;
mod stalled;
mod streams;
mod token_registry;
pub(crate) mod trace;
mod transport_trouble;
mod trust;
mod tunnel;
