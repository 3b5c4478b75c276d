//! One attempt: complete the body, authenticate, sign, send, judge.
//!
//! ```text
//! lane ─ Lease ─▶ [http] ─ HttpExchange ─▶ lane, ledger
//!                    ├ body      the events' bodies as of this attempt, whole or streamed
//!                    ├ write_gate   no socket is written to while another walhook may have the slot
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
//! | `begun_message` | Messages of which a part was taken |
//! | `channel` | Messages to chat systems |
//! | `connection` | From an address to a connection: names, guarded addresses, sockets, TLS, proxies, and what goes wrong on the way |
//! | `error` | Why an endpoint's client cannot be built |
//! | `http` | One exchange with an endpoint |
//! | `request` | What a request carries: headers, credentials, signature, body |
//! | `response` | What is read of a response, and what follows from it |
//! | `trace` | To which trace a request belongs |

mod begun_message;
mod channel;
pub(crate) mod connection;
pub(crate) mod error;
pub(crate) mod http;
pub(crate) mod request;
mod response;
pub(crate) mod trace;
