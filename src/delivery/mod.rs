//! One attempt: complete the body, authenticate, sign, send, judge.
//!
//! ```text
//! queue ─ Lease ─▶ [http] ─ Exchange ─▶ queue, ledger
//!                    ├ body      the events' bodies as of this attempt, whole or streamed
//!                    ├ gate      no socket is written to while another walhook may have the slot
//!                    ├ headers   fixed ones, auth, ids, sign; a token (oauth)
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

mod access_token;
mod auth;
mod body;
mod channel;
mod classify;
mod connections;
mod dial;
pub mod error;
pub mod gate;
pub mod guard;
mod headers;
pub mod http;
mod judge;
mod multiplexed;
pub mod network;
mod oauth;
pub mod preview;
mod redact;
mod reply;
pub mod sign;
mod site;
mod trust;
mod tunnel;
