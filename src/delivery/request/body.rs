//! The body of one request, as of one attempt.
//!
//! A small one is a single buffer. A large one is never put together: its length and signatures
//! are computed by reading through it once, then it is read again while it is sent, so that a row
//! of 100 MB is in memory once, in the event. A batch is the JSON array of its events' bodies.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;

use bytes::Bytes;
use bytes::BytesMut;
use http_body::Frame;
use http_body::SizeHint;

use crate::delivery::request::sign::RequestSignature;
use crate::flow::body::BodyCursor;
use crate::flow::body::BodyPart;
use crate::flow::event::Event;
use crate::flow::time::Timestamp;

/// A body up to this size is put together in one buffer.
const WHOLE_MAX_BYTES: usize = 1024 * 1024;

/// The longest piece that is handed to the connection at a time. The connection asks for more only
/// while it buffers less than a few of these.
const FRAME_MAX_BYTES: usize = 64 * 1024;

/// After this many bytes a reading lets other tasks run: about a millisecond's work.
const YIELD_BYTES: usize = 512 * 1024;

/// Room for what the attempt fills in, per event: a time, an age, a comma.
const FILLED_IN_BYTES: usize = 64;

/// A body that is ready to be sent.
#[derive(Clone, Debug)]
pub(crate) enum OutgoingBody {
    Whole(Bytes),
    Streamed(BodyStream),
}

/// Completes the body of `events` as of `now` and adds it to `signature`. `batched`: a JSON array,
/// also of a single event. `sent` counts what the connection takes of a large one.
pub(crate) async fn complete(
    events: &[Arc<Event>],
    batched: bool,
    now: Timestamp,
    signature: Option<&mut RequestSignature<'_>>,
    sent: Option<Arc<AtomicU64>>,
) -> OutgoingBody {
    if is_large(events) {
        let pieces = BodyPieces::new(events.to_vec(), batched, now);
        let left = measure(pieces.clone(), signature).await;
        return OutgoingBody::Streamed(BodyStream { pieces, frame: Bytes::new(), left, sent });
    }
    let whole = match events {
        [event] if !batched => match event.body.parts() {
            // A body with nothing to fill in is sent as it was rendered, without a copy.
            [BodyPart::Bytes(whole)] => whole.clone(),
            _ => event.body.complete(now),
        },
        _ => assemble(events, batched, now),
    };
    if let Some(signature) = signature {
        signature.add(&whole);
    }
    OutgoingBody::Whole(whole)
}

fn is_large(events: &[Arc<Event>]) -> bool {
    let is_open = |part: &BodyPart| {
        matches!(part, BodyPart::Escaped(_) | BodyPart::Base64(_) | BodyPart::Compacted(_))
    };
    let is_streamed = |event: &Arc<Event>| event.body.parts().iter().any(is_open);
    let held = |event: &Arc<Event>| event.body.held_bytes();
    events.iter().map(held).sum::<usize>() > WHOLE_MAX_BYTES || events.iter().any(is_streamed)
}

fn assemble(events: &[Arc<Event>], batched: bool, now: Timestamp) -> Bytes {
    let capacity: usize =
        events.iter().map(|event| event.body.held_bytes() + FILLED_IN_BYTES).sum();
    let mut whole = BytesMut::with_capacity(capacity);
    for piece in BodyPieces::new(events.to_vec(), batched, now) {
        whole.extend_from_slice(&piece);
    }
    whole.freeze()
}

/// The length in bytes; every byte goes through `signature` too.
async fn measure(pieces: BodyPieces, mut signature: Option<&mut RequestSignature<'_>>) -> u64 {
    let mut length = 0;
    let mut since_yield = 0;
    for piece in pieces {
        length += piece.len() as u64;
        // A piece that was rendered whole may itself be large.
        for part in piece.chunks(YIELD_BYTES) {
            if let Some(signature) = &mut signature {
                signature.add(part);
            }
            since_yield += part.len();
            if since_yield >= YIELD_BYTES {
                since_yield = 0;
                tokio::task::yield_now().await;
            }
        }
    }
    length
}

/// The pieces of a request's body in order, each made when it is asked for.
#[derive(Clone, Debug)]
struct BodyPieces {
    events: Vec<Arc<Event>>,
    batched: bool,
    now: Timestamp,
    at: BodyPlace,
}

/// What comes next.
#[derive(Clone, Copy, Debug)]
enum BodyPlace {
    /// What precedes this event: the bracket, a comma, or nothing.
    Before(usize),
    Inside(usize, BodyCursor),
    End,
}

impl BodyPieces {
    fn new(events: Vec<Arc<Event>>, batched: bool, now: Timestamp) -> Self {
        Self { events, batched, now, at: BodyPlace::Before(0) }
    }
}

impl Iterator for BodyPieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        loop {
            match self.at {
                BodyPlace::Before(index) => {
                    let (piece, next) = match (index, self.events.len()) {
                        (0, 0) => ("[]", BodyPlace::End),
                        (0, _) => ("[", BodyPlace::Inside(0, BodyCursor::default())),
                        (_, count) if index < count => {
                            (",", BodyPlace::Inside(index, BodyCursor::default()))
                        }
                        _ => ("]", BodyPlace::End),
                    };
                    self.at = next;
                    if self.batched {
                        return Some(Bytes::from_static(piece.as_bytes()));
                    }
                }
                BodyPlace::Inside(index, mut cursor) => {
                    let event = self.events.get(index)?;
                    let piece = event.body.next_chunk(&mut cursor, self.now);
                    self.at = match piece {
                        Some(_) => BodyPlace::Inside(index, cursor),
                        None => BodyPlace::Before(index + 1),
                    };
                    if piece.is_some() {
                        return piece;
                    }
                }
                BodyPlace::End => return None,
            }
        }
    }
}

impl http_body::Body for OutgoingBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Self::Whole(whole) if whole.is_empty() => Poll::Ready(None),
            Self::Whole(whole) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(whole))))),
            Self::Streamed(stream) => Pin::new(stream).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(whole) => whole.is_empty(),
            Self::Streamed(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(whole) => SizeHint::with_exact(whole.len() as u64),
            Self::Streamed(stream) => stream.size_hint(),
        }
    }
}

/// A large body on its way.
#[derive(Clone, Debug)]
pub(crate) struct BodyStream {
    pieces: BodyPieces,
    /// What is left of the piece that is being handed over.
    frame: Bytes,
    /// Bytes that are still to come.
    left: u64,
    /// Counts those that have gone.
    sent: Option<Arc<AtomicU64>>,
}

impl http_body::Body for BodyStream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        while self.frame.is_empty() {
            match self.pieces.next() {
                Some(piece) => self.frame = piece,
                None => return Poll::Ready(None),
            }
        }
        let length = self.frame.len().min(FRAME_MAX_BYTES);
        let frame = self.frame.split_to(length);
        self.left = self.left.saturating_sub(length as u64);
        if let Some(sent) = &self.sent {
            sent.fetch_add(length as u64, Ordering::Relaxed);
        }
        Poll::Ready(Some(Ok(Frame::data(frame))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests;
