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
//! | `begun_message` | Messages of which a part was taken |
//! | `body` | The body of one request, as of one attempt |
//! | `channel` | Messages to chat systems |
//! | `transport_failure` | What kind of failure a transport error is |
//! | `connections` | The connections to one endpoint |
//! | `dial` | Makes connections to one endpoint |
//! | `error` | Why an endpoint's client cannot be built |
//! | `write_gate` | A socket that writes only while requests may be made |
//! | `address_guard` | Which addresses may be dialled |
//! | `headers` | The headers of a request |
//! | `http` | One exchange with an endpoint |
//! | `reply_verdict` | What follows from a reply |
//! | `multiplexed` | The HTTP/2 connection to one endpoint |
//! | `network` | What all endpoints share of the outside |
//! | `oauth` | Bearer tokens by OAuth 2.0 client credentials (RFC 6749, 4.4) |
//! | `preview` | What a request would look like, for people |
//! | `redact` | What a receiver says of the URL that it was called at |
//! | `request_template` | Path, query and headers that differ from event to event |
//! | `reply` | What is read of a response, within limits whatever the receiver sends |
//! | `resolve_error` | Why a name did not resolve |
//! | `own_shortage` | What walhook or its system has none left of |
//! | `sign` | Signatures |
//! | `url_target` | Where a URL leads, and by which way |
//! | `stalled_bodies` | Large bodies that hang while their memory is wanted |
//! | `token_registry` | The access tokens that a process has |
//! | `trace` | To which trace a request belongs |
//! | `transport_trouble` | Why a request has no response |
//! | `trust` | Whom an endpoint's TLS trusts that has authorities of its own (`tls.ca`) |
//! | `tunnel` | A way through an HTTP proxy |

mod access_token;
pub(crate) mod address_guard;
mod auth;
mod begun_message;
mod body;
mod channel;
mod connections;
mod dial;
pub(crate) mod error;
mod headers;
pub(crate) mod http;
mod lookup;
mod multiplexed;
pub(crate) mod network;
mod oauth;
mod own_shortage;
pub(crate) mod preview;
mod redact;
mod reply;
mod reply_verdict;
mod request_template;
mod resolve_error;
pub(crate) mod sign;
pub(crate) mod sockets;
mod stalled_bodies;
mod streams;
mod token_registry;
pub(crate) mod trace;
mod transport_failure;
mod transport_trouble;
mod trust;
mod tunnel;
mod url_target;
pub(crate) mod write_gate;
