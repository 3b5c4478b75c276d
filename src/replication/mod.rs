//! Reads committed changes from PostgreSQL by logical replication.
//!
//! ```text
//! socket ─▶ wire ─ frames ─▶ pgoutput ─▶ assemble ─ captured items ─▶ pipeline::pump
//! confirmed LSN ─▶ feedback ─▶ socket
//! ```
//!
//! `stream` puts these together and keeps them alive; `catalog` says beforehand whether the server
//! is set up for it, and `diagnostic` names what is not.
//!
//! | file | holds |
//! | --- | --- |
//! | `assemble` | Joins messages into changes |
//! | `catalog` | Looks at a server, its tables, publication and slot, and makes what is missing |
//! | `connection` | One connection that streams a slot: what it needs to know, how it is made, what it holds |
//! | `diagnostic` | What about a server, a slot or a table does not allow the work, and the way out |
//! | `diagnostic_id` | The names under which docs/errors.md explains what does not allow the work |
//! | `error` | Why the source cannot start or had to stop |
//! | `gap` | Changes that are lost, or may be: why, from where to where, and what to do |
//! | `gap_survey` | Finds what is missing between what was settled and what the server is going to send |
//! | `managed_service` | Whose server it is, and what is done there in place of the usual statements |
//! | `pgoutput` | Decodes pgoutput, PostgreSQL's logical-replication message format |
//! | `positions` | Which positions of the stream are believed |
//! | `catalog_questions` | What the stream does not tell, asked over a session of plain SQL |
//! | `reader` | A checked cursor over one message of the replication stream |
//! | `reconnect` | Makes a lost connection anew, for a slot that was ours a moment ago |
//! | `retained_wal` | How much WAL the server keeps for the slot, and how much more it may |
//! | `sample` | A few rows of a table as it is, in the shape in which the stream would bring them |
//! | `schema_fault` | What about the definition of a table, or about what a publication covers, does not allow the work |
//! | `slot` | What PostgreSQL's catalog says about one replication slot |
//! | `slot_holder` | Who holds a replication slot, as PostgreSQL shows it |
//! | `slot_ownership` | Whether the slot is ours, as far as we can know at this moment |
//! | `status` | What the source is doing, for readiness, status and metrics |
//! | `stream` | The stream of changes of one slot, kept alive |
//! | `text_forms` | What of a database's texts does not arrive as the server shows it |
//! | `types` | What PostgreSQL's types are made of |
//! | `unsendable` | A transaction that is in the WAL and that PostgreSQL cannot send |
//! | `wire` | The replication connection |

pub(crate) mod assemble;
pub(crate) mod catalog;
mod catalog_questions;
pub(crate) mod connection;
pub(crate) mod diagnostic;
mod diagnostic_id;
pub(crate) mod error;
pub(crate) mod gap;
pub(crate) mod gap_survey;
pub(crate) mod managed_service;
pub(crate) mod pgoutput;
mod positions;
pub(crate) mod reader;
pub(crate) mod reconnect;
pub(crate) mod retained_wal;
pub(crate) mod sample;
pub(crate) mod schema_fault;
pub(crate) mod slot;
pub(crate) mod slot_holder;
pub(crate) mod slot_ownership;
pub(crate) mod status;
pub(crate) mod stream;
pub(crate) mod text_forms;
pub(crate) mod types;
pub(crate) mod unsendable;
pub(crate) mod wire;
