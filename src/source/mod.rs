//! Reads committed changes from PostgreSQL by logical replication.

pub mod catalog;
pub mod error;
pub mod refusal;
pub mod slot;
pub mod wire;
