//! walhook pushes committed PostgreSQL row changes to HTTP endpoints.
//!
//! ```text
//!  Postgres ──► source ──► event ──► queue ──► delivery ──► ledger
//!     ▲         pgoutput   route,    one lane   sign, send,   counters,
//!     │         decode     filter,   per        judge         log lines,
//!     │                    expiry,   endpoint,                watermark
//!     │                    render    key order                   │
//!     └───── confirm LSN ◄──────────── receipts ◄────────────────┘
//! ```
//!
//! Data goes left to right, handed over by value, one plain type of [`flow`] per hand-over:
//! [`Captured`](flow::change::Captured), [`Event`](flow::event::Event),
//! [`Lease`](flow::lease::Lease), [`Exchange`](flow::verdict::Exchange),
//! [`Settlement`](flow::settlement::Settlement). One thing comes back: what may be confirmed.
//!
//! # Floors
//!
//! A file uses `crate::` items of lower floors only; stages never use one another. `tests/floors.rs`
//! checks it.
//!
//! | floor | rooms |
//! | --- | --- |
//! | 5 | [`cli`]: one file per subcommand; the only printing |
//! | 4 | [`app`]: builds the stages, joins their channels, starts and stops them; the pump |
//! | 3 | [`api`]: the HTTP surface |
//! | 2 | the stages: [`source`], [`event`], [`queue`], [`delivery`], [`ledger`] |
//! | 1 | [`config`], [`failpoint`]; [`store`], [`telemetry`], [`sandbox`], [`task`], [`backoff`], [`clock`] |
//! | 0 | [`flow`]: the words that all share; no I/O, no clock, no randomness |
//!
//! # What stays true
//!
//! - Nothing is confirmed to PostgreSQL before every endpoint has settled it.
//! - With nothing open, a keepalive's position is confirmed, or an idle table would keep the WAL of
//!   a busy database for ever.
//! - Events with a common key never overlap at one endpoint, and arrive in commit order.
//! - An event's id depends on its place in the WAL, the database system and its type alone, so a
//!   repeat carries the same id.
//! - Every wait, queue, body and response has a limit.
//! - Logs and metrics hold no row data beyond an event's facts, no secrets and no URLs with
//!   credentials.

pub mod api;
pub mod app;
pub mod backoff;
pub mod cli;
pub mod clock;
pub mod config;
pub mod delivery;
pub mod endpoints;
pub mod event;
pub mod failpoint;
pub mod flow;
pub mod ha;
pub mod inbound;
pub mod lane;
pub mod ledger;
pub mod pipeline;
pub mod preflight;
pub mod redelivery;
pub mod replication;
pub mod sandbox;
pub mod store;
pub mod task;
pub mod telemetry;
