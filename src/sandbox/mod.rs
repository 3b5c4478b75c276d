//! A private, throw-away PostgreSQL for `demo` and the tests.
//!
//! ```text
//! find ─ Installation ─▶ cluster::Cluster::start ─▶ a server on 127.0.0.1, gone when dropped
//!   └ fetch: when the machine has none, into the cache and nowhere else
//! ```
//!
//! Promises: nothing is installed, no system cluster and no port of one is touched, and nothing is
//! left behind: neither a process nor a directory, also when this process is killed with -9.
//! Everything here blocks; async callers go through `spawn_blocking`.

pub mod account;
mod cache;
pub mod cluster;
mod command;
mod directory;
pub mod error;
mod fetch;
pub mod find;
pub mod installation;
mod server;
mod settings;
pub mod surroundings;
mod template;
