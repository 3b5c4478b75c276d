//! walhook: pushes committed PostgreSQL row changes to HTTP endpoints.

pub mod api;
pub mod app;
pub mod backoff;
pub mod cli;
pub mod clock;
pub mod config;
pub mod delivery;
pub mod event;
pub mod flow;
pub mod ledger;
pub mod queue;
pub mod sandbox;
pub mod source;
pub mod store;
pub mod task;
pub mod telemetry;
