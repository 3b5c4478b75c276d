//! The way of a change through this process: read, handed to lanes, delivered, settled.
//!
//! ```text
//! source_thread: source ─▶ pump ─▶ outbox ─▶ lanes' thread: lanes ─▶ delivery ─▶ ledger
//!                            ▲                    ▲
//!              endpoint_update, already_settled   backlog_reader, fence, shutdown
//! ```
//!
//! | file | holds |
//! | --- | --- |
//! | `already_settled` | What an earlier run has settled beyond the settled prefix |
//! | `backlog_reader` | Reads the backlog for the lanes |
//! | `captured_stream` | Where the pump reads from |
//! | `crash_guard` | What the pump does about a change over which walhook has crashed; see `runs` |
//! | `endpoint_row_changes` | Which rows of the table of `[endpoints_from]` a transaction has changed |
//! | `endpoint_update` | What the pump is told between two changes of the stream |
//! | `fence` | Keeps the right to send, and keeps requests back without it |
//! | `free_memory` | Gives memory that is free back to the operating system, also when there is nothing to do |
//! | `handles` | What stages tell, and what others read of it |
//! | `lanes` | Builds the lanes |
//! | `process_name` | What this process calls itself |
//! | `pump` | The pump |
//! | `shutdown` | How a shutdown divides its grace period |
//! | `simulation` | All of this and the ledger on one thread, against models of everything around them |
//! | `source_thread` | The source's thread |
//! | `state_probe` | Asks the state now and then whether it could be written, so that trouble is seen before there is something to write |
//! | `table_counters` | What the pump counts |
//! | `threads` | A thread with a runtime of its own, for tasks that shall not share the time of others |

pub(crate) mod already_settled;
pub(crate) mod backlog_reader;
pub(crate) mod captured_stream;
pub(crate) mod crash_guard;
pub(crate) mod endpoint_row_changes;
pub(crate) mod endpoint_update;
pub(crate) mod fence;
pub(crate) mod free_memory;
pub(crate) mod handles;
pub(crate) mod lanes;
pub(crate) mod process_name;
pub(crate) mod pump;
pub(crate) mod shutdown;
#[cfg(test)]
mod simulation;
pub(crate) mod source_thread;
pub(crate) mod state_probe;
pub(crate) mod table_counters;
pub(crate) mod threads;
