//! Reads the stream of changes: big reads, whole frames, no copies.
//!
//! ```text
//! socket ─ up to 256 KiB at once ─▶ [FrameReader] ─ Vec<WireFrame> ─▶ pgoutput, assemble
//!                                        │ ▲
//!                           large frame: ▼ │ its share of the memory
//!                                      MemoryBudget
//! ```
//!
//! Small frames are slices of the buffer that the socket was read into. A large frame first gets
//! its share of the [`MemoryBudget`] and then a buffer of exactly its size, so that a row of 100 MB is in
//! memory once and does not keep the shared buffer big; while the budget is used up, nothing is
//! read, and PostgreSQL waits.
//!
//! An eager reader makes the walsender slow: it flushes after every message and pays for each
//! wake-up of the reader. So while the stream is behind the server's commits the next read waits a
//! moment, for bytes to gather, and after a flood of frames two. How far it is behind each transaction
//! says itself: when it was committed and when it was sent, on the server's clock.

mod closing;
mod receive;

use std::future::Future;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Buf;
use bytes::BufMut;
use bytes::Bytes;
use bytes::BytesMut;
use postgres_protocol::message::backend;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::time::Instant;
use tokio_postgres::error::SqlState;

use crate::flow::budget::MemoryBudget;
use crate::flow::budget::MemoryPermit;
use crate::flow::lsn::Lsn;
use crate::flow::time::Timestamp;
use crate::replication::diagnostic::SetupDiagnostic;
use crate::replication::error::SourceError;
use crate::replication::unsendable;
use crate::replication::unsendable::UnsendableRow;
use crate::replication::wire::frame::receive::receive;
use crate::replication::wire::heard::LastHeard;
use crate::replication::wire::message::BackendMessage;
use crate::replication::wire::message::MessageHeader;
use crate::replication::wire::message::NoticeSeverity;
use crate::replication::wire::message::error_context;
use crate::replication::wire::message::parse;
use crate::replication::wire::message::server_error;
use crate::replication::wire::message::unexpected;

/// The setting that PostgreSQL names when it waits for a standby, in every language.
const STANDBYS: &str = "synchronized_standby_slots";

/// The buffer that the socket is read into. Larger reads gain nothing more.
const READ_BYTES: usize = 256 * 1024;

/// A new buffer is taken when less than this is left of the old one.
const READ_BYTES_MIN: usize = 64 * 1024;

/// Frames beyond this size get a buffer of their own and a share of the budget.
pub(crate) const LARGE_BYTES: usize = 64 * 1024;

/// A transaction that is sent this long after its commit shows a backlog, on a machine of any speed: one
/// that is sent at once is on its way for the time that the server needs to write its WAL.
const BEHIND: Duration = Duration::from_millis(5);

/// So does a read that brought this many frames, about four single-row transactions.
const MANY_FRAMES: usize = 16;

/// The wait for bytes to gather. The timer's steps are of 1 ms, so it comes to 0.5 to 1.5 ms.
const GATHER: Duration = Duration::from_micros(500);

/// As many as come in such a wait at 100,000 single-row transactions a second, and in the longer one
/// at 50,000: there is a long way to go then.
const FLOOD_FRAMES: usize = 512;

/// A longer one, 1.8 to 2.8 ms. It also keeps the reader at work for so long at a time that Linux takes
/// the walsender, which often waits for the reader's processor, to another one; and with 3 ms and
/// more, large transactions come slower.
const GATHER_FLOOD: Duration = Duration::from_micros(1_800);

/// CopyData's header, then `w`, two positions and a time.
const DATA_HEADER_BYTES: usize = 5 + 25;

