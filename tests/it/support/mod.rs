//! What the tests share: a real PostgreSQL, the real program, and a receiver that can misbehave.

pub(crate) mod broker;
pub(crate) mod browser;
pub(crate) mod course;
pub(crate) mod crash_scenario;
pub(crate) mod ledger;
pub(crate) mod postgres;
pub(crate) mod preload;
pub(crate) mod program;
pub(crate) mod progress;
pub(crate) mod receiver;
pub(crate) mod relay;
pub(crate) mod schema;
pub(crate) mod scrape;
pub(crate) mod service;
pub(crate) mod shared_source;
pub(crate) mod surface;
pub(crate) mod wecom;
pub(crate) mod yaml;
