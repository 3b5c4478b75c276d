//! Reads committed changes from PostgreSQL by logical replication.
//!
//! ```text
//! socket ─▶ wire ─ Frame ─▶ pgoutput ─▶ assemble ─ Captured ─▶ app::pump
//! confirmed LSN ─▶ feedback ─▶ socket
//! ```

pub mod assemble;
pub mod pgoutput;
pub mod reader;
pub mod status;
pub mod types;