/// One message of the stream.
#[derive(Debug)]
pub enum WireFrame {
    /// One pgoutput message.
    Data {
        /// Where it stands in the WAL; 0/0 for messages that have no position, such as relations.
        start: Lsn,
        /// How far the server has come.
        end: Lsn,
        /// The server's clock.
        sent: Timestamp,
        payload: Bytes,
        /// The share of the memory budget of a large payload; keep it as long as the bytes.
        held: Option<MemoryPermit>,
    },
    /// The server has sent everything before `end`.
    Keepalive {
        end: Lsn,
        /// It wanted an answer. The feedback has been told already.
        reply: bool,
        /// The server's clock.
        sent: Timestamp,
    },
}

/// How a [`FrameReader`] judges what it reads.
#[derive(Clone, Debug)]
pub struct FrameLimits {
    /// How long the server may be silent, although the feedback asks for signs of life, before
    /// the connection counts as lost. Only time spent reading counts.
    pub silence: Duration,
    /// For errors about them.
    pub slot: String,
    pub publication: String,
}

/// The reading half of the connection.
pub struct FrameReader<R> {
    stream: R,
    buf: BytesMut,
    large: Option<LargeFrame>,
    budget: MemoryBudget,
    heard: Arc<LastHeard>,
    limits: FrameLimits,
    /// Reading goes on then.
    gather_until: Option<Instant>,
    /// How long after its commit the last transaction was sent.
    lag: Duration,
    /// Time that reads have waited for the server since its last byte.
    waited: Duration,
}

/// A large message on its way.
enum LargeFrame {
    /// Waits for its share of the budget; its first bytes are still in the shared buffer. The
    /// future is kept so that a cancelled read does not lose its place in the queue.
    Waiting {
        total: usize,
        share: Pin<Box<dyn Future<Output = MemoryPermit> + Send>>,
    },
    Reading {
        total: usize,
        whole: BytesMut,
        share: MemoryPermit,
    },
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// `read` is what has already been read from `stream`.
    pub fn new(
        stream: R,
        read: BytesMut,
        budget: MemoryBudget,
        heard: Arc<LastHeard>,
        limits: FrameLimits,
    ) -> Self {
        Self {
            stream,
            buf: read,
            large: None,
            budget,
            heard,
            limits,
            gather_until: None,
            lag: Duration::ZERO,
            waited: Duration::ZERO,
        }
    }

    /// Waits for the next frames and appends all that are complete, at least one.
    ///
    /// Cancellation-safe: a read that is dropped loses nothing.
    ///
    /// # Errors
    /// [`SourceError::Disconnected`] if the connection ended or the server fell silent, the
    /// server's error if it sent one, [`SourceError::Protocol`] if we do not understand it. The
    /// stream cannot be read any further then.
    pub async fn read(&mut self, out: &mut Vec<WireFrame>) -> Result<(), SourceError> {
        let before = out.len();
        loop {
            self.take_complete(before, out)?;
            let count = out.len() - before;
            if count > 0 {
                self.note_lag(out.get(before..));
                let is_behind = count >= MANY_FRAMES || self.is_behind();
                let backlog = is_behind && self.buf.len() < READ_BYTES_MIN;
                let wait = if count >= FLOOD_FRAMES { GATHER_FLOOD } else { GATHER };
                self.gather_until = backlog.then(|| Instant::now() + wait);
                return Ok(());
            }
            self.fill().await?;
        }
    }

    /// Whether more is on its way already, as far as the stream itself tells: it is behind, or a message
    /// has come in part.
    pub fn expects_more(&self) -> bool {
        self.is_behind() || self.large.is_some() || !self.buf.is_empty()
    }

    /// How long after its commit the last transaction was sent that these frames begin; if they begin none,
    /// what the one before has shown.
    fn note_lag(&mut self, frames: Option<&[WireFrame]>) {
        let begun = frames.unwrap_or_default().iter().rev().find_map(|frame| match frame {
            WireFrame::Data { sent, payload, .. } => Some(sent.since(committed(payload)?)),
            WireFrame::Keepalive { .. } => None,
        });
        self.lag = begun.unwrap_or(self.lag);
    }

    fn is_behind(&self) -> bool {
        self.lag >= BEHIND
    }

