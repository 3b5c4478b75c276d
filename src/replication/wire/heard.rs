//! What the reading side has heard from the server, for the feedback and for readiness.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::flow::lsn::Lsn;

/// Shared between the reader, which writes it, and everybody else.
#[derive(Debug)]
pub struct LastHeard {
    since: Instant,
    /// Milliseconds from `since` to the last byte.
    last_ms: AtomicU64,
    received: AtomicU64,
    reply: Notify,
}

impl Default for LastHeard {
    fn default() -> Self {
        Self {
            since: Instant::now(),
            last_ms: AtomicU64::new(0),
            received: AtomicU64::new(0),
            reply: Notify::new(),
        }
    }
}

impl LastHeard {
    /// Bytes have come.
    pub(crate) fn note(&self) {
        let passed = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(passed, Ordering::Relaxed);
    }

    /// The server has told us everything up to here.
    pub(crate) fn note_received(&self, end: Lsn) {
        self.received.fetch_max(end.raw(), Ordering::Relaxed);
    }

    /// The server asks for a status update.
    pub(crate) fn ask_for_reply(&self) {
        self.reply.notify_one();
    }

    /// Waits until the server asks for a status update.
    pub(crate) async fn asked(&self) {
        self.reply.notified().await;
    }

    /// How far the server's messages reach that have been read.
    pub fn received(&self) -> Lsn {
        Lsn::from_raw(self.received.load(Ordering::Relaxed))
    }

    /// When the last bytes came. While nobody reads, because the lanes are full, nothing is heard:
    /// that alone does not mean that the connection is broken.
    pub fn last(&self) -> Instant {
        self.since + Duration::from_millis(self.last_ms.load(Ordering::Relaxed))
    }

    /// Time since the last bytes came.
    pub fn silent_for(&self) -> Duration {
        self.last().elapsed()
    }
}
