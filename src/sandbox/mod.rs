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
//!
//! | file | holds |
//! | --- | --- |
//! | `account` | The user that runs the server |
//! | `cache` | Where fetched servers and cluster templates outlive a run |
//! | `cluster` | A private PostgreSQL cluster |
//! | `command` | Runs a helper program to its end, within a limit of time |
//! | `directory` | The directory of one cluster, and how it vanishes |
//! | `error` | Why there is no private PostgreSQL |
//! | `fetch` | Fetches a PostgreSQL into the cache |
//! | `find` | Finds a PostgreSQL to run, or fetches one |
//! | `installation` | A PostgreSQL that was tried and can be run |
//! | `server` | The running server |
//! | `settings` | The settings of a cluster, as the text of a configuration file |
//! | `surroundings` | What the environment says about where to look, where to keep and where to run |
//! | `template` | Makes data directories |

pub(crate) mod account;
mod cache;
pub(crate) mod cluster;
mod command;
mod directory;
pub(crate) mod error;
mod fetch;
pub(crate) mod find;
pub(crate) mod installation;
mod server;
mod settings;
pub(crate) mod surroundings;
mod template;