    /// Moves every frame that is complete from the buffer to `out`.
    fn take_complete(
        &mut self,
        before: usize,
        out: &mut Vec<WireFrame>,
    ) -> Result<(), SourceError> {
        loop {
            match self.large.take() {
                Some(LargeFrame::Reading { total, whole, share }) if whole.len() == total => {
                    self.accept(whole, Some(share), out)?;
                    continue;
                }
                Some(incomplete) => {
                    self.large = Some(incomplete);
                    return Ok(());
                }
                None => {}
            }
            let Some(header) = MessageHeader::peek(&self.buf)? else { return Ok(()) };
            if header.total > LARGE_BYTES {
                let share = Box::pin(share_of_large(self.budget.clone(), header.total));
                self.large = Some(LargeFrame::Waiting { total: header.total, share });
                return Ok(());
            }
            if self.buf.len() < header.total {
                return Ok(());
            }
            // What came before the end of the stream is handed over before the end is reported.
            if header.tag != backend::COPY_DATA_TAG && out.len() > before {
                return Ok(());
            }
            let whole = self.buf.split_to(header.total);
            self.accept(whole, None, out)?;
        }
    }

    fn accept(
        &self,
        whole: BytesMut,
        held: Option<MemoryPermit>,
        out: &mut Vec<WireFrame>,
    ) -> Result<(), SourceError> {
        if whole.first() != Some(&backend::COPY_DATA_TAG) {
            return self.control(whole);
        }
        let frame = decode(whole.freeze(), held)?;
        match frame {
            WireFrame::Data { end, .. } => self.heard.note_received(end),
            WireFrame::Keepalive { end, reply, .. } => {
                self.heard.note_received(end);
                if reply {
                    self.heard.ask_for_reply();
                }
            }
        }
        out.push(frame);
        Ok(())
    }

    /// A message that is not row data.
    fn control(&self, whole: BytesMut) -> Result<(), SourceError> {
        let BackendMessage::Known(message) = parse(whole)? else {
            return Err(unexpected("replication"));
        };
        match message {
            backend::Message::ParameterStatus(_) => Ok(()),
            backend::Message::NoticeResponse(body) => {
                let (notice, severity) = server_error(body.fields())?;
                // Said again and again while a standby is waited for, with the same SQLSTATE as below. The
                // observer says which one.
                if notice.message.contains(STANDBYS) {
                    tracing::debug!(notice = %notice, "PostgreSQL waits for a standby");
                    return Ok(());
                }
                // PostgreSQL 18 only warns when the publication does not exist where it is
                // reading, and leaves the rows out: that is a loss, not a notice.
                if severity == NoticeSeverity::Warning
                    && notice.sqlstate == SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE
                {
                    return Err(self.publication_gone());
                }
                tracing::info!(notice = %notice, "PostgreSQL says something about the replication");
                Ok(())
            }
            backend::Message::ErrorResponse(body) => {
                let (error, _) = server_error(body.fields())?;
                // Before PostgreSQL 18 a missing publication is an error, at its first use.
                Err(if error.sqlstate == SqlState::UNDEFINED_OBJECT {
                    self.publication_gone()
                } else {
                    let context = error_context(body.fields());
                    let at = context.as_deref().and_then(unsendable::position_in);
                    let fault = SourceError::Server(error.clone());
                    // `ReplicationSource` knows the transaction.
                    let unsendable =
                        || SourceError::Unsendable(Box::new(UnsendableRow::at(at, error)));
                    if fault.may_be_mended() { fault } else { unsendable() }
                })
            }
            // A server that shuts down ends the stream like this.
            backend::Message::CopyDone | backend::Message::CommandComplete(_) => {
                Err(SourceError::Disconnected(io::Error::other("the server ended the stream")))
            }
            _ => Err(unexpected("replication")),
        }
    }

