//! A private, throw-away PostgreSQL for `demo` and the tests; and a NATS server, for `demo --relay`.
//!
//! ```text
//! find ─ PostgresInstallation ─▶ SandboxCluster::start ─▶ a server on 127.0.0.1, gone when dropped
//! find_broker ─ BrokerInstallation ─▶ SandboxBroker::start ─▶ likewise
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
//! | `broker` | A private NATS server |
//! | `broker_installation` | A NATS server that was tried and can be run |
//! | `cache` | Where fetched servers and cluster templates outlive a run |
//! | `cluster` | A private PostgreSQL cluster |
//! | `command` | Runs a helper program to its end, within a limit of time |
//! | `directory` | The directory of one program, and how it vanishes |
//! | `error` | Why there is no private PostgreSQL, or no private NATS server |
//! | `fetch` | Fetches a PostgreSQL, or a NATS server, into the cache |
//! | `find` | Finds a PostgreSQL to run, or fetches one |
//! | `find_broker` | Finds a NATS server to run, or fetches one |
//! | `installation` | A PostgreSQL that was tried and can be run |
//! | `port` | Ports for servers of the sandbox |
//! | `program` | Any program as a child, in a directory of its own |
//! | `server` | The running PostgreSQL server |
//! | `settings` | The settings of a cluster, as the text of a configuration file |
//! | `surroundings` | What the environment says about where to look, where to keep and where to run |
//! | `template` | Makes data directories |
//! | `watched_process` | A program that ends with this process, however this one ends |

pub(crate) mod account;
pub(crate) mod broker;
mod broker_installation;
mod cache;
pub(crate) mod cluster;
mod command;
mod directory;
pub(crate) mod error;
mod fetch;
pub(crate) mod find;
pub(crate) mod find_broker;
pub(crate) mod installation;
mod port;
pub(crate) mod program;
mod server;
mod settings;
pub(crate) mod surroundings;
mod template;
mod watched_process;
