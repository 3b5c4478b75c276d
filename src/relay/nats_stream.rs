//! The stream of one partition in NATS JetStream.

use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::pull::Ordered;
use async_nats::jetstream::consumer::pull::OrderedConfig;
use async_nats::jetstream::context::PublishError;
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::message::PublishMessage;
use futures_util::StreamExt;

use crate::relay::broker::BrokerConnection;
use crate::relay::error::RelayError;
use crate::relay::message_head::MessageHead;
use crate::relay::partition_stream::Acknowledgement;
use crate::relay::partition_stream::PartitionStream;
use crate::relay::partition_stream::PublishRefusal;
use crate::relay::partition_stream::ReadFault;
use crate::relay::partition_stream::StreamMessage;
use crate::relay::streams::StreamName;

/// A stream of the broker's.
#[derive(Clone)]
pub(crate) struct NatsStream {
    broker: BrokerConnection,
    name: StreamName,
}

impl NatsStream {
    pub(crate) fn new(broker: &BrokerConnection, name: StreamName) -> Self {
        Self { broker: broker.clone(), name }
    }

    fn refusal(&self, error: PublishError) -> PublishRefusal {
        match error.kind() {
            PublishErrorKind::WrongLastSequence => PublishRefusal::WrongSequence,
            _ => PublishRefusal::Unknown(self.name.not_usable(&self.broker, error)),
        }
    }
}

impl PartitionStream for NatsStream {
    type Messages = Ordered;

    fn name(&self) -> &str {
        &self.name.stream
    }

    async fn publish(
        &self,
        message: &StreamMessage,
        expected: u64,
    ) -> Result<Acknowledgement, PublishRefusal> {
        let publish = PublishMessage::build()
            .payload(message.payload.clone())
            .headers(message.head.headers(message.id))
            .expected_last_sequence(expected);
        let sent = self.broker.jetstream.send_publish(self.name.subject.clone(), publish).await;
        let sent = sent.map_err(|error| self.refusal(error))?;
        let stream = self.clone();
        Ok(Box::pin(async move {
            let taken = sent.await.map_err(|error| stream.refusal(error))?;
            Ok(taken.sequence)
        }))
    }

    async fn last_sequence(&self) -> Result<Option<u64>, RelayError> {
        let info = self.name.info(&self.broker).await?;
        Ok(info.map(|info| info.state.last_sequence))
    }

    async fn head_at(&self, sequence: u64) -> Result<Option<MessageHead>, RelayError> {
        let found = self.name.message(&self.broker, sequence).await?;
        Ok(found.and_then(|message| MessageHead::read(Some(&message.headers)).ok()))
    }

    async fn purge(&self, before: Option<u64>) -> Result<(), RelayError> {
        self.name.purge(&self.broker, before).await
    }

    async fn read_after(&self, sequence: u64) -> Result<Ordered, RelayError> {
        let stream = self.broker.jetstream.get_stream(&self.name.stream).await;
        let stream = stream.map_err(|error| self.name.not_usable(&self.broker, error))?;
        let deliver_policy = match sequence {
            0 => DeliverPolicy::All,
            last => DeliverPolicy::ByStartSequence { start_sequence: last + 1 },
        };
        let config = OrderedConfig { deliver_policy, ..OrderedConfig::default() };
        let consumer = stream.create_consumer(config).await;
        let consumer = consumer.map_err(|error| self.name.not_usable(&self.broker, error))?;
        consumer.messages().await.map_err(|error| self.name.not_usable(&self.broker, error))
    }

    async fn next(messages: &mut Ordered) -> Option<Result<(u64, StreamMessage), ReadFault>> {
        let message = match messages.next().await? {
            Ok(message) => message,
            Err(error) => return Some(Err(ReadFault::Broken(Box::new(error)))),
        };
        let sequence = match message.info() {
            Ok(info) => info.stream_sequence,
            Err(error) => return Some(Err(ReadFault::Broken(error))),
        };
        let head = match MessageHead::read(message.headers.as_ref()) {
            Ok(head) => head,
            Err(error) => return Some(Err(error.into())),
        };
        let payload = message.payload.clone();
        Some(Ok((sequence, StreamMessage { head, id: None, payload })))
    }
}
