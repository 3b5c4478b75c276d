//! Reads committed changes from PostgreSQL by logical replication.
//!
//! ```text
//! socket ─▶ wire ─ Frame ─▶ pgoutput ─▶ assemble ─ Captured ─▶ app::pump
//! confirmed LSN ─▶ feedback ─▶ socket
//! ```
//!
//! `stream` puts these together and keeps them alive; `catalog` says beforehand whether the server
//! is set up for it, and `refusal` names what is not.

pub mod assemble;
pub mod catalog;
pub mod diagnostic;
pub mod error;
pub mod gap;
pub mod pgoutput;
mod positions;
mod questions;
pub mod reader;
pub mod reconnect;
pub mod sample;
pub mod schema_fault;
pub mod slot;
pub mod slot_holder;
pub mod slot_ownership;
pub mod status;
pub mod stream;
pub mod text_forms;
pub mod types;
pub mod unsendable;
pub mod wire;
