//! Tells the server how far we have come, on a timer that nothing blocks.
//!
//! ```text
//! watermark ─ confirmed LSN ─▶ [feedback] ─ Standby Status Update ─▶ server
//! frame ─ received, reply! ──▶
//! ```
//!
//! It runs as a task of its own with the writing half of the connection: however long the reader
//! pauses, updates go out every [`interval`], so the server never takes us for dead. Positions
//! never go back, and what is reported as flushed is never beyond what is confirmed.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::BufMut;
use bytes::BytesMut;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::host_now;
use crate::flow::lsn::Lsn;
use crate::replication::error::SourceError;
use crate::replication::wire::heard::LastHeard;

/// Updates go out at least this often, also if the server would wait longer: `pg_stat_replication`
/// and the slot's `confirmed_flush_lsn` then say what is true.
const INTERVAL_MAX: Duration = Duration::from_secs(1);

/// No timeout of the server is so short that more updates than this would be needed.
const INTERVAL_MIN: Duration = Duration::from_millis(50);

/// After the confirmed position moved, an update waits this long for further moves.
const THROTTLE: Duration = Duration::from_millis(50);

/// Tag and length of CopyData, then the Standby Status Update.
const UPDATE_BYTES: usize = 5 + STATUS_BYTES;
const STATUS_BYTES: usize = 34;

/// How often updates go out with this `wal_sender_timeout`: three within the timeout, so that one
/// may be late. Zero means that the server never times out.
pub(crate) fn interval(wal_sender_timeout: Duration) -> Duration {
    if wal_sender_timeout.is_zero() {
        return INTERVAL_MAX;
    }
    (wal_sender_timeout / 3).clamp(INTERVAL_MIN, INTERVAL_MAX)
}

/// Ends whatever stream runs at the moment, from outside of the source and also while nobody reads
/// it. Clones are one.
#[derive(Clone, Debug, Default)]
pub struct SlotRelease {
    waiters: Arc<Notify>,
}

impl SlotRelease {
    /// Has the feedback of each running stream close its connection; later ones are not affected.
    pub fn now(&self) {
        self.waiters.notify_waiters();
    }
}

/// The writing half of the connection.
#[derive(Debug)]
pub struct FeedbackWriter<W> {
    stream: W,
    heard: Arc<LastHeard>,
    interval: Duration,
    written: Lsn,
    flushed: Lsn,
}

/// Whether the server is asked to answer an update at once.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum ReplyWanted {
    AtOnce,
    No,
}

impl<W: AsyncWrite + Unpin> FeedbackWriter<W> {
    pub fn new(stream: W, heard: Arc<LastHeard>, interval: Duration) -> Self {
        Self { stream, heard, interval, written: Lsn::ZERO, flushed: Lsn::ZERO }
    }

    /// Sends one Standby Status Update.
    async fn update(&mut self, confirmed: Lsn, reply: ReplyWanted) -> Result<(), SourceError> {
        self.flushed = self.flushed.max(confirmed);
        self.written = self.written.max(self.heard.received()).max(self.flushed);
        let mut out = BytesMut::with_capacity(UPDATE_BYTES);
        out.put_u8(b'd');
        out.put_u32(u32::try_from(STATUS_BYTES + 4).unwrap_or_default());
        out.put_u8(b'r');
        out.put_u64(self.written.raw());
        out.put_u64(self.flushed.raw());
        out.put_u64(self.flushed.raw());
        out.put_i64(host_now().to_postgres());
        out.put_u8(u8::from(reply == ReplyWanted::AtOnce));
        self.send(&out).await
    }

    /// Says that no more updates will come: the server ends the stream.
    async fn copy_done(&mut self) -> Result<(), SourceError> {
        let mut out = BytesMut::new();
        postgres_protocol::message::frontend::copy_done(&mut out);
        self.send(&out).await
    }

    async fn close(&mut self) -> Result<(), SourceError> {
        self.stream.shutdown().await.map_err(SourceError::Disconnected)
    }

    async fn send(&mut self, framed: &[u8]) -> Result<(), SourceError> {
        self.stream.write_all(framed).await.map_err(SourceError::Disconnected)?;
        self.stream.flush().await.map_err(SourceError::Disconnected)
    }
}

/// Sends updates until `stop`: at every interval, at once when the server asks, and soon after
/// `confirmed` has moved. Then a last one with the last confirmed position, and CopyDone; call
/// [`crate::replication::wire::frame::FrameReader::finish`] afterwards to know that the server has
/// taken them in.
///
/// On `let_go` it closes our direction of the connection instead: unlike after CopyDone, the server
/// then ends the stream also in the middle of a transaction that nobody reads any more.
///
/// When nothing has been heard for an interval, the update asks the server for a sign of life, by
/// which the reader tells an idle server from a lost one.
///
/// # Errors
/// [`SourceError::Disconnected`] if the server cannot be written to.
pub async fn feedback<W: AsyncWrite + Unpin>(
    mut writer: FeedbackWriter<W>,
    mut confirmed: watch::Receiver<Lsn>,
    let_go: SlotRelease,
    stop: CancellationToken,
) -> Result<(), SourceError> {
    let heard = Arc::clone(&writer.heard);
    let mut let_go = pin!(let_go.waiters.notified());
    let mut sent = Instant::now();
    // `confirmed` has moved since the last update.
    let mut moved = false;
    // Its sender is still there.
    let mut watched = true;
    loop {
        let due = if moved { THROTTLE.min(writer.interval) } else { writer.interval };
        tokio::select! {
            biased; // stop first; then the server's question, which must never wait
            () = stop.cancelled() => break,
            () = &mut let_go => {
                let position = *confirmed.borrow();
                writer.update(position, ReplyWanted::No).await?;
                return writer.close().await;
            }
            () = heard.asked() => {}
            change = confirmed.changed(), if watched && !moved => {
                moved = change.is_ok();
                watched = change.is_ok();
                continue;
            }
            () = tokio::time::sleep_until(sent + due) => {}
        }
        let position = *confirmed.borrow_and_update();
        let reply = match heard.silent_for() >= writer.interval {
            true => ReplyWanted::AtOnce,
            false => ReplyWanted::No,
        };
        writer.update(position, reply).await?;
        sent = Instant::now();
        moved = false;
    }
    let position = *confirmed.borrow();
    writer.update(position, ReplyWanted::No).await?;
    writer.copy_done().await
}

#[cfg(test)]
mod tests;
