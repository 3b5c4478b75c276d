//! Reads committed changes from PostgreSQL by logical replication.

pub mod assemble;
pub mod pgoutput;
pub mod reader;
pub mod types;
