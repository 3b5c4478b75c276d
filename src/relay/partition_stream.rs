//! The stream of one partition, as the tail's publisher and the owner's feed use it: NATS JetStream, or what stands
//! for it in the simulation.

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::flow::event::EventId;
use crate::relay::error::RelayError;
use crate::relay::message::MessageError;
use crate::relay::message_head::MessageHead;

/// The sequence under which the stream has taken a message.
pub(crate) type Acknowledgement = BoxFuture<'static, Result<u64, PublishRefusal>>;

/// A stream that numbers its messages from 1 on, and never gives a number twice while it is the same one. It may
/// lose messages, go back, or be made anew at any time. Cheap to clone.
pub(crate) trait PartitionStream: Clone + Send + Sync + 'static {
    /// Messages that are being read.
    type Messages: Send;

    /// What the stream is called.
    fn name(&self) -> &str;

    /// Sends a message, which is taken only as the next one after `expected`. Its acknowledgement comes later.
    ///
    /// # Errors
    /// It could not be sent.
    fn publish(
        &self,
        message: &StreamMessage,
        expected: u64,
    ) -> impl Future<Output = Result<Acknowledgement, PublishRefusal>> + Send;

    /// The sequence of the last message that the stream has taken, whether it still holds it or not; `None` where
    /// there is no stream.
    ///
    /// # Errors
    /// The broker does not say.
    fn last_sequence(&self) -> impl Future<Output = Result<Option<u64>, RelayError>> + Send;

    /// The head of the message with this sequence; `None` if it is gone or none of ours.
    ///
    /// # Errors
    /// The broker does not say.
    fn head_at(
        &self,
        sequence: u64,
    ) -> impl Future<Output = Result<Option<MessageHead>, RelayError>> + Send;

    /// Removes the messages before this sequence, or all.
    ///
    /// # Errors
    /// The broker does not do it, or says nothing.
    fn purge(&self, before: Option<u64>) -> impl Future<Output = Result<(), RelayError>> + Send;

    /// Begins to read behind this sequence.
    ///
    /// # Errors
    /// The stream cannot be read.
    fn read_after(
        &self,
        sequence: u64,
    ) -> impl Future<Output = Result<Self::Messages, RelayError>> + Send;

    /// The next message, and its sequence; `None` if no more comes this way. Cancellation-safe.
    ///
    /// # Errors
    /// See [`ReadFault`].
    fn next(
        messages: &mut Self::Messages,
    ) -> impl Future<Output = Option<Result<(u64, StreamMessage), ReadFault>>> + Send;
}

/// A message of a stream.
#[derive(Clone, Debug)]
pub(crate) struct StreamMessage {
    pub(crate) head: MessageHead,
    /// The event's, if it is of one. Who reads finds it in the event.
    pub(crate) id: Option<EventId>,
    pub(crate) payload: Bytes,
}

/// A message was not taken, as far as anybody knows.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PublishRefusal {
    #[error("the stream has taken other messages than expected")]
    WrongSequence,
    #[error(transparent)]
    Unknown(RelayError),
}

/// No message comes.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadFault {
    /// The stream has to be opened anew.
    #[error("the broker does not go on")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// What comes is no message of walhook's.
    #[error(transparent)]
    Unreadable(#[from] MessageError),
}
