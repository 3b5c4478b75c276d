//! Reads the events of one partition, in order, each once.
//!
//! ```text
//! stream ─ message ─▶ [feed] ─ FeedItem ─▶ lanes of the partition's owner
//!                       └ Lacking: something is missing, and has to come again under another epoch
//! ```
//!
//! Each message names the one before it, so an owner that has got that one has got everything. What comes again is
//! passed over. Nothing is acknowledged to the broker, and no cursor is stored: what is settled is purged, so the
//! beginning of the stream is where to begin.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use crate::flow::lsn::Lsn;
use crate::flow::lsn::Position;
use crate::relay::message;
use crate::relay::message::MessageError;
use crate::relay::message::RelayedEvent;
use crate::relay::message_head::MessageHead;
use crate::relay::partition_stream::PartitionStream;
use crate::relay::partition_stream::ReadFault;
use crate::relay::partition_stream::StreamMessage;
use crate::relay::place::MessagePlace;

/// A stream that is silent for so long is looked at: it may have been made anew.
const SILENCE: Duration = Duration::from_secs(3);

/// Before a stream that could not be read is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// What comes next.
#[derive(Debug)]
pub(crate) enum FeedItem {
    Event(RelayedEvent),
    /// Everything before this position has come, as far as it concerns the partition.
    Mark(Lsn),
    /// A message is missing that was sent under this epoch.
    Lacking {
        epoch: i64,
    },
}

/// Reads the stream of a partition.
pub(crate) struct PartitionFeed<S: PartitionStream> {
    stream: S,
    /// Everything up to here has come, or is settled.
    last: MessagePlace,
    /// The epoch of the message that was read last.
    epoch: i64,
    /// The sequence of that message.
    sequence: u64,
    /// `None`: it is to be opened behind `sequence`.
    messages: Option<S::Messages>,
    /// Of an event that has not come whole.
    pieces: Vec<Bytes>,
    /// Events of the last message that nobody has asked for yet.
    ready: VecDeque<RelayedEvent>,
    /// The stream was read from its beginning because of a message that was missing behind this place.
    lacking: Option<MessagePlace>,
    told: bool,
}

impl<S: PartitionStream> PartitionFeed<S> {
    /// Begins behind what is settled.
    pub(crate) fn new(stream: S, settled: Option<Position>) -> Self {
        Self {
            stream,
            last: settled.map(MessagePlace::after).unwrap_or_default(),
            epoch: 0,
            sequence: 0,
            messages: None,
            pieces: Vec::new(),
            ready: VecDeque::new(),
            lacking: None,
            told: false,
        }
    }

    /// All up to this position is settled, here or elsewhere.
    pub(crate) fn pass(&mut self, settled: Position) {
        self.last = self.last.max(MessagePlace::after(settled));
    }

    /// Waits for what comes next, for as long as the broker is away. Cancellation-safe.
    ///
    /// # Errors
    /// The stream holds what is no message of walhook's.
    pub(crate) async fn next(&mut self) -> Result<FeedItem, MessageError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(FeedItem::Event(event));
            }
            let Some(messages) = &mut self.messages else {
                self.open().await;
                continue;
            };
            let next = tokio::time::timeout(SILENCE, S::next(messages)).await;
            match next {
                Ok(Some(Ok((sequence, message)))) => {
                    if let Some(item) = self.read(sequence, message)? {
                        return Ok(item);
                    }
                }
                Ok(Some(Err(ReadFault::Broken(error)))) => {
                    tracing::debug!(
                        stream = self.stream.name(),
                        error,
                        "the stream is opened anew"
                    );
                    self.messages = None;
                }
                Ok(Some(Err(ReadFault::Unreadable(error)))) => return Err(error),
                Ok(None) => self.messages = None,
                Err(_silent) => self.look().await,
            }
        }
    }

    /// Opens the stream behind what was read, or at its beginning.
    async fn open(&mut self) {
        match self.stream.read_after(self.sequence).await {
            Ok(messages) => {
                self.told = false;
                self.messages = Some(messages);
            }
            Err(error) => {
                if !std::mem::replace(&mut self.told, true) {
                    let error = format!("{:#}", anyhow::Error::new(error));
                    tracing::warn!(
                        stream = self.stream.name(),
                        error,
                        "cannot read the stream, trying again"
                    );
                }
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    /// Begins anew where the stream holds less than was read of it: it was made anew, or put back. Where it holds
    /// more, its consumer has gone with a node of the broker: the client itself would wait for half a minute.
    async fn look(&mut self) {
        let Ok(Some(last)) = self.stream.last_sequence().await else { return };
        match last.cmp(&self.sequence) {
            Ordering::Less => self.begin_anew(),
            Ordering::Equal => {}
            Ordering::Greater => self.messages = None,
        }
    }

    fn begin_anew(&mut self) {
        (self.sequence, self.messages) = (0, None);
        self.pieces.clear();
    }

    /// Takes in a message; `None` if nothing follows from it.
    fn read(
        &mut self,
        sequence: u64,
        message: StreamMessage,
    ) -> Result<Option<FeedItem>, MessageError> {
        let head = message.head;
        self.sequence = sequence;
        if head.epoch < self.epoch {
            return Ok(None); // of one who has lost the slot
        }
        self.epoch = head.epoch;
        if head.mark.is_none() && head.place <= self.last {
            return Ok(None); // it has come before
        }
        let (nth, of) = head.piece;
        let is_next = usize::try_from(nth).is_ok_and(|nth| nth == self.pieces.len() + 1);
        if head.after > self.last || head.mark.is_none() && nth > 1 && !is_next {
            return Ok(self.lacks(head));
        }
        if let Some(end) = head.mark {
            return Ok(Some(FeedItem::Mark(end)));
        }
        if nth == 1 {
            self.pieces.clear();
        }
        self.pieces.push(message.payload);
        if nth < of {
            return Ok(None);
        }
        let pieces = std::mem::take(&mut self.pieces);
        let payload = match pieces.as_slice() {
            [whole] => whole.clone(),
            _ => Bytes::from(pieces.concat()),
        };
        // Another tail may have put other events together: some of these may have come before.
        let events = message::decode(payload, head.place)?;
        self.ready.extend(events.into_iter().filter(|event| event.place > self.last));
        self.last = head.place;
        Ok(self.ready.pop_front().map(FeedItem::Event))
    }

    /// A message is missing. The stream is read once more from its beginning before that is said.
    fn lacks(&mut self, head: MessageHead) -> Option<FeedItem> {
        if self.lacking.replace(self.last) != Some(self.last) {
            self.begin_anew();
            return None;
        }
        Some(FeedItem::Lacking { epoch: head.epoch })
    }
}
