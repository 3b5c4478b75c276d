//! The replication connection: PostgreSQL's streaming replication protocol, client side.
//!
//! ```text
//! store::session::dial ─ ServerTransport ─▶ [startup] log in ─▶ [command] slot, START_REPLICATION
//!                                                     │
//!                  server ─ CopyData ─▶ [frame] ─ WireFrame ─▶ pgoutput, assemble
//!                         ◀─ status ── [feedback] ◀─ confirmed LSN
//! ```
//!
//! The connection is ours because tokio-postgres knows neither `CopyBothResponse` nor replication
//! mode. It speaks pgoutput's protocol version 1 on purpose: a transaction comes whole, after its
//! commit, so that nothing has to be set aside for a transaction that may still be aborted, and
//! the server waits when we do not read.
//!
//! After START_REPLICATION the connection is split: reading may stop for as long as the endpoints
//! are slow, while the feedback goes on, so that `wal_sender_timeout` never strikes.

pub(crate) mod command;
pub(crate) mod feedback;
pub(crate) mod frame;
pub(crate) mod heard;
pub(crate) mod message;
mod row;
pub(crate) mod startup;
