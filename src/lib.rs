//! walhook pushes committed PostgreSQL row changes to HTTP endpoints.
//!
//! ```text
//!  Postgres ──► source ──► event ──► lane  ──► delivery ──► ledger
//!     ▲         pgoutput   route,    one lane   sign, send,   counters,
//!     │         decode     filter,   per        judge         log lines,
//!     │                    expiry,   endpoint,                watermark
//!     │                    render    key order                   │
//!     └───── confirm LSN ◄──────────── receipts ◄────────────────┘
//! ```
//!
//! Data goes left to right, handed over by value, one plain type of [`flow`] per hand-over:
//! [`CapturedItem`](flow::change::CapturedItem), [`Event`](flow::event::Event),
//! [`Lease`](flow::lease::Lease), [`HttpExchange`](flow::verdict::HttpExchange),
//! [`Settlement`](flow::settlement::Settlement). One thing comes back: what may be confirmed.
//!
//! # Floors
//!
//! A file uses `crate::` items of lower floors only; stages never use one another. `tests/floors.rs`
//! checks it.
//!
//! | floor | rooms |
//! | --- | --- |
//! | 13 | [`cli`]: one file per subcommand; the only printing |
//! | 12 | [`app`]: assembly: builds each stage, joins them, starts and stops them |
//! | 11 | [`ha`]: standing by for the slot, taking up the state |
//! | 10 | [`redelivery`]: dead letters sent again, replays, retention |
//! | 9 | [`endpoints`]: their registry, their administration, those that are rows of a table |
//! | 8 | [`preflight`]: what is looked at before anything moves |
//! | 7 | [`pipeline`]: source thread, pump, lanes, backlog reader, fence, shutdown |
//! | 6 | [`backfill`]: rows that were there before, merged with what streams by |
//! | 5 | [`api`]: the HTTP surface; [`inbound`]: callbacks that become rows |
//! | 4 | the stages: [`replication`], [`event`], [`lane`], [`delivery`], [`ledger`]; [`relay`]: the broker between members |
//! | 3 | [`store`], [`telemetry`], [`sandbox`], [`task`], [`backoff`], [`clock`], [`listen_socket`] |
//! | 2 | [`config`], [`failpoint`] |
//! | 1 | [`expression`]: the language of filters and templates |
//! | 0 | [`flow`]: the words that all share; no I/O, no clock, no randomness |
//!
//! The rooms are the crate's own: `main` has the command line, and [`testing`] is the one door for tests,
//! benchmarks and fuzz targets.
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

mod api;
mod app;
mod backfill;
mod backoff;
mod cli;
mod clock;
mod config;
mod delivery;
mod endpoints;
mod event;
mod expression;
mod failpoint;
mod flow;
mod ha;
mod inbound;
mod lane;
mod ledger;
mod listen_socket;
mod pipeline;
mod preflight;
mod redelivery;
mod relay;
mod replication;
#[cfg(feature = "demo")]
mod sandbox;
mod store;
mod task;
mod telemetry;
pub mod testing;

pub use crate::cli::Cli;
pub use crate::flow::exit_status::ExitStatus;
