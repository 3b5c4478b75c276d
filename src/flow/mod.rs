//! The words that all stages share: plain values, handed from stage to stage.
//!
//! Floor 0: nothing here does I/O, reads a clock or draws a random number, so that every rule about
//! positions, keys, verdicts and settlement can be tested with values alone.

pub mod backlog;
pub mod body;
pub mod budget;
pub mod change;
pub mod commit_times;
pub mod compact;
pub mod endpoint_watermarks;
pub mod event;
pub mod headers;
pub mod hex;
pub mod key;
pub mod lease;
pub mod lsn;
pub mod raw_json;
pub mod relation;
pub mod seen;
pub mod settlement;
pub mod time;
pub mod verdict;
pub mod watermark;
pub mod write_back;
