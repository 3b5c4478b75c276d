//! Change to event: which changes become which events, with which body.
//!
//! ```text
//! source ─ Change ─▶ [route ─▶ plan ─▶ expiry ─▶ payload] ─ Event ─▶ queue
//! ```
//!
//! Pure, but for one warning for each expression that fails: a change, the rules and the time in;
//! events out. Rules are compiled once per relation, so that a row costs no look-up by name, unless
//! an expression asks for one.

pub mod datum;
pub mod dedupe;
pub mod dry_run;
mod envelope;
pub(crate) mod expiry;
mod image;
pub(crate) mod payload;
pub mod plan;
pub mod require;
pub mod route;
mod row_order;
mod scope;
mod subscribers;
mod target;
mod template;
pub mod type_check;
mod value;
mod writer;
