//! The push log: every attempt, as it went over the wire.
//!
//! ```text
//! Attempt ─▶ push_log_events    a row for each attempt and event ───┐
//! Batch ───▶ push_log_batches   a row for all events of a request ──┴─▶ view push_log
//! ```
//!
//! | file | holds |
//! | --- | --- |
//! | `copy` | Attempts on their way into it, by COPY with the flush that settles them |
//! | `filter` | Attempts read back: by event, key, endpoint, status, class and time |
//! | `time_slices` | Looks through it for what no index finds |
//!
//! Its partitions are in [`crate::store::partitions`].

mod copy;
pub(crate) mod filter;
mod time_slices;

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use crate::flow::event::Event;
use crate::flow::event::EventId;
use crate::flow::relation::TableName;
use crate::flow::time::Timestamp;
use crate::flow::verdict::HttpExchange;
use crate::store::partitions::PartitionDay;

pub(crate) use copy::OpenCopy;
pub(crate) use copy::copy;
pub(crate) use time_slices::search;

/// What an attempt meant for its delivery.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum AttemptOutcome {
    Delivered,
    /// Another attempt follows.
    Retry,
    /// Given up.
    Dead,
}

impl AttemptOutcome {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Retry => "retry",
            Self::Dead => "dead",
        }
    }
}

/// One attempt for one event, to write.
#[derive(Clone, Debug)]
pub struct LoggedAttempt {
    /// When the attempt began.
    pub created_at: Timestamp,
    pub event: Arc<Event>,
    pub endpoint: Arc<str>,
    /// 0 for the first attempt.
    pub retry_count: u32,
    pub outcome: AttemptOutcome,
    /// Status, failure, duration and headers; its response body is not looked at.
    pub exchange: Arc<HttpExchange>,
    /// What is to be kept of the bodies, cut to size by the caller.
    pub request_body: Option<Bytes>,
    pub response_body: Option<Bytes>,
    /// Whether `request_body` is all of it.
    pub body_whole: bool,
    pub replay: bool,
}

/// One request that delivered many events, to write as one row: no body of it is kept.
#[derive(Clone, Debug)]
pub struct LoggedBatch {
    /// When the attempt began.
    pub created_at: Timestamp,
    /// All of one type and from one table; never none.
    pub events: Vec<Arc<Event>>,
    pub endpoint: Arc<str>,
    /// 0 for the first attempt.
    pub retry_count: u32,
    /// Status, duration and headers.
    pub exchange: Arc<HttpExchange>,
    pub replay: bool,
}

/// A place in the push log, for paging.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct PushLogCursor {
    pub created_at: Timestamp,
    pub id: i64,
    /// Which event of a [`LoggedBatch`], counted from 1; 0 for an [`LoggedAttempt`].
    pub place: i64,
}

/// One attempt, read back.
#[derive(Clone, Debug, PartialEq)]
pub struct PushLogEntry {
    /// All events of a [`LoggedBatch`] have the same one.
    pub id: i64,
    /// See [`PushLogCursor::place`].
    pub place: i64,
    pub created_at: Timestamp,
    pub event: EventId,
    pub event_type: String,
    pub table: TableName,
    pub endpoint: String,
    pub row_key: Option<String>,
    pub retry_count: u32,
    /// See [`AttemptOutcome::as_str`].
    pub outcome: String,
    pub status: Option<u16>,
    pub failure_class: Option<String>,
    pub error_message: Option<String>,
    /// An object; a header that came several times has its values joined by commas.
    pub request_headers: Option<Value>,
    pub request_body: Option<String>,
    pub response_headers: Option<Value>,
    pub response_body: Option<String>,
    pub duration_ms: f64,
    pub replay: bool,
}

impl PushLogEntry {
    /// Where to go on after this entry.
    pub fn cursor(&self) -> PushLogCursor {
        PushLogCursor { created_at: self.created_at, id: self.id, place: self.place }
    }
}

/// The days that these fall on.
pub(crate) fn days(attempts: &[LoggedAttempt], batches: &[LoggedBatch]) -> BTreeSet<PartitionDay> {
    let attempts = attempts.iter().map(|attempt| attempt.created_at);
    attempts.chain(batches.iter().map(|batch| batch.created_at)).map(PartitionDay::of).collect()
}