    fn publication_gone(&self) -> SourceError {
        let FrameLimits { slot, publication, .. } = self.limits.clone();
        // `ReplicationSource` knows what is confirmed.
        SetupDiagnostic::PublicationGone {
            publication,
            slot,
            from: None,
            since: None,
            nearest: None,
        }
        .into()
    }

    /// Reads from the socket: to the end of a large message, or once into the shared buffer.
    async fn fill(&mut self) -> Result<(), SourceError> {
        if let Some(large) = &mut self.large {
            self.gather_until = None;
            if let LargeFrame::Waiting { total, share } = large {
                let share = share.as_mut().await;
                let mut whole = BytesMut::with_capacity(*total);
                let there = self.buf.len().min(*total);
                whole.extend_from_slice(&self.buf.split_to(there));
                *large = LargeFrame::Reading { total: *total, whole, share };
            }
            if let LargeFrame::Reading { total, whole, .. } = large {
                let heard = &self.heard;
                while whole.len() < *total {
                    let missing = *total - whole.len();
                    let mut rest = (&mut *whole).limit(missing);
                    let stream = &mut self.stream;
                    receive(stream, &mut rest, &mut self.waited, self.limits.silence, heard)
                        .await?;
                }
            }
            return Ok(());
        }
        if let Some(until) = self.gather_until {
            tokio::time::sleep_until(until).await;
            self.gather_until = None;
        }
        self.fill_shared().await
    }

    async fn fill_shared(&mut self) -> Result<(), SourceError> {
        if self.buf.capacity() - self.buf.len() < READ_BYTES_MIN {
            // Asks for one size always: growing in steps would end in ever larger buffers.
            self.buf.reserve(READ_BYTES.saturating_sub(self.buf.len()).max(READ_BYTES_MIN));
        }
        let Self { stream, buf, waited, heard, .. } = self;
        receive(stream, buf, waited, self.limits.silence, heard).await?;
        // TLS hands out one record (16 KiB) at a time: take what is there without waiting.
        while buf.len() < buf.capacity() {
            let more = {
                let mut read = pin!(stream.read_buf(buf));
                poll_fn(|cx| Poll::Ready(read.as_mut().poll(cx))).await
            };
            // An end or an error is met again by the next read, after what came before it.
            if !matches!(more, Poll::Ready(Ok(count)) if count > 0) {
                break;
            }
        }
        Ok(())
    }
}

/// The share of a large message.
async fn share_of_large(budget: MemoryBudget, total: usize) -> MemoryPermit {
    budget.take_large(total).await
}

/// When the transaction was committed that a message begins, if it begins one: the tag, the final
/// position, the time.
fn committed(payload: &[u8]) -> Option<Timestamp> {
    let time = payload.strip_prefix(b"B")?.get(8..)?.first_chunk::<8>()?;
    Some(Timestamp::from_postgres(i64::from_be_bytes(*time)))
}

/// Takes a whole CopyData message apart: XLogData or a keepalive.
fn decode(mut whole: Bytes, held: Option<MemoryPermit>) -> Result<WireFrame, SourceError> {
    let kind = whole.get(5).copied();
    match kind {
        Some(b'w') if whole.len() >= DATA_HEADER_BYTES => {
            whole.advance(6);
            let start = Lsn::from_raw(whole.get_u64());
            let end = Lsn::from_raw(whole.get_u64());
            let sent = Timestamp::from_postgres(whole.get_i64());
            Ok(WireFrame::Data { start, end, sent, payload: whole, held })
        }
        Some(b'k') if whole.len() >= 5 + 18 => {
            whole.advance(6);
            let end = Lsn::from_raw(whole.get_u64());
            let sent = Timestamp::from_postgres(whole.get_i64());
            Ok(WireFrame::Keepalive { end, reply: whole.get_u8() != 0, sent })
        }
        _ => Err(SourceError::Protocol {
            what: format!("a stream message of kind {kind:?} and {} bytes", whole.len()),
        }),
    }
}

#[cfg(test)]
mod tests;
